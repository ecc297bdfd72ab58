// SPDX-License-Identifier: Apache-2.0
// Shadow counts (shadow.h). How much has been unmapped since a mapping was: that is what a strategy
// would have had to retain, so that this one is still there.
#include "iommu/strategy/shadow.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "iommu/ioas_impl.h"
#include "iommu/strategy/hash.h"

enum {
	WAYS = 4,
	SETS = 4096,      /* of mappings */
	LIST_SETS = 1024, /* of lists */
	MS_SHIFT = 20,    /* about a millisecond */
};

/* A mapping that the guest has unmapped, and the counters of that time, which may wrap. */
struct gone {
	uint32_t tag; /* 0: unused */
	uint32_t mappings, pages, ms;
};

struct shadow {
	struct shadow_limits limits[SHADOW_LIMITS];
	uint64_t list_bytes;
	struct shadow_counts counts;
	uint32_t mappings, pages; /* that the guest has unmapped */
	struct gone gone[SETS][WAYS];
	uint32_t lists[LIST_SETS][WAYS]; /* tags; the most recently used first */
};

int shadow_create(struct shadow **ret, const struct shadow_limits limits[SHADOW_LIMITS],
		  uint64_t list_bytes)
{
	struct shadow *shadow;

	if (!mem_new(shadow))
		return -ENOMEM;
	memcpy(shadow->limits, limits, sizeof(shadow->limits));
	shadow->list_bytes = list_bytes;
	*ret = shadow;
	return 0;
}

void shadow_destroy(struct shadow *shadow)
{
	free(shadow);
}

static uint64_t bytes_of(const struct mapping *m)
{
	return m->last - m->iova + 1;
}

/* What a MAP must have in common with the one before, to find it. */
static uint64_t identity(const struct mapping *m)
{
	uint64_t hash = hash_mix(hash_mix(0, m->iova), m->last);

	return hash_mix(hash_mix(hash, m->gpa), m->access);
}

static uint32_t tag_of(uint64_t hash)
{
	return (uint32_t)(hash >> 32) | 1;
}

/* --- MAP --- */

/* The differences include the mapping itself. */
static void count_hit(struct shadow *s, const struct gone *gone, uint64_t pages, uint32_t ms)
{
	uint64_t mappings = s->mappings - gone->mappings;
	uint64_t bytes = (uint64_t)(s->pages - gone->pages) * IOAS_PAGE_BYTES;
	uint64_t ns = (uint64_t)(ms - gone->ms) << MS_SHIFT;

	for (unsigned int i = 0; i < SHADOW_LIMITS; i++) {
		const struct shadow_limits *limits = &s->limits[i];

		if (mappings > limits->mappings || bytes > limits->bytes || ns > limits->ns)
			continue;
		s->counts.hits[i].maps++;
		s->counts.hits[i].pages += pages;
	}
}

void shadow_map(struct shadow *shadow, const struct hw_request *requests, unsigned int n,
		uint64_t now_ns)
{
	uint32_t ms = (uint32_t)(now_ns >> MS_SHIFT);

	for (unsigned int i = 0; i < n; i++) {
		uint64_t hash = identity(requests[i].record);
		uint64_t pages = requests[i].bytes / IOAS_PAGE_BYTES;
		struct gone *set = shadow->gone[hash % SETS];

		shadow->counts.maps++;
		shadow->counts.pages += pages;
		for (unsigned int way = 0; way < WAYS; way++) {
			if (set[way].tag != tag_of(hash))
				continue;
			count_hit(shadow, &set[way], pages, ms);
			set[way].tag = 0;
			break;
		}
	}
}

/* --- UNMAP --- */

static void remember(struct shadow *s, const struct mapping *m, uint32_t ms)
{
	uint64_t hash = identity(m);
	struct gone *set = s->gone[hash % SETS], *place = set;

	for (unsigned int way = 0; way < WAYS && place->tag; way++) {
		if (!set[way].tag ||
		    s->mappings - set[way].mappings > s->mappings - place->mappings)
			place = &set[way];
	}
	*place = (struct gone){tag_of(hash), s->mappings, s->pages, ms};
	s->mappings++;
	s->pages += (uint32_t)(bytes_of(m) / IOAS_PAGE_BYTES);
}

static bool is_known_list(struct shadow *s, uint64_t hash)
{
	uint32_t *set = s->lists[hash % LIST_SETS], tag = tag_of(hash);
	unsigned int way = 0;

	while (way < WAYS - 1 && set[way] != tag)
		way++;
	if (set[way] == tag)
		return true;
	memmove(&set[1], &set[0], (WAYS - 1) * sizeof(set[0]));
	set[0] = tag;
	return false;
}

static void unmap_one(struct shadow *s, const struct mappings *guest, const struct hw_request *r,
		      uint32_t ms)
{
	const struct mapping *m = mappings_find(guest, r->iova, r->last);
	bool list = r->bytes == r->last - r->iova + 1 && r->bytes <= s->list_bytes;
	unsigned int records = 0, extents = 0;
	uint64_t hash = 0, end = 0;

	for (; m; m = mappings_next(m, r->last)) {
		if (m->state != MAPPING_GOING)
			continue;
		remember(s, m, ms);
		records++;
		extents += (uintptr_t)m->hva != end;
		hash = hash_mix(hash_mix(hash, (uintptr_t)m->hva), bytes_of(m));
		list = list && m->hva;
		end = (uintptr_t)m->hva + bytes_of(m);
	}
	if (list && extents > 1 && is_known_list(s, hash))
		s->counts.joined += records - 1;
}

void shadow_unmap(struct shadow *shadow, const struct mappings *guest,
		  const struct hw_request *requests, unsigned int n, uint64_t now_ns)
{
	for (unsigned int i = 0; i < n; i++)
		unmap_one(shadow, guest, &requests[i], (uint32_t)(now_ns >> MS_SHIFT));
}

struct shadow_counts shadow_take(struct shadow *shadow)
{
	struct shadow_counts ret = shadow->counts;

	shadow->counts = (struct shadow_counts){0};
	return ret;
}
