/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests of strategies that retain mappings: a virtual IOMMU with two devices of a fake host,
 * the first in domain 1, whose clock goes on by a microsecond per request; and a model of pages
 * which knows what the guest wants, and what is stale in which order. Guest memory: 4 MiB at 0, and
 * 1 MiB of ROM at 8 MiB.
 */
#ifndef TESTS_IOMMU_RETAINING_H
#define TESTS_IOMMU_RETAINING_H

#include <criterion/criterion.h>

#include "base/clock.h"
#include "fake_iommu.h"
#include "iommu/ledger.h"
#include "iommu/viommu_impl.h"

enum { PAGE = 4096, R = VIOMMU_F_READ, RW = VIOMMU_F_READ | VIOMMU_F_WRITE };
enum { DEVICE = 24, OTHER = 32 }; /* ids of endpoints */
#define BASE GiB                  /* page 0 of the tests */

extern struct viommu *viommu;
extern uint64_t now_ns;   /* of the ledger of domain 1 */
extern char decided[500]; /* "DEVICE: WHY": the last decision of 'auto'; or "" */

void start(const char *strategy);
void stop(void); /* .fini */

enum viommu_status run(struct viommu_request r);
/* n pages at page `at` of BASE. */
enum viommu_status map(unsigned int at, unsigned int n, uint64_t gpa, uint32_t flags);
enum viommu_status unmap(unsigned int at, unsigned int n);
/* One page is mapped and unmapped. */
void retain(unsigned int at, uint64_t gpa);
enum viommu_status attach(uint32_t domain, uint32_t to);
struct hw_domain *hw(void); /* of domain 1 */
struct ledger_totals totals(void);
void switch_to(const char *strategy);
/* What the virtual IOMMU does when memory leaves, while the guest still has it. */
void memory_leaves(uint64_t gpa, uint64_t bytes);
/* Remove the ROM from the guest, and add it again. */
void rom_leaves(void);
void rom_returns(void);

/* Does the hardware reach exactly this guest memory at the page, or nothing? */
bool reaches(unsigned int at, uint64_t gpa);
bool reaches_nothing(unsigned int at);
bool reaches_for_writing(unsigned int at);
uint64_t unmap_calls(void);
uint64_t map_calls(void);

/* Any sequence of requests, ticks, switches and memory that leaves: after each step the hardware
 * reaches what the guest wants and what is stale by this model, and the limits hold. */
struct promise {
	const char *strategy;
	uint64_t mappings, bytes; /* stale at most */
	uint64_t ns;              /* a tick leaves nothing that is older; UINT64_MAX */
};
void any_sequence(const struct promise *promise, unsigned int steps, unsigned int seed);

#endif
