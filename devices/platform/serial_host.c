/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's end of a serial line. Output is collected for a moment, so that a line of text costs
 * one write instead of one per character; input is read ahead by no more than one ring.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/num.h"
#include "platform/serial_impl.h"

enum {
	GATHER_NS = 1000000, /* output waits this long for more … */
	GATHER_BYTES = 1024, /* … unless this much has come */
	FLUSH_STEP_NS = 50000000,
};

/* At the end of the machine, a consumer that takes nothing for this long is abandoned. */
static const uint64_t flush_patience_ns = 2000000000;

size_t serial_ring_room(const struct serial_ring *ring)
{
	return ring->size - ring->count;
}

void serial_ring_put(struct serial_ring *ring, uint8_t byte)
{
	ring->bytes[(ring->head + ring->count) % ring->size] = byte;
	ring->count++;
}

uint8_t serial_ring_take(struct serial_ring *ring)
{
	uint8_t byte = ring->bytes[ring->head];

	ring->head = (ring->head + 1) % ring->size;
	ring->count--;
	return byte;
}

static void start_write(struct serial *s)
{
	size_t n;

	if (s->writing || s->frozen || s->config.out_fd < 0)
		return;
	pthread_mutex_lock(&s->dev.lock);
	n = MIN(s->tx.count, s->tx.size - s->tx.head);
	pthread_mutex_unlock(&s->dev.lock);
	if (!n)
		return;
	/* Only this thread moves the head, so the span stays. */
	s->writing = true;
	s->write_waits = false;
	loop_write(s->loop, &s->write_op, s->config.out_fd, s->tx.bytes + s->tx.head,
		   (unsigned int)n, -1);
}

static void output_gone(struct serial *s, int error)
{
	log_warn(s->dev.log, s->dev.name, "output: %s; what the guest writes is discarded",
		 err_name(error));
	s->out_dead = true;
	s->tx.head = 0;
	s->tx.count = 0;
	s->line->out(s);
}

static bool is_full(int error)
{
	return error == -ENOSPC || error == -EDQUOT;
}

/* Room may come again: only what is there is lost. Lock held. */
static void output_full(struct serial *s, int error)
{
	if (!s->full)
		log_warn(s->dev.log, s->dev.name,
			 "output: %s; what the guest writes is lost until there is room",
			 err_name(error));
	s->full = true;
	s->dropped += s->tx.count;
	s->tx.head = 0;
	s->tx.count = 0;
	s->line->out(s);
}

/* Lock held. */
static void end_dropping(struct serial *s)
{
	if (!s->dropping && !s->full)
		return;
	s->dropping = false;
	s->full = false;
	log_warn(s->dev.log, s->dev.name, "output: %" PRIu64 " bytes were dropped", s->dropped);
	s->dropped = 0;
}

static void watch_stall(struct serial *s)
{
	bool full;

	if (s->stalling || s->frozen || s->stopping || !s->config.patience_ns)
		return;
	pthread_mutex_lock(&s->dev.lock);
	full = !s->thre;
	pthread_mutex_unlock(&s->dev.lock);
	if (!full)
		return;
	s->stalling = true;
	s->at_stall = s->written;
	loop_timer(s->loop, &s->stall_op, s->config.patience_ns);
}

static void stall_done(struct loop_op *op, int result)
{
	struct serial *s = container_of(op, struct serial, stall_op);

	s->stalling = false;
	if (result)
		return;
	pthread_mutex_lock(&s->dev.lock);
	if (!s->thre && s->written == s->at_stall) {
		log_warn(s->dev.log, s->dev.name,
			 "output: nobody takes it; it is dropped until somebody does "
			 "(overflow=wait makes the guest wait)");
		s->dropping = true;
		s->line->out(s);
	}
	pthread_mutex_unlock(&s->dev.lock);
	watch_stall(s);
}

static void write_done(struct loop_op *op, int result)
{
	struct serial *s = container_of(op, struct serial, write_op);
	bool waited = s->write_waits;

	s->writing = false;
	if (result == -ECANCELED && (s->stopping || s->frozen))
		return;
	if (!waited && result == -EAGAIN && !s->frozen) {
		/* The fd is non-blocking. */
		s->writing = true;
		s->write_waits = true;
		loop_poll(s->loop, &s->write_op, s->config.out_fd, POLLOUT);
		return;
	}
	pthread_mutex_lock(&s->dev.lock);
	if (!waited && result > 0) {
		s->tx.head = (s->tx.head + (size_t)result) % s->tx.size;
		s->tx.count -= (size_t)result;
		s->written += (uint64_t)result;
		end_dropping(s);
		s->line->out(s);
	} else if (!waited && is_full(result)) {
		output_full(s, result);
	} else if (result < 0 && result != -EINTR && result != -EAGAIN && result != -ECANCELED) {
		output_gone(s, result);
	}
	pthread_mutex_unlock(&s->dev.lock);
	start_write(s);
}

/* Who types: the viewer, or whoever did before; -1: nobody. */
static int input_fd(const struct serial *s)
{
	if (viewer_fd(&s->viewer) >= 0)
		return viewer_fd(&s->viewer);
	return s->in_end ? -1 : s->config.in_fd;
}

/* Ready for as many bytes as are contiguous behind what the ring holds. */
static void start_read(struct serial *s)
{
	size_t tail, n;

	if (s->reading || s->frozen || s->stopping || s->turning || input_fd(s) < 0)
		return;
	pthread_mutex_lock(&s->dev.lock);
	if (!s->rx.count)
		s->rx.head = 0;
	tail = (s->rx.head + s->rx.count) % s->rx.size;
	n = MIN(serial_ring_room(&s->rx), s->rx.size - tail);
	pthread_mutex_unlock(&s->dev.lock);
	if (!n)
		return;
	s->reading = true;
	s->read_waits = false;
	loop_read(s->loop, &s->read_op, input_fd(s), s->rx.bytes + tail, (unsigned int)n, -1);
}

static void took_input(struct serial *s, size_t n)
{
	pthread_mutex_lock(&s->dev.lock);
	s->rx.count += n;
	s->line->in(s);
	pthread_mutex_unlock(&s->dev.lock);
}

static void input_ends(struct serial *s)
{
	if (viewer_fd(&s->viewer) >= 0)
		viewer_end(&s->viewer);
	else
		s->in_end = true;
}

static void read_done(struct loop_op *op, int result)
{
	struct serial *s = container_of(op, struct serial, read_op);
	bool waited = s->read_waits;

	s->reading = false;
	if (result == -ECANCELED && (s->stopping || s->frozen))
		return;
	if (!waited && result == -EAGAIN && !s->frozen && !s->turning) {
		s->reading = true;
		s->read_waits = true;
		loop_poll(s->loop, &s->read_op, input_fd(s), POLLIN);
		return;
	}
	if (!waited && result > 0) {
		took_input(s, (size_t)result);
	} else if (!waited && result == 0) {
		input_ends(s);
	} else if (result < 0 && result != -EINTR && result != -EAGAIN && result != -ECANCELED) {
		if (viewer_fd(&s->viewer) < 0)
			log_info(s->dev.log, s->dev.name, "input ends: %s", err_name(result));
		input_ends(s);
	}
	start_read(s);
}

static void delay_done(struct loop_op *op, int result)
{
	struct serial *s = container_of(op, struct serial, delay_op);

	(void)result;
	s->delaying = false;
	start_write(s);
}

static void kick_done(struct loop_op *op, int result)
{
	struct serial *s = container_of(op, struct serial, kick);
	size_t n;

	(void)result;
	pthread_mutex_lock(&s->dev.lock);
	s->kicked = false;
	n = s->tx.count;
	pthread_mutex_unlock(&s->dev.lock);

	start_read(s);
	watch_stall(s);
	if (n >= GATHER_BYTES || s->stopping) {
		start_write(s);
	} else if (n && !s->delaying && !s->writing && !s->frozen) {
		s->delaying = true;
		loop_timer(s->loop, &s->delay_op, GATHER_NS);
	}
}

void serial_host_kick(struct serial *s)
{
	if (s->kicked)
		return;
	s->kicked = true;
	loop_post(s->loop, &s->kick);
}

void serial_host_wrote(struct serial *s)
{
	if (s->tx.count == 1 || s->tx.count == GATHER_BYTES)
		serial_host_kick(s);
}

void serial_host_init(struct serial *s, const struct serial_line *line)
{
	s->line = line;
	s->tx = (struct serial_ring){.bytes = s->tx_bytes, .size = sizeof(s->tx_bytes)};
	s->rx = (struct serial_ring){.bytes = s->rx_bytes, .size = sizeof(s->rx_bytes)};
	viewer_init(&s->viewer, s->loop);
	s->kick.done = kick_done;
	s->read_op.done = read_done;
	s->write_op.done = write_done;
	s->delay_op.done = delay_done;
	s->stall_op.done = stall_done;
}

static size_t unwritten(struct serial *s)
{
	pthread_mutex_lock(&s->dev.lock);
	size_t n = s->tx.count;
	pthread_mutex_unlock(&s->dev.lock);
	return n;
}

static void flush(struct serial *s)
{
	uint64_t deadline = clock_ns() + flush_patience_ns;
	size_t left = unwritten(s), n;

	for (; left; left = n) {
		if (!s->delaying) {
			s->delaying = true;
			loop_timer(s->loop, &s->delay_op, FLUSH_STEP_NS);
		}
		start_write(s);
		if (loop_iterate(s->loop, true))
			break;
		n = unwritten(s);
		if (n != left)
			deadline = clock_ns() + flush_patience_ns;
		else if (clock_ns() > deadline)
			break;
	}
	if (left)
		log_warn(s->dev.log, s->dev.name, "output: nobody takes the last %zu bytes", left);
}

static void end_ops(struct serial *s)
{
	loop_cancel(s->loop, &s->read_op);
	loop_cancel(s->loop, &s->write_op);
	loop_cancel(s->loop, &s->delay_op);
	loop_cancel(s->loop, &s->stall_op);
	while (s->reading || s->writing || s->delaying || s->stalling || s->kicked)
		if (loop_iterate(s->loop, true))
			break;
}

void serial_host_freeze(struct serial *s)
{
	s->frozen = true;
	end_ops(s);
	pthread_mutex_lock(&s->dev.lock);
	if (s->dropping) { /* whoever loads this has a reader of its own */
		end_dropping(s);
		s->line->out(s);
	}
	pthread_mutex_unlock(&s->dev.lock);
}

void serial_host_thaw(struct serial *s)
{
	s->frozen = false;
	serial_host_kick(s);
}

void serial_host_stop(struct serial *s)
{
	s->stopping = true;
	/* What was saved is written by whoever loads it. */
	if (s->config.out_fd >= 0 && !s->frozen)
		flush(s);
	end_ops(s);
	viewer_done(&s->viewer);
}

int serial_view(struct device *dev, int fd, bool take, struct err *err)
{
	struct serial *s = container_of(dev, struct serial, dev);
	int ret;

	if (!take && viewer_is_there(&s->viewer))
		return err_set(err, -EBUSY, "somebody looks at it already");
	s->turning = true;
	loop_cancel(s->loop, &s->read_op);
	while (s->reading && loop_iterate(s->loop, true) >= 0)
		;
	ret = viewer_begin(&s->viewer, fd, err);
	s->turning = false;
	start_read(s);
	return ret;
}

bool serial_is_viewed(struct device *dev)
{
	return viewer_is_there(&container_of(dev, struct serial, dev)->viewer);
}
