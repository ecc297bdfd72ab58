// SPDX-License-Identifier: Apache-2.0
// A strategy that keeps mappings which the guest has unmapped (keeper.h), behind a virtual IOMMU:
// what the device reaches, and when the virtual IOMMU asks for the rest.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "guest_ram.h"
#include "fake_iommu.h"
#include "iommu/viommu_impl.h"
#include "keeper.h"

enum { PAGE = 4096, RW = VIOMMU_F_READ | VIOMMU_F_WRITE, ROM_GPA = 8 * MiB };
enum { EMULATED = 8, ONE = 24, TWO = 32 };
#define STALE GiB /* the addresses that are played with */

static const struct log silent;
static struct err err;
static struct loop *loop; /* the virtual IOMMU's */
static struct gmem *gmem;
static struct iommu *iommu;
static struct viommu *viommu;
static struct hw_domain *all;
static struct iommu_endpoint *device[2];
static struct viommu_endpoint *host[2], *emulated;
static uint32_t ids[] = {ONE, TWO, EMULATED};

static uint32_t id(void *opaque)
{
	return *(uint32_t *)opaque;
}

static void add(const char *name, uint64_t gpa, uint64_t size, unsigned int flags)
{
	guest_ram_add(gmem, name, gpa, size, flags);
}

static void add_host(unsigned int i, const char *name, const char *strategy)
{
	const struct iommu_endpoint_config endpoint = {.name = name, .fd = -1};
	struct viommu_hardware hardware = {.name = name, .strategy = strategy, .all = all};

	cr_assert_eq(iommu_endpoint_create(&device[i], iommu, &endpoint, &err), 0);
	hardware.device = device[i];
	cr_assert_eq(viommu_add_hardware(&host[i], viommu, &hardware, &err), 0, "%s", err.text);
	viommu_set_id(host[i], id, &ids[i]);
}

/* Two passed-through devices and an emulated one, in no domain. */
static void start(const char *strategy)
{
	struct hw_domain_config domain = {
		.name = "all", .strategy = "direct", .log = &silent, .map_threads = 1};
	const struct loop_config of_loop = {.log = &silent, .name = "viommu"};
	struct viommu_config config = {.log = &silent};
	struct dma_space *space;

	cr_assert_eq(loop_create(&loop, &of_loop, &err), 0, "%s", err.text);
	config.loop = loop;
	cr_assert_eq(gmem_create(&gmem, NULL, &err), 0);
	add("low", 0, 4 * MiB, 0);
	add("rom", ROM_GPA, MiB, GMEM_READONLY);
	config.gmem = gmem;
	cr_assert_eq(viommu_create(&viommu, &config, &err), 0);
	cr_assert_eq(fake_iommu_create(&iommu, &silent, &err), 0);
	domain.iommu = iommu;
	domain.gmem = gmem;
	cr_assert_eq(hw_domain_create(&all, &domain, &err), 0, "%s", err.text);
	add_host(0, "one", strategy);
	add_host(1, "two", strategy);
	cr_assert_eq(viommu_add_emulated(&emulated, viommu, "emulated", &space, &err), 0);
	viommu_set_id(emulated, id, &ids[2]);
}

static void stop(void)
{
	viommu_remove(emulated);
	for (unsigned int i = 0; i < 2; i++) {
		viommu_remove(host[i]);
		iommu_endpoint_destroy(device[i]);
	}
	hw_domain_destroy(all);
	iommu_destroy(iommu);
	viommu_destroy(viommu);
	loop_destroy(loop);
	gmem_destroy(gmem);
}

TestSuite(retained, .fini = stop);

/* --- requests --- */

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

static int map(uint32_t domain, uint64_t iova, uint64_t gpa, uint64_t bytes, uint32_t flags)
{
	return run((struct viommu_request){.op = VIOMMU_MAP,
					   .domain = domain,
					   .first = iova,
					   .last = iova + bytes - 1,
					   .gpa = gpa,
					   .flags = flags});
}

static int map_page(uint64_t iova, uint64_t gpa)
{
	return map(1, iova, gpa, PAGE, RW);
}

static int unmap(uint64_t iova, uint64_t bytes)
{
	return run((struct viommu_request){
		.op = VIOMMU_UNMAP, .domain = 1, .first = iova, .last = iova + bytes - 1});
}

/* In domain 1 a page is mapped there, and unmapped again. */
static void retain(uint64_t iova, uint64_t gpa)
{
	cr_assert_eq(map_page(iova, gpa), VIOMMU_OK);
	cr_assert_eq(unmap(iova, PAGE), VIOMMU_OK);
}

/* What the hardware of device i gets to; NULL: nothing. */
static void *reach_by(unsigned int i, uint64_t iova)
{
	const struct ioas *ioas = iommu_endpoint_ioas(device[i]);
	uint64_t bytes;
	void *hva;

	return ioas && !fake_translate(ioas, iova, IOAS_READ, &hva, &bytes) ? hva : NULL;
}

static void *reach(uint64_t iova)
{
	return reach_by(0, iova);
}

static void *memory(uint64_t gpa)
{
	return gmem_host(gmem, gpa, 1, false);
}

static struct viommu_domain *domain_1(void)
{
	return viommu_find_domain(viommu, 1);
}

static uint64_t stale_bytes(void)
{
	struct ledger_totals t;

	ioas_totals(hw_domain_ioas(domain_1()->hw), &t);
	return t.stale_bytes;
}

static uint64_t retained(void)
{
	return hw_domain_retained(domain_1()->hw).mappings;
}

/* The strategy's own count is the number of records that are RETAINED, and none is GOING. */
static void check_count(void)
{
	struct viommu_domain *d = domain_1();
	unsigned int n = 0;

	for (struct mapping *m = mappings_find(&d->table, 0, UINT64_MAX); m; m = m->next) {
		cr_assert_neq(m->state, MAPPING_GOING, "%#llx", (unsigned long long)m->iova);
		n += m->state == MAPPING_RETAINED;
	}
	cr_assert_eq(retained(), n, "%u, but %u are retained", (unsigned int)retained(), n);
}

/* --- what is retained --- */

Test(retained, what_the_guest_unmaps_stays_in_the_hardware_and_is_counted_as_stale)
{
	start("keeper");
	cr_assert_eq(attach(1, ONE), VIOMMU_OK);
	cr_assert_eq(attach(1, EMULATED), VIOMMU_OK);
	retain(STALE, 0x5000);
	cr_assert_eq(reach(STALE), memory(0x5000));
	cr_assert_eq(stale_bytes(), PAGE);
	cr_assert_neq(
		viommu_translate(emulated, STALE, 1, DMA_TO_DEVICE, &(uint64_t){0}, &(uint64_t){0}),
		0, "an emulated device does not reach it");
	check_count();
}

Test(retained, a_map_of_the_same_finds_it_there)
{
	start("keeper");
	cr_assert_eq(attach(1, ONE), VIOMMU_OK);
	retain(STALE, 0x5000);
	cr_assert_eq(map_page(STALE, 0x5000), VIOMMU_OK);
	cr_assert_eq(keeper_log.mapped, 1);
	cr_assert_eq(keeper_log.revived, 1);
	cr_assert_eq(stale_bytes(), 0);
	cr_assert_eq(reach(STALE), memory(0x5000));
	check_count();
}

Test(retained, a_map_of_something_else_takes_its_place)
{
	start("keeper");
	cr_assert_eq(attach(1, ONE), VIOMMU_OK);
	retain(STALE, 0x5000);
	cr_assert_eq(map_page(STALE, 0x6000), VIOMMU_OK);
	cr_assert_eq(reach(STALE), memory(0x6000));
	cr_assert_eq(map(1, STALE + PAGE, 0x8000, 2 * PAGE, RW), VIOMMU_OK);
	cr_assert_eq(unmap(STALE + PAGE, 2 * PAGE), VIOMMU_OK);
	cr_assert_eq(map_page(STALE + 2 * PAGE, 0x5000), VIOMMU_OK, "a part of it");
	cr_assert_null(reach(STALE + PAGE), "all of it is gone");
	cr_assert_eq(reach(STALE + 2 * PAGE), memory(0x5000));
	check_count();
}

Test(retained, what_the_strategy_does_not_keep_is_gone_at_once)
{
	start("keeper,entries=1");
	cr_assert_eq(attach(1, ONE), VIOMMU_OK);
	cr_assert_eq(map_page(STALE, 0x5000), VIOMMU_OK);
	cr_assert_eq(map_page(STALE + PAGE, 0x6000), VIOMMU_OK);
	cr_assert_eq(unmap(STALE, 2 * PAGE), VIOMMU_OK);
	cr_assert_eq(reach(STALE), memory(0x5000));
	cr_assert_null(reach(STALE + PAGE));
	cr_assert_eq(domain_1()->table.count, 1);
	check_count();
}

/* --- limits --- */

/* Two pages fit, of which one is retained; a third comes in its place, a fourth is refused. */
static void meet_limit(void)
{
	retain(STALE, 0x5000);
	cr_assert_eq(map_page(STALE + PAGE, 0x6000), VIOMMU_OK);
	cr_assert_eq(reach(STALE), memory(0x5000), "so far there is room");
	cr_assert_eq(map_page(STALE + 2 * PAGE, 0x7000), VIOMMU_OK);
	cr_assert_null(reach(STALE), "it made room");
	cr_assert_eq(map_page(STALE + 3 * PAGE, 0x8000), VIOMMU_NOMEM);
	cr_assert_eq(reach(STALE + PAGE), memory(0x6000), "what is wanted makes no room");
	cr_assert_eq(reach(STALE + 2 * PAGE), memory(0x7000));
	cr_assert_eq(stale_bytes(), 0);
	check_count();
}

Test(retained, a_map_that_meets_the_limit_of_mappings_evicts_what_is_retained_before_it_is_refused)
{
	start("keeper");
	viommu->limits.mappings = 2;
	cr_assert_eq(attach(1, ONE), VIOMMU_OK);
	meet_limit();
}

Test(retained, a_map_that_meets_the_limit_of_bytes_evicts_what_is_retained_before_it_is_refused)
{
	start("keeper");
	viommu->limits.mapped_bytes = 2 * PAGE;
	cr_assert_eq(attach(1, ONE), VIOMMU_OK);
	meet_limit();
}

Test(retained, a_map_that_meets_the_limit_of_table_pages_evicts_what_is_retained)
{
	start("keeper");
	cr_assert_eq(attach(1, ONE), VIOMMU_OK);
	retain(STALE, 0x5000);
	viommu->limits.tables = viommu->tables;
	cr_assert_eq(map_page(600 * GiB, 0x6000), VIOMMU_OK);
	cr_assert_null(reach(STALE));
	cr_assert_eq(map_page(STALE, 0x5000), VIOMMU_NOMEM);
}

Test(retained, a_map_that_meets_the_limit_of_the_hardware_evicts_what_is_retained)
{
	start("keeper");
	cr_assert_eq(attach(1, ONE), VIOMMU_OK);
	fake.areas = 2;
	meet_limit();
	fake.areas = 0;
}

Test(retained, a_map_that_meets_a_limit_evicts_what_another_domain_retains)
{
	start("keeper");
	viommu->limits.mappings = 1;
	cr_assert_eq(attach(1, ONE), VIOMMU_OK);
	cr_assert_eq(attach(2, TWO), VIOMMU_OK);
	retain(STALE, 0x5000);
	cr_assert_eq(map(2, STALE, 0x6000, PAGE, RW), VIOMMU_OK);
	cr_assert_null(reach(STALE));
	cr_assert_eq(reach_by(1, STALE), memory(0x6000));
	check_count();
}

/* --- flush --- */

Test(retained, a_device_that_leaves_takes_what_was_retained_from_those_that_stay)
{
	start("keeper");
	cr_assert_eq(attach(1, ONE), VIOMMU_OK);
	cr_assert_eq(attach(1, TWO), VIOMMU_OK);
	retain(STALE, 0x5000);
	cr_assert_eq(map_page(STALE + PAGE, 0x6000), VIOMMU_OK);
	cr_assert_eq(attach(2, TWO), VIOMMU_OK);
	cr_assert(!reach(STALE) && !reach_by(1, STALE));
	cr_assert_eq(reach(STALE + PAGE), memory(0x6000), "what is wanted stays");
	cr_assert_eq(domain_1()->table.count, 1);
	check_count();
}

Test(retained, the_last_device_that_leaves_leaves_nothing_retained_for_the_next)
{
	start("keeper");
	cr_assert_eq(attach(1, EMULATED), VIOMMU_OK);
	cr_assert_eq(attach(1, ONE), VIOMMU_OK);
	retain(STALE, 0x5000);
	fake.refuse_iova = STALE; /* not even where a flush cannot unmap it */
	cr_assert_eq(attach(2, ONE), VIOMMU_OK);
	fake.refuse_iova = 0;
	cr_assert_eq(domain_1()->table.count, 0);
	check_count();
	cr_assert_eq(attach(1, ONE), VIOMMU_OK);
	cr_assert_null(reach(STALE));
}

Test(retained, after_a_switch_nothing_stale_is_reachable)
{
	start("keeper");
	cr_assert_eq(attach(1, ONE), VIOMMU_OK);
	retain(STALE, 0x5000);
	cr_assert_eq(map_page(STALE + PAGE, 0x6000), VIOMMU_OK);
	cr_assert_eq(viommu_switch(viommu, NULL, "strict", &err), 0, "%s", err.text);
	cr_assert_null(reach(STALE));
	cr_assert_eq(reach(STALE + PAGE), memory(0x6000));
	check_count();
	cr_assert_eq(viommu_switch(viommu, NULL, "keeper,entries=5", &err), 0, "%s", err.text);
	cr_assert_eq(keeper_log.entries, 5);
	cr_assert_eq(unmap(STALE + PAGE, PAGE), VIOMMU_OK);
	cr_assert_eq(reach(STALE + PAGE), memory(0x6000), "retained by the new one");
	check_count();
}

Test(retained, a_switch_that_fails_leaves_addresses_that_can_be_mapped)
{
	start("keeper");
	cr_assert_eq(attach(1, ONE), VIOMMU_OK);
	retain(STALE, 0x5000);
	cr_assert_eq(map_page(2 * PAGE, PAGE), VIOMMU_OK);
	cr_assert_eq(viommu_switch(viommu, NULL, "direct", &err), -EEXIST);
	cr_assert_str_eq(hw_domain_strategy(domain_1()->hw),
			 "keeper,entries=2,time=never,room=64M");
	check_count();
	cr_assert_eq(map_page(STALE, 0x6000), VIOMMU_OK);
	cr_assert_eq(reach(STALE), memory(0x6000));
	cr_assert_eq(reach(2 * PAGE), memory(PAGE));
}

Test(retained, a_switch_waits_for_hardware_that_does_not_let_go)
{
	start("keeper");
	cr_assert_eq(attach(1, ONE), VIOMMU_OK);
	retain(STALE, 0x5000);
	fake.refuse_iova = STALE;
	cr_assert_neq(viommu_switch(viommu, NULL, "strict", &err), 0);
	cr_assert_eq(stale_bytes(), PAGE, "it is still counted");
	check_count();
	fake.refuse_iova = 0;
	cr_assert_eq(viommu_switch(viommu, NULL, "strict", &err), 0, "%s", err.text);
	cr_assert_null(reach(STALE));
}

/* --- memory that leaves the guest --- */

static char events[64];
static const char *rom;

/* What holds before each step of viommu_memory_leaves. */
static void look(const struct strategy *strategy, char what)
{
	uint64_t gpa, bytes;
	size_t n = strlen(events);

	(void)strategy;
	events[n] = what;
	cr_assert_neq(viommu_translate(emulated, STALE + PAGE, 1, DMA_TO_DEVICE, &gpa, &bytes), 0,
		      "nothing new comes in");
	cr_assert_eq(*rom, 'r', "the memory is there until the end");
	if (what == 'f') {
		cr_assert_null(reach(STALE + PAGE), "the hardware comes first");
		cr_assert_not_null(reach(STALE), "then what is retained");
	}
}

static void take_rom(void)
{
	cr_assert_eq(gmem_begin(gmem, &err), 0);
	cr_assert_eq(gmem_remove(gmem, ROM_GPA, &err), 0);
	cr_assert_eq(gmem_commit(gmem, &err), 0, "%s", err.text);
}

Test(retained, memory_leaves_first_the_hardware_and_then_what_is_retained)
{
	uint64_t gpa, bytes;

	start("keeper,entries=1");
	cr_assert_eq(attach(1, ONE), VIOMMU_OK);
	cr_assert_eq(attach(1, EMULATED), VIOMMU_OK);
	rom = memory(ROM_GPA);
	*(char *)memory(ROM_GPA) = 'r';
	cr_assert_eq(map(1, STALE, ROM_GPA, PAGE, VIOMMU_F_READ), VIOMMU_OK);
	cr_assert_eq(unmap(STALE, PAGE), VIOMMU_OK);
	cr_assert_eq(map(1, STALE + PAGE, ROM_GPA, PAGE, VIOMMU_F_READ), VIOMMU_OK);
	cr_assert_eq(map(1, STALE + 2 * PAGE, ROM_GPA, PAGE, VIOMMU_F_READ), VIOMMU_OK);
	cr_assert_eq(map_page(STALE + 3 * PAGE, 0x5000), VIOMMU_OK);
	keeper_log.on_event = look;
	take_rom();
	keeper_log.on_event = NULL;
	cr_assert_str_eq(events, "uuf");
	for (unsigned int i = 0; i < 3; i++)
		cr_assert_null(reach(STALE + i * PAGE), "%u", i);
	cr_assert_neq(viommu_translate(emulated, STALE + 2 * PAGE, 1, DMA_TO_DEVICE, &gpa, &bytes),
		      0);
	cr_assert_eq(reach(STALE + 3 * PAGE), memory(0x5000), "other memory stays");
	cr_assert_eq(domain_1()->table.count, 1);
	cr_assert_eq(stale_bytes(), 0);
	check_count();
}

Test(retained, pages_that_are_given_back_are_reached_at_no_address)
{
	start("keeper");
	cr_assert_eq(attach(1, ONE), VIOMMU_OK);
	retain(STALE, 0x5000);
	cr_assert_eq(map(1, STALE + PAGE, 0x4000, 2 * PAGE, RW), VIOMMU_OK);
	cr_assert_eq(map_page(STALE + 3 * PAGE, 0x6000), VIOMMU_OK);
	gmem_hold(gmem);
	viommu_memory_leaves(viommu, 0x5000, PAGE);
	gmem_release(gmem);
	cr_assert(!reach(STALE) && !reach(STALE + PAGE) && !reach(STALE + 2 * PAGE));
	cr_assert_eq(reach(STALE + 3 * PAGE), memory(0x6000));
	check_count();
}

Test(retained, hardware_that_keeps_what_was_retained_of_it_loses_its_devices)
{
	start("keeper");
	cr_assert_eq(attach(1, ONE), VIOMMU_OK);
	cr_assert_eq(map(1, STALE, ROM_GPA, PAGE, VIOMMU_F_READ), VIOMMU_OK);
	cr_assert_eq(unmap(STALE, PAGE), VIOMMU_OK);
	fake.refuse_iova = STALE;
	take_rom();
	fake.refuse_iova = 0;
	cr_assert_null(iommu_endpoint_ioas(device[0]), "it reaches nothing");
	cr_assert_eq(domain_1()->table.count, 0);
	check_count();
}

/* --- time --- */

Test(retained, a_tick_ends_what_was_retained_long_enough)
{
	start("keeper,time=5ms");
	cr_assert_eq(attach(1, ONE), VIOMMU_OK);
	retain(STALE, 0x5000);
	cr_assert_eq(map_page(STALE + PAGE, 0x6000), VIOMMU_OK);
	while (retained())
		cr_assert_eq(loop_iterate(loop, true), 0);
	cr_assert_null(reach(STALE));
	cr_assert_eq(reach(STALE + PAGE), memory(0x6000));
	check_count();
	cr_assert_eq(map_page(STALE, 0x7000), VIOMMU_OK, "its record is gone as well");
}

Test(retained, the_strategies_of_two_domains_share_the_timer_and_the_earliest_counts)
{
	start("keeper,time=60000ms");
	cr_assert_eq(attach(2, TWO), VIOMMU_OK);
	cr_assert_eq(attach(1, ONE), VIOMMU_OK);
	cr_assert_eq(map(2, STALE, 0x6000, PAGE, RW), VIOMMU_OK);
	cr_assert_eq(
		run((struct viommu_request){
			.op = VIOMMU_UNMAP, .domain = 2, .first = STALE, .last = STALE + PAGE - 1}),
		VIOMMU_OK);
	cr_assert_eq(loop_iterate(loop, true), 0, "its timer is on");
	cr_assert_eq(viommu_switch(viommu, host[0], "keeper,time=5ms", &err), 0, "%s", err.text);
	retain(STALE, 0x5000);
	while (retained())
		cr_assert_eq(loop_iterate(loop, true), 0);
	cr_assert_null(reach(STALE));
	cr_assert_eq(reach_by(1, STALE), memory(0x6000), "its minute is not over");
	cr_assert_gt(viommu->due_ns, 0, "and it has asked again");
}

Test(retained, a_strategy_ends_while_its_timer_is_on)
{
	start("keeper,time=60000ms");
	cr_assert_eq(attach(1, ONE), VIOMMU_OK);
	retain(STALE, 0x5000);
	cr_assert_eq(viommu_switch(viommu, NULL, "strict", &err), 0, "%s", err.text);
	cr_assert_eq(loop_iterate(loop, true), 0);
	cr_assert_gt(viommu->timer_ns, 0);
}

static void *run_loop(void *opaque)
{
	(void)opaque;
	loop_run(loop);
	return NULL;
}

Test(retained, ticks_come_between_the_requests_of_another_thread)
{
	pthread_t thread;
	unsigned int n = 0;

	start("keeper,time=1ms");
	cr_assert_eq(attach(1, ONE), VIOMMU_OK);
	cr_assert_eq(pthread_create(&thread, NULL, run_loop, NULL), 0);
	for (bool enough = false; !enough; n++) {
		uint64_t iova = STALE + n % 64 * PAGE;

		retain(iova, 0x10000 + n % 64 * PAGE);
		pthread_mutex_lock(&viommu->serial);
		enough = keeper_log.ticks >= 20;
		pthread_mutex_unlock(&viommu->serial);
	}
	loop_stop(loop);
	pthread_join(thread, NULL);
	check_count();
}

Test(retained, a_strategy_with_a_timer_is_refused_where_there_is_none)
{
	const struct hw_domain_config config = {.name = "x", .strategy = "keeper", .log = &silent};
	struct hw_domain_config with = config;
	struct hw_domain *domain;

	start("keeper");
	with.iommu = iommu;
	with.gmem = gmem;
	cr_assert_eq(hw_domain_create(&domain, &with, &err), 0);
	cr_assert_eq(hw_domain_attach(domain, device[0], &err), -EOPNOTSUPP);
	cr_assert(strstr(err.text, "timer"), "%s", err.text);
	cr_assert_null(iommu_endpoint_ioas(device[0]));
	hw_domain_destroy(domain);
}

/* --- any sequence --- */

enum { PAGES = 24, STEPS = 4000 };

/* What is wanted is reached, and nothing is reached that has no record. */
static void check_reach(unsigned int step)
{
	struct mappings *table = &domain_1()->table;

	check_count();
	for (uint64_t at = STALE; at < STALE + PAGES * PAGE; at += PAGE) {
		const struct mapping *m = mappings_find(table, at, at);
		void *want = m ? memory(m->gpa + (at - m->iova)) : NULL;

		cr_assert_eq(reach(at), want, "step %u page %#llx", step, (unsigned long long)at);
	}
}

static unsigned int below(unsigned int n)
{
	return (unsigned int)(random() % n);
}

static void step_once(unsigned int step)
{
	uint64_t first = below(PAGES),
		 bytes = MIN(1 + below(4), PAGES - (unsigned int)first) * PAGE;
	uint64_t iova = STALE + first * PAGE, gpa = 0x10000 + (first % 8 + below(8) / 7) * PAGE;
	enum viommu_status status;

	switch (below(100)) {
	case 0:
		cr_assert_eq(
			viommu_switch(viommu, NULL, below(2) ? "keeper,entries=8" : "strict", &err),
			0, "%s", err.text);
		break;
	case 1:
		gmem_hold(gmem);
		viommu_memory_leaves(viommu, gpa, PAGE);
		gmem_release(gmem);
		break;
	case 2:
		cr_assert_eq(attach(2, ONE), VIOMMU_OK);
		cr_assert_eq(attach(1, ONE), VIOMMU_OK);
		break;
	default:
		status = (enum viommu_status)(below(2) ? map(1, iova, gpa, bytes, RW)
						       : unmap(iova, bytes));
		cr_assert(status == VIOMMU_OK || status == VIOMMU_INVAL || status == VIOMMU_RANGE ||
				  status == VIOMMU_NOMEM,
			  "step %u: %u", step, status);
	}
}

Test(retained, random_sequences_leave_nothing_reachable_without_a_record)
{
	start("keeper,entries=8");
	viommu->limits.mappings = 12;
	cr_assert_eq(attach(1, EMULATED), VIOMMU_OK);
	cr_assert_eq(attach(1, ONE), VIOMMU_OK);
	srandom(1); /* so that a failure can be had again */
	for (unsigned int step = 0; step < STEPS; step++) {
		step_once(step);
		check_reach(step);
	}
	cr_assert_gt(keeper_log.revived, 0);
}
