/* SPDX-License-Identifier: Apache-2.0 */
/* The threads that a machine starts beside its vCPUs: an embedder's signals never run in them. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/thread.h"
#include "machine/vm.h"

struct look {
	struct loop_op op;
	struct hospes_vm *vm;
	enum thread_role role;
	bool usr1_blocked, term_blocked;
	sem_t looked;
};

static void look(struct loop_op *op, int result)
{
	struct look *l = container_of(op, struct look, op);
	sigset_t set;

	(void)result;
	pthread_sigmask(SIG_BLOCK, NULL, &set);
	l->usr1_blocked = sigismember(&set, SIGUSR1) == 1;
	l->term_blocked = sigismember(&set, SIGTERM) == 1;
	l->role = thread_role();
	/* The machine's thread ends with the machine. */
	if (l->vm)
		atomic_store(&l->vm->state, HOSPES_STOPPED);
	sem_post(&l->looked);
}

static struct hospes_vm *machine(void)
{
	struct hospes_vm *vm = calloc(1, sizeof(*vm));

	cr_assert_not_null(vm);
	list_init(&vm->commands);
	list_init(&vm->devices);
	hotplug_init(vm);
	pthread_mutex_init(&vm->mutex, NULL);
	pthread_cond_init(&vm->changed, NULL);
	return vm;
}

Test(machine_threads, io_threads_block_signals)
{
	struct look queue = {.op.done = look}, viommu = {.op.done = look};
	struct hospes_vm *vm = machine();
	struct err err = ERR_INIT;

	vm->config.io_threads = 1;
	cr_assert_eq(loop_create(&vm->io[0].loop, &(struct loop_config){0}, &err), 0);
	cr_assert_eq(loop_create(&vm->viommu_io.loop, &(struct loop_config){0}, &err), 0);
	cr_assert_eq(vm_start_io_threads(vm, &err), 0, "%s", err.text);
	loop_post(vm->io[0].loop, &queue.op);
	loop_post(vm->viommu_io.loop, &viommu.op);
	sem_wait(&queue.looked);
	sem_wait(&viommu.looked);
	vm_stop_io_threads(vm);
	cr_expect(queue.usr1_blocked && queue.term_blocked);
	cr_expect_eq(queue.role, THREAD_IO);
	cr_expect(viommu.usr1_blocked && viommu.term_blocked);
	cr_expect_eq(viommu.role, THREAD_VIOMMU);
	loop_destroy(vm->viommu_io.loop);
	loop_destroy(vm->io[0].loop);
	free(vm);
}

Test(machine_threads, the_machines_thread_blocks_signals)
{
	struct hospes_vm *vm = machine();
	struct look l = {.op.done = look, .vm = vm};
	struct err err = ERR_INIT;

	cr_assert_eq(loop_create(&vm->loop, &(struct loop_config){0}, &err), 0);
	cr_assert_eq(vm_start_thread(vm, &err), 0, "%s", err.text);
	loop_post(vm->loop, &l.op);
	vm_join_thread(vm);
	cr_expect(l.usr1_blocked && l.term_blocked);
	cr_expect_eq(l.role, THREAD_MACHINE);
	loop_destroy(vm->loop);
	free(vm);
}

static void woken(struct loop_op *op, int result)
{
	(void)op;
	(void)result;
}

Test(machine_threads, an_io_thread_whose_loop_fails_ends_the_machine, .timeout = 20)
{
	struct hospes_vm *vm = machine();
	struct err err = ERR_INIT;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	vm->wake.done = woken;
	vm->config.io_threads = 1;
	cr_assert_eq(loop_create(&vm->loop, &(struct loop_config){0}, &err), 0);
	cr_assert_eq(loop_create(&vm->io[0].loop, &(struct loop_config){0}, &err), 0);
	/* Its ring is none any more. */
	cr_assert_eq(dup3(null, loop_fd(vm->io[0].loop), O_CLOEXEC), loop_fd(vm->io[0].loop));
	cr_assert_eq(vm_start_io_threads(vm, &err), 0, "%s", err.text);
	cr_assert_eq(loop_iterate(vm->loop, true), 0);
	cr_expect_eq(atomic_load(&vm->request), VM_ERROR);
	cr_expect(strstr(vm->crash_text, "I/O thread"), "%s", vm->crash_text);
	vm_stop_io_threads(vm);
	loop_destroy(vm->io[0].loop);
	loop_destroy(vm->loop);
	free(vm);
	close(null);
}
