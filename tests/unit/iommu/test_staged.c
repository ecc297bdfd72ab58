// SPDX-License-Identifier: Apache-2.0
// The strategy 'staged': the device reaches what it reaches under 'strict', and memory is pinned
// where no device reaches it.
#include "retaining.h"

#include <stdlib.h>
#include <string.h>

#include "base/num.h"

TestSuite(staged, .fini = stop);

enum { ROM = 8 * MiB, GRANULE = 2 * MiB };

static uint64_t pinned(void)
{
	struct ledger_totals t;

	hw_domain_totals(hw(), &t);
	return t.pinned_bytes;
}

static uint64_t copies(void)
{
	return totals().kind[LEDGER_COPY].calls;
}

Test(staged, all_memory_is_pinned_and_only_what_is_mapped_is_reachable)
{
	start("staged");
	cr_assert_eq(pinned(), 5 * MiB);
	cr_assert(reaches_nothing(0));
	cr_assert_eq(map(0, 2, 0x5000, RW), VIOMMU_OK);
	cr_assert(reaches(0, 0x5000) && reaches(1, 0x6000) && reaches_nothing(2));
	cr_assert_eq(totals().mapped_bytes, 2 * PAGE);
	cr_assert_eq(unmap(0, 2), VIOMMU_OK);
	cr_assert(reaches_nothing(0) && reaches_nothing(1));
	cr_assert_eq(pinned(), 5 * MiB);
	cr_assert(copies() == 1 && map_calls() == 0);
}

Test(staged, rights_are_those_of_the_request)
{
	start("staged");
	cr_assert_eq(map(0, 1, 0x5000, R), VIOMMU_OK);
	cr_assert(reaches(0, 0x5000) && !reaches_for_writing(0));
	cr_assert_eq(map(1, 1, ROM, R), VIOMMU_OK);
	cr_assert(reaches(1, ROM));
	cr_assert_eq(map(2, 1, ROM, RW), VIOMMU_INVAL);
}

Test(staged, a_quota_pins_what_is_used_in_granules)
{
	start("staged,quota=4M");
	cr_assert_eq(pinned(), 0);
	cr_assert_eq(map(0, 1, 0x5000, RW), VIOMMU_OK);
	cr_assert_eq(pinned(), GRANULE);
	cr_assert_eq(map(1, 1, 0x9000, RW), VIOMMU_OK);
	cr_assert_eq(pinned(), GRANULE);
	cr_assert_eq(unmap(0, 2), VIOMMU_OK);
	cr_assert_eq(pinned(), GRANULE, "it stays for the next time");
	cr_assert_eq(map(0, 1, GRANULE + 0x1000, RW), VIOMMU_OK);
	cr_assert_eq(pinned(), 2 * GRANULE);
	cr_assert_eq(copies(), 3);
}

Test(staged, the_granule_that_is_longest_in_no_mapping_makes_room)
{
	start("staged,quota=2M");
	retain(0, 0x5000);
	cr_assert_eq(map(0, 1, GRANULE, RW), VIOMMU_OK);
	cr_assert_eq(pinned(), GRANULE);
	cr_assert(reaches(0, GRANULE));
	cr_assert_eq(map(1, 1, 0x5000, RW), VIOMMU_OK, "no room: as in strict");
	cr_assert(reaches(1, 0x5000));
	cr_assert_eq(map_calls(), 1);
	cr_assert_eq(pinned(), GRANULE + PAGE);
	cr_assert_eq(unmap(0, 2), VIOMMU_OK);
	cr_assert(reaches_nothing(0) && reaches_nothing(1));
	cr_assert_eq(pinned(), GRANULE);
	cr_assert_eq(map(1, 1, 0x5000, RW), VIOMMU_OK);
	cr_assert_eq(map_calls(), 1);
}

Test(staged, a_mapping_over_two_granules_has_both_or_none)
{
	start("staged,quota=2M");
	cr_assert_eq(map(0, 2, GRANULE - PAGE, RW), VIOMMU_OK);
	cr_assert(reaches(0, GRANULE - PAGE) && reaches(1, GRANULE));
	cr_assert_eq(copies(), 0);
	cr_assert_eq(unmap(0, 2), VIOMMU_OK);
	cr_assert_eq(totals().mapped_bytes, 0);
	switch_to("staged,quota=4M");
	cr_assert_eq(map(0, 2, GRANULE - PAGE, RW), VIOMMU_OK);
	cr_assert_eq(copies(), 1);
}

Test(staged, memory_that_leaves_is_neither_reachable_nor_pinned)
{
	start("staged");
	cr_assert_eq(map(0, 1, ROM, R), VIOMMU_OK);
	rom_leaves();
	cr_assert(reaches_nothing(0));
	cr_assert_eq(pinned(), 4 * MiB);
	rom_returns();
	cr_assert_eq(map(0, 1, ROM, R), VIOMMU_OK);
	cr_assert_eq(copies(), 2);
	switch_to("staged,quota=4M");
	cr_assert_eq(map(4, 1, 0x5000, RW), VIOMMU_OK);
	cr_assert_eq(map(5, 1, 0x9000, RW), VIOMMU_OK);
	memory_leaves(0x5000, PAGE);
	cr_assert(reaches_nothing(4) && reaches(5, 0x9000));
	cr_assert_eq(unmap(5, 1), VIOMMU_OK);
	retain(5, 0x9000);
	cr_assert_eq(pinned(), GRANULE + PAGE, "the ROM's page, and the granule anew");
}

Test(staged, a_switch_keeps_what_is_mapped_and_leaves_no_pin)
{
	start("strict");
	cr_assert_eq(map(0, 1, 0x5000, RW), VIOMMU_OK);
	for (unsigned int i = 0; i < 3; i++) {
		switch_to(i % 2 ? "staged" : "staged,quota=2M");
		cr_assert(reaches(0, 0x5000));
		cr_assert_eq(map(1, 1, 0x6000, RW), VIOMMU_OK);
		switch_to("strict");
		cr_assert(reaches(0, 0x5000) && reaches(1, 0x6000));
		cr_assert_eq(pinned(), 2 * PAGE);
		cr_assert_eq(unmap(1, 1), VIOMMU_OK);
	}
}

Test(staged, any_sequence_reaches_exactly_what_is_wanted)
{
	const struct promise promise = {"staged,quota=2M", 0, 0, UINT64_MAX};

	any_sequence(&promise, 3000, 7);
}
