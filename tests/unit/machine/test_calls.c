/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of other threads, where the machine's thread does not answer; and what a guest may make it
 * do. */
#include <criterion/criterion.h>
#include <errno.h>
#include <semaphore.h>

#include "machine/vm.h"

static sem_t entered, release;

static void held(struct loop_op *op, int result)
{
	(void)op;
	(void)result;
	sem_post(&entered);
	sem_wait(&release);
}

static void woken(struct loop_op *op, int result)
{
	(void)op;
	(void)result;
}

static int end(struct hospes_vm *vm, void *arg, struct err *err)
{
	(void)arg;
	(void)err;
	atomic_store(&vm->state, HOSPES_STOPPED);
	return 0;
}

static int touch(struct hospes_vm *vm, void *arg, struct err *err)
{
	(void)vm;
	(void)err;
	*(int *)arg = 1;
	return 0;
}

static int fail(struct hospes_vm *vm, void *arg, struct err *err)
{
	(void)vm;
	(void)arg;
	return err_set(err, -EBUSY, "not now");
}

static struct loop_op holder = {.done = held};
static struct hospes_vm *vm;
static struct err err = ERR_INIT;

static void set_up(void)
{
	pthread_condattr_t attr;

	vm = calloc(1, sizeof(*vm));
	cr_assert_not_null(vm);
	list_init(&vm->commands);
	list_init(&vm->devices);
	hotplug_init(vm);
	pthread_mutex_init(&vm->mutex, NULL);
	sem_init(&entered, 0, 0);
	sem_init(&release, 0, 0);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&vm->changed, &attr);
	vm->wake.done = woken;
	vm->call_ns = 10 * NS_PER_MS;
	atomic_store(&vm->state, HOSPES_RUNNING);
	cr_assert_eq(loop_create(&vm->loop, &(struct loop_config){0}, &err), 0);
	cr_assert_eq(vm_start_thread(vm, &err), 0, "%s", err.text);
}

static void tear_down(void)
{
	vm_join_thread(vm);
	loop_destroy(vm->loop);
	free(vm);
}

static void hold(void)
{
	loop_post(vm->loop, &holder);
	sem_wait(&entered);
}

TestSuite(machine_calls, .init = set_up, .fini = tear_down);

Test(machine_calls, one_that_is_not_answered_gives_up_and_is_done_later)
{
	hold();
	cr_expect_eq(vm_call(vm, end, NULL, &err), -ETIMEDOUT);
	cr_expect(strstr(err.text, "has not answered"), "%s", err.text);
	cr_expect_eq(atomic_load(&vm->state), HOSPES_RUNNING);
	sem_post(&release);
	vm_join_thread(vm);
	cr_expect_eq(atomic_load(&vm->state), HOSPES_STOPPED);
}

Test(machine_calls, one_with_data_of_the_caller_is_dropped_when_it_gives_up)
{
	int touched = 0;

	hold();
	cr_expect_eq(vm_call(vm, touch, &touched, &err), -ETIMEDOUT);
	cr_expect_eq(vm_call(vm, end, NULL, &err), -ETIMEDOUT);
	sem_post(&release);
	vm_join_thread(vm);
	cr_expect_eq(touched, 0);
}

Test(machine_calls, an_answer_and_its_text_come_back)
{
	int touched = 0;

	vm->call_ns = 60 * NS_PER_S;
	cr_expect_eq(vm_call(vm, touch, &touched, &err), 0);
	cr_expect_eq(touched, 1);
	cr_expect_eq(vm_call(vm, fail, NULL, &err), -EBUSY);
	cr_expect_str_eq(err.text, "not now");
	cr_expect_eq(vm_call(vm, end, NULL, &err), 0);
}

static unsigned int lines;

static void count(void *opaque, enum log_level level, const char *component, const char *text)
{
	(void)opaque;
	(void)level;
	(void)component;
	(void)text;
	lines++;
}

Test(machine_calls, a_guest_that_says_all_the_time_that_it_panicked_is_reported_now_and_then)
{
	vm->log = (struct log){.fn = count, .level = LOG_WARN};
	for (unsigned int i = 0; i < 10000; i++)
		vm_platform_event(vm, PLATFORM_CRASH_LOADED);
	cr_expect_leq(lines, 100u, "%u lines", lines);
	vm_call(vm, end, NULL, &err);
}
