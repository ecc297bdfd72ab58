// SPDX-License-Identifier: Apache-2.0
// Published measurements of the same question, with their sources; of other machines, so for scale
// only.
#include "compare/compare.h"

static const char ols07[] = "Ben-Yehuda et al., The Price of Safety, OLS 2007 (Calgary, Xen)";
static const char atc11[] = "Amit et al., vIOMMU, USENIX ATC 2011 (slides)";
static const char stevens[] =
	"Stevens, dynamic bounce buffers for dma-iommu, Linux patches of 2021";

const struct compare_theirs compare_theirs[] = {
	{ols07,
	 "a domain with direct access, map and unmap per buffer, beside no IOMMU: up to 45 % less "
	 "throughput below 1024 bytes a message",
	 .net = true, .min_bytes = 0, .max_bytes = 1023},
	{ols07,
	 "likewise, from 1024 bytes a message: throughput mostly the same, up to 40 to 60 % more CPU",
	 .net = true, .min_bytes = 1024, .max_bytes = UINT64_MAX},
	{ols07,
	 "disk I/O, said to be comparable to the network's (up to 40 to 60 % more CPU), not shown",
	 .block = true, .max_bytes = UINT64_MAX},
	{atc11,
	 "cycles to map and unmap one page, strict: bare metal 6909, trapped and emulated 34969, by a "
	 "polling core 9225",
	 .block = true, .net = true, .max_bytes = UINT64_MAX},
	{stevens,
	 "fio reads of a VFIO NVMe behind virtio-iommu: a pool with copies 2.8 times as fast as "
	 "strict",
	 .block = true, .min_bytes = 4096, .max_bytes = 4096, .depth = 64},
	{stevens, "likewise: 4.7 times", .block = true, .min_bytes = 16384, .max_bytes = 16384,
	 .depth = 64},
	{stevens, "likewise: 3.6 times", .block = true, .min_bytes = 65536, .max_bytes = 131072,
	 .depth = 64},
};
const unsigned int n_compare_theirs = sizeof(compare_theirs) / sizeof(compare_theirs[0]);

bool compare_theirs_fits(const struct compare_theirs *t, const struct compare_case *at)
{
	return (at->kind == COMPARE_BLOCK ? t->block : t->net) && at->bytes >= t->min_bytes &&
	       at->bytes <= t->max_bytes && (!t->depth || t->depth == at->depth);
}
