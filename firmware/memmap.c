// SPDX-License-Identifier: Apache-2.0
// The guest's memory map: a short sorted array, edited by cutting and inserting.
#include "firmware/memmap.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/num.h"

static int insert_at(struct memmap *map, unsigned int at, const struct memmap_range *range)
{
	if (map->n == MEMMAP_MAX)
		return -E2BIG;
	memmove(&map->range[at + 1], &map->range[at], (map->n - at) * sizeof(map->range[0]));
	map->range[at] = *range;
	map->n++;
	return 0;
}

static void delete_at(struct memmap *map, unsigned int at)
{
	map->n--;
	memmove(&map->range[at], &map->range[at + 1], (map->n - at) * sizeof(map->range[0]));
}

static int add_region(void *opaque, const struct gmem_region *region)
{
	if (region->flags & GMEM_READONLY)
		return 0;
	return memmap_set(opaque, region->gpa, region->size_bytes, MEMMAP_RAM);
}

int memmap_from_gmem(struct memmap *map, const struct gmem *gmem)
{
	map->n = 0;
	return gmem_walk(gmem, add_region, map);
}

int memmap_remove(struct memmap *map, uint64_t gpa, uint64_t bytes)
{
	uint64_t end;

	if (!bytes)
		return 0;
	if (add_overflows(gpa, bytes, &end))
		return -EINVAL;
	for (unsigned int i = 0; i < map->n;) {
		struct memmap_range *r = &map->range[i];
		uint64_t r_end = r->gpa + r->bytes;

		if (r_end <= gpa || r->gpa >= end) {
			i++;
		} else if (r->gpa >= gpa && r_end <= end) {
			delete_at(map, i);
		} else if (r->gpa < gpa && r_end > end) {
			struct memmap_range tail = {end, r_end - end, r->type};

			r->bytes = gpa - r->gpa;
			return insert_at(map, i + 1, &tail);
		} else if (r->gpa < gpa) {
			r->bytes = gpa - r->gpa;
			i++;
		} else {
			r->gpa = end;
			r->bytes = r_end - end;
			i++;
		}
	}
	return 0;
}

int memmap_set(struct memmap *map, uint64_t gpa, uint64_t bytes, uint32_t type)
{
	struct memmap_range range = {gpa, bytes, type};
	unsigned int at = 0;
	int r;

	if (!bytes)
		return 0;
	r = memmap_remove(map, gpa, bytes);
	if (r)
		return r;
	while (at < map->n && map->range[at].gpa < gpa)
		at++;
	return insert_at(map, at, &range);
}

void memmap_merge(struct memmap *map)
{
	for (unsigned int i = 0; i + 1 < map->n;) {
		struct memmap_range *r = &map->range[i];

		if (r[0].type == r[1].type && r[0].gpa + r[0].bytes == r[1].gpa) {
			r[0].bytes += r[1].bytes;
			delete_at(map, i + 1);
		} else {
			i++;
		}
	}
}

uint64_t memmap_ram_bytes(const struct memmap *map)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < map->n; i++)
		if (map->range[i].type == MEMMAP_RAM)
			sum += map->range[i].bytes;
	return sum;
}

bool memmap_is_ram(const struct memmap *map, uint64_t gpa, uint64_t bytes)
{
	for (unsigned int i = 0; i < map->n; i++)
		if (map->range[i].type == MEMMAP_RAM &&
		    range_inside(gpa, bytes, map->range[i].gpa, map->range[i].bytes))
			return true;
	return false;
}

bool memmap_place_high(const struct memmap *map, uint64_t bytes, uint64_t align, uint64_t limit,
		       uint64_t *gpa)
{
	for (unsigned int i = map->n; i-- > 0;) {
		const struct memmap_range *r = &map->range[i];
		uint64_t end = MIN(r->gpa + r->bytes, limit), start;

		if (r->type != MEMMAP_RAM || end <= r->gpa || end - r->gpa < bytes)
			continue;
		start = align_down(end - bytes, align);
		if (start < r->gpa)
			continue;
		*gpa = start;
		return true;
	}
	return false;
}

/* How many aligned starts has a range, and the first of them? */
static uint64_t places_in(const struct memmap_range *r, uint64_t bytes, uint64_t align,
			  uint64_t min, uint64_t *first)
{
	uint64_t start = MAX(r->gpa, min), end = r->gpa + r->bytes;

	if (r->type != MEMMAP_RAM || start > UINT64_MAX - (align - 1))
		return 0;
	start = align_up(start, align);
	if (start >= end || end - start < bytes)
		return 0;
	*first = start;
	return (end - start - bytes) / align + 1;
}

bool memmap_place_low(const struct memmap *map, uint64_t bytes, uint64_t align, uint64_t min,
		      uint64_t *gpa)
{
	for (unsigned int i = 0; i < map->n; i++)
		if (places_in(&map->range[i], bytes, align, min, gpa))
			return true;
	return false;
}

uint64_t memmap_count_places(const struct memmap *map, uint64_t bytes, uint64_t align, uint64_t min)
{
	uint64_t sum = 0, first;

	for (unsigned int i = 0; i < map->n; i++)
		sum += places_in(&map->range[i], bytes, align, min, &first);
	return sum;
}

uint64_t memmap_nth_place(const struct memmap *map, uint64_t bytes, uint64_t align, uint64_t min,
			  uint64_t n)
{
	uint64_t first = 0;

	for (unsigned int i = 0; i < map->n; i++) {
		uint64_t here = places_in(&map->range[i], bytes, align, min, &first);

		if (n < here)
			return first + n * align;
		n -= here;
	}
	assert(!"n is below the count");
	return 0;
}
