/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's memory map as a list of ranges: what e820 and PVH tell the kernel, and where
 * something can still be placed. Sorted by address, never overlapping; adjacent ranges are kept
 * apart, because two regions of guest memory need not be adjacent in the host.
 */
#ifndef FIRMWARE_MEMMAP_H
#define FIRMWARE_MEMMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "core/gmem.h"

/* The numbers of e820 and of PVH's memory map alike (ACPI 6.5, 15). */
enum memmap_type {
	MEMMAP_RAM = 1,
	MEMMAP_RESERVED = 2,
	MEMMAP_ACPI = 3, /* tables: RAM again once the kernel has read them */
};

/* What a zero page holds (E820_MAX_ENTRIES_ZEROPAGE). */
#define MEMMAP_MAX 128

struct memmap_range {
	uint64_t gpa, bytes;
	uint32_t type;
};

struct memmap {
	unsigned int n;
	struct memmap_range range[MEMMAP_MAX];
};

/* All RAM of guest memory (no device memory, no ROM). -E2BIG when it has too many regions. */
int memmap_from_gmem(struct memmap *map, const struct gmem *gmem);

/* [gpa, gpa + bytes) becomes `type`, whatever it was; where nothing was, the range is added.
 * bytes 0 is nothing. -E2BIG when the map is full, -EINVAL when the range wraps. */
int memmap_set(struct memmap *map, uint64_t gpa, uint64_t bytes, uint32_t type);

/* Take [gpa, gpa + bytes) out of the map. */
int memmap_remove(struct memmap *map, uint64_t gpa, uint64_t bytes);

/* Join neighbours of one type. */
void memmap_merge(struct memmap *map);

/* Bytes of RAM in the map. */
uint64_t memmap_ram_bytes(const struct memmap *map);

/* Is the whole range inside one RAM range of the map? */
bool memmap_is_ram(const struct memmap *map, uint64_t gpa, uint64_t bytes);

/* The highest place for `bytes` in RAM that ends at or below `limit`; false when there is none.
 * align is a power of two. */
bool memmap_place_high(const struct memmap *map, uint64_t bytes, uint64_t align, uint64_t limit,
		       uint64_t *gpa);

/* The lowest such place that starts at or above `min`. */
bool memmap_place_low(const struct memmap *map, uint64_t bytes, uint64_t align, uint64_t min,
		      uint64_t *gpa);

/* In how many places can `bytes` start, aligned, at or above `min`? And which is the n-th of them
 * (counted from 0, n below the count)? */
uint64_t memmap_count_places(const struct memmap *map, uint64_t bytes, uint64_t align,
			     uint64_t min);
uint64_t memmap_nth_place(const struct memmap *map, uint64_t bytes, uint64_t align, uint64_t min,
			  uint64_t n);

#endif
