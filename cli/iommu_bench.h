/* SPDX-License-Identifier: Apache-2.0 */
/* hospes iommu bench. */
#ifndef CLI_IOMMU_BENCH_H
#define CLI_IOMMU_BENCH_H

#include <stdbool.h>
#include <stdint.h>

struct iommu_bench_arguments {
	const char *device, *backend; /* NULL: not given */
	uint64_t max_bytes;           /* 0: not given */
	bool quick, json;
};

/* Returns the exit status. */
int cli_iommu_bench(const struct iommu_bench_arguments *a);

#endif
