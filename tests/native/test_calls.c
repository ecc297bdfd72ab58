// SPDX-License-Identifier: Apache-2.0
// Calls on a machine from threads that do not run it: before its start, and several starts at a
// time.
#include <criterion/criterion.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "base/num.h"
#include "machine/vm.h"
#include "virtio/virtio.h"
#include "rig.h"

static struct rig rig;

static void set_up(void)
{
	rig_init(&rig, true);
}

static void tear_down(void)
{
	rig_done(&rig);
}

/* A call that never returns is ended by the time-out. */
TestSuite(calls, .init = set_up, .fini = tear_down, .timeout = 30);

struct caller {
	struct hospes_vm *vm;
	pthread_barrier_t *together;
	int (*fn)(struct hospes_vm *vm, struct hospes_error *error);
	int result;
};

static void *call(void *opaque)
{
	struct caller *c = opaque;
	struct hospes_error error;

	if (c->together)
		pthread_barrier_wait(c->together);
	c->result = c->fn(c->vm, &error);
	return NULL;
}

static int call_elsewhere(struct hospes_vm *vm,
			  int (*fn)(struct hospes_vm *vm, struct hospes_error *error))
{
	struct caller c = {.vm = vm, .fn = fn};
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, call, &c), 0);
	pthread_join(thread, NULL);
	return c.result;
}

static int ask_status(struct hospes_vm *vm, struct hospes_error *error)
{
	char *text;
	int rc = hospes_vm_status(vm, &text, error);

	if (!rc)
		hospes_free(text);
	return rc;
}

Test(calls, before_the_start_return_to_another_thread)
{
	struct hospes_vm *vm = rig_create(&rig, rig_least, HOSPES_VM_THREAD);

	cr_assert_eq(call_elsewhere(vm, ask_status), 0);
	cr_assert_eq(call_elsewhere(vm, hospes_vm_pause), -EBUSY);
	cr_assert_eq(call_elsewhere(vm, hospes_vm_stop), 0);
	cr_assert_eq(hospes_vm_state(vm), HOSPES_STOPPED);
	cr_assert_eq(call_elsewhere(vm, hospes_vm_start), -EBUSY);
	hospes_vm_destroy(vm);
}

Test(calls, another_thread_may_start_it)
{
	struct hospes_vm *vm = rig_create(&rig, rig_everything, HOSPES_VM_THREAD);

	cr_assert_eq(call_elsewhere(vm, hospes_vm_start), 0);
	cr_assert_eq(hospes_vm_state(vm), HOSPES_RUNNING);
	cr_assert_eq(call_elsewhere(vm, hospes_vm_stop), 0);
	cr_assert_eq(call_elsewhere(vm, ask_status), 0);
	hospes_vm_destroy(vm);
}

Test(calls, of_several_starts_one_succeeds)
{
	enum { CALLERS = 8, ROUNDS = 20 };
	unsigned int threads = rig_threads(UINT_MAX), fds = rig_fds();

	for (int round = 0; round < ROUNDS; round++) {
		struct hospes_vm *vm = rig_create(&rig, rig_everything, HOSPES_VM_THREAD);
		struct caller callers[CALLERS];
		pthread_t thread[CALLERS];
		pthread_barrier_t together;
		unsigned int started = 0;

		pthread_barrier_init(&together, NULL, CALLERS);
		for (int i = 0; i < CALLERS; i++) {
			callers[i] = (struct caller){vm, &together, hospes_vm_start, 0};
			cr_assert_eq(pthread_create(&thread[i], NULL, call, &callers[i]), 0);
		}
		for (int i = 0; i < CALLERS; i++) {
			pthread_join(thread[i], NULL);
			started += callers[i].result == 0;
			cr_assert(callers[i].result == 0 || callers[i].result == -EBUSY);
		}
		pthread_barrier_destroy(&together);
		cr_assert_eq(started, 1u);
		hospes_vm_destroy(vm);
		cr_assert_eq(rig_threads(threads), threads);
		cr_assert_eq(rig_fds(), fds);
	}
}

/* --- what only the machine's thread may do --- */

static void *remove_first(void *opaque)
{
	vm_device_remove(vm_next_device(opaque, NULL, NULL));
	return NULL;
}

static void *end_it(void *opaque)
{
	vm_end(opaque, HOSPES_OUTCOME_KILLED, "");
	return NULL;
}

/* Runs fn elsewhere, which is to end this process; so nothing is left to it. */
static void do_elsewhere(struct hospes_vm *vm, void *(*fn)(void *opaque))
{
	pthread_t thread;

	rig_done(&rig);
	cr_assert_eq(pthread_create(&thread, NULL, fn, vm), 0);
	pthread_join(thread, NULL);
}

Test(calls, no_other_thread_may_remove_a_device, .signal = SIGABRT)
{
	do_elsewhere(rig_create(&rig, rig_least, 0), remove_first);
}

Test(calls, no_other_thread_may_end_the_machine, .signal = SIGABRT)
{
	do_elsewhere(rig_create(&rig, rig_least, 0), end_it);
}

Test(calls, nor_may_its_creator_where_the_library_runs_it, .signal = SIGABRT)
{
	struct hospes_vm *vm = rig_create(&rig, rig_least, HOSPES_VM_THREAD);

	cr_assert_eq(hospes_vm_start(vm, NULL), 0);
	rig_done(&rig);
	end_it(vm);
}

static int pause_inside(struct hospes_vm *vm, void *arg, struct err *err)
{
	return vm_call(vm, vm_do_pause, arg, err);
}

Test(calls, may_be_made_inside_another_before_the_start)
{
	struct hospes_vm *vm = rig_create(&rig, rig_least, HOSPES_VM_THREAD);

	cr_expect_eq(vm_call(vm, pause_inside, NULL, NULL), -EBUSY);
	hospes_vm_destroy(vm);
}

Test(calls, set_what_a_disk_and_a_net_may_move_and_refuse_what_has_no_rate)
{
	struct hospes_vm *vm = rig_create(&rig, rig_everything, 0);
	struct hospes_error error;
	const struct virtio_rate *rate = vm_find_device(vm, "disk", "rw", NULL)->vdev->rates;

	cr_assert_eq(hospes_vm_set_rate(vm, "rw", 1 << 20, 500, &error), 0, "%s", error.text);
	cr_assert_eq(hospes_vm_set_rate(vm, "rw", HOSPES_KEEP, 7, &error), 0, "%s", error.text);
	cr_assert_eq(rate->bytes_per_s, 1 << 20);
	cr_assert_eq(rate->ops_per_s, 7);
	cr_assert_eq(hospes_vm_set_rate(vm, "plain", 0, 7, &error), 0, "%s", error.text);
	cr_assert_eq(hospes_vm_set_rate(vm, "rw", 1023, 0, &error), -EINVAL);
	cr_assert(strstr(error.text, "at least 1024"), "%s", error.text);
	cr_assert_eq(rate->ops_per_s, 7, "nothing has changed");
	cr_assert_eq(hospes_vm_set_rate(vm, "rw", 0, 1ull << 32, &error), -EINVAL);
	cr_assert_eq(hospes_vm_set_rate(vm, "console0", 0, 1, &error), -EOPNOTSUPP);
	cr_assert_eq(hospes_vm_set_rate(vm, "nobody", 0, 1, &error), -ENOENT);
	cr_assert_eq(hospes_vm_set_rate(vm, "rw", 0, 0, &error), 0, "%s", error.text);
	cr_assert_eq(rate->bytes_per_s, 0);
	hospes_vm_destroy(vm);
}

Test(calls, rates_of_the_document_hold_from_the_start)
{
	static const char document[] =
		"{\"memory\": {\"size\": \"32M\"}, \"kernel\": {\"path\": \"{dir}/kernel\","
		" \"cache\": false}, \"disks\": [{\"id\": \"d\", \"path\": \"{dir}/disk\","
		" \"bytes_per_s\": \"10M\", \"ops_per_s\": 100}]}";
	struct hospes_vm *vm = rig_create(&rig, document, 0);
	struct hospes_error error;
	char *status;

	cr_assert_eq(hospes_vm_status(vm, &status, &error), 0);
	cr_assert(strstr(status, "\"bytes_per_s\": 10485760"), "%s", status);
	cr_assert(strstr(status, "\"ops_per_s\": 100"), "%s", status);
	hospes_free(status);
	hospes_vm_destroy(vm);
}
