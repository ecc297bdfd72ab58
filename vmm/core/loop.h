/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Event loop: file I/O, sockets, timers, eventfds and posted work, all as completions of one
 * io_uring. The interface is verbs, never ring entries, so that an epoll backend can serve where
 * io_uring is forbidden.
 *
 * The caller owns a struct loop_op per thing in flight and keeps it (and the buffers it names) in
 * place until `done` has run; the loop allocates nothing after creation. Submissions are collected
 * and go to the kernel together, once per iteration. A full submission queue is flushed, never an
 * error.
 *
 * Threads: one thread at a time runs a loop (loop_run, loop_iterate); that thread alone calls the
 * verbs, from callbacks or before running. Other threads use loop_post and loop_stop only. A loop
 * may be created by one thread, run by a second, and turned by a third once the second has ended;
 * what a thread had in flight in the kernel when it exited ends with -ECANCELED.
 *
 * The two backends differ in what a device never sees but an administrator may: with epoll, reads,
 * writes, fsync and fallocate of regular files and block devices are done in the loop's thread, one
 * after the other, so a slow disk delays the loop's other work.
 *
 * Neither backend retries: a short transfer is reported as it is, and so is -EAGAIN of an fd that
 * has O_NONBLOCK (loop_poll it first).
 */
#ifndef CORE_LOOP_H
#define CORE_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/err.h"
#include "base/list.h"
#include "base/log.h"

struct loop;
struct loop_op;

/* result: bytes or 0, or a negative errno (-ECANCELED after loop_cancel). The op is no longer in
 * flight when it runs and may be used again at once, unless it is a watch that goes on. */
typedef void loop_done_fn(struct loop_op *op, int result);

struct loop_op {
	loop_done_fn *done; /* set by the caller, once */
	/* private */
	uint8_t verb;
	uint8_t place; /* the backend's: where the op is */
	bool in_flight;
	bool cancelled;
	_Atomic bool posted;
	bool deferred;
	int fd;
	int result;
	unsigned int n; /* segments of iov, events of a poll, mode of a fallocate */
	int64_t offset;
	uint64_t value; /* a watch's counter, a fallocate's length */
	const struct iovec *iov;
	struct iovec one;
	struct list link;
	_Atomic(struct loop_op *) next_post;
	struct {
		int64_t tv_sec;
		long long tv_nsec;
	} when;
};

enum loop_backend {
	LOOP_AUTO, /* io_uring, else epoll, and says so in the log */
	LOOP_IO_URING,
	LOOP_EPOLL,
};

struct loop_config {
	const struct log *log;
	const char *name;
	unsigned int depth; /* operations the caller means to have in flight; 0 for 256 */
	enum loop_backend backend;
};

int loop_create(struct loop **ret, const struct loop_config *config, struct err *err);
/* No operation may be in flight (cancel them and turn the loop until they are done). */
void loop_destroy(struct loop *loop);

/* Verbs. Offsets in bytes; offset -1 for streams. iov must stay valid until done. */
void loop_readv(struct loop *loop, struct loop_op *op, int fd, const struct iovec *iov,
		unsigned int n, int64_t offset);
void loop_writev(struct loop *loop, struct loop_op *op, int fd, const struct iovec *iov,
		 unsigned int n, int64_t offset);
void loop_read(struct loop *loop, struct loop_op *op, int fd, void *buf, unsigned int len,
	       int64_t offset);
void loop_write(struct loop *loop, struct loop_op *op, int fd, const void *buf, unsigned int len,
		int64_t offset);
void loop_fsync(struct loop *loop, struct loop_op *op, int fd, bool data_only);
void loop_fallocate(struct loop *loop, struct loop_op *op, int fd, int mode, uint64_t offset,
		    uint64_t len);
/* One readiness event: result is the poll mask. */
void loop_poll(struct loop *loop, struct loop_op *op, int fd, unsigned int events);
/* Watch an eventfd until cancelled: done runs with the counter's value (saturated to INT_MAX) each
 * time it becomes non-zero, having cleared it. One system call per event at most. The watch has
 * ended when done runs with a negative result; an event that was taken before is delivered
 * before. */
void loop_watch(struct loop *loop, struct loop_op *op, int eventfd);
/* One shot after ns nanoseconds, monotonic. result 0, or -ECANCELED. */
void loop_timer(struct loop *loop, struct loop_op *op, uint64_t ns);
/* Ask the op to end early; its done runs (with its result or -ECANCELED) in a later turn, not
 * inside. Harmless when it is not in flight. */
void loop_cancel(struct loop *loop, struct loop_op *op);

/* Run op->done(op, 0) in the loop's thread: from any thread, no allocation. An op that is posted
 * already is not posted twice (true: it was queued now). */
bool loop_post(struct loop *loop, struct loop_op *op);

/* Run op->done(op, 0) once, at the end of the present turn: after the completions at hand and
 * before the loop submits and sleeps. For what is worth doing once per batch (interrupts). The
 * loop's own thread; no system call; an op that is deferred already is not deferred twice. */
void loop_defer(struct loop *loop, struct loop_op *op);

/* Handle what is ready; wait for the first completion if `wait`. 0, or a negative errno of the
 * backend itself. */
int loop_iterate(struct loop *loop, bool wait);
/* Turn until loop_stop (any thread; may come before). */
int loop_run(struct loop *loop);
void loop_stop(struct loop *loop);
/* An fd that polls readable when loop_iterate(loop, false) has something to do: for an embedder's
 * own loop. The embedder must call loop_flush before it sleeps. Completions interrupt a sleeping
 * epoll_wait or poll of the loop's own thread now and then (EINTR): turn the loop and sleep
 * again. */
int loop_fd(struct loop *loop);
int loop_flush(struct loop *loop);
/* May the calling thread turn this loop now: does it run it, or nobody? (The machine's thread
 * between two turns, or whoever takes a machine down after its threads ended.) */
bool loop_is_mine(const struct loop *loop);
const char *loop_backend_name(const struct loop *loop);
/* Operations in flight (watches included). */
unsigned int loop_in_flight(const struct loop *loop);

#endif
