// SPDX-License-Identifier: Apache-2.0
// The virtual IOMMU: translation for emulated devices, and reports of faults.
#include <errno.h>
#include <stdio.h>

#include "base/num.h"
#include "iommu/viommu_impl.h"

/* --- translation --- */

static unsigned int access_of_dir(enum dma_dir dir)
{
	return (dir & DMA_TO_DEVICE ? IOAS_READ : 0u) | (dir & DMA_FROM_DEVICE ? IOAS_WRITE : 0u);
}

int viommu_translate(struct viommu_endpoint *endpoint, uint64_t iova, uint64_t len,
		     enum dma_dir dir, uint64_t *gpa, uint64_t *contiguous)
{
	struct viommu *viommu = endpoint->viommu;
	const struct viommu_domain *domain;
	const struct mapping *mapping;
	int ret = -EFAULT;

	pthread_rwlock_rdlock(&viommu->lock);
	domain = endpoint->domain;
	if (domain ? domain->bypass : viommu->bypass) {
		*gpa = iova;
		*contiguous = len;
		ret = 0;
	} else if (domain && (mapping = mappings_find(&domain->table, iova, iova)) &&
		   mapping->state == MAPPING_WANTED &&
		   (mapping->access & access_of_dir(dir)) == access_of_dir(dir)) {
		*gpa = mapping->gpa + (iova - mapping->iova);
		*contiguous = MIN(mapping->last - iova + 1, len);
		ret = 0;
	}
	pthread_rwlock_unlock(&viommu->lock);
	return ret;
}

/* --- faults --- */

void viommu_set_fault(struct viommu *viommu,
		      void (*fault)(void *opaque, const struct viommu_fault *fault), void *opaque)
{
	pthread_mutex_lock(&viommu->fault_lock);
	viommu->fault = fault;
	viommu->opaque = opaque;
	pthread_mutex_unlock(&viommu->fault_lock);
}

static void report(struct viommu *viommu, const struct viommu_fault *fault)
{
	atomic_fetch_add(&viommu->faults, 1);
	log_guest(viommu->log, &viommu->limit, "viommu", "%s: may not %s %#llx: %s", fault->name,
		  fault->write ? "write" : "read", (unsigned long long)fault->address,
		  fault->history);
	pthread_mutex_lock(&viommu->fault_lock);
	if (viommu->fault)
		viommu->fault(viommu->opaque, fault);
	pthread_mutex_unlock(&viommu->fault_lock);
}

static void emulated_fault(void *opaque, uint32_t requester, uint64_t iova, uint64_t len,
			   enum dma_dir dir)
{
	struct viommu_endpoint *endpoint = opaque;
	struct viommu *viommu = endpoint->viommu;
	char history[160] = "it is in no domain";
	struct viommu_fault fault = {
		.reason = VIOMMU_R_DOMAIN,
		.endpoint = requester,
		.write = dir & DMA_FROM_DEVICE,
		.has_address = true,
		.address = iova,
		.name = endpoint->name,
		.history = history,
	};

	(void)len;
	pthread_rwlock_rdlock(&viommu->lock);
	if (endpoint->domain) {
		const struct mapping *mapping = mappings_find(&endpoint->domain->table, iova, iova);

		fault.reason = VIOMMU_R_MAPPING;
		if (mapping && mapping->state == MAPPING_WANTED)
			snprintf(history, sizeof(history), "mapped %s (gpa %#llx)",
				 mapping->access & IOAS_READ ? "read-only" : "write-only",
				 (unsigned long long)(mapping->gpa + iova - mapping->iova));
		else
			ledger_history(endpoint->domain->ledger, iova, history, sizeof(history));
	} else if (viommu->bypass) {
		snprintf(history, sizeof(history), "no memory there");
	}
	pthread_rwlock_unlock(&viommu->lock);
	report(viommu, &fault);
}

static int emulated_translate(void *opaque, uint64_t iova, uint64_t len, enum dma_dir dir,
			      uint64_t *gpa, uint64_t *contiguous)
{
	return viommu_translate(opaque, iova, len, dir, gpa, contiguous);
}

const struct dma_space_ops viommu_emulated_ops = {
	.translate = emulated_translate,
	.fault = emulated_fault,
};

void viommu_hardware_fault(struct viommu_endpoint *endpoint, const struct viommu_fault *fault,
			   char *history, unsigned int bytes)
{
	struct viommu *viommu = endpoint->viommu;
	struct viommu_fault copy = *fault;
	const struct hw_domain *at;

	pthread_mutex_lock(&viommu->serial);
	copy.reason = endpoint->domain ? VIOMMU_R_MAPPING : VIOMMU_R_DOMAIN;
	at = viommu_hardware_at(endpoint);
	if (at)
		ioas_history(hw_domain_ioas(at), fault->address, history, bytes);
	else
		snprintf(history, bytes, "it is in no domain");
	copy.endpoint = viommu_id_of(endpoint);
	pthread_mutex_unlock(&viommu->serial);
	copy.history = history;
	copy.name = endpoint->name;
	report(viommu, &copy);
}
