// SPDX-License-Identifier: Apache-2.0
// The machine's thread: its turns, calls from other threads, what the guest asked for, and the
// states created → running ⇄ paused → stopped.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/thread.h"
#include "machine/vm.h"

/* Resets by the guest: so many at once, then one a second. */
#define RESET_COST_NS NS_PER_S
enum { RESET_BURST = 10 };

void vm_emit_device(struct hospes_vm *vm, enum hospes_event_type type, int value, const char *text,
		    const char *id)
{
	const struct hospes_event event = {
		.size = sizeof(event), .type = type, .value = value, .text = text, .device = id};

	if (vm->options.event)
		vm->options.event(vm->options.event_opaque, &event);
}

void vm_emit(struct hospes_vm *vm, enum hospes_event_type type, int value, const char *text)
{
	vm_emit_device(vm, type, value, text, NULL);
}

static void set_state(struct hospes_vm *vm, enum hospes_state state)
{
	static const char *const names[] = {"created", "running", "paused", "stopped"};

	vm_assert_own_thread(vm);
	atomic_store(&vm->state, (int)state);
	log_debug(&vm->log, "vm", "%s", names[state]);
	vm_emit(vm, HOSPES_EVENT_STATE, (int)state, "");
}

/* --- from vCPU and I/O threads: record and post --- */

/* The first request counts: on hardware nothing runs after a reset or a power off, while here the
 * vCPUs go on until the machine's thread stops them. Linux, for one, faults on purpose 50 µs after
 * it has written the reset port. */
void vm_request(struct hospes_vm *vm, enum vm_request request)
{
	int none = 0;

	atomic_compare_exchange_strong(&vm->request, &none, (int)request);
	loop_post(vm->loop, &vm->wake);
}

void vm_platform_event(void *opaque, enum platform_event event)
{
	struct hospes_vm *vm = opaque;

	switch (event) {
	case PLATFORM_POWER_OFF:
		vm_request(vm, VM_POWER_OFF);
		break;
	case PLATFORM_RESET:
		vm_request(vm, VM_RESET);
		break;
	case PLATFORM_PANICKED:
		vm_request(vm, VM_PANIC);
		break;
	case PLATFORM_CRASH_LOADED:
		log_guest(&vm->log, &vm->guest_limit, "vm",
			  "the guest's kernel panicked and goes on in its crash kernel");
		break;
	}
}

/* The first to fail gives the message; the others fail for the same reason. */
static void fail(struct hospes_vm *vm, enum vm_request request, const char *text)
{
	pthread_mutex_lock(&vm->mutex);
	if (!vm->crash_text[0])
		snprintf(vm->crash_text, sizeof(vm->crash_text), "%s", text);
	pthread_mutex_unlock(&vm->mutex);
	vm_request(vm, request);
}

void vm_vcpu_event(void *opaque, unsigned int index, enum vcpu_event event, const char *text)
{
	struct hospes_vm *vm = opaque;
	char line[sizeof(vm->crash_text)];

	switch (event) {
	case VCPU_RESET:
		vm_request(vm, VM_RESET);
		return;
	case VCPU_POWER_OFF:
		vm_request(vm, VM_POWER_OFF);
		return;
	case VCPU_CRASH:
		vm_request(vm, VM_PANIC);
		return;
	case VCPU_DEBUG:
		vm_debug_hit(vm, index);
		return;
	case VCPU_SHUTDOWN:
	case VCPU_INTERNAL_ERROR:
		break;
	}
	snprintf(line, sizeof(line), "vCPU %u: %s", index,
		 event == VCPU_SHUTDOWN ? "triple fault" : text);
	fail(vm, event == VCPU_SHUTDOWN ? VM_CRASH : VM_ERROR, line);
}

/* --- state changes, in the machine's thread, outside loop callbacks --- */

static const char stuck_text[] =
	"a vCPU does not come out of an exit: a driver or storage of this host does not answer";

/* Pause, or let all go on that are out. */
int vm_pause_vcpus(struct hospes_vm *vm, struct err *err)
{
	int rc;

	vm_assert_own_thread(vm);
	rc = vcpus_pause(vm->vcpus);
	if (!rc)
		return 0;
	if (atomic_load(&vm->state) == HOSPES_RUNNING)
		vcpus_resume(vm->vcpus);
	return err_set(err, rc, "%s", stuck_text);
}

void vm_quiesce_devices(struct hospes_vm *vm)
{
	for (unsigned int phase = 0; phase < 2; phase++) {
		list_for_each (item, &vm->plugged) {
			struct device *dev = container_of(item, struct device, link);

			if (dev->ops->quiesce)
				dev->ops->quiesce(dev, phase);
		}
	}
}

static void resume_devices(struct hospes_vm *vm)
{
	list_for_each (item, &vm->plugged) {
		struct device *dev = container_of(item, struct device, link);

		if (dev->ops->resume)
			dev->ops->resume(dev);
	}
}

/* Of every vCPU that is in the machine, paused; NULL without memory. */
static char *registers(struct hospes_vm *vm)
{
	enum { VCPU_BYTES = 4096 };
	unsigned int bytes = cpus_count(vm) * VCPU_BYTES;
	char *text = malloc(bytes);
	unsigned int used = 0;

	for (unsigned int i = 0; text && i < vm->config.cpus.max; i++) {
		if (vcpus_is_in(vm->vcpus, i))
			used += (unsigned int)arch_vcpu_dump(
				vcpus_get(vm->vcpus, i), text + used,
				MIN(bytes - used, (unsigned int)VCPU_BYTES));
	}
	return text;
}

static void log_registers(struct hospes_vm *vm)
{
	char *text = registers(vm);
	char *save = NULL;

	for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line;
	     line = strtok_r(NULL, "\n", &save))
		log_error(&vm->log, "vcpu", "%s", line);
	free(text);
}

/* Nothing of the guest's moves any more. False: a vCPU is stuck in an exit, and with it the lock of
 * a device, so that none is waited for. */
static bool make_still(struct hospes_vm *vm)
{
	vm->stuck = vcpus_pause(vm->vcpus) != 0;
	if (!vm->stuck && atomic_load(&vm->state) != HOSPES_PAUSED)
		vm_quiesce_devices(vm);
	return !vm->stuck;
}

void vm_end_vcpus(struct hospes_vm *vm)
{
	vcpus_destroy(vm->vcpus);
	vm->vcpus = NULL;
	if (vm->stuck)
		vm_quiesce_devices(vm);
}

void vm_end(struct hospes_vm *vm, enum hospes_outcome outcome, const char *text)
{
	bool still;

	vm_assert_own_thread(vm);
	if (atomic_load(&vm->state) == HOSPES_STOPPED)
		return;
	still = make_still(vm);
	if (!still)
		log_error(&vm->log, "vm", "%s", stuck_text);
	else if (outcome == HOSPES_OUTCOME_PANICKED || outcome == HOSPES_OUTCOME_ERROR)
		log_registers(vm);
	atomic_store(&vm->outcome, (int)outcome);
	vm_emit(vm, HOSPES_EVENT_OUTCOME, (int)outcome, text);
	vm_debug_ended(vm);
	vm_dump_ended(vm);
	vm_migrate_ended(vm);
	vm_arrival_ended(vm);
	/* The state is what waiters look at, so it comes last. */
	pthread_mutex_lock(&vm->mutex);
	set_state(vm, HOSPES_STOPPED);
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->mutex);
}

static int reset(struct hospes_vm *vm, struct err *err)
{
	bool running = atomic_load(&vm->state) == HOSPES_RUNNING;
	int rc;

	hotplug_before_reset(vm);
	rc = vm_pause_vcpus(vm, err);
	if (rc)
		return rc;
	list_for_each (item, &vm->plugged) {
		struct device *dev = container_of(item, struct device, link);

		if (dev->ops->reset)
			dev->ops->reset(dev);
	}
	/* What the guest asked for before the reset is void. */
	atomic_store(&vm->request, 0);
	vm->reset_paid = false;
	vm->crash_text[0] = '\0';
	rc = arch_vm_reset(vm->arch, err);
	if (!rc)
		rc = vm_prepare_boot(vm, err);
	if (rc)
		return rc;
	vm->resets++;
	vm_migrate_reset(vm);
	log_info(&vm->log, "vm", "reset");
	vm_emit(vm, HOSPES_EVENT_RESET, (int)vm->resets, "");
	if (running)
		vcpus_resume(vm->vcpus);
	return 0;
}

static void handle_reset(struct hospes_vm *vm)
{
	struct err err = ERR_INIT;

	if (vm->config.on_reset == CONFIG_ON_RESET_STOP) {
		vm_end(vm, HOSPES_OUTCOME_RESET, "the guest asked for a reset");
	} else if (reset(vm, &err) != 0) {
		log_error(&vm->log, "vm", "reset: %s", err.text);
		vm_end(vm, HOSPES_OUTCOME_ERROR, err.text);
	}
}

static void reset_timer_done(struct loop_op *op, int result)
{
	struct hospes_vm *vm = container_of(op, struct hospes_vm, reset_timer);

	(void)result;
	vm->reset_waits = false;
}

/* A guest that does nothing but reset would keep this thread, the log and the embedder busy: past
 * its budget it waits, with its vCPUs out. A paused machine is reset when it is resumed. */
static bool reset_has_to_wait(struct hospes_vm *vm)
{
	uint64_t wait_ns;

	if (atomic_load(&vm->state) == HOSPES_PAUSED)
		return true;
	if (!vm->reset_waits && !vm->reset_paid) {
		wait_ns = budget_spend(&vm->reset_budget, clock_ns(), RESET_COST_NS,
				       RESET_BURST * RESET_COST_NS);
		vm->reset_paid = true;
		if (wait_ns) {
			log_guest(&vm->log, &vm->guest_limit, "vm",
				  "the guest resets itself again and again: it has to wait");
			vm->reset_timer.done = reset_timer_done;
			vm->reset_waits = true;
			loop_timer(vm->loop, &vm->reset_timer, wait_ns);
		}
	}
	if (vm->reset_waits)
		vcpus_pause(vm->vcpus);
	return vm->reset_waits;
}

void vm_lifecycle_done(struct hospes_vm *vm)
{
	if (vm->reset_waits)
		loop_cancel(vm->loop, &vm->reset_timer);
	hotplug_cancel(vm);
	parts_cancel(&vm->cpus.parts);
	parts_cancel(&vm->memory.parts);
	while ((vm->reset_waits || vm->hotplug.timer_set || vm->cpus.parts.timer_set ||
		vm->memory.parts.timer_set) &&
	       loop_iterate(vm->loop, true) >= 0)
		;
}

static void handle_request(struct hospes_vm *vm)
{
	int request = atomic_load(&vm->request);

	if (!request || atomic_load(&vm->state) == HOSPES_STOPPED)
		return;
	if (request == VM_RESET && vm->config.on_reset != CONFIG_ON_RESET_STOP &&
	    reset_has_to_wait(vm))
		return;
	atomic_store(&vm->request, 0);
	switch ((enum vm_request)request) {
	case VM_ERROR:
	case VM_CRASH:
		log_error(&vm->log, "vm", "%s", vm->crash_text);
		vm_end(vm, request == VM_ERROR ? HOSPES_OUTCOME_ERROR : HOSPES_OUTCOME_CRASHED,
		       vm->crash_text);
		break;
	case VM_PANIC:
		log_error(&vm->log, "vm", "the guest's kernel panicked");
		vm_end(vm, HOSPES_OUTCOME_PANICKED, "the guest's kernel panicked");
		break;
	case VM_POWER_OFF:
		log_info(&vm->log, "vm", "the guest powered off");
		vm_end(vm, HOSPES_OUTCOME_POWERED_OFF, "the guest powered off");
		break;
	case VM_RESET:
		handle_reset(vm);
		break;
	}
}

int vm_wrong_state(struct hospes_vm *vm, const char *verb, struct err *err)
{
	static const char *const names[] = {"not started", "running", "paused", "stopped"};

	return err_set(err, -EBUSY, "cannot %s: the machine is %s", verb,
		       names[atomic_load(&vm->state)]);
}

int vm_do_start(struct hospes_vm *vm, void *arg, struct err *err)
{
	(void)arg;
	if (atomic_load(&vm->state) != HOSPES_CREATED)
		return vm_wrong_state(vm, "start", err);
	if (vm_arrival_waits(vm)) { /* its devices are quiet, and stay so until it has come */
		set_state(vm, HOSPES_PAUSED);
		vm_arrival_begin(vm);
		return 0;
	}
	if (vm_debug_waits(vm)) {
		if (!vm->snapshot.loaded)
			vm_quiesce_devices(vm);
		set_state(vm, HOSPES_PAUSED);
		return 0;
	}
	if (vm->snapshot.loaded)
		resume_devices(vm);
	set_state(vm, HOSPES_RUNNING);
	vcpus_resume(vm->vcpus);
	return 0;
}

int vm_do_pause(struct hospes_vm *vm, void *arg, struct err *err)
{
	int rc;

	(void)arg;
	/* A machine that is paused for a dump then stays so. */
	vm_dump_then(vm, false);
	if (atomic_load(&vm->state) == HOSPES_PAUSED)
		return 0;
	if (atomic_load(&vm->state) != HOSPES_RUNNING)
		return vm_wrong_state(vm, "pause", err);
	rc = vm_pause_vcpus(vm, err);
	if (rc)
		return rc;
	vm_quiesce_devices(vm);
	set_state(vm, HOSPES_PAUSED);
	return 0;
}

int vm_do_resume(struct hospes_vm *vm, void *arg, struct err *err)
{
	int rc;

	(void)arg;
	if (atomic_load(&vm->state) == HOSPES_RUNNING)
		return 0;
	if (atomic_load(&vm->state) != HOSPES_PAUSED)
		return vm_wrong_state(vm, "resume", err);
	if (vm_debug_holds(vm))
		return err_set(err, -EBUSY,
			       "cannot resume: the debugger has stopped the machine; continue "
			       "there, or detach it");
	if (vm_dump_then(vm, true))
		return 0; /* when it is written */
	rc = vm_migrate_may_resume(vm, err);
	if (rc)
		return rc;
	resume_devices(vm);
	set_state(vm, HOSPES_RUNNING);
	vcpus_resume(vm->vcpus);
	return 0;
}

int vm_do_reset(struct hospes_vm *vm, void *arg, struct err *err)
{
	int rc;

	(void)arg;
	if (atomic_load(&vm->state) != HOSPES_RUNNING && atomic_load(&vm->state) != HOSPES_PAUSED)
		return vm_wrong_state(vm, "reset", err);
	if (vm->dump)
		return err_set(err, -EBUSY,
			       "cannot reset: a dump is being written; GET /v1/events says when "
			       "it is done");
	/* Not by hand: memory would have to be sent again, all of it. */
	rc = vm_migrate_refuses(vm, "reset", err);
	if (rc)
		return rc;
	/* A paused machine's devices are quiet: let them go on, so that they can be reset. */
	if (atomic_load(&vm->state) == HOSPES_PAUSED)
		resume_devices(vm);
	rc = reset(vm, err);
	if (rc)
		vm_end(vm, HOSPES_OUTCOME_ERROR, err ? err->text : "reset failed");
	else if (atomic_load(&vm->state) == HOSPES_PAUSED)
		vm_quiesce_devices(vm);
	return rc;
}

int vm_do_registers(struct hospes_vm *vm, void *arg, struct err *err)
{
	bool running = atomic_load(&vm->state) == HOSPES_RUNNING;
	char **text = arg;
	int rc = running ? vm_pause_vcpus(vm, err) : 0;

	/* KVM lets nobody else look while a vCPU is in the guest. Devices go on. */
	if (rc)
		return rc;
	*text = registers(vm);
	if (running)
		vcpus_resume(vm->vcpus);
	return *text ? 0 : err_set(err, -ENOMEM, "no memory");
}

int vm_do_stop(struct hospes_vm *vm, void *arg, struct err *err)
{
	(void)arg;
	if (vm->stuck)
		make_still(vm);
	else
		vm_end(vm, HOSPES_OUTCOME_KILLED, "stopped");
	return vm->stuck ? err_set(err, -ETIMEDOUT, "%s", stuck_text) : 0;
}

/* --- calls and turns --- */

void vm_own(struct hospes_vm *vm, bool own)
{
	atomic_store(&vm->owner, own ? pthread_self() : 0);
}

/* In this thread, while the machine has none: false when it has. */
static bool call_here(struct hospes_vm *vm, const struct vm_command *call, struct err *err,
		      int *result)
{
	bool here;

	pthread_mutex_lock(&vm->acting);
	pthread_mutex_lock(&vm->mutex);
	here = vm->no_thread;
	pthread_mutex_unlock(&vm->mutex);
	if (here) {
		vm_own(vm, true);
		*result = call->fn(vm, call->arg, err);
		vm_own(vm, false);
	}
	pthread_mutex_unlock(&vm->acting);
	return here;
}

static void give_up(struct vm_command *command)
{
	if (!command->arg) {
		command->abandoned = true;
		return;
	}
	list_remove(&command->link);
	free(command);
}

/* With vm->mutex held, which is let go while waiting. False: it is late, and not ours any more. */
static bool await(struct hospes_vm *vm, struct vm_command *command)
{
	struct timespec until = clock_timespec(clock_ns() + vm->call_ns);
	bool late = false;

	while (!command->done && !(late && !(command->running && command->arg)))
		late |= pthread_cond_timedwait(&vm->changed, &vm->mutex, &until) == ETIMEDOUT;
	if (command->done)
		return true;
	give_up(command);
	return false;
}

static int call_locked(struct hospes_vm *vm, const struct vm_command *call, struct err *err)
{
	struct vm_command *command;
	int result;

	if (!mem_new(command))
		return err_set(err, -ENOMEM, "no memory");
	*command = *call;
	list_append(&vm->commands, &command->link);
	loop_post(vm->loop, &vm->wake);
	if (!await(vm, command))
		return err_set(err, -ETIMEDOUT,
			       "the machine has not answered for %u s: a driver or storage of "
			       "this host does not",
			       (unsigned int)(vm->call_ns / NS_PER_S));
	result = command->result;
	if (err && result)
		*err = command->err;
	free(command);
	return result;
}

/* In the machine's thread: false when that has ended. */
static bool call_there(struct hospes_vm *vm, const struct vm_command *call, struct err *err,
		       int *result)
{
	bool there;

	pthread_mutex_lock(&vm->mutex);
	there = !vm->no_thread;
	if (there)
		*result = call_locked(vm, call, err);
	pthread_mutex_unlock(&vm->mutex);
	return there;
}

int vm_call(struct hospes_vm *vm, int (*fn)(struct hospes_vm *vm, void *arg, struct err *err),
	    void *arg, struct err *err)
{
	const struct vm_command call = {.fn = fn, .arg = arg};
	int result = 0;

	if (vm_is_own_thread(vm))
		return fn(vm, arg, err);
	while (!call_here(vm, &call, err, &result) && !call_there(vm, &call, err, &result))
		;
	return result;
}

/* With vm->mutex held, which is let go around each call. */
static void run_commands_locked(struct hospes_vm *vm)
{
	while (!list_empty(&vm->commands)) {
		struct vm_command *command =
			container_of(list_pop(&vm->commands), struct vm_command, link);
		int result;

		command->running = true;
		pthread_mutex_unlock(&vm->mutex);
		result = command->fn(vm, command->arg, &command->err);
		pthread_mutex_lock(&vm->mutex);
		command->result = result;
		command->done = true;
		if (command->abandoned)
			free(command);
		pthread_cond_broadcast(&vm->changed);
	}
}

int vm_iterate(struct hospes_vm *vm, bool wait)
{
	int rc;

	vm_assert_own_thread(vm);
	if (atomic_load(&vm->state) == HOSPES_STOPPED)
		wait = false; /* only calls of other threads can still come */
	rc = loop_iterate(vm->loop, wait);
	if (rc < 0) {
		log_error(&vm->log, "vm", "the event loop failed: %s", err_name(rc));
		vm_end(vm, HOSPES_OUTCOME_ERROR, "the event loop failed");
		return rc;
	}
	vm_debug_act(vm);
	pthread_mutex_lock(&vm->mutex);
	run_commands_locked(vm);
	pthread_mutex_unlock(&vm->mutex);
	vm_act(vm);
	parts_act(&vm->cpus.parts);
	parts_act(&vm->memory.parts);
	vm_dump_act(vm);
	vm_migrate_act(vm);
	vm_arrival_act(vm);
	handle_request(vm);
	return atomic_load(&vm->state) == HOSPES_STOPPED ? 0 : 1;
}

static void *machine_thread(void *opaque)
{
	struct hospes_vm *vm = opaque;

	vm_own(vm, true);
	while (vm_iterate(vm, true) > 0)
		;
	pthread_mutex_lock(&vm->mutex);
	run_commands_locked(vm);
	vm->no_thread = true;
	vm_own(vm, false);
	pthread_mutex_unlock(&vm->mutex);
	return NULL;
}

int vm_start_thread(struct hospes_vm *vm, struct err *err)
{
	int rc;

	pthread_mutex_lock(&vm->mutex);
	vm->no_thread = false;
	pthread_mutex_unlock(&vm->mutex);
	rc = thread_start(&vm->thread, THREAD_MACHINE, 0, sandbox_limits(vm->sandbox),
			  machine_thread, vm);
	vm->thread_running = !rc;
	if (!rc)
		return 0;
	pthread_mutex_lock(&vm->mutex);
	vm_own(vm, true);
	run_commands_locked(vm);
	vm_own(vm, false);
	vm->no_thread = true;
	pthread_mutex_unlock(&vm->mutex);
	return err_set(err, rc, "cannot start a thread: %s", err_name(rc));
}

void vm_join_thread(struct hospes_vm *vm)
{
	if (!vm->thread_running)
		return;
	pthread_join(vm->thread, NULL);
	vm->thread_running = false;
	vm_own(vm, true);
}

static void *io_thread(void *opaque)
{
	struct vm_io_thread *io = opaque;
	int rc = loop_run(io->loop);
	char text[80];

	/* Its queues stand still: the machine cannot go on. */
	if (rc) {
		snprintf(text, sizeof(text), "the event loop of an I/O thread failed: %s",
			 err_name(rc));
		fail(io->vm, VM_ERROR, text);
	}
	return NULL;
}

static int start_io_thread(struct hospes_vm *vm, struct vm_io_thread *io, enum thread_role role,
			   unsigned int index, struct err *err)
{
	int rc;

	io->vm = vm;
	rc = thread_start(&io->thread, role, index, sandbox_limits(vm->sandbox), io_thread, io);
	if (rc)
		return err_set(err, rc, "cannot start an I/O thread: %s", err_name(rc));
	io->running = true;
	return 0;
}

static void stop_io_thread(struct vm_io_thread *io)
{
	if (!io->running)
		return;
	loop_stop(io->loop);
	pthread_join(io->thread, NULL);
	io->running = false;
}

int vm_start_io_threads(struct hospes_vm *vm, struct err *err)
{
	int rc = 0;

	for (unsigned int i = 0; i < vm->config.io_threads && !rc; i++)
		rc = start_io_thread(vm, &vm->io[i], THREAD_IO, i, err);
	if (!rc && vm->viommu_io.loop)
		rc = start_io_thread(vm, &vm->viommu_io, THREAD_VIOMMU, 0, err);
	return rc;
}

void vm_stop_io_threads(struct hospes_vm *vm)
{
	/* First who may be waiting for the others. */
	stop_io_thread(&vm->viommu_io);
	/* All that there can be: a document that was refused does not say how many there are. */
	for (size_t i = 0; i < ARRAY_SIZE(vm->io); i++)
		stop_io_thread(&vm->io[i]);
}

int vm_start_threads(struct hospes_vm *vm, struct err *err)
{
	int rc = 0;

	pthread_mutex_lock(&vm->acting);
	if (!vm->threads_started && atomic_load(&vm->state) == HOSPES_CREATED) {
		rc = vm_start_io_threads(vm, err);
		if (!rc && vm->options.flags & HOSPES_VM_THREAD)
			rc = vm_start_thread(vm, err);
		if (rc)
			vm_stop_io_threads(vm);
		vm->threads_started = !rc;
	}
	pthread_mutex_unlock(&vm->acting);
	return rc;
}
