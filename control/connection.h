/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One client: its requests one after another, each answered before the next is looked at. So a
 * connection costs one buffer of input, one request and one answer, whatever the client does:
 *
 *   READING ──request complete──► WRITING ──all sent──► READING, or closed
 *                                    │ GET /v1/events
 *                                    └──► STREAMING: an event at a time, the next when that is sent
 *
 * A request must be complete, and an answer taken, before a deadline. Threads: the server's.
 */
#ifndef CONTROL_CONNECTION_H
#define CONTROL_CONNECTION_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "control/events.h"
#include "control/http.h"

enum {
	CONNECTION_FDS = 8, /* with one request */
	CONNECTION_INPUT = 4096,
	CONNECTION_HEAD = 256, /* of an answer */
};

enum connection_state {
	CONNECTION_READING,
	CONNECTION_WRITING,
	CONNECTION_STREAMING,
};

struct connection {
	TAILQ_ENTRY(connection) link;
	int fd;
	enum connection_state state;
	bool may_stream;      /* fewer readers of events than there may be */
	bool closes;          /* when the answer is sent */
	uint32_t watched;     /* events that its owner's epoll waits for */
	uint64_t deadline_ns; /* CLOCK_MONOTONIC; 0: none */

	struct http_request request;
	bool continued; /* "100 Continue" was sent for it */
	size_t at, end; /* of input that the request has not taken */
	char input[CONNECTION_INPUT];
	int fds[CONNECTION_FDS]; /* that came with it */
	unsigned int n_fds;

	char head[CONNECTION_HEAD]; /* of the answer: sent first */
	size_t head_at, head_end;
	char *answer; /* from malloc; NULL: none */
	size_t answer_at, answer_end;
	uint64_t next_event;
};

/* Of all connections of a machine. */
struct connection_env {
	struct hospes_vm *vm;
	struct events *events;
};

/* A connected, non-blocking socket, whose owner it becomes; NULL: no memory. */
struct connection *connection_create(int fd);
void connection_destroy(struct connection *connection);

/* Answer with this failure instead of any request, and close. */
void connection_refuse(struct connection *connection, int status, const char *code,
		       const char *text, const char *remedy, uint64_t deadline_ns);

/* Do what its socket allows (revents of epoll; 0: events have been added), at most one request.
 * What begins now has until the deadline. False: destroy it. */
bool connection_work(struct connection *connection, const struct connection_env *env,
		     uint32_t revents, uint64_t deadline_ns);

/* Which events of epoll it waits for. */
uint32_t connection_wants(const struct connection *connection);

/* Between requests, or not yet heard of: closing it loses nothing of a call. */
bool connection_is_idle(const struct connection *connection);

#endif
