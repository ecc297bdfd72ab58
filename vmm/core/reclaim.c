// SPDX-License-Identifier: Apache-2.0
// What the guest has given up: a bit per page, from gpa 0 on, and the granules that are out.
#include "core/reclaim.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/num.h"

enum {
	PAGE = 4096,
	WORD_PAGES = 64,
	GRANULE_WORDS = RECLAIM_GRANULE / PAGE / WORD_PAGES,
};

struct reclaim {
	struct gmem *gmem;
	uint64_t n_granules; /* constant */
	/* Written with the map held. Read by any thread: a page is counted before its bit is set,
	 * and both before the hardware is changed. */
	_Atomic uint64_t n_given, n_out;
	_Atomic uint64_t words[]; /* by gpa */
};

/* --- bits: the map is held --- */

/* The bits of [gpa, gpa + bytes), which is in one granule. */
struct span {
	uint64_t first; /* word */
	uint64_t mask[GRANULE_WORDS];
};

static void span_of(struct span *span, uint64_t gpa, uint64_t bytes)
{
	uint64_t first = gpa / PAGE, last = (gpa + bytes - 1) / PAGE;

	*span = (struct span){.first = gpa / RECLAIM_GRANULE * GRANULE_WORDS};
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

	for (unsigned int i = 0; i < GRANULE_WORDS; i++) {
		span->mask[i] &= ~atomic_load(&r->words[span->first + i]);
		n += (unsigned int)__builtin_popcountll(span->mask[i]);
	}
	atomic_fetch_add(&r->n_given, n);
	for (unsigned int i = 0; i < GRANULE_WORDS; i++)
		atomic_fetch_or(&r->words[span->first + i], span->mask[i]);
	return n;
}

static void clear(struct reclaim *r, const struct span *span)
{
	for (unsigned int i = 0; i < GRANULE_WORDS; i++) {
		uint64_t was = atomic_fetch_and(&r->words[span->first + i], ~span->mask[i]);

		atomic_fetch_sub(&r->n_given,
				 (unsigned int)__builtin_popcountll(was & span->mask[i]));
	}
}

static bool any(const struct reclaim *r, const struct span *span)
{
	for (unsigned int i = 0; i < GRANULE_WORDS; i++) {
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

	if (gpa / RECLAIM_GRANULE >= r->n_granules || !gmem_lookup(r->gmem, gpa, &extent) ||
	    extent.flags & (GMEM_READONLY | GMEM_NO_DMA))
		return 0;
	bytes = MIN(bytes, extent.bytes);
	return MIN(bytes, RECLAIM_GRANULE - gpa % RECLAIM_GRANULE);
}

/* One that is no RAM in a part, or in two regions, never is. */
bool reclaim_is_out(const struct reclaim *r, uint64_t gpa)
{
	uint64_t start = align_down(gpa, RECLAIM_GRANULE);

	if (!r || gpa / RECLAIM_GRANULE >= r->n_granules)
		return false;
	for (unsigned int i = 0; i < GRANULE_WORDS; i++) {
		if (~atomic_load(&r->words[start / RECLAIM_GRANULE * GRANULE_WORDS + i]))
			return false;
	}
	return part(r, start, RECLAIM_GRANULE) == RECLAIM_GRANULE;
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
		ret = gmem_discard(r->gmem, align_down(gpa, RECLAIM_GRANULE), RECLAIM_GRANULE);
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
		ret = gmem_restore(r->gmem, align_down(gpa, RECLAIM_GRANULE), RECLAIM_GRANULE);
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
	uint64_t n_words = r->n_granules * GRANULE_WORDS, word = *gpa / PAGE / WORD_PAGES;
	int ret = 0;

	gmem_hold(r->gmem);
	while (atomic_load(&r->n_given) && word < n_words && !atomic_load(&r->words[word]))
		word++;
	if (atomic_load(&r->n_given) && word < n_words) {
		uint64_t start = align_down(word, (uint64_t)GRANULE_WORDS) * WORD_PAGES * PAGE;

		/* Only RAM was given. Of a region that is gone nothing has to be mapped. */
		ret = take_part(r, start, RECLAIM_GRANULE);
		*gpa = start + (ret ? 0 : RECLAIM_GRANULE);
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

bool reclaim_has(const struct reclaim *r, uint64_t gpa, uint64_t bytes)
{
	if (!r || !atomic_load(&r->n_given))
		return false;
	while (bytes && gpa / RECLAIM_GRANULE < r->n_granules) {
		uint64_t n = MIN(bytes, RECLAIM_GRANULE - gpa % RECLAIM_GRANULE);
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
	ret->out_bytes = gmem_has_areas(r->gmem) ? atomic_load(&r->n_out) * RECLAIM_GRANULE
						 : ret->given_bytes;
}

/* --- life --- */

static int look(void *opaque, const struct gmem_region *region)
{
	uint64_t *top = opaque;

	*top = MAX(*top, region->gpa + region->size_bytes);
	return region->page_bytes > PAGE ? -EOPNOTSUPP : 0;
}

int reclaim_enable(struct gmem *gmem, struct err *err)
{
	struct reclaim *r;
	uint64_t top = 0, n;

	if (gmem_reclaim(gmem))
		return 0;
	if (gmem_has_areas(gmem))
		return err_set(err, -EBUSY, "all of guest memory is mapped for a device already");
	if (gmem_walk(gmem, look, &top))
		return err_set(err, -EOPNOTSUPP,
			       "the guest's memory is in huge pages, which this host reserves: one "
			       "that is given back may be gone");
	n = align_up(top, RECLAIM_GRANULE) / RECLAIM_GRANULE;
	r = calloc(1, sizeof(*r) + n * GRANULE_WORDS * sizeof(r->words[0]));
	if (!r)
		return err_set(err, -ENOMEM, "no memory for a bit per page of %llu MiB",
			       (unsigned long long)(top / MiB));
	r->gmem = gmem;
	r->n_granules = n;
	gmem_set_reclaim(gmem, r);
	return 0;
}

void reclaim_destroy(struct reclaim *r)
{
	free(r);
}
