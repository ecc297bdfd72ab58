/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One virtio-blk request from its chain to its status byte (virtio 1.3, 5.2.6).
 *
 * The header is read once, the layout of buffers does not matter (2.7.4.1), the range is checked in
 * sectors so that nothing wraps. Transfers that end short go on; buffers whose alignment the fd
 * cannot take pass through a bounce buffer, segment by segment.
 */
#include "virtio/blk_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include <linux/falloc.h>

static struct blk *blk_of(const struct blk_request *req)
{
	return req->queue->blk;
}

/* One line now and then; the guest hears of every one. */
static void complain(struct blk_request *req, const char *what, int code)
{
	struct blk *blk = blk_of(req);

	log_guest(blk->vdev.log, &blk->vdev.limit, blk->vdev.name, "%s at byte %llu: %s", what,
		  (unsigned long long)(req->offset + req->done), err_name(code));
}

static bool in_capacity(struct blk *blk, uint64_t sector, uint64_t sectors)
{
	uint64_t capacity = atomic_load_explicit(&blk->sectors, memory_order_relaxed);

	return sector <= capacity && sectors <= capacity - sector;
}

/* Sector and length as the disk's logical block demands, and on the disk. */
static bool range_valid(struct blk *blk, uint64_t sector, uint64_t sectors)
{
	uint32_t block_sectors = blk->block_bytes >> BLK_SECTOR_BITS;

	return is_aligned(sector, block_sectors) && is_aligned(sectors, block_sectors) &&
	       in_capacity(blk, sector, sectors);
}

/* Does every segment suit an fd that wants alignment? */
static bool segments_aligned(const struct iovec *iov, unsigned int n, uint32_t align)
{
	uintptr_t bits = 0;

	for (unsigned int i = 0; i < n; i++)
		bits |= (uintptr_t)iov[i].iov_base | iov[i].iov_len;
	return !(bits & (align - 1));
}

/* Bounce buffers */

static uint8_t *bounce_buf(struct blk_request *req)
{
	return req->queue->bounce + (size_t)req->bounce * BLK_BOUNCE_BYTES;
}

static bool bounce_take(struct blk_request *req)
{
	struct blk_queue *q = req->queue;

	if (req->bounce >= 0)
		return true;
	if (!q->bounce_free)
		return false;
	req->bounce = __builtin_ctz(q->bounce_free);
	q->bounce_free &= ~(1u << req->bounce);
	return true;
}

static const struct iovec *guest_extents(struct blk_request *req, unsigned int *n, size_t *skip)
{
	if (req->type == VIRTIO_BLK_T_OUT) {
		*n = req->chain.n_out;
		*skip = sizeof(struct virtio_blk_outhdr);
		return req->chain.out;
	}
	*n = req->chain.n_in;
	*skip = 0;
	return req->chain.in;
}

static void transfer_bounced(struct blk_request *req)
{
	struct blk_queue *q = req->queue;
	uint64_t left = req->bytes - req->done;
	unsigned int len = (unsigned int)MIN(left, (uint64_t)BLK_BOUNCE_BYTES);
	int64_t offset = (int64_t)(req->offset + req->done);

	if (req->type == VIRTIO_BLK_T_IN) {
		loop_read(q->base->loop, &req->op, blk_of(req)->fd, bounce_buf(req), len, offset);
		return;
	}
	unsigned int n;
	size_t skip;
	const struct iovec *iov = guest_extents(req, &n, &skip);

	(void)iov_to_buf(iov, n, skip + req->done, bounce_buf(req), len);
	loop_write(q->base->loop, &req->op, blk_of(req)->fd, bounce_buf(req), len, offset);
}

/* Submit what is left of the data. */
static void transfer(struct blk_request *req)
{
	struct blk_queue *q = req->queue;
	int64_t offset = (int64_t)(req->offset + req->done);

	if (q->bounce && (req->bounce >= 0 ||
			  !segments_aligned(req->data, req->n_data, blk_of(req)->align_bytes))) {
		if (!bounce_take(req)) {
			list_append(&q->waiting, &req->link);
			return;
		}
		transfer_bounced(req);
		return;
	}
	if (req->type == VIRTIO_BLK_T_IN)
		loop_readv(q->base->loop, &req->op, blk_of(req)->fd, req->data, req->n_data,
			   offset);
	else
		loop_writev(q->base->loop, &req->op, blk_of(req)->fd, req->data, req->n_data,
			    offset);
}

/* The end of a request */

/* Give the bounce buffer to the next request that waits for one. */
static void release_bounce(struct blk_request *req)
{
	struct blk_queue *q = req->queue;

	if (req->bounce < 0)
		return;
	q->bounce_free |= 1u << req->bounce;
	req->bounce = -1;
	struct list *item = list_pop(&q->waiting);

	if (item)
		transfer(container_of(item, struct blk_request, link));
}

/* The most recently used one is the next to be taken: its pages are warm, others stay untouched. */
void blk_request_put(struct blk_request *req)
{
	list_append(req->queue->free.next, &req->link);
}

void blk_request_finish(struct blk_request *req, uint8_t status)
{
	struct blk_queue *q = req->queue;

	if (req->began_ns)
		latency_add(&q->latency, clock_ns() - req->began_ns);
	if (virtq_state(q->base->vq) != VIRTQ_ABANDONING)
		*req->status = (uint8_t)status;
	/* The status is the last byte, so all of it counts as written. */
	virtq_push(q->base->vq, &req->chain, (uint32_t)MIN(req->chain.in_bytes, UINT32_MAX));
	release_bounce(req);
	blk_request_put(req);
	if (q->starved)
		virtio_queue_again(q->base);
	q->starved = false;
	virtio_queue_release(q->base);
}

/* Durable before it is answered: the driver has no cache to flush (5.2.6.2). */
static void finish_write(struct blk_request *req)
{
	struct blk *blk = blk_of(req);

	if (atomic_load_explicit(&blk->writeback, memory_order_relaxed)) {
		blk_request_finish(req, VIRTIO_BLK_S_OK);
		return;
	}
	req->syncing = true;
	loop_fsync(req->queue->base->loop, &req->op, blk->fd, true);
}

/* IN and OUT */

/* The segments of the next slice, or of the rest after a short transfer. */
static void next_slice(struct blk_request *req)
{
	unsigned int n;
	size_t skip;
	const struct iovec *iov = guest_extents(req, &n, &skip);
	int segments = iov_slice(req->slice, VIRTQ_MAX_SEGMENTS, iov, n, skip + req->done,
				 MIN(req->bytes - req->done, (uint64_t)BLK_SLICE_BYTES));

	assert(segments > 0); /* no more segments than the chain has */
	req->data = req->slice;
	req->n_data = (unsigned int)segments;
}

static void transfer_done(struct blk_request *req, int result)
{
	if (result <= 0) {
		/* 0: the file is shorter than the disk was said to be. */
		complain(req, req->type == VIRTIO_BLK_T_IN ? "read" : "write",
			 result ? result : -ENODATA);
		blk_request_finish(req, VIRTIO_BLK_S_IOERR);
		return;
	}
	if (req->bounce >= 0 && req->type == VIRTIO_BLK_T_IN)
		(void)iov_from_buf(req->chain.in, req->chain.n_in, req->done, bounce_buf(req),
				   (size_t)result);
	req->done += (uint64_t)result;
	if (req->done < req->bytes) {
		if (req->bounce < 0)
			next_slice(req);
		transfer(req);
		return;
	}
	if (req->type == VIRTIO_BLK_T_OUT)
		finish_write(req);
	else
		blk_request_finish(req, VIRTIO_BLK_S_OK);
}

static void start_transfer(struct blk_request *req, uint64_t sector)
{
	struct virtq_chain *chain = &req->chain;
	struct blk *blk = blk_of(req);
	bool in = req->type == VIRTIO_BLK_T_IN;

	req->bytes = in ? chain->in_bytes - 1 : chain->out_bytes - sizeof(struct virtio_blk_outhdr);
	if (!is_aligned(req->bytes, BLK_SECTOR_BYTES) ||
	    !range_valid(blk, sector, req->bytes >> BLK_SECTOR_BITS) || (!in && blk->readonly)) {
		blk_request_finish(req, VIRTIO_BLK_S_IOERR);
		return;
	}
	if (!req->bytes) {
		blk_request_finish(req, VIRTIO_BLK_S_OK);
		return;
	}
	req->offset = sector << BLK_SECTOR_BITS;
	/* The usual layout needs no new array: header and status have segments of their own. */
	if (req->bytes > BLK_SLICE_BYTES) {
		next_slice(req);
	} else if (in && chain->in[chain->n_in - 1].iov_len == 1) {
		req->data = chain->in;
		req->n_data = chain->n_in - 1;
	} else if (!in && chain->out[0].iov_len == sizeof(struct virtio_blk_outhdr)) {
		req->data = chain->out + 1;
		req->n_data = chain->n_out - 1;
	} else {
		next_slice(req);
	}
	transfer(req);
}

/* DISCARD and WRITE_ZEROES: a list of ranges, one after the other. */

static void write_zeroes(struct blk_request *req)
{
	uint64_t left = req->bytes - req->done;
	unsigned int n = 0;

	for (; left && n < BLK_ZERO_SEGMENTS; n++) {
		size_t len = MIN(left, (uint64_t)BLK_ZERO_BYTES);

		req->slice[n] = (struct iovec){(void *)(uintptr_t)blk_of(req)->zeroes, len};
		left -= len;
	}
	loop_writev(req->queue->base->loop, &req->op, blk_of(req)->fd, req->slice, n,
		    (int64_t)(req->offset + req->done));
}

/* Free it or make it zero, by the best way the host has not refused yet. */
static void submit_range(struct blk_request *req)
{
	struct blk *blk = blk_of(req);
	bool unmap = le32toh(req->ranges[req->range].flags) & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
	bool discard = req->type == VIRTIO_BLK_T_DISCARD;

	req->mode = 0;
	if ((discard || unmap) && !atomic_load_explicit(&blk->no_punch, memory_order_relaxed))
		req->mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	else if (!discard && !atomic_load_explicit(&blk->no_zero_range, memory_order_relaxed))
		req->mode = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;

	if (req->mode) {
		loop_fallocate(req->queue->base->loop, &req->op, blk->fd, req->mode, req->offset,
			       req->bytes);
	} else if (discard) {
		blk_request_finish(req, VIRTIO_BLK_S_UNSUPP);
	} else {
		req->zeroing = true;
		write_zeroes(req);
	}
}

static void next_range(struct blk_request *req)
{
	while (req->range < req->n_ranges && !le32toh(req->ranges[req->range].num_sectors))
		req->range++;
	if (req->range == req->n_ranges) {
		finish_write(req);
		return;
	}
	const struct virtio_blk_discard_write_zeroes *range = &req->ranges[req->range];

	req->offset = le64toh(range->sector) << BLK_SECTOR_BITS;
	req->bytes = (uint64_t)le32toh(range->num_sectors) << BLK_SECTOR_BITS;
	req->done = 0;
	req->zeroing = false;
	submit_range(req);
}

static void range_done(struct blk_request *req, int result)
{
	struct blk *blk = blk_of(req);

	if (req->zeroing && result > 0) {
		req->done += (uint64_t)result;
		if (req->done < req->bytes) {
			write_zeroes(req);
			return;
		}
	} else if (!req->zeroing && (result == -EOPNOTSUPP || result == -ENOSYS)) {
		/* Another queue may have learned the same meanwhile. */
		atomic_store_explicit(req->mode & FALLOC_FL_PUNCH_HOLE ? &blk->no_punch
								       : &blk->no_zero_range,
				      true, memory_order_relaxed);
		submit_range(req);
		return;
	} else if (result < 0 || req->zeroing) {
		complain(req, req->type == VIRTIO_BLK_T_DISCARD ? "discard" : "write zeroes",
			 result ? result : -ENOSPC);
		blk_request_finish(req, VIRTIO_BLK_S_IOERR);
		return;
	}
	req->range++;
	next_range(req);
}

/* All ranges are checked before the first is touched. */
static uint8_t check_ranges(struct blk_request *req)
{
	bool discard = req->type == VIRTIO_BLK_T_DISCARD;
	uint32_t flags_known = discard ? 0 : VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;

	for (unsigned int i = 0; i < req->n_ranges; i++) {
		const struct virtio_blk_discard_write_zeroes *range = &req->ranges[i];
		uint32_t sectors = le32toh(range->num_sectors);

		/* 5.2.6.2: unknown flags, and unmap in a discard, are UNSUPP. */
		if (le32toh(range->flags) & ~flags_known)
			return VIRTIO_BLK_S_UNSUPP;
		if (sectors > BLK_RANGE_SECTORS_MAX ||
		    !range_valid(blk_of(req), le64toh(range->sector), sectors))
			return VIRTIO_BLK_S_IOERR;
	}
	return VIRTIO_BLK_S_OK;
}

static void start_ranges(struct blk_request *req)
{
	struct blk *blk = blk_of(req);
	uint64_t bytes = req->chain.out_bytes - sizeof(struct virtio_blk_outhdr);
	unsigned int feature = req->type == VIRTIO_BLK_T_DISCARD ? VIRTIO_BLK_F_DISCARD
								 : VIRTIO_BLK_F_WRITE_ZEROES;

	if (!virtio_has(&blk->vdev, feature)) {
		blk_request_finish(req, VIRTIO_BLK_S_UNSUPP);
		return;
	}
	if (!bytes || bytes % sizeof(struct virtio_blk_discard_write_zeroes) ||
	    bytes > sizeof(req->ranges) || blk->readonly) {
		blk_request_finish(req, VIRTIO_BLK_S_IOERR);
		return;
	}
	(void)iov_to_buf(req->chain.out, req->chain.n_out, sizeof(struct virtio_blk_outhdr),
			 req->ranges, bytes);
	req->n_ranges = (unsigned int)(bytes / sizeof(struct virtio_blk_discard_write_zeroes));
	req->range = 0;
	uint8_t status = check_ranges(req);

	if (status != VIRTIO_BLK_S_OK)
		blk_request_finish(req, status);
	else
		next_range(req);
}

static void start_get_id(struct blk_request *req)
{
	const struct blk *blk = blk_of(req);
	size_t room = req->chain.in_bytes - 1;

	(void)iov_from_buf(req->chain.in, req->chain.n_in, 0, blk->id, MIN(room, sizeof(blk->id)));
	blk_request_finish(req, VIRTIO_BLK_S_OK);
}

void blk_request_start(struct blk_request *req)
{
	struct virtq_chain *chain = &req->chain;
	struct virtio_blk_outhdr header;

	req->bounce = -1;
	req->began_ns = req->queue->turn++ % VIRTIO_BLK_MEASURED ? 0 : clock_ns();
	req->syncing = false;
	req->zeroing = false;
	req->retries = 0;
	req->offset = 0;
	req->bytes = 0;
	req->done = 0;
	req->status = chain->last_in; /* which there is (blk.c) */
	if (chain->truncated) {
		if (chain->denied)
			complain(req, "request in memory that the device may not reach", -EFAULT);
		else
			complain(req, "request in too many segments", -E2BIG);
		blk_request_finish(req, VIRTIO_BLK_S_IOERR);
		return;
	}
	if (iov_to_buf(chain->out, chain->n_out, 0, &header, sizeof(header)) < sizeof(header)) {
		blk_request_finish(req, VIRTIO_BLK_S_IOERR);
		return;
	}
	req->type = le32toh(header.type);
	switch (req->type) {
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT:
		start_transfer(req, le64toh(header.sector));
		break;
	case VIRTIO_BLK_T_FLUSH:
		/* A file system without writes may know no fsync (squashfs). */
		if (blk_of(req)->readonly) {
			blk_request_finish(req, VIRTIO_BLK_S_OK);
			break;
		}
		/* Covers the writes that were answered before it was given (5.2.6.2), so it needs
		 * no order among those in flight. */
		req->syncing = true;
		loop_fsync(req->queue->base->loop, &req->op, blk_of(req)->fd, true);
		break;
	case VIRTIO_BLK_T_GET_ID:
		start_get_id(req);
		break;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		start_ranges(req);
		break;
	default:
		blk_request_finish(req, VIRTIO_BLK_S_UNSUPP);
		break;
	}
}

/* The kernel asks to try again: the same step once more. */
static void again(struct blk_request *req)
{
	if (req->syncing)
		loop_fsync(req->queue->base->loop, &req->op, blk_of(req)->fd, true);
	else if (req->type == VIRTIO_BLK_T_IN || req->type == VIRTIO_BLK_T_OUT)
		transfer(req);
	else if (req->zeroing)
		write_zeroes(req);
	else
		submit_range(req);
}

static void op_done(struct loop_op *op, int result)
{
	struct blk_request *req = container_of(op, struct blk_request, op);

	if (virtq_state(req->queue->base->vq) == VIRTQ_ABANDONING) {
		blk_request_finish(req, VIRTIO_BLK_S_IOERR);
		return;
	}
	/* Cancelled by nobody: the thread that gave it to the kernel ended (core/loop.h). */
	if ((result == -EINTR || result == -EAGAIN || result == -ECANCELED) &&
	    req->retries++ < BLK_RETRIES) {
		again(req);
		return;
	}
	if (req->syncing) {
		uint8_t status = VIRTIO_BLK_S_OK;

		if (result < 0) {
			complain(req, "flush", result);
			status = VIRTIO_BLK_S_IOERR;
		}
		blk_request_finish(req, status);
	} else if (req->type == VIRTIO_BLK_T_IN || req->type == VIRTIO_BLK_T_OUT) {
		transfer_done(req, result);
	} else {
		range_done(req, result);
	}
}

struct blk_request *blk_request_get(struct blk_queue *q)
{
	struct list *item = list_pop(&q->free);

	if (item)
		return container_of(item, struct blk_request, link);
	if (q->fresh == q->n_requests)
		return NULL;
	struct blk_request *req = &q->requests[q->fresh++];

	req->queue = q;
	req->op.done = op_done;
	req->chain.iov = req->segments;
	req->chain.max_iov = ARRAY_SIZE(req->segments);
	list_init(&req->link);
	return req;
}
