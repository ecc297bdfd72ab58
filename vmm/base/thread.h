/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads by role: every thread of the product is started here, and by nothing else (tools/lint).
 *
 * A thread is named after its role ("hospes-vcpu0") and blocks all signals: those of an embedder
 * are for its own threads. What else a role implies (today the size of its stack) is one row of a
 * table in thread.c, and what it may ask of the kernel, of those in sandbox/.
 *
 * A role is no lock: it says what a thread does, not what it may touch. Each structure says in its
 * header what guards it.
 */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <pthread.h>

enum thread_role {
	THREAD_FOREIGN, /* not started here: the embedder's, a test's */
	THREAD_VCPU,    /* runs a vCPU and its exits */
	THREAD_IO,      /* runs a loop that serves queues */
	THREAD_MACHINE, /* runs the machine's own loop and its life cycle */
	THREAD_VIOMMU,  /* runs the loop that serves the virtual IOMMU */
	THREAD_LOADER,  /* puts the guest's kernel into its memory */
	THREAD_HELPER,  /* shares one long task with the thread that waits for it */
	THREAD_ROLES,
};

/* What limits a thread from its start to its end (sandbox/sandbox.h). It outlives the threads. */
struct thread_limits {
	/* In the thread, before anything else is. 0, or a negative errno: it ends, unused. */
	int (*enter)(struct thread_limits *limits, enum thread_role role);
};

/* Start fn(opaque) in a thread of this role; index (from 0) is part of the name of a role that
 * several threads have. limits NULL: those of the thread that starts it. 0 and *ret, to be joined
 * by the caller, or a negative errno. Any thread; the caller's signal mask is as before. */
int thread_start(pthread_t *ret, enum thread_role role, unsigned int index,
		 struct thread_limits *limits, void *(*fn)(void *opaque), void *opaque);

/* "vcpu": as in the threads' names. Static storage. */
const char *thread_role_name(enum thread_role role);

/* The calling thread's. */
enum thread_role thread_role(void);

#endif
