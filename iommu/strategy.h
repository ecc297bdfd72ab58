/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strategies: *when* guest memory is mapped for a device, and when it is unmapped.
 *
 *   guest driver ─► virtual IOMMU ─► hw_domain_map/unmap ─► strategy ─► ioas ─► one call or none
 *   guest memory map changes ──────► (listener)  ───────────────┘
 *
 * A domain is an address space with a strategy in front of it and devices behind it. By default a
 * domain holds one IOMMU group; devices with the same ioas=NAME, or in one domain of the guest's own
 * IOMMU, join one. Changing the strategy while devices work builds the new table beside the old one
 * and moves the devices over; where the backend cannot, nothing changes and the message says so.
 *
 * A map that fails is an error to whoever asked, never a fall-back to more access. An unmap that has
 * returned means that no device can reach the range (strategies that promise less say so by their
 * stale bytes).
 *
 * Each strategy is one file and one line in the table of strategy.c.
 *
 * Threads: a domain belongs to one thread at a time (the machine's, or whoever holds the virtual
 * IOMMU's lock), but for hw_domain_map and _unmap, which any thread may call.
 */
#ifndef IOMMU_STRATEGY_H
#define IOMMU_STRATEGY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/list.h"
#include "base/log.h"
#include "core/gmem.h"
#include "iommu/ioas.h"

struct hw_domain;
struct mappings;
struct strategy;

/* A request of the guest: a range of its I/O addresses and the memory that it is to mean. */
struct iommu_request {
	uint64_t iova;
	uint64_t bytes;
	uint64_t gpa;        /* map only */
	unsigned int access; /* enum ioas_access; map only */
	uint64_t serial;     /* the guest's request, for the ledger; 0 */
	int result;          /* 0 or a negative errno, set per request */
	/* private */
	bool recorded;
	void *hva; /* map: of all of it, which is one piece; NULL: several, or not looked up */
};

/* One strategy. All functions but create may be NULL. */
struct strategy_ops {
	const char *name;
	const char *summary; /* one line: what it maps, when */
	bool needs_viommu;   /* it maps only what a guest asks for */
	/* On real backends each request that is not at its own address is a mapping of its own, and
	 * destroy leaves those: another such strategy can take over in the same space. */
	bool keeps_requests;
	/* The other fields are set; map what is to be mapped at start. */
	int (*create)(struct strategy *strategy, struct err *err);
	/* Unmap what is not the guest's requests; those go with the devices. Half-built is allowed. */
	void (*destroy)(struct strategy *strategy);
	/* A drain of requests, in order, under the domain's lock. Those whose result is not 0 were
	 * refused before and are to be left alone; the others are sound by themselves (requests.h) and
	 * keep the 0 or get an error, which means that nothing has changed for them. */
	void (*map)(struct strategy *strategy, struct iommu_request *requests, unsigned int n);
	void (*unmap)(struct strategy *strategy, struct iommu_request *requests, unsigned int n);
};

struct strategy {
	const struct strategy_ops *ops;
	struct ioas *ioas;
	struct gmem *gmem;
	const struct log *log;
	const char *name;         /* the domain's, for messages */
	unsigned int map_threads; /* of the domain's configuration */
	/* What the guest asked for: with the requests of a drain in it while they are being mapped or
	 * unmapped. Under the domain's lock. */
	const struct mappings *requests;
	void *state; /* the strategy's */
};

/* All of them, ending with NULL: for --help, validation, documentation. */
extern const struct strategy_ops *const strategies[];
/* -EINVAL, and a message with the names there are. */
int strategy_find(const char *name, const struct strategy_ops **ret, struct err *err);

struct hw_domain_config {
	const char *name;     /* "0000:01:10.0" or the ioas=NAME; copied */
	const char *strategy; /* "direct" */
	struct iommu *iommu;
	struct gmem *gmem;
	const struct log *log;
	unsigned int map_threads; /* for mapping all of memory: 0 chooses */
};
int hw_domain_create(struct hw_domain **ret, const struct hw_domain_config *config,
		     struct err *err);
/* No endpoint inside. NULL is allowed. */
void hw_domain_destroy(struct hw_domain *domain);

/* The first device in decides about reserved ranges and apertures, so it is attached before memory is
 * mapped; a later one that conflicts with what is mapped is refused. When this returns 0 the device
 * reaches what the strategy says. With the last device that leaves everything is unmapped. Domains go
 * before their gmem. */
int hw_domain_attach(struct hw_domain *domain, struct iommu_endpoint *endpoint, struct err *err);
void hw_domain_detach(struct hw_domain *domain, struct iommu_endpoint *endpoint);
/* From one domain to another of the same iommu, with no moment at which it reaches neither; when that
 * fails it is where it was. -EOPNOTSUPP with type1. */
int hw_domain_move(struct hw_domain *from, struct hw_domain *to, struct iommu_endpoint *endpoint,
		   struct err *err);

/* A drain of requests, in order; each gets its result, as in ioas.h and:
 *   -ENODEV   no device is in the domain
 *   -EFAULT   map: not all of it is memory that devices may reach
 *   -EPERM    map: for writing, and the memory is read-only
 *   -ERANGE   unmap: it would cut what was mapped by one request; nothing is unmapped
 * Unmapping what is not mapped is no error. Returns how many failed. The domain remembers what holds:
 * it is carried over when the strategy changes, taken away with memory that leaves the guest, and
 * forgotten with the last device. */
unsigned int hw_domain_map(struct hw_domain *domain, struct iommu_request *requests,
			   unsigned int n);
unsigned int hw_domain_unmap(struct hw_domain *domain, struct iommu_request *requests,
			     unsigned int n);

/* To the strategy that the domain has: nothing. With iommufd direct and strict take over from one
 * another in the same table, so that a buffer that stays mapped is reachable throughout; unless the guest
 * has something mapped at its own address. Then, and otherwise, what the guest asked for is mapped in a
 * new table before the devices move to it: it is reachable before and after, and in between only where
 * the IOMMU's driver replaces a table without blocking the device (VT-d's of Linux 6.12 blocks it for a
 * moment), and the ledger's totals begin anew. -EOPNOTSUPP with the reason when the backend cannot replace
 * a table under a running device. */
int hw_domain_switch(struct hw_domain *domain, const char *strategy, struct err *err);

const char *hw_domain_name(const struct hw_domain *domain);
const char *hw_domain_strategy(const struct hw_domain *domain);
struct ioas *hw_domain_ioas(const struct hw_domain *domain);

#endif
