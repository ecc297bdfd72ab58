// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <errno.h>

#include "firmware/memmap.h"
#include "synth.h"

#define MB(n) ((uint64_t)(n) << 20)

static void is(const struct memmap *map, unsigned int i, uint64_t gpa, uint64_t bytes,
	       uint32_t type)
{
	cr_assert_lt(i, map->n);
	cr_assert_eq(map->range[i].gpa, gpa, "range %u at 0x%lx", i, map->range[i].gpa);
	cr_assert_eq(map->range[i].bytes, bytes, "range %u: 0x%lx", i, map->range[i].bytes);
	cr_assert_eq(map->range[i].type, type);
}

Test(memmap, guest_memory_is_ram)
{
	struct gmem *gmem = synth_memory(MB(64));
	struct memmap map;

	cr_assert_eq(memmap_from_gmem(&map, gmem), 0);
	cr_assert_eq(map.n, 1);
	is(&map, 0, 0, MB(64), MEMMAP_RAM);
	cr_assert_eq(memmap_ram_bytes(&map), MB(64));
	gmem_destroy(gmem);
}

Test(memmap, a_reserved_range_splits_ram)
{
	struct memmap map = {0};

	memmap_set(&map, 0, MB(64), MEMMAP_RAM);
	cr_assert_eq(memmap_set(&map, MB(1), MB(1), MEMMAP_RESERVED), 0);
	cr_assert_eq(map.n, 3);
	is(&map, 0, 0, MB(1), MEMMAP_RAM);
	is(&map, 1, MB(1), MB(1), MEMMAP_RESERVED);
	is(&map, 2, MB(2), MB(62), MEMMAP_RAM);
}

Test(memmap, a_range_over_several_replaces_them)
{
	struct memmap map = {0};

	memmap_set(&map, 0, MB(4), MEMMAP_RAM);
	memmap_set(&map, MB(8), MB(4), MEMMAP_RAM);
	memmap_set(&map, MB(16), MB(4), MEMMAP_RAM);
	memmap_set(&map, MB(2), MB(16), MEMMAP_RESERVED);
	cr_assert_eq(map.n, 3);
	is(&map, 1, MB(2), MB(16), MEMMAP_RESERVED);
	is(&map, 2, MB(18), MB(2), MEMMAP_RAM);
}

Test(memmap, neighbours_merge_only_when_asked)
{
	struct memmap map = {0};

	memmap_set(&map, 0, MB(4), MEMMAP_RAM);
	memmap_set(&map, MB(4), MB(4), MEMMAP_RAM);
	memmap_set(&map, MB(8), MB(4), MEMMAP_RESERVED);
	cr_assert_eq(map.n, 3);
	cr_assert_not(memmap_is_ram(&map, MB(2), MB(4)));
	memmap_merge(&map);
	cr_assert_eq(map.n, 2);
	cr_assert(memmap_is_ram(&map, MB(2), MB(4)));
	cr_assert_not(memmap_is_ram(&map, MB(6), MB(4)));
}

Test(memmap, wrapping_and_full_are_errors)
{
	struct memmap map = {0};

	cr_assert_eq(memmap_set(&map, UINT64_MAX - 4, 8, MEMMAP_RAM), -EINVAL);
	for (unsigned int i = 0; i < MEMMAP_MAX; i++)
		cr_assert_eq(memmap_set(&map, MB(2) * i, MB(1), MEMMAP_RAM), 0);
	cr_assert_eq(memmap_set(&map, MB(2) * MEMMAP_MAX, MB(1), MEMMAP_RAM), -E2BIG);
}

Test(memmap, places_are_found_from_both_ends)
{
	struct memmap map = {0};
	uint64_t gpa;

	memmap_set(&map, MB(1), MB(63), MEMMAP_RAM);
	memmap_set(&map, MB(4096), MB(64), MEMMAP_RAM);
	cr_assert(memmap_place_high(&map, 5000, 4096, MB(4096), &gpa));
	cr_assert_eq(gpa, MB(64) - 8192);
	cr_assert(memmap_place_high(&map, 5000, 4096, MB(32) + 1, &gpa));
	cr_assert_eq(gpa, MB(32) - 8192 + 0);
	cr_assert_not(memmap_place_high(&map, MB(64), 4096, MB(4096), &gpa));
	cr_assert(memmap_place_low(&map, MB(8), MB(2), MB(1), &gpa));
	cr_assert_eq(gpa, MB(2));
	cr_assert(memmap_place_low(&map, MB(63), MB(2), MB(1), &gpa));
	cr_assert_eq(gpa, MB(4096));
	cr_assert_not(memmap_place_low(&map, MB(65), MB(2), MB(1), &gpa));
}

Test(memmap, places_are_counted_and_numbered)
{
	struct memmap map = {0};
	uint64_t n;

	memmap_set(&map, MB(1), MB(63), MEMMAP_RAM);
	memmap_set(&map, MB(4096), MB(16), MEMMAP_RAM);
	memmap_set(&map, MB(5000), MB(16), MEMMAP_RESERVED);
	n = memmap_count_places(&map, MB(8), MB(2), MB(16));
	cr_assert_eq(n, 21 + 5); /* 16 … 56 and 4096 … 4104 by 2 */
	cr_assert_eq(memmap_nth_place(&map, MB(8), MB(2), MB(16), 0), MB(16));
	cr_assert_eq(memmap_nth_place(&map, MB(8), MB(2), MB(16), 20), MB(56));
	cr_assert_eq(memmap_nth_place(&map, MB(8), MB(2), MB(16), 21), MB(4096));
	cr_assert_eq(memmap_nth_place(&map, MB(8), MB(2), MB(16), 25), MB(4104));
	cr_assert_eq(memmap_count_places(&map, MB(80), MB(2), 0), 0);
}
