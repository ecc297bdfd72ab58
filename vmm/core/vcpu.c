// SPDX-License-Identifier: Apache-2.0
// vCPU threads: run, dispatch exits, park. See vcpu.h.
//
// A thread is in one of three places: KVM_RUN, a handler, or parked. It leaves KVM_RUN when kicked,
// and looks at `want` before each entry. Kicks are sent under the lock and only to threads that are
// not parked, and a thread drops stale kicks when it parks, under the same lock: none outlives its
// reason.
#include "core/vcpu.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/counter.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/probe.h"
#include "base/thread.h"
#include "core/bus.h"
#include "core/vcpu_exit.h"
#include "core/vcpu_gate.h"

enum { KERNEL_SIGSET_BYTES = 8 };

struct vcpu {
	/* Constant. */
	struct vcpus *all;
	unsigned int index;
	struct arch_vcpu *arch;
	struct kvm_run *run;
	pthread_t thread;
	bool started;
	struct thread_limits limits; /* its own, around those of all */
	int schedstat_fd;            /* of its thread, or -1 */
	/* Under the gate's lock. */
	bool parked;
	bool has_run;
	bool held; /* stays parked while the others run */
	/* Written under the gate's lock, read by anyone. */
	_Atomic bool out; /* of the machine: likewise */
	/* The thread's own. */
	bool half_done; /* the last exit wants another KVM_RUN to be complete */
	uint64_t round; /* of the resume that it runs for */
	/* Written by the thread, read by anyone. */
	_Atomic uint64_t exits[VCPU_EXIT_KINDS], exit_ns[VCPU_EXIT_KINDS];
};

struct vcpus {
	struct vcpus_config config; /* this and n are constant */
	struct vcpu_gate gate;      /* guards `round` and each `parked`, `has_run` too */
	uint64_t round;             /* counts resumes: an event holds its vCPU until the next */
	unsigned int n;
	struct vcpu vcpus[];
};

static int kick_signal(void)
{
	return SIGRTMIN;
}

/* The kernel's set, which is smaller than the C library's. */
static int set_run_mask(struct vcpu *v, struct err *err)
{
	struct {
		struct kvm_signal_mask head;
		uint8_t set[KERNEL_SIGSET_BYTES];
	} mask;
	uint64_t blocked = ~((uint64_t)1 << (kick_signal() - 1));
	int rc;

	mask.head.len = KERNEL_SIGSET_BYTES;
	memcpy(mask.head.sigset, &blocked, sizeof(blocked));
	rc = arch_vcpu_call(v->arch, KVM_SET_SIGNAL_MASK, &mask);
	return rc ? err_set(err, rc, "vcpu%u: KVM_SET_SIGNAL_MASK: %s", v->index, err_name(rc)) : 0;
}

static void drop_kicks(void)
{
	struct timespec none = {0, 0};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, kick_signal());
	while (sigtimedwait(&set, NULL, &none) > 0 || errno == EINTR)
		;
}

static void count(struct vcpu *v, enum vcpu_exit_kind kind, uint64_t since_ns)
{
	counter_add(&v->exits[kind], 1);
	counter_add(&v->exit_ns[kind], clock_ns() - since_ns);
}

/* Wait until this thread may run. False: it is to end. */
static bool park(struct vcpu *v, bool event)
{
	struct vcpus *all = v->all;
	int want;

	pthread_mutex_lock(&all->gate.lock);
	v->parked = true;
	drop_kicks();
	pthread_cond_broadcast(&all->gate.changed);
	for (;;) {
		want = atomic_load(&all->gate.want);
		if (want == VCPU_WANT_END ||
		    (want == VCPU_WANT_RUN && !v->held && !atomic_load(&v->out) &&
		     (!event || v->round != all->round)))
			break;
		pthread_cond_wait(&all->gate.changed, &all->gate.lock);
	}
	v->round = all->round;
	v->parked = false;
	v->has_run = true;
	pthread_mutex_unlock(&all->gate.lock);
	return want != VCPU_WANT_END;
}

static void report(struct vcpu *v, enum vcpu_event event, const char *text)
{
	if (v->all->config.event)
		v->all->config.event(v->all->config.opaque, v->index, event, text);
}

/* Dispatch one exit. False: an event was reported. */
static bool dispatch(struct vcpu *v)
{
	const struct vcpus_config *c = &v->all->config;
	uint64_t since_ns = clock_ns();
	char text[VCPU_EXIT_TEXT];
	enum vcpu_event event;
	enum vcpu_exit_kind kind;

	switch (v->run->exit_reason) {
	case KVM_EXIT_IO:
		probe_exit(v->index, KVM_EXIT_IO, v->run->io.port);
		vcpu_exit_io(v->run, c->pio);
		v->half_done = true;
		count(v, VCPU_EXIT_IO, since_ns);
		return true;
	case KVM_EXIT_MMIO:
		probe_exit(v->index, KVM_EXIT_MMIO, v->run->mmio.phys_addr);
		vcpu_exit_mmio(v->run, c->mmio);
		v->half_done = true;
		count(v, VCPU_EXIT_MMIO, since_ns);
		return true;
	default:
		break;
	}
	probe_exit(v->index, v->run->exit_reason, 0);
	kind = v->run->exit_reason == KVM_EXIT_INTR  ? VCPU_EXIT_INTR
	       : v->run->exit_reason == KVM_EXIT_HLT ? VCPU_EXIT_HLT
						     : VCPU_EXIT_OTHER;
	count(v, kind, since_ns);
	if (!vcpu_exit_event(v->run, &event, text))
		return true;
	report(v, event, text);
	return false;
}

/* One KVM_RUN and what it led to. False: an event was reported. */
static bool enter(struct vcpu *v)
{
	int rc = arch_vcpu_call(v->arch, KVM_RUN, NULL);

	v->half_done = false;
	switch (rc) {
	case 0:
		return dispatch(v);
	case -EINTR: {
		uint64_t since_ns = clock_ns();

		probe_exit(v->index, KVM_EXIT_INTR, 0);
		drop_kicks();
		count(v, VCPU_EXIT_INTR, since_ns);
		return true;
	}
	case -EAGAIN: /* it waits for its start-up interrupt */
		return true;
	default: {
		char text[VCPU_EXIT_TEXT];

		vcpu_exit_failure(v->run, rc, text);
		report(v, VCPU_INTERNAL_ERROR, text);
		return false;
	}
	}
}

/* KVM completes I/O at the next entry; with immediate_exit it does that and nothing more.
 * Completion may need further exits (string instructions, accesses that KVM splits). */
static bool complete_half_done(struct vcpu *v)
{
	bool go_on = true;

	v->run->immediate_exit = 1;
	while (v->half_done && go_on)
		go_on = enter(v);
	v->run->immediate_exit = 0;
	return go_on;
}

static bool may_run(const struct vcpu *v)
{
	return atomic_load(&v->all->gate.want) == VCPU_WANT_RUN && !atomic_load(&v->out);
}

static void *vcpu_main(void *opaque)
{
	struct vcpu *v = opaque;
	struct vcpus *all = v->all;
	bool event = false;

	vcpu_gate_own(&all->gate);
	while (park(v, event)) {
		event = false;
		while (!event && may_run(v))
			event = !enter(v);
		if (!event)
			event = !complete_half_done(v);
	}
	return NULL;
}

static void kick(struct vcpu *v)
{
	if (v->started && !v->parked)
		pthread_kill(v->thread, kick_signal());
}

static void kick_all(struct vcpus *all)
{
	for (unsigned int i = 0; i < all->n; i++)
		kick(&all->vcpus[i]);
}

/* One CPU at a time first, because sched_setaffinity ignores those that do not exist. */
static int pin(struct vcpu *v, const cpu_set_t *set, struct err *err)
{
	int rc;

	if (!CPU_COUNT(set))
		return 0;
	for (unsigned int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		cpu_set_t one;

		if (!CPU_ISSET(cpu, set))
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		rc = pthread_setaffinity_np(v->thread, sizeof(one), &one);
		if (rc)
			return err_set(
				err, -rc,
				"vcpu%u cannot be pinned to CPU %u: this host or its cpuset has no such CPU",
				v->index, cpu);
	}
	rc = pthread_setaffinity_np(v->thread, sizeof(*set), set);
	if (rc)
		return err_set(err, -rc, "vcpu%u cannot be pinned: %s", v->index, err_name(rc));
	return 0;
}

/* In the thread, while it may still open something: what the scheduler says of it. */
static int enter_limits(struct thread_limits *limits, enum thread_role role)
{
	struct vcpu *v = container_of(limits, struct vcpu, limits);
	struct thread_limits *of_all = v->all->config.limits;

	v->schedstat_fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
	return of_all ? of_all->enter(of_all, role) : 0;
}

static int start_thread(struct vcpu *v, struct err *err)
{
	int rc = thread_start(&v->thread, THREAD_VCPU, v->index, &v->limits, vcpu_main, v);

	if (rc)
		return err_set(err, rc, "vcpu%u: no thread: %s", v->index, err_name(rc));
	v->started = true;
	if (v->all->config.pin)
		return pin(v, &v->all->config.pin[v->index], err);
	return 0;
}

int vcpus_create(struct vcpus **ret, const struct vcpus_config *config, struct err *err)
{
	struct vcpus *all = calloc(1, sizeof(*all) + config->count * sizeof(all->vcpus[0]));
	int rc = 0;

	if (!all)
		return err_set(err, -ENOMEM, "no memory for %u vCPUs", config->count);
	all->config = *config;
	if (!all->config.leave_ns)
		all->config.leave_ns = VCPU_LEAVE_NS;
	vcpu_gate_init(&all->gate);
	for (unsigned int i = 0; !rc && i < config->count; i++) {
		struct vcpu *v = &all->vcpus[i];

		v->all = all;
		v->index = i;
		v->limits.enter = enter_limits;
		v->schedstat_fd = -1;
		rc = arch_vcpu_create(&v->arch, config->vm, i, err);
		if (rc)
			break;
		all->n++;
		v->run = arch_vcpu_run(v->arch);
		rc = set_run_mask(v, err);
		if (!rc)
			rc = start_thread(v, err);
	}
	if (rc) {
		vcpus_destroy(all);
		return rc;
	}
	/* The caller's array may go. */
	all->config.pin = NULL;
	*ret = all;
	return 0;
}

void vcpus_destroy(struct vcpus *all)
{
	if (!all)
		return;
	pthread_mutex_lock(&all->gate.lock);
	atomic_store(&all->gate.want, VCPU_WANT_END);
	kick_all(all);
	pthread_cond_broadcast(&all->gate.changed);
	pthread_mutex_unlock(&all->gate.lock);
	for (unsigned int i = 0; i < all->n; i++) {
		if (all->vcpus[i].started)
			pthread_join(all->vcpus[i].thread, NULL);
	}
	for (unsigned int i = 0; i < all->n; i++) {
		fd_close(&all->vcpus[i].schedstat_fd);
		arch_vcpu_destroy(all->vcpus[i].arch);
	}
	vcpu_gate_done(&all->gate);
	free(all);
}

struct arch_vcpu *vcpus_get(struct vcpus *all, unsigned int index)
{
	return all->vcpus[index].arch;
}

void vcpus_resume(struct vcpus *all)
{
	pthread_mutex_lock(&all->gate.lock);
	for (unsigned int i = 0; i < all->n; i++) {
		if (all->vcpus[i].parked && all->vcpus[i].has_run)
			arch_vcpu_resumed(all->vcpus[i].arch);
	}
	all->round++;
	atomic_store(&all->gate.want, VCPU_WANT_RUN);
	pthread_cond_broadcast(&all->gate.changed);
	pthread_mutex_unlock(&all->gate.lock);
}

void vcpus_hold(struct vcpus *all, unsigned int index, bool held)
{
	pthread_mutex_lock(&all->gate.lock);
	all->vcpus[index].held = held;
	pthread_mutex_unlock(&all->gate.lock);
}

void vcpus_plug(struct vcpus *all, unsigned int index, bool in)
{
	struct vcpu *v = &all->vcpus[index];

	pthread_mutex_lock(&all->gate.lock);
	atomic_store(&v->out, !in);
	if (!in)
		kick(v);
	pthread_cond_broadcast(&all->gate.changed);
	pthread_mutex_unlock(&all->gate.lock);
}

bool vcpus_is_in(struct vcpus *all, unsigned int index)
{
	return !atomic_load(&all->vcpus[index].out);
}

static bool all_parked(const struct vcpus *all)
{
	for (unsigned int i = 0; i < all->n; i++) {
		if (all->vcpus[i].started && !all->vcpus[i].parked)
			return false;
	}
	return true;
}

int vcpus_pause(struct vcpus *all)
{
	struct timespec until = clock_timespec(clock_ns() + all->config.leave_ns);
	bool parked;
	int rc = 0;

	pthread_mutex_lock(&all->gate.lock);
	atomic_store(&all->gate.want, VCPU_WANT_PAUSE);
	kick_all(all);
	pthread_cond_broadcast(&all->gate.changed); /* vcpu_wait */
	while (!(parked = all_parked(all)) && !rc)
		rc = pthread_cond_timedwait(&all->gate.changed, &all->gate.lock, &until);
	pthread_mutex_unlock(&all->gate.lock);
	return parked ? 0 : -ETIMEDOUT;
}

/* "CPU WAITED SLICES", in ns (kernel: Documentation/scheduler/sched-stats.rst). */
static bool steal(const struct vcpu *v, uint64_t *ret)
{
	char text[64];
	ssize_t n = v->schedstat_fd < 0 ? -1 : pread(v->schedstat_fd, text, sizeof(text) - 1, 0);
	char *waited;

	if (n <= 0)
		return false;
	text[n] = '\0';
	waited = strchr(text, ' ');
	if (!waited)
		return false;
	*ret = strtoull(waited, NULL, 10);
	return true;
}

void vcpus_stats(struct vcpus *all, unsigned int index, struct vcpu_stats *ret)
{
	struct vcpu *v = &all->vcpus[index];
	struct timespec cpu;
	clockid_t clock;

	*ret = (struct vcpu_stats){0};
	for (unsigned int k = 0; k < VCPU_EXIT_KINDS; k++) {
		ret->exits[k] = counter_read(&v->exits[k]);
		ret->exit_ns[k] = counter_read(&v->exit_ns[k]);
	}
	if (v->started && !pthread_getcpuclockid(v->thread, &clock) && !clock_gettime(clock, &cpu))
		ret->cpu_ns = (uint64_t)cpu.tv_sec * NS_PER_S + (uint64_t)cpu.tv_nsec;
	ret->has_steal = steal(v, &ret->steal_ns);
}
