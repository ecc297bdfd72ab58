// SPDX-License-Identifier: Apache-2.0
// DMA brackets.
//
// How a drain and a port meet without a lock, both by read-modify-write on the same variable, so
// that one of them always sees the other:
//
//   port:  opened += 1, then translate        drain:  (translation changed already) opened += 0
//
// Either the drain reads the new serial number and waits for it, or the port's increment comes
// after the drain's and the port sees the changed translation. Likewise at the end: the port
// exchanges `oldest`, the drain sets WANTED in it; either the port sees WANTED and wakes, or the
// drain sees that the bracket is closed.
#include "core/dma.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"

#define WANTED (1ull << 63) /* in port->oldest: a drain waits for it to change */
#define NONE   (WANTED - 1) /* no bracket is open */

enum {
	COPY_SEGMENTS = 8, /* of dma_read and dma_write, per round */
};

struct dma_space {
	/* Constant. */
	struct gmem *gmem;
	const struct dma_space_ops *ops; /* NULL: identity */
	void *opaque;
	/* --- */
	_Atomic bool identity; /* always, or for now */
	_Atomic uint64_t generation;
	/* Guards ports, and the waiting of drains. */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct list ports;
};

int dma_space_create(struct dma_space **ret, struct gmem *gmem, const struct dma_space_ops *ops,
		     void *opaque, struct err *err)
{
	struct dma_space *space;

	if (!mem_new(space))
		return err_set(err, -ENOMEM, "DMA space: out of memory");
	space->gmem = gmem;
	space->ops = ops;
	space->opaque = opaque;
	atomic_init(&space->identity, !ops);
	pthread_mutex_init(&space->lock, NULL);
	pthread_cond_init(&space->changed, NULL);
	list_init(&space->ports);
	*ret = space;
	return 0;
}

void dma_space_destroy(struct dma_space *space)
{
	if (!space)
		return;
	assert(list_empty(&space->ports));
	pthread_cond_destroy(&space->changed);
	pthread_mutex_destroy(&space->lock);
	free(space);
}

void dma_space_set_identity(struct dma_space *space, bool identity)
{
	/* Ordered before what the drain does next; a port that sees that sees this. */
	atomic_store_explicit(&space->identity, identity || !space->ops, memory_order_release);
}

void dma_port_init(struct dma_port *port, struct dma_space *space, uint32_t requester)
{
	port->space = space;
	port->requester = requester;
	port->drains = 0;
	port->last.bytes = 0;
	atomic_init(&port->opened, 0);
	atomic_init(&port->closed, 0);
	atomic_init(&port->oldest, NONE);
	list_init(&port->open);
	pthread_mutex_lock(&space->lock);
	list_append(&space->ports, &port->link);
	pthread_mutex_unlock(&space->lock);
}

void dma_port_done(struct dma_port *port)
{
	struct dma_space *space = port->space;

	if (!space)
		return;
	assert(list_empty(&port->open));
	pthread_mutex_lock(&space->lock);
	while (port->drains)
		pthread_cond_wait(&space->changed, &space->lock);
	list_remove(&port->link);
	pthread_mutex_unlock(&space->lock);
	port->space = NULL;
}

void dma_open(struct dma_port *port, struct dma_bracket *bracket)
{
	bracket->serial = atomic_load_explicit(&port->opened, memory_order_relaxed) + 1;
	if (list_empty(&port->open))
		atomic_store_explicit(&port->oldest, bracket->serial, memory_order_relaxed);
	list_append(&port->open, &bracket->link);
	/* A drain that reads the new number reads `oldest` as it is now, or later. */
	atomic_fetch_add_explicit(&port->opened, 1, memory_order_acq_rel);
}

void dma_close(struct dma_port *port, struct dma_bracket *bracket)
{
	struct dma_space *space = port->space;
	bool was_oldest = port->open.next == &bracket->link;
	uint64_t next = NONE;

	list_remove(&bracket->link);
	atomic_store_explicit(&port->closed,
			      atomic_load_explicit(&port->closed, memory_order_relaxed) + 1,
			      memory_order_relaxed);
	if (!was_oldest)
		return;
	if (!list_empty(&port->open))
		next = container_of(port->open.next, struct dma_bracket, link)->serial;
	if (!(atomic_exchange_explicit(&port->oldest, next, memory_order_acq_rel) & WANTED))
		return;
	pthread_mutex_lock(&space->lock);
	pthread_cond_broadcast(&space->changed);
	pthread_mutex_unlock(&space->lock);
}

void dma_space_drain(struct dma_space *space)
{
	atomic_fetch_add_explicit(&space->generation, 1, memory_order_release);
	pthread_mutex_lock(&space->lock);
	list_for_each (item, &space->ports) {
		struct dma_port *port = container_of(item, struct dma_port, link);
		uint64_t last = atomic_fetch_add_explicit(&port->opened, 0, memory_order_acq_rel);

		port->drains++; /* it stays while we wait for it */
		while ((atomic_fetch_or_explicit(&port->oldest, WANTED, memory_order_acq_rel) &
			~WANTED) <= last)
			pthread_cond_wait(&space->changed, &space->lock);
		if (!--port->drains)
			pthread_cond_broadcast(&space->changed);
	}
	pthread_mutex_unlock(&space->lock);
}

void dma_space_forget(struct dma_space *space)
{
	atomic_fetch_add_explicit(&space->generation, 1, memory_order_release);
}

uint64_t dma_generation(const struct dma_port *port)
{
	return atomic_load_explicit(&port->space->generation, memory_order_acquire);
}

bool dma_translates(const struct dma_port *port)
{
	return port->space->ops;
}

static bool permitted(const struct gmem_extent *extent, enum dma_dir dir)
{
	return !(extent->flags & GMEM_NO_DMA) &&
	       !((dir & DMA_FROM_DEVICE) && (extent->flags & GMEM_READONLY));
}

static bool is_identity(const struct dma_space *space)
{
	return atomic_load_explicit(&space->identity, memory_order_relaxed);
}

/* The segment that begins at iova: its hva, and how much of len it has (0: a fault). */
static uint64_t translate(const struct dma_space *space, uint64_t iova, uint64_t len,
			  enum dma_dir dir, void **hva)
{
	uint64_t gpa = iova, n = len;
	struct gmem_extent extent;

	if (!is_identity(space) && space->ops->translate(space->opaque, iova, len, dir, &gpa, &n))
		return 0;
	if (!gmem_lookup(space->gmem, gpa, &extent) || !permitted(&extent, dir))
		return 0;
	*hva = extent.hva;
	n = MIN(n, extent.bytes);
	return MIN(n, len);
}

static int fault(const struct dma_port *port, uint64_t iova, uint64_t len, enum dma_dir dir)
{
	const struct dma_space *space = port->space;

	if (space->ops && space->ops->fault)
		space->ops->fault(space->opaque, port->requester, iova, len, dir);
	return -EFAULT;
}

/* In the region that was used last? One unsigned comparison each covers "before it" and "empty". */
static inline bool map_again(const struct dma_port *port, uint64_t iova, uint64_t len,
			     enum dma_dir dir, struct iovec *iov)
{
	uint64_t at = iova - port->last.gpa;

	if (at >= port->last.bytes || len - 1 >= port->last.bytes - at ||
	    (port->last.dirs & dir) != dir || port->last.generation != dma_generation(port))
		return false;
	*iov = (struct iovec){.iov_base = port->last.hva + at, .iov_len = len};
	return true;
}

static void remember(struct dma_port *port, uint64_t generation, uint64_t gpa)
{
	struct gmem_extent extent;

	if (!is_identity(port->space) || !gmem_lookup(port->space->gmem, gpa, &extent))
		return;
	port->last.gpa = gpa - extent.before;
	port->last.bytes = extent.before + extent.bytes;
	port->last.hva = (char *)extent.hva - extent.before;
	port->last.generation = generation;
	port->last.dirs = (permitted(&extent, DMA_TO_DEVICE) ? DMA_TO_DEVICE : 0u) |
			  (permitted(&extent, DMA_FROM_DEVICE) ? DMA_FROM_DEVICE : 0u);
}

static __attribute__((noinline)) int map_extents(struct dma_port *port, uint64_t iova, uint64_t len,
						 enum dma_dir dir, struct iovec *iov,
						 unsigned int max)
{
	/* Before the lookup: what changes during it makes the next one look again. */
	uint64_t last, generation = dma_generation(port);
	unsigned int n = 0;

	if (!len || add_overflows(iova, len - 1, &last))
		return -EINVAL;
	for (uint64_t done = 0; done < len;) {
		void *hva;
		uint64_t bytes = translate(port->space, iova + done, len - done, dir, &hva);

		if (!bytes)
			return fault(port, iova + done, len - done, dir);
		if (n && (char *)iov[n - 1].iov_base + iov[n - 1].iov_len == hva) {
			iov[n - 1].iov_len += bytes;
		} else if (n == max) {
			return -E2BIG;
		} else {
			iov[n++] = (struct iovec){.iov_base = hva, .iov_len = bytes};
		}
		done += bytes;
	}
	remember(port, generation, iova);
	return (int)n;
}

int dma_map(struct dma_port *port, uint64_t iova, uint64_t len, enum dma_dir dir, struct iovec *iov,
	    unsigned int max)
{
	assert(!list_empty(&port->open));
	if (__builtin_expect(max && map_again(port, iova, len, dir, iov), 1))
		return 1;
	return map_extents(port, iova, len, dir, iov, max);
}

static __attribute__((noinline)) void mark_written(struct dma_port *port, const struct iovec *iov,
						   unsigned int n, uint64_t written)
{
	for (unsigned int i = 0; i < n && written; i++) {
		uint64_t bytes = MIN((uint64_t)iov[i].iov_len, written);

		gmem_mark_dirty_host(port->space->gmem, iov[i].iov_base, bytes);
		written -= bytes;
	}
}

void dma_written(struct dma_port *port, const struct iovec *iov, unsigned int n, uint64_t written)
{
	if (gmem_dirty_wanted(port->space->gmem))
		mark_written(port, iov, n, written);
}

/* A range of more segments than fit here is copied in rounds; a fault in a later round leaves the
 * earlier ones done, as on a real bus. */
static int copy(struct dma_port *port, uint64_t iova, char *buf, size_t len, enum dma_dir dir)
{
	struct dma_bracket bracket;
	struct iovec iov[COPY_SEGMENTS];
	int ret = 0;

	dma_open(port, &bracket);
	while (len && ret >= 0) {
		size_t round = len;

		while ((ret = dma_map(port, iova, round, dir, iov, COPY_SEGMENTS)) == -E2BIG)
			round = MAX(round / 2, (size_t)1);
		for (int i = 0; i < ret; i++) {
			if (dir == DMA_TO_DEVICE)
				memcpy(buf, iov[i].iov_base, iov[i].iov_len);
			else
				memcpy(iov[i].iov_base, buf, iov[i].iov_len);
			buf += iov[i].iov_len;
		}
		if (ret > 0 && dir == DMA_FROM_DEVICE)
			dma_written(port, iov, (unsigned int)ret, round);
		iova += round;
		len -= round;
	}
	dma_close(port, &bracket);
	return ret < 0 ? -EFAULT : 0;
}

int dma_read(struct dma_port *port, uint64_t iova, void *buf, size_t len)
{
	return copy(port, iova, buf, len, DMA_TO_DEVICE);
}

int dma_write(struct dma_port *port, uint64_t iova, const void *buf, size_t len)
{
	return copy(port, iova, (char *)buf, len, DMA_FROM_DEVICE);
}
