// SPDX-License-Identifier: Apache-2.0
// Threads by role. See thread.h.
#include "base/thread.h"

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>

enum {
	NAME_BYTES = 16, /* the kernel keeps no more */
};

static const struct role {
	const char *name;
	bool several;
	size_t stack_bytes; /* 0: as the C library has it */
} roles[THREAD_ROLES] = {
	[THREAD_FOREIGN] = {.name = "foreign"},
	[THREAD_VCPU] = {.name = "vcpu", .several = true, .stack_bytes = 256 * 1024},
	[THREAD_IO] = {.name = "io", .several = true},
	[THREAD_MACHINE] = {.name = "machine"},
	[THREAD_VIOMMU] = {.name = "viommu"},
	[THREAD_LOADER] = {.name = "loader"},
	[THREAD_HELPER] = {.name = "help", .several = true},
};

static _Thread_local enum thread_role own_role;

/* The starting thread's, which waits until `entered`. */
struct start {
	enum thread_role role;
	struct thread_limits *limits;
	void *(*fn)(void *opaque);
	void *opaque;
	char name[NAME_BYTES];
	int result;
	sem_t entered;
};

static void *thread_main(void *opaque)
{
	struct start *start = opaque;
	void *(*fn)(void *) = start->fn;
	void *fn_opaque = start->opaque;
	int rc = 0;

	own_role = start->role;
	pthread_setname_np(pthread_self(), start->name);
	if (start->limits)
		rc = start->limits->enter(start->limits, start->role);
	start->result = rc;
	sem_post(&start->entered); /* start is gone from here on */
	return rc ? NULL : fn(fn_opaque);
}

static int create(pthread_t *ret, const struct role *role, struct start *start)
{
	sigset_t all, before;
	pthread_attr_t attr;
	int rc = pthread_attr_init(&attr);

	if (rc)
		return -rc;
	if (role->stack_bytes)
		pthread_attr_setstacksize(&attr, role->stack_bytes);
	/* A thread inherits the mask, so there is no moment in which a signal may come. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(ret, &attr, thread_main, start);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return -rc;
}

int thread_start(pthread_t *ret, enum thread_role role, unsigned int index,
		 struct thread_limits *limits, void *(*fn)(void *opaque), void *opaque)
{
	struct start start = {.role = role, .limits = limits, .fn = fn, .opaque = opaque};
	int rc;

	if (roles[role].several)
		snprintf(start.name, sizeof(start.name), "hospes-%s%u", roles[role].name, index);
	else
		snprintf(start.name, sizeof(start.name), "hospes-%s", roles[role].name);
	sem_init(&start.entered, 0, 0);
	rc = create(ret, &roles[role], &start);
	if (!rc) {
		while (sem_wait(&start.entered))
			;
		rc = start.result;
		if (rc)
			pthread_join(*ret, NULL);
	}
	sem_destroy(&start.entered);
	return rc;
}

const char *thread_role_name(enum thread_role role)
{
	return roles[role].name;
}

enum thread_role thread_role(void)
{
	return own_role;
}
