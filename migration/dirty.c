// SPDX-License-Identifier: Apache-2.0
// A bit per page, twice. See dirty.h.
#include "migration/dirty.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/num.h"

enum { PAGE_BYTES = 4096 };

struct dirty {
	struct gmem_dirty tracker;
	const struct gmem *gmem;
	uint64_t words;           /* of each; constant */
	_Atomic uint64_t *marked; /* by number of the page from gpa 0 on; holes too */
	uint64_t *round;          /* the migration's thread's */
	uint64_t at;              /* the word where the round goes on; nothing is before it */
	uint64_t left;            /* pages in the round */
};

static void mark(struct gmem_dirty *tracker, uint64_t gpa, uint64_t len)
{
	struct dirty *d = container_of(tracker, struct dirty, tracker);
	uint64_t end = d->words * 64, page = gpa / PAGE_BYTES, last;

	if (!len || page >= end)
		return;
	last = add_overflows(gpa, len - 1, &last) ? end - 1 : MIN(last / PAGE_BYTES, end - 1);
	while (page <= last) {
		uint64_t n = MIN(64 - page % 64, last - page + 1);
		uint64_t bits = (n == 64 ? UINT64_MAX : (1ull << n) - 1) << page % 64;

		atomic_fetch_or_explicit(&d->marked[page / 64], bits, memory_order_release);
		page += n;
	}
}

static int find_end(void *opaque, const struct gmem_region *region)
{
	uint64_t *end = opaque;

	if (!(region->flags & GMEM_READONLY))
		*end = MAX(*end, region->gpa + region->size_bytes);
	return 0;
}

int dirty_create(struct dirty **ret, const struct gmem *gmem, struct err *err)
{
	struct dirty *d;
	uint64_t end = 0;

	if (!mem_new(d))
		return err_set(err, -ENOMEM, "migration: no memory");
	gmem_walk(gmem, find_end, &end);
	d->tracker.mark = mark;
	d->gmem = gmem;
	d->words = (end / PAGE_BYTES + 63) / 64;
	d->marked = calloc(d->words, sizeof(*d->marked));
	d->round = calloc(d->words, sizeof(*d->round));
	if (!d->marked || !d->round) {
		err_set(err, -ENOMEM, "migration: no memory for %llu KiB of dirty bits",
			(unsigned long long)(2 * d->words * 8 / 1024));
		dirty_destroy(d);
		return -ENOMEM;
	}
	*ret = d;
	return 0;
}

void dirty_destroy(struct dirty *d)
{
	if (!d)
		return;
	free((void *)d->marked);
	free(d->round);
	free(d);
}

struct gmem_dirty *dirty_tracker(struct dirty *d)
{
	return &d->tracker;
}

static int mark_region(void *opaque, const struct gmem_region *region)
{
	struct dirty *d = opaque;

	if (!(region->flags & GMEM_READONLY))
		mark(&d->tracker, region->gpa, region->size_bytes);
	return 0;
}

void dirty_mark_ram(struct dirty *d)
{
	gmem_walk(d->gmem, mark_region, d);
}

/* Where its file knows holes; reading them would fill them. */
static int mark_data(void *opaque, const struct gmem_region *region)
{
	struct dirty *d = opaque;
	uint64_t at = 0;

	if (region->flags & GMEM_READONLY)
		return 0;
	while (region->fd >= 0 && at < region->size_bytes) {
		off_t base = (off_t)region->fd_offset;
		off_t data = lseek(region->fd, base + (off_t)at, SEEK_DATA), hole;

		if (data < 0 && errno == ENXIO)
			return 0;
		hole = data < 0 ? -1 : lseek(region->fd, data, SEEK_HOLE);
		if (hole <= data)
			break; /* it does not know: all of the rest */
		at = (uint64_t)(data - base);
		if (at >= region->size_bytes)
			return 0;
		mark(&d->tracker, region->gpa + at,
		     MIN((uint64_t)(hole - data), region->size_bytes - at));
		at = (uint64_t)(hole - base);
	}
	if (at < region->size_bytes)
		mark(&d->tracker, region->gpa + at, region->size_bytes - at);
	return 0;
}

void dirty_mark_used(struct dirty *d)
{
	gmem_walk(d->gmem, mark_data, d);
}

uint64_t dirty_collect(struct dirty *d)
{
	d->left = 0;
	for (uint64_t i = 0; i < d->words; i++) {
		if (atomic_load_explicit(&d->marked[i], memory_order_relaxed))
			d->round[i] |=
				atomic_exchange_explicit(&d->marked[i], 0, memory_order_acquire);
		d->left += (uint64_t)__builtin_popcountll(d->round[i]);
	}
	d->at = 0;
	return d->left;
}

static bool take_bit(struct dirty *d, uint64_t page)
{
	uint64_t bit = 1ull << page % 64;

	if (page / 64 >= d->words || !(d->round[page / 64] & bit))
		return false;
	d->round[page / 64] &= ~bit;
	d->left--;
	return true;
}

bool dirty_next(struct dirty *d, uint64_t max_pages, uint64_t *gpa, uint64_t *pages)
{
	while (d->at < d->words && !d->round[d->at])
		d->at++;
	while (d->left) {
		uint64_t page = d->at * 64 + (uint64_t)__builtin_ctzll(d->round[d->at]);
		uint64_t most =
			MIN(gmem_contiguous(d->gmem, page * PAGE_BYTES) / PAGE_BYTES, max_pages);

		*gpa = page * PAGE_BYTES;
		*pages = 0;
		/* Marked, and no memory: whoever marked it was wrong, and nothing is lost. */
		if (!most)
			take_bit(d, page);
		while (*pages < most && take_bit(d, page + *pages))
			++*pages;
		if (*pages)
			return true;
		while (d->at < d->words && !d->round[d->at])
			d->at++;
	}
	return false;
}

void dirty_put_back(struct dirty *d, uint64_t gpa, uint64_t pages)
{
	uint64_t page = gpa / PAGE_BYTES;

	for (uint64_t i = page; i < page + pages; i++) {
		d->left += !(d->round[i / 64] >> i % 64 & 1);
		d->round[i / 64] |= 1ull << i % 64;
	}
	d->at = MIN(d->at, page / 64);
}
