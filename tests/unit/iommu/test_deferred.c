// SPDX-License-Identifier: Apache-2.0
// The strategy 'deferred': what stays reachable after an UNMAP, how much and how long.
#include "retaining.h"

#include <errno.h>

#include "base/num.h"

TestSuite(deferred, .fini = stop);

static void tick_after(uint64_t ns)
{
	now_ns += ns;
	hw_domain_tick(hw());
}

Test(deferred, an_unmap_makes_no_call_and_is_stale_until_its_window_has_passed)
{
	start("deferred,window=10ms");
	retain(0, 0x5000);
	cr_assert_eq(unmap_calls(), 0);
	cr_assert_eq(totals().stale_bytes, PAGE);
	tick_after(10 * NS_PER_MS - 1);
	cr_assert(reaches(0, 0x5000), "a tick that comes early");
	tick_after(1);
	cr_assert(reaches_nothing(0));
	cr_assert_eq(totals().stale_bytes, 0);
	cr_assert_eq(totals().evicted, 1);
	cr_assert_eq(totals().stale_longest_ns, 10 * NS_PER_MS);
	cr_assert_eq(viommu_find_domain(viommu, 1)->table.count, 0);
}

Test(deferred, the_virtual_iommu_is_asked_for_the_tick)
{
	start("deferred,window=10ms");
	cr_assert_eq(viommu->due_ns, 0);
	retain(0, 0x5000);
	cr_assert_gt(viommu->due_ns, clock_ns());
	cr_assert_leq(viommu->due_ns, clock_ns() + 10 * NS_PER_MS);
}

Test(deferred, a_tick_takes_what_is_younger_too_and_neighbours_in_one_call)
{
	start("deferred,window=10ms");
	retain(3, 0x5000);
	retain(1, 0x9000);
	now_ns += 9 * NS_PER_MS;
	retain(2, 0x7000);
	retain(6, 0x6000);
	cr_assert_eq(map(0, 1, 0x8000, RW), VIOMMU_OK);
	tick_after(NS_PER_MS);
	cr_assert_eq(unmap_calls(), 2, "1 to 3, and 6");
	cr_assert(reaches_nothing(1) && reaches_nothing(2) && reaches_nothing(3));
	cr_assert(reaches_nothing(6) && reaches(0, 0x8000));
}

Test(deferred, as_many_are_stale_as_are_allowed_and_no_more)
{
	start("deferred,entries=3");
	retain(0, 0x5000);
	retain(2, 0x6000);
	retain(4, 0x7000);
	cr_assert_eq(unmap_calls(), 0);
	cr_assert_eq(totals().stale_mappings, 3);
	retain(6, 0x8000);
	cr_assert_eq(totals().stale_mappings, 3);
	cr_assert(reaches_nothing(0), "the oldest went");
	cr_assert(reaches(2, 0x6000) && reaches(4, 0x7000) && reaches(6, 0x8000));
}

Test(deferred, an_unmap_of_as_many_as_are_allowed_is_deferred_and_one_of_more_is_not)
{
	start("deferred,entries=3");
	for (unsigned int i = 0; i < 7; i++)
		cr_assert_eq(map(i, 1, 0x5000, RW), VIOMMU_OK);
	cr_assert_eq(unmap(0, 3), VIOMMU_OK);
	cr_assert_eq(unmap_calls(), 0);
	cr_assert_eq(unmap(3, 4), VIOMMU_OK);
	cr_assert_eq(unmap_calls(), 1);
	cr_assert(reaches_nothing(3) && reaches_nothing(6) && reaches(2, 0x5000));
}

Test(deferred, from_half_of_the_entries_on_a_tick_comes_at_once)
{
	start("deferred,entries=4,window=10s");
	retain(0, 0x5000);
	cr_assert_gt(viommu->due_ns, clock_ns() + NS_PER_S);
	retain(2, 0x6000);
	cr_assert_leq(viommu->due_ns, clock_ns());
	tick_after(0);
	cr_assert(reaches_nothing(0) && reaches_nothing(2));
}

/* A guest that waits for a request does not wait long for a tick. */
Test(deferred, a_tick_does_little_and_asks_for_another)
{
	uint64_t left;

	start("deferred,window=10ms");
	for (unsigned int i = 0; i < 40; i++)
		retain(2 * i, 0x5000);
	tick_after(10 * NS_PER_MS);
	left = totals().stale_mappings;
	cr_assert(left > 20 && left < 40, "%u", (unsigned int)left);
	cr_assert_leq(viommu->due_ns, clock_ns());
	for (unsigned int i = 0; i < 10; i++)
		tick_after(0);
	cr_assert_eq(totals().stale_mappings, 0);
}

Test(deferred, a_tick_that_comes_after_twice_the_window_is_counted)
{
	start("deferred,window=10ms");
	retain(0, 0x5000);
	tick_after(20 * NS_PER_MS + 1);
	cr_assert_eq(totals().overruns, 0, "twice the window is no overrun");
	retain(0, 0x5000);
	tick_after(20 * NS_PER_MS + 2);
	cr_assert_eq(totals().overruns, 1);
}

Test(deferred, a_map_of_the_same_makes_no_call_and_one_of_something_else_flushes_first)
{
	start("deferred");
	retain(0, 0x5000);
	cr_assert_eq(map(0, 1, 0x5000, RW), VIOMMU_OK);
	cr_assert_eq(map_calls(), 1);
	cr_assert_eq(totals().hits, 1);
	cr_assert_eq(unmap(0, 1), VIOMMU_OK);
	cr_assert_eq(map(0, 2, 0x6000, RW), VIOMMU_OK);
	cr_assert_eq(unmap_calls(), 1);
	cr_assert(reaches(0, 0x6000) && reaches(1, 0x7000));
	tick_after(NS_PER_S);
	cr_assert(reaches(0, 0x6000), "it is wanted");
}

/* --- hardware that refuses --- */

Test(deferred, of_a_run_that_is_refused_in_the_middle_the_rest_goes)
{
	start("deferred,window=10ms");
	for (unsigned int i = 0; i < 4; i++)
		retain(i, 0x5000 + i * 0x2000);
	fake.refuse_iova = BASE + 2 * PAGE;
	tick_after(10 * NS_PER_MS);
	cr_assert(reaches_nothing(0) && reaches_nothing(1));
	cr_assert(reaches(2, 0x9000) && reaches(3, 0xb000));
	cr_assert_eq(totals().stale_mappings, 2);
	cr_assert_eq(map(2, 1, 0x9000, RW), VIOMMU_INVAL, "it cannot be had again, nor replaced");
	cr_assert_eq(map(3, 1, 0x9000, RW), VIOMMU_OK, "its neighbour can");
	fake.refuse_iova = 0;
	tick_after(10 * NS_PER_MS);
	cr_assert(reaches_nothing(2), "it is tried again");
	cr_assert_eq(totals().stale_mappings, 0);
}

Test(deferred, where_no_room_can_be_made_an_unmap_is_not_deferred)
{
	start("deferred,entries=1");
	retain(0, 0x5000);
	fake.refuse_iova = BASE;
	retain(2, 0x6000);
	cr_assert(reaches(0, 0x5000) && reaches_nothing(2));
	cr_assert_eq(totals().stale_mappings, 1);
}

/* --- */

Test(deferred, an_unmap_beyond_the_entries_takes_what_is_stale_between_with_it)
{
	start("deferred,entries=2");
	retain(1, 0x9000);
	for (unsigned int i = 0; i < 4; i++)
		cr_assert_eq(i == 1 ? VIOMMU_OK : map(i, 1, 0x5000, RW), VIOMMU_OK);
	cr_assert_eq(unmap(0, 4), VIOMMU_OK);
	cr_assert(reaches_nothing(0) && reaches_nothing(1) && reaches_nothing(3));
	cr_assert_eq(totals().stale_mappings, 0);
	cr_assert_eq(totals().mapped_bytes, 0);
	cr_assert_eq(map(1, 1, 0x9000, RW), VIOMMU_OK);
	cr_assert(reaches(1, 0x9000), "and it is mapped anew");
}

Test(deferred, any_sequence_keeps_its_promise)
{
	const struct promise promise = {
		.strategy = "deferred,entries=5,window=3ms",
		.mappings = 5,
		.bytes = UINT64_MAX,
		.ns = 3 * NS_PER_MS,
	};

	any_sequence(&promise, 20000, 1);
}
