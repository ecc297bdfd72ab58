// SPDX-License-Identifier: Apache-2.0
// Any sequence of requests to the virtual IOMMU, in batches of any length. Oracle: a plain model of
// a few pages predicts each status and, after each batch, each page that an endpoint can read or
// write. Two endpoints are emulated devices; the third is passed through, on a fake backend, whose
// table is compared too: it has what the guest wants, and what the strategy says that it retains,
// within its limits.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fake_iommu.h"
#include "fuzz.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/num.h"
#include "core/gmem.h"
#include "core/loop.h"
#include "iommu/ioas_impl.h"
#include "iommu/viommu.h"

enum {
	PAGE = 4096,
	PAGES = 24,     /* I/O addresses that requests speak of */
	RAM_PAGES = 16, /* then a hole, then read-only memory: */
	ROM_PAGE = 20,
	ROM_PAGES = 2,
	RESERVED_PAGE = 9, /* of endpoint 2 */
	RESERVED_LAST = 10,
	ENDPOINTS = 3, /* the last is the host's */
	DOMAINS = 4,   /* ids 1 to 4; 0 and 5 are outside of the range */
	MAPPINGS_MAX = 6,
	DRAIN_MAX = 8,
	STEP_BYTES = 6,
	STEPS_MAX = 200,
};

/* Some retain mappings; an input begins with one, and changes it. */
static const struct {
	const char *name;
	uint64_t mappings, bytes; /* that are stale at most */
} strategies_of_input[] = {
	{"strict", 0, 0},
	{"deferred,entries=2", 2, UINT64_MAX},
	{"cached,quota=12K", UINT64_MAX, 3 * PAGE},
	{"batched", UINT64_MAX, UINT64_MAX},
	{"staged", 0, 0},
	{"auto,ceiling=12K,cpu=0", UINT64_MAX, 3 * PAGE},
};
enum { STRATEGIES = sizeof(strategies_of_input) / sizeof(strategies_of_input[0]) };
static unsigned int strategy; /* index */

/* --- the model --- */

struct model_page {
	unsigned int mapping; /* 0: none */
	unsigned int gpa_page;
	unsigned int flags;
};
struct model_domain {
	bool exists, bypass;
	struct model_page
		pages[PAGES + 1]; /* one more, so that the end of the range can be passed */
};
static struct {
	struct model_domain domains[DOMAINS + 1];
	unsigned int in[ENDPOINTS]; /* domain, 0: none */
	bool bypass;
	unsigned int next_mapping, mappings;
} model;

static unsigned int members(unsigned int domain)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < ENDPOINTS; i++)
		n += model.in[i] == domain;
	return n;
}

static void model_leave(unsigned int endpoint)
{
	unsigned int before = model.in[endpoint];
	struct model_domain *d = &model.domains[before];

	model.in[endpoint] = 0;
	if (!before || members(before))
		return;
	for (unsigned int i = 0; i < PAGES; i++) {
		if (d->pages[i].mapping && (!i || d->pages[i - 1].mapping != d->pages[i].mapping))
			model.mappings--;
	}
	memset(d, 0, sizeof(*d));
}

static bool model_known(uint32_t id)
{
	return id >= 1 && id <= DOMAINS;
}

static enum viommu_status model_attach(const struct viommu_request *r)
{
	unsigned int e = r->endpoint;
	struct model_domain *d;

	if (r->flags > 1)
		return VIOMMU_INVAL;
	if (e >= ENDPOINTS)
		return VIOMMU_NOENT;
	if (!model_known(r->domain))
		return VIOMMU_INVAL;
	d = &model.domains[r->domain];
	if (d->exists && d->bypass != (r->flags == 1))
		return VIOMMU_INVAL;
	if (model.in[e] == r->domain)
		return VIOMMU_OK;
	for (unsigned int i = RESERVED_PAGE; e == ENDPOINTS - 1 && i <= RESERVED_LAST; i++) {
		if (d->pages[i].mapping)
			return VIOMMU_UNSUPP;
	}
	model_leave(e);
	model.in[e] = r->domain;
	d->exists = true;
	d->bypass = r->flags;
	return VIOMMU_OK;
}

static enum viommu_status model_detach(const struct viommu_request *r)
{
	if (r->endpoint >= ENDPOINTS)
		return VIOMMU_NOENT;
	if (!model.in[r->endpoint] || model.in[r->endpoint] != r->domain)
		return VIOMMU_INVAL;
	model_leave(r->endpoint);
	return VIOMMU_OK;
}

static enum viommu_status model_memory(uint64_t page, uint64_t n, uint32_t flags)
{
	for (uint64_t i = page; i < page + n; i++) {
		if (i >= ROM_PAGE && i < ROM_PAGE + ROM_PAGES) {
			if (flags & VIOMMU_F_WRITE)
				return VIOMMU_INVAL;
		} else if (i >= RAM_PAGES) {
			return VIOMMU_RANGE;
		}
	}
	return VIOMMU_OK;
}

static enum viommu_status model_map(const struct viommu_request *r)
{
	struct model_domain *d = model_known(r->domain) ? &model.domains[r->domain] : NULL;
	uint64_t first = r->first / PAGE, last = r->last / PAGE;
	enum viommu_status status;

	if (!d || !d->exists)
		return VIOMMU_NOENT;
	if (d->bypass || r->flags > 7 || !(r->flags & 3) || r->last < r->first)
		return VIOMMU_INVAL;
	if (r->first % PAGE || (r->last + 1) % PAGE || r->gpa % PAGE || last >= PAGES)
		return VIOMMU_RANGE;
	for (uint64_t i = first; i <= last; i++) {
		if (d->pages[i].mapping || (model.in[ENDPOINTS - 1] == r->domain &&
					    i >= RESERVED_PAGE && i <= RESERVED_LAST))
			return VIOMMU_INVAL;
	}
	if (model.mappings == MAPPINGS_MAX)
		return VIOMMU_NOMEM;
	status = model_memory(r->gpa / PAGE, last - first + 1, r->flags);
	if (status != VIOMMU_OK)
		return status;
	model.mappings++;
	model.next_mapping++;
	for (uint64_t i = first; i <= last; i++)
		d->pages[i] = (struct model_page){
			.mapping = model.next_mapping,
			.gpa_page = (unsigned int)(r->gpa / PAGE + i - first),
			.flags = r->flags,
		};
	return VIOMMU_OK;
}

static enum viommu_status model_unmap(const struct viommu_request *r)
{
	struct model_domain *d = model_known(r->domain) ? &model.domains[r->domain] : NULL;
	bool touched[PAGES] = {0};

	if (!d || !d->exists)
		return VIOMMU_NOENT;
	if (d->bypass || r->last < r->first)
		return VIOMMU_INVAL;
	for (uint64_t i = 0; i < PAGES; i++)
		touched[i] =
			d->pages[i].mapping && r->first < (i + 1) * PAGE && r->last >= i * PAGE;
	for (uint64_t i = 0; i < PAGES; i++) {
		if (!touched[i])
			continue;
		/* All of this page, and all of its mapping. */
		if (r->first > i * PAGE || r->last < (i + 1) * PAGE - 1)
			return VIOMMU_RANGE;
		if (i + 1 < PAGES && d->pages[i + 1].mapping == d->pages[i].mapping &&
		    !touched[i + 1])
			return VIOMMU_RANGE;
		if (i && d->pages[i - 1].mapping == d->pages[i].mapping && !touched[i - 1])
			return VIOMMU_RANGE;
	}
	for (uint64_t i = 0; i < PAGES; i++) {
		if (!touched[i])
			continue;
		model.mappings -= i + 1 == PAGES || d->pages[i + 1].mapping != d->pages[i].mapping;
	}
	for (uint64_t i = 0; i < PAGES; i++) {
		if (touched[i])
			d->pages[i] = (struct model_page){0};
	}
	return VIOMMU_OK;
}

static enum viommu_status model_run(const struct viommu_request *r)
{
	switch (r->op) {
	case VIOMMU_ATTACH:
		return model_attach(r);
	case VIOMMU_DETACH:
		return model_detach(r);
	case VIOMMU_MAP:
		return model_map(r);
	case VIOMMU_UNMAP:
		return model_unmap(r);
	}
	abort();
}

/* --- the real one --- */

static struct gmem *gmem;
static struct iommu *iommu;
static struct hw_domain *all;
static struct iommu_endpoint *device;
static struct loop *loop; /* nobody runs it: ticks are steps of the input */
static uint64_t now_ns;   /* of the ledger that strategies see */
static struct viommu *viommu;
static struct viommu_endpoint *endpoints[ENDPOINTS];
static uint32_t ids[ENDPOINTS] = {0, 1, 2};

static uint32_t id(void *opaque)
{
	return *(uint32_t *)opaque;
}

static void add(const char *name, uint64_t page, uint64_t n, unsigned int flags)
{
	struct gmem_region_config config = {
		.name = name,
		.gpa = page * PAGE,
		.size_bytes = n * PAGE,
		.backing = GMEM_MEMFD,
		.flags = flags,
		.numa_node = -1,
		.fd = -1,
	};

	check(!gmem_add(gmem, &config, NULL));
}

/* Each page has its own contents: 'batched' gives the hardware other pointers to it. */
static void tag_pages(void)
{
	struct gmem_extent extent;

	for (uint64_t page = 0; page < ROM_PAGE + ROM_PAGES; page++) {
		if (gmem_lookup(gmem, page * PAGE, &extent))
			*(uint64_t *)extent.hva = page;
	}
}

/* A mapping takes a while, so that 'auto' has a reason to choose. */
static void on_map(void)
{
	now_ns += 10 * NS_PER_MS;
}

static void set_up_host(void)
{
	static const struct log silent;
	struct iommu_endpoint_config device_config = {.name = "host", .fd = -1};
	const struct loop_config loop_config = {.log = &silent, .name = "viommu"};

	if (gmem)
		return;
	check(!loop_create(&loop, &loop_config, NULL));
	check(!gmem_create(&gmem, &silent, NULL));
	check(!gmem_begin(gmem, NULL));
	add("ram", 0, RAM_PAGES, 0);
	add("rom", ROM_PAGE, ROM_PAGES, GMEM_READONLY);
	check(!gmem_commit(gmem, NULL));
	tag_pages();
	check(!fake_iommu_create(&iommu, &silent, NULL));
	struct hw_domain_config domain_config = {.name = "all",
						 .strategy = "direct",
						 .iommu = iommu,
						 .gmem = gmem,
						 .log = &silent,
						 .map_threads = 1};

	check(!hw_domain_create(&all, &domain_config, NULL));
	check(!iommu_endpoint_create(&device, iommu, &device_config, NULL));
	fake.on_map = on_map;
}

static void set_up(void)
{
	static const struct log silent;
	static const struct iommu_reserved reserved = {.first = RESERVED_PAGE * PAGE,
						       .last = (RESERVED_LAST + 1) * PAGE - 1,
						       .type = "reserved"};
	struct viommu_config config = {
		.log = &silent,
		.gmem = gmem,
		.loop = loop,
		.limits = {.page_sizes = PAGE,
			   .last = PAGES * PAGE - 1,
			   .domain_first = 1,
			   .domain_last = DOMAINS,
			   .mappings = MAPPINGS_MAX},
	};
	const struct viommu_hardware hardware = {
		.name = "host",
		.strategy = strategies_of_input[strategy].name,
		.device = device,
		.all = all,
		.reserved = &reserved,
		.n_reserved = 1,
	};
	struct dma_space *space;

	check(!viommu_create(&viommu, &config, NULL));
	check(!viommu_add_emulated(&endpoints[0], viommu, "a", &space, NULL));
	check(!viommu_add_emulated(&endpoints[1], viommu, "b", &space, NULL));
	check(!viommu_add_hardware(&endpoints[2], viommu, &hardware, NULL));
	for (unsigned int i = 0; i < ENDPOINTS; i++)
		viommu_set_id(endpoints[i], id, &ids[i]);
	memset(&model, 0, sizeof(model));
}

static void tear_down(void)
{
	for (unsigned int i = 0; i < ENDPOINTS; i++)
		viommu_remove(endpoints[i]);
	check(!iommu_endpoint_ioas(device));
	viommu_destroy(viommu);
}

/* --- time --- */

static uint64_t fuzz_clock(void *opaque)
{
	return *(uint64_t *)opaque;
}

static void set_clock(void *opaque, const struct viommu_view *view)
{
	(void)opaque;
	if (view->hw)
		ledger_set_clock(hw_domain_ioas(view->hw)->ledger, fuzz_clock, &now_ns);
}

static void find_hardware(void *opaque, const struct viommu_view *view)
{
	if (view->endpoint == endpoints[ENDPOINTS - 1])
		*(const struct hw_domain **)opaque = view->hw;
}

static void tick(void)
{
	struct hw_domain *hw = NULL;

	viommu_walk(viommu, find_hardware, &hw);
	now_ns += 300 * NS_PER_MS;
	if (hw)
		hw_domain_tick(hw);
}

/* --- comparison --- */

static uint64_t model_reach(unsigned int e, uint64_t page, unsigned int need)
{
	const struct model_domain *d = &model.domains[model.in[e]];

	if (model.in[e] ? d->bypass : model.bypass)
		return page;
	if (!model.in[e] || !d->pages[page].mapping || (d->pages[page].flags & need) != need)
		return UINT64_MAX;
	return d->pages[page].gpa_page;
}

static void find_retained(void *opaque, const struct viommu_view *view)
{
	if (view->endpoint == endpoints[ENDPOINTS - 1])
		*(struct hw_domain_retained *)opaque = hw_domain_retained(view->hw);
}

/* Beyond what the guest wants, the hardware reaches what the strategy says, within its limits. */
static void check_stale(void)
{
	const struct model_domain *d = &model.domains[model.in[ENDPOINTS - 1]];
	const struct ioas *ioas = iommu_endpoint_ioas(device);
	struct hw_domain_retained retained = {0};
	uint64_t stale = 0, bytes;
	void *hva;

	viommu_walk(viommu, find_retained, &retained);
	for (uint64_t page = 0; page < PAGES && model.in[ENDPOINTS - 1] && !d->bypass; page++)
		stale += !d->pages[page].mapping && ioas &&
			 (!fake_translate(ioas, page * PAGE, IOAS_READ, &hva, &bytes) ||
			  !fake_translate(ioas, page * PAGE, IOAS_WRITE, &hva, &bytes));
	check(stale * PAGE == retained.bytes);
	check(retained.bytes <= strategies_of_input[strategy].bytes);
	check(retained.mappings <= strategies_of_input[strategy].mappings);
}

/* The host's device reaches the same memory; what bypass has of it ends where memory does. stale:
 * it may reach more, which check_stale counts. */
static void check_hardware(uint64_t page, unsigned int need, uint64_t expect, bool stale)
{
	const struct ioas *ioas = iommu_endpoint_ioas(device);
	struct gmem_extent extent;
	uint64_t bytes;
	void *hva;
	bool there = ioas && !fake_translate(ioas, page * PAGE, need, &hva, &bytes);
	bool should = expect != UINT64_MAX && gmem_lookup(gmem, expect * PAGE, &extent) &&
		      !((extent.flags & GMEM_READONLY) && (need & VIOMMU_F_WRITE));

	check(there == should || (there && stale));
	check(!should || *(uint64_t *)hva == *(uint64_t *)extent.hva);
}

static void compare(void)
{
	for (unsigned int e = 0; e < ENDPOINTS; e++) {
		for (uint64_t page = 0; page < PAGES; page++) {
			for (unsigned int need = VIOMMU_F_READ; need <= VIOMMU_F_WRITE; need++) {
				uint64_t expect = model_reach(e, page, need);
				uint64_t gpa = 0, bytes;
				int rc = viommu_translate(endpoints[e], page * PAGE, 1,
							  (enum dma_dir)need, &gpa, &bytes);

				check(rc ? expect == UINT64_MAX : gpa == expect * PAGE);
				if (e == ENDPOINTS - 1)
					check_hardware(page, need, expect,
						       model.in[e] && !model.domains[model.in[e]]
									       .pages[page]
									       .mapping);
			}
		}
	}
	check_stale();
}

/* A page, mostly; its last byte as an end; now and then an address that no page begins at. */
static uint64_t address(uint8_t byte, bool end)
{
	if (byte >= 0xf8)
		return UINT64_MAX << (8 * (byte - 0xf8));
	return (uint64_t)(byte & 0x1f) * PAGE + (end ? PAGE - 1 : 0) + (byte >= 0xf0);
}

static struct viommu_request read_step(const uint8_t *s)
{
	return (struct viommu_request){
		.op = (enum viommu_op)(1 + (s[0] & 3)),
		.domain = s[1] & 7,
		.endpoint = s[2] & 3,
		.flags = s[2] >> 4,
		.first = address(s[3], false),
		.last = address(s[4], true),
		.gpa = address(s[5], false),
	};
}

static void flush(struct viommu_request *drain, unsigned int *n)
{
	enum viommu_status expect[DRAIN_MAX];

	for (unsigned int i = 0; i < *n; i++)
		expect[i] = model_run(&drain[i]);
	viommu_run(viommu, drain, *n);
	viommu_walk(viommu, set_clock, NULL);
	for (unsigned int i = 0; i < *n; i++)
		check(drain[i].status == expect[i]);
	*n = 0;
	compare();
}

static void tick_and_compare(void)
{
	tick();
	compare();
}

static void set_bypass(bool bypass)
{
	model.bypass = bypass;
	viommu_set_bypass(viommu, bypass);
	compare();
}

static void change_strategy(unsigned int to)
{
	strategy = to;
	check(!viommu_switch(viommu, NULL, strategies_of_input[to].name, NULL));
	compare();
}

static void reset(void)
{
	for (unsigned int i = 0; i < ENDPOINTS; i++)
		model_leave(i);
	viommu_reset(viommu);
	compare();
}

/* The driver lets go: the host's device reaches what it did, until somebody takes over. */
static void abandon(unsigned int end)
{
	struct viommu_request none = {.op = VIOMMU_DETACH, .endpoint = UINT32_MAX};
	uint64_t before[2][PAGES];

	for (uint64_t page = 0; page < PAGES; page++) {
		for (unsigned int need = VIOMMU_F_READ; need <= VIOMMU_F_WRITE; need++)
			before[need - 1][page] = model_reach(ENDPOINTS - 1, page, need);
	}
	viommu_abandon(viommu);
	for (unsigned int i = 0; i < ENDPOINTS; i++)
		model_leave(i);
	for (uint64_t page = 0; page < PAGES; page++) {
		for (unsigned int need = VIOMMU_F_READ; need <= VIOMMU_F_WRITE; need++)
			check_hardware(page, need, before[need - 1][page], false);
	}
	if (end == 0)
		viommu_settle(viommu);
	else if (end == 1)
		viommu_device_starts(endpoints[ENDPOINTS - 1]);
	else if (end == 2)
		viommu_run(viommu, &none, 1);
	else
		viommu_set_bypass(viommu, model.bypass);
	compare();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct viommu_request drain[DRAIN_MAX];
	struct hw_domain_retained retained = {0};
	struct viommu_totals totals;
	unsigned int n = 0;

	strategy = (unsigned int)(size % STEP_BYTES %
				  STRATEGIES); /* what is behind the last whole step */
	set_up_host();
	now_ns = clock_ns() + 3600 * NS_PER_S; /* past all that the real clock says */
	set_up();
	for (size_t i = 0; i + STEP_BYTES <= size && i < STEPS_MAX * STEP_BYTES; i += STEP_BYTES) {
		uint8_t head = data[i];

		if (head < 0xf0) {
			drain[n++] = read_step(data + i);
			if (n == DRAIN_MAX || (head & 4))
				flush(drain, &n);
			continue;
		}
		flush(drain, &n);
		if (head & 2 && head & 1)
			abandon(head >> 2 & 3);
		else if (head & 8)
			change_strategy(head & 4 ? 3 + (head & 3) : head & 3);
		else if (head & 2)
			reset();
		else if (head & 4)
			tick_and_compare();
		else
			set_bypass(head & 1);
	}
	flush(drain, &n);
	viommu_totals(viommu, &totals);
	viommu_walk(viommu, find_retained, &retained);
	check(totals.mappings - retained.mappings == model.mappings);
	tear_down();
	return 0;
}
