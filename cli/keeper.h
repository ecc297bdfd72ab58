/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keepers of daemons: a process of its own for each daemon, which starts it, hears what it writes
 * to standard error, and ends it when whoever holds the lifeline is gone.
 *
 *   hospes ──lifeline── the machine's device       (a pair of SOCK_SEQPACKET)
 *             │
 *           keeper ──stderr── daemon
 *
 *   to the device    each line of the daemon's; at the end one that says how it ended; then closed
 *   to the keeper    nothing but its being closed: the daemon gets SIGTERM, and later SIGKILL
 *
 * So a daemon lives as long as its device, though the machine is confined and signals nobody, and
 * whoever started it is gone (hospes ctl). A keeper that is killed takes its daemon with it.
 *
 * It is made by fork() of a process with one thread, before the machine. It is in a session of its
 * own, nobody's child, and ignores what ends a job; it is fenced in (fence.h): it opens nothing.
 */
#ifndef CLI_KEEPER_H
#define CLI_KEEPER_H

#include <stddef.h>

#include "fence.h"

enum { KEEPER_LISTEN_FD = 3 /* the daemon's, of the socket that it listens on */ };

struct keeper_job {
	const char *const *argv; /* the program's path first */
	int listen_fd;
	const struct fence_path *paths; /* all that it may open; NULL: it is not fenced in */
	unsigned int n_paths;
	int end_ms; /* from SIGTERM to SIGKILL */
};

struct kept {
	int lifeline; /* for the device */
	int ended;    /* of a pipe: closed at the other end when daemon and keeper have ended */
};

/* Starts a keeper, and that its daemon; what it holds stays the caller's. 0 or a negative errno. */
int keeper_start(struct kept *ret, const struct keeper_job *job);
/* What the keeper has said last, once it has closed its end, or ms later. "": nothing. Reads what
 * the device would. */
void keeper_last_word(int lifeline, int ms, char *text, size_t bytes);

#endif
