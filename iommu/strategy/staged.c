// SPDX-License-Identifier: Apache-2.0
// The strategy 'staged': the device reaches what it reaches under 'strict', and memory is pinned
// beforehand, in an address space that no device sees (the stage). A MAP copies from there, and an
// UNMAP unpins nothing.
//
// Without a quota all of guest memory is on the stage. With one, memory comes to it in granules,
// when the guest first maps a part of them; where there is no room, the granules that are longest
// in no mapping make it. What finds none is mapped as in 'strict'. The word of a record that was
// copied is STAGED then.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "core/reclaim.h"
#include "iommu/guest_memory.h"
#include "iommu/hw_domain.h"
#include "iommu/ioas_impl.h"
#include "iommu/strategy/direct.h"
#include "iommu/strategy/strict.h"

enum { QUOTA }; /* indices of the parameters */

#define GRANULE (2 * MiB)
enum { STAGED = 1 };

static const struct strategy_param params[] = {
	{.name = "quota",
	 .summary = "memory that is pinned beforehand, at most",
	 .unit = STRATEGY_BYTES,
	 .never = true,
	 .min = GRANULE,
	 .max = 16 * TiB,
	 .value = STRATEGY_NEVER},
	{0},
};

struct granule {
	struct list link; /* idle, if it is on the stage and has no users */
	uint32_t users;   /* records */
	bool staged;
};

struct staged {
	struct strategy all; /* without a quota: 'direct', on the stage */
	bool has_all;
	/* With a quota. */
	struct granule *granules; /* by gpa / GRANULE */
	uint64_t n_granules;
	uint64_t staged_bytes;
	struct list idle; /* the oldest first */
};

static bool has_quota(const struct strategy *strategy)
{
	return strategy->values[QUOTA] != STRATEGY_NEVER;
}

/* --- granules --- */

static void unstage(struct strategy *strategy, struct granule *granule)
{
	struct staged *s = strategy->state;
	uint64_t gpa = (uint64_t)(granule - s->granules) * GRANULE, unmapped;

	/* Copies that are left keep their own pins. */
	list_remove(&granule->link);
	granule->staged = false;
	s->staged_bytes -= GRANULE;
	(void)ioas_unmap(strategy->stage, gpa, GRANULE, &unmapped);
}

static bool unstage_oldest(struct strategy *strategy)
{
	struct staged *s = strategy->state;

	if (list_empty(&s->idle))
		return false;
	unstage(strategy, container_of(s->idle.next, struct granule, link));
	return true;
}

/* Put it on the stage. False: there is no room, or no such memory. */
static bool stage(struct strategy *strategy, struct granule *granule)
{
	struct staged *s = strategy->state;
	uint64_t gpa = (uint64_t)(granule - s->granules) * GRANULE;
	struct ioas_memory memory = {.fd = -1, .gpa = gpa};
	struct gmem_extent extent;

	if (!gmem_lookup(strategy->config->gmem, gpa, &extent) || extent.bytes < GRANULE ||
	    extent.flags & (GMEM_NO_DMA | GMEM_READONLY) ||
	    reclaim_has(gmem_reclaim(strategy->config->gmem), gpa, GRANULE))
		return false;
	while (s->staged_bytes + GRANULE > strategy->values[QUOTA]) {
		if (!unstage_oldest(strategy))
			return false;
	}
	memory.hva = extent.hva;
	if (ioas_map(strategy->stage, gpa, GRANULE, &memory, IOAS_READ | IOAS_WRITE))
		return false;
	granule->staged = true;
	s->staged_bytes += GRANULE;
	return true;
}

static void leave(struct staged *s, uint64_t first, uint64_t last)
{
	for (uint64_t i = first; i <= last; i++) {
		if (!--s->granules[i].users && s->granules[i].staged)
			list_append(&s->idle, &s->granules[i].link);
	}
}

/* The granules of the record get it as a user. False: some cannot be on the stage. */
static bool enter(struct strategy *strategy, const struct mapping *m)
{
	struct staged *s = strategy->state;
	uint64_t first = m->gpa / GRANULE, last = (m->gpa + (m->last - m->iova)) / GRANULE;

	for (uint64_t i = first; i <= last; i++) {
		struct granule *g = i < s->n_granules ? &s->granules[i] : NULL;

		if (!g || (!g->staged && !stage(strategy, g))) {
			if (i > first)
				leave(s, first, i - 1);
			return false;
		}
		list_remove(&g->link);
		g->users++;
	}
	return true;
}

static void leave_all_of(struct strategy *strategy, struct mapping *m)
{
	leave(strategy->state, m->gpa / GRANULE, (m->gpa + (m->last - m->iova)) / GRANULE);
	m->word = 0;
}

/* --- requests --- */

static int map_one(struct strategy *strategy, struct mapping *m)
{
	bool on_stage = !has_quota(strategy) || enter(strategy, m);
	int ret = -ENOENT;

	if (on_stage)
		ret = ioas_copy(strategy->ioas, m->iova, m->last - m->iova + 1, strategy->stage,
				m->gpa, m->access);
	if (has_quota(strategy) && on_stage) {
		m->word = STAGED;
		if (ret)
			leave_all_of(strategy, m);
	}
	/* What is not on the stage. */
	if (ret == -ENOENT)
		ret = guest_memory_map(strategy->ioas, strategy->config->gmem, m);
	return ret;
}

static void staged_map(struct strategy *strategy, struct hw_request *requests, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		requests[i].result = map_one(strategy, requests[i].record);
}

static void staged_unmap(struct strategy *strategy, struct hw_request *requests, unsigned int n)
{
	strict_unmap(strategy, requests, n);
	for (unsigned int i = 0; has_quota(strategy) && i < n; i++) {
		const struct hw_request *r = &requests[i];
		struct mapping *m = mappings_find(strategy->guest, r->iova, r->last);

		for (; m; m = mappings_next(m, r->last)) {
			if (m->state == MAPPING_GOING && m->word)
				leave_all_of(strategy, m);
		}
	}
}

/* Without a quota the stage follows the map of guest memory. */
static void staged_forget(struct strategy *strategy, uint64_t gpa, uint64_t bytes)
{
	const struct staged *s = strategy->state;

	for (uint64_t i = gpa / GRANULE; i < s->n_granules && i * GRANULE < gpa + bytes; i++) {
		if (s->granules[i].staged)
			unstage(strategy, &s->granules[i]);
	}
}

/* --- life --- */

static int stage_all(struct strategy *strategy, struct err *err)
{
	struct staged *s = strategy->state;
	int ret;

	s->all = *strategy;
	s->all.ioas = strategy->stage;
	s->all.guest = NULL;
	s->all.state = NULL;
	s->has_all = true;
	ret = direct_create(&s->all, err);
	return ret ? err_prefix(err, "the stage") : 0;
}

static int top_of(void *opaque, const struct gmem_region *region)
{
	uint64_t *top = opaque;

	*top = MAX(*top, region->gpa + region->size_bytes);
	return 0;
}

static int stage_by_need(struct strategy *strategy, struct err *err)
{
	struct staged *s = strategy->state;
	uint64_t top = 0;

	gmem_walk(strategy->config->gmem, top_of, &top);
	s->n_granules = top / GRANULE;
	s->granules = calloc(s->n_granules + 1, sizeof(*s->granules));
	if (!s->granules)
		return err_set(err, -ENOMEM, "%s: out of memory", strategy->config->name);
	for (uint64_t i = 0; i < s->n_granules; i++)
		list_init(&s->granules[i].link);
	return 0;
}

static int staged_create(struct strategy *strategy, struct err *err)
{
	struct staged *s;
	int ret;

	if (!mem_new(s))
		return err_set(err, -ENOMEM, "%s: out of memory", strategy->config->name);
	strategy->state = s;
	list_init(&s->idle);
	ret = ioas_create(&strategy->stage, ioas_iommu(strategy->ioas), "stage", err);
	if (ret)
		return ret;
	ret = ioas_pin(strategy->stage, strategy->device);
	if (ret)
		return err_set(err, ret, "%s: strategy 'staged': no memory can be pinned: %s",
			       strategy->config->name, err_name(ret));
	return has_quota(strategy) ? stage_by_need(strategy, err) : stage_all(strategy, err);
}

static void staged_destroy(struct strategy *strategy)
{
	struct staged *s = strategy->state;

	if (!s)
		return;
	if (s->has_all)
		direct_destroy(&s->all);
	ioas_destroy(strategy->stage);
	strategy->stage = NULL;
	free(s->granules);
	free(s);
}

const struct strategy_ops strategy_staged = {
	.name = "staged",
	.summary =
		"each guest mapping, until its UNMAP; memory is pinned beforehand, where no device "
		"reaches it",
	.params = params,
	.needs_viommu = true,
	.keeps_mappings = true,
	.ends_with_table = true,
	.create = staged_create,
	.destroy = staged_destroy,
	.map = staged_map,
	.unmap = staged_unmap,
	.forget = staged_forget,
};
