/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hw_domain: an ioas, the strategy that maps memory in it, and the attached devices.
 *
 * By default it holds one IOMMU group. Devices with the same ioas=NAME share one, and so do devices
 * in one domain of the virtual IOMMU. The table of guest mappings is not in here: its owner, a
 * domain of the virtual IOMMU, passes requests on, and the strategy reads the table.
 *
 * Threads: one at a time: the one that holds the lock of the table's owner, or, without a table,
 * the machine's. hw_domain_attach, _detach, _move and _switch hold the memory map (gmem_hold), so
 * that lock comes after it.
 * Ownership: the caller's; endpoints, iommu, gmem and the table stay with theirs and outlive it.
 * Errors: 0 or a negative errno; set-up calls explain it in `err`.
 */
#ifndef IOMMU_HW_DOMAIN_H
#define IOMMU_HW_DOMAIN_H

#include "iommu/strategy/strategy.h"

struct hw_domain;
struct ledger_totals;
struct policy_view;

struct hw_domain_config {
	const char *name;     /* "0000:01:10.0" or the ioas=NAME; copied */
	const char *strategy; /* "direct", "NAME,key=value,…"; copied */
	struct iommu *iommu;
	struct gmem *gmem;
	const struct log *log;
	/* The guest mappings; their owner outlives the hw_domain. NULL: no virtual IOMMU. */
	const struct mappings *guest;
	unsigned int map_threads; /* that map all of memory; 0: as many as suit the host */
	/* Must call hw_domain_tick in ns nanoseconds, or sooner. It is called under the owner's
	 * lock. NULL: a strategy with a timer is refused. */
	void (*wake)(void *opaque, uint64_t ns);
	/* Must remove a record that was RETAINED from the table; the hardware no longer has it. It
	 * is called in any of the calls below, under the owner's lock. NULL: a strategy that
	 * retains is refused. */
	void (*gone)(void *opaque, struct mapping *record);
	/* The strategy 'auto' has decided, for the reasons in `why`; in a tick, under the owner's
	 * lock: must not wait. NULL: it is only logged. */
	void (*decided)(void *opaque, const char *why);
	void *opaque;
};
int hw_domain_create(struct hw_domain **ret, const struct hw_domain_config *config,
		     struct err *err);
/* No device is attached. NULL is allowed. */
void hw_domain_destroy(struct hw_domain *domain);

/* Attach a device. The first one is attached before memory is mapped, so that its reserved ranges
 * and aperture are known; a later one is refused if it conflicts with what is mapped. When this
 * returns 0 the device reaches what the strategy maps, the guest's mappings included. When the last
 * device is detached everything is unmapped. */
int hw_domain_attach(struct hw_domain *domain, struct iommu_endpoint *endpoint, struct err *err);
void hw_domain_detach(struct hw_domain *domain, struct iommu_endpoint *endpoint);
/* Move a device atomically to another hw_domain of the same iommu. On failure it is back in `from`;
 * if that fails too it is detached (iommu_endpoint_ioas is NULL). -EOPNOTSUPP with type1. */
int hw_domain_move(struct hw_domain *from, struct hw_domain *to, struct iommu_endpoint *endpoint,
		   struct err *err);

/* Serve a batch of requests in order; each gets its result (ioas.h). Returns how many failed. See
 * strategy_ops for the states of their records. Without a device, map is -ENODEV, unmap 0. */
unsigned int hw_domain_map(struct hw_domain *domain, struct hw_request *requests, unsigned int n);
unsigned int hw_domain_unmap(struct hw_domain *domain, struct hw_request *requests, unsigned int n);
/* Unmap what is RETAINED in [first, last] (strategy_ops.flush). Without a device nothing is. */
int hw_domain_flush(struct hw_domain *domain, uint64_t first, uint64_t last);
/* This memory has left the guest, and is unmapped and flushed (strategy_ops.forget). */
void hw_domain_forget(struct hw_domain *domain, uint64_t gpa, uint64_t bytes);
/* Call the tick of the strategy, and let 'auto' decide. */
void hw_domain_tick(struct hw_domain *domain);

/* The ledger of its address space, with what its strategy has pinned elsewhere, also if others have
 * pinned it too. */
void hw_domain_totals(const struct hw_domain *domain, struct ledger_totals *ret);

struct hw_domain_retained {
	uint64_t mappings, bytes;
	uint64_t oldest_ns; /* for so long the oldest of them is; 0: there is none */
};
/* What is RETAINED now. A NULL domain retains nothing. */
struct hw_domain_retained hw_domain_retained(const struct hw_domain *domain);

/* Change the strategy while devices work. What is RETAINED is unmapped first. On failure nothing
 * else changes.
 *   the same strategy    nothing is done
 *   in the same table    with iommufd, between strategies with keeps_mappings: mapped buffers stay
 *                        reachable. Not to or from one that maps all of memory (direct) while the
 *                        guest has mapped something at its own address; and not from one whose
 *                        mappings end with their table (batched while lists are mapped, staged)
 *   in a new table       otherwise: the guest's mappings are made in it, then the devices move.
 *                        Mappings are reachable all the time only if the IOMMU's driver replaces a
 *                        table without blocking the device (VT-d's of Linux 6.12 blocks it for a
 *                        moment). The ledger's totals begin anew.
 * -EOPNOTSUPP with type1, which cannot replace the table of a running device. */
int hw_domain_switch(struct hw_domain *domain, const char *strategy, struct err *err);

const char *hw_domain_name(const struct hw_domain *domain);
const char *hw_domain_strategy(const struct hw_domain *domain); /* "NAME,key=value,…" */
/* With the strategy 'auto': what it has chosen, and why (iommu/strategy/policy.h). False: another
 * strategy. */
bool hw_domain_policy(const struct hw_domain *domain, struct policy_view *ret);
/* Is this its strategy, with the same values? */
bool hw_domain_has(const struct hw_domain *domain, const char *strategy);
struct ioas *hw_domain_ioas(const struct hw_domain *domain);

#endif
