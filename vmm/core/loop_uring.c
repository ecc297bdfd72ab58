// SPDX-License-Identifier: Apache-2.0
// The io_uring backend of the event loop: one io_uring_enter per iteration.
//
// A watch is a multishot poll (Linux 5.13), armed once, and a read for each event: eventfds are
// non-blocking, and io_uring fails a read of a non-blocking file at once instead of waiting for it.
// A poll linked to a read saves that system call and costs more than it.
//
// The ring is not bound to a task (no IORING_SETUP_SINGLE_ISSUER, hence no DEFER_TASKRUN): a
// machine is created in one thread, run in another, and after that one's end its devices are taken
// down by a third, which must still be able to collect completions.
#include "core/loop_impl.h"

#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/num.h"

enum { PLACE_KERNEL, PLACE_WAITING };

/* The thread's that runs the loop. */
struct loop_uring {
	struct io_uring ring;
	/* The submission queue was full and the kernel did not take it: tried again in each
	 * iteration. */
	struct list waiting;
	struct list cancels;
	uint64_t inline_bytes; /* of what the next submission may do at once */
};

static struct loop_uring *uring(struct loop *loop)
{
	return loop->backend;
}

/* What try_start and try_cancel ask for, and no more: a system call filter does not see what a ring
 * does, and a ring can open files, connect and send. No registration at all is allowed. */
static const struct io_uring_restriction restrictions[] = {
	{.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READ},
	{.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READV},
	{.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITE},
	{.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITEV},
	{.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FSYNC},
	{.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FALLOCATE},
	{.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_POLL_ADD},
	{.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_TIMEOUT},
	{.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_ASYNC_CANCEL},
	{.opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED, .sqe_flags = IOSQE_ASYNC},
};

/* By the system call: liburing 2.3 does not export its functions for this. */
static int restrict_and_enable(const struct io_uring *ring)
{
	if (syscall(SYS_io_uring_register, ring->ring_fd, IORING_REGISTER_RESTRICTIONS,
		    restrictions, ARRAY_SIZE(restrictions)) ||
	    syscall(SYS_io_uring_register, ring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0))
		return -errno;
	return 0;
}

static int uring_create(struct loop *loop, unsigned int depth, struct err *err)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_R_DISABLED |
			 IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
	};
	/* Completions of a whole iteration must fit twice over. */
	unsigned int entries = (unsigned int)power_of_two_up(depth + 16);
	struct loop_uring *u;
	int rc;

	if (!mem_new(u))
		return err_set(err, -ENOMEM, "no memory");
	list_init(&u->waiting);
	list_init(&u->cancels);
	params.cq_entries = entries * 4;
	rc = io_uring_queue_init_params(entries, &u->ring, &params);
	if (rc == -EINVAL) {
		/* Before Linux 5.19. */
		params = (struct io_uring_params){
			.flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_R_DISABLED,
			.cq_entries = entries * 4,
		};
		rc = io_uring_queue_init_params(entries, &u->ring, &params);
	}
	if (rc) {
		free(u);
		return err_set(err, rc,
			       rc == -EPERM || rc == -EACCES || rc == -ENOSYS
				       ? "io_uring is not permitted here (%s)"
				       : "io_uring: %s",
			       err_name(rc));
	}
	/* Of the same release as multishot polls, which cannot be asked for. */
	if (!(params.features & IORING_FEAT_RSRC_TAGS)) {
		io_uring_queue_exit(&u->ring);
		free(u);
		return err_set(err, -EOPNOTSUPP, "this kernel's io_uring is older than Linux 5.13");
	}
	rc = restrict_and_enable(&u->ring);
	if (rc) {
		io_uring_queue_exit(&u->ring);
		free(u);
		return err_set(err, rc, "io_uring cannot be restricted: %s", err_name(rc));
	}
	io_uring_ring_dontfork(&u->ring);
	loop->backend = u;
	return 0;
}

static void uring_destroy(struct loop *loop)
{
	if (!loop->backend)
		return;
	io_uring_queue_exit(&uring(loop)->ring);
	free(loop->backend);
	loop->backend = NULL;
}

static bool have_space(struct loop_uring *u)
{
	if (io_uring_sq_space_left(&u->ring))
		return true;
	io_uring_submit(&u->ring);
	return io_uring_sq_space_left(&u->ring);
}

/* After have_space(). */
static struct io_uring_sqe *next_sqe(struct loop_uring *u)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

	assert(sqe);
	return sqe;
}

/* The kernel transfers what it has in its page cache inside io_uring_enter. What is beyond an
 * iteration's share is for its worker threads: true. */
static bool beyond_share(struct loop_uring *u, const struct loop_op *op)
{
	uint64_t bytes;

	/* Streams are waited for, not copied at once. */
	if (op->verb > LOOP_WRITE || op->offset < 0)
		return false;
	bytes = loop_op_bytes(op);
	if (bytes > LOOP_INLINE_BYTES - u->inline_bytes)
		return true;
	u->inline_bytes += bytes;
	return false;
}

static bool try_start(struct loop_uring *u, struct loop_op *op)
{
	struct io_uring_sqe *sqe;

	if (!have_space(u))
		return false;
	sqe = next_sqe(u);
	switch ((enum loop_verb)op->verb) {
	case LOOP_READ:
		if (op->n == 1)
			io_uring_prep_read(sqe, op->fd, op->iov->iov_base,
					   (unsigned int)op->iov->iov_len, (uint64_t)op->offset);
		else
			io_uring_prep_readv(sqe, op->fd, op->iov, op->n, (uint64_t)op->offset);
		break;
	case LOOP_WRITE:
		if (op->n == 1)
			io_uring_prep_write(sqe, op->fd, op->iov->iov_base,
					    (unsigned int)op->iov->iov_len, (uint64_t)op->offset);
		else
			io_uring_prep_writev(sqe, op->fd, op->iov, op->n, (uint64_t)op->offset);
		break;
	case LOOP_FSYNC:
		io_uring_prep_fsync(sqe, op->fd, op->n ? IORING_FSYNC_DATASYNC : 0);
		break;
	case LOOP_FALLOCATE:
		io_uring_prep_rw(IORING_OP_FALLOCATE, sqe, op->fd, NULL, op->n,
				 (uint64_t)op->offset);
		sqe->addr = op->value;
		break;
	case LOOP_POLL:
		io_uring_prep_poll_add(sqe, op->fd, op->n);
		break;
	case LOOP_TIMER: {
		static_assert(sizeof(op->when) == sizeof(struct __kernel_timespec), "same layout");
		io_uring_prep_timeout(sqe, (struct __kernel_timespec *)(void *)&op->when, 0, 0);
		break;
	}
	case LOOP_WATCH:
		io_uring_prep_poll_multishot(sqe, op->fd, POLLIN);
		break;
	}
	io_uring_sqe_set_data(sqe, op);
	if (beyond_share(u, op))
		io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
	return true;
}

static void uring_start(struct loop *loop, struct loop_op *op)
{
	struct loop_uring *u = uring(loop);

	/* In order: nobody overtakes what waits. */
	if (!list_empty(&u->waiting) || !try_start(u, op)) {
		list_append(&u->waiting, &op->link);
		op->place = PLACE_WAITING;
	} else {
		op->place = PLACE_KERNEL;
	}
}

static bool try_cancel(struct loop_uring *u, struct loop_op *op)
{
	struct io_uring_sqe *sqe;

	if (!have_space(u))
		return false;
	sqe = next_sqe(u);
	io_uring_prep_cancel(sqe, op, 0);
	io_uring_sqe_set_data(sqe, NULL);
	return true;
}

static void uring_cancel(struct loop *loop, struct loop_op *op)
{
	struct loop_uring *u = uring(loop);

	if (op->place == PLACE_WAITING) {
		list_remove(&op->link);
		loop_finish_later(loop, op, -ECANCELED);
	} else if (!list_empty(&u->cancels) || !try_cancel(u, op)) {
		list_append(&u->cancels, &op->link);
	}
}

static void retry(struct loop *loop)
{
	struct loop_uring *u = uring(loop);

	while (!list_empty(&u->cancels)) {
		struct loop_op *op = container_of(u->cancels.next, struct loop_op, link);

		if (!try_cancel(u, op))
			return;
		list_remove(&op->link);
	}
	while (!list_empty(&u->waiting)) {
		struct loop_op *op = container_of(u->waiting.next, struct loop_op, link);

		if (!try_start(u, op))
			return;
		op->place = PLACE_KERNEL;
		list_remove(&op->link);
	}
}

/* The poll of a watch has seen something; `more` says whether it stays armed. */
static void complete_watch(struct loop *loop, struct loop_op *op, int result, bool more)
{
	uint64_t value;
	ssize_t n;

	if (result < 0) {
		loop_finish(loop, op, result);
		return;
	}
	n = read(op->fd, &value, sizeof(value));
	if (n < 0 && errno != EAGAIN && errno != EINTR && !op->cancelled) {
		/* No eventfd. */
		result = -errno;
		if (!more) {
			loop_finish(loop, op, result);
			return;
		}
		loop_cancel(loop, op);
	}
	/* Armed again before the callback, which may then cancel it like any other. A cancellation
	 * that comes too late for a poll that has ended has no completion of its own. */
	if (!more) {
		if (op->cancelled)
			loop_finish_later(loop, op, -ECANCELED);
		else
			uring_start(loop, op);
	}
	if (n == (ssize_t)sizeof(value))
		loop_watch_event(op, value);
}

static void complete(struct loop *loop, struct loop_op *op, int result, bool more)
{
	if (op->verb == LOOP_WATCH && more) {
		complete_watch(loop, op, result, true);
		return;
	}
	/* Its cancellation may still wait for space. */
	list_remove(&op->link);
	switch ((enum loop_verb)op->verb) {
	case LOOP_WATCH:
		complete_watch(loop, op, result, false);
		break;
	case LOOP_TIMER:
		loop_finish(loop, op, result == -ETIME ? 0 : result);
		break;
	default:
		/* A blocked operation that was cancelled while io-wq ran it ends as interrupted. */
		if (op->cancelled && result == -EINTR)
			result = -ECANCELED;
		loop_finish(loop, op, result);
	}
}

static int uring_iterate(struct loop *loop, bool wait)
{
	struct loop_uring *u = uring(loop);
	struct io_uring_cqe *cqe;
	unsigned int budget;
	int rc;

	retry(loop);
	u->inline_bytes = 0; /* what follows is for the next submission */
	if (io_uring_cq_ready(&u->ring))
		wait = false;
	rc = wait ? io_uring_submit_and_wait(&u->ring, 1)
		  : io_uring_submit_and_get_events(&u->ring);
	/* Interrupted, or completions must be taken before the kernel accepts more. */
	if (rc < 0 && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY)
		return rc;
	/* What completes meanwhile is for the next iteration, so that posts get theirs. */
	for (budget = io_uring_cq_ready(&u->ring); budget; budget--) {
		struct loop_op *op;
		bool more;
		int result;

		if (io_uring_peek_cqe(&u->ring, &cqe))
			break;
		op = io_uring_cqe_get_data(cqe);
		result = cqe->res;
		more = cqe->flags & IORING_CQE_F_MORE;
		io_uring_cqe_seen(&u->ring, cqe);
		/* Without one: the answer to a cancellation. */
		if (op)
			complete(loop, op, result, more);
	}
	return 0;
}

static int uring_flush(struct loop *loop)
{
	int rc;

	retry(loop);
	rc = io_uring_submit(&uring(loop)->ring);
	return rc < 0 && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY ? rc : 0;
}

static int uring_fd(struct loop *loop)
{
	return uring(loop)->ring.ring_fd;
}

const struct loop_backend_ops loop_uring_ops = {
	.name = "io_uring",
	.create = uring_create,
	.destroy = uring_destroy,
	.start = uring_start,
	.cancel = uring_cancel,
	.turn = uring_iterate,
	.flush = uring_flush,
	.fd = uring_fd,
};
