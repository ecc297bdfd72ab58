// SPDX-License-Identifier: Apache-2.0
// The virtual IOMMU: the status of each request, and what devices reach afterwards. For any
// sequence of requests see tests/fuzz/targets/fuzz_viommu.c.
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "fake_iommu.h"
#include "core/dma.h"
#include "guest_ram.h"
#include "iommu/viommu_impl.h"

enum { A = 8, B = 16, ROM_GPA = 8 * MiB };

static const struct log silent;
static struct gmem *gmem;
static struct viommu *viommu;
static struct viommu_endpoint *a, *b;
static struct dma_space *space_a, *space_b;
static struct err err;
static uint32_t id_a = A, id_b = B;
static struct viommu_fault last_fault;
static char last_history[200];
static unsigned int faults;

static void add(const char *name, uint64_t gpa, uint64_t size, unsigned int flags)
{
	guest_ram_add(gmem, name, gpa, size, flags);
}

static uint32_t id(void *opaque)
{
	return *(uint32_t *)opaque;
}

static void on_fault(void *opaque, const struct viommu_fault *fault)
{
	(void)opaque;
	last_fault = *fault;
	snprintf(last_history, sizeof(last_history), "%s", fault->history);
	faults++;
}

static void setup(void)
{
	struct viommu_config config = {.log = &silent, .fault = on_fault};

	cr_assert_eq(gmem_create(&gmem, NULL, &err), 0);
	add("low", 0, 4 * MiB, 0);
	add("rom", ROM_GPA, 1 * MiB, GMEM_READONLY);
	config.gmem = gmem;
	cr_assert_eq(viommu_create(&viommu, &config, &err), 0);
	cr_assert_eq(viommu_add_emulated(&a, viommu, "a", &space_a, &err), 0);
	cr_assert_eq(viommu_add_emulated(&b, viommu, "b", &space_b, &err), 0);
	viommu_set_id(a, id, &id_a);
	viommu_set_id(b, id, &id_b);
}

static void teardown(void)
{
	viommu_remove(a);
	viommu_remove(b);
	viommu_destroy(viommu);
	gmem_destroy(gmem);
}

TestSuite(viommu, .init = setup, .fini = teardown);

static int run(struct viommu_request r)
{
	viommu_run(viommu, &r, 1);
	return (int)r.status;
}

static int attach(uint32_t domain, uint32_t endpoint)
{
	return run((struct viommu_request){
		.op = VIOMMU_ATTACH, .domain = domain, .endpoint = endpoint});
}

static int detach(uint32_t domain, uint32_t endpoint)
{
	return run((struct viommu_request){
		.op = VIOMMU_DETACH, .domain = domain, .endpoint = endpoint});
}

static int map(uint32_t domain, uint64_t first, uint64_t last, uint64_t gpa, uint32_t flags)
{
	return run((struct viommu_request){.op = VIOMMU_MAP,
					   .domain = domain,
					   .first = first,
					   .last = last,
					   .gpa = gpa,
					   .flags = flags});
}

static int unmap(uint32_t domain, uint64_t first, uint64_t last)
{
	return run((struct viommu_request){
		.op = VIOMMU_UNMAP, .domain = domain, .first = first, .last = last});
}

/* The gpa that the endpoint reaches at this iova; UINT64_MAX: none. */
static uint64_t reach(struct viommu_endpoint *e, uint64_t iova, enum dma_dir dir)
{
	uint64_t gpa, bytes;

	return viommu_translate(e, iova, 1, dir, &gpa, &bytes) ? UINT64_MAX : gpa;
}

enum { RW = VIOMMU_F_READ | VIOMMU_F_WRITE };

Test(viommu, without_a_domain_and_bypass_nothing_is_reached)
{
	cr_assert_eq(reach(a, 0x1000, DMA_TO_DEVICE), UINT64_MAX);
	viommu_set_bypass(viommu, true);
	cr_assert_eq(reach(a, 0x1000, DMA_TO_DEVICE), 0x1000);
	cr_assert_eq(attach(1, A), VIOMMU_OK);
	cr_assert_eq(reach(a, 0x1000, DMA_TO_DEVICE), UINT64_MAX);
	cr_assert_eq(detach(1, A), VIOMMU_OK);
	cr_assert_eq(reach(a, 0x1000, DMA_TO_DEVICE), 0x1000);
}

Test(viommu, a_map_is_reached_with_its_access_by_all_of_its_domain)
{
	cr_assert_eq(attach(1, A), VIOMMU_OK);
	cr_assert_eq(map(1, 0x10000, 0x11fff, 0x3000, VIOMMU_F_READ), VIOMMU_OK);
	cr_assert_eq(attach(1, B), VIOMMU_OK);
	cr_assert_eq(reach(a, 0x11fff, DMA_TO_DEVICE), 0x4fff);
	cr_assert_eq(reach(b, 0x10001, DMA_TO_DEVICE), 0x3001);
	cr_assert_eq(reach(b, 0x10001, DMA_FROM_DEVICE), UINT64_MAX);
	cr_assert_eq(reach(b, 0xffff, DMA_TO_DEVICE), UINT64_MAX);
	cr_assert_eq(reach(b, 0x12000, DMA_TO_DEVICE), UINT64_MAX);
}

Test(viommu, an_endpoint_never_sees_another_domain)
{
	cr_assert_eq(attach(1, A), VIOMMU_OK);
	cr_assert_eq(attach(2, B), VIOMMU_OK);
	cr_assert_eq(map(1, 0, 0xfff, 0x3000, RW), VIOMMU_OK);
	cr_assert_eq(map(2, 0x1000, 0x1fff, 0x5000, RW), VIOMMU_OK);
	cr_assert_eq(reach(b, 0, DMA_TO_DEVICE), UINT64_MAX);
	cr_assert_eq(reach(a, 0x1000, DMA_TO_DEVICE), UINT64_MAX);
	cr_assert_eq(reach(b, 0x1000, DMA_TO_DEVICE), 0x5000);
}

Test(viommu, a_domain_ends_with_its_last_endpoint)
{
	cr_assert_eq(attach(1, A), VIOMMU_OK);
	cr_assert_eq(map(1, 0, 0xfff, 0x3000, RW), VIOMMU_OK);
	cr_assert_eq(attach(2, A), VIOMMU_OK);
	cr_assert_eq(map(1, 0x4000, 0x4fff, 0x3000, RW), VIOMMU_NOENT);
	cr_assert_eq(attach(1, A), VIOMMU_OK);
	cr_assert_eq(reach(a, 0, DMA_TO_DEVICE), UINT64_MAX, "the new domain 1 is empty");
}

Test(viommu, a_bypass_domain_is_all_of_memory_and_takes_no_maps)
{
	struct viommu_request r = {
		.op = VIOMMU_ATTACH, .domain = 3, .endpoint = A, .flags = VIOMMU_F_BYPASS};

	cr_assert_eq(run(r), VIOMMU_OK);
	cr_assert_eq(reach(a, 0x1234, DMA_FROM_DEVICE), 0x1234);
	cr_assert_eq(map(3, 0, 0xfff, 0, RW), VIOMMU_INVAL);
	cr_assert_eq(unmap(3, 0, 0xfff), VIOMMU_INVAL);
	cr_assert_eq(attach(3, B), VIOMMU_INVAL, "not a bypass domain any more");
	cr_assert_eq(reach(b, 0x1234, DMA_TO_DEVICE), UINT64_MAX);
}

Test(viommu, maps_that_are_refused)
{
	cr_assert_eq(map(1, 0, 0xfff, 0, RW), VIOMMU_NOENT);
	cr_assert_eq(attach(1, A), VIOMMU_OK);
	cr_assert_eq(map(1, 0, 0xffe, 0, RW), VIOMMU_RANGE);
	cr_assert_eq(map(1, 0x800, 0x17ff, 0, RW), VIOMMU_RANGE);
	cr_assert_eq(map(1, 0, 0xfff, 0x800, RW), VIOMMU_RANGE);
	cr_assert_eq(map(1, 0x2000, 0xfff, 0, RW), VIOMMU_INVAL);
	cr_assert_eq(map(1, 0, 0xfff, 0, 0), VIOMMU_INVAL);
	cr_assert_eq(map(1, 0, 0xfff, 0, 8 | RW), VIOMMU_INVAL);
	cr_assert_eq(map(1, 1ull << 48, (1ull << 48) + 0xfff, 0, RW), VIOMMU_RANGE);
	cr_assert_eq(map(1, 0, UINT64_MAX, 0, RW), VIOMMU_RANGE);
	cr_assert_eq(map(1, 0, 0x1fff, 4 * MiB - 0x1000, RW), VIOMMU_RANGE, "past RAM");
	cr_assert_eq(map(1, 0, 0x1fff, UINT64_MAX - 0xfff, RW), VIOMMU_RANGE);
	cr_assert_eq(map(1, 0, 0xfff, ROM_GPA, RW), VIOMMU_INVAL);
	cr_assert_eq(map(1, 0xfee00000, 0xfee00fff, 0, RW), VIOMMU_INVAL, "the MSI window");
	cr_assert_eq(map(1, 0, 0xfff, ROM_GPA, VIOMMU_F_READ), VIOMMU_OK);
	cr_assert_eq(map(1, 0, 0xfff, 0, RW), VIOMMU_INVAL, "mapped already");
	cr_assert_eq(reach(a, 0, DMA_FROM_DEVICE), UINT64_MAX);
}

/* virtio 1.3, 5.13.6.6: its seven examples, in pages. */
Test(viommu, unmap_takes_whole_mappings_only)
{
	cr_assert_eq(unmap(1, 0, 0x4fff), VIOMMU_NOENT);
	cr_assert_eq(attach(1, A), VIOMMU_OK);
	cr_assert_eq(unmap(1, 0, 0x4fff), VIOMMU_OK, "(1)");
	cr_assert_eq(map(1, 0, 0x9fff, 0, RW), VIOMMU_OK);
	cr_assert_eq(unmap(1, 0, 0x4fff), VIOMMU_RANGE, "(4)");
	cr_assert_eq(reach(a, 0, DMA_TO_DEVICE), 0);
	cr_assert_eq(unmap(1, 0, 0x9fff), VIOMMU_OK, "(2)");
	cr_assert_eq(reach(a, 0, DMA_TO_DEVICE), UINT64_MAX);
	cr_assert_eq(map(1, 0, 0x4fff, 0, RW), VIOMMU_OK);
	cr_assert_eq(map(1, 0x5000, 0x9fff, 0x5000, RW), VIOMMU_OK);
	cr_assert_eq(unmap(1, 0, 0x4fff), VIOMMU_OK, "(5)");
	cr_assert_eq(reach(a, 0x5000, DMA_TO_DEVICE), 0x5000);
	cr_assert_eq(map(1, 0, 0x4fff, 0, RW), VIOMMU_OK);
	cr_assert_eq(unmap(1, 0, 0x9fff), VIOMMU_OK, "(3)");
	cr_assert_eq(reach(a, 0x5000, DMA_TO_DEVICE), UINT64_MAX);
	cr_assert_eq(map(1, 0, 0x4fff, 0, RW), VIOMMU_OK);
	cr_assert_eq(map(1, 0xa000, 0xefff, 0, RW), VIOMMU_OK);
	cr_assert_eq(unmap(1, 0, 0xefff), VIOMMU_OK, "(7), and (6)");
	cr_assert_eq(reach(a, 0xa000, DMA_TO_DEVICE), UINT64_MAX);
}

Test(viommu, a_drain_of_requests_is_done_in_order)
{
	struct viommu_request r[] = {
		{.op = VIOMMU_ATTACH, .domain = 1, .endpoint = A},
		{.op = VIOMMU_MAP, .domain = 1, .last = 0xfff, .gpa = 0x1000, .flags = RW},
		{.op = VIOMMU_MAP, .domain = 1, .last = 0xfff, .gpa = 0x2000, .flags = RW},
		{.op = VIOMMU_MAP, .domain = 1, .first = 0x1000, .last = 0x1fff, .flags = RW},
		{.op = VIOMMU_UNMAP, .domain = 1, .first = 0x1000, .last = 0x1fff},
		{.op = VIOMMU_UNMAP, .domain = 1, .first = 0x1000, .last = 0x1fff},
		{.op = VIOMMU_MAP,
		 .domain = 1,
		 .first = 0x1000,
		 .last = 0x1fff,
		 .gpa = 0x9000,
		 .flags = RW},
		{.op = VIOMMU_DETACH, .domain = 2, .endpoint = A},
	};
	static const enum viommu_status expect[] = {VIOMMU_OK, VIOMMU_OK,   VIOMMU_INVAL,
						    VIOMMU_OK, VIOMMU_OK,   VIOMMU_OK,
						    VIOMMU_OK, VIOMMU_INVAL};

	viommu_run(viommu, r, ARRAY_SIZE(r));
	for (unsigned int i = 0; i < ARRAY_SIZE(r); i++)
		cr_assert_eq(r[i].status, expect[i], "request %u: %d", i, (int)r[i].status);
	cr_assert_eq(reach(a, 0, DMA_TO_DEVICE), 0x1000);
	cr_assert_eq(reach(a, 0x1000, DMA_TO_DEVICE), 0x9000);
}

Test(viommu, mappings_have_a_limit)
{
	struct viommu_config config = {
		.gmem = gmem,
		.limits = {.page_sizes = 4096, .last = 1 << 30, .domain_last = 5, .mappings = 2},
	};
	struct viommu *small, *before = viommu;
	struct viommu_endpoint *e;
	struct dma_space *space;
	uint32_t one = 1;

	cr_assert_eq(viommu_create(&small, &config, &err), 0);
	cr_assert_eq(viommu_add_emulated(&e, small, "e", &space, &err), 0);
	viommu_set_id(e, id, &one);
	viommu = small;
	cr_assert_eq(attach(6, 1), VIOMMU_INVAL, "outside of the domain range");
	cr_assert_eq(attach(5, 1), VIOMMU_OK);
	cr_assert_eq(map(5, 0, 0xfff, 0, RW), VIOMMU_OK);
	cr_assert_eq(map(5, 0x1000, 0x1fff, 0, RW), VIOMMU_OK);
	cr_assert_eq(map(5, 0x2000, 0x2fff, 0, RW), VIOMMU_NOMEM);
	cr_assert_eq(unmap(5, 0, 0xfff), VIOMMU_OK);
	cr_assert_eq(map(5, 0x2000, 0x2fff, 0, RW), VIOMMU_OK);
	viommu_reset(small);
	cr_assert_eq(attach(5, 1), VIOMMU_OK);
	cr_assert_eq(map(5, 0, 0xfff, 0, RW), VIOMMU_OK, "a reset gives them back");
	viommu_remove(e);
	viommu_destroy(small);
	viommu = before;
}

/* A passed-through device, whose hardware is a table in this process. */
static struct iommu *iommu;
static struct hw_domain *all;
static struct iommu_endpoint *device;
static struct viommu_endpoint *host;
static uint32_t id_host = 24;

static void add_hardware(void)
{
	const struct hw_domain_config domain = {.name = "all",
						.strategy = "direct",
						.gmem = gmem,
						.log = &silent,
						.map_threads = 1};
	const struct iommu_endpoint_config endpoint = {.name = "host", .fd = -1};
	struct hw_domain_config with = domain;

	cr_assert_eq(fake_iommu_create(&iommu, &silent, &err), 0, "%s", err.text);
	with.iommu = iommu;
	cr_assert_eq(hw_domain_create(&all, &with, &err), 0);
	cr_assert_eq(iommu_endpoint_create(&device, iommu, &endpoint, &err), 0);
	const struct viommu_hardware hardware = {
		.name = "host", .strategy = "strict", .device = device, .all = all};

	cr_assert_eq(viommu_add_hardware(&host, viommu, &hardware, &err), 0);
	viommu_set_id(host, id, &id_host);
}

static void remove_hardware(void)
{
	viommu_remove(host);
	iommu_endpoint_destroy(device);
	hw_domain_destroy(all);
	iommu_destroy(iommu);
}

static bool hardware_reaches(uint64_t iova)
{
	const struct ioas *ioas = iommu_endpoint_ioas(device);
	uint64_t bytes;
	void *hva;

	return ioas && !fake_translate(ioas, iova, IOAS_READ, &hva, &bytes);
}

/* Attach the device, map a page at 1 GiB, and let the guest's driver go. */
static void abandoned(bool bypass)
{
	add_hardware();
	viommu_set_bypass(viommu, bypass);
	cr_assert_eq(attach(1, id_host), VIOMMU_OK);
	cr_assert_eq(attach(1, A), VIOMMU_OK);
	cr_assert_eq(map(1, 1 * GiB, 1 * GiB + 0xfff, 0x5000, RW), VIOMMU_OK);
	viommu_abandon(viommu);
	cr_assert(hardware_reaches(1 * GiB), "what it had");
	cr_assert(!hardware_reaches(0x5000), "and no more");
	cr_assert_eq(reach(a, 1 * GiB, DMA_TO_DEVICE), bypass ? 1 * GiB : UINT64_MAX,
		     "emulated ones are where a reset puts them");
}

Test(viommu, a_device_of_an_abandoned_domain_keeps_it_until_a_driver_takes_over)
{
	abandoned(true);
	viommu_settle(viommu);
	cr_assert(!hardware_reaches(1 * GiB));
	cr_assert(hardware_reaches(0x5000), "bypass");
	remove_hardware();
}

Test(viommu, a_device_of_an_abandoned_domain_keeps_it_until_it_is_started_anew)
{
	abandoned(false);
	viommu_device_starts(host);
	cr_assert(!hardware_reaches(1 * GiB));
	cr_assert(!hardware_reaches(0x5000), "no bypass");
	remove_hardware();
}

Test(viommu, the_number_of_an_abandoned_domain_is_free)
{
	abandoned(false);
	cr_assert_eq(map(1, 0, 0xfff, 0, RW), VIOMMU_NOENT);
	cr_assert(!hardware_reaches(1 * GiB), "a request is of somebody who took over");
	cr_assert_eq(attach(1, A), VIOMMU_OK);
	cr_assert_eq(map(1, 1 * GiB, 1 * GiB + 0xfff, 0x6000, RW), VIOMMU_OK);
	cr_assert(!hardware_reaches(1 * GiB));
	remove_hardware();
}

Test(viommu, a_device_is_removed_while_it_keeps_an_abandoned_domain)
{
	struct viommu_totals totals;

	abandoned(true);
	remove_hardware();
	viommu_totals(viommu, &totals);
	cr_assert_eq(totals.mappings, 0);
	cr_assert_eq(totals.domains, 0);
}

Test(viommu, another_strategy_takes_over_in_the_domains_there_are_and_in_later_ones)
{
	add_hardware();
	cr_assert_eq(attach(1, id_host), VIOMMU_OK);
	cr_assert_eq(map(1, 1 * GiB, 1 * GiB + 0xfff, 0x5000, RW), VIOMMU_OK);
	cr_assert(!hardware_reaches(0x5000));
	cr_assert_eq(viommu_switch(viommu, NULL, "direct", &err), 0, "%s", err.text);
	cr_assert(hardware_reaches(1 * GiB) && hardware_reaches(0x5000));
	cr_assert_eq(attach(2, id_host), VIOMMU_OK);
	cr_assert(!hardware_reaches(1 * GiB) && hardware_reaches(0x5000), "a new domain");
	cr_assert_eq(viommu_switch(viommu, NULL, "strict", &err), 0);
	cr_assert(!hardware_reaches(0x5000));
	cr_assert_eq(viommu_switch(viommu, NULL, "sorted", &err), -EINVAL);
	cr_assert(strstr(err.text, "strict"), "it says which there are: %s", err.text);
	remove_hardware();
}

Test(viommu,
     a_device_that_can_neither_enter_a_domain_nor_go_back_reaches_nothing_and_can_come_again)
{
	add_hardware();
	viommu_set_bypass(viommu, true);
	/* It enters the domain, whose table is too full for the guest's mapping; so it goes
	 * back. */
	cr_assert_eq(attach(1, A), VIOMMU_OK);
	cr_assert_eq(map(1, 1 * GiB, 1 * GiB + 0xfff, 0x5000, RW), VIOMMU_OK);
	fake.areas = 1;
	fake.attach_after = 1;
	fake.attach_fails = 1;
	cr_assert_eq(attach(1, id_host), VIOMMU_UNSUPP);
	cr_assert_null(iommu_endpoint_ioas(device));
	fake.areas = 0;
	cr_assert_eq(attach(1, id_host), VIOMMU_OK);
	cr_assert(hardware_reaches(1 * GiB));
	viommu_set_bypass(viommu, false);
	remove_hardware();
}

Test(viommu, what_the_hardware_refuses_to_unmap_stays_mapped)
{
	add_hardware();
	cr_assert_eq(attach(1, id_host), VIOMMU_OK);
	cr_assert_eq(attach(1, A), VIOMMU_OK);
	for (uint64_t i = 0; i < 3; i++)
		cr_assert_eq(map(1, GiB + i * 0x1000, GiB + i * 0x1000 + 0xfff, 0x5000, RW),
			     VIOMMU_OK);
	fake.refuse_iova = GiB + 0x1000;
	cr_assert_eq(unmap(1, GiB, GiB + 0x2fff), VIOMMU_DEVERR);
	fake.refuse_iova = 0;
	cr_assert(!hardware_reaches(GiB), "gone before the one that stays");
	cr_assert_eq(reach(a, GiB, DMA_TO_DEVICE), UINT64_MAX);
	cr_assert(hardware_reaches(GiB + 0x1000));
	cr_assert_eq(reach(a, GiB + 0x1000, DMA_TO_DEVICE), 0x5000, "the table says so");
	cr_assert_eq(map(1, GiB + 0x1000, GiB + 0x1fff, 0x6000, RW), VIOMMU_INVAL);
	cr_assert_eq(map(1, GiB, GiB + 0xfff, 0x6000, RW), VIOMMU_OK);
	cr_assert_eq(unmap(1, GiB, GiB + 0x2fff), VIOMMU_OK);
	cr_assert(!hardware_reaches(GiB + 0x1000));
	remove_hardware();
}

static uint64_t reached_early;

static void look_while_mapping(void)
{
	reached_early = reach(a, GiB, DMA_TO_DEVICE);
}

Test(viommu, a_map_that_the_hardware_refuses_was_never_reached_by_an_emulated_device)
{
	add_hardware();
	cr_assert_eq(attach(1, id_host), VIOMMU_OK);
	cr_assert_eq(attach(1, A), VIOMMU_OK);
	cr_assert_eq(map(1, 0, 0xfff, 0x5000, RW), VIOMMU_OK);
	fake.areas = 1;
	fake.on_map = look_while_mapping;
	cr_assert_eq(map(1, GiB, GiB + 0xfff, 0x5000, RW), VIOMMU_NOMEM);
	fake.on_map = NULL;
	fake.areas = 0;
	cr_assert_eq(reached_early, UINT64_MAX);
	cr_assert_eq(reach(a, GiB, DMA_TO_DEVICE), UINT64_MAX);
	remove_hardware();
}

static void take_rom(void)
{
	cr_assert_eq(gmem_begin(gmem, &err), 0);
	cr_assert_eq(gmem_remove(gmem, ROM_GPA, &err), 0);
	cr_assert_eq(gmem_commit(gmem, &err), 0, "%s", err.text);
}

Test(viommu, memory_that_leaves_the_guest_is_reached_by_no_device_at_any_address)
{
	struct viommu_totals totals;

	add_hardware();
	cr_assert_eq(attach(1, id_host), VIOMMU_OK);
	cr_assert_eq(attach(2, A), VIOMMU_OK);
	cr_assert_eq(map(1, GiB, GiB + 0xfff, ROM_GPA, VIOMMU_F_READ), VIOMMU_OK);
	cr_assert_eq(map(1, 2 * GiB, 2 * GiB + 0xfff, ROM_GPA, VIOMMU_F_READ), VIOMMU_OK);
	cr_assert_eq(map(1, 3 * GiB, 3 * GiB + 0xfff, 0x5000, RW), VIOMMU_OK);
	cr_assert_eq(map(2, GiB, GiB + 0xfff, ROM_GPA, VIOMMU_F_READ), VIOMMU_OK);
	take_rom();
	cr_assert(!hardware_reaches(GiB) && !hardware_reaches(2 * GiB));
	cr_assert(hardware_reaches(3 * GiB), "other memory stays");
	cr_assert_eq(reach(a, GiB, DMA_TO_DEVICE), UINT64_MAX);
	viommu_totals(viommu, &totals);
	cr_assert_eq(totals.mappings, 1);
	remove_hardware();
}

Test(viommu, hardware_that_keeps_memory_which_leaves_loses_its_devices)
{
	add_hardware();
	cr_assert_eq(attach(1, id_host), VIOMMU_OK);
	cr_assert_eq(map(1, GiB, GiB + 0xfff, ROM_GPA, VIOMMU_F_READ), VIOMMU_OK);
	fake.refuse_iova = GiB;
	take_rom();
	fake.refuse_iova = 0;
	cr_assert_null(iommu_endpoint_ioas(device), "it reaches nothing");
	cr_assert_eq(detach(1, id_host), VIOMMU_OK);
	remove_hardware();
}

Test(viommu, limits_are_by_cost)
{
	struct viommu_limits limits;
	struct viommu_totals totals;

	viommu->limits.mapped_bytes = 4 * MiB;
	viommu->limits.tables = 8;
	cr_assert_eq(attach(1, A), VIOMMU_OK);
	cr_assert_eq(map(1, 0, 3 * MiB - 1, 0, RW), VIOMMU_OK);
	cr_assert_eq(map(1, 1 * GiB, 1 * GiB + 2 * MiB - 1, 0, RW), VIOMMU_NOMEM, "bytes");
	cr_assert_eq(map(1, 1 * GiB, 1 * GiB + 0xfff, 0, RW), VIOMMU_OK);
	viommu_totals(viommu, &totals);
	/* Spans: two of 2 MiB, one of 1 GiB, one of 512 GiB; then one of 2 MiB, one of 1 GiB. */
	cr_assert_eq(totals.tables, 6);
	cr_assert_eq(totals.mapped_bytes, 3 * MiB + 0x1000);
	cr_assert_eq(map(1, 1 * GiB + 0x1000, 1 * GiB + 0x1fff, 0, RW), VIOMMU_OK, "none more");
	cr_assert_eq(map(1, 600 * GiB, 600 * GiB + 0xfff, 0, RW), VIOMMU_NOMEM, "tables");
	cr_assert_eq(unmap(1, 0, 512 * GiB), VIOMMU_OK);
	viommu_totals(viommu, &totals);
	cr_assert_eq(totals.tables + totals.mapped_bytes, 0);
	viommu->limits.mapped_bytes = viommu->limits.tables = 0;
	viommu_limits(viommu, &limits);
	cr_assert_eq(limits.mapped_bytes, 3 * 4 * MiB + 256 * MiB, "a share for each device");
}

static _Atomic bool asked_after_removal, removed;

static uint32_t id_that_goes(void *opaque)
{
	(void)opaque;
	if (atomic_load(&removed))
		atomic_store(&asked_after_removal, true);
	return 24;
}

static void *ask_on(void *opaque)
{
	(void)opaque;
	while (!atomic_load(&removed)) {
		attach(1, 24);
		detach(1, 24);
	}
	for (unsigned int i = 0; i < 100; i++)
		attach(1, 24);
	return NULL;
}

Test(viommu, an_endpoint_goes_while_requests_run_and_is_never_asked_again)
{
	pthread_t thread;

	add_hardware();
	viommu_set_id(host, id_that_goes, NULL);
	viommu_set_bypass(viommu, true);
	cr_assert_eq(pthread_create(&thread, NULL, ask_on, NULL), 0);
	/* Both threads add and remove listeners of the memory map. */
	for (unsigned int i = 0; i < 200; i++) {
		add("more", 16 * MiB, 2 * MiB, 0);
		cr_assert_eq(gmem_begin(gmem, &err), 0);
		cr_assert_eq(gmem_remove(gmem, 16 * MiB, &err), 0);
		cr_assert_eq(gmem_commit(gmem, &err), 0);
	}
	viommu_set_id(host, NULL, NULL);
	atomic_store(&removed, true);
	viommu_remove(host);
	host = NULL;
	pthread_join(thread, NULL);
	cr_assert(!atomic_load(&asked_after_removal));
	remove_hardware();
}

Test(viommu, a_device_with_another_strategy_does_not_come_into_a_domain_and_switches_alone)
{
	struct iommu_endpoint *device2;
	const struct iommu_endpoint_config config = {.name = "host2", .fd = -1};
	struct viommu_hardware hardware = {.name = "host2", .strategy = "direct"};
	struct viommu_endpoint *host2;
	uint32_t id2 = 32;

	add_hardware();
	cr_assert_eq(iommu_endpoint_create(&device2, iommu, &config, &err), 0);
	hardware.device = device2;
	hardware.all = all;
	cr_assert_eq(viommu_add_hardware(&host2, viommu, &hardware, &err), 0, "%s", err.text);
	viommu_set_id(host2, id, &id2);
	cr_assert_eq(attach(1, id_host), VIOMMU_OK);
	cr_assert_eq(attach(1, id2), VIOMMU_UNSUPP);
	cr_assert_eq(attach(2, id2), VIOMMU_OK);
	cr_assert_eq(viommu_switch(viommu, host2, "strict", &err), 0, "%s", err.text);
	cr_assert_eq(viommu_switch(viommu, host, "direct", &err), 0, "%s", err.text);
	cr_assert(hardware_reaches(0x5000));
	cr_assert_eq(viommu_switch(viommu, host, "strict", &err), 0);
	cr_assert_eq(attach(1, id2), VIOMMU_OK, "now they agree");
	viommu_remove(host2);
	iommu_endpoint_destroy(device2);
	remove_hardware();
}

Test(viommu, endpoints_are_known_by_the_number_they_have_now)
{
	cr_assert_eq(attach(1, 99), VIOMMU_NOENT);
	id_a = 99;
	cr_assert_eq(attach(1, 99), VIOMMU_OK);
	cr_assert_eq(detach(1, A), VIOMMU_NOENT);
	cr_assert_eq(detach(1, 99), VIOMMU_OK);
	id_a = A;
}

Test(viommu, dma_in_and_out_of_bypass)
{
	struct dma_port port;
	uint32_t word = 0x12345678, back = 0;

	viommu_set_bypass(viommu, true);
	dma_port_init(&port, space_a, A);
	cr_assert_eq(dma_write(&port, 0x3010, &word, sizeof(word)), 0);
	cr_assert_eq(attach(1, A), VIOMMU_OK);
	cr_assert_eq(dma_read(&port, 0x3010, &back, sizeof(back)), -EFAULT, "a domain");
	cr_assert_eq(map(1, 0x10000, 0x10fff, 0x3000, RW), VIOMMU_OK);
	cr_assert_eq(dma_read(&port, 0x10010, &back, sizeof(back)), 0);
	cr_assert_eq(back, word);
	cr_assert_eq(
		run((struct viommu_request){
			.op = VIOMMU_ATTACH, .domain = 2, .endpoint = A, .flags = VIOMMU_F_BYPASS}),
		VIOMMU_OK);
	cr_assert_eq(dma_read(&port, 0x3010, &back, sizeof(back)), 0, "a bypass domain");
	viommu_set_bypass(viommu, false);
	cr_assert_eq(dma_read(&port, 0x3010, &back, sizeof(back)), 0, "its own business");
	cr_assert_eq(detach(2, A), VIOMMU_OK);
	cr_assert_eq(dma_read(&port, 0x3010, &back, sizeof(back)), -EFAULT, "no bypass");
	viommu_set_bypass(viommu, true);
	viommu_reset(viommu);
	cr_assert_eq(dma_read(&port, 0x3010, &back, sizeof(back)), 0);
	dma_port_done(&port);
}

Test(viommu, an_access_that_is_not_permitted_is_told)
{
	struct dma_port port;
	uint32_t word = 0x12345678, back = 0;

	dma_port_init(&port, space_a, A);
	cr_assert_eq(dma_read(&port, 0x10000, &word, sizeof(word)), -EFAULT);
	cr_assert_eq(last_fault.reason, VIOMMU_R_DOMAIN);
	cr_assert_eq(attach(1, A), VIOMMU_OK);
	cr_assert_eq(map(1, 0x10000, 0x10fff, 0x3000, RW), VIOMMU_OK);
	cr_assert_eq(dma_write(&port, 0x10010, &word, sizeof(word)), 0);
	cr_assert_eq(gmem_read(gmem, 0x3010, &back, sizeof(back)), 0);
	cr_assert_eq(back, word);
	cr_assert_eq(faults, 1);
	cr_assert_eq(dma_write(&port, 0x10ffe, &word, sizeof(word)), -EFAULT);
	cr_assert_eq(last_fault.address, 0x11000, "%#llx", (unsigned long long)last_fault.address);
	cr_assert_eq(last_fault.reason, VIOMMU_R_MAPPING);
	cr_assert_eq(last_fault.endpoint, A);
	cr_assert(last_fault.write);
	cr_assert_eq(unmap(1, 0x10000, 0x10fff), VIOMMU_OK);
	cr_assert_eq(dma_read(&port, 0x10010, &back, sizeof(back)), -EFAULT);
	cr_assert(strstr(last_history, "unmapped"), "%s", last_history);
	cr_assert_not(last_fault.write);
	dma_port_done(&port);
}

static _Atomic bool unmapped;

static void *unmap_thread(void *opaque)
{
	(void)opaque;
	if (unmap(1, 0x10000, 0x10fff) == VIOMMU_OK)
		atomic_store(&unmapped, true);
	return NULL;
}

Test(viommu, an_unmap_waits_for_what_is_open_and_lets_nothing_new_in)
{
	struct dma_bracket bracket, next;
	struct iovec iov;
	struct dma_port port;
	pthread_t thread;
	int rc;

	dma_port_init(&port, space_a, A);
	cr_assert_eq(attach(1, A), VIOMMU_OK);
	cr_assert_eq(map(1, 0x10000, 0x10fff, 0x3000, RW), VIOMMU_OK);
	dma_open(&port, &bracket);
	cr_assert_eq(dma_map(&port, 0x10000, 16, DMA_TO_DEVICE, &iov, 1), 1);
	cr_assert_eq(pthread_create(&thread, NULL, unmap_thread, NULL), 0);
	/* First translation refuses it, then UNMAP waits. */
	do {
		dma_open(&port, &next);
		rc = dma_map(&port, 0x10000, 16, DMA_TO_DEVICE, &iov, 1);
		dma_close(&port, &next);
	} while (rc == 1);
	cr_assert_eq(rc, -EFAULT);
	cr_assert_not(atomic_load(&unmapped));
	dma_close(&port, &bracket);
	pthread_join(thread, NULL);
	cr_assert(atomic_load(&unmapped));
	dma_port_done(&port);
}

Test(viommu, totals_count_what_was_asked_and_what_is_there)
{
	struct viommu_totals t;

	cr_assert_eq(attach(1, A), VIOMMU_OK);
	cr_assert_eq(map(1, 0, 0x1fff, 0, RW), VIOMMU_OK);
	cr_assert_eq(map(1, 0, 0x1fff, 0, RW), VIOMMU_INVAL);
	viommu_totals(viommu, &t);
	cr_assert_eq(t.requests[VIOMMU_MAP], 2);
	cr_assert_eq(t.failed[VIOMMU_MAP], 1);
	cr_assert_eq(t.map_bytes, 0x2000);
	cr_assert_eq(t.mapped_bytes, 0x2000);
	cr_assert_eq(t.mappings, 1);
	cr_assert_eq(t.domains, 1);
	cr_assert_eq(t.endpoints, 2);
	cr_assert_eq(unmap(1, 0, 0x1fff), VIOMMU_OK);
	viommu_totals(viommu, &t);
	cr_assert_eq(t.mapped_bytes + t.mappings, 0);
}
