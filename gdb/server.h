/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A debugger's socket: one client at a time, which must be of this process's user, or root. The
 * socket listens before anything is confined; the client's bytes go through a gdb_session.
 *
 * Threads: the one that turns the loop. Callbacks of the loop only record, so that gdb_server_act,
 * outside of them, may change the machine.
 */
#ifndef GDB_SERVER_H
#define GDB_SERVER_H

#include "base/err.h"
#include "base/log.h"
#include "core/loop.h"
#include "gdb/session.h"

struct gdb_server;

struct gdb_server_config {
	const struct log *log;
	struct loop *loop;
	const struct gdb_target *target; /* outlives the server */
	const char *path;                /* of the socket to be made, mode 0600; NULL: */
	int fd;                          /* one that listens; it is duplicated */
	/* A client has come: stop the target. A negative errno: it is sent away. */
	int (*attach)(void *opaque);
	/* It has gone without a word: as the target's `detach`. */
	void (*lost)(void *opaque);
	void *opaque;
};

int gdb_server_create(struct gdb_server **ret, const struct gdb_server_config *config,
		      struct err *err);
/* Whoever may turn the loop. Nobody is called any more. NULL is allowed. */
void gdb_server_destroy(struct gdb_server *server);

/* After each iteration of the loop. */
void gdb_server_act(struct gdb_server *server);
bool gdb_server_has_client(const struct gdb_server *server);
/* As those of the session; without a client nothing. */
void gdb_server_stopped(struct gdb_server *server, const struct gdb_stop *stop);
void gdb_server_exited(struct gdb_server *server, uint8_t status);

#endif
