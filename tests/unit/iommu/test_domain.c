// SPDX-License-Identifier: Apache-2.0
// hw_domains and the strategy 'direct', over guest memory and a fake backend.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "fake_iommu.h"
#include "guest_ram.h"
#include "iommu/ledger.h"
#include "owner.h"

enum { RW = IOAS_READ | IOAS_WRITE };

static struct gmem *gmem;
static const struct log silent;
static struct iommu *iommu;
static struct hw_domain *domain;
static struct owner owner;
static struct iommu_endpoint *device;
static struct err err;

static void add(const char *name, uint64_t gpa, uint64_t size, unsigned int flags)
{
	guest_ram_add(gmem, name, gpa, size, flags);
}

static void take(uint64_t gpa)
{
	cr_assert_eq(gmem_begin(gmem, &err), 0);
	cr_assert_eq(gmem_remove(gmem, gpa, &err), 0, "%s", err.text);
	cr_assert_eq(gmem_commit(gmem, &err), 0, "%s", err.text);
}

static struct iommu_endpoint *endpoint(const char *name)
{
	struct iommu_endpoint_config config = {.name = name, .fd = -1};
	struct iommu_endpoint *ret = NULL;

	cr_assert_eq(iommu_endpoint_create(&ret, iommu, &config, &err), 0, "%s", err.text);
	return ret;
}

static struct hw_domain *make_domain(const char *name, unsigned int threads)
{
	struct hw_domain_config config = {
		.name = name,
		.strategy = "direct",
		.iommu = iommu,
		.gmem = gmem,
		.guest = &owner.table,
		.map_threads = threads,
	};
	struct hw_domain *ret = NULL;

	cr_assert_eq(hw_domain_create(&ret, &config, &err), 0, "%s", err.text);
	return ret;
}

static void setup(void)
{
	cr_assert_eq(fake_iommu_create(&iommu, &silent, &err), 0);
	cr_assert_eq(gmem_create(&gmem, NULL, &err), 0);
	add("low", 0, 4 * MiB, 0);
	mappings_init(&owner.table);
	domain = make_domain("a", 0);
	owner.domain = domain;
	owner.gmem = gmem;
	device = endpoint("dev");
}

static void teardown(void)
{
	hw_domain_detach(domain, device);
	iommu_endpoint_destroy(device);
	hw_domain_destroy(domain);
	mappings_done(&owner.table);
	gmem_destroy(gmem);
	iommu_destroy(iommu);
}

TestSuite(domain, .init = setup, .fini = teardown);

/* The memory that a device reaches, or NULL. */
static void *reach(const struct hw_domain *d, uint64_t gpa, unsigned int access)
{
	uint64_t bytes;
	void *hva;

	return fake_translate(hw_domain_ioas(d), gpa, access, &hva, &bytes) ? NULL : hva;
}

static void attach(void)
{
	cr_assert_eq(hw_domain_attach(domain, device, &err), 0, "%s", err.text);
}

Test(domain, without_a_device_nothing_is_mapped)
{
	cr_assert_null(reach(domain, 0, IOAS_READ));
	attach();
	cr_assert_eq(reach(domain, 0, RW), gmem_host(gmem, 0, 1, true));
	hw_domain_detach(domain, device);
	cr_assert_null(reach(domain, 0, IOAS_READ));
	attach();
	cr_assert_not_null(reach(domain, 0, RW));
}

Test(domain, every_byte_of_ram_is_mapped_where_the_guest_has_it)
{
	add("high", 4 * GiB, 2 * MiB, 0);
	attach();
	cr_assert_eq(reach(domain, 4 * MiB - 1, RW), gmem_host(gmem, 4 * MiB - 1, 1, true));
	cr_assert_eq(reach(domain, 4 * GiB + 12345, RW), gmem_host(gmem, 4 * GiB + 12345, 1, true));
	cr_assert_null(reach(domain, 4 * MiB, IOAS_READ));
	cr_assert_null(reach(domain, 4 * GiB - 1, IOAS_READ));
	cr_assert_null(reach(domain, 4 * GiB + 2 * MiB, IOAS_READ));
}

Test(domain, memory_that_comes_and_goes_is_followed)
{
	attach();
	add("more", GiB, 2 * MiB, 0);
	cr_assert_eq(reach(domain, GiB, RW), gmem_host(gmem, GiB, 1, true));
	take(GiB);
	cr_assert_null(reach(domain, GiB, IOAS_READ));
	take(0);
	cr_assert_null(reach(domain, 0, IOAS_READ));
}

Test(domain, memory_not_for_devices_is_left_out_and_rom_is_read_only)
{
	add("rom", GiB, MiB, GMEM_READONLY);
	add("private", 2 * GiB, MiB, GMEM_NO_DMA);
	attach();
	cr_assert_not_null(reach(domain, GiB, IOAS_READ));
	cr_assert_null(reach(domain, GiB, IOAS_WRITE));
	cr_assert_null(reach(domain, 2 * GiB, IOAS_READ));
}

Test(domain, a_region_is_mapped_in_shards_by_threads)
{
	struct hw_domain *d = make_domain("threads", 4);
	struct iommu_endpoint *e = endpoint("e");
	struct ledger_totals totals;

	/* Not touched, so that a GiB costs nothing; not a multiple of a shard. */
	add("big", 4 * GiB, GiB + 2 * MiB, 0);
	cr_assert_eq(hw_domain_attach(d, e, &err), 0, "%s", err.text);
	for (uint64_t at = 0; at < GiB + 2 * MiB; at += 2 * MiB)
		cr_assert_eq(reach(d, 4 * GiB + at, RW), gmem_host(gmem, 4 * GiB + at, 1, true));
	ioas_totals(hw_domain_ioas(d), &totals);
	cr_assert_eq(totals.kind[LEDGER_MAP].calls, 1 + 16, "%llu calls",
		     (unsigned long long)totals.kind[LEDGER_MAP].calls);
	cr_assert_eq(totals.mapped_bytes, GiB + 6 * MiB);
	hw_domain_detach(d, e);
	ioas_totals(hw_domain_ioas(d), &totals);
	cr_assert_eq(totals.mapped_bytes, 0);
	iommu_endpoint_destroy(e);
	hw_domain_destroy(d);
}

Test(domain, a_second_domain_shares_what_the_first_has_pinned)
{
	struct hw_domain *b = make_domain("b", 0);
	struct iommu_endpoint *e = endpoint("e");
	struct ledger_totals totals;

	attach();
	cr_assert_eq(hw_domain_attach(b, e, &err), 0, "%s", err.text);
	cr_assert_eq(reach(b, 12345, RW), gmem_host(gmem, 12345, 1, true));
	ioas_totals(hw_domain_ioas(b), &totals);
	cr_assert_eq(totals.kind[LEDGER_COPY].calls, 1);
	cr_assert_eq(totals.kind[LEDGER_MAP].calls, 0);
	/* The first one leaves; the second keeps what it reaches. */
	hw_domain_detach(domain, device);
	cr_assert_not_null(reach(b, 12345, RW));
	hw_domain_detach(b, e);
	iommu_endpoint_destroy(e);
	hw_domain_destroy(b);
}

Test(domain, a_conflict_refuses_the_memory_and_leaves_all_as_it_was)
{
	struct ioas_memory other = {.hva = gmem_host(gmem, 0, 1, true), .fd = -1};
	struct gmem_region_config config = {
		.name = "new",
		.gpa = GiB,
		.size_bytes = 2 * MiB,
		.backing = GMEM_ANONYMOUS,
		.numa_node = -1,
		.fd = -1,
	};

	attach();
	cr_assert_eq(ioas_map(hw_domain_ioas(domain), GiB + MiB, 0x1000, &other, RW), 0);
	cr_assert_eq(gmem_begin(gmem, &err), 0);
	cr_assert_eq(gmem_add(gmem, &config, &err), 0);
	cr_assert_eq(gmem_commit(gmem, &err), -EEXIST);
	cr_assert(strstr(err.text, "memory 'new'") && strstr(err.text, "0x40100000"), "%s",
		  err.text);
	cr_assert_null(gmem_host(gmem, GiB, 1, true));
	cr_assert_null(reach(domain, GiB, IOAS_READ));
	cr_assert_eq(reach(domain, GiB + MiB, RW), other.hva, "what was there stays");
}

Test(domain, switching_builds_a_new_space_and_moves_every_device)
{
	/* At its own address: a mapping of its own in one strategy, a part of one in the other. */
	struct request r = {.iova = 0x3000, .gpa = 0x3000, .bytes = 4096, .access = RW};
	struct iommu_endpoint *e = endpoint("e");
	struct ioas *before;

	attach();
	cr_assert_eq(owner_map(&owner, &r, 1), 0);
	cr_assert_eq(hw_domain_attach(domain, e, &err), 0);
	before = hw_domain_ioas(domain);
	cr_assert_eq(hw_domain_switch(domain, "strict", &err), 0, "%s", err.text);
	cr_assert_neq(hw_domain_ioas(domain), before);
	cr_assert_eq(iommu_endpoint_ioas(device), hw_domain_ioas(domain));
	cr_assert_eq(iommu_endpoint_ioas(e), hw_domain_ioas(domain));
	cr_assert_null(reach(domain, 0, IOAS_READ));
	cr_assert_eq(hw_domain_switch(domain, "direct", &err), 0, "%s", err.text);
	cr_assert_eq(reach(domain, 0, RW), gmem_host(gmem, 0, 1, true));
	add("more", GiB, 2 * MiB, 0);
	cr_assert_not_null(reach(domain, GiB, RW));
	hw_domain_detach(domain, e);
	iommu_endpoint_destroy(e);
}

Test(domain, switching_to_the_strategy_that_it_has_does_nothing)
{
	struct ioas *before;

	attach();
	before = hw_domain_ioas(domain);
	cr_assert_eq(hw_domain_switch(domain, "direct", &err), 0, "%s", err.text);
	cr_assert_eq(hw_domain_ioas(domain), before);
	cr_assert_eq(reach(domain, 0, RW), gmem_host(gmem, 0, 1, true));
}

Test(domain, a_device_that_can_neither_move_nor_go_back_is_in_no_domain)
{
	struct request r = {.iova = 0x3000, .gpa = 0x3000, .bytes = 4096, .access = RW};
	struct iommu_endpoint *e = endpoint("e");

	attach();
	cr_assert_eq(hw_domain_attach(domain, e, &err), 0);
	cr_assert_eq(owner_map(&owner, &r, 1), 0);
	/* The first moves, the second cannot, and the first cannot move back. */
	fake.attach_after = 1;
	fake.attach_fails = 2;
	cr_assert_eq(hw_domain_switch(domain, "strict", &err), -ENOMEM);
	cr_assert_null(iommu_endpoint_ioas(device));
	cr_assert_eq(iommu_endpoint_ioas(e), hw_domain_ioas(domain));
	cr_assert_str_eq(hw_domain_strategy(domain), "direct");
	hw_domain_detach(domain, e);
	cr_assert_null(reach(domain, 0, IOAS_READ), "with the last device all is unmapped");
	iommu_endpoint_destroy(e);
}

Test(domain, an_unknown_strategy_is_refused_with_those_there_are)
{
	attach();
	cr_assert_eq(hw_domain_switch(domain, "magic", &err), -EINVAL);
	cr_assert(strstr(err.text, "direct"), "%s", err.text);
	cr_assert_str_eq(hw_domain_strategy(domain), "direct");
	cr_assert_not_null(reach(domain, 0, RW));
}

Test(domain, without_a_device_a_map_is_refused)
{
	struct request r = {.iova = GiB, .bytes = 4096, .access = RW};

	cr_assert_eq(owner_map(&owner, &r, 1), 1);
	cr_assert_eq(r.result, -ENODEV);
}

Test(domain, what_the_guest_has_mapped_before_the_first_device_is_mapped_for_it)
{
	struct request r = {.iova = GiB, .gpa = 0x5000, .bytes = 4096, .access = RW};
	struct hw_request ignored;
	struct mapping *m;

	cr_assert_eq(owner_insert(&owner, &r, &ignored), 0);
	m = mappings_find(&owner.table, GiB, GiB);
	m->state = MAPPING_WANTED;
	attach();
	cr_assert_eq(reach(domain, GiB, RW), gmem_host(gmem, 0x5000, 1, true));
	hw_domain_detach(domain, device);
	cr_assert_null(reach(domain, GiB, RW));
}

Test(domain, direct_maps_elsewhere_what_the_guest_has_there_and_keeps_the_rest)
{
	struct request requests[] = {
		{.iova = 0x3000, .gpa = 0x3000, .bytes = 4096, .access = IOAS_READ},
		{.iova = GiB, .gpa = 0x5000, .bytes = 4096, .access = IOAS_READ},
		{.iova = 0x8000, .gpa = 0x5000, .bytes = 4096, .access = IOAS_READ},
	};
	struct request all = {.iova = 0, .bytes = 2 * GiB};
	struct ledger_totals totals;

	attach();
	cr_assert_eq(owner_map(&owner, requests, 3), 1);
	cr_assert_eq(requests[2].result, -EEXIST, "memory is in the way");
	cr_assert_eq(reach(domain, GiB, IOAS_READ), gmem_host(gmem, 0x5000, 1, true));
	cr_assert_null(reach(domain, GiB, IOAS_WRITE));
	ioas_totals(hw_domain_ioas(domain), &totals);
	cr_assert_eq(totals.requested_bytes, 8192);
	cr_assert_eq(totals.mapped_bytes, 4 * MiB + 4096);
	cr_assert_eq(owner_unmap(&owner, &all, 1), 0);
	cr_assert_null(reach(domain, GiB, IOAS_READ));
	cr_assert_not_null(reach(domain, 0x3000, RW));
	ioas_totals(hw_domain_ioas(domain), &totals);
	cr_assert_eq(totals.requested_bytes, 0);
}
