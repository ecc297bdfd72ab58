// SPDX-License-Identifier: Apache-2.0
// The strategy 'batched': lists that come again are one area, and any other request is served as in
// 'strict'; a part of a list stays reachable until the rest goes, or until a flush.
#include "retaining.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"

TestSuite(batched, .fini = stop);

enum { ROM = 8 * MiB, MOST = 160 };

/* n pages of memory from gpa on, in steps of `stride`, at neighbouring pages from `at` on. */
struct pages {
	unsigned int at, n;
	uint64_t gpa, stride;
	uint32_t flags;
};

static void map_list(struct pages p)
{
	struct viommu_request batch[MOST] = {0};

	for (unsigned int i = 0; i < p.n; i++) {
		batch[i] = (struct viommu_request){
			.op = VIOMMU_MAP,
			.domain = 1,
			.first = BASE + (uint64_t)(p.at + i) * PAGE,
			.last = BASE + (uint64_t)(p.at + i) * PAGE + PAGE - 1,
			.gpa = p.gpa + i * p.stride,
			.flags = p.flags,
		};
	}
	now_ns += 1000;
	viommu_run(viommu, batch, p.n);
	for (unsigned int i = 0; i < p.n; i++) {
		cr_assert_eq(batch[i].status, VIOMMU_OK, "page %u", i);
		cr_assert(reaches(p.at + i, p.gpa + i * p.stride), "page %u", i);
	}
}

/* The list comes and goes. */
static void use(struct pages p)
{
	map_list(p);
	cr_assert_eq(unmap(p.at, p.n), VIOMMU_OK);
	for (unsigned int i = 0; i < p.n; i++)
		cr_assert(reaches_nothing(p.at + i), "page %u", i);
}

/* 16 pages, and every second one is free. */
static const struct pages list = {.n = 16, .gpa = 0x10000, .stride = 2 * PAGE, .flags = RW};

static struct pages at(struct pages p, unsigned int page)
{
	p.at = page;
	return p;
}

Test(batched, the_second_time_a_list_is_one_area_at_any_address)
{
	start("batched");
	use(list);
	cr_assert_eq(map_calls(), 16);
	cr_assert_eq(unmap_calls(), 1);
	use(at(list, 100));
	cr_assert_eq(map_calls(), 17);
	use(list);
	use(at(list, 33));
	cr_assert_eq(map_calls(), 19);
	cr_assert_eq(unmap_calls(), 4);
	cr_assert_eq(totals().joined, 48);
	cr_assert(totals().mapped_bytes == 0 && totals().stale_peak_bytes == 0);
}

Test(batched, a_list_of_512_kib_is_one_area)
{
	struct pages p = {.n = 128, .gpa = 0x10000, .stride = 3 * PAGE, .flags = RW};

	start("batched");
	use(p);
	use(p);
	cr_assert_eq(map_calls(), 129);
}

Test(batched, a_list_is_found_among_other_requests_of_a_batch)
{
	struct viommu_request batch[20];

	start("batched");
	use(list);
	for (unsigned int i = 0; i < ARRAY_SIZE(batch); i++) {
		bool own = i >= 2 && i < 18;

		batch[i] = (struct viommu_request){
			.op = VIOMMU_MAP,
			.domain = 1,
			.first = BASE + i * PAGE,
			.last = BASE + i * PAGE + PAGE - 1,
			.gpa = own ? list.gpa + (i - 2) * list.stride : 0x100000 + i * 2 * PAGE,
			.flags = RW,
		};
	}
	viommu_run(viommu, batch, ARRAY_SIZE(batch));
	cr_assert_eq(map_calls(), 16 + 1 + 4);
	for (unsigned int i = 0; i < ARRAY_SIZE(batch); i++)
		cr_assert(reaches(i, batch[i].gpa), "page %u", i);
	cr_assert_eq(unmap(0, 20), VIOMMU_OK);
	cr_assert(reaches_nothing(0) && reaches_nothing(2) && reaches_nothing(19));
}

Test(batched, one_list_may_be_mapped_at_several_places_at_once)
{
	start("batched");
	use(list);
	map_list(list);
	map_list(at(list, 100));
	cr_assert_eq(map_calls(), 18);
	cr_assert_eq(unmap(0, 16), VIOMMU_OK);
	cr_assert(reaches_nothing(0) && reaches(100, list.gpa));
	use(list);
	cr_assert_eq(unmap(100, 16), VIOMMU_OK);
	cr_assert_eq(totals().mapped_bytes, 0);
}

Test(batched, another_page_order_or_length_is_another_list)
{
	struct pages other = list;

	start("batched");
	use(list);
	use(list);
	cr_assert_eq(totals().joined, 16);
	other.stride = 3 * PAGE;
	use(other);
	other = list;
	other.n = 15;
	use(other);
	cr_assert_eq(totals().joined, 16);
	other.n = 17;
	use(other);
	cr_assert_eq(totals().joined, 32, "it begins as a list that was seen");
	use(other);
	cr_assert_eq(totals().joined, 49);
}

Test(batched, rights_are_those_of_the_request)
{
	struct pages p = list;

	start("batched");
	use(p);
	use(p);
	p.flags = R;
	map_list(p);
	cr_assert_eq(totals().joined, 32);
	cr_assert(!reaches_for_writing(0) && !reaches_for_writing(15));
}

Test(batched, a_list_with_two_rights_is_no_list)
{
	struct viommu_request batch[2] = {
		{.op = VIOMMU_MAP, .domain = 1, .first = BASE, .gpa = 0x5000, .flags = RW},
		{.op = VIOMMU_MAP, .domain = 1, .first = BASE + PAGE, .gpa = 0x9000, .flags = R},
	};

	start("batched");
	use((struct pages){.n = 2, .gpa = 0x5000, .stride = 4 * PAGE, .flags = RW});
	for (unsigned int i = 0; i < 2; i++)
		batch[i].last = batch[i].first + PAGE - 1;
	viommu_run(viommu, batch, 2);
	cr_assert_eq(totals().joined, 0);
	cr_assert(reaches_for_writing(0) && !reaches_for_writing(1));
}

Test(batched, what_is_contiguous_or_alone_is_mapped_as_by_strict)
{
	start("batched");
	for (unsigned int i = 0; i < 3; i++) {
		use((struct pages){.n = 1, .gpa = 0x5000, .flags = RW});
		use((struct pages){.n = 8, .gpa = 0x5000, .stride = PAGE, .flags = RW});
	}
	cr_assert_eq(map_calls(), 3 * 9);
	cr_assert_eq(totals().joined, 0);
}

Test(batched, a_part_is_stale_until_the_rest_goes)
{
	start("batched");
	use(list);
	map_list(list);
	cr_assert_eq(unmap(0, 4), VIOMMU_OK);
	cr_assert_eq(unmap(8, 8), VIOMMU_OK);
	cr_assert(reaches(0, list.gpa) && reaches(15, list.gpa + 15 * list.stride));
	cr_assert_eq(totals().stale_bytes, 12 * PAGE);
	cr_assert_eq(totals().requested_bytes, 4 * PAGE);
	cr_assert_eq(unmap(4, 4), VIOMMU_OK);
	for (unsigned int i = 0; i < 16; i++)
		cr_assert(reaches_nothing(i));
	cr_assert_eq(totals().stale_bytes, 0);
	cr_assert_eq(viommu_find_domain(viommu, 1)->table.count, 0);
}

Test(batched, after_a_part_lists_are_not_joined_any_more)
{
	start("batched");
	use(list);
	map_list(list);
	cr_assert_eq(unmap(0, 4), VIOMMU_OK);
	cr_assert_eq(unmap(4, 12), VIOMMU_OK);
	use(list);
	use(list);
	cr_assert_eq(totals().joined, 16);
}

Test(batched, a_part_can_be_mapped_again)
{
	start("batched");
	use(list);
	map_list(list);
	cr_assert_eq(unmap(3, 1), VIOMMU_OK);
	cr_assert_eq(map(3, 1, list.gpa + 3 * list.stride, RW), VIOMMU_OK);
	cr_assert_eq(totals().stale_bytes, 0);
	cr_assert_eq(unmap(0, 3), VIOMMU_OK);
	cr_assert_eq(unmap(4, 12), VIOMMU_OK);
	cr_assert(reaches(3, list.gpa + 3 * list.stride) && reaches(0, list.gpa));
	cr_assert_eq(unmap(3, 1), VIOMMU_OK);
	cr_assert(reaches_nothing(0) && reaches_nothing(3));
}

Test(batched, other_memory_in_the_place_of_a_part_ends_the_area)
{
	start("batched");
	use(list);
	map_list(list);
	cr_assert_eq(unmap(3, 2), VIOMMU_OK);
	cr_assert_eq(map(3, 1, 0x200000, RW), VIOMMU_OK);
	cr_assert(reaches(2, list.gpa + 2 * list.stride) && reaches(3, 0x200000));
	cr_assert(reaches_nothing(4), "what was stale beside it");
	for (unsigned int i = 5; i < 16; i++)
		cr_assert(reaches(i, list.gpa + i * list.stride));
	cr_assert_eq(totals().stale_bytes, 0);
	cr_assert_eq(unmap(0, 16), VIOMMU_OK);
	cr_assert_eq(totals().mapped_bytes, 0);
}

Test(batched, one_unmap_may_cut_two_lists)
{
	start("batched");
	use(list);
	map_list(list);
	map_list(at(list, 17));
	cr_assert_eq(map(16, 1, 0x200000, RW), VIOMMU_OK);
	cr_assert_eq(unmap(8, 16), VIOMMU_OK);
	cr_assert(reaches(0, list.gpa) && reaches_nothing(16));
	cr_assert(reaches(32, list.gpa + 15 * list.stride));
	cr_assert_eq(totals().stale_bytes, 15 * PAGE);
	cr_assert_eq(unmap(0, 8), VIOMMU_OK);
	cr_assert(reaches_nothing(8) && reaches(17, list.gpa));
	cr_assert_eq(unmap(24, 9), VIOMMU_OK);
	cr_assert(reaches_nothing(17));
}

Test(batched, a_list_that_one_batch_unmaps_in_halves_leaves_nothing_stale)
{
	struct viommu_request batch[2] = {
		{.op = VIOMMU_UNMAP, .domain = 1, .first = BASE, .last = BASE + 8 * PAGE - 1},
		{.op = VIOMMU_UNMAP,
		 .domain = 1,
		 .first = BASE + 8 * PAGE,
		 .last = BASE + 16 * PAGE - 1},
	};

	start("batched");
	use(list);
	map_list(list);
	viommu_run(viommu, batch, 2);
	cr_assert(batch[0].status == VIOMMU_OK && batch[1].status == VIOMMU_OK);
	cr_assert(reaches_nothing(0) && reaches_nothing(15));
	cr_assert_eq(totals().stale_peak_bytes, 0);
	use(list);
	cr_assert_eq(totals().joined, 32);
}

Test(batched, memory_that_leaves_takes_no_list_with_it_but_its_own)
{
	struct pages rom = {.n = 4, .gpa = ROM, .stride = 2 * PAGE, .flags = R};

	start("batched");
	use(list);
	use(rom);
	map_list(list);
	map_list(at(rom, 100));
	cr_assert_eq(totals().joined, 20);
	rom_leaves();
	cr_assert(reaches_nothing(100) && reaches_nothing(103) && reaches(0, list.gpa));
	rom_returns();
	use(at(rom, 100));
	cr_assert_eq(totals().joined, 20, "it is a new list");
	use(at(rom, 100));
	cr_assert_eq(totals().joined, 24);
}

Test(batched, memory_that_leaves_from_the_middle_of_a_list_is_unreachable_at_once)
{
	start("batched");
	use(list);
	map_list(list);
	memory_leaves(list.gpa + 5 * list.stride, PAGE);
	cr_assert(reaches_nothing(5));
	cr_assert(reaches(4, list.gpa + 4 * list.stride) &&
		  reaches(15, list.gpa + 15 * list.stride));
	cr_assert_eq(totals().stale_bytes, 0);
}

Test(batched, a_switch_takes_over_what_is_mapped_and_back)
{
	start("strict");
	map_list(list);
	switch_to("batched");
	cr_assert(reaches(0, list.gpa) && reaches(15, list.gpa + 15 * list.stride));
	cr_assert_eq(unmap(0, 16), VIOMMU_OK);
	map_list(list);
	cr_assert_eq(totals().joined, 16);
	switch_to("strict");
	cr_assert(reaches(0, list.gpa) && reaches(15, list.gpa + 15 * list.stride));
	cr_assert_eq(unmap(3, 1), VIOMMU_OK);
	cr_assert(reaches_nothing(3) && reaches(4, list.gpa + 4 * list.stride));
	switch_to("batched");
	cr_assert_eq(unmap(0, 16), VIOMMU_OK);
	cr_assert_eq(totals().mapped_bytes, 0);
}

Test(batched, the_hardware_may_refuse)
{
	start("batched");
	use(list);
	map_list(list);
	fake.refuse_iova = BASE + 7 * PAGE;
	cr_assert_eq(unmap(0, 16), VIOMMU_DEVERR);
	cr_assert(reaches(0, list.gpa) && reaches(15, list.gpa + 15 * list.stride));
	cr_assert_eq(unmap(0, 8), VIOMMU_OK, "a part is only retained");
	cr_assert_neq(hw_domain_flush(hw(), 0, UINT64_MAX), 0);
	cr_assert_eq(totals().stale_bytes, 8 * PAGE);
	fake.refuse_iova = 0;
	cr_assert_eq(hw_domain_flush(hw(), 0, UINT64_MAX), 0);
	cr_assert(reaches_nothing(7) && reaches(8, list.gpa + 8 * list.stride));
}

Test(batched, memory_that_is_anonymous_is_refused_with_the_remedy)
{
	const struct gmem_region_config region = {.name = "ram",
						  .size_bytes = MiB,
						  .backing = GMEM_ANONYMOUS,
						  .numa_node = -1,
						  .fd = -1};
	struct strategy_choice choice;
	struct gmem *gmem;
	struct err err = ERR_INIT;

	start("strict");
	cr_assert_eq(gmem_create(&gmem, NULL, &err), 0);
	cr_assert_eq(gmem_begin(gmem, &err), 0);
	cr_assert_eq(gmem_add(gmem, &region, &err), 0);
	cr_assert_eq(gmem_commit(gmem, &err), 0);
	cr_assert_eq(strategy_choose(&choice, "batched", gmem, &err), -EOPNOTSUPP);
	cr_assert_not_null(strstr(err.text, "'ram' is anonymous"), "%s", err.text);
	cr_assert_not_null(strstr(err.text, "memory.backing=memfd"), "%s", err.text);
	gmem_destroy(gmem);
}

/* --- any sequence --- */

enum { PAGES = 48, LISTS = 6 };

/* What the guest wants of each page; flags is 0: nothing. */
static struct {
	uint64_t gpa;
	uint32_t flags;
} wanted[PAGES];

static unsigned int below(unsigned int n)
{
	return (unsigned int)(random() % n);
}

static void compare(unsigned int step)
{
	struct ledger_totals t = totals();
	uint64_t stale = 0, bytes = 0;

	for (unsigned int i = 0; i < PAGES; i++) {
		bytes += wanted[i].flags ? PAGE : 0;
		if (!wanted[i].flags) {
			stale += reaches_nothing(i) ? 0 : PAGE;
			continue;
		}
		cr_assert(reaches(i, wanted[i].gpa), "step %u, page %u", step, i);
		cr_assert_eq(reaches_for_writing(i), (wanted[i].flags & VIOMMU_F_WRITE) != 0,
			     "step %u, page %u", step, i);
	}
	cr_assert(t.requested_bytes == bytes && t.stale_bytes == stale &&
			  t.mapped_bytes == bytes + stale,
		  "step %u", step);
	cr_assert_eq(viommu_find_domain(viommu, 1)->table.bytes, bytes + stale, "step %u", step);
}

/* One of a few lists, at a place that is free. False: there is none. */
static bool some_list(struct pages *p)
{
	unsigned int which = below(LISTS);

	p->n = 2 + which;
	p->gpa = 0x10000 + which * 0x20000;
	p->stride = (2 + which % 2) * PAGE;
	p->flags = below(4) ? RW : R;
	p->at = below(PAGES - p->n);
	for (unsigned int i = 0; i < p->n; i++) {
		if (wanted[p->at + i].flags)
			return false;
	}
	return true;
}

static void any_map(void)
{
	struct pages p;

	if (!some_list(&p))
		return;
	map_list(p);
	for (unsigned int i = 0; i < p.n; i++) {
		wanted[p.at + i].gpa = p.gpa + i * p.stride;
		wanted[p.at + i].flags = p.flags;
	}
}

/* All of a run of what is wanted, or a part of it. */
static void any_unmap(bool parts)
{
	unsigned int first = below(PAGES), n;

	while (first && wanted[first - 1].flags && !(parts && !below(20)))
		first--;
	for (n = 1; first + n < PAGES && wanted[first + n].flags && !(parts && !below(20));)
		n++;
	cr_assert_eq(unmap(first, n), VIOMMU_OK);
	for (unsigned int i = first; i < first + n; i++)
		wanted[i].flags = 0;
}

static void rare_step(void)
{
	uint64_t gpa = 0x10000 + below(LISTS) * 0x20000;

	switch (below(3)) {
	case 0:
		memory_leaves(gpa, PAGE);
		for (unsigned int i = 0; i < PAGES; i++)
			wanted[i].flags = wanted[i].gpa == gpa ? 0 : wanted[i].flags;
		break;
	case 1:
		switch_to("strict");
		compare(0);
		switch_to("batched");
		break;
	default:
		cr_assert_eq(hw_domain_flush(hw(), 0, UINT64_MAX), 0);
		cr_assert_eq(totals().stale_bytes, 0);
	}
}

Test(batched, after_any_sequence_the_hardware_reaches_what_is_wanted_and_what_is_counted_as_stale)
{
	uint64_t joined = 0, stale = 0;

	for (unsigned int seed = 1; seed <= 20; seed++) {
		srandom(seed);
		memset(wanted, 0, sizeof(wanted));
		start("batched");
		for (unsigned int step = 1; step <= 300; step++) {
			if (!below(60))
				rare_step();
			else if (below(2))
				any_map();
			else
				any_unmap(seed % 2);
			compare(step);
			joined = MAX(joined, totals().joined);
			stale = MAX(stale, totals().stale_peak_bytes);
		}
		if (seed < 20)
			stop();
	}
	cr_assert(joined > 100 && stale);
}
