/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtual IOMMU, without its front end (which is devices/virtio/iommu.c).
 *
 *   guest ─► front end ─► viommu_run(requests) ─► domain: which iova means which guest memory
 *                                                   │  (one table for all endpoints of the domain)
 *       emulated devices:  dma_space ◄── translate ─┤
 *       passed-through:    hw_domain (strategy) ◄───┘  hardware
 *
 * An endpoint is a device behind the virtual IOMMU. The guest knows it by its requester ID. It is
 *
 *   attached to a domain            it reaches what is mapped there, with the access that was given
 *   in a bypass domain, or
 *   in no domain, and bypass is on  it reaches all of guest memory, at its own addresses
 *   in no domain, bypass is off     it reaches nothing
 *
 * A domain exists while an endpoint is in it. Its table has one record per MAP; no other table of
 * guest mappings exists, and strategies work from this one.
 *
 * The requests of one call are served together: neighbouring MAPs of a domain are one call of the
 * strategy; neighbouring UNMAPs are one drain and one call. A request that fails changes nothing.
 * An UNMAP or DETACH is acknowledged when no device can reach the range through the domain: the
 * hardware's table and caches are done, and brackets of emulated devices are closed. An emulated
 * device can use a mapping only after the hardware has it too.
 *
 * Statuses are virtio 1.3's (5.13.6). Where it leaves the choice open:
 *   RANGE   memory that is not the guest's RAM; addresses outside of the input range
 *   INVAL   a range that ends before it begins; no access; write access to read-only memory; a
 *           domain outside of the domain range; a reserved range of an endpoint of the domain
 *   UNSUPP  an endpoint with a reserved range in which the domain has a mapping
 *
 * Threads: requests, reset and bypass may come from any thread that is not inside a DMA bracket and
 * holds no lock of a listener of the memory map; they exclude each other. The machine's thread adds
 * and removes endpoints, also while requests run. Loops translate.
 * Errors: 0 or a negative errno, explained in `err` where there is one; requests have a status.
 */
#ifndef IOMMU_VIOMMU_H
#define IOMMU_VIOMMU_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"
#include "core/dma.h"
#include "core/gmem.h"
#include "iommu/ledger.h"
#include "iommu/reserved.h"
#include "iommu/hw_domain.h"

struct viommu;
struct viommu_endpoint;

/* virtio 1.3, 5.13.6: the numbers are the guest's. */
enum viommu_status {
	VIOMMU_OK,
	VIOMMU_IOERR,
	VIOMMU_UNSUPP,
	VIOMMU_DEVERR,
	VIOMMU_INVAL,
	VIOMMU_RANGE,
	VIOMMU_NOENT,
	VIOMMU_FAULT,
	VIOMMU_NOMEM,
};

enum viommu_op {
	VIOMMU_ATTACH = 1,
	VIOMMU_DETACH,
	VIOMMU_MAP,
	VIOMMU_UNMAP,
};

enum viommu_flags {
	VIOMMU_F_BYPASS = 1 << 0, /* ATTACH */
	VIOMMU_F_READ = 1 << 0,   /* MAP */
	VIOMMU_F_WRITE = 1 << 1,
	VIOMMU_F_MMIO = 1 << 2,
};

struct viommu_request {
	enum viommu_op op;
	uint32_t domain;
	uint32_t endpoint;    /* ATTACH, DETACH */
	uint32_t flags;       /* ATTACH, MAP */
	uint64_t first, last; /* MAP, UNMAP: inclusive */
	uint64_t gpa;         /* MAP */
	enum viommu_status status;
	struct hw_request hw; /* private */
};

enum viommu_reason {
	VIOMMU_R_UNKNOWN,
	VIOMMU_R_DOMAIN,  /* in no domain, and bypass is off */
	VIOMMU_R_MAPPING, /* not mapped, or not with this access */
};
struct viommu_fault {
	enum viommu_reason reason;
	uint32_t endpoint;
	bool write;
	bool has_address;
	uint64_t address;
	const char *name;    /* the endpoint's */
	const char *history; /* of the address: "unmapped 3.1 ms ago (…)" */
};

struct viommu_limits {
	uint64_t page_sizes; /* a bit per size; the lowest is the granularity */
	uint64_t first, last;
	uint32_t domain_first, domain_last;
	/* Cost of all domains together; beyond a limit a MAP gets NOMEM. 0 for the last two: a
	 * share per device (viommu_limits reports the limit of now). */
	uint64_t mappings;     /* records */
	uint64_t mapped_bytes; /* each mapping counts, even of the same memory */
	uint64_t tables;       /* most pages that the IOMMU's tables can take (mappings.h) */
};

struct viommu_config {
	const struct log *log;
	struct gmem *gmem;
	struct viommu_limits limits; /* zeroes: 4 KiB, 2 MiB, 1 GiB; 48 bits; all; a million */
	bool bypass;                 /* at power-on */
	/* For strategies with a timer, whose ticks wait for requests. NULL: these are refused. */
	struct loop *loop;
	/* Called by any thread, maybe inside a bracket: must not wait. NULL: only logged. */
	void (*fault)(void *opaque, const struct viommu_fault *fault);
	void *opaque;
	/* The strategy 'auto' of this endpoint has decided (hw_domain.h). The loop's thread, under
	 * the lock of requests: must not wait. NULL: only logged. */
	void (*decided)(void *opaque, const char *endpoint, const char *why);
	void *decided_opaque;
};
int viommu_create(struct viommu **ret, const struct viommu_config *config, struct err *err);
/* All endpoints have been removed, and no other thread runs the loop. NULL is allowed. */
void viommu_destroy(struct viommu *viommu);
/* Replace config->fault: before devices run, and with NULL before its receiver ends. */
void viommu_set_fault(struct viommu *viommu,
		      void (*fault)(void *opaque, const struct viommu_fault *fault), void *opaque);

/* The endpoint's requester ID now (the guest may change bus numbers). Any thread. */
typedef uint32_t viommu_id_fn(void *opaque);

/* Add an emulated device. Its DMA goes through *space, which the endpoint owns. */
int viommu_add_emulated(struct viommu_endpoint **ret, struct viommu *viommu, const char *name,
			struct dma_space **space, struct err *err);
/* Add a passed-through device. The caller owns `device` and `all`. Until the removal, the virtual
 * IOMMU alone attaches and detaches the device; the removal leaves it detached. The limits are
 * narrowed to those of its IOMMU. -EOPNOTSUPP with type1. */
struct viommu_hardware {
	const char *name;     /* copied */
	const char *strategy; /* in domains of the guest: "NAME,key=value,…"; copied */
	struct iommu_endpoint *device;
	struct hw_domain *all; /* all of guest memory, for bypass */
	const struct iommu_reserved *reserved;
	unsigned int n_reserved;
};
int viommu_add_hardware(struct viommu_endpoint **ret, struct viommu *viommu,
			const struct viommu_hardware *hardware, struct err *err);
/* Show the endpoint to the guest under this ID. NULL hides it, as before the first call. */
void viommu_set_id(struct viommu_endpoint *endpoint, viommu_id_fn *id, void *opaque);
/* Remove an endpoint in any state, also while requests run. Afterwards no request finds it, its id
 * function is not called, and its device is attached to nothing: so call it before you free the
 * device. An emulated device has stopped before. NULL is allowed. */
void viommu_remove(struct viommu_endpoint *endpoint);
const char *viommu_endpoint_name(const struct viommu_endpoint *endpoint);
/* The host's IOMMU has reported a fault of this endpoint (direction and address): report it to the
 * guest. The history of the address is stored in history[bytes]. */
void viommu_hardware_fault(struct viommu_endpoint *endpoint, const struct viommu_fault *fault,
			   char *history, unsigned int bytes);

void viommu_limits(struct viommu *viommu, struct viommu_limits *ret);
/* Serve requests in order; each gets its status. */
void viommu_run(struct viommu *viommu, struct viommu_request *requests, unsigned int n);
/* For PROBE: the number of reserved ranges of this endpoint, of which up to max are stored.
 * -ENOENT. */
int viommu_probe(struct viommu *viommu, uint32_t endpoint, struct iommu_reserved *ranges,
		 unsigned int max);
bool viommu_bypass(struct viommu *viommu);
void viommu_set_bypass(struct viommu *viommu, bool bypass);
/* Detach every endpoint from its domain. */
void viommu_reset(struct viommu *viommu);

/* The guest's driver has reset the virtual IOMMU. As viommu_reset, but passed-through devices keep
 * exactly what they reach now, until one of
 *
 *     viommu_settle             a driver takes over the virtual IOMMU (each request does this too)
 *     viommu_device_starts      a driver starts the device anew (it enables bus mastering)
 *     viommu_set_bypass, viommu_reset
 *
 * Linux resets its virtio devices at shutdown before it shuts down the devices behind them. Without
 * this, its NVMe driver would wait a minute for each command to a controller that no longer reaches
 * its queues. Until a driver starts it anew, the device uses addresses of the old mappings only. So
 * bypass would not help it, and "nothing" would take away no more than the guest had given. */
void viommu_abandon(struct viommu *viommu);
void viommu_settle(struct viommu *viommu);
void viommu_device_starts(struct viommu_endpoint *endpoint);

/* Change the strategy of a passed-through device (NULL: of all) in domains of the guest, while it
 * works (hw_domain_switch says what the device notices). Devices that share a domain change
 * together. A device with another strategy cannot join the domain. If one domain cannot change,
 * none changes. */
int viommu_switch(struct viommu *viommu, struct viommu_endpoint *endpoint, const char *strategy,
		  struct err *err);

/* [gpa, gpa + bytes) is about to leave the guest: a region is removed, or pages are given back.
 * When this returns no device reaches it. The order:
 *
 *   1. hardware: in every domain, the guest's mappings of it are unmapped and removed
 *   2. retained: what a strategy still keeps in the hardware is unmapped (flush)
 *   3. aliases in this process: emulated devices are drained
 *   4. the discard, by the caller
 *
 * If the hardware of a domain refuses 1 or 2, its devices are detached. The memory map calls this,
 * for regions and for pages that are discarded, and is held. New mappings are refused meanwhile: of
 * a region, since it has GMEM_NO_DMA; of pages, since the guest has given them (core/reclaim.h). */
void viommu_memory_leaves(struct viommu *viommu, uint64_t gpa, uint64_t bytes);

struct viommu_totals {
	uint64_t requests[VIOMMU_UNMAP + 1], failed[VIOMMU_UNMAP + 1];
	uint64_t map_bytes, mapped_bytes, mappings, tables;
	uint64_t faults;
	unsigned int domains, endpoints;
};
void viommu_totals(struct viommu *viommu, struct viommu_totals *ret);
/* For status: an endpoint and its domain. */
struct viommu_view {
	const struct viommu_endpoint *endpoint;
	bool attached;                   /* it is in a domain */
	uint32_t domain;                 /* the domain's number, if attached */
	bool bypass;                     /* it reaches all of memory */
	uint64_t mappings, mapped_bytes; /* of its domain */
	const struct hw_domain *hw;      /* NULL: it is emulated, or in no domain */
};
/* Called under the lock of requests: of this file it may call viommu_endpoint_name only. */
typedef void viommu_walk_fn(void *opaque, const struct viommu_view *view);
void viommu_walk(struct viommu *viommu, viommu_walk_fn *fn, void *opaque);

/* Translate an iova of this endpoint: the gpa, and how many of the len bytes are contiguous there.
 * -EFAULT: the access is not permitted. Any thread. */
int viommu_translate(struct viommu_endpoint *endpoint, uint64_t iova, uint64_t len,
		     enum dma_dir dir, uint64_t *gpa, uint64_t *contiguous);

#endif
