/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gate that vCPU threads pass before each entry into the guest, and what handlers of their
 * exits ask of it. Work in an exit is bounded by time, since whoever pauses the machine waits for
 * it.
 */
#ifndef CORE_VCPU_GATE_H
#define CORE_VCPU_GATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* For handlers, in the vCPU's thread; in other threads false, and no wait. */
/* Does somebody wait for this vCPU to come out of its exit? A handler whose work can be long looks
 * here between its steps, and leaves the rest to another thread. */
bool vcpu_wanted_out(void);
/* Make the guest wait: for ns, or until the vCPU is wanted out. Under no lock. */
void vcpu_wait(uint64_t ns);

/* For vcpu.c. */
enum vcpu_want { VCPU_WANT_PAUSE, VCPU_WANT_RUN, VCPU_WANT_END };

struct vcpu_gate {
	pthread_mutex_t lock;
	pthread_cond_t changed; /* monotonic; what the lock guards has changed */
	_Atomic int want;       /* enum vcpu_want: written under the lock, read by anyone */
};

void vcpu_gate_init(struct vcpu_gate *gate);
void vcpu_gate_done(struct vcpu_gate *gate);
/* The calling thread is a vCPU's, behind this gate, until it ends. */
void vcpu_gate_own(struct vcpu_gate *gate);

#endif
