/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Somebody who looks at a console for a while, at the other end of a socket: a copy of what the
 * guest writes goes there, beside where it goes anyway. What is typed there the device reads
 * itself, from viewer_fd.
 *
 *   viewer_put (any thread) ─► ring ─► send, by the loop      the device ◄─ read ─ viewer_fd
 *
 * A viewer who takes nothing costs the ring and nothing else: what has no room in it is lost to
 * him, and where it is lost he reads how much it was. The machine never waits for a viewer.
 *
 * Threads: the loop's, but for viewer_put. A device that has a read in flight ends it before
 * it calls viewer_begin, viewer_end or viewer_done.
 */
#ifndef CORE_VIEWER_H
#define CORE_VIEWER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "core/loop.h"

enum { VIEWER_BYTES = 65536 };

struct viewer {
	struct loop *loop;
	/* private; the lock guards these */
	pthread_mutex_t lock;
	uint8_t *ring; /* NULL: nobody */
	size_t head, count;
	uint64_t lost; /* bytes, behind what is in the ring */
	bool busy;     /* the loop knows that there is something */
	bool posted;   /* kick is */
	/* the loop's */
	int fd;          /* ours; -1: nobody */
	_Atomic bool on; /* he takes something */
	bool ending;
	struct loop_op kick, op; /* op: a moment for more to come, or until the socket takes some */
};

void viewer_init(struct viewer *v, struct loop *loop);
/* What has not been sent yet is, as far as the socket takes it. NULL loop: it was never one. */
void viewer_done(struct viewer *v);

/* Is there one, who has not hung up? */
bool viewer_is_there(const struct viewer *v);
/* What the device reads; -1: there is nobody, or he leaves. */
int viewer_fd(const struct viewer *v);
/* This socket is the viewer's from now on, in place of another's, who reads a line that says so. fd
 * is duplicated: -EINVAL if it is no stream socket. On failure nothing has changed. Turns the
 * loop. */
int viewer_begin(struct viewer *v, int fd, struct err *err);
/* He is no viewer any more; also in a callback of the loop. */
void viewer_end(struct viewer *v);
/* The guest wrote this. */
void viewer_put(struct viewer *v, const void *bytes, size_t n);

#endif
