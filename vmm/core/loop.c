// SPDX-License-Identifier: Apache-2.0
// The event loop's common part: verbs, posting, deferring, and the order of an iteration. See
// loop.h.
#include "core/loop_impl.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/num.h"

enum { DEFAULT_DEPTH = 256, MAX_DEPTH = 8192 };

static void wake_done(struct loop_op *op, int result)
{
	struct loop *loop = container_of(op, struct loop, wake);

	/* The thread that armed it is gone. */
	if (result == -ECANCELED)
		loop_watch(loop, op, loop->wake_fd);
	/* Posts that see false again will signal; those before are in the stack, which is taken
	 * after this. */
	atomic_store(&loop->woken, false);
}

static int pick_backend(struct loop *loop, const struct loop_config *config, unsigned int depth,
			struct err *err)
{
	struct err why = ERR_INIT;
	int rc;

	if (config->backend != LOOP_EPOLL) {
		loop->ops = &loop_uring_ops;
		rc = loop->ops->create(loop, depth, &why);
		if (!rc)
			return 0;
		if (config->backend == LOOP_IO_URING)
			return err_set(err, rc, "%s", why.text);
		log_info(config->log, "loop", "%s: %s; epoll instead", loop->name, why.text);
	}
	loop->ops = &loop_epoll_ops;
	return loop->ops->create(loop, depth, err);
}

int loop_create(struct loop **ret, const struct loop_config *config, struct err *err)
{
	unsigned int depth = config->depth ? config->depth : DEFAULT_DEPTH;
	struct loop *loop;
	int rc;

	if (depth > MAX_DEPTH)
		return err_set(err, -EINVAL, "loop '%s': depth %u, at most %u", config->name, depth,
			       MAX_DEPTH);
	if (!mem_new(loop))
		return err_set(err, -ENOMEM, "loop '%s': no memory", config->name);
	snprintf(loop->name, sizeof(loop->name), "%s", config->name ? config->name : "loop");
	loop->log = config->log;
	list_init(&loop->finished);
	list_init(&loop->deferred);
	loop->wake_fd = fd_eventfd();
	if (loop->wake_fd < 0) {
		rc = err_set(err, loop->wake_fd, "loop '%s': eventfd: %s", loop->name,
			     err_name(loop->wake_fd));
		goto fail;
	}
	rc = pick_backend(loop, config, depth, err);
	if (rc) {
		loop->ops = NULL;
		err_prefix(err, "loop '%s'", loop->name);
		goto fail;
	}
	log_debug(loop->log, "loop", "%s: %s", loop->name, loop->ops->name);
	loop->wake.done = wake_done;
	loop_watch(loop, &loop->wake, loop->wake_fd);
	*ret = loop;
	return 0;
fail:
	loop_destroy(loop);
	return rc;
}

void loop_destroy(struct loop *loop)
{
	if (!loop)
		return;
	assert(!loop_in_flight(loop));
	if (loop->ops)
		loop->ops->destroy(loop);
	fd_close(&loop->wake_fd);
	free(loop);
}

static void start(struct loop *loop, struct loop_op *op, enum loop_verb verb, int fd)
{
	assert(!op->in_flight);
	op->verb = (uint8_t)verb;
	op->fd = fd;
	op->in_flight = true;
	op->cancelled = false;
	list_init(&op->link);
	loop->in_flight++;
	loop->ops->start(loop, op);
}

void loop_readv(struct loop *loop, struct loop_op *op, int fd, const struct iovec *iov,
		unsigned int n, int64_t offset)
{
	op->iov = iov;
	op->n = n;
	op->offset = offset;
	start(loop, op, LOOP_READ, fd);
}

void loop_writev(struct loop *loop, struct loop_op *op, int fd, const struct iovec *iov,
		 unsigned int n, int64_t offset)
{
	op->iov = iov;
	op->n = n;
	op->offset = offset;
	start(loop, op, LOOP_WRITE, fd);
}

void loop_read(struct loop *loop, struct loop_op *op, int fd, void *buf, unsigned int len,
	       int64_t offset)
{
	op->one = (struct iovec){buf, len};
	loop_readv(loop, op, fd, &op->one, 1, offset);
}

void loop_write(struct loop *loop, struct loop_op *op, int fd, const void *buf, unsigned int len,
		int64_t offset)
{
	op->one = (struct iovec){(void *)(uintptr_t)buf, len};
	loop_writev(loop, op, fd, &op->one, 1, offset);
}

void loop_fsync(struct loop *loop, struct loop_op *op, int fd, bool data_only)
{
	op->n = data_only;
	start(loop, op, LOOP_FSYNC, fd);
}

void loop_fallocate(struct loop *loop, struct loop_op *op, int fd, int mode, uint64_t offset,
		    uint64_t len)
{
	op->n = (unsigned int)mode;
	op->offset = (int64_t)offset;
	op->value = len;
	start(loop, op, LOOP_FALLOCATE, fd);
}

void loop_poll(struct loop *loop, struct loop_op *op, int fd, unsigned int events)
{
	op->n = events;
	start(loop, op, LOOP_POLL, fd);
}

void loop_watch(struct loop *loop, struct loop_op *op, int eventfd)
{
	start(loop, op, LOOP_WATCH, eventfd);
}

void loop_timer(struct loop *loop, struct loop_op *op, uint64_t ns)
{
	op->when.tv_sec = (int64_t)(ns / 1000000000u);
	op->when.tv_nsec = (long long)(ns % 1000000000u);
	start(loop, op, LOOP_TIMER, -1);
}

void loop_cancel(struct loop *loop, struct loop_op *op)
{
	if (!op->in_flight || op->cancelled)
		return;
	op->cancelled = true;
	loop->ops->cancel(loop, op);
}

void loop_finish(struct loop *loop, struct loop_op *op, int result)
{
	op->in_flight = false;
	loop->in_flight--;
	op->done(op, result);
}

void loop_finish_later(struct loop *loop, struct loop_op *op, int result)
{
	op->result = result;
	list_append(&loop->finished, &op->link);
}

uint64_t loop_op_bytes(const struct loop_op *op)
{
	uint64_t sum = 0;

	if (op->verb == LOOP_READ || op->verb == LOOP_WRITE)
		for (unsigned int i = 0; i < op->n; i++)
			sum += op->iov[i].iov_len;
	return sum;
}

void loop_watch_event(struct loop_op *op, uint64_t value)
{
	op->done(op, value > INT_MAX ? INT_MAX : (int)value);
}

void loop_wake(struct loop *loop)
{
	if (!atomic_exchange(&loop->woken, true))
		fd_event_signal(loop->wake_fd);
}

bool loop_post(struct loop *loop, struct loop_op *op)
{
	struct loop_op *head;

	if (atomic_exchange(&op->posted, true))
		return false;
	head = atomic_load_explicit(&loop->posts, memory_order_relaxed);
	do
		atomic_store_explicit(&op->next_post, head, memory_order_relaxed);
	while (!atomic_compare_exchange_weak(&loop->posts, &head, op));
	/* Sequentially consistent with the loop's store of sleeping and load of posts: one of the
	 * two sees the other. */
	if (atomic_load(&loop->sleeping))
		loop_wake(loop);
	return true;
}

static bool run_posts(struct loop *loop)
{
	struct loop_op *op, *next, *in_order = NULL;

	if (!atomic_load_explicit(&loop->posts, memory_order_relaxed))
		return false;
	op = atomic_exchange(&loop->posts, NULL);
	for (; op; op = next) {
		next = atomic_load_explicit(&op->next_post, memory_order_relaxed);
		atomic_store_explicit(&op->next_post, in_order, memory_order_relaxed);
		in_order = op;
	}
	for (op = in_order; op; op = next) {
		next = atomic_load_explicit(&op->next_post, memory_order_relaxed);
		atomic_store(&op->posted, false);
		op->done(op, 0);
	}
	return in_order;
}

/* Only what is in the list now: a callback may add to it for ever. */
static bool run_finished(struct loop *loop)
{
	struct list now = LIST_INIT(now), *item;

	if (list_empty(&loop->finished))
		return false;
	while ((item = list_pop(&loop->finished)))
		list_append(&now, item);
	while ((item = list_pop(&now))) {
		struct loop_op *op = container_of(item, struct loop_op, link);

		loop_finish(loop, op, op->result);
	}
	return true;
}

void loop_defer(struct loop *loop, struct loop_op *op)
{
	if (op->deferred)
		return;
	op->deferred = true;
	list_append(&loop->deferred, &op->link);
}

static bool run_deferred(struct loop *loop)
{
	struct list now = LIST_INIT(now), *item;
	bool any = !list_empty(&loop->deferred);

	while ((item = list_pop(&loop->deferred)))
		list_append(&now, item);
	while ((item = list_pop(&now))) {
		struct loop_op *op = container_of(item, struct loop_op, link);

		op->deferred = false;
		op->done(op, 0);
	}
	return any;
}

int loop_iterate(struct loop *loop, bool wait)
{
	bool nested = atomic_load_explicit(&loop->running, memory_order_relaxed);
	int rc;

	if (!nested) {
		atomic_store_explicit(&loop->runner, pthread_self(), memory_order_relaxed);
		atomic_store(&loop->running, true);
	}
	atomic_store(&loop->sleeping, false);
	if (run_posts(loop))
		wait = false;
	if (run_finished(loop))
		wait = false;
	if (run_deferred(loop))
		wait = false;
	if (!list_empty(&loop->finished) || !list_empty(&loop->deferred))
		wait = false;
	if (wait) {
		atomic_store(&loop->sleeping, true);
		if (atomic_load(&loop->posts) || atomic_load(&loop->stop))
			wait = false;
	}
	rc = loop->ops->turn(loop, wait);
	atomic_store(&loop->sleeping, false);
	run_posts(loop);
	run_deferred(loop);
	if (!nested)
		atomic_store(&loop->running, false);
	return rc;
}

int loop_run(struct loop *loop)
{
	int rc = 0;

	atomic_store_explicit(&loop->runner, pthread_self(), memory_order_relaxed);
	atomic_store(&loop->running, true);
	while (!rc && !atomic_exchange(&loop->stop, false))
		rc = loop_iterate(loop, true);
	atomic_store(&loop->running, false);
	return rc;
}

void loop_stop(struct loop *loop)
{
	atomic_store(&loop->stop, true);
	if (atomic_load(&loop->sleeping))
		loop_wake(loop);
}

int loop_fd(struct loop *loop)
{
	return loop->ops->fd(loop);
}

int loop_flush(struct loop *loop)
{
	/* From here on the embedder may sleep: posts must wake it. */
	atomic_store(&loop->sleeping, true);
	if (atomic_load(&loop->posts) || atomic_load(&loop->stop) || !list_empty(&loop->finished) ||
	    !list_empty(&loop->deferred))
		loop_wake(loop);
	return loop->ops->flush(loop);
}

bool loop_is_mine(const struct loop *loop)
{
	return !atomic_load(&loop->running) ||
	       pthread_equal(atomic_load_explicit(&loop->runner, memory_order_relaxed),
			     pthread_self());
}

const char *loop_backend_name(const struct loop *loop)
{
	return loop->ops->name;
}

unsigned int loop_in_flight(const struct loop *loop)
{
	return loop->in_flight - loop->wake.in_flight;
}
