// SPDX-License-Identifier: Apache-2.0
// virtio-console, one port without multiport: receive queue 0, transmit queue 1.
//
// Backpressure both ways. Output: one chain at a time goes to the fd from guest memory; what the fd
// does not take yet stays in flight, so the driver sees a full queue; but for no longer than the
// setup says, then it is dropped. A quiesce takes a chain back
// that is written in part and remembers how far it got. Input: read into a small buffer only while
// that has room, so what the driver offers no buffers for stays with whoever writes.
#include "virtio/console.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>

#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>

#include "base/le.h"
#include "base/mem.h"
#include "base/num.h"
#include "core/state.h"
#include "core/viewer.h"

enum {
	CONSOLE_QUEUE_SIZE = 64,
	CONSOLE_IN_BYTES = 4096,
	RX = 0,
	TX = 1,
};

static_assert(sizeof(struct virtio_console_config) == 12, "virtio 1.3, 5.3.4");

enum io {
	IO_IDLE,
	IO_BUSY, /* read or write in flight */
	IO_POLL, /* not ready: waiting until it is */
};

struct console {
	struct virtio_device vdev;
	int in_fd;
	int out_fd;
	_Atomic uint32_t size; /* columns, rows << 16 */

	struct virtq_chain rx, tx; /* tx: in flight unless out_state is IO_IDLE */
	struct iovec rx_segments[VIRTQ_MAX_SEGMENTS], tx_segments[VIRTQ_MAX_SEGMENTS];

	struct viewer viewer; /* types in the place of in_fd */
	bool shown;           /* the next chain was, before a quiesce */

	enum io in_state;
	bool in_end;  /* nothing more will come from in_fd */
	bool turning; /* to another reader: nothing is read */
	struct loop_op in_op;
	unsigned int in_start; /* given to the guest up to here */
	unsigned int in_bytes; /* read up to here; where a read in flight goes on */
	uint8_t in[CONSOLE_IN_BYTES];

	enum io out_state;
	struct loop_op out_op;
	uint64_t out_at;   /* how much of tx is written */
	uint64_t out_skip; /* how much of the next chain was written before a quiesce */
	struct iovec out[VIRTQ_MAX_SEGMENTS];

	uint64_t patience_ns;
	struct loop_op stall_op; /* the time that a write may take without progress */
	uint64_t written;        /* bytes */
	uint64_t at_stall;       /* of them, when stall_op began */
	bool dropping;           /* nobody takes the output: it is lost, until … */
	struct loop_op ready_op; /* … the fd takes something again */
	uint64_t dropped;        /* bytes, since dropping began */
	uint64_t output_bytes;   /* that the guest wrote */
};

static struct console *of_vdev(struct virtio_device *vdev)
{
	return container_of(vdev, struct console, vdev);
}

/* Input */

/* Who types: the viewer, or whoever did before; -1: nobody. */
static int input_fd(const struct console *c)
{
	if (viewer_fd(&c->viewer) >= 0)
		return viewer_fd(&c->viewer);
	return c->in_end ? -1 : c->in_fd;
}

static void input_ends(struct console *c)
{
	if (viewer_fd(&c->viewer) >= 0)
		viewer_end(&c->viewer);
	else
		c->in_end = true;
}

static void read_more(struct console *c)
{
	struct virtio_queue *q = &c->vdev.queues[RX];

	if (c->in_state != IO_IDLE || c->turning || input_fd(c) < 0 || !virtio_queue_running(q))
		return;
	/* Only now may bytes move: no read is in flight behind them. */
	c->in_bytes -= c->in_start;
	memmove(c->in, c->in + c->in_start, c->in_bytes);
	c->in_start = 0;
	if (c->in_bytes == CONSOLE_IN_BYTES)
		return;
	c->in_state = IO_BUSY;
	virtio_queue_hold(q);
	loop_read(q->loop, &c->in_op, input_fd(c), c->in + c->in_bytes,
		  CONSOLE_IN_BYTES - c->in_bytes, -1);
}

static void in_done(struct loop_op *op, int result)
{
	struct console *c = container_of(op, struct console, in_op);
	struct virtio_queue *q = &c->vdev.queues[RX];
	bool polled = c->in_state == IO_POLL;

	if (result == -EAGAIN && virtio_queue_running(q) && !c->turning) {
		c->in_state = IO_POLL;
		loop_poll(q->loop, op, input_fd(c), POLLIN);
		return;
	}
	c->in_state = IO_IDLE;
	if (result == 0 && !polled) {
		input_ends(c);
	} else if (result < 0 && result != -EAGAIN && result != -EINTR && result != -ECANCELED) {
		if (viewer_fd(&c->viewer) < 0)
			log_guest(c->vdev.log, &c->vdev.limit, c->vdev.name, "no more input: %s",
				  err_name(result));
		input_ends(c);
	} else if (result > 0 && !polled) {
		c->in_bytes += (unsigned int)result;
	}
	virtio_queue_release(q);
	virtio_queue_again(q);
}

static void give(struct console *c, struct virtq *vq)
{
	size_t n = iov_from_buf(c->rx.in, c->rx.n_in, 0, c->in + c->in_start,
				c->in_bytes - c->in_start);

	c->in_start += (unsigned int)n;
	virtq_push(vq, &c->rx, (uint32_t)n);
}

static bool rx_serve(struct virtio_queue *q)
{
	struct console *c = of_vdev(q->vdev);

	do {
		while (c->in_start < c->in_bytes && virtq_pop(q->vq, &c->rx) > 0) {
			give(c, q->vq);
			if (!virtio_queue_spend(q, 0))
				return true;
		}
		/* New buffers are of interest only while something waits for them. */
		if (c->in_start == c->in_bytes) {
			virtq_kick_disable(q->vq);
			break;
		}
	} while (virtq_kick_enable(q->vq));
	read_more(c);
	return false;
}

static void rx_cancel(struct virtio_queue *q)
{
	loop_cancel(q->loop, &of_vdev(q->vdev)->in_op);
}

static const struct virtio_queue_ops rx_ops = {
	.serve = rx_serve,
	.cancel = rx_cancel,
};

/* Output */

static void watch_stall(struct console *c)
{
	struct virtio_queue *q = &c->vdev.queues[TX];

	if (c->stall_op.in_flight || !c->patience_ns)
		return;
	c->at_stall = c->written;
	virtio_queue_hold(q);
	loop_timer(q->loop, &c->stall_op, c->patience_ns);
}

static void stall_done(struct loop_op *op, int result)
{
	struct console *c = container_of(op, struct console, stall_op);
	struct virtio_queue *q = &c->vdev.queues[TX];

	if (!result && virtio_queue_running(q) && c->out_state != IO_IDLE && !c->dropping) {
		if (c->written != c->at_stall) {
			watch_stall(c);
		} else {
			log_warn(c->vdev.log, c->vdev.name,
				 "output: nobody takes it; it is dropped until somebody does "
				 "(overflow=wait makes the guest wait)");
			c->dropping = true;
			loop_cancel(q->loop, &c->out_op);
		}
	}
	virtio_queue_release(q);
}

static void end_dropping(struct console *c)
{
	if (!c->dropping)
		return;
	c->dropping = false;
	log_warn(c->vdev.log, c->vdev.name, "output: %" PRIu64 " bytes were dropped", c->dropped);
	c->dropped = 0;
}

static void ready_done(struct loop_op *op, int result)
{
	struct console *c = container_of(op, struct console, ready_op);
	struct virtio_queue *q = &c->vdev.queues[TX];

	(void)result; /* of an fd that failed, the next write says so */
	end_dropping(c);
	virtio_queue_release(q);
}

/* The chain whose write was cut short because nobody takes it. */
static void drop_rest(struct console *c, int result)
{
	struct virtio_queue *q = &c->vdev.queues[TX];

	if (c->out_state == IO_BUSY && result > 0)
		c->out_at += (unsigned int)result;
	c->dropped += c->tx.out_bytes - c->out_at;
	c->out_state = IO_IDLE;
	virtq_push(q->vq, &c->tx, 0);
	/* In its place the fd holds the queue. */
	loop_poll(q->loop, &c->ready_op, c->out_fd, POLLOUT);
	virtio_queue_again(q);
}

static void write_more(struct console *c)
{
	int n = iov_slice(c->out, ARRAY_SIZE(c->out), c->tx.out, c->tx.n_out, c->out_at,
			  c->tx.out_bytes - c->out_at);

	c->out_state = IO_BUSY;
	loop_writev(c->vdev.queues[TX].loop, &c->out_op, c->out_fd, c->out, (unsigned int)n, -1);
}

/* The chain in flight is over, or cut short by a stop. */
static void tx_end(struct console *c, struct virtio_queue *q)
{
	bool paused = virtq_state(q->vq) == VIRTQ_FINISHING;

	c->out_state = IO_IDLE;
	if (paused && c->out_at < c->tx.out_bytes) {
		c->out_skip = c->out_at;
		c->shown = true;
		virtq_unpop(q->vq, &c->tx);
	} else {
		virtq_push(q->vq, &c->tx, 0);
	}
	virtio_queue_release(q);
	virtio_queue_again(q);
}

static void out_done(struct loop_op *op, int result)
{
	struct console *c = container_of(op, struct console, out_op);
	struct virtio_queue *q = &c->vdev.queues[TX];

	if (c->dropping && virtio_queue_running(q)) {
		drop_rest(c, result);
		return;
	}
	if (c->out_state == IO_POLL) {
		result = 0;
	} else if (result == -EAGAIN && virtio_queue_running(q)) {
		c->out_state = IO_POLL;
		loop_poll(q->loop, op, c->out_fd, POLLOUT);
		return;
	} else if (result == -EAGAIN || result == -EINTR || result == -ECANCELED) {
		result = 0;
	} else if (result <= 0) {
		/* Nobody is there to read it: it is gone, and the guest goes on. */
		log_guest(c->vdev.log, &c->vdev.limit, c->vdev.name, "output is lost: %s",
			  err_name(result));
		c->out_at = c->tx.out_bytes;
		result = 0;
	}
	c->out_at += (unsigned int)result;
	c->written += (unsigned int)result;
	if (c->out_at < c->tx.out_bytes && virtio_queue_running(q))
		write_more(c);
	else
		tx_end(c, q);
}

/* The viewer's copy of the chain. */
static void show(struct console *c)
{
	for (unsigned int i = 0; i < c->tx.n_out && !c->shown; i++)
		viewer_put(&c->viewer, c->tx.out[i].iov_base, c->tx.out[i].iov_len);
	c->shown = false;
}

static bool tx_serve(struct virtio_queue *q)
{
	struct console *c = of_vdev(q->vdev);

	if (c->out_state != IO_IDLE)
		return false;
	do {
		virtq_kick_disable(q->vq);
		while (virtq_pop(q->vq, &c->tx) > 0) {
			if (c->tx.truncated)
				log_guest(c->vdev.log, &c->vdev.limit, c->vdev.name,
					  "output is lost: more than %d segments of it at once",
					  VIRTQ_MAX_SEGMENTS);
			show(c);
			c->out_at = MIN(c->out_skip, c->tx.out_bytes);
			c->output_bytes += c->tx.out_bytes - c->out_at;
			c->out_skip = 0;
			if (c->dropping) {
				c->dropped += c->tx.out_bytes - c->out_at;
				c->out_at = c->tx.out_bytes;
			}
			if (c->out_fd >= 0 && c->out_at < c->tx.out_bytes) {
				virtio_queue_hold(q);
				write_more(c);
				watch_stall(c);
				return false;
			}
			virtq_push(q->vq, &c->tx, 0);
			if (!virtio_queue_spend(q, 0))
				return true;
		}
	} while (virtq_kick_enable(q->vq));
	return false;
}

static void tx_cancel(struct virtio_queue *q)
{
	struct console *c = of_vdev(q->vdev);

	/* A pause does not wait for a reader that may never come either. */
	loop_cancel(q->loop, &c->out_op);
	loop_cancel(q->loop, &c->stall_op);
	loop_cancel(q->loop, &c->ready_op);
	end_dropping(c);
	if (virtq_state(q->vq) == VIRTQ_ABANDONING) {
		c->out_skip = 0;
		c->shown = false;
	}
}

static const struct virtio_queue_ops tx_ops = {
	.serve = tx_serve,
	.cancel = tx_cancel,
};

static void console_config_read(struct virtio_device *vdev, uint32_t offset, void *buf,
				unsigned int len)
{
	uint32_t size = atomic_load(&of_vdev(vdev)->size);
	const struct virtio_console_config space = {
		.cols = htole16((uint16_t)size),
		.rows = htole16((uint16_t)(size >> 16)),
		.max_nr_ports = htole32(1),
	};

	memcpy(buf, (const uint8_t *)&space + offset, len);
}

static void console_reset(struct virtio_device *vdev)
{
	of_vdev(vdev)->out_skip = 0;
	of_vdev(vdev)->shown = false;
}

static void console_destroy(struct virtio_device *vdev)
{
	if (!vdev)
		return;
	virtio_device_done(vdev);
	viewer_done(&of_vdev(vdev)->viewer);
	free(of_vdev(vdev));
}

static const struct state_field console_fields[] = {
	STATE_ONE(struct console, in_start, .max = CONSOLE_IN_BYTES),
	STATE_ONE(struct console, in_bytes, .max = CONSOLE_IN_BYTES),
	STATE_ARRAY(struct console, in),
	STATE_ONE(struct console, out_skip),
};

STATE_DERIVED(struct console, "has sections of its own", vdev);
STATE_DERIVED(struct console, "of this host's terminal", in_fd, out_fd, size, patience_ns, written,
	      at_stall, dropping, dropped, output_bytes, viewer, shown, in_end);
STATE_DERIVED(struct console, "nothing is in flight while the queues are off", rx, tx, rx_segments,
	      tx_segments, in_state, turning, in_op, out_state, out_op, out_at, out, stall_op,
	      ready_op);

static int console_check(const void *record, const void *live, uint32_t i, struct err *err)
{
	const struct console *c = record;

	(void)live;
	(void)i;
	if (c->in_start > c->in_bytes)
		return err_set(err, -EPROTO, "in_start is %u, behind in_bytes %u", c->in_start,
			       c->in_bytes);
	return 0;
}

static const struct state_section console_section =
	STATE_SECTION("console", 1, struct console, console_fields, .check = console_check);

static const struct virtio_device_ops console_ops = {
	.id = VIRTIO_ID_CONSOLE,
	.type = "virtio-console",
	.config_read = console_config_read,
	.reset = console_reset,
	.state = &console_section,
	.destroy = console_destroy,
};

uint64_t virtio_console_output_bytes(const struct virtio_device *vdev)
{
	return container_of((struct virtio_device *)(uintptr_t)vdev, struct console, vdev)
		->output_bytes;
}

int virtio_console_view(struct virtio_device *vdev, int fd, bool take, struct err *err)
{
	struct console *c = of_vdev(vdev);
	struct loop *loop = vdev->queues[RX].loop;
	int ret;

	if (!take && viewer_is_there(&c->viewer))
		return err_set(err, -EBUSY, "somebody looks at it already");
	c->turning = true;
	loop_cancel(loop, &c->in_op);
	while (c->in_state != IO_IDLE && loop_iterate(loop, true) >= 0)
		;
	ret = viewer_begin(&c->viewer, fd, err);
	c->turning = false;
	read_more(c);
	return ret;
}

bool virtio_console_is_viewed(const struct virtio_device *vdev)
{
	return viewer_is_there(
		&container_of((struct virtio_device *)(uintptr_t)vdev, struct console, vdev)
			 ->viewer);
}

void virtio_console_resize(struct virtio_device *vdev, uint16_t columns, uint16_t rows)
{
	/* Offered when a size is known before the driver looks. */
	if (!vdev->transport)
		vdev->features_offered |= 1ull << VIRTIO_CONSOLE_F_SIZE;
	virtio_config_begin(vdev);
	atomic_store(&of_vdev(vdev)->size, columns | (uint32_t)rows << 16);
	virtio_config_end(vdev, true);
}

int virtio_console_create(struct virtio_device **ret, const struct virtio_console_setup *setup,
			  const struct log *log, struct err *err)
{
	struct console *c;
	int r;

	if (!mem_new(c))
		return err_set(err, -ENOMEM, "%s: no memory", setup->name);
	r = virtio_device_init(&c->vdev, &console_ops, setup->name, log, 2, err);
	if (r) {
		free(c);
		return r;
	}
	c->vdev.config_bytes = sizeof(struct virtio_console_config);
	viewer_init(&c->viewer, setup->loop);
	c->in_fd = setup->in_fd;
	c->out_fd = setup->out_fd;
	c->in_op.done = in_done;
	c->out_op.done = out_done;
	c->patience_ns = setup->patience_ns;
	c->stall_op.done = stall_done;
	c->ready_op.done = ready_done;
	c->rx.iov = c->rx_segments;
	c->tx.iov = c->tx_segments;
	c->rx.max_iov = c->tx.max_iov = VIRTQ_MAX_SEGMENTS;
	c->vdev.queues[RX].ops = &rx_ops;
	c->vdev.queues[TX].ops = &tx_ops;
	for (unsigned int i = 0; i < 2; i++) {
		c->vdev.queues[i].loop = setup->loop;
		c->vdev.queues[i].max_size = CONSOLE_QUEUE_SIZE;
	}
	*ret = &c->vdev;
	return 0;
}
