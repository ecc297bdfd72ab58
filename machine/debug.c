// SPDX-License-Identifier: Apache-2.0
// The machine as a debugger's target. See debug.h.
#include "machine/debug.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "core/debug.h"
#include "gdb/server.h"
#include "machine/vm.h"

enum { MAX_SOFT = 256, PAGE_BYTES = 4096 };

struct soft_break {
	uint64_t gva, gpa;
	uint8_t saved[DEBUG_TRAP_BYTES];
};

struct vm_debug {
	struct gdb_server *server;
	struct gdb_target target;
	char description[DEBUG_TEXT];
	bool holds; /* the debugger has stopped the machine */
	/* For the vCPUs; step is each one's own. */
	struct debug_setup setup;
	bool step[GDB_MAX_THREADS];
	struct soft_break soft[MAX_SOFT];
	unsigned int n_soft;
	/* A vCPU's thread sets it, and posts. */
	_Atomic bool hit[GDB_MAX_THREADS];
	/* Accesses that were seen together with the stop that was reported. */
	struct gdb_stop late[GDB_MAX_THREADS];
	bool is_late[GDB_MAX_THREADS];
};

static struct debug_setup setup_of(const struct vm_debug *d, unsigned int i)
{
	struct debug_setup setup = d->setup;

	setup.step = d->step[i];
	return setup;
}

static enum hospes_state state_of(const struct hospes_vm *vm)
{
	return (enum hospes_state)atomic_load(&vm->state);
}

/* --- memory --- */

/* Each page where the vCPU finds it; how many bytes could be copied. The gpa of the first is for
 * the caller. */
static size_t copy(struct hospes_vm *vm, unsigned int thread, uint64_t gva, uint8_t *to,
		   const uint8_t *from, size_t n)
{
	size_t done = 0;

	while (done < n) {
		uint64_t gpa;
		size_t some = MIN(n - done, (size_t)(PAGE_BYTES - (gva + done) % PAGE_BYTES));
		int rc = arch_debug_translate(vcpus_get(vm->vcpus, thread), gva + done, &gpa);

		if (!rc)
			rc = to ? gmem_read(vm->gmem, gpa, to + done, some)
				: gmem_write(vm->gmem, gpa, from + done, some);
		if (rc)
			break;
		done += some;
	}
	return done;
}

static int read_memory(void *opaque, unsigned int thread, uint64_t gva, uint8_t *buf, size_t n)
{
	size_t done = copy(opaque, thread, gva, buf, NULL, n);

	return n && !done ? -EFAULT : (int)done;
}

static int write_memory(void *opaque, unsigned int thread, uint64_t gva, const uint8_t *buf,
			size_t n)
{
	return copy(opaque, thread, gva, NULL, buf, n) == n ? 0 : -EFAULT;
}

/* --- breakpoints --- */

static int insert_soft(struct hospes_vm *vm, unsigned int thread, uint64_t gva)
{
	struct vm_debug *d = vm->debug;
	struct soft_break b = {.gva = gva};
	int rc;

	for (unsigned int i = 0; i < d->n_soft; i++) {
		if (d->soft[i].gva == gva)
			return 0;
	}
	if (d->n_soft == MAX_SOFT)
		return -ENOSPC;
	rc = arch_debug_translate(vcpus_get(vm->vcpus, thread), gva, &b.gpa);
	if (!rc)
		rc = gmem_read(vm->gmem, b.gpa, b.saved, sizeof(b.saved));
	if (!rc)
		rc = gmem_write(vm->gmem, b.gpa, arch_debug_trap, sizeof(arch_debug_trap));
	if (!rc)
		d->soft[d->n_soft++] = b;
	return rc;
}

/* What the guest has put there meanwhile stays. */
static void restore(struct hospes_vm *vm, const struct soft_break *b)
{
	uint8_t now[DEBUG_TRAP_BYTES];

	if (gmem_read(vm->gmem, b->gpa, now, sizeof(now)) == 0 &&
	    memcmp(now, arch_debug_trap, sizeof(now)) == 0)
		gmem_write(vm->gmem, b->gpa, b->saved, sizeof(b->saved));
}

static void remove_soft(struct hospes_vm *vm, uint64_t gva)
{
	struct vm_debug *d = vm->debug;

	for (unsigned int i = 0; i < d->n_soft; i++) {
		if (d->soft[i].gva == gva) {
			restore(vm, &d->soft[i]);
			d->soft[i] = d->soft[--d->n_soft];
			return;
		}
	}
}

static bool has_soft(const struct vm_debug *d, uint64_t gva)
{
	for (unsigned int i = 0; i < d->n_soft; i++) {
		if (d->soft[i].gva == gva)
			return true;
	}
	return false;
}

/* Its place in the setup, or n_hard. */
static unsigned int find_hard(const struct debug_setup *setup, const struct debug_point *point)
{
	unsigned int i = 0;

	while (i < setup->n_hard &&
	       (setup->hard[i].kind != point->kind || setup->hard[i].gva != point->gva ||
		setup->hard[i].bytes != point->bytes))
		i++;
	return i;
}

static int insert(void *opaque, unsigned int thread, const struct debug_point *point)
{
	struct hospes_vm *vm = opaque;
	struct debug_setup *setup = &vm->debug->setup;

	if (point->kind == DEBUG_BREAK_SOFT)
		return insert_soft(vm, thread, point->gva);
	if (point->kind == DEBUG_BREAK_READ) /* gdb makes one of ACCESS */
		return -EOPNOTSUPP;
	if (find_hard(setup, point) < setup->n_hard)
		return 0;
	if (setup->n_hard == DEBUG_HARD)
		return -ENOSPC;
	setup->hard[setup->n_hard++] = *point;
	return 0;
}

static int remove_point(void *opaque, const struct debug_point *point)
{
	struct hospes_vm *vm = opaque;
	struct debug_setup *setup = &vm->debug->setup;
	unsigned int i = find_hard(setup, point);

	if (point->kind == DEBUG_BREAK_SOFT)
		remove_soft(vm, point->gva);
	else if (point->kind == DEBUG_BREAK_READ)
		return -EOPNOTSUPP;
	else if (i < setup->n_hard)
		setup->hard[i] = setup->hard[--setup->n_hard];
	return 0;
}

/* --- running and stopping --- */

static int get_regs(void *opaque, unsigned int thread, uint8_t regs[DEBUG_REGS_BYTES])
{
	struct hospes_vm *vm = opaque;

	return arch_debug_get_regs(vcpus_get(vm->vcpus, thread), regs);
}

static int set_regs(void *opaque, unsigned int thread, const uint8_t regs[DEBUG_REGS_BYTES])
{
	struct hospes_vm *vm = opaque;

	return arch_debug_set_regs(vcpus_get(vm->vcpus, thread), regs);
}

static void describe(void *opaque, unsigned int thread, char *text, size_t bytes)
{
	struct hospes_vm *vm = opaque;
	bool waits = arch_debug_waits(vcpus_get(vm->vcpus, thread));

	if (!vcpus_is_in(vm->vcpus, thread))
		snprintf(text, bytes, "vCPU %u [not in the machine]", thread);
	else
		snprintf(text, bytes, "vCPU %u [%s]", thread, waits ? "waiting" : "running");
}

/* The machine stands still, by whomever, and is the debugger's from now on. */
static int take(struct hospes_vm *vm)
{
	struct err err = ERR_INIT;
	int rc = vm_do_pause(vm, NULL, &err);

	if (rc)
		log_error(&vm->log, "gdb", "%s", err.text);
	else
		vm->debug->holds = true;
	return rc;
}

/* Is an access to be reported that came with another stop? Only if it is still watched for. */
static bool is_still_to_say(struct vm_debug *d, unsigned int i)
{
	if (!d->is_late[i])
		return false;
	d->is_late[i] = false;
	for (unsigned int k = 0; k < d->setup.n_hard; k++) {
		if (d->setup.hard[k].gva == d->late[i].gva)
			return true;
	}
	return false;
}

static int resume(void *opaque, const enum gdb_action *actions)
{
	struct hospes_vm *vm = opaque;
	struct vm_debug *d = vm->debug;
	struct err err = ERR_INIT;
	int rc = 0;

	for (unsigned int i = 0; i < d->target.n_threads; i++) {
		if (actions[i] != GDB_HOLD && is_still_to_say(d, i)) {
			gdb_server_stopped(d->server, &d->late[i]);
			return 0;
		}
	}
	d->setup.on = true;
	for (unsigned int i = 0; i < d->target.n_threads && !rc; i++) {
		struct debug_setup setup;

		d->step[i] = actions[i] == GDB_STEP;
		setup = setup_of(d, i);
		vcpus_hold(vm->vcpus, i, actions[i] == GDB_HOLD);
		rc = arch_debug_set(vcpus_get(vm->vcpus, i), &setup);
	}
	if (rc)
		return rc;
	d->holds = false;
	rc = vm_do_resume(vm, NULL, &err);
	if (rc) {
		d->holds = state_of(vm) == HOSPES_PAUSED;
		log_error(&vm->log, "gdb", "%s", err.text);
	}
	return rc;
}

static void interrupt(void *opaque)
{
	struct hospes_vm *vm = opaque;
	const struct gdb_stop stop = {.reason = GDB_INTERRUPTED};

	if (take(vm) == 0)
		gdb_server_stopped(vm->debug->server, &stop);
}

/* As if there had been no debugger. The vCPUs are paused. */
static void leave_no_trace(struct hospes_vm *vm)
{
	static const struct debug_setup none;
	struct vm_debug *d = vm->debug;

	while (d->n_soft)
		remove_soft(vm, d->soft[0].gva);
	d->setup = none;
	for (unsigned int i = 0; i < d->target.n_threads; i++) {
		d->step[i] = d->is_late[i] = false;
		atomic_store(&d->hit[i], false);
		vcpus_hold(vm->vcpus, i, false);
		arch_debug_set(vcpus_get(vm->vcpus, i), &none);
	}
}

static void detach(void *opaque)
{
	struct hospes_vm *vm = opaque;
	struct err err = ERR_INIT;
	bool running = state_of(vm) == HOSPES_RUNNING, held;

	if (running && vm_pause_vcpus(vm, &err) != 0) {
		/* The next hit brings us here again. */
		log_error(&vm->log, "gdb", "%s", err.text);
		return;
	}
	leave_no_trace(vm);
	held = vm->debug->holds;
	vm->debug->holds = false;
	if (running)
		vcpus_resume(vm->vcpus);
	else if (held && vm_do_resume(vm, NULL, &err) != 0)
		log_error(&vm->log, "gdb", "%s", err.text);
}

static void end(void *opaque)
{
	vm_end(opaque, HOSPES_OUTCOME_KILLED, "ended by the debugger");
}

static const struct gdb_target_ops target_ops = {
	.get_regs = get_regs,
	.set_regs = set_regs,
	.read = read_memory,
	.write = write_memory,
	.insert = insert,
	.remove = remove_point,
	.resume = resume,
	.interrupt = interrupt,
	.describe = describe,
	.detach = detach,
	.kill = end,
};

/* --- stops of vCPUs --- */

void vm_debug_hit(struct hospes_vm *vm, unsigned int index)
{
	if (!vm->debug)
		return;
	atomic_store(&vm->debug->hit[index], true);
	loop_post(vm->loop, &vm->wake);
}

/* Why the vCPU stopped, for the debugger. False: it was not for the debugger. */
static bool explain(struct hospes_vm *vm, unsigned int i, struct gdb_stop *stop)
{
	static const enum gdb_reason reasons[] = {
		[DEBUG_BREAK_EXECUTE] = GDB_HARD_BREAK,
		[DEBUG_BREAK_WRITE] = GDB_WATCH,
		[DEBUG_BREAK_ACCESS] = GDB_ACCESS,
	};
	struct vm_debug *d = vm->debug;
	const struct debug_setup setup = setup_of(d, i);
	struct debug_stop why;

	arch_debug_why(vcpus_get(vm->vcpus, i), &setup, &why);
	*stop = (struct gdb_stop){.reason = GDB_STEPPED, .thread = i};
	switch (why.cause) {
	case DEBUG_STEPPED:
		return true;
	case DEBUG_TRAPPED:
		stop->reason = GDB_SOFT_BREAK;
		return has_soft(d, why.gva);
	case DEBUG_HIT:
		stop->reason = reasons[setup.hard[why.hard].kind];
		stop->gva = setup.hard[why.hard].gva;
		return true;
	}
	return true;
}

/* The first of them is reported. Of the others, one at a breakpoint has executed nothing and stops
 * again when it goes on; one that has made an access is reported then. */
static bool find_stop(struct hospes_vm *vm, struct gdb_stop *ret)
{
	struct vm_debug *d = vm->debug;
	bool found = false;

	for (unsigned int i = 0; i < d->target.n_threads; i++) {
		const struct debug_setup setup = setup_of(d, i);
		struct gdb_stop stop;

		if (!atomic_exchange(&d->hit[i], false))
			continue;
		if (!explain(vm, i, &stop)) {
			/* A trap of the guest's own: for its debugger, or its kernel. */
			arch_debug_give_trap(vcpus_get(vm->vcpus, i), &setup);
		} else if (!found) {
			*ret = stop;
			found = true;
		} else if (stop.reason == GDB_WATCH || stop.reason == GDB_ACCESS) {
			d->late[i] = stop;
			d->is_late[i] = true;
		}
	}
	return found;
}

static bool is_hit(const struct vm_debug *d)
{
	for (unsigned int i = 0; i < d->target.n_threads; i++) {
		if (atomic_load(&d->hit[i]))
			return true;
	}
	return false;
}

static void handle_hits(struct hospes_vm *vm)
{
	struct vm_debug *d = vm->debug;
	bool running = state_of(vm) == HOSPES_RUNNING;
	struct err err = ERR_INIT;
	struct gdb_stop stop;

	if (!gdb_server_has_client(d->server)) {
		detach(vm);
		return;
	}
	if (running && vm_pause_vcpus(vm, &err) != 0) {
		log_error(&vm->log, "gdb", "%s", err.text);
		return;
	}
	if (!find_stop(vm, &stop)) {
		if (running)
			vcpus_resume(vm->vcpus);
	} else if (take(vm) == 0) {
		gdb_server_stopped(d->server, &stop);
	}
}

void vm_debug_act(struct hospes_vm *vm)
{
	enum hospes_state state = state_of(vm);

	if (!vm->debug || state == HOSPES_CREATED || state == HOSPES_STOPPED)
		return;
	if (is_hit(vm->debug))
		handle_hits(vm);
	gdb_server_act(vm->debug->server);
}

/* --- the machine's life --- */

static int attach(void *opaque)
{
	return take(opaque);
}

int vm_debug_create(struct hospes_vm *vm, struct err *err)
{
	const struct config_gdb *config = &vm->config.gdb;
	struct vm_debug *d;
	struct gdb_server_config server = {
		.log = &vm->log,
		.loop = vm->loop,
		.path = config->path,
		.fd = config->fd,
		.attach = attach,
		.lost = detach,
		.opaque = vm,
	};
	int rc;

	if (!config->path && config->fd < 0)
		return 0;
	rc = arch_debug_check(vm->arch, err);
	if (rc)
		return rc;
	if (!mem_new(d))
		return err_set(err, -ENOMEM, "gdb: no memory");
	arch_debug_describe(d->description);
	d->target = (struct gdb_target){
		.ops = &target_ops,
		.opaque = vm,
		.n_threads = vm->config.cpus.max,
		.description = d->description,
	};
	d->target.n_regs = arch_debug_regs(d->target.regs);
	server.target = &d->target;
	rc = gdb_server_create(&d->server, &server, err);
	if (rc)
		free(d);
	else
		vm->debug = d;
	return rc;
}

void vm_debug_destroy(struct hospes_vm *vm)
{
	if (!vm->debug)
		return;
	gdb_server_destroy(vm->debug->server);
	free(vm->debug);
	vm->debug = NULL;
}

bool vm_debug_waits(const struct hospes_vm *vm)
{
	return vm->debug && vm->config.gdb.wait;
}

bool vm_debug_holds(const struct hospes_vm *vm)
{
	return vm->debug && vm->debug->holds;
}

void vm_debug_ended(struct hospes_vm *vm)
{
	enum hospes_outcome outcome = (enum hospes_outcome)atomic_load(&vm->outcome);
	bool well = outcome == HOSPES_OUTCOME_POWERED_OFF || outcome == HOSPES_OUTCOME_RESET;

	if (!vm->debug)
		return;
	vm->debug->holds = false;
	gdb_server_exited(vm->debug->server, well ? 0 : 1);
}

bool vm_debug_attached(const struct hospes_vm *vm)
{
	return vm->debug && gdb_server_has_client(vm->debug->server);
}

json_t *vm_debug_status(const struct hospes_vm *vm)
{
	const struct vm_debug *d = vm->debug;

	if (!d)
		return NULL;
	return json_pack("{s:b, s:b}", "attached", gdb_server_has_client(d->server), "stopped",
			 d->holds);
}
