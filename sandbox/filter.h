/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The filter of system calls (seccomp(2)): by role, a table of what is asked for (filter_table.c),
 * ioctls by request.
 *
 * A verdict other than FILTER_ALLOW:
 * - FILTER_REFUSE: -EACCES. It is what a program gets anyway without the right, and ours try it: to
 *   explain a failure, for example. FILTER_ABSENT: -ENOSYS, so that the C library asks in the way
 *   that can be judged.
 * - FILTER_STOP: SIGSYS, which ends the process unless it has a handler. That is for calls that
 *   only foreign code makes.
 * - a call in no table: as the policy says.
 *
 * The programs are made here, since a library that makes them costs more at the start than all
 * that they are for.
 */
#ifndef SANDBOX_FILTER_H
#define SANDBOX_FILTER_H

#include <linux/filter.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/thread.h"

enum filter_verdict {
	FILTER_ALLOW,
	FILTER_BY_PATH, /* allowed where Landlock says to which path, else refused */
	FILTER_REFUSE,
	FILTER_ABSENT,
	FILTER_DENY, /* -EPERM */
	FILTER_STOP,
};

/* A call is judged by its first row of the role that has its number and whose check is true. */
struct filter_call {
	uint16_t number;
	uint16_t roles; /* 1 << enum thread_role */
	uint8_t verdict;
	uint8_t arg;   /* with a mask: this argument's lower half, masked, is value */
	uint32_t mask; /* 0: whatever the arguments are */
	uint32_t value;
};

struct filter_request {
	uint32_t request;
	uint16_t roles;
};

/* Rows of one number follow each other. */
extern const struct filter_call filter_calls[];
extern const unsigned int filter_n_calls;
/* What is frequent comes first. */
extern const struct filter_request filter_requests[];
extern const unsigned int filter_n_requests;

enum { FILTER_INSNS = 1024 };

struct filter_policy {
	enum thread_role role;
	enum filter_verdict others; /* for calls in no table */
	bool paths;                 /* the thread is under Landlock */
	uint32_t pid;               /* this process, whose threads may be signalled */
};

/* The program's length. */
unsigned int filter_build(struct sock_filter program[FILTER_INSNS],
			  const struct filter_policy *policy);

/* Has this kernel such filters? 0 or a negative errno. */
int filter_probe(void);
/* The calling thread, for good; it must have no_new_privs. 0 or a negative errno. */
int filter_enter(const struct filter_policy *policy);

#endif
