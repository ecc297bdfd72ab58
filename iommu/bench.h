/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What mapping costs on this host: by size and backing of the memory, by the number of pages and of
 * threads, and which part of a call is what. The kernel tells no parts, so the same call is made
 * where a part is missing, and the difference taken: a copy of pinned pages pins none, a space
 * without a table fills in none, a table that no device uses is not invalidated. type1 has no
 * copy: its rows have no parts.
 *
 * All times are medians in nanoseconds. A difference is 0 where noise makes it negative.
 *
 * Threads: bench_run uses its caller's, and helpers while it measures threads. Nothing else uses
 * the iommu and the endpoint meanwhile.
 */
#ifndef IOMMU_BENCH_H
#define IOMMU_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "iommu/ioas.h"

enum { BENCH_MAX_SIZES = 64, BENCH_MAX_BATCHES = 5, BENCH_MAX_THREAD_ROWS = 5 };

struct bench_cost {
	uint64_t map_ns, unmap_ns; /* of all mappings of one measurement */
};

/* One mapping. */
struct bench_size {
	const char *backing; /* "4 KiB pages"; constant */
	uint64_t bytes;
	unsigned int runs; /* that the median is of */
	struct bench_cost whole;
	bool has_parts;
	struct bench_cost copy; /* of memory that another space has pinned */
	/* Parts of a map: pin the pages, fill in the table. */
	uint64_t pin_ns, fill_ns;
	/* Parts of an unmap: unpin the pages, clear the table, invalidate the IOMMU's cache. */
	uint64_t unpin_ns, clear_ns, invalidate_ns;
};

/* 4 KiB pages, mapped one by one. */
struct bench_batch {
	unsigned int pages;
	struct bench_cost scattered; /* unmapped by one call */
	uint64_t unmap_each_ns;      /* unmapped one by one */
	struct bench_cost whole;     /* as many bytes in one mapping */
};

/* Threads that map and unmap in one space at the same time. */
struct bench_threads {
	unsigned int threads;
	uint64_t bytes; /* of each thread's mapping */
	uint64_t map_unmap_ns;
};

struct bench_result {
	uint64_t floor_ns; /* an empty system call to the same driver */
	unsigned int n_sizes, n_batches, n_threads;
	struct bench_size sizes[BENCH_MAX_SIZES];
	struct bench_batch batches[BENCH_MAX_BATCHES];
	struct bench_threads threads[BENCH_MAX_THREAD_ROWS];
};

struct bench_setup {
	struct iommu *iommu;
	struct iommu_endpoint *endpoint; /* attached to nothing, and does no DMA */
	const char *device;              /* "0000:01:10.0", for messages */
	uint64_t max_bytes;              /* the largest mapping: a multiple of 2 MiB */
	bool quick;                      /* fewer sizes and repetitions */
	/* Called before each measurement with its name. NULL: nobody asks. */
	void (*progress)(void *opaque, const char *what);
	void *opaque;
};

/* Measure. Allocates max_bytes, and twice that is mapped at most. On an error *ret has the rows
 * that are complete. The endpoint is detached when it returns.
 * -ENOMEM, -EINVAL and whatever the kernel says to a mapping, with the limit or range named. */
int bench_run(struct bench_result *ret, const struct bench_setup *setup, struct err *err);

/* How often `progress` is called at most: kinds of memory that a host lacks are passed over. */
unsigned int bench_steps(const struct bench_setup *setup);

#endif
