/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the virtual IOMMU. Calls go down only:
 *
 *   viommu.c            endpoints, requests
 *   viommu_translate.c  translation, faults
 *   viommu_domain.c     domains, and who is in which
 *   viommu_timer.c      ticks of strategies
 *   viommu_map.c        the guest mappings of a domain
 */
#ifndef IOMMU_VIOMMU_IMPL_H
#define IOMMU_VIOMMU_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/list.h"
#include "core/loop.h"
#include "iommu/mappings.h"
#include "iommu/viommu.h"

enum { VIOMMU_RESERVED_MAX = IOMMU_RESERVED_MAX + 1 };

/* Under `serial`. What translation reads is written under `lock` too: bypass, members, table,
 * n_emulated. */
struct viommu_domain {
	struct viommu *viommu;
	struct list link;
	uint32_t id;
	bool bypass;
	bool orphaned; /* kept by viommu_abandon: no request finds it, and only hardware is in it */
	struct list members; /* endpoints */
	/* Guest mappings, one record per MAP. Written under `serial`, and under `lock` too while
	 * emulated devices, which read it, are in the domain. */
	struct mappings table;
	unsigned int n_emulated;
	struct ledger
		*ledger; /* for faults of emulated devices; written while n_emulated is not 0 */
	struct hw_domain *hw; /* NULL: no passed-through device is in it */
	unsigned int n_hw;
};

/* Constant, or under `serial`; `domain` and `member` are written under `lock` too. */
struct viommu_endpoint {
	struct viommu *viommu;
	struct list link;
	struct list member; /* of the domain */
	char name[40];
	viommu_id_fn *id; /* NULL: hidden from the guest */
	void *id_opaque;
	struct viommu_domain *domain;
	struct dma_space *space; /* emulated; NULL: passed through */
	struct iommu_endpoint *device;
	struct hw_domain *all;
	struct hw_domain *at; /* where its device is attached, if it is (viommu_hardware_at) */
	char *strategy;       /* in domains of the guest */
	char *next_strategy;  /* during a switch */
	struct iommu_reserved reserved[VIOMMU_RESERVED_MAX];
	unsigned int n_reserved;
};

struct viommu {
	const struct log *log;
	struct log_limit limit;
	struct gmem *gmem;
	struct loop *loop; /* NULL: no strategy has a timer */
	struct gmem_listener listener;
	struct viommu_limits limits;
	/* Held over whole requests. Guards endpoints, domains, records and totals. Calls that may
	 * attach or detach hardware hold the memory map (gmem_hold) around it: viommu_hold. */
	pthread_mutex_t serial;
	/* Guards what translation reads: the domain of each endpoint, the tables, bypass. Writers
	 * never hold it while they wait or make system calls. */
	pthread_rwlock_t lock;
	struct list endpoints, domains, orphans;
	_Atomic bool abandoned; /* there may be orphans; written under serial */
	bool bypass;
	uint64_t mappings, mapped_bytes, tables; /* cost of all records (viommu_limits) */
	/* Written, like limits, under serial and lock; read under either. */
	unsigned int n_endpoints;
	struct loop_op wake, timer;  /* the loop's; the three below: under serial */
	bool waking;                 /* wake is posted */
	uint64_t timer_ns;           /* when the timer fires; 0: it is off */
	uint64_t due_ns;             /* the next tick; 0: none */
	struct viommu_totals totals; /* requests, failed, map_bytes */
	_Atomic uint64_t faults;
	pthread_mutex_t fault_lock; /* guards the two below; held over the call */
	void (*fault)(void *opaque, const struct viommu_fault *fault);
	void *opaque;
	void (*decided)(void *opaque, const char *endpoint, const char *why); /* constant */
	void *decided_opaque;
};

/* Lock and unlock serial, for calls that may attach or detach hardware: the memory map is held. */
static inline void viommu_hold(struct viommu *viommu)
{
	gmem_hold(viommu->gmem);
	pthread_mutex_lock(&viommu->serial);
}

static inline void viommu_release(struct viommu *viommu)
{
	pthread_mutex_unlock(&viommu->serial);
	gmem_release(viommu->gmem);
}

/* Under serial. UINT32_MAX: hidden from the guest. */
static inline uint32_t viommu_id_of(const struct viommu_endpoint *endpoint)
{
	return endpoint->id ? endpoint->id(endpoint->id_opaque) : UINT32_MAX;
}

/* Under serial. */
static inline void viommu_count_endpoint(struct viommu *viommu, int more)
{
	pthread_rwlock_wrlock(&viommu->lock);
	viommu->n_endpoints += (unsigned int)more;
	pthread_rwlock_unlock(&viommu->lock);
}

/* viommu_translate.c */
extern const struct dma_space_ops viommu_emulated_ops;

/* viommu_domain.c: under serial, the memory map held. */
struct viommu_domain *viommu_find_domain(struct viommu *viommu, uint32_t id);
/* The request's endpoint; NULL: the guest has named none that exists. */
enum viommu_status viommu_attach(struct viommu *viommu, struct viommu_endpoint *endpoint,
				 const struct viommu_request *r);
enum viommu_status viommu_detach(struct viommu_endpoint *endpoint, const struct viommu_request *r);
/* Where the endpoint's device is attached; NULL: nowhere. */
struct hw_domain *viommu_hardware_at(const struct viommu_endpoint *endpoint);
/* End viommu_abandon for one endpoint, or for all (NULL). */
void viommu_settle_locked(struct viommu *viommu, const struct viommu_endpoint *which);
/* The part of viommu_memory_leaves that is about one domain. */
void viommu_forget_memory(struct viommu_domain *domain, uint64_t gpa, uint64_t bytes);

/* viommu_timer.c. hw_domain_config.wake of a domain; its virtual IOMMU has a loop. Under serial. */
void viommu_wake(void *opaque, uint64_t ns);
void viommu_timer_init(struct viommu *viommu);
/* Nothing calls viommu_wake any more, and no other thread runs the loop. */
void viommu_timer_finish(struct viommu *viommu);

/* viommu_map.c: under serial. A run of MAPs, or of UNMAPs, of one domain (NULL: there is none). */
void viommu_map_run(struct viommu *viommu, struct viommu_domain *domain,
		    struct viommu_request *requests, unsigned int n);
void viommu_unmap_run(struct viommu *viommu, struct viommu_domain *domain,
		      struct viommu_request *requests, unsigned int n);
/* Unmap what is RETAINED in [first, last] and remove it from the table: 0 or a negative errno. */
int viommu_flush(struct viommu_domain *domain, uint64_t first, uint64_t last);
/* hw_domain_config.gone of a domain. */
void viommu_gone(void *opaque, struct mapping *record);
/* The limits of now: as configured, or shares of the present devices. Under serial, or lock. */
void viommu_limits_locked(const struct viommu *viommu, struct viommu_limits *ret);
/* Remove all records of a domain without members. */
void viommu_clear(struct viommu *viommu, struct viommu_domain *domain);
/* Steps 1 and 2 of viommu_memory_leaves. False: the hardware refuses a part, so that its devices
 * must be detached; after that it succeeds. *any: the guest had mapped some of it. */
bool viommu_unmap_memory(struct viommu *viommu, struct viommu_domain *domain, uint64_t gpa,
			 uint64_t bytes, bool *any);
/* Step 3: drain the emulated devices. */
void viommu_drain(struct viommu_domain *domain);

#endif
