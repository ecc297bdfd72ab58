// SPDX-License-Identifier: Apache-2.0
// virtio-console, one port without multiport: receive queue 0, transmit queue 1.
//
// Backpressure both ways. Output: one chain at a time goes to the fd from guest memory; what the fd
// does not take yet stays in flight, so the driver sees a full queue. A quiesce takes a chain back
// that is written in part and remembers how far it got. Input: read into a small buffer only while
// that has room, so what the driver offers no buffers for stays with whoever writes.
#include "virtio/console.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/le.h"
#include "base/mem.h"
#include "base/num.h"

enum {
	CONSOLE_ID = 3,
	CONSOLE_F_SIZE = 0,
	CONSOLE_QUEUE_SIZE = 64,
	CONSOLE_IN_BYTES = 4096,
	RX = 0,
	TX = 1,
	/* What one turn of the loop takes from a queue; the rest is the next turn's. */
	CONSOLE_CHAINS_A_TURN = 64,
};

/* virtio 1.3, 5.3.4 */
struct console_config_space {
	le16 columns;
	le16 rows;
	le32 max_nr_ports;
	le32 emerg_wr;
};
static_assert(sizeof(struct console_config_space) == 12, "virtio 1.3, 5.3.4");

struct console;

/* What the two queues have in common. */
struct side {
	struct console *console;
	unsigned int index;
	bool on; /* from queue_start to queue_stop */
	bool stopping;
	bool abandon;
	bool deferred;
	struct loop_op again;
	struct virtq_chain chain;
	struct iovec pieces[VIRTQ_MAX_PIECES];
};

enum io {
	IO_IDLE,
	IO_BUSY, /* read or write in flight */
	IO_POLL, /* not ready: waiting until it is */
	IO_END,  /* nothing more will come */
};

struct console {
	struct virtio_device vdev;
	struct loop *loop;
	int in_fd;
	int out_fd;
	_Atomic uint32_t size; /* columns, rows << 16 */

	struct side rx;
	struct side tx;

	enum io in_state;
	struct loop_op in_op;
	unsigned int in_start; /* given to the guest up to here */
	unsigned int in_bytes; /* read up to here; where a read in flight goes on */
	uint8_t in[CONSOLE_IN_BYTES];

	enum io out_state;
	struct loop_op out_op;
	uint64_t out_at;   /* how much of tx.chain is written */
	uint64_t out_skip; /* how much of the next chain was written before a quiesce */
	struct iovec out[VIRTQ_MAX_PIECES];
};

static struct console *of_vdev(struct virtio_device *vdev)
{
	return container_of(vdev, struct console, vdev);
}

static struct virtq *vq_of(const struct side *s)
{
	return s->console->vdev.queues[s->index].vq;
}

static void pump(struct side *s);

static void side_defer(struct side *s)
{
	if (s->deferred)
		return;
	s->deferred = true;
	loop_defer(s->console->loop, &s->again);
}

static enum io *io_of(struct side *s)
{
	return s->index == RX ? &s->console->in_state : &s->console->out_state;
}

/* The stop is over when nothing of this side is in flight any more. */
static void side_stop_if_idle(struct side *s)
{
	enum io io = *io_of(s);

	if (!s->stopping || s->deferred || io == IO_BUSY || io == IO_POLL)
		return;
	s->stopping = false;
	virtio_queue_stopped(&s->console->vdev, s->index);
}

static void again(struct loop_op *op, int result)
{
	struct side *s = container_of(op, struct side, again);

	(void)result;
	s->deferred = false;
	if (s->on)
		pump(s);
	side_stop_if_idle(s);
}

/* Input */

static void read_more(struct console *c)
{
	if (c->in_state != IO_IDLE || c->in_fd < 0 || !c->rx.on)
		return;
	/* Only now may bytes move: no read is in flight behind them. */
	c->in_bytes -= c->in_start;
	memmove(c->in, c->in + c->in_start, c->in_bytes);
	c->in_start = 0;
	if (c->in_bytes == CONSOLE_IN_BYTES)
		return;
	c->in_state = IO_BUSY;
	loop_read(c->loop, &c->in_op, c->in_fd, c->in + c->in_bytes, CONSOLE_IN_BYTES - c->in_bytes,
		  -1);
}

static void in_done(struct loop_op *op, int result)
{
	struct console *c = container_of(op, struct console, in_op);
	bool polled = c->in_state == IO_POLL;

	c->in_state = IO_IDLE;
	if (result == -EAGAIN && !c->rx.stopping) {
		c->in_state = IO_POLL;
		loop_poll(c->loop, op, c->in_fd, POLLIN);
		return;
	}
	if (result == 0 && !polled) {
		c->in_state = IO_END;
	} else if (result < 0 && result != -EAGAIN && result != -EINTR && result != -ECANCELED) {
		log_guest(c->vdev.log, &c->vdev.limit, c->vdev.name, "no more input: %s",
			  err_name(result));
		c->in_state = IO_END;
	} else if (result > 0 && !polled) {
		c->in_bytes += (unsigned int)result;
	}
	if (c->rx.on)
		pump(&c->rx);
	side_stop_if_idle(&c->rx);
}

static void give(struct console *c, struct virtq_chain *chain)
{
	size_t n = iov_from_buf(chain->in, chain->n_in, 0, c->in + c->in_start,
				c->in_bytes - c->in_start);

	c->in_start += (unsigned int)n;
	virtq_push(vq_of(&c->rx), chain, (uint32_t)n);
}

static void pump_rx(struct console *c)
{
	struct virtq *vq = vq_of(&c->rx);
	unsigned int budget = CONSOLE_CHAINS_A_TURN;

	do {
		while (c->in_start < c->in_bytes && budget && virtq_pop(vq, &c->rx.chain) > 0) {
			give(c, &c->rx.chain);
			budget--;
		}
		/* New buffers are of interest only while something waits for them. */
		if (c->in_start == c->in_bytes || !budget) {
			virtq_kick_disable(vq);
			break;
		}
	} while (virtq_kick_enable(vq));
	if (!budget)
		side_defer(&c->rx);
	virtq_flush(vq);
	read_more(c);
}

/* Output */

static void write_more(struct console *c)
{
	struct virtq_chain *chain = &c->tx.chain;
	int n = iov_slice(c->out, ARRAY_SIZE(c->out), chain->out, chain->n_out, c->out_at,
			  chain->out_bytes - c->out_at);

	c->out_state = IO_BUSY;
	loop_writev(c->loop, &c->out_op, c->out_fd, c->out, (unsigned int)n, -1);
}

/* The chain in flight, cut short by a stop. */
static void put_back(struct console *c)
{
	c->out_skip = c->tx.abandon ? 0 : c->out_at;
	if (c->tx.abandon)
		virtq_drop(vq_of(&c->tx), &c->tx.chain);
	else
		virtq_unpop(vq_of(&c->tx), &c->tx.chain);
}

static void out_done(struct loop_op *op, int result)
{
	struct console *c = container_of(op, struct console, out_op);
	bool polled = c->out_state == IO_POLL;

	c->out_state = IO_IDLE;
	if (polled) {
		result = 0;
	} else if (result == -EAGAIN && !c->tx.stopping) {
		c->out_state = IO_POLL;
		loop_poll(c->loop, op, c->out_fd, POLLOUT);
		return;
	} else if (result == -EAGAIN || result == -EINTR || result == -ECANCELED) {
		result = 0;
	} else if (result <= 0) {
		/* Nobody is there to read it: it is gone, and the guest goes on. */
		log_guest(c->vdev.log, &c->vdev.limit, c->vdev.name, "output is lost: %s",
			  err_name(result));
		c->out_at = c->tx.chain.out_bytes;
		result = 0;
	}
	c->out_at += (unsigned int)result;
	if (c->out_at < c->tx.chain.out_bytes && c->tx.on) {
		write_more(c);
		return;
	}
	if (c->out_at < c->tx.chain.out_bytes || c->tx.abandon)
		put_back(c);
	else
		virtq_push(vq_of(&c->tx), &c->tx.chain, 0);
	if (c->tx.on)
		pump(&c->tx);
	else if (!c->tx.abandon)
		virtq_flush(vq_of(&c->tx));
	side_stop_if_idle(&c->tx);
}

static void pump_tx(struct console *c)
{
	struct virtq *vq = vq_of(&c->tx);
	unsigned int budget = CONSOLE_CHAINS_A_TURN;

	if (c->out_state != IO_IDLE)
		return;
	do {
		virtq_kick_disable(vq);
		while (budget && virtq_pop(vq, &c->tx.chain) > 0) {
			if (c->tx.chain.truncated)
				log_guest(c->vdev.log, &c->vdev.limit, c->vdev.name,
					  "output is lost: more than %d pieces of it at once",
					  VIRTQ_MAX_PIECES);
			c->out_at = MIN(c->out_skip, c->tx.chain.out_bytes);
			c->out_skip = 0;
			if (c->out_fd >= 0 && c->out_at < c->tx.chain.out_bytes) {
				write_more(c);
				goto out;
			}
			virtq_push(vq, &c->tx.chain, 0);
			budget--;
		}
		if (!budget) {
			side_defer(&c->tx);
			break;
		}
	} while (virtq_kick_enable(vq));
out:
	virtq_flush(vq);
}

static void pump(struct side *s)
{
	if (s->index == RX)
		pump_rx(s->console);
	else
		pump_tx(s->console);
}

/* Queues */

static struct side *side_of(struct virtio_device *vdev, unsigned int index)
{
	return index == RX ? &of_vdev(vdev)->rx : &of_vdev(vdev)->tx;
}

static void console_queue_start(struct virtio_device *vdev, unsigned int index)
{
	struct side *s = side_of(vdev, index);

	s->on = true;
	s->abandon = false;
}

static void console_queue_kick(struct virtio_device *vdev, unsigned int index)
{
	struct side *s = side_of(vdev, index);

	if (s->on)
		pump(s);
}

static void console_queue_stop(struct virtio_device *vdev, unsigned int index, bool abandon)
{
	struct side *s = side_of(vdev, index);
	struct console *c = s->console;

	s->on = false;
	s->stopping = true;
	s->abandon = abandon;
	/* A quiesce does not wait for a reader that may never come either. */
	loop_cancel(c->loop, index == RX ? &c->in_op : &c->out_op);
	if (abandon && index == TX)
		c->out_skip = 0;
	side_stop_if_idle(s);
}

static void console_config_read(struct virtio_device *vdev, uint32_t offset, void *buf,
				unsigned int len)
{
	uint32_t size = atomic_load(&of_vdev(vdev)->size);
	const struct console_config_space space = {
		.columns = le16_of((uint16_t)size),
		.rows = le16_of((uint16_t)(size >> 16)),
		.max_nr_ports = le32_of(1),
	};

	memcpy(buf, (const uint8_t *)&space + offset, len);
}

static void console_reset(struct virtio_device *vdev)
{
	of_vdev(vdev)->out_skip = 0;
}

static void console_destroy(struct virtio_device *vdev)
{
	if (vdev)
		free(of_vdev(vdev));
}

static const struct virtio_device_ops console_ops = {
	.id = CONSOLE_ID,
	.type = "virtio-console",
	.config_read = console_config_read,
	.queue_start = console_queue_start,
	.queue_kick = console_queue_kick,
	.queue_stop = console_queue_stop,
	.reset = console_reset,
	.destroy = console_destroy,
};

void virtio_console_resize(struct virtio_device *vdev, uint16_t columns, uint16_t rows)
{
	/* Offered when a size is known before the driver looks. */
	if (!vdev->transport)
		vdev->features_offered |= 1ull << CONSOLE_F_SIZE;
	atomic_store(&of_vdev(vdev)->size, columns | (uint32_t)rows << 16);
	virtio_config_changed(vdev);
}

static void side_init(struct side *s, struct console *c, unsigned int index)
{
	s->console = c;
	s->index = index;
	s->again.done = again;
	s->chain.iov = s->pieces;
	s->chain.max_iov = ARRAY_SIZE(s->pieces);
	c->vdev.queues[index] = (struct virtio_queue){
		.loop = c->loop,
		.max_size = CONSOLE_QUEUE_SIZE,
	};
}

int virtio_console_create(struct virtio_device **ret, const struct virtio_console_setup *config,
			  const struct log *log, struct err *err)
{
	struct console *c;

	if (!mem_new(c))
		return err_set(err, -ENOMEM, "%s: no memory", config->name);
	c->vdev.ops = &console_ops;
	c->vdev.log = log;
	snprintf(c->vdev.name, sizeof(c->vdev.name), "%s", config->name);
	c->vdev.config_bytes = sizeof(struct console_config_space);
	c->vdev.n_queues = 2;
	c->loop = config->loop;
	c->in_fd = config->in_fd;
	c->out_fd = config->out_fd;
	c->in_op.done = in_done;
	c->out_op.done = out_done;
	side_init(&c->rx, c, RX);
	side_init(&c->tx, c, TX);
	*ret = &c->vdev;
	return 0;
}
