/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hardware domain: an ioas with a strategy in front of it and devices behind it.
 *
 * By default it holds one IOMMU group; devices with the same ioas=NAME, or in one domain of a
 * virtual IOMMU, join one. What the guest has mapped is not in here: the owner of that table (a
 * domain of the virtual IOMMU) hands requests down, and the strategy reads the table.
 *
 * Changing the strategy while devices work builds the new ioas beside the old one and moves the
 * devices over; where the backend cannot, nothing changes and the message says so.
 *
 * Threads: a hardware domain belongs to one thread at a time: whoever holds the lock of the owner
 * of the guest's table, or, without one, the machine's. hw_domain_attach, _detach, _move and
 * _switch hold the memory map (gmem_hold), so that lock is taken after it.
 */
#ifndef IOMMU_HW_DOMAIN_H
#define IOMMU_HW_DOMAIN_H

#include "iommu/strategy/strategy.h"

struct hw_domain;
struct loop;

struct hw_domain_config {
	const char *name;     /* "0000:01:10.0" or the ioas=NAME; copied */
	const char *strategy; /* "direct", "NAME,key=value,…"; copied */
	struct iommu *iommu;
	struct gmem *gmem;
	const struct log *log;
	/* What the guest has mapped: its owner's, outlives the domain. NULL: no virtual IOMMU. */
	const struct mappings *guest;
	unsigned int map_threads; /* for mapping all of memory: 0 chooses */
	/* For a strategy's timers, and for work that must not delay a guest's request (the loop of
	 * a thread that serves none). NULL: there is none, and a strategy that needs it is refused.
	 * What runs there calls owner_lock first, owner_unlock last: then it may do what the calls
	 * of a strategy may, and owner_unlock removes records that have become GOING. */
	struct loop *loop, *worker;
	void (*owner_lock)(void *opaque);
	void (*owner_unlock)(void *opaque);
	void *opaque;
};
int hw_domain_create(struct hw_domain **ret, const struct hw_domain_config *config,
		     struct err *err);
/* No endpoint inside. NULL is allowed. */
void hw_domain_destroy(struct hw_domain *domain);

/* The first device in decides about reserved ranges and apertures, so it is attached before memory
 * is mapped; a later one that conflicts with what is mapped is refused. When this returns 0 the
 * device reaches what the strategy says, the guest's mappings included. With the last device that
 * leaves everything is unmapped. Domains go before their gmem. */
int hw_domain_attach(struct hw_domain *domain, struct iommu_endpoint *endpoint, struct err *err);
void hw_domain_detach(struct hw_domain *domain, struct iommu_endpoint *endpoint);
/* From one domain to another of the same iommu, with no moment at which it reaches neither; when
 * that fails it is where it was, and if even that fails it reaches nothing (iommu_endpoint_ioas is
 * NULL). -EOPNOTSUPP with type1. */
int hw_domain_move(struct hw_domain *from, struct hw_domain *to, struct iommu_endpoint *endpoint,
		   struct err *err);

/* A batch of requests, in order; each gets its result (ioas.h): how many failed is returned. See
 * strategy_ops for what holds of their records. Without a device map is -ENODEV, and unmap is 0. */
unsigned int hw_domain_map(struct hw_domain *domain, struct hw_request *requests, unsigned int n);
unsigned int hw_domain_unmap(struct hw_domain *domain, struct hw_request *requests, unsigned int n);
/* What is only RETAINED in [first, last] leaves the hardware and becomes GOING. Without a device
 * nothing keeps it there. */
int hw_domain_flush(struct hw_domain *domain, uint64_t first, uint64_t last);

/* To the strategy that the domain has: nothing. With iommufd direct and strict take over from one
 * another in the same table, so that a buffer that stays mapped is reachable throughout; unless the
 * guest has something mapped at its own address. Then, and otherwise, the guest's mappings are
 * mapped in a new table before the devices move to it: they are reachable before and after, and in
 * between only where the IOMMU's driver replaces a table without blocking the device (VT-d's of
 * Linux 6.12 blocks it for a moment), and the ledger's totals begin anew. -EOPNOTSUPP with the
 * reason when the backend cannot replace a table under a running device. */
int hw_domain_switch(struct hw_domain *domain, const char *strategy, struct err *err);

const char *hw_domain_name(const struct hw_domain *domain);
const char *hw_domain_strategy(const struct hw_domain *domain);
/* Is its strategy this one, with these values? */
bool hw_domain_has(const struct hw_domain *domain, const char *strategy);
struct ioas *hw_domain_ioas(const struct hw_domain *domain);

#endif
