// SPDX-License-Identifier: Apache-2.0
// The strategy 'auto': which strategy it chooses under which load, within how many ticks; that it
// stays with it; and that no call leaves more than the ceiling beyond what the guest has mapped. A
// call that maps takes 0.2 ms here, so that 100 in a tick of 250 ms are 8 % of a CPU.
#include "retaining.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "iommu/strategy/policy.h"

TestSuite(auto_, .fini = stop);

enum { TICK_MS = 250, CALL_US = 200, OPS = 100 };

static uint64_t ceiling_bytes;
static unsigned int next; /* page of a load */

static void on_map(void)
{
	now_ns += CALL_US * 1000ull;
}

static void begin(const char *strategy, uint64_t ceiling)
{
	fake.on_map = on_map;
	ceiling_bytes = ceiling;
	next = 0;
	start(strategy);
}

static struct policy_view chosen(void)
{
	struct policy_view view;

	cr_assert(hw_domain_policy(hw(), &view));
	return view;
}

static void runs(const char *strategy)
{
	cr_assert_str_eq(chosen().running, strategy, "%s", chosen().why);
}

static void check_ceiling(void)
{
	struct ledger_totals t = totals();

	cr_assert_leq(t.mapped_bytes, t.requested_bytes + ceiling_bytes);
	cr_assert_leq(t.stale_peak_bytes, ceiling_bytes);
}

/* --- loads: one use of a buffer each --- */

static void use_page(unsigned int at, uint64_t gpa)
{
	cr_assert_eq(map(at, 1, gpa, RW), VIOMMU_OK);
	check_ceiling();
	cr_assert_eq(unmap(at, 1), VIOMMU_OK);
	check_ceiling();
}

static void one_page_returns(void)
{
	use_page(0, 0x10000);
}

/* Too many at a time for 'deferred'. */
static void many_pages_return(void)
{
	use_page(next % 200, 0x10000 + (uint64_t)(next % 200) * PAGE);
	next++;
}

static void none_returns(void)
{
	use_page(next, 0x10000 + (uint64_t)(next % 512) * PAGE);
	next++;
}

/* 16 scattered pages. */
static void map_list(void)
{
	struct viommu_request batch[16] = {0};

	for (unsigned int i = 0; i < ARRAY_SIZE(batch); i++) {
		batch[i] = (struct viommu_request){
			.op = VIOMMU_MAP,
			.domain = 1,
			.first = BASE + (uint64_t)(next + i) * PAGE,
			.last = BASE + (uint64_t)(next + i + 1) * PAGE - 1,
			.gpa = 0x10000 + i * 2 * PAGE,
			.flags = RW,
		};
	}
	viommu_run(viommu, batch, ARRAY_SIZE(batch));
	for (unsigned int i = 0; i < ARRAY_SIZE(batch); i++)
		cr_assert_eq(batch[i].status, VIOMMU_OK);
	check_ceiling();
}

/* Each time at another address. */
static void list_returns(void)
{
	map_list();
	cr_assert_eq(unmap(next, 16), VIOMMU_OK);
	check_ceiling();
	next += 16;
}

static void nothing(void)
{
}

/* --- time --- */

/* One interval of the policy, and what strategies do at ticks meanwhile. */
static void interval(void (*load)(void), unsigned int ops)
{
	uint64_t end_ns = now_ns + TICK_MS * NS_PER_MS;

	for (unsigned int i = 0; i < ops; i++)
		load();
	now_ns = MAX(now_ns, end_ns);
	for (unsigned int i = 0; i < 64; i++) {
		hw_domain_tick(hw());
		check_ceiling();
	}
}

static void intervals(unsigned int n, void (*load)(void))
{
	while (n--)
		interval(load, OPS);
}

/* --- choices --- */

Test(auto_, begins_with_strict_and_stays_there_while_it_costs_little)
{
	begin("auto", 64 * MiB);
	runs("strict");
	for (unsigned int i = 0; i < 50; i++)
		interval(one_page_returns, OPS / 4);
	runs("strict");
	cr_assert_eq(chosen().decisions, 0);
	cr_assert_str_eq(decided, "");
}

Test(auto_, a_page_that_returns_at_once_is_for_deferred)
{
	begin("auto", 64 * MiB);
	intervals(8, one_page_returns);
	runs("deferred");
	cr_assert(strstr(decided, "device: chose deferred"), "%s", decided);
	cr_assert(strstr(decided, "% with strict,") && strstr(decided, "may take 5%") &&
			  strstr(decided, "the ceiling is 64M"),
		  "%s", decided);
}

Test(auto_, many_pages_that_return_are_for_cached_with_as_little_as_is_enough)
{
	begin("auto", 64 * MiB);
	intervals(12, many_pages_return);
	runs("cached,quota=4M");
	intervals(40, many_pages_return);
	runs("cached,quota=4M");
	cr_assert_gt(totals().hits, 1000);
}

Test(auto_, a_low_ceiling_is_all_of_cached)
{
	begin("auto,ceiling=1M", MiB);
	intervals(12, many_pages_return);
	runs("cached,quota=1M");
}

Test(auto_, a_ceiling_under_which_nothing_is_found_again_leaves_strict)
{
	begin("auto,ceiling=64K", 64 * KiB);
	intervals(60, many_pages_return);
	runs("strict");
}

Test(auto_, scattered_lists_that_return_are_for_batched)
{
	begin("auto", 64 * MiB);
	intervals(8, list_returns);
	runs("batched");
	intervals(4, list_returns);
	cr_assert_gt(totals().joined, 1000);
	cr_assert_eq(totals().stale_peak_bytes, 0);
}

Test(auto_, where_none_returns_strict_stays_whatever_it_costs)
{
	begin("auto", 64 * MiB);
	intervals(60, none_returns);
	runs("strict");
	cr_assert_eq(chosen().decisions, 0);
}

Test(auto_, a_higher_share_of_a_cpu_leaves_less_reachable)
{
	begin("auto,cpu=20%", 64 * MiB);
	intervals(60, many_pages_return);
	runs("strict");
}

/* --- the ceiling --- */

Test(auto_, deferred_keeps_to_a_ceiling_that_its_entries_would_exceed)
{
	begin("auto,ceiling=64K", 64 * KiB);
	intervals(8, one_page_returns);
	runs("deferred");
	for (unsigned int i = 0; i < 32; i++)
		use_page(i, 0x10000 + (uint64_t)i * PAGE);
	cr_assert_eq(totals().stale_bytes, 64 * KiB);
	cr_assert_eq(map(100, 32, 0x10000, RW), VIOMMU_OK);
	cr_assert_eq(unmap(100, 32), VIOMMU_OK);
	check_ceiling();
	cr_assert(reaches_nothing(100));
}

/* What the guest may unmap in parts is under the ceiling as a whole. */
Test(auto_, batched_joins_no_more_than_the_ceiling)
{
	begin("auto,ceiling=64K", 64 * KiB);
	intervals(8, list_returns);
	runs("batched");
	for (unsigned int i = 0; i < 2; i++) {
		uint64_t joined = totals().joined;

		map_list();
		cr_assert_eq(totals().joined - joined, i ? 0 : 16);
		next += 16;
	}
	for (unsigned int i = 0; i < 2; i++) {
		next -= 16;
		cr_assert_eq(unmap(next, 15), VIOMMU_OK);
		check_ceiling();
	}
}

/* --- changes --- */

Test(auto_, an_idle_device_goes_back_to_strict_and_leaves_nothing_stale)
{
	begin("auto", 64 * MiB);
	intervals(12, many_pages_return);
	cr_assert_gt(totals().stale_bytes, 0);
	intervals(40, nothing);
	runs("strict");
	cr_assert_eq(totals().stale_bytes, 0);
	cr_assert_eq(totals().mapped_bytes, totals().requested_bytes);
	intervals(12, many_pages_return);
	runs("cached,quota=4M");
}

Test(auto_, another_load_gets_another_strategy_within_10_s)
{
	begin("auto", 64 * MiB);
	intervals(12, list_returns);
	runs("batched");
	intervals(40, many_pages_return);
	runs("cached,quota=4M");
	intervals(40, list_returns);
	runs("batched");
	intervals(40, none_returns);
	runs("strict");
}

Test(auto_, loads_that_alternate_do_not_make_it_flap)
{
	begin("auto", 64 * MiB);
	for (unsigned int i = 0; i < 100; i++) {
		interval(many_pages_return, OPS);
		interval(none_returns, OPS);
	}
	cr_assert_leq(chosen().decisions, 2);
	for (unsigned int i = 0; i < 50; i++) {
		intervals(6, many_pages_return);
		intervals(6, nothing);
	}
	cr_assert_leq(chosen().decisions, 4);
}

/* A list that stays mapped is an area, and no other strategy can take over its table. */
Test(auto_, batched_is_left_when_its_last_area_is)
{
	begin("auto", 64 * MiB);
	intervals(12, list_returns);
	runs("batched");
	for (unsigned int i = 0; i < 2; i++) {
		cr_assert_eq(map(3000, 1, 0x20000, RW), VIOMMU_OK);
		cr_assert_eq(map(3001, 1, 0x30000, RW), VIOMMU_OK);
		if (!i)
			cr_assert_eq(unmap(3000, 2), VIOMMU_OK);
	}
	intervals(40, nothing);
	cr_assert(reaches(3000, 0x20000) && reaches(3001, 0x30000));
	cr_assert_eq(unmap(3000, 2), VIOMMU_OK);
	intervals(60, nothing);
	runs("strict");
}

Test(auto_, what_the_hardware_refuses_to_unmap_keeps_the_strategy_until_it_does)
{
	begin("auto", 64 * MiB);
	intervals(12, many_pages_return);
	fake.refuse_iova = BASE + 7 * PAGE;
	intervals(40, nothing);
	runs("cached,quota=4M");
	/* It and its neighbours of one call. */
	cr_assert(totals().stale_bytes >= PAGE && totals().stale_bytes <= 64 * PAGE);
	fake.refuse_iova = 0;
	intervals(60, nothing);
	runs("strict");
	cr_assert_eq(totals().stale_bytes, 0);
}

Test(auto_, memory_that_leaves_is_unmapped_under_whatever_it_has_chosen)
{
	begin("auto", 64 * MiB);
	intervals(12, many_pages_return);
	memory_leaves(0x10000, PAGE);
	cr_assert(reaches_nothing(0));
	cr_assert_eq(totals().stale_bytes, 0);
	intervals(4, many_pages_return);
	runs("cached,quota=4M");
}

Test(auto_, it_can_be_switched_to_and_from_while_something_is_mapped)
{
	begin("cached,quota=4M", 64 * MiB);
	cr_assert_eq(map(500, 1, 0x10000, RW), VIOMMU_OK);
	switch_to("auto,ceiling=2M");
	ceiling_bytes = 2 * MiB;
	cr_assert_str_eq(hw_domain_strategy(hw()), "auto,ceiling=2M,cpu=5%");
	intervals(12, many_pages_return);
	runs("cached,quota=2M");
	switch_to("auto,ceiling=1M");
	runs("strict");
	switch_to("batched");
	switch_to("auto");
	runs("strict");
	switch_to("strict");
	cr_assert(reaches(500, 0x10000));
	cr_assert(!hw_domain_policy(hw(), &(struct policy_view){0}));
}

/* A tick comes to nobody while no device is attached. */
Test(auto_, a_tick_that_was_lost_is_asked_for_again)
{
	begin("auto", 64 * MiB);
	one_page_returns();
	cr_assert_neq(viommu->due_ns, 0);
	viommu->due_ns = 0;
	one_page_returns();
	cr_assert_eq(viommu->due_ns, 0, "it may be late");
	now_ns += NS_PER_S;
	one_page_returns();
	cr_assert_neq(viommu->due_ns, 0);
	intervals(8, one_page_returns);
	runs("deferred");
}

/* --- parameters --- */

static void refused(const char *text, const char *message)
{
	struct strategy_choice choice;
	struct err err = ERR_INIT;

	cr_assert_eq(strategy_parse(&choice, text, &err), -EINVAL, "%s", text);
	cr_assert(strstr(err.text, message), "%s", err.text);
}

Test(auto_parameters, are_a_size_and_a_share)
{
	static const char takes[] = "it takes ceiling=4K to 16T, cpu=0% to 100%";
	struct strategy_choice choice;
	struct err err = ERR_INIT;
	char *text;

	cr_assert_eq(strategy_parse(&choice, "auto,cpu=7,ceiling=1M", &err), 0, "%s", err.text);
	text = strategy_text(&choice);
	cr_assert_str_eq(text, "auto,ceiling=1M,cpu=7%");
	free(text);
	refused("auto,ceiling=1K", takes);
	refused("auto,cpu=101%", takes);
	refused("auto,cpu=5%%", takes);
	refused("auto,cpu=%", takes);
	refused("auto,quota=1M", takes);
	refused("auto,cpu=1%,cpu=2%", "cpu is given twice");
}
