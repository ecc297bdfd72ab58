// SPDX-License-Identifier: Apache-2.0
// The bench of tests for strategies that retain mappings (retaining.h), and its model.
#include "retaining.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "guest_ram.h"
#include "iommu/ioas_impl.h"

enum { ROM_GPA = 8 * MiB };

static const struct log silent;
static struct err err;
static struct gmem *gmem;
struct viommu *viommu;
uint64_t now_ns;
char decided[500];
static struct loop *loop;
static struct iommu *iommu;
static struct hw_domain *all;
static struct iommu_endpoint *device[2];
static struct viommu_endpoint *endpoint[2];
static uint32_t ids[] = {DEVICE, OTHER};

static uint32_t id(void *opaque)
{
	return *(uint32_t *)opaque;
}

static uint64_t test_clock(void *opaque)
{
	return *(uint64_t *)opaque;
}

/* Each page has its own contents, so that any pointer to it is known. */
static void add_memory(const char *name, uint64_t gpa, uint64_t bytes, unsigned int flags)
{
	struct gmem_extent extent;

	guest_ram_add(gmem, name, gpa, bytes, flags);
	for (uint64_t at = 0; at < bytes; at += PAGE) {
		cr_assert(gmem_lookup(gmem, gpa + at, &extent));
		*(uint64_t *)extent.hva = gpa + at;
	}
}

static bool same_page(const void *a, const void *b)
{
	return a && b ? *(const uint64_t *)a == *(const uint64_t *)b : a == b;
}

static void add_device(unsigned int i, const char *name, const char *strategy)
{
	const struct iommu_endpoint_config config = {.name = name, .fd = -1};
	struct viommu_hardware hardware = {.name = name, .strategy = strategy, .all = all};

	cr_assert_eq(iommu_endpoint_create(&device[i], iommu, &config, &err), 0);
	hardware.device = device[i];
	cr_assert_eq(viommu_add_hardware(&endpoint[i], viommu, &hardware, &err), 0, "%s", err.text);
	viommu_set_id(endpoint[i], id, &ids[i]);
}

static void on_decision(void *opaque, const char *name, const char *why)
{
	(void)opaque;
	snprintf(decided, sizeof(decided), "%s: %s", name, why);
}

void start(const char *strategy)
{
	struct hw_domain_config domain = {
		.name = "all", .strategy = "direct", .log = &silent, .map_threads = 1};
	const struct loop_config of_loop = {.log = &silent, .name = "viommu"};
	struct viommu_config config = {.log = &silent};

	cr_assert_eq(loop_create(&loop, &of_loop, &err), 0, "%s", err.text);
	cr_assert_eq(gmem_create(&gmem, NULL, &err), 0);
	add_memory("low", 0, 4 * MiB, 0);
	add_memory("rom", ROM_GPA, MiB, GMEM_READONLY);
	config.loop = loop;
	config.decided = on_decision;
	decided[0] = '\0';
	config.gmem = gmem;
	cr_assert_eq(viommu_create(&viommu, &config, &err), 0);
	cr_assert_eq(fake_iommu_create(&iommu, &silent, &err), 0);
	domain.iommu = iommu;
	domain.gmem = gmem;
	cr_assert_eq(hw_domain_create(&all, &domain, &err), 0, "%s", err.text);
	add_device(0, "device", strategy);
	add_device(1, "other", strategy);
	cr_assert_eq(attach(1, DEVICE), VIOMMU_OK);
	now_ns = NS_PER_S;
	ledger_set_clock(hw_domain_ioas(hw())->ledger, test_clock, &now_ns);
}

void stop(void)
{
	fake.refuse_iova = 0;
	for (unsigned int i = 0; i < 2; i++) {
		viommu_remove(endpoint[i]);
		iommu_endpoint_destroy(device[i]);
	}
	hw_domain_destroy(all);
	iommu_destroy(iommu);
	viommu_destroy(viommu);
	loop_destroy(loop);
	gmem_destroy(gmem);
}

/* --- requests --- */

enum viommu_status run(struct viommu_request r)
{
	now_ns += 1000;
	viommu_run(viommu, &r, 1);
	return r.status;
}

enum viommu_status map(unsigned int at, unsigned int n, uint64_t gpa, uint32_t flags)
{
	return run((struct viommu_request){.op = VIOMMU_MAP,
					   .domain = 1,
					   .first = BASE + (uint64_t)at * PAGE,
					   .last = BASE + (uint64_t)(at + n) * PAGE - 1,
					   .gpa = gpa,
					   .flags = flags});
}

enum viommu_status unmap(unsigned int at, unsigned int n)
{
	return run((struct viommu_request){.op = VIOMMU_UNMAP,
					   .domain = 1,
					   .first = BASE + (uint64_t)at * PAGE,
					   .last = BASE + (uint64_t)(at + n) * PAGE - 1});
}

void retain(unsigned int at, uint64_t gpa)
{
	cr_assert_eq(map(at, 1, gpa, RW), VIOMMU_OK);
	cr_assert_eq(unmap(at, 1), VIOMMU_OK);
}

enum viommu_status attach(uint32_t domain, uint32_t to)
{
	return run((struct viommu_request){.op = VIOMMU_ATTACH, .domain = domain, .endpoint = to});
}

struct hw_domain *hw(void)
{
	return viommu_find_domain(viommu, 1)->hw;
}

struct ledger_totals totals(void)
{
	struct ledger_totals t;

	ioas_totals(hw_domain_ioas(hw()), &t);
	return t;
}

void switch_to(const char *strategy)
{
	cr_assert_eq(viommu_switch(viommu, NULL, strategy, &err), 0, "%s", err.text);
}

void memory_leaves(uint64_t gpa, uint64_t bytes)
{
	gmem_hold(gmem);
	viommu_memory_leaves(viommu, gpa, bytes);
	gmem_release(gmem);
}

void rom_leaves(void)
{
	cr_assert_eq(gmem_begin(gmem, &err), 0);
	cr_assert_eq(gmem_remove(gmem, ROM_GPA, &err), 0);
	cr_assert_eq(gmem_commit(gmem, &err), 0, "%s", err.text);
}

void rom_returns(void)
{
	add_memory("rom", ROM_GPA, MiB, GMEM_READONLY);
}

/* --- the hardware --- */

static void *reach(uint64_t iova, unsigned int access)
{
	const struct ioas *ioas = iommu_endpoint_ioas(device[0]);
	uint64_t bytes;
	void *hva;

	return ioas && !fake_translate(ioas, iova, access, &hva, &bytes) ? hva : NULL;
}

bool reaches(unsigned int at, uint64_t gpa)
{
	return same_page(reach(BASE + (uint64_t)at * PAGE, IOAS_READ),
			 gmem_host(gmem, gpa, 1, false));
}

bool reaches_for_writing(unsigned int at)
{
	return reach(BASE + (uint64_t)at * PAGE, IOAS_WRITE);
}

bool reaches_nothing(unsigned int at)
{
	return !reach(BASE + (uint64_t)at * PAGE, IOAS_READ);
}

uint64_t unmap_calls(void)
{
	return totals().kind[LEDGER_UNMAP].calls;
}

uint64_t map_calls(void)
{
	return totals().kind[LEDGER_MAP].calls;
}

/* --- the model --- */

/* So few that one tick takes all of them. */
enum { PAGES = 16, GPA = 0x10000 };

struct model_record {
	unsigned int at, n; /* pages; n is 0: unused */
	uint64_t gpa, since_ns;
	uint32_t flags;
	bool stale;
	unsigned int age; /* stale: a higher one is younger */
};
static struct {
	struct model_record records[PAGES];
	unsigned int next_age;
	uint64_t hits;
} model;

#define for_each_record(m) \
	for (struct model_record *m = model.records; m < model.records + PAGES; m++)

static bool overlaps(const struct model_record *m, unsigned int at, unsigned int n)
{
	return m->n && m->at < at + n && at < m->at + m->n;
}

static struct model_record *model_unused(void)
{
	struct model_record *m = model.records;

	while (m->n)
		m++;
	return m;
}

static unsigned int stale(uint64_t *bytes)
{
	unsigned int n = 0;

	*bytes = 0;
	for_each_record(m)
	{
		if (!m->n || !m->stale)
			continue;
		n++;
		*bytes += (uint64_t)m->n * PAGE;
	}
	return n;
}

static void evict_oldest(void)
{
	struct model_record *oldest = NULL;

	for_each_record(m)
	{
		if (m->n && m->stale && (!oldest || m->age < oldest->age))
			oldest = m;
	}
	oldest->n = 0;
}

static void forget_stale(unsigned int at, unsigned int n)
{
	for_each_record(m)
	{
		if (m->stale && overlaps(m, at, n))
			m->n = 0;
	}
}

static enum viommu_status model_map(unsigned int at, unsigned int n, uint64_t gpa, uint32_t flags)
{
	for_each_record(m)
	{
		if (overlaps(m, at, n) && !m->stale)
			/* What was stale there is flushed all the same. */
			goto taken;
	}
	for_each_record(m)
	{
		if (m->n == n && m->at == at && m->gpa == gpa && m->flags == flags) {
			m->stale = false;
			model.hits++;
			return VIOMMU_OK;
		}
	}
	forget_stale(at, n);
	*model_unused() = (struct model_record){.at = at, .n = n, .gpa = gpa, .flags = flags};
	return VIOMMU_OK;
taken:
	forget_stale(at, n);
	return VIOMMU_INVAL;
}

static void model_retain(unsigned int at, unsigned int n)
{
	/* In the order of their addresses. */
	for (unsigned int page = at; page < at + n; page++) {
		for_each_record(m)
		{
			if (!m->n || m->at != page || m->stale)
				continue;
			m->stale = true;
			m->age = model.next_age++;
			m->since_ns = now_ns;
		}
	}
}

static enum viommu_status model_unmap(const struct promise *promise, unsigned int at,
				      unsigned int n)
{
	unsigned int count = 0, first = PAGES, end = 0;
	uint64_t bytes = 0, stale_bytes;

	for_each_record(m)
	{
		if (m->stale || !overlaps(m, at, n))
			continue;
		if (m->at < at || m->at + m->n > at + n)
			return VIOMMU_RANGE;
		count++;
		bytes += (uint64_t)m->n * PAGE;
		first = MIN(first, m->at);
		end = MAX(end, m->at + m->n);
	}
	if (count > promise->mappings || bytes > promise->bytes) {
		for_each_record(m)
		{
			if (m->n && m->at >= first && m->at < end)
				m->n = 0;
		}
		return VIOMMU_OK;
	}
	while (stale(&stale_bytes) + count > promise->mappings ||
	       (count && stale_bytes > promise->bytes - bytes))
		evict_oldest();
	model_retain(at, n);
	return VIOMMU_OK;
}

/* Whatever a tick takes, it leaves nothing that is too old, and all that is wanted. */
static void model_tick(const struct promise *promise)
{
	for_each_record(m)
	{
		if (m->n && m->stale && reaches_nothing(m->at))
			m->n = 0;
		cr_assert(!m->n || !m->stale || promise->ns == UINT64_MAX ||
			  now_ns - m->since_ns < promise->ns + PAGES);
	}
}

static void compare(const struct promise *promise, unsigned int step)
{
	uint64_t bytes, wanted = 0;
	unsigned int n = stale(&bytes);
	struct ledger_totals t = totals();

	for (unsigned int page = 0; page < PAGES; page++) {
		const struct model_record *found = NULL;
		char *hva;

		for_each_record(m) found = overlaps(m, page, 1) ? m : found;
		hva = found ? gmem_host(gmem, found->gpa + (page - found->at) * PAGE, 1, false)
			    : NULL;
		cr_assert(same_page(reach(BASE + page * PAGE, IOAS_READ), hva), "step %u, page %u",
			  step, page);
		cr_assert(same_page(reach(BASE + page * PAGE, IOAS_WRITE),
				    found && found->flags & VIOMMU_F_WRITE ? hva : NULL),
			  "step %u, page %u", step, page);
	}
	for_each_record(m) wanted += m->stale ? 0 : (uint64_t)m->n * PAGE;
	cr_assert(n <= promise->mappings && bytes <= promise->bytes, "step %u", step);
	cr_assert(t.stale_bytes == bytes && t.stale_mappings == n, "step %u", step);
	cr_assert(t.requested_bytes == wanted && t.mapped_bytes == wanted + bytes, "step %u", step);
	cr_assert_eq(t.hits, model.hits, "step %u", step);
	cr_assert_eq(viommu_find_domain(viommu, 1)->table.bytes, t.mapped_bytes, "step %u", step);
}

static unsigned int below(unsigned int n)
{
	return (unsigned int)(random() % n);
}

static void rare_step(const struct promise *promise)
{
	switch (below(4)) {
	case 0:
		memory_leaves(GPA, PAGE);
		for_each_record(m)
		{
			if (m->stale || (m->gpa <= GPA && m->gpa + m->n * PAGE > GPA))
				m->n = 0;
		}
		break;
	case 1:
		switch_to("strict");
		forget_stale(0, PAGES);
		compare(promise, 0);
		switch_to(promise->strategy);
		break;
	case 2: /* another device comes and goes: nothing stale is there for it, or left by it */
		cr_assert_eq(attach(1, OTHER), VIOMMU_OK);
		cr_assert_eq(attach(2, OTHER), VIOMMU_OK);
		forget_stale(0, PAGES);
		break;
	default:
		cr_assert_eq(hw_domain_flush(hw(), BASE, BASE + 4 * PAGE - 1), 0);
		forget_stale(0, 4);
	}
}

void any_sequence(const struct promise *promise, unsigned int steps, unsigned int seed)
{
	srandom(seed); /* so that a failure can be had again */
	memset(&model, 0, sizeof(model));
	start(promise->strategy);
	for (unsigned int step = 1; step <= steps; step++) {
		unsigned int at = below(PAGES), n = 1 + below(MIN(4u, PAGES - at));
		uint64_t gpa = GPA + (at % 4 + below(6) / 5) * PAGE;
		uint32_t flags = below(8) ? RW : R;

		switch (below(20)) {
		case 0:
			if (!below(4))
				rare_step(promise);
			break;
		case 1:
			now_ns += below(4) * NS_PER_MS;
			hw_domain_tick(hw());
			model_tick(promise);
			break;
		case 2:
			n = PAGES - at;
			cr_assert_eq(unmap(at, n), model_unmap(promise, at, n), "step %u", step);
			break;
		default:
			if (below(2))
				cr_assert_eq(map(at, n, gpa, flags), model_map(at, n, gpa, flags),
					     "step %u", step);
			else
				cr_assert_eq(unmap(at, n), model_unmap(promise, at, n), "step %u",
					     step);
		}
		compare(promise, step);
	}
	cr_assert(model.hits || !promise->mappings);
}
