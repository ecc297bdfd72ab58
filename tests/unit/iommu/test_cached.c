// SPDX-License-Identifier: Apache-2.0
// The strategy 'cached': what is found again, and what is reachable beyond what the guest wants.
#include "retaining.h"

#include <errno.h>

#include "base/num.h"

TestSuite(cached, .fini = stop);

enum { ROM = 8 * MiB };

Test(cached, the_same_page_at_the_same_address_with_the_same_rights_costs_no_call)
{
	start("cached");
	for (unsigned int i = 0; i < 100; i++)
		retain(0, 0x5000);
	cr_assert_eq(map_calls(), 1);
	cr_assert_eq(unmap_calls(), 0);
	cr_assert_eq(totals().hits, 99);
	cr_assert(reaches(0, 0x5000));
	cr_assert_eq(totals().stale_bytes, PAGE);
	cr_assert_eq(totals().requested_bytes, 0);
}

Test(cached, another_page_size_place_or_right_is_no_hit_and_flushes_first)
{
	start("cached");
	retain(0, 0x5000);
	cr_assert_eq(map(0, 1, 0x6000, RW), VIOMMU_OK);
	cr_assert(reaches(0, 0x6000), "another page");
	cr_assert_eq(unmap(0, 1), VIOMMU_OK);
	cr_assert_eq(map(0, 1, 0x6000, R), VIOMMU_OK);
	cr_assert_eq(map_calls(), 3, "fewer rights");
	cr_assert_eq(unmap(0, 1), VIOMMU_OK);
	cr_assert_eq(map(0, 1, 0x6000, RW), VIOMMU_OK);
	cr_assert_eq(map_calls(), 4, "more rights");
	cr_assert_eq(unmap(0, 1), VIOMMU_OK);
	cr_assert_eq(map(0, 2, 0x6000, RW), VIOMMU_OK);
	cr_assert_eq(map_calls(), 5, "larger");
	cr_assert_eq(unmap(0, 2), VIOMMU_OK);
	cr_assert_eq(map(0, 1, 0x6000, RW), VIOMMU_OK);
	cr_assert(reaches_nothing(1), "smaller");
	cr_assert_eq(map(2, 1, 0x6000, RW), VIOMMU_OK);
	cr_assert_eq(map_calls(), 7, "elsewhere");
	cr_assert_eq(totals().hits, 0);
	cr_assert_eq(totals().evicted, 5);
}

Test(cached, what_is_in_the_way_of_neighbours_in_a_batch_is_unmapped_in_one_call)
{
	struct viommu_request batch[8];

	start("cached");
	for (unsigned int i = 0; i < 8; i++)
		retain(i, 0x5000 + i * 2 * PAGE);
	for (unsigned int i = 0; i < 8; i++)
		batch[i] = (struct viommu_request){.op = VIOMMU_MAP,
						   .domain = 1,
						   .first = BASE + i * PAGE,
						   .last = BASE + i * PAGE + PAGE - 1,
						   .gpa = 0x40000 - i * 2 * PAGE,
						   .flags = RW};
	batch[3].gpa = 0x5000 + 3 * 2 * PAGE;
	viommu_run(viommu, batch, 8);
	cr_assert_eq(unmap_calls(), 2, "one on each side of the page that is the same");
	cr_assert_eq(totals().hits, 1);
	for (unsigned int i = 0; i < 8; i++)
		cr_assert(reaches(i, batch[i].gpa), "page %u", i);
}

Test(cached, the_quota_can_be_full_and_one_page_more_evicts_the_least_recently_used)
{
	start("cached,quota=12K");
	retain(0, 0x5000);
	retain(2, 0x6000);
	retain(4, 0x7000);
	retain(0, 0x5000); /* used again */
	cr_assert_eq(unmap_calls(), 0);
	cr_assert_eq(totals().stale_bytes, 3 * PAGE);
	retain(6, 0x8000);
	cr_assert_eq(totals().stale_bytes, 3 * PAGE);
	cr_assert(reaches_nothing(2));
	cr_assert(reaches(0, 0x5000) && reaches(4, 0x7000) && reaches(6, 0x8000));
}

Test(cached, a_quota_that_lacks_a_byte_for_a_page_has_no_room_for_it)
{
	start("cached,quota=8191");
	retain(0, 0x5000);
	retain(2, 0x6000);
	cr_assert_eq(totals().stale_bytes, PAGE);
	cr_assert(reaches_nothing(0) && reaches(2, 0x6000));
}

Test(cached, one_large_unmap_evicts_neighbours_in_one_call)
{
	start("cached,quota=32K");
	for (unsigned int i = 0; i < 8; i++)
		retain(i, 0x5000 + i * 0x2000);
	cr_assert_eq(map(20, 4, 0x40000, RW), VIOMMU_OK);
	cr_assert_eq(unmap(20, 4), VIOMMU_OK);
	cr_assert_eq(unmap_calls(), 1);
	cr_assert(reaches_nothing(3) && reaches(4, 0xd000) && reaches(20, 0x40000));
	cr_assert_eq(totals().stale_bytes, 8 * PAGE);
}

Test(cached, an_unmap_of_the_whole_quota_is_retained_and_one_of_more_is_not)
{
	start("cached,quota=8K");
	cr_assert_eq(map(0, 2, 0x10000, RW), VIOMMU_OK);
	cr_assert_eq(map(4, 3, 0x20000, RW), VIOMMU_OK);
	cr_assert_eq(unmap(0, 2), VIOMMU_OK);
	cr_assert(reaches(1, 0x11000));
	cr_assert_eq(unmap(4, 3), VIOMMU_OK);
	cr_assert(reaches_nothing(4), "it would not fit");
	cr_assert(reaches(1, 0x11000), "and takes nothing with it");
}

Test(cached, what_is_wanted_does_not_count_against_the_quota)
{
	start("cached,quota=4K");
	for (unsigned int i = 0; i < 50; i++)
		cr_assert_eq(map(i, 1, 0x5000, RW), VIOMMU_OK);
	retain(60, 0x6000);
	cr_assert(reaches(60, 0x6000) && reaches(49, 0x5000));
}

Test(cached, a_limit_met_by_one_request_evicts_nothing_that_another_of_its_batch_uses_again)
{
	struct viommu_request batch[] = {
		{.op = VIOMMU_MAP, .domain = 1, .first = BASE, .gpa = 0x5000, .flags = RW},
		{.op = VIOMMU_MAP,
		 .domain = 1,
		 .first = BASE + 8 * PAGE,
		 .gpa = 0x9000,
		 .flags = RW},
	};

	start("cached");
	retain(0, 0x5000);
	retain(2, 0x6000);
	viommu->limits.mappings = 2;
	for (unsigned int i = 0; i < ARRAY_SIZE(batch); i++)
		batch[i].last = batch[i].first + PAGE - 1;
	viommu_run(viommu, batch, ARRAY_SIZE(batch));
	cr_assert(batch[0].status == VIOMMU_OK && batch[1].status == VIOMMU_OK);
	cr_assert(reaches(0, 0x5000) && reaches_nothing(2) && reaches(8, 0x9000));
	cr_assert_eq(totals().hits, 1);
	cr_assert_eq(unmap(0, 9), VIOMMU_OK);
	cr_assert_eq(totals().stale_mappings, 2);
}

Test(cached, without_a_quota_nothing_goes_until_it_must)
{
	start("cached,quota=never");
	for (unsigned int i = 0; i < 5000; i++)
		retain(i, i % 1024 * PAGE);
	cr_assert_eq(unmap_calls(), 0);
	cr_assert_eq(totals().stale_bytes, 5000 * PAGE);
	now_ns += 3600 * NS_PER_S;
	hw_domain_tick(hw());
	cr_assert_eq(totals().stale_mappings, 5000);
	viommu_reset(viommu);
	cr_assert_eq(attach(1, DEVICE), VIOMMU_OK);
	cr_assert(reaches_nothing(0) && reaches_nothing(4999), "a reset");
}

Test(cached, nothing_is_asked_of_the_clock_without_a_ttl)
{
	start("cached");
	retain(0, 0x5000);
	cr_assert_eq(viommu->due_ns, 0);
}

Test(cached, what_was_not_used_for_the_ttl_goes_with_what_soon_would)
{
	uint64_t first_ns;

	start("cached,ttl=800ms");
	retain(0, 0x5000);
	first_ns = now_ns;
	now_ns += 99 * NS_PER_MS;
	retain(2, 0x6000);
	now_ns += 2 * NS_PER_MS;
	retain(4, 0x7000);
	cr_assert_gt(viommu->due_ns, clock_ns());
	now_ns = first_ns + 800 * NS_PER_MS - 1;
	hw_domain_tick(hw());
	cr_assert(reaches(0, 0x5000), "not yet");
	now_ns++;
	hw_domain_tick(hw());
	cr_assert(reaches_nothing(0) && reaches_nothing(2), "an eighth of the ttl");
	cr_assert(reaches(4, 0x7000));
	now_ns += 102 * NS_PER_MS;
	hw_domain_tick(hw());
	cr_assert(reaches_nothing(4));
	cr_assert_eq(totals().overruns, 0);
}

Test(cached, what_is_used_again_begins_its_ttl_anew)
{
	start("cached,ttl=800ms");
	retain(0, 0x5000);
	now_ns += 799 * NS_PER_MS;
	retain(0, 0x5000);
	now_ns += 100 * NS_PER_MS;
	hw_domain_tick(hw());
	cr_assert(reaches(0, 0x5000));
	now_ns += 700 * NS_PER_MS;
	hw_domain_tick(hw());
	cr_assert(reaches_nothing(0));
}

/* --- nothing retained survives --- */

Test(cached, memory_that_left_and_came_back_is_no_hit)
{
	start("cached");
	cr_assert_eq(map(0, 1, ROM, R), VIOMMU_OK);
	cr_assert_eq(unmap(0, 1), VIOMMU_OK);
	cr_assert_eq(map(4, 1, ROM + PAGE, R), VIOMMU_OK, "wanted");
	rom_leaves();
	cr_assert(reaches_nothing(0) && reaches_nothing(4));
	rom_returns();
	cr_assert_eq(map(0, 1, ROM, R), VIOMMU_OK);
	cr_assert_eq(totals().hits, 0);
	cr_assert(reaches(0, ROM), "the memory of now");
}

Test(cached, a_device_that_comes_or_goes_finds_and_leaves_nothing_stale)
{
	start("cached");
	retain(0, 0x5000);
	cr_assert_eq(attach(1, OTHER), VIOMMU_OK);
	cr_assert(reaches_nothing(0));
	retain(0, 0x5000);
	cr_assert_eq(attach(2, OTHER), VIOMMU_OK);
	cr_assert(reaches_nothing(0));
}

Test(cached, the_driver_that_lets_go_leaves_nothing_stale)
{
	start("cached");
	retain(0, 0x5000);
	cr_assert_eq(map(2, 1, 0x6000, RW), VIOMMU_OK);
	viommu_abandon(viommu);
	cr_assert(reaches_nothing(0) && reaches(2, 0x6000));
}

Test(cached, strategies_of_guest_mappings_follow_each_other_in_one_table)
{
	static const char *const order[] = {"strict", "cached,quota=8K",    "deferred",
					    "cached", "deferred,entries=1", "strict",
					    "cached"};
	const struct ioas *table;

	start("cached");
	table = hw_domain_ioas(hw());
	cr_assert_eq(run((struct viommu_request){.op = VIOMMU_MAP,
						 .domain = 1,
						 .first = 0x9000,
						 .last = 0x9fff,
						 .gpa = 0x9000,
						 .flags = RW}),
		     VIOMMU_OK, "at its own address");
	for (unsigned int i = 0; i < ARRAY_SIZE(order); i++) {
		cr_assert_eq(map(8, 1, 0x8000, RW), VIOMMU_OK);
		retain(0, 0x5000);
		retain(1, 0x6000);
		switch_to(order[i]);
		cr_assert_eq(hw_domain_ioas(hw()), table);
		cr_assert_str_neq(hw_domain_strategy(hw()), "");
		cr_assert(reaches_nothing(0) && reaches_nothing(1), "to %s", order[i]);
		cr_assert(reaches(8, 0x8000), "to %s", order[i]);
		cr_assert_eq(totals().stale_mappings, 0);
		for (const struct mapping *m =
			     mappings_find(&viommu_find_domain(viommu, 1)->table, 0, UINT64_MAX);
		     m; m = m->next)
			cr_assert_eq(m->word, 0);
		cr_assert_eq(unmap(8, 1), VIOMMU_OK);
		cr_assert_eq(totals().mapped_bytes - totals().stale_bytes, PAGE);
	}
}

Test(cached, to_direct_and_back_in_a_table_of_its_own)
{
	start("cached");
	retain(0, 0x5000);
	cr_assert_eq(map(8, 1, 0x8000, RW), VIOMMU_OK);
	switch_to("direct");
	cr_assert(reaches_nothing(0) && reaches(8, 0x8000));
	switch_to("cached");
	cr_assert(reaches(8, 0x8000));
	retain(0, 0x5000);
	cr_assert(reaches(0, 0x5000));
}

Test(cached, a_fault_in_what_was_stale_is_told_so)
{
	char text[120];

	start("cached,quota=8K");
	retain(0, 0x5000);
	retain(1, 0x9000);
	ioas_history(hw_domain_ioas(hw()), BASE + PAGE, text, sizeof(text));
	cr_assert_str_eq(text, "mapped for reading and writing (gpa 0x9000)");
	now_ns += 5 * NS_PER_MS;
	cr_assert_eq(map(4, 2, 0x10000, RW), VIOMMU_OK);
	cr_assert_eq(unmap(4, 2), VIOMMU_OK);
	now_ns += 3 * NS_PER_MS;
	ioas_history(hw_domain_ioas(hw()), BASE + PAGE + 8, text, sizeof(text));
	cr_assert_str_eq(text, "stale until it was unmapped 3.0 ms ago (request 5, gpa 0x9008)");
}

/* --- any sequence --- */

Test(cached, any_sequence_keeps_the_quota)
{
	const struct promise promise = {
		.strategy = "cached,quota=28K",
		.mappings = UINT64_MAX,
		.bytes = 7 * PAGE,
		.ns = UINT64_MAX,
	};

	any_sequence(&promise, 20000, 2);
}

Test(cached, any_sequence_keeps_the_ttl)
{
	const struct promise promise = {
		.strategy = "cached,quota=never,ttl=5ms",
		.mappings = UINT64_MAX,
		.bytes = UINT64_MAX,
		.ns = 5 * NS_PER_MS,
	};

	any_sequence(&promise, 20000, 3);
}
