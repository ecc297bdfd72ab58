/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The confinement of a machine's threads: what code that a guest has taken over finds when it asks
 * the kernel.
 *
 *   sandbox_create ──► thread_start(…, sandbox_limits(s), …) ──► each thread enters its role
 *
 * A layer that this kernel lacks is left out (SANDBOX_AUTO), or refuses the machine
 * (SANDBOX_STRICT). A thread enters for good, before its first own instruction. Only threads that
 * are started with these limits do, those that they start, and the one that asks for it
 * (sandbox_enter): an embedder's threads are never touched. They share the memory with the others,
 * so the confinement of a process is no better than that of its least confined thread.
 *
 * What io_uring could do is no thread's: every ring is restricted where it is made (core/loop.h).
 */
#ifndef SANDBOX_SANDBOX_H
#define SANDBOX_SANDBOX_H

#include <stdbool.h>

#include "base/err.h"
#include "base/log.h"
#include "base/thread.h"

enum sandbox_mode {
	SANDBOX_AUTO,   /* the layers that the kernel has; a call of no role is refused */
	SANDBOX_STRICT, /* all; a call of no role ends the process */
	SANDBOX_OFF,
};

enum sandbox_layer {
	SANDBOX_NO_NEW_PRIVS, /* no program gives a right that this process lacks */
	SANDBOX_LANDLOCK,     /* no file by path, no TCP port, no abstract socket, no signal out */
	SANDBOX_SECCOMP,      /* no system call, and no ioctl, but those of the role */
	SANDBOX_LAYERS,
};

struct sandbox;

/* One machine's. *ret is NULL with SANDBOX_OFF, which every function here takes. Any thread. */
int sandbox_create(struct sandbox **ret, enum sandbox_mode mode, const struct log *log,
		   struct err *err);
/* Its threads have ended. */
void sandbox_destroy(struct sandbox *s);

/* For thread_start; NULL: none. */
struct thread_limits *sandbox_limits(struct sandbox *s);

/* The calling thread, which nobody here has started, by the role THREAD_FOREIGN: it serves a
 * machine, and has opened all that it needs. What it may do by path afterwards: remove files from
 * the directory `removes` (NULL: from none), for the control socket that it has bound. */
int sandbox_enter(struct sandbox *s, const char *removes, struct err *err);

bool sandbox_has(const struct sandbox *s, enum sandbox_layer layer);
const char *sandbox_layer_name(enum sandbox_layer layer);
/* What is wrong with a layer that is not there, with the remedy; NULL: nothing. */
const char *sandbox_lack(const struct sandbox *s, enum sandbox_layer layer);
/* Threads that have entered a role so far. Any thread. */
unsigned int sandbox_threads(const struct sandbox *s, enum thread_role role);

#endif
