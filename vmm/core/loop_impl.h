/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the two backends of the event loop share. Private to loop*.c.
 *
 * The common part (loop.c) owns posting, deferring, stopping and the order of an iteration; a
 * backend owns what is in flight. Each verb leaves all its arguments in the op, so that a backend
 * may start it later than it was asked to.
 */
#ifndef CORE_LOOP_IMPL_H
#define CORE_LOOP_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/loop.h"

enum loop_verb {
	LOOP_READ, /* iov, n, offset */
	LOOP_WRITE,
	LOOP_FSYNC,     /* n: data only */
	LOOP_FALLOCATE, /* n: mode; offset; value: length */
	LOOP_POLL,      /* n: events */
	LOOP_WATCH,
	LOOP_TIMER, /* when */
};

/* The bytes that one iteration transfers in the loop's own thread, where the kernel has them at
 * hand (in its page cache) or the backend knows no other way. */
enum { LOOP_INLINE_BYTES = 4 << 20 };

struct loop_backend_ops {
	const char *name;
	int (*create)(struct loop *loop, unsigned int depth, struct err *err);
	void (*destroy)(struct loop *loop);
	/* op is filled and marked in flight. */
	void (*start)(struct loop *loop, struct loop_op *op);
	/* op is in flight and was not cancelled before. */
	void (*cancel)(struct loop *loop, struct loop_op *op);
	/* Submit, wait for a first completion if `wait`, and finish what completed. */
	int (*turn)(struct loop *loop, bool wait);
	int (*flush)(struct loop *loop);
	int (*fd)(struct loop *loop);
};

struct loop {
	/* Constant. */
	const struct loop_backend_ops *ops;
	void *backend; /* struct loop_uring or struct loop_epoll */
	const struct log *log;
	char name[16];
	int wake_fd;
	/* The thread's that runs the loop, unless atomic. */
	unsigned int in_flight; /* with the loop's own wake watch */
	_Atomic(pthread_t) runner;
	_Atomic bool running;

	struct list finished; /* ended without the kernel: done runs in the next iteration */
	struct list deferred;

	/* Posting: a stack that producers push on and the loop takes as a whole. A producer wakes
	 * the loop only when it sleeps, and only once per sleep. */
	_Atomic(struct loop_op *) posts;
	_Atomic bool sleeping;
	_Atomic bool woken;
	_Atomic bool stop;
	struct loop_op wake;
};

/* The op is over: run done. It may be used again from inside. */
void loop_finish(struct loop *loop, struct loop_op *op, int result);
/* The same, but in the next iteration. */
void loop_finish_later(struct loop *loop, struct loop_op *op, int result);
/* Bytes of a transfer. */
uint64_t loop_op_bytes(const struct loop_op *op);
/* An event of a watch that goes on: the counter was `value`. */
void loop_watch_event(struct loop_op *op, uint64_t value);

/* Make a sleeping loop return from its wait. Any thread. */
void loop_wake(struct loop *loop);

extern const struct loop_backend_ops loop_uring_ops;
extern const struct loop_backend_ops loop_epoll_ops;

#endif
