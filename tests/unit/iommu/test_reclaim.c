// SPDX-License-Identifier: Apache-2.0
// Memory that the guest gives up and takes back, beside hardware: what devices reach, what is
// pinned, and what the host has back, page by page and by granules.
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "base/num.h"
#include "core/reclaim.h"
#include "guest_ram.h"
#include "retaining.h"

#define GRANULE RECLAIM_MAX_GRANULE

/* --- all of memory is mapped: no virtual IOMMU --- */

enum { GRANULES = 8, GRANULE_PAGES = RECLAIM_MAX_GRANULE / PAGE };

static struct gmem *gmem;
static const struct log silent;
static struct iommu *iommu;
static struct hw_domain *domain;
static struct iommu_endpoint *device;
static struct reclaim *reclaim;
static struct err err;

static void set_up_with(uint64_t granule)
{
	const struct iommu_endpoint_config endpoint = {.name = "dev", .fd = -1};
	struct hw_domain_config config = {.name = "a", .strategy = "direct", .log = &silent};

	cr_assert_eq(fake_iommu_create(&iommu, &silent, &err), 0);
	cr_assert_eq(gmem_create(&gmem, NULL, &err), 0);
	guest_ram_add(gmem, "low", 0, GRANULES * GRANULE, 0);
	cr_assert_eq(reclaim_enable(gmem, granule, &err), 0);
	reclaim = gmem_reclaim(gmem);
	config.iommu = iommu;
	config.gmem = gmem;
	cr_assert_eq(hw_domain_create(&domain, &config, &err), 0, "%s", err.text);
	cr_assert_eq(iommu_endpoint_create(&device, iommu, &endpoint, &err), 0);
	cr_assert_eq(hw_domain_attach(domain, device, &err), 0, "%s", err.text);
}

static void set_up(void)
{
	set_up_with(GRANULE);
}

static void tear_down(void)
{
	fake = (struct fake_iommu){0};
	hw_domain_detach(domain, device);
	iommu_endpoint_destroy(device);
	hw_domain_destroy(domain);
	gmem_destroy(gmem);
	iommu_destroy(iommu);
}

TestSuite(reclaim_all, .init = set_up, .fini = tear_down);

static bool device_reaches(uint64_t gpa)
{
	uint64_t bytes;
	void *hva;

	if (fake_translate(hw_domain_ioas(domain), gpa, IOAS_READ | IOAS_WRITE, &hva, &bytes))
		return false;
	cr_assert_eq(hva, gmem_host(gmem, gpa, 1, true));
	return true;
}

static uint64_t mapped(void)
{
	struct ledger_totals t;

	ioas_totals(hw_domain_ioas(domain), &t);
	return t.mapped_bytes;
}

static uint64_t out(void)
{
	struct reclaim_totals t;

	reclaim_totals(reclaim, &t);
	return t.out_bytes;
}

static uint64_t given(void)
{
	struct reclaim_totals t;

	reclaim_totals(reclaim, &t);
	return t.given_bytes;
}

static uint8_t *byte(uint64_t gpa)
{
	return gmem_host(gmem, gpa, 1, true);
}

Test(reclaim_all, a_granule_leaves_when_its_last_page_is_given_and_is_mapped_before_one_returns)
{
	*byte(GRANULE) = 1;
	cr_assert_eq(reclaim_give(reclaim, GRANULE, GRANULE - PAGE), 0);
	cr_assert(device_reaches(GRANULE));
	cr_assert_eq(*byte(GRANULE), 1, "what a device reaches stays");
	cr_assert_eq(out(), 0);
	cr_assert_eq(reclaim_give(reclaim, 2 * GRANULE - PAGE, PAGE), 0);
	cr_assert_not(device_reaches(GRANULE) || device_reaches(2 * GRANULE - 1));
	cr_assert(device_reaches(GRANULE - 1) && device_reaches(2 * GRANULE));
	cr_assert_eq(*byte(GRANULE), 0);
	cr_assert_eq(out(), GRANULE);
	cr_assert_eq(mapped(), (GRANULES - 1) * GRANULE);
	cr_assert_eq(reclaim_take(reclaim, GRANULE + 5 * PAGE, PAGE), 0);
	cr_assert(device_reaches(GRANULE) && device_reaches(2 * GRANULE - 1));
	cr_assert_eq(out(), 0);
	cr_assert_eq(given(), GRANULE - PAGE);
}

Test(reclaim_all, memory_that_cannot_be_mapped_stays_given_until_it_can)
{
	fake.areas = GRANULES;
	cr_assert_eq(reclaim_give(reclaim, 0, GRANULE), 0);
	fake.areas = GRANULES - 1;
	cr_assert_eq(reclaim_take(reclaim, 0, PAGE), -ENOSPC);
	cr_assert_eq(given(), GRANULE);
	cr_assert_not(device_reaches(0));
	fake.areas = 0;
	cr_assert_eq(reclaim_take(reclaim, 0, PAGE), 0);
	cr_assert(device_reaches(0));
}

Test(reclaim_all, a_device_that_is_detached_is_waited_for_no_more)
{
	cr_assert_eq(reclaim_give(reclaim, 0, GRANULE), 0);
	fake.areas = GRANULES - 1;
	cr_assert_neq(reclaim_take(reclaim, 0, PAGE), 0);
	hw_domain_detach(domain, device);
	cr_assert_eq(reclaim_take(reclaim, 0, PAGE), 0);
}

Test(reclaim_all, what_the_hardware_refuses_to_unmap_is_not_discarded)
{
	*byte(GRANULE) = 7;
	fake.refuse_iova = GRANULE;
	cr_assert_neq(reclaim_give(reclaim, GRANULE, GRANULE), 0);
	cr_assert_eq(*byte(GRANULE), 7);
	cr_assert_eq(given(), 0);
	cr_assert(device_reaches(GRANULE));
	fake.refuse_iova = 0;
	cr_assert_eq(reclaim_give(reclaim, GRANULE, GRANULE), 0);
	cr_assert_not(device_reaches(GRANULE));
}

Test(reclaim_all, a_device_that_comes_reaches_nothing_of_what_is_out)
{
	hw_domain_detach(domain, device);
	*byte(3 * GRANULE) = *byte(4 * GRANULE) = 1;
	cr_assert_eq(reclaim_give(reclaim, 3 * GRANULE, GRANULE + PAGE), 0);
	cr_assert_eq(*byte(3 * GRANULE) + *byte(4 * GRANULE), 0, "without hardware, at once");
	cr_assert_eq(out(), GRANULE + PAGE);
	cr_assert_eq(hw_domain_attach(domain, device, &err), 0);
	cr_assert_not(device_reaches(3 * GRANULE));
	cr_assert(device_reaches(4 * GRANULE));
	cr_assert_eq(reclaim_take(reclaim, 3 * GRANULE, PAGE), 0);
	cr_assert(device_reaches(3 * GRANULE));
}

Test(reclaim_all, reported_pages_stay)
{
	*byte(0) = 1;
	cr_assert_eq(reclaim_report(reclaim, 0, GRANULE), -EBUSY);
	cr_assert_eq(*byte(0), 1);
	hw_domain_detach(domain, device);
	cr_assert_eq(reclaim_report(reclaim, 0, GRANULE), 0);
	cr_assert_eq(*byte(0), 0);
	cr_assert_eq(given(), 0);
}

Test(reclaim_all, all_is_taken_back_a_granule_at_a_time)
{
	uint64_t gpa = 0;
	unsigned int n = 0;

	cr_assert_eq(reclaim_give(reclaim, PAGE, PAGE), 0);
	cr_assert_eq(reclaim_give(reclaim, 2 * GRANULE, 3 * GRANULE), 0);
	while (reclaim_take_next(reclaim, &gpa) > 0)
		n++;
	cr_assert_eq(n, 4);
	cr_assert_eq(given() + out(), 0);
	cr_assert_eq(mapped(), GRANULES * GRANULE);
	gpa = 0;
	cr_assert_eq(reclaim_take_next(reclaim, &gpa), 0);
}

/* Any sequence, against a bit per page. */
static bool model[GRANULES * GRANULE_PAGES];
static unsigned int state;

static unsigned int random_below(unsigned int n)
{
	state = state * 1103515245u + 12345u;
	return (state >> 8) % n;
}

static bool model_is_out(unsigned int first, unsigned int pages)
{
	for (unsigned int i = 0; i < pages; i++) {
		if (!model[first + i])
			return false;
	}
	return true;
}

static void check_model(unsigned int granule_pages)
{
	uint64_t pages = 0, gone = 0;

	for (unsigned int i = 0; i < ARRAY_SIZE(model); i++)
		pages += model[i];
	for (unsigned int i = 0; i < ARRAY_SIZE(model); i += granule_pages) {
		bool is_out = model_is_out(i, granule_pages);

		gone += is_out ? granule_pages : 0;
		cr_assert_eq(device_reaches((i + random_below(granule_pages)) * (uint64_t)PAGE),
			     !is_out);
	}
	cr_assert_eq(given(), pages * PAGE);
	cr_assert_eq(out(), gone * PAGE);
	cr_assert_eq(mapped(), (ARRAY_SIZE(model) - gone) * PAGE);
}

static void give_or_take(unsigned int granule_pages)
{
	unsigned int first = random_below(ARRAY_SIZE(model));
	unsigned int n = 1 + random_below(3 * GRANULE_PAGES);
	uint64_t gpa, bytes;
	bool give = random_below(3) != 0;

	/* At boundaries of granules more often than not. */
	if (random_below(2))
		first = first / granule_pages * granule_pages;
	n = MIN(n, (unsigned int)ARRAY_SIZE(model) - first);
	gpa = first * (uint64_t)PAGE;
	bytes = n * (uint64_t)PAGE;
	cr_assert_eq(give ? reclaim_give(reclaim, gpa, bytes) : reclaim_take(reclaim, gpa, bytes),
		     0);
	for (unsigned int i = 0; i < n; i++)
		model[first + i] = give;
}

static void try_any_sequence(unsigned int granule_pages)
{
	for (unsigned int seed = 0; seed < 4; seed++) {
		state = seed;
		memset(model, 0, sizeof(model));
		for (unsigned int step = 0; step < 500; step++) {
			give_or_take(granule_pages);
			check_model(granule_pages);
		}
		for (uint64_t gpa = 0; reclaim_take_next(reclaim, &gpa) > 0;)
			;
		memset(model, 0, sizeof(model));
		check_model(granule_pages);
	}
}

Test(reclaim_all, any_sequence_leaves_devices_exactly_what_is_not_out)
{
	try_any_sequence(GRANULE_PAGES);
}

/* Memory that came later can be given up too, and when it leaves nothing of it is. */
Test(reclaim_all, memory_that_comes_is_covered_and_what_leaves_is_forgotten)
{
	struct gmem *other;
	struct reclaim *r;
	struct reclaim_totals t;

	cr_assert_eq(gmem_create(&other, NULL, &err), 0);
	guest_ram_add(other, "low", 0, GRANULE, 0);
	gmem_expect(other, 16 * GRANULE);
	cr_assert_eq(reclaim_enable(other, GRANULE, &err), 0);
	r = gmem_reclaim(other);
	cr_assert_eq(reclaim_give(r, 8 * GRANULE, GRANULE), -EFAULT, "nothing is there");
	guest_ram_add(other, "unit", 8 * GRANULE, 2 * GRANULE, 0);
	cr_assert_eq(reclaim_give(r, 0, PAGE), 0);
	cr_assert_eq(reclaim_give(r, 8 * GRANULE, GRANULE + 3 * PAGE), 0);
	cr_assert(reclaim_is_out(r, 8 * GRANULE));
	cr_assert_eq(gmem_begin(other, &err), 0);
	cr_assert_eq(gmem_remove(other, 8 * GRANULE, &err), 0);
	cr_assert_eq(gmem_commit(other, &err), 0);
	reclaim_forget(r, 8 * GRANULE, 2 * GRANULE);
	reclaim_totals(r, &t);
	cr_assert_eq(t.given_bytes, PAGE);
	cr_assert_not(reclaim_has(r, 8 * GRANULE, 2 * GRANULE));
	guest_ram_add(other, "unit", 8 * GRANULE, 2 * GRANULE, 0);
	cr_assert_not(reclaim_is_out(r, 8 * GRANULE));
	cr_assert_eq(reclaim_give(r, 8 * GRANULE, GRANULE), 0);
	cr_assert(reclaim_is_out(r, 8 * GRANULE));
	reclaim_forget(r, 14 * GRANULE, 8 * GRANULE);
	reclaim_forget(NULL, 0, GRANULE);
	gmem_destroy(other);
}

/* A unit of memory of which granules are out comes and goes with a device that has all of it. */
Test(reclaim_all, a_device_follows_memory_that_comes_and_goes)
{
	uint64_t at = GRANULES * GRANULE;

	guest_ram_add(gmem, "unit", at, 2 * GRANULE, 0);
	cr_assert(device_reaches(at) && device_reaches(at + 2 * GRANULE - 1));
	cr_assert_eq(gmem_begin(gmem, &err), 0);
	cr_assert_eq(gmem_remove(gmem, at, &err), 0);
	cr_assert_eq(gmem_commit(gmem, &err), 0);
	cr_assert_not(device_reaches(at));
	cr_assert_eq(mapped(), GRANULES * GRANULE);
}

Test(reclaim_all, memory_that_a_device_cannot_have_does_not_come)
{
	const struct gmem_region_config unit = {.name = "unit",
						.gpa = GRANULES * GRANULE,
						.size_bytes = 2 * GRANULE,
						.backing = GMEM_ANONYMOUS,
						.numa_node = -1,
						.fd = -1};

	fake.areas = GRANULES + 1;
	cr_assert_eq(gmem_begin(gmem, &err), 0);
	cr_assert_eq(gmem_add(gmem, &unit, &err), 0);
	cr_assert_eq(gmem_commit(gmem, &err), -ENOSPC);
	cr_assert_not_null(strstr(err.text, "a: memory 'unit'"), "%s", err.text);
	cr_assert_eq(gmem_ram_bytes(gmem), GRANULES * GRANULE);
	cr_assert_not(device_reaches(unit.gpa));
	cr_assert_eq(mapped(), GRANULES * GRANULE);
	fake.areas = 0;
	guest_ram_add(gmem, "unit", unit.gpa, unit.size_bytes, 0);
	cr_assert(device_reaches(unit.gpa + GRANULE));
}

/* --- smaller granules --- */

TestSuite(reclaim_granule, .fini = tear_down);

Test(reclaim_granule, any_sequence_leaves_exactly_what_is_not_out_whatever_the_granule)
{
	for (uint64_t granule = RECLAIM_MIN_GRANULE; granule < GRANULE; granule *= 2) {
		set_up_with(granule);
		cr_assert_eq(reclaim_granule_bytes(reclaim), granule);
		try_any_sequence((unsigned int)(granule / PAGE));
		if (granule < GRANULE / 2)
			tear_down();
	}
}

Test(reclaim_granule, each_is_an_area_and_one_page_that_is_kept_costs_no_more_than_one)
{
	set_up_with(RECLAIM_MIN_GRANULE);
	fake.areas = GRANULES * GRANULE / RECLAIM_MIN_GRANULE;
	cr_assert_eq(reclaim_give(reclaim, PAGE, GRANULE - PAGE), 0);
	cr_assert_eq(out(), GRANULE - RECLAIM_MIN_GRANULE);
	cr_assert(device_reaches(0) && !device_reaches(RECLAIM_MIN_GRANULE));
	cr_assert_eq(reclaim_take(reclaim, GRANULE - PAGE, PAGE), 0);
	cr_assert_eq(out(), GRANULE - 2 * RECLAIM_MIN_GRANULE);
}

Test(reclaim_granule, it_stays_what_it_was_first)
{
	set_up_with(RECLAIM_MIN_GRANULE);
	cr_assert_eq(reclaim_enable(gmem, GRANULE, &err), -EBUSY);
	cr_assert(strstr(err.text, "granules of 256 KiB"), "%s", err.text);
	cr_assert_eq(reclaim_enable(gmem, RECLAIM_MIN_GRANULE, &err), 0);
}

Test(reclaim_granule, is_no_part_of_a_huge_page)
{
	const struct gmem_region_config huge = {
		.name = "huge",
		.gpa = GRANULES * GRANULE,
		.size_bytes = GRANULE,
		.backing = GMEM_ANONYMOUS,
		.numa_node = -1,
		.fd = -1,
	};
	struct gmem *other;

	set_up_with(GRANULE);
	cr_assert_eq(gmem_create(&other, NULL, &err), 0);
	cr_assert_eq(gmem_begin(other, &err), 0);
	cr_assert_eq(gmem_add(other, &huge, &err), 0);
	cr_assert_eq(gmem_commit(other, &err), 0);
	cr_assert_eq(reclaim_enable(other, GRANULE / 2, &err), -EBUSY);
	cr_assert(strstr(err.text, "use a granule of 2048 KiB"), "%s", err.text);
	cr_assert_eq(reclaim_enable(other, GRANULE, &err), 0);
	gmem_destroy(other);
}

/* --- a virtual IOMMU --- */

TestSuite(reclaim_viommu, .fini = stop);

static void start_strict(void)
{
	start("strict");
	cr_assert_eq(reclaim_enable(viommu->gmem, GRANULE, &err), 0, "%s", err.text);
}

Test(reclaim_viommu, a_page_that_the_guest_has_mapped_leaves_the_hardware_first)
{
	start_strict();
	cr_assert_eq(map(0, 2, 0x5000, RW), VIOMMU_OK);
	cr_assert_eq(map(4, 1, 0x9000, RW), VIOMMU_OK);
	*(char *)gmem_host(viommu->gmem, 0x6000, 1, true) = 1;
	cr_assert_eq(reclaim_give(gmem_reclaim(viommu->gmem), 0x6000, PAGE), 0);
	cr_assert(reaches_nothing(0) && reaches_nothing(1) && reaches(4, 0x9000));
	cr_assert_eq(*(char *)gmem_host(viommu->gmem, 0x6000, 1, true), 0);
}

Test(reclaim_viommu, a_page_that_is_given_cannot_be_mapped_until_it_is_taken_back)
{
	start_strict();
	cr_assert_eq(reclaim_give(gmem_reclaim(viommu->gmem), 0x6000, PAGE), 0);
	cr_assert_eq(map(0, 1, 0x6000, RW), VIOMMU_RANGE);
	cr_assert_eq(map(0, 4, 0x4000, R), VIOMMU_RANGE);
	cr_assert(reaches_nothing(0));
	cr_assert_eq(map(0, 1, 0x7000, RW), VIOMMU_OK);
	cr_assert_eq(reclaim_take(gmem_reclaim(viommu->gmem), 0x6000, PAGE), 0);
	cr_assert_eq(map(1, 1, 0x6000, RW), VIOMMU_OK);
	cr_assert(reaches(1, 0x6000));
}

Test(reclaim_viommu, a_reported_page_leaves_and_can_be_mapped_again)
{
	start_strict();
	cr_assert_eq(map(0, 1, 0x5000, RW), VIOMMU_OK);
	cr_assert_eq(reclaim_report(gmem_reclaim(viommu->gmem), 0x5000, PAGE), 0);
	cr_assert(reaches_nothing(0));
	cr_assert_eq(map(0, 1, 0x5000, RW), VIOMMU_OK);
	cr_assert(reaches(0, 0x5000));
}

Test(reclaim_viommu, the_stage_has_no_granule_with_a_given_page)
{
	struct ledger_totals t;

	start_strict();
	switch_to("staged,quota=4M");
	cr_assert_eq(map(0, 1, 0x5000, RW), VIOMMU_OK);
	cr_assert_eq(reclaim_give(gmem_reclaim(viommu->gmem), 0x9000, PAGE), 0);
	cr_assert_eq(unmap(0, 1), VIOMMU_OK);
	hw_domain_totals(hw(), &t);
	cr_assert_eq(t.pinned_bytes, 0);
	cr_assert_eq(map(0, 1, 0x5000, RW), VIOMMU_OK);
	hw_domain_totals(hw(), &t);
	cr_assert_eq(t.pinned_bytes, PAGE, "as in strict");
}

Test(reclaim_viommu, memory_leaves_a_stage_that_has_all_of_it_by_granules)
{
	struct reclaim *r;
	struct ledger_totals t;

	start_strict();
	r = gmem_reclaim(viommu->gmem);
	switch_to("staged");
	cr_assert_eq(reclaim_give(r, 0, GRANULE - PAGE), 0);
	hw_domain_totals(hw(), &t);
	cr_assert_eq(t.pinned_bytes, 5 * MiB);
	cr_assert_eq(reclaim_give(r, GRANULE - PAGE, PAGE), 0);
	hw_domain_totals(hw(), &t);
	cr_assert_eq(t.pinned_bytes, 3 * MiB);
	cr_assert_eq(reclaim_report(r, GRANULE, PAGE), -EBUSY);
	cr_assert_eq(reclaim_take(r, 0x5000, PAGE), 0);
	cr_assert_eq(map(0, 1, 0x5000, RW), VIOMMU_OK);
	cr_assert(reaches(0, 0x5000));
	hw_domain_totals(hw(), &t);
	cr_assert_eq(t.pinned_bytes, 5 * MiB);
}

Test(reclaim_viommu, it_cannot_begin_where_memory_is_mapped_as_a_whole)
{
	start("staged");
	cr_assert_eq(reclaim_enable(viommu->gmem, GRANULE, &err), -EBUSY);
	cr_assert_null(gmem_reclaim(viommu->gmem));
	switch_to("strict");
	cr_assert_eq(reclaim_enable(viommu->gmem, GRANULE, &err), 0);
}

Test(reclaim_viommu, from_the_attach_to_all_of_memory_on_nothing_reported_is_discarded)
{
	struct reclaim *r;
	char *content;

	start_strict();
	r = gmem_reclaim(viommu->gmem);
	content = gmem_host(viommu->gmem, GRANULE, 1, true);
	*content = 1;
	cr_assert_eq(reclaim_give(r, 0, GRANULE), 0);
	viommu_set_bypass(viommu, true);
	cr_assert_eq(reclaim_report(r, GRANULE, PAGE), -EBUSY);
	cr_assert_eq(*content, 1);
	viommu_set_bypass(viommu, false);
	cr_assert_eq(reclaim_report(r, GRANULE, PAGE), 0);
	cr_assert_eq(*content, 0);
}
