// SPDX-License-Identifier: Apache-2.0
// The device side of a split virtqueue (virtio 1.3, 2.7).
//
// Rings are found through the DMA port like everything else, and the host addresses of their pages
// are kept. What keeps them honest: every use of a ring happens inside an open bracket, and the
// generation of the address space is compared when that bracket opens (rings_check). Whoever takes
// memory away changes the generation and then waits for the brackets that were open, so a pointer
// is never used after the memory behind it went. A bracket that stays open for as long as the queue
// lives would be simpler, and would make every such wait endless.
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <linux/virtio_ring.h>

#include "base/counter.h"
#include "base/fd.h"
#include "base/le.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/probe.h"
#include "virtio/queue.h"

/* ThreadSanitizer knows no fences; gcc and clang tell of it differently. */
#ifdef __has_feature
#if __has_feature(thread_sanitizer)
#define NO_FENCES
#endif
#endif
#ifdef __SANITIZE_THREAD__
#define NO_FENCES
#endif

enum {
	DESC_BYTES = sizeof(struct vring_desc),
	AVAIL_FLAGS = offsetof(struct vring_avail, flags), /* then idx, ring[size], used_event */
	AVAIL_IDX = offsetof(struct vring_avail, idx),
	AVAIL_RING = offsetof(struct vring_avail, ring),
	USED_FLAGS = offsetof(struct vring_used, flags), /* then idx, ring[size], avail_event */
	USED_IDX = offsetof(struct vring_used, idx),
	USED_RING = offsetof(struct vring_used, ring),
	USED_ELEM_BYTES = sizeof(struct vring_used_elem),

	/* Memory is mapped, by the machine and by a virtual IOMMU, in units of this or more. */
	RING_PAGE = 4096,
};

/* One of the three parts, which need not be contiguous in host memory behind a virtual IOMMU. No
 * field of a ring straddles a page: each is aligned to its size. */
struct ring {
	uint64_t iova;
	uint32_t bytes;
	uint32_t lead; /* iova % RING_PAGE */
	enum dma_dir dir;
	unsigned int pages;
	uint8_t **page; /* host address of each page of the range, the first one's rounded down */
};

struct virtq {
	/* Constant. */
	const struct virtq_ops *ops;
	void *opaque;
	unsigned int index;
	/* Read by any thread; written under the device's lock, or by the thread below. */
	_Atomic uint8_t state; /* enum virtq_state */
	_Atomic int interrupt_fd;
	/* Read by any thread; counted by whoever serves the queue. */
	_Atomic uint64_t interrupts, suppressed;
	/* Whoever serves the queue (queue.h). */
	bool event_idx;
	bool indirect;
	bool no_notify; /* as the used ring's flag says, without event index */
	uint16_t size;
	uint16_t next_avail; /* the entry of the available ring to take next */
	uint16_t avail_idx;  /* the driver's index as last read */
	uint16_t used_idx; /* where the next used element goes; staged ones are beyond used->idx */
	uint16_t staged;
	uint16_t in_flight; /* popped, not yet pushed or dropped */
	uint32_t unflushed; /* published since the last decision about an interrupt */
	uint64_t generation;
	struct ring desc, avail, used;
	struct dma_port port;
	struct dma_bracket bracket; /* for uses of the rings outside any chain */
	struct iovec *scratch;
	unsigned int n_scratch;
};

/* A descriptor, read once. */
struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};

/* The driver may write at any time, so every load from a ring is one that happens once. */
static inline struct desc desc_load(const void *p)
{
	const uint64_t *word = p;
	uint64_t addr = __atomic_load_n(word, __ATOMIC_RELAXED);
	uint64_t rest = le64toh(__atomic_load_n(word + 1, __ATOMIC_RELAXED));

	return (struct desc){
		.addr = le64toh(addr),
		.len = (uint32_t)rest,
		.flags = (uint16_t)(rest >> 32),
		.next = (uint16_t)(rest >> 48),
	};
}

/* An earlier store is visible to the driver before a later load is made (virtio 1.3, 2.7.7.2 and
 * 2.7.10): the store to an index before the load of the other side's event field. */
static inline void full_barrier(struct virtq *q)
{
#ifdef NO_FENCES
	__atomic_fetch_add(&q->generation, 0, __ATOMIC_SEQ_CST);
#else
	(void)q;
	atomic_thread_fence(memory_order_seq_cst);
#endif
}

static inline void *ring_at(const struct ring *r, uint32_t offset)
{
	offset += r->lead;
	return r->page[offset / RING_PAGE] + offset % RING_PAGE;
}

static inline uint16_t ring_load16(const struct ring *r, uint32_t offset)
{
	return le16toh(__atomic_load_n((uint16_t *)ring_at(r, offset), __ATOMIC_RELAXED));
}

static inline void used_store16(struct virtq *q, uint32_t offset, uint16_t value)
{
	struct iovec iov = {ring_at(&q->used, offset), sizeof(value)};

	/* Release: what the used ring says and what the device wrote are visible before. */
	__atomic_store_n((uint16_t *)iov.iov_base, htole16(value), __ATOMIC_RELEASE);
	dma_written(&q->port, &iov, 1, sizeof(value));
}

enum virtq_state virtq_state(const struct virtq *q)
{
	return (enum virtq_state)atomic_load_explicit(&q->state, memory_order_relaxed);
}

void virtq_set_state(struct virtq *q, enum virtq_state state)
{
	atomic_store(&q->state, (uint8_t)state);
}

void virtq_set_interrupt(struct virtq *q, int eventfd)
{
	atomic_store_explicit(&q->interrupt_fd, eventfd, memory_order_relaxed);
}

/* The rings may be written. */
static bool answers(const struct virtq *q)
{
	enum virtq_state state = virtq_state(q);

	return state == VIRTQ_RUNNING || state == VIRTQ_FINISHING;
}

int virtq_break(struct virtq *q, const char *fmt, ...)
{
	uint8_t state = atomic_load(&q->state), broken;
	char text[160];
	va_list ap;

	do {
		if (state == VIRTQ_OFF || state == VIRTQ_BROKEN || state == VIRTQ_ABANDONING)
			return -EPROTO;
		/* Its owner may be stopping it at this moment. */
		broken = state == VIRTQ_FINISHING ? VIRTQ_ABANDONING : VIRTQ_BROKEN;
	} while (!atomic_compare_exchange_weak(&q->state, &state, broken));
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	q->ops->broken(q->opaque, q->index, text);
	return -EPROTO;
}

/* Find the host pages of a ring; inside an open bracket. */
static int ring_map(struct virtq *q, struct ring *r)
{
	int n = dma_map(&q->port, r->iova, r->bytes, r->dir, q->scratch, q->n_scratch);
	unsigned int page = 0;

	if (n < 0)
		return n;
	for (int i = 0; i < n; i++) {
		uint8_t *hva = q->scratch[i].iov_base;
		uint64_t lead = i ? 0 : r->lead;
		uint64_t bytes = lead + q->scratch[i].iov_len;

		/* Only the end of the ring may lie inside a page. */
		if (i < n - 1 && !is_aligned(bytes, RING_PAGE))
			return -EFAULT;
		for (uint64_t at = 0; at < bytes; at += RING_PAGE) {
			if (page == r->pages)
				return -EFAULT;
			r->page[page++] = (uint8_t *)((uintptr_t)hva - lead) + at;
		}
	}
	return page == r->pages ? 0 : -EFAULT;
}

static int rings_map(struct virtq *q)
{
	int r;

	q->generation = dma_generation(&q->port);
	r = ring_map(q, &q->desc);
	if (!r)
		r = ring_map(q, &q->avail);
	if (!r)
		r = ring_map(q, &q->used);
	return r;
}

/* The kept addresses are good for the bracket that was just opened. */
static inline int rings_check(struct virtq *q)
{
	if (__builtin_expect(q->generation == dma_generation(&q->port), 1))
		return 0;
	if (rings_map(q))
		return virtq_break(q, "the rings are not mapped any more");
	return 0;
}

/* Open a bracket for use of the rings alone: false when the queue is of no use. */
static bool rings_enter(struct virtq *q)
{
	if (!answers(q))
		return false;
	dma_open(&q->port, &q->bracket);
	if (!rings_check(q))
		return true;
	dma_close(&q->port, &q->bracket);
	return false;
}

static void rings_leave(struct virtq *q)
{
	dma_close(&q->port, &q->bracket);
}

int virtq_create(struct virtq **ret, const struct virtq_config *config, struct err *err)
{
	struct virtq *q;

	if (!mem_new(q))
		return err_set(err, -ENOMEM, "no memory for a virtqueue");
	q->ops = config->ops;
	q->opaque = config->opaque;
	q->index = config->index;
	atomic_init(&q->interrupt_fd, -1);
	dma_port_init(&q->port, config->dma, config->requester);
	*ret = q;
	return 0;
}

static void rings_free(struct virtq *q)
{
	struct ring *const rings[] = {&q->desc, &q->avail, &q->used};

	for (unsigned int i = 0; i < ARRAY_SIZE(rings); i++) {
		free(rings[i]->page);
		rings[i]->page = NULL;
	}
	free(q->scratch);
	q->scratch = NULL;
}

void virtq_destroy(struct virtq *q)
{
	if (!q)
		return;
	if (virtq_state(q) != VIRTQ_OFF)
		virtq_stop(q);
	dma_port_done(&q->port);
	free(q);
}

static int ring_init(struct ring *r, uint64_t iova, uint32_t bytes, enum dma_dir dir)
{
	uint64_t end;

	if (add_overflows(iova, bytes, &end))
		return -EINVAL;
	r->iova = iova;
	r->bytes = bytes;
	r->lead = (uint32_t)(iova % RING_PAGE);
	r->dir = dir;
	r->pages = (r->lead + bytes + RING_PAGE - 1) / RING_PAGE;
	r->page = calloc(r->pages, sizeof(*r->page));
	return r->page ? 0 : -ENOMEM;
}

static int rings_init(struct virtq *q, const struct virtq_layout *layout)
{
	uint32_t size = layout->size;
	int r;

	/* The event fields exist whether or not they were negotiated (virtio 1.3, 2.7.6, 2.7.8). */
	r = ring_init(&q->desc, layout->desc_iova, size * DESC_BYTES, DMA_TO_DEVICE);
	if (!r)
		r = ring_init(&q->avail, layout->avail_iova, AVAIL_RING + size * 2 + 2,
			      DMA_TO_DEVICE);
	if (!r)
		r = ring_init(&q->used, layout->used_iova, USED_RING + size * USED_ELEM_BYTES + 2,
			      DMA_FROM_DEVICE);
	if (r)
		return r;
	/* The descriptor table is the largest of the three, but for where it begins in its page. */
	q->n_scratch = q->desc.pages + 1;
	q->scratch = calloc(q->n_scratch, sizeof(*q->scratch));
	return q->scratch ? 0 : -ENOMEM;
}

int virtq_start(struct virtq *q, const struct virtq_layout *layout, uint16_t next_avail)
{
	int r;

	assert(virtq_state(q) == VIRTQ_OFF || virtq_state(q) == VIRTQ_STARTING);
	if (!is_power_of_two(layout->size) || layout->size > VIRTQ_MAX_SIZE ||
	    !is_aligned(layout->desc_iova, 16) || !is_aligned(layout->avail_iova, 2) ||
	    !is_aligned(layout->used_iova, 4))
		return -EINVAL;
	q->event_idx = layout->event_idx;
	q->indirect = layout->indirect;
	q->no_notify = false;
	q->size = layout->size;
	q->unflushed = 0;
	virtq_set_next(q, next_avail);

	r = rings_init(q, layout);
	if (!r) {
		dma_open(&q->port, &q->bracket);
		r = rings_map(q);
		dma_close(&q->port, &q->bracket);
	}
	if (r) {
		rings_free(q);
		return r;
	}
	virtq_set_state(q, VIRTQ_RUNNING);
	return 0;
}

void virtq_set_next(struct virtq *q, uint16_t next_avail)
{
	/* With nothing in flight, what was taken and what was given back are the same. */
	assert(!q->in_flight && !q->staged);
	q->next_avail = next_avail;
	q->avail_idx = next_avail;
	q->used_idx = next_avail;
}

void virtq_stop(struct virtq *q)
{
	assert(!q->in_flight);
	virtq_set_state(q, VIRTQ_OFF);
	q->staged = 0;
	rings_free(q);
}

uint16_t virtq_size(const struct virtq *q)
{
	return q->size;
}

uint16_t virtq_next_avail(const struct virtq *q)
{
	return q->next_avail;
}

struct dma_port *virtq_port(struct virtq *q)
{
	return &q->port;
}

/* Read the driver's index: how many chains are waiting, or -EPROTO. */
static int avail_reload(struct virtq *q)
{
	uint16_t idx = le16toh(
		__atomic_load_n((uint16_t *)ring_at(&q->avail, AVAIL_IDX), __ATOMIC_ACQUIRE));
	uint16_t waiting = (uint16_t)(idx - q->next_avail);

	if (waiting > q->size)
		return virtq_break(q, "available index %u is more than %u beyond %u", idx, q->size,
				   q->next_avail);
	q->avail_idx = idx;
	return waiting;
}

/* State of reading one chain. */
struct walk {
	uint64_t bytes;
	unsigned int seen; /* descriptors so far */
	bool writing;      /* a device-writable one was among them */
	bool has_in;       /* and had bytes: the last one is at */
	uint64_t last_in;
};

/* A descriptor of length 0 is legal nonsense: it counts, and adds no segment. */
static int chain_add(struct virtq *q, struct virtq_chain *chain, struct walk *w, struct desc d)
{
	unsigned int used = chain->n_out + chain->n_in;
	bool write = d.flags & VRING_DESC_F_WRITE;
	int n;

	/* virtio 1.3, 2.7.4.2: readable ones first. */
	if (!write && w->writing)
		return virtq_break(q, "chain %u: a readable descriptor after a writable one",
				   chain->head);
	w->writing = write;
	w->bytes += d.len;
	/* 2.7.5.2 */
	if (w->bytes > 1ull << 32)
		return virtq_break(q, "chain %u: longer than 2^32 bytes", chain->head);
	if (!d.len)
		return 0;
	if (write) {
		w->has_in = true;
		w->last_in = d.addr + (d.len - 1);
	}
	if (chain->truncated)
		return 0;
	n = dma_map(&q->port, d.addr, d.len, write ? DMA_FROM_DEVICE : DMA_TO_DEVICE,
		    chain->iov + used, chain->max_iov - used);
	if (n == -EFAULT && dma_translates(&q->port))
		chain->denied = true;
	if (n == -E2BIG || chain->denied) {
		chain->truncated = true;
		return 0;
	}
	if (n < 0)
		return virtq_break(q,
				   "chain %u: a descriptor of %u bytes at 0x%llx is not in memory "
				   "that this device may %s",
				   chain->head, d.len, (unsigned long long)d.addr,
				   write ? "write" : "read");
	if (write) {
		chain->n_in += (unsigned int)n;
		chain->in_bytes += d.len;
	} else {
		chain->n_out += (unsigned int)n;
		chain->out_bytes += d.len;
	}
	return 0;
}

/* Entry i of an indirect table: through its host address where it has one, else by a copy (a table
 * that crosses memory regions, or lies at an odd address). */
static int indirect_load(struct virtq *q, const uint8_t *table, uint64_t iova, uint32_t i,
			 struct desc *ret)
{
	uint64_t copy[2];
	int r;

	if (table) {
		*ret = desc_load(table + (size_t)i * DESC_BYTES);
		return 0;
	}
	r = dma_read(&q->port, iova + (uint64_t)i * DESC_BYTES, copy, sizeof(copy));
	if (!r)
		*ret = desc_load(copy);
	return r;
}

/* virtio 1.3, 2.7.5.3. A table may hold more entries than the queue (drivers go by the device's
 * segment limit), but a chain never has more than it could have segments. */
static int chain_add_indirect(struct virtq *q, struct virtq_chain *chain, struct walk *w,
			      struct desc table)
{
	uint32_t entries = table.len / DESC_BYTES;
	unsigned int limit = w->seen + MAX((unsigned int)q->size, (unsigned int)VIRTQ_MAX_SEGMENTS);
	uint8_t *host = NULL;
	struct iovec iov;
	uint32_t i = 0;
	struct desc d;
	int r;

	if (!q->indirect)
		return virtq_break(q, "chain %u: indirect, which was not negotiated", chain->head);
	if (table.flags & VRING_DESC_F_NEXT)
		return virtq_break(q, "chain %u: indirect with a next", chain->head);
	if (!entries || table.len % DESC_BYTES)
		return virtq_break(q, "chain %u: indirect table of %u bytes", chain->head,
				   table.len);
	r = dma_map(&q->port, table.addr, table.len, DMA_TO_DEVICE, &iov, 1);
	if (r == -EFAULT && dma_translates(&q->port)) {
		chain->denied = true;
		chain->truncated = true;
		return 0;
	}
	if (r < 0 && r != -E2BIG)
		return virtq_break(q, "chain %u: indirect table at 0x%llx is not in memory",
				   chain->head, (unsigned long long)table.addr);
	if (r == 1 && is_aligned((uintptr_t)iov.iov_base, sizeof(uint64_t)))
		host = iov.iov_base;
	for (;;) {
		if (w->seen++ == limit)
			return virtq_break(q, "chain %u: endless or too long indirect table",
					   chain->head);
		if (indirect_load(q, host, table.addr, i, &d))
			return virtq_break(q, "chain %u: indirect table went away", chain->head);
		if (d.flags & VRING_DESC_F_INDIRECT)
			return virtq_break(q, "chain %u: nested indirect table", chain->head);
		r = chain_add(q, chain, w, d);
		if (r || !(d.flags & VRING_DESC_F_NEXT))
			return r;
		if (d.next >= entries)
			return virtq_break(q, "chain %u: next %u of %u in its indirect table",
					   chain->head, d.next, entries);
		i = d.next;
	}
}

static int chain_read(struct virtq *q, struct virtq_chain *chain, struct walk *w)
{
	uint16_t i = chain->head;
	struct desc d;
	int r;

	for (;;) {
		if (w->seen++ == q->size)
			return virtq_break(q, "chain %u: longer than the queue's %u", chain->head,
					   q->size);
		d = desc_load(ring_at(&q->desc, (uint32_t)i * DESC_BYTES));
		if (d.flags & VRING_DESC_F_INDIRECT)
			return chain_add_indirect(q, chain, w, d);
		r = chain_add(q, chain, w, d);
		if (r || !(d.flags & VRING_DESC_F_NEXT))
			return r;
		if (d.next >= q->size)
			return virtq_break(q, "chain %u: next %u of %u", chain->head, d.next,
					   q->size);
		i = d.next;
	}
}

/* Find last_in: at the end of the segments, unless those are not all. */
static int chain_end(struct virtq *q, struct virtq_chain *chain, const struct walk *w)
{
	struct iovec byte;

	chain->last_in = NULL;
	if (!w->has_in)
		return 0;
	if (!chain->truncated) {
		const struct iovec *last = &chain->iov[chain->n_out + chain->n_in - 1];

		chain->last_in = (uint8_t *)last->iov_base + last->iov_len - 1;
		return 0;
	}
	if (dma_map(&q->port, w->last_in, 1, DMA_FROM_DEVICE, &byte, 1) == 1) {
		chain->last_in = byte.iov_base;
	} else if (dma_translates(&q->port)) {
		chain->denied = true;
	} else {
		return virtq_break(q,
				   "chain %u: its last byte at 0x%llx is not in memory that "
				   "this device may write",
				   chain->head, (unsigned long long)w->last_in);
	}
	return 0;
}

/* With the chain's bracket open. */
static int chain_take(struct virtq *q, struct virtq_chain *chain)
{
	struct walk w = {0};
	int r = rings_check(q);

	if (r)
		return r;
	if (q->next_avail == q->avail_idx) {
		r = avail_reload(q);
		if (r <= 0)
			return r;
	}
	/* Each chain holds a descriptor until it is used. */
	if (q->in_flight == q->size)
		return virtq_break(q, "more chains than descriptors");
	chain->head = ring_load16(&q->avail, AVAIL_RING + 2u * (q->next_avail & (q->size - 1u)));
	if (chain->head >= q->size)
		return virtq_break(q, "available entry %u: descriptor %u of %u", q->next_avail,
				   chain->head, q->size);
	chain->n_out = 0;
	chain->n_in = 0;
	chain->out_bytes = 0;
	chain->in_bytes = 0;
	chain->out = chain->iov;
	chain->truncated = false;
	chain->denied = false;
	r = chain_read(q, chain, &w);
	if (!r)
		r = chain_end(q, chain, &w);
	if (r)
		return r;
	chain->in = chain->iov + chain->n_out;
	return 1;
}

int virtq_pop(struct virtq *q, struct virtq_chain *chain)
{
	int r;

	if (virtq_state(q) != VIRTQ_RUNNING)
		return virtq_state(q) == VIRTQ_BROKEN ? -EPROTO : 0;
	dma_open(&q->port, &chain->bracket);
	r = chain_take(q, chain);
	if (r == 1) {
		q->next_avail++;
		q->in_flight++;
	} else {
		dma_close(&q->port, &chain->bracket);
	}
	return r;
}

static void chain_close(struct virtq *q, struct virtq_chain *chain)
{
	assert(q->in_flight);
	q->in_flight--;
	dma_close(&q->port, &chain->bracket);
}

/* A device may have written any of it, whatever it says of how much: a read of a disk that failed
 * has, and so has one that was under way when the device was reset. */
static void mark_written(struct virtq *q, const struct virtq_chain *chain)
{
	const struct iovec last = {chain->last_in, 1};

	dma_written(&q->port, chain->in, chain->n_in, chain->in_bytes);
	if (chain->truncated && chain->last_in)
		dma_written(&q->port, &last, 1, 1);
}

void virtq_unpop(struct virtq *q, struct virtq_chain *chain)
{
	mark_written(q, chain);
	q->next_avail--;
	chain_close(q, chain);
}

void virtq_drop(struct virtq *q, struct virtq_chain *chain)
{
	mark_written(q, chain);
	chain_close(q, chain);
}

/* Write the used element. The chain's own bracket, open since the pop, vouches for the rings: a
 * change of the address space since then still waits for it. */
static void chain_put(struct virtq *q, struct virtq_chain *chain, uint32_t written)
{
	uint32_t at = USED_RING + USED_ELEM_BYTES * (q->used_idx & (q->size - 1u));
	uint32_t *id = ring_at(&q->used, at), *len = ring_at(&q->used, at + 4);
	const struct iovec marks[2] = {{id, 4}, {len, 4}};

	mark_written(q, chain);
	if (!answers(q))
		return;
	/* Each is aligned to 4, the two to no more: they may lie in different pages. */
	__atomic_store_n(id, htole32(chain->head), __ATOMIC_RELAXED);
	__atomic_store_n(len, htole32(written), __ATOMIC_RELAXED);
	dma_written(&q->port, marks, 2, 8);
	q->used_idx++;
	q->staged++;
}

static void used_publish(struct virtq *q)
{
	if (!answers(q))
		return;
	used_store16(q, USED_IDX, q->used_idx);
	q->unflushed += q->staged;
	q->staged = 0;
}

void virtq_push(struct virtq *q, struct virtq_chain *chain, uint32_t written)
{
	chain_put(q, chain, written);
	used_publish(q);
	chain_close(q, chain);
}

void virtq_stage(struct virtq *q, struct virtq_chain *chain, uint32_t written)
{
	chain_put(q, chain, written);
	chain_close(q, chain);
}

void virtq_publish(struct virtq *q)
{
	if (!q->staged || !rings_enter(q))
		return;
	used_publish(q);
	rings_leave(q);
}

/* virtio 1.3, 2.7.7.2. */
static bool interrupt_wanted(struct virtq *q)
{
	uint16_t event, published;

	full_barrier(q);
	if (!q->event_idx)
		return !(ring_load16(&q->avail, AVAIL_FLAGS) & VRING_AVAIL_F_NO_INTERRUPT);
	event = ring_load16(&q->avail, AVAIL_RING + 2u * q->size);
	published = (uint16_t)(q->used_idx - q->staged);
	/* Was the element at `event` among those published since the last decision? */
	return q->unflushed > UINT16_MAX || (uint16_t)(published - event - 1) < q->unflushed;
}

void virtq_flush(struct virtq *q)
{
	bool wanted;
	int fd;

	if (!q->unflushed || !rings_enter(q))
		return;
	wanted = interrupt_wanted(q);
	q->unflushed = 0;
	rings_leave(q);
	counter_add(wanted ? &q->interrupts : &q->suppressed, 1);
	if (!wanted)
		return;
	fd = atomic_load_explicit(&q->interrupt_fd, memory_order_relaxed);
	if (fd < 0) {
		q->ops->notify(q->opaque, q->index);
		return;
	}
	probe_interrupt(fd);
	fd_event_signal(fd);
}

unsigned int virtq_unflushed(const struct virtq *q)
{
	return q->unflushed;
}

uint64_t virtq_interrupts(const struct virtq *q, uint64_t *suppressed)
{
	*suppressed = counter_read(&q->suppressed);
	return counter_read(&q->interrupts);
}

void virtq_kick_disable(struct virtq *q)
{
	/* With the event index, the driver kicks when it passes avail_event, which only
	 * virtq_kick_enable moves. */
	if (q->event_idx || q->no_notify || !rings_enter(q))
		return;
	q->no_notify = true;
	used_store16(q, USED_FLAGS, VRING_USED_F_NO_NOTIFY);
	rings_leave(q);
}

/* Kick when the driver's index passes `seen`: whether it already has. */
static bool kick_enable(struct virtq *q, uint16_t seen)
{
	bool more;

	if (virtq_state(q) != VIRTQ_RUNNING || !rings_enter(q))
		return false;
	if (q->event_idx) {
		used_store16(q, USED_RING + USED_ELEM_BYTES * (uint32_t)q->size, seen);
	} else if (q->no_notify) {
		q->no_notify = false;
		used_store16(q, USED_FLAGS, 0);
	}
	full_barrier(q);
	more = avail_reload(q) >= 0 && q->avail_idx != seen;
	rings_leave(q);
	return more;
}

bool virtq_kick_enable(struct virtq *q)
{
	return kick_enable(q, q->next_avail);
}

bool virtq_kick_enable_beyond(struct virtq *q)
{
	return kick_enable(q, q->avail_idx);
}

bool virtq_has_avail(struct virtq *q)
{
	bool more;

	if (virtq_state(q) != VIRTQ_RUNNING)
		return false;
	if (q->next_avail != q->avail_idx)
		return true;
	if (!rings_enter(q))
		return false;
	more = avail_reload(q) > 0;
	rings_leave(q);
	return more;
}
