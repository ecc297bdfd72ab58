/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A policy: which of the strategies is to run, for a hw_domain whose strategy is 'auto'.
 *
 *   requests ─► shadow counts: what would each candidate have called?  ─┐
 *   ledger ───► how long does such a call take here?                   ─┴─► cost, every 250 ms
 *
 * The candidates, the least exposed first: strict; batched, where guest memory permits it;
 * deferred; cached with a sixteenth of the ceiling, and with all of it. The first one counts whose
 * mapping costs no more than `cpu` (a share of one CPU), or little more than the cheapest does. So
 * an idle device has 'strict'. A change needs a reason that lasts: 0.75 s to a strategy that
 * exposes more, 5 s to one that exposes less, and thresholds differ by direction.
 *
 * The ceiling is no matter of choice: the running strategy keeps to it in each call
 * (strategy.ceiling_bytes), and what it retains is unmapped before another takes over.
 *
 * A strategy that calls more often than its shadow has said gets a worse estimate, for a minute or
 * so after it has run.
 *
 * Threads: as a strategy's calls (strategy.h). Nothing is allocated after policy_create.
 */
#ifndef IOMMU_STRATEGY_POLICY_H
#define IOMMU_STRATEGY_POLICY_H

#include "iommu/strategy/strategy.h"

struct policy;

/* `choice` has a strategy with is_policy. `config` stays with the caller. It begins with 'strict'.
 */
int policy_create(struct policy **ret, const struct strategy_choice *choice,
		  const struct hw_domain_config *config, struct err *err);
void policy_destroy(struct policy *policy);

/* Which strategy is to run. */
const struct strategy_choice *policy_wanted(const struct policy *policy);
/* That strategy runs, or cannot be started: then it is no candidate any more. */
void policy_started(struct policy *policy, int code);

/* Requests, before the running strategy serves them. */
void policy_map(struct policy *policy, const struct strategy *running,
		const struct hw_request *requests, unsigned int n);
void policy_unmap(struct policy *policy, const struct strategy *running,
		  const struct hw_request *requests, unsigned int n);
/* Decide, if it is time to; otherwise nothing. It asks for the next tick (strategy_wake), but not
 * while the guest maps nothing. */
void policy_tick(struct policy *policy, const struct strategy *running);

enum { POLICY_CANDIDATES = 5 };
struct policy_view {
	const char *running; /* "cached,quota=4M"; what is left out has its default */
	const char *why;     /* the last decision, or "" */
	uint64_t decisions;
	unsigned int n;
	struct {
		const char *strategy;
		double cpu; /* what its mapping would cost, as a share of one CPU */
	} candidates[POLICY_CANDIDATES];
};
void policy_view(const struct policy *policy, struct policy_view *ret);

#endif
