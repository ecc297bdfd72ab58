/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vCPU threads: run the guest, dispatch its exits, pause.
 *
 * A kick makes KVM_RUN return without any process-wide signal handler: one real-time signal is
 * blocked in the vCPU threads and let through by KVM_SET_SIGNAL_MASK only inside KVM_RUN, where its
 * arrival ends the call; it is then taken off by sigtimedwait. No handler is installed, so an
 * embedder's signals are its own, except that SIGRTMIN sent to the whole process may end here.
 *
 *   vcpus_create ──► paused ⇄ running ──► vcpus_destroy
 *
 * Threads: create, pause, resume, destroy by one thread at a time (the machine's). Events are
 * delivered in the vCPU's thread, through the callback, which must only record and post. What both
 * sides use is guarded by a lock of its own or atomic; a vCPU's arch state belongs to its thread,
 * and to the caller of vcpus_pause until vcpus_resume.
 */
#ifndef CORE_VCPU_H
#define CORE_VCPU_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"
#include "base/thread.h"
#include "core/arch.h"

struct vcpus; /* all vCPUs of a machine */

enum vcpu_event {
	VCPU_SHUTDOWN,       /* triple fault */
	VCPU_RESET,          /* KVM_SYSTEM_EVENT_RESET */
	VCPU_POWER_OFF,      /* KVM_SYSTEM_EVENT_SHUTDOWN */
	VCPU_CRASH,          /* KVM_SYSTEM_EVENT_CRASH */
	VCPU_DEBUG,          /* a breakpoint or a step (core/debug.h) */
	VCPU_INTERNAL_ERROR, /* KVM_EXIT_INTERNAL_ERROR, FAIL_ENTRY, unknown exit: text says
			      * which */
};

struct vcpus_config {
	const struct log *log;
	struct arch_vm *vm;
	unsigned int count;
	struct bus *mmio;
	struct bus *pio;
	/* After an event the vCPU waits as if paused; text is valid during the call. */
	void (*event)(void *opaque, unsigned int index, enum vcpu_event event, const char *text);
	void *opaque;
	struct thread_limits *limits; /* of the threads; NULL: the caller's */
	const cpu_set_t *pin;         /* array of count, or NULL; an empty set pins nothing */
	uint64_t leave_ns;            /* how long vcpus_pause waits; 0: VCPU_LEAVE_NS */
};

/* Handlers are bounded in time (vcpu_gate.h), so a vCPU that is still in one after this is held by
 * something of the host that does not answer. */
#define VCPU_LEAVE_NS 10000000000ull

/* Why KVM_RUN returned. */
enum vcpu_exit_kind {
	VCPU_EXIT_IO,
	VCPU_EXIT_MMIO,
	VCPU_EXIT_INTR,
	VCPU_EXIT_HLT,
	VCPU_EXIT_OTHER,
	VCPU_EXIT_KINDS,
};

/* What a vCPU has done so far: for status, tests and benchmarks. */
struct vcpu_stats {
	uint64_t exits[VCPU_EXIT_KINDS];   /* returns of KVM_RUN to user space */
	uint64_t exit_ns[VCPU_EXIT_KINDS]; /* from there until the guest could be entered again */
	uint64_t cpu_ns;                   /* of its thread: the guest, KVM, and hospes */
	uint64_t steal_ns; /* its thread could run, and waited for a CPU of the host */
	bool has_steal;    /* the host's kernel counts that (CONFIG_SCHED_INFO) */
};

/* Creates vCPUs and their threads, which wait paused. The affinity is checked here (-EINVAL names
 * the CPU the host has not). */
int vcpus_create(struct vcpus **ret, const struct vcpus_config *config, struct err *err);
/* Stops and joins; NULL allowed. */
void vcpus_destroy(struct vcpus *all);
struct arch_vcpu *vcpus_get(struct vcpus *all, unsigned int index);

/* Let all run. */
void vcpus_resume(struct vcpus *all);
/* Wait until every vCPU is out of KVM_RUN and of every handler, so that nothing of theirs changes
 * until vcpus_resume. Exits that KVM left half done (an I/O read whose data is not yet taken) are
 * completed first, so that state can be read. -ETIMEDOUT: one of them does not come out; the others
 * are out and it will park when it does, but what it holds (the lock of a device) may be held until
 * then. Not from a vCPU thread. */
int vcpus_pause(struct vcpus *all);

/* While they are paused: whether this one stays so when the others are resumed, until it is changed
 * by another call. At first none is held. */
void vcpus_hold(struct vcpus *all, unsigned int index, bool held);

/* Whether this one is in the machine; at first all are. One that is out never enters the guest,
 * whatever the guest sends it, and counts as paused: its thread, and what KVM has of it, which KVM
 * cannot give up alone, wait for its next time. Any time: one that was in the guest leaves it soon,
 * and has when vcpus_pause has returned. It comes back as it was, so it is reset before (which
 * wants all of them paused). */
void vcpus_plug(struct vcpus *all, unsigned int index, bool in);
bool vcpus_is_in(struct vcpus *all, unsigned int index);

/* Any thread. */
void vcpus_stats(struct vcpus *all, unsigned int index, struct vcpu_stats *ret);

#endif
