/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest's own IOMMU, whatever it looks like to the guest (devices/virtio/iommu.c is one face of it).
 *
 *   guest ─► front end ─► viommu_run(requests) ─► domain: which of its addresses mean which memory
 *                                                   │  (one table for all endpoints in the domain)
 *       emulated devices:  dma_space ◄── translate ─┤
 *       passed-through:    hw_domain (strategy) ◄───┘  hardware
 *
 * An endpoint is a device behind it, known to the guest by a number (PCI requester id). It is
 *
 *   attached to a domain       it reaches what was mapped there, with the access that was given
 *   in a bypass domain, or
 *   in none and bypass is on   all of guest memory, where the guest has it
 *   in none and bypass is off  nothing
 *
 * A domain exists while an endpoint is in it. Requests that one call brings are taken together:
 * neighbouring maps of a domain are one call to the strategy, neighbouring unmaps one drain and one
 * call. A request that fails changes nothing. When an unmap (or detach) is answered no device can
 * reach the range through that domain: hardware table and caches are done, what emulated devices had
 * open is closed. A map is reached by an emulated device once the hardware has it too.
 *
 * A domain's table has one record per MAP: it is the only one, and strategies work from it.
 *
 * The statuses are virtio 1.3's (5.13.6). Where it leaves one open:
 *   memory that is not the guest's RAM, or outside of the input range   RANGE
 *   a range that ends before it begins, no access, read-only memory to be written, a domain outside of
 *   the domain range, a reserved range of an endpoint of the domain     INVAL
 *   an endpoint with a reserved range where the domain maps something   UNSUPP
 *
 * Threads: requests, reset and bypass by any thread that is not inside a DMA bracket and holds no
 * lock of the memory map's listeners; they wait for each other. Adding and removing of endpoints by the
 * machine's thread, also while requests run. Translation by the loops.
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
	VIOMMU_R_DOMAIN,  /* not in a domain, and no bypass */
	VIOMMU_R_MAPPING, /* not mapped, or not with this access */
};
struct viommu_fault {
	enum viommu_reason reason;
	uint32_t endpoint;
	bool write;
	bool has_address;
	uint64_t address;
	const char *name;    /* the endpoint's */
	const char *history; /* what is known of the address: "unmapped 3.1 ms ago (…)" */
};

struct viommu_limits {
	uint64_t page_sizes; /* a bit per size; the lowest is the granularity */
	uint64_t first, last;
	uint32_t domain_first, domain_last;
	/* Of all domains together, by what they cost the host; beyond, a MAP gets NOMEM. 0 for the last two: a
	 * share per device (viommu_limits gives what holds now). */
	uint64_t mappings;     /* records */
	uint64_t mapped_bytes; /* pinned anew by each mapping */
	uint64_t tables;       /* pages of the IOMMU's tables, at most (mappings.h) */
};

struct viommu_config {
	const struct log *log;
	struct gmem *gmem;
	struct viommu_limits limits; /* zeroes: 4 KiB, 2 MiB, 1 GiB; 48 bits; all; a million */
	bool bypass;                 /* at power-on */
	struct loop *loop, *worker;  /* for strategies that need them (hw_domain.h); NULL: none */
	/* Any thread, a loop's included, with a bracket open: must not wait. NULL: the log only. */
	void (*fault)(void *opaque, const struct viommu_fault *fault);
	void *opaque;
};
int viommu_create(struct viommu **ret, const struct viommu_config *config, struct err *err);
/* All endpoints removed. NULL is allowed. */
void viommu_destroy(struct viommu *viommu);
/* Where faults go from now on; before devices run, and NULL when whoever took them ends. */
void viommu_set_fault(struct viommu *viommu,
		      void (*fault)(void *opaque, const struct viommu_fault *fault), void *opaque);

/* What the guest knows the endpoint by, as of now (bus numbers are the guest's to change). */
typedef uint32_t viommu_id_fn(void *opaque);

/* A device whose DMA goes through `space`, which is the endpoint's and lives until its removal. */
int viommu_add_emulated(struct viommu_endpoint **ret, struct viommu *viommu, const char *name,
			struct dma_space **space, struct err *err);
/* A passed-through device. `all` has all of guest memory mapped (for bypass); both stay the caller's, but
 * where the device is attached is the virtual IOMMU's from here to the removal, which leaves it
 * detached. Narrows the limits to what its IOMMU can. -EOPNOTSUPP with type1. */
struct viommu_hardware {
	const char *name;     /* copied */
	const char *strategy; /* in domains of the guest: "NAME,key=value,…"; copied */
	struct iommu_endpoint *device;
	struct hw_domain *all;
	const struct iommu_reserved *reserved;
	unsigned int n_reserved;
};
int viommu_add_hardware(struct viommu_endpoint **ret, struct viommu *viommu,
			const struct viommu_hardware *hardware, struct err *err);
/* Until then the guest does not know it. NULL: no more. */
void viommu_set_id(struct viommu_endpoint *endpoint, viommu_id_fn *id, void *opaque);
/* From any state, while requests run: from when it returns no request finds it, its id is not asked for
 * any more, and its device is attached to nothing. So it comes before the device that id looks at is
 * freed; an emulated device has stopped before. NULL is allowed. */
void viommu_remove(struct viommu_endpoint *endpoint);
const char *viommu_endpoint_name(const struct viommu_endpoint *endpoint);
/* What the host's IOMMU reported of it (direction and address), for the guest; what is known of the
 * address goes to history. */
void viommu_hardware_fault(struct viommu_endpoint *endpoint, const struct viommu_fault *fault,
			   char *history, unsigned int bytes);

void viommu_limits(struct viommu *viommu, struct viommu_limits *ret);
/* Each gets its status, in order. */
void viommu_run(struct viommu *viommu, struct viommu_request *requests, unsigned int n);
/* Reserved ranges of the endpoint with that number, for PROBE: how many, of which up to max were
 * stored; -ENOENT. */
int viommu_probe(struct viommu *viommu, uint32_t endpoint, struct iommu_reserved *ranges,
		 unsigned int max);
bool viommu_bypass(struct viommu *viommu);
void viommu_set_bypass(struct viommu *viommu, bool bypass);
/* No endpoint is in any domain afterwards. */
void viommu_reset(struct viommu *viommu);

/* The same for a guest, whose driver has let go of it, but passed-through devices keep what they reach at
 * this moment, no more and no less, until one of
 *
 *     viommu_settle             a driver takes the virtual IOMMU over (a request says so too)
 *     viommu_device_starts      a driver starts the device anew (it turns its bus mastering on)
 *     viommu_set_bypass, viommu_reset
 *
 * For Linux resets its virtio devices before it shuts down the devices behind them: its NVMe driver
 * would send commands to a controller that no longer reaches its queues, and wait a minute for each.
 * Until somebody starts it anew the device knows I/O addresses of the old mappings only, so that bypass
 * (all of memory, at other addresses) would serve nobody, and nothing (without bypass) only takes away
 * what the guest had given. */
void viommu_abandon(struct viommu *viommu);
void viommu_settle(struct viommu *viommu);
void viommu_device_starts(struct viommu_endpoint *endpoint);

/* Another strategy for a passed-through device in domains of the guest (NULL: for all of them), now and
 * from now on, while it works (hw_domain_switch says what it sees of it). Devices that share a domain
 * change together; one with another strategy does not come into it. When one domain cannot, none has
 * changed. Any thread, as requests. */
int viommu_switch(struct viommu *viommu, struct viommu_endpoint *endpoint, const char *strategy,
		  struct err *err);

/* [gpa, gpa + bytes) is about to leave the guest (a region is removed; pages are given back). In this
 * order, so that nobody reaches it when this returns:
 *
 *   1. hardware: what the guest has mapped of it is unmapped, in every domain
 *   2. retained: what a strategy keeps in the hardware though the guest has unmapped it (flush)
 *   3. aliases: each record that means a part of it is removed, at whatever I/O address, and what
 *      emulated devices have open in the domain is closed
 *   4. the discard, which is the caller's
 *
 * A domain whose hardware refuses 1 or 2 loses its devices: they are detached. Called by the memory map for
 * regions; by whoever gives back pages, holding the map (gmem_hold). New mappings of a region are refused
 * meanwhile: it has GMEM_NO_DMA. */
void viommu_memory_leaves(struct viommu *viommu, uint64_t gpa, uint64_t bytes);

struct viommu_totals {
	uint64_t requests[VIOMMU_UNMAP + 1], failed[VIOMMU_UNMAP + 1];
	uint64_t map_bytes, mapped_bytes, mappings, tables;
	uint64_t faults;
	unsigned int domains, endpoints;
};
void viommu_totals(struct viommu *viommu, struct viommu_totals *ret);
/* For status: an endpoint, and what it is in. */
struct viommu_view {
	const struct viommu_endpoint *endpoint;
	bool attached;   /* to a domain of the guest's; what follows says of which sort */
	uint32_t domain; /* its number, when attached */
	bool bypass;     /* reaches all of memory, there or because it is in none */
	uint64_t mappings, mapped_bytes; /* what the guest has mapped in it */
	const struct hw_domain *hw;      /* NULL: it is emulated, or in none */
};
typedef void viommu_walk_fn(void *opaque, const struct viommu_view *view);
void viommu_walk(struct viommu *viommu, viommu_walk_fn *fn, void *opaque);

/* What an address of this endpoint means to its DMA now: 0, or -EFAULT. Also for checks. */
int viommu_translate(struct viommu_endpoint *endpoint, uint64_t iova, uint64_t len,
		     enum dma_dir dir, uint64_t *gpa, uint64_t *contiguous);

#endif
