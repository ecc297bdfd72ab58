// SPDX-License-Identifier: Apache-2.0
// The virtqueue against a driver that writes anything. The input is a layout and a list of steps:
// descriptors, indices, and what the device does. Oracle: a second reading of the same memory,
// written down plainly, must agree with every answer; all segments lie in guest memory; no bracket
// stays open.
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "base/err.h"
#include "base/num.h"
#include "core/dma.h"
#include "core/gmem.h"
#include "virtio/queue.h"

enum {
	REGION_BYTES = 65536,
	HIGH_GPA = 1 << 20,
	TABLE_GPA = 0x8000, /* where steps build indirect tables */
	DATA_GPA = 0xa000,
	SEGMENTS = 20,
	IN_FLIGHT_MAX = 32,
	MAX_STEPS = 600,

	NEXT = 1,
	WRITE = 2,
	INDIRECT = 4,
};

static struct gmem *gmem;
static struct dma_space *dma;
static uint8_t *low, *high;

static void add_region(const char *name, uint64_t gpa)
{
	struct gmem_region_config config = {
		.name = name, .gpa = gpa, .size_bytes = REGION_BYTES, .numa_node = -1, .fd = -1};

	check(!gmem_add(gmem, &config, NULL));
}

static void set_up(void)
{
	static const struct log silent;

	if (gmem)
		return;
	check(!gmem_create(&gmem, &silent, NULL));
	check(!gmem_begin(gmem, NULL));
	add_region("low", 0);
	add_region("high", HIGH_GPA);
	check(!gmem_commit(gmem, NULL));
	check(!dma_space_create(&dma, gmem, NULL, NULL, NULL));
	low = gmem_host(gmem, 0, REGION_BYTES, true);
	high = gmem_host(gmem, HIGH_GPA, REGION_BYTES, true);
	check(low && high);
}

/* The model */

struct segment {
	uint8_t *hva;
	uint32_t len;
	bool write;
};

struct model {
	struct virtq_layout l;
	uint16_t next, seen, used;
	unsigned int staged, in_flight, unflushed;
	bool broken, no_notify;
	unsigned int notified, breaks; /* as the queue told */
};

static uint8_t *host(uint64_t gpa, uint64_t len)
{
	if (gpa < REGION_BYTES && len <= REGION_BYTES - gpa)
		return low + gpa;
	if (gpa >= HIGH_GPA && gpa < HIGH_GPA + REGION_BYTES &&
	    len <= HIGH_GPA + REGION_BYTES - gpa)
		return high + (gpa - HIGH_GPA);
	return NULL;
}

/* Where a ring is. */
static uint8_t *at(uint64_t gpa)
{
	uint8_t *p = host(gpa, 2);

	check(p);
	return p;
}

static uint16_t get16(uint64_t gpa)
{
	uint16_t v;

	memcpy(&v, at(gpa), 2);
	return v;
}

static uint32_t get32(uint64_t gpa)
{
	uint32_t v;

	memcpy(&v, at(gpa), 4);
	return v;
}

static void get_desc(const uint8_t *p, uint64_t *addr, uint32_t *len, uint16_t *flags,
		     uint16_t *next)
{
	memcpy(addr, p, 8);
	memcpy(len, p + 8, 4);
	memcpy(flags, p + 12, 2);
	memcpy(next, p + 14, 2);
}

/* What a chain comes to. */
struct answer {
	struct segment segments[SEGMENTS];
	int n;
	bool truncated; /* there are more */
	uint64_t bytes;
	bool writing;
	uint64_t last; /* behind the last writable byte; 0: there is none */
};

/* Append the chain that begins at entry i of a table: 0, or -1 for malformed. */
static int model_chain(struct model *m, const uint8_t *table, uint32_t entries, uint32_t limit,
		       uint32_t i, bool nested, struct answer *a)
{
	for (uint32_t seen = 0;; seen++) {
		uint64_t addr;
		uint32_t len;
		uint16_t flags, next;

		if (i >= entries || seen == limit)
			return -1;
		get_desc(table + 16 * (size_t)i, &addr, &len, &flags, &next);
		if (flags & INDIRECT) {
			if (nested || !m->l.indirect || flags & NEXT || !len || len % 16 ||
			    !host(addr, len))
				return -1;
			return model_chain(m, host(addr, len), len / 16,
					   MAX((uint32_t)m->l.size, (uint32_t)VIRTQ_MAX_SEGMENTS),
					   0, true, a);
		}
		if (!(flags & WRITE) && a->writing)
			return -1;
		a->writing = flags & WRITE;
		a->bytes += len;
		if (a->bytes > 1ull << 32)
			return -1;
		if (len && a->writing)
			a->last = addr + len;
		if (len && !a->truncated) {
			if (!host(addr, len))
				return -1;
			if (a->n == SEGMENTS)
				a->truncated = true;
			else
				a->segments[a->n++] =
					(struct segment){host(addr, len), len, a->writing};
		}
		if (!(flags & NEXT))
			return a->truncated && a->last && !host(a->last - 1, 1) ? -1 : 0;
		i = next;
	}
}

static uint16_t model_avail_idx(struct model *m)
{
	return get16(m->l.avail_iova + 2);
}

/* -1 broken, 0 none, 1 and the segments. */
static int model_pop(struct model *m, uint16_t *head, struct answer *a)
{
	if (m->broken)
		return -1;
	if (m->next == m->seen) {
		uint16_t idx = model_avail_idx(m);

		if ((uint16_t)(idx - m->next) > m->l.size)
			return -1;
		m->seen = idx;
		if (idx == m->next)
			return 0;
	}
	if (m->in_flight == m->l.size)
		return -1;
	*head = get16(m->l.avail_iova + 4 + 2u * (m->next % m->l.size));
	if (*head >= m->l.size)
		return -1;
	return model_chain(m, host(m->l.desc_iova, 16u * m->l.size), m->l.size, m->l.size, *head,
			   false, a)
		       ? -1
		       : 1;
}

/* Steps */

struct run {
	const uint8_t *data;
	size_t left;
	struct model m;
	struct virtq *q;
	unsigned int n_chains;
	struct virtq_chain chain[IN_FLIGHT_MAX];
	struct iovec iov[IN_FLIGHT_MAX][SEGMENTS];
};

static uint8_t byte(struct run *r)
{
	if (!r->left)
		return 0;
	r->left--;
	return *r->data++;
}

static void on_notify(void *opaque, unsigned int index)
{
	struct run *r = opaque;

	check(index == 5);
	r->m.notified++;
}

static void on_broken(void *opaque, unsigned int index, const char *text)
{
	struct run *r = opaque;

	check(index == 5 && text[0]);
	r->m.breaks++;
}

static const struct virtq_ops ops = {.notify = on_notify, .broken = on_broken};

static void compare(const struct virtq_chain *c, const struct answer *a)
{
	const struct segment *segments = a->segments;
	uint64_t out = 0, in = 0;
	int n = a->n;

	check(c->truncated == a->truncated);
	check(c->last_in == (a->last ? host(a->last - 1, 1) : NULL));
	check(c->n_out + c->n_in == (unsigned int)n && n <= SEGMENTS);
	check(c->out == c->iov && c->in == c->iov + c->n_out);
	for (int i = 0; i < n; i++) {
		check(c->iov[i].iov_base == segments[i].hva &&
		      c->iov[i].iov_len == segments[i].len);
		check(segments[i].write == ((unsigned int)i >= c->n_out));
		*(segments[i].write ? &in : &out) += segments[i].len;
	}
	check(c->out_bytes == out && c->in_bytes == in);
}

static void step_pop(struct run *r)
{
	struct virtq_chain *c = &r->chain[r->n_chains];
	struct answer a = {0};
	uint16_t head = 0;
	int want, got;

	if (r->n_chains == IN_FLIGHT_MAX)
		return;
	c->iov = r->iov[r->n_chains];
	c->max_iov = SEGMENTS;
	want = model_pop(&r->m, &head, &a);
	got = virtq_pop(r->q, c);
	check(got == (want < 0 ? -EPROTO : want));
	r->m.broken |= want < 0;
	if (want <= 0)
		return;
	check(c->head == head);
	compare(c, &a);
	r->m.next++;
	r->m.in_flight++;
	r->n_chains++;
}

static void check_used(struct run *r)
{
	check(get16(r->m.l.used_iova + 2) == (uint16_t)(r->m.used - r->m.staged));
}

static void step_push(struct run *r, uint32_t written, bool stage)
{
	struct model *m = &r->m;
	uint64_t elem = m->l.used_iova + 4 + 8u * (m->used % m->l.size);
	struct virtq_chain *c;
	unsigned int i;
	uint16_t head;

	if (!r->n_chains)
		return;
	i = written % r->n_chains;
	c = &r->chain[i];
	head = c->head;
	if (stage)
		virtq_stage(r->q, c, written);
	else
		virtq_push(r->q, c, written);
	m->in_flight--;
	if (!m->broken) {
		m->used++;
		m->staged++;
		check(get32(elem) == head && get32(elem + 4) == written);
		if (!stage) {
			m->unflushed += m->staged;
			m->staged = 0;
		}
		check_used(r);
	}
	/* Chains do not move while their brackets are open: those above it are given up. */
	while (--r->n_chains > i) {
		virtq_drop(r->q, &r->chain[r->n_chains]);
		m->in_flight--;
	}
}

static void step_flush(struct run *r)
{
	struct model *m = &r->m;
	uint16_t published = (uint16_t)(m->used - m->staged), event;
	unsigned int before = m->notified;
	bool want = false;

	if (m->unflushed && !m->broken) {
		if (m->l.event_idx) {
			event = get16(m->l.avail_iova + 4 + 2u * m->l.size);
			/* One of the last `unflushed` elements has the index `event`. */
			for (unsigned int k = 1; k <= m->unflushed && k <= 65536; k++)
				want |= (uint16_t)(published - k) == event;
		} else {
			want = !(get16(m->l.avail_iova) & 1);
		}
		m->unflushed = 0;
	}
	virtq_flush(r->q);
	check(m->notified == before + want);
}

static void step_enable(struct run *r)
{
	struct model *m = &r->m;
	bool got = virtq_kick_enable(r->q);
	uint16_t waiting;

	if (m->broken) {
		check(!got);
		return;
	}
	if (m->l.event_idx)
		check(get16(m->l.used_iova + 4 + 8u * m->l.size) == m->next);
	else if (m->no_notify)
		check(!get16(m->l.used_iova));
	m->no_notify = false;
	waiting = (uint16_t)(model_avail_idx(m) - m->next);
	if (waiting > m->l.size) {
		check(!got);
		m->broken = true;
		return;
	}
	m->seen = model_avail_idx(m);
	check(got == (waiting > 0));
}

static void step_disable(struct run *r)
{
	struct model *m = &r->m;

	virtq_kick_disable(r->q);
	if (!m->broken && !m->l.event_idx && !m->no_notify) {
		check(get16(m->l.used_iova) == 1);
		m->no_notify = true;
	}
}

static void step_has(struct run *r)
{
	struct model *m = &r->m;
	bool got = virtq_has_avail(r->q);
	uint16_t waiting;

	if (m->broken) {
		check(!got);
		return;
	}
	if (m->next != m->seen) {
		check(got);
		return;
	}
	waiting = (uint16_t)(model_avail_idx(m) - m->next);
	if (waiting > m->l.size) {
		m->broken = true;
		check(!got);
		return;
	}
	m->seen = model_avail_idx(m);
	check(got == (waiting > 0));
}

static void step_unpop(struct run *r)
{
	if (!r->n_chains || r->m.broken)
		return;
	virtq_unpop(r->q, &r->chain[--r->n_chains]);
	r->m.next--;
	r->m.in_flight--;
}

static void step_publish(struct run *r)
{
	virtq_publish(r->q);
	if (r->m.broken)
		return;
	r->m.unflushed += r->m.staged;
	r->m.staged = 0;
	check_used(r);
}

/* Addresses and lengths: mostly good, else at the edges of memory and of arithmetic. */
static uint64_t pick_addr(struct run *r)
{
	uint8_t b = byte(r);

	switch (b >> 5) {
	case 0:
		return TABLE_GPA + 16u * (b & 31);
	case 1:
		return REGION_BYTES - (b & 31);
	case 2:
		return HIGH_GPA - 16 + (b & 31);
	case 3:
		return 0ull - (b & 31);
	case 4:
		return HIGH_GPA + REGION_BYTES - (b & 31) * 8u;
	default:
		return DATA_GPA + 64u * (b & 127);
	}
}

static uint32_t pick_len(struct run *r)
{
	uint8_t b = byte(r);

	switch (b >> 6) {
	case 0:
		return b;
	case 1:
		return 16u * (b & 63);
	case 2:
		return 1u << (b & 31);
	default:
		return 0u - (b & 63);
	}
}

static void step_desc(struct run *r)
{
	uint8_t where = byte(r);
	uint64_t gpa = where & 128 ? TABLE_GPA + 16u * (where & 63)
				   : r->m.l.desc_iova + 16u * (where % r->m.l.size);
	uint64_t addr = pick_addr(r);
	uint32_t len = pick_len(r);
	uint16_t flags = byte(r) & 7, next = byte(r);
	uint8_t *p = host(gpa, 16);

	if (!p)
		return;
	memcpy(p, &addr, 8);
	memcpy(p + 8, &len, 4);
	memcpy(p + 12, &flags, 2);
	memcpy(p + 14, &next, 2);
}

static void put16(uint64_t gpa, uint16_t v)
{
	memcpy(at(gpa), &v, 2);
}

static void step_offer(struct run *r)
{
	uint16_t idx = model_avail_idx(&r->m);

	put16(r->m.l.avail_iova + 4 + 2u * (idx % r->m.l.size), byte(r));
	put16(r->m.l.avail_iova + 2, (uint16_t)(idx + 1));
}

static void step(struct run *r)
{
	uint8_t op = byte(r);

	switch (op % 14) {
	case 0:
	case 1:
		step_pop(r);
		break;
	case 2:
		step_push(r, byte(r), false);
		break;
	case 3:
		step_push(r, pick_len(r), true);
		break;
	case 4:
		step_publish(r);
		break;
	case 5:
		step_flush(r);
		break;
	case 6:
		step_enable(r);
		break;
	case 7:
		step_disable(r);
		break;
	case 8:
		step_has(r);
		break;
	case 9:
		step_unpop(r);
		break;
	case 10:
		step_desc(r);
		break;
	case 11:
		step_offer(r);
		break;
	case 12: /* the driver's two event fields, and its index, to anything */
		if (op & 16)
			put16(r->m.l.avail_iova + 4 + 2u * r->m.l.size, byte(r));
		else
			put16(r->m.l.avail_iova, byte(r));
		break;
	default:
		if (op & 16)
			put16(r->m.l.avail_iova + 2, (uint16_t)(byte(r) << 8 | byte(r)));
		else
			step_desc(r);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct run *r = calloc(1, sizeof(*r));
	struct virtq_config config = {.index = 5, .ops = &ops, .opaque = r};
	struct virtq_layout *l = &r->m.l;
	uint16_t start;
	uint8_t flags;

	set_up();
	memset(low, 0, REGION_BYTES);
	memset(high, 0, REGION_BYTES);
	r->data = data;
	r->left = size;
	flags = byte(r);
	l->size = (uint16_t)(1u << (byte(r) % 7));
	l->event_idx = flags & 1;
	l->indirect = flags & 2;
	/* Rings in the middle of memory, or up against an end of it. */
	l->desc_iova = flags & 4 ? REGION_BYTES - 16u * l->size : 0x1000;
	l->avail_iova = flags & 8 ? HIGH_GPA : 0x3002;
	l->used_iova = flags & 16 ? (HIGH_GPA + REGION_BYTES - 8u * l->size - 8) & ~3u : 0x4ffc;
	start = flags & 32 ? 0xfffe : 0;
	put16(l->avail_iova + 2, start);
	put16(l->used_iova + 2, start);
	r->m.next = r->m.seen = r->m.used = start;

	config.dma = dma;
	check(!virtq_create(&r->q, &config, NULL));
	check(!virtq_start(r->q, l, start));
	for (unsigned int i = 0; i < MAX_STEPS && r->left; i++) {
		step(r);
		check(r->m.breaks == r->m.broken);
		if (r->m.broken && i > 2 && r->left > 16)
			r->left = 16;
	}
	while (r->n_chains)
		virtq_drop(r->q, &r->chain[--r->n_chains]);
	check(atomic_load(&virtq_port(r->q)->opened) == atomic_load(&virtq_port(r->q)->closed));
	virtq_destroy(r->q);
	free(r);
	return 0;
}
