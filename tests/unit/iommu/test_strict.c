// SPDX-License-Identifier: Apache-2.0
// The strategy 'strict' over guest memory and a fake backend: named cases, and random sequences
// against a model that predicts every result and every reachable page.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "fake_iommu.h"
#include "guest_ram.h"
#include "iommu/ledger.h"
#include "owner.h"

enum { PAGE = 4096, R = IOAS_READ, W = IOAS_WRITE, RW = R | W };
/* Guest memory, in pages: two adjacent regions of RAM, ROM, and memory without DMA. */
enum { RAM = 16, ROM = 32, ROM_END = 36, PRIVATE = 40, PRIVATE_END = 44, GPA_PAGES = 48 };
#define BASE (1ull << 40) /* the iovas of the test: not the gpas of memory */

static struct gmem *gmem;
static const struct log silent;
static struct iommu *iommu;
static struct hw_domain *domain;
static struct owner owner;
static struct iommu_endpoint *device;
static struct err err;

static void add(const char *name, uint64_t first, uint64_t end, unsigned int flags)
{
	guest_ram_add(gmem, name, first * PAGE, (end - first) * PAGE, flags);
}

static void setup(void)
{
	struct iommu_endpoint_config e = {.name = "dev", .fd = -1};
	struct hw_domain_config d = {.name = "a", .strategy = "strict"};

	cr_assert_eq(fake_iommu_create(&iommu, &silent, &err), 0);
	cr_assert_eq(gmem_create(&gmem, NULL, &err), 0);
	add("a", 0, RAM, 0);
	add("b", RAM, ROM, 0);
	add("rom", ROM, ROM_END, GMEM_READONLY);
	add("private", PRIVATE, PRIVATE_END, GMEM_NO_DMA);
	d.iommu = iommu;
	d.gmem = gmem;
	mappings_init(&owner.table);
	d.guest = &owner.table;
	cr_assert_eq(hw_domain_create(&domain, &d, &err), 0, "%s", err.text);
	owner.domain = domain;
	owner.gmem = gmem;
	cr_assert_eq(iommu_endpoint_create(&device, iommu, &e, &err), 0);
	cr_assert_eq(hw_domain_attach(domain, device, &err), 0, "%s", err.text);
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

TestSuite(strict, .init = setup, .fini = teardown);

static void *reach(uint64_t iova, unsigned int access)
{
	uint64_t bytes;
	void *hva;

	return fake_translate(hw_domain_ioas(domain), iova, access, &hva, &bytes) ? NULL : hva;
}

static struct request page(uint64_t at, uint64_t gpa_page, unsigned int access)
{
	return (struct request){
		.iova = BASE + at * PAGE, .bytes = PAGE, .gpa = gpa_page * PAGE, .access = access};
}

static struct ledger_totals totals(void)
{
	struct ledger_totals t;

	ioas_totals(hw_domain_ioas(domain), &t);
	return t;
}

Test(strict, at_first_nothing_is_mapped)
{
	cr_assert_eq(totals().mapped_bytes, 0);
	cr_assert_null(reach(0, R));
}

Test(strict, neighbours_of_a_batch_are_mapped_each_and_unmapped_in_one_call)
{
	struct request r[] = {page(0, 3, RW), page(1, 4, RW), page(2, 9, R), page(6, 10, R)};
	struct request back[] = {page(0, 0, 0), page(1, 0, 0), page(2, 0, 0), page(6, 0, 0)};

	cr_assert_eq(owner_map(&owner, r, 4), 0);
	cr_assert_eq(totals().kind[LEDGER_MAP].calls, 4);
	cr_assert_eq(reach(BASE + PAGE, RW), gmem_host(gmem, 4 * PAGE, 1, true));
	cr_assert_null(reach(BASE + 2 * PAGE, W));
	cr_assert_eq(owner_unmap(&owner, back, 4), 0);
	cr_assert_eq(totals().kind[LEDGER_UNMAP].calls, 2);
	cr_assert_eq(totals().mapped_bytes, 0);
}

Test(strict, one_of_a_batch_goes_alone)
{
	struct request r[] = {page(0, 3, RW), page(1, 4, RW), page(2, 5, RW)};
	struct request back = page(1, 0, 0);

	cr_assert_eq(owner_map(&owner, r, 3), 0);
	cr_assert_eq(owner_unmap(&owner, &back, 1), 0);
	cr_assert_null(reach(BASE + PAGE, R));
	cr_assert_eq(reach(BASE, RW), gmem_host(gmem, 3 * PAGE, 1, true));
	cr_assert_eq(reach(BASE + 2 * PAGE, RW), gmem_host(gmem, 5 * PAGE, 1, true));
	cr_assert_eq(totals().mapped_bytes, 2 * PAGE);
}

Test(strict, of_a_batch_the_one_to_blame_fails)
{
	struct ioas_memory in_the_way = {.hva = gmem_host(gmem, 0, 1, true), .fd = -1};
	struct request r[] = {page(0, 3, RW), page(1, 4, RW), page(2, 5, RW)};

	cr_assert_eq(ioas_map(hw_domain_ioas(domain), BASE + PAGE, PAGE, &in_the_way, IOAS_READ),
		     0);
	cr_assert_eq(owner_map(&owner, r, 3), 1);
	cr_assert_eq(r[0].result, 0);
	cr_assert_eq(r[1].result, -EEXIST);
	cr_assert_eq(r[2].result, 0);
	cr_assert_eq(totals().requested_bytes, 2 * PAGE);
	cr_assert_not_null(reach(BASE + 2 * PAGE, RW));
	cr_assert_null(reach(BASE + PAGE, W));
}

Test(strict, a_request_over_two_regions_is_mapped_whole_and_cut_by_none)
{
	struct request r = {.iova = BASE, .gpa = (RAM - 2) * PAGE, .bytes = 4 * PAGE, .access = RW};
	struct request part = page(1, 0, 0);

	cr_assert_eq(owner_map(&owner, &r, 1), 0);
	for (uint64_t i = 0; i < 4; i++)
		cr_assert_eq(reach(BASE + i * PAGE, RW),
			     gmem_host(gmem, (RAM - 2 + i) * PAGE, 1, true));
	cr_assert_eq(owner_unmap(&owner, &part, 1), 1);
	cr_assert_eq(part.result, -ERANGE);
	cr_assert_not_null(reach(BASE + PAGE, RW));
	r.result = -1;
	cr_assert_eq(owner_unmap(&owner, &r, 1), 0);
	cr_assert_eq(totals().mapped_bytes, 0);
}

Test(strict, requests_that_wrap_around_together_are_each_taken_for_themselves)
{
	struct request top = {.iova = -(uint64_t)PAGE, .gpa = 0, .bytes = PAGE, .access = R};
	struct request low = {.iova = 0, .gpa = PAGE, .bytes = PAGE, .access = R};
	struct request back[] = {
		{.iova = 1ull << 63, .bytes = 1ull << 63},
		{.iova = 0, .bytes = (1ull << 63) + PAGE},
	};
	struct request both[] = {top, low};

	cr_assert_eq(owner_map(&owner, both, 2), 0);
	cr_assert_not_null(reach(top.iova, R));
	cr_assert_not_null(reach(0, R));
	cr_assert_eq(owner_unmap(&owner, back, 2), 0);
	cr_assert_null(reach(top.iova, R));
	cr_assert_null(reach(0, R));
	cr_assert_eq(totals().requested_bytes, 0);
}

Test(strict, what_cannot_be_taken_over_leaves_the_strategy_as_it_was)
{
	struct request r = {.iova = 2 * PAGE, .gpa = PAGE, .bytes = PAGE, .access = R};

	cr_assert_eq(owner_map(&owner, &r, 1), 0);
	cr_assert_eq(hw_domain_switch(domain, "direct", &err), -EEXIST);
	cr_assert(strstr(err.text, "0x2000"), "%s", err.text);
	cr_assert_str_eq(hw_domain_strategy(domain), "strict");
	cr_assert_eq(reach(2 * PAGE, R), gmem_host(gmem, PAGE, 1, true));
	cr_assert_null(reach(0, R));
}

Test(strict, the_last_device_that_leaves_reaches_nothing_and_the_records_wait_for_the_next)
{
	struct request r = page(0, 3, RW);

	cr_assert_eq(owner_map(&owner, &r, 1), 0);
	hw_domain_detach(domain, device);
	cr_assert_eq(totals().mapped_bytes, 0);
	cr_assert_eq(totals().requested_bytes, 0);
	cr_assert_eq(hw_domain_attach(domain, device, &err), 0);
	cr_assert_eq(reach(BASE, RW), gmem_host(gmem, 3 * PAGE, 1, true));
	cr_assert_eq(totals().requested_bytes, PAGE);
}

/* --- against a model --- */

enum { IOVA_PAGES = 40, DRAIN = 8, STEPS = 20000 };

static struct {
	unsigned int request; /* 0: not mapped */
	unsigned int gpa_page, access;
} model[IOVA_PAGES];
static unsigned int numbers;

static int model_map(const struct request *r)
{
	unsigned int at = (unsigned int)((r->iova - BASE) / PAGE);
	unsigned int n = (unsigned int)(r->bytes / PAGE);
	unsigned int gpa = (unsigned int)(r->gpa / PAGE);

	for (unsigned int i = 0; i < n; i++) {
		if (gpa + i >= ROM_END)
			return -EFAULT;
		if (gpa + i >= ROM && r->access & W)
			return -EPERM;
	}
	for (unsigned int i = 0; i < n; i++) {
		if (model[at + i].request)
			return -EEXIST;
	}
	numbers++;
	for (unsigned int i = 0; i < n; i++) {
		model[at + i].request = numbers;
		model[at + i].gpa_page = gpa + i;
		model[at + i].access = r->access;
	}
	return 0;
}

static int model_unmap(const struct request *r)
{
	unsigned int at = (unsigned int)((r->iova - BASE) / PAGE);
	unsigned int end = at + (unsigned int)(r->bytes / PAGE);

	if ((at && model[at].request && model[at].request == model[at - 1].request) ||
	    (end < IOVA_PAGES && model[end].request &&
	     model[end].request == model[end - 1].request))
		return -ERANGE;
	for (; at < end; at++)
		model[at].request = 0;
	return 0;
}

static void check_model(unsigned int step)
{
	struct ledger_totals t = totals();
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < IOVA_PAGES; i++) {
		unsigned int access = model[i].request ? model[i].access : 0;
		void *hva = gmem_host(gmem, (uint64_t)model[i].gpa_page * PAGE, 1, false);
		uint64_t iova = BASE + (uint64_t)i * PAGE;

		cr_assert_eq(reach(iova, R), access & R ? hva : NULL, "step %u page %u", step, i);
		cr_assert_eq(reach(iova, W), access & W ? hva : NULL, "step %u page %u", step, i);
		bytes += access ? PAGE : 0;
	}
	cr_assert_eq(t.requested_bytes, bytes, "step %u", step);
	cr_assert_eq(t.stale_bytes, 0);
	if (strcmp(hw_domain_strategy(domain), "strict") == 0)
		cr_assert_eq(t.mapped_bytes, bytes, "step %u", step);
	else
		cr_assert_eq(t.mapped_bytes, bytes + ROM_END * PAGE, "step %u", step);
}

static unsigned int below(unsigned int n)
{
	return (unsigned int)(random() % n);
}

/* Mostly neighbours, so that there is something to join. */
static void make_drain(struct request *r, unsigned int n)
{
	unsigned int at = below(IOVA_PAGES), gpa = below(GPA_PAGES);
	unsigned int access = below(8) ? RW : R;

	for (unsigned int i = 0; i < n; i++) {
		unsigned int pages = 1 + below(3);

		if (!below(6))
			at = below(IOVA_PAGES);
		if (!below(6))
			gpa = below(GPA_PAGES);
		if (!below(8))
			access = 1 + below(3);
		at %= IOVA_PAGES;
		pages = MIN(pages, IOVA_PAGES - at);
		r[i] = page(at, gpa, access);
		r[i].bytes = (uint64_t)pages * PAGE;
		r[i].result = 12345;
		at += pages;
		gpa += pages;
	}
}

static void run_model(unsigned int steps)
{
	for (unsigned int step = 0; step < steps; step++) {
		unsigned int n = 1 + below(DRAIN), want_failed = 0, failed;
		bool unmap = below(2);
		struct request r[DRAIN];
		int want[DRAIN];

		make_drain(r, n);
		for (unsigned int i = 0; i < n; i++) {
			want[i] = unmap ? model_unmap(&r[i]) : model_map(&r[i]);
			want_failed += want[i] != 0;
		}
		failed = unmap ? owner_unmap(&owner, r, n) : owner_map(&owner, r, n);
		for (unsigned int i = 0; i < n; i++)
			cr_assert_eq(r[i].result, want[i], "step %u, %s %u of %u: %d, not %d", step,
				     unmap ? "unmap" : "map", i, n, r[i].result, want[i]);
		cr_assert_eq(failed, want_failed);
		check_model(step);
		if (!below(50)) {
			cr_assert_eq(hw_domain_switch(domain, below(2) ? "strict" : "direct", &err),
				     0, "%s", err.text);
			check_model(step);
		}
	}
}

Test(strict, random_sequences_and_switches_agree_with_a_model)
{
	/* A fixed seed, so that a failure can be repeated. */
	srandom(1);
	run_model(STEPS);
}
