// SPDX-License-Identifier: Apache-2.0
// The strategy 'strict' on a real device:   strict iommufd|type1 EDU ROUNDS SWITCHES
//
// A round is ten pages mapped and unmapped, with DMA to one of them before and after. edu takes 100
// ms for each DMA, which is the time this takes; and in which the table changes under it.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "core/gmem.h"
#include "iommu/ledger.h"
#include "owner.h"
#include "real.h"

enum { RW = IOAS_READ | IOAS_WRITE, PAGE = 4096, DRAIN = 10, DMA = 8 };
#define MEMORY (16 * MiB)
#define BASE   (128 * MiB) /* the addresses of the guest: edu has 28 bits */

static struct iommu *iommu;
static struct gmem *gmem;
static struct hw_domain *domain;
static struct owner owner;
static struct edu edu;
static const char *edu_bdf;

static void make_guest(void)
{
	struct gmem_region_config config = {
		.name = "ram",
		.size_bytes = MEMORY,
		.backing = GMEM_ANONYMOUS,
		.numa_node = -1,
		.fd = -1,
	};
	struct hw_domain_config d = {.name = "d", .strategy = "strict", .log = &test_log};

	need(!gmem_create(&gmem, &test_log, &err), "gmem: %s", err.text);
	need(!gmem_begin(gmem, &err) && !gmem_add(gmem, &config, &err) && !gmem_commit(gmem, &err),
	     "memory: %s", err.text);
	d.iommu = iommu;
	d.gmem = gmem;
	mappings_init(&owner.table);
	d.guest = &owner.table;
	need(!hw_domain_create(&domain, &d, &err), "domain: %s", err.text);
	owner.domain = domain;
	owner.gmem = gmem;
}

static char *host(uint64_t gpa)
{
	return gmem_host(gmem, gpa, PAGE, true);
}

static struct ledger_totals totals(void)
{
	struct ledger_totals t;

	ioas_totals(hw_domain_ioas(domain), &t);
	return t;
}

static struct request page(uint64_t at, uint64_t gpa)
{
	return (struct request){.iova = BASE + at * PAGE, .bytes = PAGE, .gpa = gpa, .access = RW};
}

/* Does a word that the device writes get there? */
static bool lands(uint64_t iova, char *at)
{
	static char other[DMA];

	memset(at, 0x11, DMA);
	memset(other, 0x11, DMA);
	edu_write(&edu, iova, DMA);
	return memcmp(at, other, DMA) != 0;
}

/* --- each round: mapped it is reached, unmapped it is not --- */

static void check_rounds(unsigned int rounds)
{
	unsigned int bad_calls = 0, reached = 0, stopped = 0;
	struct ledger_totals before = totals(), t;

	for (unsigned int round = 0; round < rounds; round++) {
		unsigned int chosen = (unsigned int)random() % DRAIN;
		struct request r[DRAIN];

		/* Every second page of memory, so that all are calls of their own; at neighbouring
		 * addresses, so that they go in one. */
		for (unsigned int i = 0; i < DRAIN; i++)
			r[i] = page(i, (uint64_t)(random() % 1000 * 2) * PAGE + MiB);
		bad_calls += owner_map(&owner, r, DRAIN);
		reached += lands(r[chosen].iova, host(r[chosen].gpa));
		bad_calls += owner_unmap(&owner, r, DRAIN);
		stopped += !lands(r[chosen].iova, host(r[chosen].gpa));
	}
	t = totals();
	check(bad_calls == 0, "%u maps and unmaps", rounds * DRAIN);
	check(reached == rounds, "mapped, a page is reached: %u of %u", reached, rounds);
	check(stopped == rounds, "unmapped, it is not: %u of %u", stopped, rounds);
	check(t.kind[LEDGER_MAP].calls - before.kind[LEDGER_MAP].calls == rounds * DRAIN &&
		      t.kind[LEDGER_UNMAP].calls - before.kind[LEDGER_UNMAP].calls == rounds,
	      "scattered pages are a call each, and go in one");
	check(!t.mapped_bytes && !t.requested_bytes && !t.pinned_bytes && !t.stale_bytes,
	      "nothing is left mapped, requested, pinned or stale");
}

static void check_told(void)
{
	struct iommu_fault fault = {.write = false};
	struct request r = page(3, MiB);
	bool told = false;
	char history[120];

	owner_map(&owner, &r, 1);
	check(lands(r.iova, host(MiB)), "before: reached");
	owner_unmap(&owner, &r, 1);
	for (unsigned int i = 0; i < 4 && !told; i++) {
		edu_write(&edu, r.iova, DMA);
		told = fault_seen(edu_bdf, r.iova, true, &fault);
	}
	ioas_history(hw_domain_ioas(domain), r.iova, history, sizeof(history));
	check(told && strstr(history, "unmapped ") == history && strstr(history, "gpa 0x100000"),
	      "after: a fault, %s: %s", fault.reason, history);
}

/* --- what was mapped together --- */

static void check_part(void)
{
	struct request r[] = {page(0, MiB), page(1, MiB + PAGE), page(2, MiB + 2 * PAGE)};
	struct ledger_totals before = totals();

	memset(host(MiB), 0x77, PAGE);
	check(owner_map(&owner, r, 3) == 0 &&
		      totals().kind[LEDGER_MAP].calls - before.kind[LEDGER_MAP].calls == 3,
	      "neighbours are mapped by a call each, so that each can go alone");
	edu_read(&edu, r[0].iova, PAGE);
	memset(host(r[2].gpa), 0, PAGE);
	/* The part goes while the device works on another. */
	edu_start_write(&edu, r[2].iova, PAGE);
	check(owner_unmap(&owner, &r[1], 1) == 0, "one of them goes");
	edu_wait(&edu);
	check(!memcmp(host(r[2].gpa), host(MiB), PAGE), "under a DMA to another, which arrives");
	check(!lands(r[1].iova, host(r[1].gpa)) && lands(r[0].iova, host(r[0].gpa)),
	      "that one is not reached, the others are");
	check(totals().mapped_bytes == 2 * PAGE && totals().pinned_bytes >= 2 * PAGE,
	      "%llu bytes mapped, %llu pinned", (unsigned long long)totals().mapped_bytes,
	      (unsigned long long)totals().pinned_bytes);
	owner_unmap(&owner, r, 3);
}

/* --- direct and strict in turn, while the device works on what stays mapped --- */

static bool run_under_dma(unsigned int switches)
{
	struct request r[] = {page(0, MiB), page(1, 2 * MiB), page(7, 3 * MiB)};
	unsigned int done = 0, dmas = 0, wrong = 0, lost = 0, code = 0, ledger = 0;

	code = owner_map(&owner, r, 3);
	while (done < switches && !code) {
		for (unsigned int i = 0; i < PAGE; i++)
			host(MiB)[i] = (char)random();
		edu_read(&edu, r[0].iova, PAGE);
		memset(host(2 * MiB), 0, PAGE);
		edu_start_write(&edu, r[1].iova, PAGE);
		do {
			bool direct = !strcmp(hw_domain_strategy(domain), "direct");
			struct ledger_totals t;

			code = hw_domain_switch(domain, direct ? "strict" : "direct", &err) != 0;
			t = totals();
			ledger += t.requested_bytes != 3 * PAGE ||
				  t.mapped_bytes != 3 * PAGE + (direct ? 0 : MEMORY);
			done++;
		} while (edu_runs(&edu) && done < switches && !code);
		edu_wait(&edu);
		dmas++;
		lost += memcmp(host(MiB), host(2 * MiB), PAGE) != 0;
		edu_write(&edu, r[1].iova, PAGE);
		wrong += memcmp(host(MiB), host(2 * MiB), PAGE) != 0;
	}
	check(!code && done == switches, "%u switches under %u DMAs of a page: %s", done, dmas,
	      err.text);
	check(!lost, "none of them is lost (%u are)", lost);
	check(!wrong, "after each bunch of switches a DMA is right (%u are not)", wrong);
	check(!ledger, "the ledger is right after each (%u are not)", ledger);
	if (done % 2)
		hw_domain_switch(domain, "strict", &err);
	check(!lands(3 * MiB, host(3 * MiB)) && lands(r[2].iova, host(3 * MiB)),
	      "strict at the end: what the guest mapped, and not memory at its own address");
	return !owner_unmap(&owner, r, 3);
}

int main(int argc, char **argv)
{
	struct iommu_config config = {.log = &test_log, .iommufd = -1};
	struct iommu_endpoint *device;

	if (argc != 5)
		return 2;
	config.kind = !strcmp(argv[1], "type1") ? IOMMU_TYPE1 : IOMMU_IOMMUFD;
	edu_bdf = argv[2];
	need(!iommu_create(&iommu, &config, &err), "iommu: %s", err.text);
	make_guest();
	faults_open();
	device = make_endpoint(iommu, edu_bdf);
	check(hw_domain_attach(domain, device, &err) == 0, "the device is attached: %s", err.text);
	edu_open(&edu, iommu_endpoint_device_fd(device));
	check(!lands(MiB, host(MiB)), "guest memory is not reached unasked");
	check_rounds((unsigned int)atoi(argv[3]));
	check_told();
	check_part();
	if (config.kind == IOMMU_TYPE1)
		check(hw_domain_switch(domain, "direct", &err) == -EOPNOTSUPP, "%s", err.text);
	else
		check(run_under_dma((unsigned int)atoi(argv[4])), "the end");
	faults_close();
	edu_close(&edu);
	hw_domain_detach(domain, device);
	iommu_endpoint_destroy(device);
	hw_domain_destroy(domain);
	mappings_done(&owner.table);
	gmem_destroy(gmem);
	iommu_destroy(iommu);
	check(vmstat("nr_foll_pin_acquired") == vmstat("nr_foll_pin_released"),
	      "every pin is given back");
	return failures() ? 1 : 0;
}
