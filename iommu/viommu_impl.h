/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the virtual IOMMU share: viommu.c has endpoints and requests, viommu_domain.c the
 * domains, viommu_map.c the mappings in them. */
#ifndef IOMMU_VIOMMU_IMPL_H
#define IOMMU_VIOMMU_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/list.h"
#include "iommu/mappings.h"
#include "iommu/viommu.h"

enum { VIOMMU_RESERVED_MAX = IOMMU_RESERVED_MAX + 1 };

struct viommu_domain {
	struct list link;
	uint32_t id;
	bool bypass;
	bool kept; /* of before a reset: in no list, devices of the host alone are in it */
	struct list members; /* endpoints */
	struct mappings table;
	unsigned int n_emulated;
	struct ledger *ledger; /* written while there is one of those: what their faults tell */
	struct hw_domain *hw;  /* while a passed-through device is in it */
	unsigned int n_hw;
};

struct viommu_endpoint {
	struct viommu *viommu;
	struct list link;
	struct list member; /* of the domain */
	char name[40];
	viommu_id_fn *id; /* NULL: not known yet */
	void *id_opaque;
	struct viommu_domain *domain;
	struct dma_space *space; /* emulated; NULL: passed through */
	struct iommu_endpoint *device;
	struct hw_domain *all;
	struct hw_domain *at; /* NULL: attached to nothing */
	struct iommu_reserved reserved[VIOMMU_RESERVED_MAX];
	unsigned int n_reserved;
};

struct viommu {
	const struct log *log;
	struct log_limit limit;
	struct gmem *gmem;
	char *strategy;
	struct viommu_limits limits;
	/* Held over whole requests, so that they come one after the other. */
	pthread_mutex_t serial;
	/* Guards what translation reads: which endpoint is in which domain, the tables, bypass. Held
	 * for writing for as long as it takes to change them, never over waiting or system calls. */
	pthread_rwlock_t lock;
	struct list endpoints, domains;
	bool abandoned; /* some devices may be in domains that are kept; under serial */
	bool bypass;
	uint64_t mappings;
	struct viommu_totals totals; /* requests, failed, map_bytes */
	_Atomic uint64_t faults;
	pthread_mutex_t fault_lock; /* the two below, and the call */
	void (*fault)(void *opaque, const struct viommu_fault *fault);
	void *opaque;
};

struct viommu_endpoint *viommu_find_endpoint(struct viommu *viommu, uint32_t id);
struct viommu_domain *viommu_find_domain(struct viommu *viommu, uint32_t id);
enum viommu_status viommu_attach(struct viommu *viommu, const struct viommu_request *r);
enum viommu_status viommu_detach(struct viommu *viommu, const struct viommu_request *r);
/* Devices that kept what they reached lose it: all, or the one. Under serial. */
void viommu_settle_locked(struct viommu *viommu, const struct viommu_endpoint *which);
/* What was open on any emulated device of the domain is closed. */
void viommu_drain(struct viommu_domain *domain);
/* A run of MAPs, or of UNMAPs, all of one domain (NULL: it does not exist). */
void viommu_map_run(struct viommu *viommu, struct viommu_domain *domain,
		    struct viommu_request *requests, unsigned int n);
void viommu_unmap_run(struct viommu *viommu, struct viommu_domain *domain,
		      struct viommu_request *requests, unsigned int n);
/* Give the hardware what the domain has mapped already: 0 or a negative errno. */
int viommu_replay(struct viommu_domain *domain);
/* Forget all mappings; nothing is in the domain any more. */
void viommu_clear(struct viommu *viommu, struct viommu_domain *domain);
enum viommu_status viommu_status_of(int code);

#endif
