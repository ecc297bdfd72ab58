// SPDX-License-Identifier: Apache-2.0
// The ledger: counters, integrals over time, and a ring of recent operations.
#include "iommu/ledger.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/num.h"

struct recent {
	uint64_t serial; /* 0: unused */
	uint64_t iova, bytes, gpa, when_ns;
	enum ledger_op op;
	bool stale;
	int code;
};

/* Under the owner's lock. */
struct ledger {
	ledger_clock_fn *clock;
	void *clock_opaque;
	struct ledger_totals totals;
	uint64_t integrated_ns; /* up to when the integrals run */
	bool asked;             /* the guest has requested something */
	uint64_t serial;
	struct recent recent[LEDGER_RECENT]; /* by serial */
};

const char *ledger_op_name(enum ledger_op op)
{
	static const char *const names[] = {
		[LEDGER_MAP] = "map",       [LEDGER_UNMAP] = "unmap",   [LEDGER_COPY] = "copy",
		[LEDGER_ATTACH] = "attach", [LEDGER_DETACH] = "detach",
	};

	static_assert(ARRAY_SIZE(names) == LEDGER_OPS, "a name per operation");
	return (unsigned int)op < LEDGER_OPS ? names[op] : "?";
}

static uint64_t monotonic(void *opaque)
{
	(void)opaque;
	return clock_ns();
}

int ledger_create(struct ledger **ret, struct err *err)
{
	struct ledger *ledger;

	if (!mem_new(ledger))
		return err_set(err, -ENOMEM, "ledger: out of memory");
	ledger_set_clock(ledger, monotonic, NULL);
	*ret = ledger;
	return 0;
}

void ledger_destroy(struct ledger *ledger)
{
	free(ledger);
}

void ledger_set_clock(struct ledger *ledger, ledger_clock_fn *clock, void *opaque)
{
	ledger->clock = clock;
	ledger->clock_opaque = opaque;
	ledger->integrated_ns = clock(opaque);
}

uint64_t ledger_now(const struct ledger *ledger)
{
	return ledger->clock(ledger->clock_opaque);
}

/* Integrate the levels up to now. Threads may read the clock in one order and arrive in another;
 * time that is counted already adds nothing. */
static void integrate(struct ledger *ledger, uint64_t now_ns)
{
	struct ledger_totals *t = &ledger->totals;
	double s;

	if (now_ns <= ledger->integrated_ns)
		return;
	s = (double)(now_ns - ledger->integrated_ns) / 1e9;
	ledger->integrated_ns = now_ns;
	t->mapped_byte_seconds += (double)t->mapped_bytes * s;
	t->requested_byte_seconds +=
		(double)(ledger->asked ? t->requested_bytes : t->mapped_bytes) * s;
	t->stale_byte_seconds += (double)t->stale_bytes * s;
	t->pinned_byte_seconds += (double)t->pinned_bytes * s;
}

/* A level never falls below zero, even if a strategy counts wrongly. */
static void level(uint64_t *value, uint64_t bytes, bool up)
{
	*value = up ? *value + bytes : *value - MIN(*value, bytes);
}

static unsigned int bucket(uint64_t ns)
{
	unsigned int b = ns ? 63 - (unsigned int)__builtin_clzll(ns) : 0;

	return MIN(b, (unsigned int)LEDGER_BUCKETS - 1);
}

static void count(struct ledger_kind *kind, uint64_t bytes, uint64_t ns, int code)
{
	kind->calls++;
	kind->failed += code != 0;
	kind->bytes += code ? 0 : bytes;
	kind->ns += ns;
	kind->max_ns = MAX(kind->max_ns, ns);
	kind->histogram[bucket(ns)]++;
}

static void change(uint64_t *value, int64_t delta)
{
	level(value, delta < 0 ? -(uint64_t)delta : (uint64_t)delta, delta > 0);
}

static void enter(struct ledger *ledger, const struct ledger_entry *e)
{
	struct ledger_totals *t = &ledger->totals;

	integrate(ledger, e->end_ns);
	count(&t->kind[e->op], e->bytes, e->end_ns - MIN(e->start_ns, e->end_ns), e->code);
	if (!e->code && (e->op == LEDGER_MAP || e->op == LEDGER_COPY))
		level(&t->mapped_bytes, e->bytes, true);
	if (!e->code && e->op == LEDGER_UNMAP)
		level(&t->mapped_bytes, e->bytes, false);
	t->mapped_peak_bytes = MAX(t->mapped_peak_bytes, t->mapped_bytes);
	change(&t->pinned_bytes, e->pinned_bytes);
	ledger->serial++;
	ledger->recent[ledger->serial % LEDGER_RECENT] = (struct recent){
		.serial = ledger->serial,
		.iova = e->iova,
		.bytes = e->bytes,
		.gpa = e->gpa,
		.when_ns = e->end_ns,
		.op = e->op,
		.stale = e->stale,
		.code = e->code,
	};
}

void ledger_enter(struct ledger *ledger, const struct ledger_entry *entries, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		enter(ledger, &entries[i]);
}

void ledger_record(struct ledger *ledger, enum ledger_op op, uint64_t iova, uint64_t bytes,
		   uint64_t gpa, uint64_t start_ns, int code)
{
	const struct ledger_entry entry = {
		.op = op,
		.iova = iova,
		.bytes = bytes,
		.gpa = gpa,
		.start_ns = start_ns,
		.end_ns = ledger_now(ledger),
		.code = code,
	};

	ledger_enter(ledger, &entry, 1);
}

void ledger_request(struct ledger *ledger, uint64_t bytes, bool on)
{
	uint64_t now_ns = ledger_now(ledger);

	integrate(ledger, now_ns);
	ledger->asked = true;
	level(&ledger->totals.requested_bytes, bytes, on);
}

uint64_t ledger_stale(struct ledger *ledger, uint64_t bytes)
{
	struct ledger_totals *t = &ledger->totals;
	uint64_t now_ns = ledger_now(ledger);

	integrate(ledger, now_ns);
	level(&t->stale_bytes, bytes, true);
	t->stale_peak_bytes = MAX(t->stale_peak_bytes, t->stale_bytes);
	t->stale_mappings++;
	return now_ns;
}

void ledger_stale_end(struct ledger *ledger, const struct ledger_stale *stale)
{
	struct ledger_totals *t = &ledger->totals;
	uint64_t now_ns = ledger_now(ledger), ns = now_ns - MIN(now_ns, stale->since_ns);

	integrate(ledger, now_ns);
	level(&t->stale_bytes, stale->bytes, false);
	level(&t->stale_mappings, 1, false);
	t->hits += stale->hit;
	t->evicted += !stale->hit;
	t->overruns += stale->promised_ns != UINT64_MAX && ns / 2 > stale->promised_ns;
	t->stale_longest_ns = MAX(t->stale_longest_ns, ns);
}

void ledger_joined(struct ledger *ledger, unsigned int n)
{
	ledger->totals.joined += n;
}

void ledger_pinned(struct ledger *ledger, int64_t delta_bytes)
{
	uint64_t now_ns = ledger_now(ledger);

	integrate(ledger, now_ns);
	change(&ledger->totals.pinned_bytes, delta_bytes);
}

void ledger_totals(struct ledger *ledger, struct ledger_totals *ret)
{
	uint64_t now_ns = ledger_now(ledger);

	integrate(ledger, now_ns);
	*ret = ledger->totals;
	ret->at_ns = ledger->integrated_ns;
	if (!ledger->asked)
		ret->requested_bytes = ret->mapped_bytes;
}

uint64_t ledger_quantile_ns(const struct ledger_kind *kind, double share)
{
	double want = (double)kind->calls * share;
	uint64_t seen = 0;

	if (!kind->calls)
		return 0;
	for (unsigned int b = 0; b < LEDGER_BUCKETS - 1; b++) {
		seen += kind->histogram[b];
		if (seen && (double)seen >= want)
			return 2ull << b;
	}
	/* The last bucket holds all longer durations. */
	return power_of_two_up(kind->max_ns + 1);
}

/* The last successful operation on the address, up to the one with this number. */
static const struct recent *newest(const struct ledger *ledger, uint64_t iova, uint64_t serial)
{
	uint64_t oldest = ledger->serial - MIN((uint64_t)LEDGER_RECENT, ledger->serial);

	for (; serial > oldest; serial--) {
		const struct recent *r = &ledger->recent[serial % LEDGER_RECENT];

		if (r->op <= LEDGER_COPY && !r->code && range_inside(iova, 1, r->iova, r->bytes))
			return r;
	}
	return NULL;
}

/* What the address was mapped to. One unmap may end several mappings of scattered memory; then the
 * operation that mapped this one says it. UINT64_MAX: not known. */
static uint64_t gpa_of(const struct ledger *ledger, const struct recent *r, uint64_t iova)
{
	if (r->gpa == UINT64_MAX && r->op == LEDGER_UNMAP)
		r = newest(ledger, iova, r->serial - 1);
	return r && r->gpa != UINT64_MAX ? r->gpa + (iova - r->iova) : UINT64_MAX;
}

static void print_age(char *text, size_t bytes, uint64_t ns)
{
	if (ns < 1000000)
		snprintf(text, bytes, "%.1f us", (double)ns / 1e3);
	else if (ns < 1000000000)
		snprintf(text, bytes, "%.1f ms", (double)ns / 1e6);
	else
		snprintf(text, bytes, "%.1f s", (double)ns / 1e9);
}

void ledger_history(struct ledger *ledger, uint64_t iova, char *text, unsigned int bytes)
{
	uint64_t now_ns = ledger_now(ledger);
	const struct recent *found = newest(ledger, iova, ledger->serial);
	const char *what;
	struct recent r;
	uint64_t gpa;
	char age[32];

	if (!found) {
		if (ledger->serial <= LEDGER_RECENT)
			snprintf(text, bytes, "never mapped");
		else
			snprintf(text, bytes, "not in the last %u operations",
				 (unsigned int)LEDGER_RECENT);
		return;
	}
	r = *found;
	what = r.op != LEDGER_UNMAP ? "mapped"
	       : r.stale            ? "stale until it was unmapped"
				    : "unmapped";
	print_age(age, sizeof(age), now_ns - MIN(r.when_ns, now_ns));
	gpa = gpa_of(ledger, found, iova);
	if (gpa == UINT64_MAX)
		snprintf(text, bytes, "%s %s ago (request %llu)", what, age,
			 (unsigned long long)r.serial);
	else
		snprintf(text, bytes, "%s %s ago (request %llu, gpa 0x%llx)", what, age,
			 (unsigned long long)r.serial, (unsigned long long)gpa);
}
