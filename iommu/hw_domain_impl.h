/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside hw_domains:
 *
 *   hw_domain.c   life, devices, requests, ticks
 *   hw_switch.c   another strategy while devices work, by the user's wish or a policy's
 */
#ifndef IOMMU_HW_DOMAIN_IMPL_H
#define IOMMU_HW_DOMAIN_IMPL_H

#include "iommu/hw_domain.h"
#include "iommu/ioas_impl.h"
#include "iommu/strategy/policy.h"

/* One thread at a time (hw_domain.h). */
struct hw_domain {
	struct hw_domain_config config;
	char *name;
	struct strategy_choice choice; /* the user's */
	char *text;                    /* of choice */
	struct policy *policy;         /* NULL: the choice is a strategy, which runs */
	struct strategy_choice running;
	struct ioas *ioas;
	struct strategy *strategy; /* NULL: no device is attached */
	uint64_t requested_bytes;  /* reported to the ledger */
};

/* What runs at first by a choice: the policy (NULL: it is none) and its strategy. */
int hw_policy_create(struct policy **policy, struct strategy_choice *running,
		     const struct strategy_choice *choice, const struct hw_domain_config *config,
		     struct err *err);
/* Start a strategy in this ioas, without the guest's mappings. */
int hw_strategy_start(struct strategy **ret, const struct hw_domain *domain,
		      const struct strategy_choice *choice, struct ioas *ioas, struct err *err);
/* It retains nothing. NULL is allowed. */
void hw_strategy_stop(struct strategy *strategy);
/* Map what the guest has mapped, with a strategy that has just started: *bytes. */
int hw_replay(const struct hw_domain *domain, struct strategy *strategy, uint64_t *bytes,
	      struct err *err);
/* Attach a device, which could not move, to the domain's ioas again; if that fails too it stays
 * detached. */
void hw_go_back(struct hw_domain *domain, struct iommu_endpoint *endpoint);

/* hw_switch.c: let the policy decide, and do what it wants as soon as that is possible. */
void hw_follow_policy(struct hw_domain *domain);

#endif
