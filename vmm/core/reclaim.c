// SPDX-License-Identifier: Apache-2.0
// What the guest has given up: a bit per page, from gpa 0 on, and the granules that are out.
#include "core/reclaim.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/num.h"

enum {
	PAGE = 4096,
	WORD_PAGES = 64,
	WORD_BYTES = WORD_PAGES * PAGE, /* what one word has the bits of */
	MAX_WORDS = RECLAIM_MAX_GRANULE / WORD_BYTES,
};
static_assert(WORD_BYTES == RECLAIM_MIN_GRANULE, "a granule is whole words");

struct reclaim {
	struct gmem *gmem;
	/* Constant. */
	uint64_t granule_bytes;
	uint64_t top; /* gpa, a multiple of every granule: what is from there on never leaves */
	/* Written with the map held. Read by any thread: a page is counted before its bit is set,
	 * and both before the hardware is changed. */
	_Atomic uint64_t n_given, n_out;
	_Atomic uint64_t words[]; /* by gpa */
};

/* --- bits: the map is held --- */

/* The bits of [gpa, gpa + bytes), which is in one granule, be it the largest. */
struct span {
	uint64_t first; /* word */
	unsigned int n;
	uint64_t mask[MAX_WORDS];
};

static void span_of(struct span *span, uint64_t gpa, uint64_t bytes)
{
	uint64_t first = gpa / PAGE, last = (gpa + bytes - 1) / PAGE;

	*span = (struct span){
		.first = first / WORD_PAGES,
		.n = (unsigned int)(last / WORD_PAGES - first / WORD_PAGES + 1),
	};
	for (uint64_t page = first; page <= last;) {
		unsigned int bit = page % WORD_PAGES;
		unsigned int n = (unsigned int)MIN(last - page + 1, (uint64_t)(WORD_PAGES - bit));

		span->mask[page / WORD_PAGES - span->first] = UINT64_MAX >> (WORD_PAGES - n) << bit;
		page += n;
	}
}

/* Set them. What was set before leaves the mask; the number of pages that are left in it. */
static uint64_t set(struct reclaim *r, struct span *span)
{
	uint64_t n = 0;

	for (unsigned int i = 0; i < span->n; i++) {
		span->mask[i] &= ~atomic_load(&r->words[span->first + i]);
		n += (unsigned int)__builtin_popcountll(span->mask[i]);
	}
	atomic_fetch_add(&r->n_given, n);
	for (unsigned int i = 0; i < span->n; i++)
		atomic_fetch_or(&r->words[span->first + i], span->mask[i]);
	return n;
}

static void clear(struct reclaim *r, const struct span *span)
{
	for (unsigned int i = 0; i < span->n; i++) {
		uint64_t was = atomic_fetch_and(&r->words[span->first + i], ~span->mask[i]);

		atomic_fetch_sub(&r->n_given,
				 (unsigned int)__builtin_popcountll(was & span->mask[i]));
	}
}

static bool any(const struct reclaim *r, const struct span *span)
{
	for (unsigned int i = 0; i < span->n; i++) {
		if (atomic_load(&r->words[span->first + i]) & span->mask[i])
			return true;
	}
	return false;
}

/* --- memory --- */

/* How much of [gpa, gpa + bytes) is RAM in one granule and one region: 0, none at gpa. */
static uint64_t part(const struct reclaim *r, uint64_t gpa, uint64_t bytes)
{
	struct gmem_extent extent;

	if (gpa >= r->top || !gmem_lookup(r->gmem, gpa, &extent) ||
	    extent.flags & (GMEM_READONLY | GMEM_NO_DMA))
		return 0;
	bytes = MIN(bytes, extent.bytes);
	return MIN(bytes, r->granule_bytes - gpa % r->granule_bytes);
}

uint64_t reclaim_granule_bytes(const struct reclaim *r)
{
	return r->granule_bytes;
}

static bool all_given(const struct reclaim *r, uint64_t start)
{
	for (uint64_t at = start; at < start + r->granule_bytes; at += WORD_BYTES) {
		if (~atomic_load(&r->words[at / WORD_BYTES]))
			return false;
	}
	return true;
}

/* One that is no RAM in a part, or in two regions, never is. */
bool reclaim_is_out(const struct reclaim *r, uint64_t gpa)
{
	uint64_t start;

	if (!r || gpa >= r->top)
		return false;
	start = align_down(gpa, r->granule_bytes);
	return all_given(r, start) && part(r, start, r->granule_bytes) == r->granule_bytes;
}

static int give_part(struct reclaim *r, uint64_t gpa, uint64_t bytes, bool areas)
{
	struct span span;
	bool out;
	int ret = 0;

	span_of(&span, gpa, bytes);
	if (!set(r, &span))
		return 0;
	out = reclaim_is_out(r, gpa);
	if (out)
		ret = gmem_discard(r->gmem, align_down(gpa, r->granule_bytes), r->granule_bytes);
	else if (!areas)
		ret = gmem_discard(r->gmem, gpa, bytes);
	if (ret)
		clear(r, &span);
	else if (out)
		atomic_fetch_add(&r->n_out, 1);
	return ret;
}

static int take_part(struct reclaim *r, uint64_t gpa, uint64_t bytes)
{
	struct span span;
	int ret;

	span_of(&span, gpa, bytes);
	if (!any(r, &span))
		return 0;
	if (reclaim_is_out(r, gpa)) {
		ret = gmem_restore(r->gmem, align_down(gpa, r->granule_bytes), r->granule_bytes);
		if (ret)
			return ret;
		atomic_fetch_sub(&r->n_out, 1);
	}
	clear(r, &span);
	return 0;
}

/* Given for a moment, so that no device is given it meanwhile. */
static int report_part(struct reclaim *r, uint64_t gpa, uint64_t bytes)
{
	struct span span;
	int ret;

	span_of(&span, gpa, bytes);
	set(r, &span);
	ret = gmem_discard(r->gmem, gpa, bytes);
	clear(r, &span);
	return ret;
}

int reclaim_give(struct reclaim *r, uint64_t gpa, uint64_t bytes)
{
	int ret = 0;

	gmem_hold(r->gmem);
	while (bytes && !ret) {
		uint64_t n = part(r, gpa, bytes);

		ret = n ? give_part(r, gpa, n, gmem_has_areas(r->gmem)) : -EFAULT;
		gpa += n;
		bytes -= n;
	}
	gmem_release(r->gmem);
	return ret;
}

int reclaim_take(struct reclaim *r, uint64_t gpa, uint64_t bytes)
{
	int ret = 0;

	gmem_hold(r->gmem);
	while (bytes && !ret) {
		uint64_t n = part(r, gpa, bytes);

		if (n)
			ret = take_part(r, gpa, n);
		else
			n = PAGE; /* no RAM, so it was never given */
		gpa += n;
		bytes -= n;
	}
	gmem_release(r->gmem);
	return ret;
}

int reclaim_take_next(struct reclaim *r, uint64_t *gpa)
{
	uint64_t n_words = r->top / WORD_BYTES, word = *gpa / WORD_BYTES;
	int ret = 0;

	gmem_hold(r->gmem);
	while (atomic_load(&r->n_given) && word < n_words && !atomic_load(&r->words[word]))
		word++;
	if (atomic_load(&r->n_given) && word < n_words) {
		uint64_t start = align_down(word * WORD_BYTES, r->granule_bytes);

		/* Only RAM was given. Of a region that is gone nothing has to be mapped. */
		ret = take_part(r, start, r->granule_bytes);
		*gpa = start + (ret ? 0 : r->granule_bytes);
		ret = ret ? ret : 1;
	}
	gmem_release(r->gmem);
	return ret;
}

int reclaim_report(struct reclaim *r, uint64_t gpa, uint64_t bytes)
{
	int ret = 0;

	gmem_hold(r->gmem);
	if (gmem_has_areas(r->gmem))
		ret = -EBUSY;
	while (bytes && !ret) {
		uint64_t n = part(r, gpa, bytes);

		ret = n ? report_part(r, gpa, n) : -EFAULT;
		gpa += n;
		bytes -= n;
	}
	gmem_release(r->gmem);
	return ret;
}

void reclaim_forget(struct reclaim *r, uint64_t gpa, uint64_t bytes)
{
	if (!r)
		return;
	assert(is_aligned(gpa | bytes, r->granule_bytes));
	gmem_hold(r->gmem);
	for (uint64_t end = gpa + bytes; gpa < end && gpa < r->top; gpa += r->granule_bytes) {
		struct span span;

		if (all_given(r, gpa))
			atomic_fetch_sub(&r->n_out, 1);
		span_of(&span, gpa, r->granule_bytes);
		clear(r, &span);
	}
	gmem_release(r->gmem);
}

bool reclaim_has(const struct reclaim *r, uint64_t gpa, uint64_t bytes)
{
	if (!r || !atomic_load(&r->n_given))
		return false;
	while (bytes && gpa < r->top) {
		uint64_t n = MIN(bytes, RECLAIM_MAX_GRANULE - gpa % RECLAIM_MAX_GRANULE);
		struct span span;

		span_of(&span, gpa, n);
		if (any(r, &span))
			return true;
		gpa += n;
		bytes -= n;
	}
	return false;
}

void reclaim_totals(const struct reclaim *r, struct reclaim_totals *ret)
{
	ret->given_bytes = atomic_load(&r->n_given) * PAGE;
	ret->out_bytes = gmem_has_areas(r->gmem) ? atomic_load(&r->n_out) * r->granule_bytes
						 : ret->given_bytes;
}

/* --- life --- */

struct look {
	uint64_t granule_bytes, top;
};

static int look(void *opaque, const struct gmem_region *region)
{
	struct look *look = opaque;

	look->top = MAX(look->top, region->gpa + region->size_bytes);
	if (region->page_bytes > PAGE)
		return -EOPNOTSUPP;
	return look->granule_bytes < RECLAIM_MAX_GRANULE && !region->small_pages ? -EBUSY : 0;
}

static int check_memory(struct gmem *gmem, struct look *memory, struct err *err)
{
	int ret = gmem_walk(gmem, look, memory);

	if (ret == -EOPNOTSUPP)
		return err_set(err, ret,
			       "the guest's memory is in huge pages, which this host reserves: one "
			       "that is given back may be gone");
	if (ret)
		return err_set(
			err, ret,
			"the guest's memory is in huge pages where this host has them, and of "
			"one that a device has pinned no part leaves; use a granule of %llu "
			"KiB",
			(unsigned long long)(RECLAIM_MAX_GRANULE / KiB));
	return 0;
}

int reclaim_enable(struct gmem *gmem, uint64_t granule_bytes, struct err *err)
{
	struct look memory = {.granule_bytes = granule_bytes, .top = gmem_expected(gmem)};
	struct reclaim *r = gmem_reclaim(gmem);
	int ret;

	assert(is_power_of_two(granule_bytes) && granule_bytes >= RECLAIM_MIN_GRANULE &&
	       granule_bytes <= RECLAIM_MAX_GRANULE);
	if (r && r->granule_bytes != granule_bytes)
		return err_set(
			err, -EBUSY,
			"memory leaves by granules of %llu KiB since there was a balloon; use "
			"those",
			(unsigned long long)(r->granule_bytes / KiB));
	if (r)
		return 0;
	if (gmem_has_areas(gmem))
		return err_set(err, -EBUSY, "all of guest memory is mapped for a device already");
	ret = check_memory(gmem, &memory, err);
	if (ret)
		return ret;
	memory.top = align_up(memory.top, RECLAIM_MAX_GRANULE);
	r = calloc(1, sizeof(*r) + memory.top / WORD_BYTES * sizeof(r->words[0]));
	if (!r)
		return err_set(err, -ENOMEM, "no memory for a bit per page of %llu MiB",
			       (unsigned long long)(memory.top / MiB));
	r->gmem = gmem;
	r->granule_bytes = granule_bytes;
	r->top = memory.top;
	gmem_set_reclaim(gmem, r);
	return 0;
}

void reclaim_destroy(struct reclaim *r)
{
	free(r);
}
