// SPDX-License-Identifier: Apache-2.0
// The policy behind 'auto' (policy.h).
#include "iommu/strategy/policy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/num.h"
#include "iommu/hw_domain.h"
#include "iommu/ioas_impl.h"
#include "iommu/strategy/shadow.h"

enum { CEILING, CPU }; /* parameters of 'auto' */
enum { STRICT };       /* the first candidate */
enum {
	MORE_TICKS = 3,     /* for so long a strategy that exposes more must have been better */
	LESS_TICKS = 20,    /* ... and one that exposes less good enough */
	GIVE_UP_TICKS = 40, /* what should have been left by then is not left */
	MEASURED_MIN = 16,  /* calls, for a mean */
};
#define TICK_NS (250 * NS_PER_MS)
/* Pages of a mapping that take as long as the call does: 16 pages as one mapping take 90 µs on
 * Linux 6.12, and 42 µs as a sixteenth of 16 mappings. */
#define PAGES_PER_CALL 13.0

struct candidate {
	struct strategy_choice choice;
	char *text;
	int limits; /* index for the shadow; -1: it retains nothing */
	bool joins;
	bool available;
	double calls, pages; /* that it would map, per second: the mean of about a second */
	double factor;       /* by which it was worse than that when it ran */
	double cpu;          /* share of one CPU */
};

struct policy {
	const struct hw_domain_config *config;
	uint64_t ceiling_bytes;
	double cpu; /* that is permitted */
	struct shadow *shadow;
	struct candidate candidates[POLICY_CANDIDATES];
	unsigned int running, wanted; /* indices */
	double call_ns;         /* to map and unmap a mapping, without its pages; 0: not known */
	bool armed;             /* a tick was asked for */
	bool whole;             /* since the last tick, one strategy has run */
	uint64_t at_ns, due_ns; /* of ticks */
	uint64_t maps, map_bytes, ns; /* of the ledger, at the last tick */
	unsigned int ticks;           /* since when another would be better, or should be left */
	int direction;                /* that one exposes more (1), less (-1) */
	uint64_t decisions;
	struct log_limit limit;
	char why[400];
};

/* --- candidates --- */

static int add(struct policy *p, unsigned int i, const char *text, int limits, bool joins)
{
	struct candidate *c = &p->candidates[i];
	struct err ignored = ERR_INIT;

	c->limits = limits;
	c->joins = joins;
	c->factor = 1;
	c->available = !strategy_choose(&c->choice, text, p->config->gmem, &ignored);
	c->choice.ceiling_bytes = p->ceiling_bytes;
	c->text = strdup(text);
	return c->text ? 0 : -ENOMEM;
}

static int add_all(struct policy *p)
{
	/* From half of its entries on, 'deferred' unmaps at once. */
	const struct shadow_limits limits[SHADOW_LIMITS] = {
		{.mappings = 128, .bytes = p->ceiling_bytes, .ns = 10 * NS_PER_MS},
		{.mappings = UINT64_MAX,
		 .bytes = MAX(p->ceiling_bytes / 16, (uint64_t)IOAS_PAGE_BYTES),
		 .ns = UINT64_MAX},
		{.mappings = UINT64_MAX, .bytes = p->ceiling_bytes, .ns = UINT64_MAX},
	};
	char some[64], all[64], size[UNITS_TEXT];
	int ret = shadow_create(&p->shadow, limits, p->ceiling_bytes);

	snprintf(some, sizeof(some), "cached,quota=%s", units_bytes_text(limits[1].bytes, size));
	snprintf(all, sizeof(all), "cached,quota=%s", units_bytes_text(limits[2].bytes, size));
	ret = ret ? ret : add(p, STRICT, "strict", -1, false);
	ret = ret ? ret : add(p, 1, "batched", -1, true);
	ret = ret ? ret : add(p, 2, "deferred", 0, false);
	ret = ret ? ret : add(p, 3, some, 1, false);
	return ret ? ret : add(p, 4, all, 2, false);
}

int policy_create(struct policy **ret, const struct strategy_choice *choice,
		  const struct hw_domain_config *config, struct err *err)
{
	struct policy *p;

	if (!config->wake || !config->gone)
		return err_set(err, -EOPNOTSUPP,
			       "%s: strategy '%s' needs a timer, which only a virtual IOMMU has",
			       config->name, choice->ops->name);
	if (!mem_new(p))
		return err_set(err, -ENOMEM, "%s: out of memory", config->name);
	p->config = config;
	p->ceiling_bytes = choice->values[CEILING];
	p->cpu = (double)choice->values[CPU] / 100;
	if (add_all(p)) {
		policy_destroy(p);
		return err_set(err, -ENOMEM, "%s: out of memory", config->name);
	}
	*ret = p;
	return 0;
}

void policy_destroy(struct policy *policy)
{
	if (!policy)
		return;
	for (unsigned int i = 0; i < POLICY_CANDIDATES; i++)
		free(policy->candidates[i].text);
	shadow_destroy(policy->shadow);
	free(policy);
}

/* --- requests --- */

static void arm(struct policy *p, const struct strategy *running, uint64_t now_ns)
{
	p->armed = true;
	p->at_ns = now_ns;
	p->due_ns = now_ns + TICK_NS;
	strategy_wake(running, TICK_NS);
}

void policy_map(struct policy *policy, const struct strategy *running,
		const struct hw_request *requests, unsigned int n)
{
	uint64_t now_ns = ioas_now(running->ioas);

	if (!policy->armed)
		arm(policy, running, now_ns);
	else if (now_ns > policy->due_ns + TICK_NS) /* lost, while no device was attached */
		strategy_wake(running, 0);
	shadow_map(policy->shadow, requests, n, now_ns);
}

void policy_unmap(struct policy *policy, const struct strategy *running,
		  const struct hw_request *requests, unsigned int n)
{
	shadow_unmap(policy->shadow, running->guest, requests, n, ioas_now(running->ioas));
}

/* --- estimates --- */

static double work(double calls, double pages)
{
	return calls + pages / PAGES_PER_CALL;
}

/* How many calls and pages the candidate would have mapped. */
static void predict(const struct candidate *c, const struct shadow_counts *counts, double *calls,
		    double *pages)
{
	*calls = (double)counts->maps;
	*pages = (double)counts->pages;
	if (c->joins)
		*calls -= (double)counts->joined;
	if (c->limits < 0)
		return;
	*calls -= (double)counts->hits[c->limits].maps;
	*pages -= (double)counts->hits[c->limits].pages;
}

/* What the running strategy has done since the last tick: the cost of a call, and whether that were
 * as many calls as its shadow says. */
static void measure(struct policy *p, const struct strategy *running,
		    const struct shadow_counts *counts)
{
	struct candidate *c = &p->candidates[p->running];
	struct ledger_totals t;
	double calls, pages, ns, expected, ignored;

	ioas_totals(running->ioas, &t);
	calls = (double)(t.kind[LEDGER_MAP].calls - p->maps);
	pages = (double)(t.kind[LEDGER_MAP].bytes - p->map_bytes) / IOAS_PAGE_BYTES;
	ns = (double)(t.kind[LEDGER_MAP].ns + t.kind[LEDGER_UNMAP].ns - p->ns);
	p->maps = t.kind[LEDGER_MAP].calls;
	p->map_bytes = t.kind[LEDGER_MAP].bytes;
	p->ns = t.kind[LEDGER_MAP].ns + t.kind[LEDGER_UNMAP].ns;
	if (!p->whole)
		return;
	if (calls >= MEASURED_MIN) {
		double now = ns / work(calls, pages);

		p->call_ns += p->call_ns > 0 ? (now - p->call_ns) / 4 : now;
	}
	predict(c, counts, &expected, &ignored);
	if (counts->maps >= MEASURED_MIN && p->running != STRICT)
		c->factor += (MIN(calls / MAX(expected, 1.0), 8.0) - c->factor) / 4;
}

static void estimate(struct policy *p, const struct shadow_counts *counts, double seconds)
{
	double keep = 1;

	for (double s = seconds; s > 0.01 && keep > 0.001; s -= 0.25)
		keep *= 0.75;
	for (unsigned int i = 0; i < POLICY_CANDIDATES; i++) {
		struct candidate *c = &p->candidates[i];
		double calls, pages;

		predict(c, counts, &calls, &pages);
		c->calls = keep * c->calls + (1 - keep) * calls / seconds;
		c->pages = keep * c->pages + (1 - keep) * pages / seconds;
		if (i != p->running)
			c->factor += (1 - c->factor) / 256;
		c->cpu = p->call_ns * work(c->calls, c->pages) * MAX(c->factor, 1.0) /
			 (double)NS_PER_S;
	}
}

/* --- decisions --- */

static double cheapest(const struct policy *p)
{
	double least = p->candidates[STRICT].cpu;

	for (unsigned int i = 0; i < POLICY_CANDIDATES; i++) {
		if (p->candidates[i].available)
			least = MIN(least, p->candidates[i].cpu);
	}
	return least;
}

/* The first that is cheap enough; what runs is judged mildly, what exposes less strictly. */
static unsigned int best(const struct policy *p)
{
	static const struct {
		double of_cpu, of_least;
	} factors[] = {{0.75, 1.05}, {1.1, 1.2}, {1, 1.1}};
	double least = cheapest(p);
	unsigned int i = 0;

	for (; i < POLICY_CANDIDATES; i++) {
		const struct candidate *c = &p->candidates[i];
		unsigned int side = i < p->running ? 0 : i == p->running ? 1 : 2;

		if (c->available && (c->cpu <= p->cpu * factors[side].of_cpu ||
				     c->cpu <= least * factors[side].of_least))
			break;
	}
	return MIN(i, (unsigned int)POLICY_CANDIDATES - 1);
}

static void explain(struct policy *p)
{
	char ceiling[UNITS_TEXT];
	int n = snprintf(p->why, sizeof(p->why), "chose %s: mapping takes of a CPU",
			 p->candidates[p->wanted].text);

	for (unsigned int i = 0; i < POLICY_CANDIDATES; i++) {
		const struct candidate *c = &p->candidates[i];

		if (c->available && n > 0 && (size_t)n < sizeof(p->why))
			n += snprintf(p->why + n, sizeof(p->why) - (size_t)n, " %.1f%% with %s,",
				      100 * c->cpu, c->text);
	}
	if (n > 0 && (size_t)n < sizeof(p->why))
		snprintf(p->why + n, sizeof(p->why) - (size_t)n,
			 " and may take %.0f%%; the ceiling is %s", 100 * p->cpu,
			 units_bytes_text(p->ceiling_bytes, ceiling));
}

static void decide(struct policy *p)
{
	unsigned int want = best(p);
	int direction = want == p->running ? 0 : want > p->running ? 1 : -1;

	p->ticks = direction == p->direction ? p->ticks + 1 : 1;
	p->direction = direction;
	if (!direction || p->ticks < (direction > 0 ? (unsigned int)MORE_TICKS : LESS_TICKS))
		return;
	p->wanted = want;
	p->ticks = 0;
	p->decisions++;
	explain(p);
	log_guest(p->config->log, &p->limit, "iommu", "%s: auto: %s", p->config->name, p->why);
	if (p->config->decided)
		p->config->decided(p->config->opaque, p->why);
}

/* The one that runs stays. */
static void stay(struct policy *p)
{
	p->wanted = p->running;
	p->ticks = 0;
	p->direction = 0;
}

void policy_tick(struct policy *policy, const struct strategy *running)
{
	uint64_t now_ns = ioas_now(running->ioas);
	struct shadow_counts counts;

	if (!policy->armed)
		return;
	if (now_ns < policy->due_ns) {
		strategy_wake(running, policy->due_ns - now_ns);
		return;
	}
	counts = shadow_take(policy->shadow);
	measure(policy, running, &counts);
	estimate(policy, &counts, (double)(now_ns - policy->at_ns) / (double)NS_PER_S);
	policy->whole = policy->wanted == policy->running;
	if (policy->whole)
		decide(policy);
	else if (++policy->ticks > GIVE_UP_TICKS)
		stay(policy);
	policy->armed = false;
	if (counts.maps || policy->running != STRICT || policy->wanted != STRICT)
		arm(policy, running, now_ns);
}

const struct strategy_choice *policy_wanted(const struct policy *policy)
{
	return &policy->candidates[policy->wanted].choice;
}

void policy_started(struct policy *policy, int code)
{
	if (code)
		policy->candidates[policy->wanted].available = false;
	else
		policy->running = policy->wanted;
	policy->whole = false;
	stay(policy);
}

void policy_view(const struct policy *policy, struct policy_view *ret)
{
	*ret = (struct policy_view){
		.running = policy->candidates[policy->running].text,
		.why = policy->why,
		.decisions = policy->decisions,
	};
	for (unsigned int i = 0; i < POLICY_CANDIDATES; i++) {
		const struct candidate *c = &policy->candidates[i];

		if (!c->available)
			continue;
		ret->candidates[ret->n].strategy = c->text;
		ret->candidates[ret->n++].cpu = c->cpu;
	}
}
