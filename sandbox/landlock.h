/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Landlock: a thread reaches no file by path, but for a few that its role names (landlock.c says
 * which, and why), no TCP port, no abstract UNIX socket, and no process with a signal. What was
 * opened before stays usable.
 */
#ifndef SANDBOX_LANDLOCK_H
#define SANDBOX_LANDLOCK_H

#include "base/err.h"
#include "base/thread.h"

/* The version of the kernel's interface, from 1; negative: -EOPNOTSUPP (switched off at boot),
 * -ENOSYS. */
int landlock_version(void);

/* The calling thread, for good; it must have no_new_privs. removes: see sandbox_enter. 0 or a
 * negative errno. */
int landlock_enter(enum thread_role role, const char *removes);

#endif
