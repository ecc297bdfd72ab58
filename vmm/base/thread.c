// SPDX-License-Identifier: Apache-2.0
// Threads by role. See thread.h.
#include "base/thread.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

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

struct start {
	enum thread_role role;
	void *(*fn)(void *opaque);
	void *opaque;
	char name[NAME_BYTES];
};

static void *thread_main(void *opaque)
{
	struct start start = *(struct start *)opaque;

	free(opaque);
	own_role = start.role;
	pthread_setname_np(pthread_self(), start.name);
	return start.fn(start.opaque);
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
		 void *(*fn)(void *opaque), void *opaque)
{
	struct start *start = malloc(sizeof(*start));
	int rc;

	if (!start)
		return -ENOMEM;
	*start = (struct start){.role = role, .fn = fn, .opaque = opaque};
	if (roles[role].several)
		snprintf(start->name, sizeof(start->name), "hospes-%s%u", roles[role].name, index);
	else
		snprintf(start->name, sizeof(start->name), "hospes-%s", roles[role].name);
	rc = create(ret, &roles[role], start);
	if (rc)
		free(start);
	return rc;
}

enum thread_role thread_role(void)
{
	return own_role;
}
