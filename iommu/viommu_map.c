// SPDX-License-Identifier: Apache-2.0
// Mappings of a virtual IOMMU's domains: what a request must be to be carried out, the table that
// emulated devices translate by, and the hardware's.
#include <errno.h>

#include "base/num.h"
#include "iommu/viommu_impl.h"

enum { REPLAY_BATCH = 64 };

enum viommu_status viommu_status_of(int code)
{
	switch (code) {
	case 0:
		return VIOMMU_OK;
	case -ENOMEM:
	case -ENOSPC:
		return VIOMMU_NOMEM;
	case -EFAULT:
		return VIOMMU_FAULT;
	default:
		return VIOMMU_DEVERR;
	}
}

/* --- MAP --- */

/* All of it RAM that devices may reach, and be written if it is to be. */
static enum viommu_status check_memory(const struct viommu *viommu, uint64_t gpa, uint64_t bytes,
				       bool write)
{
	struct gmem_extent piece;
	uint64_t end;

	if (add_overflows(gpa, bytes, &end))
		return VIOMMU_RANGE;
	for (uint64_t done = 0; done < bytes; done += MIN(piece.bytes, bytes - done)) {
		if (!gmem_lookup(viommu->gmem, gpa + done, &piece) || (piece.flags & GMEM_NO_DMA))
			return VIOMMU_RANGE;
		if (write && (piece.flags & GMEM_READONLY))
			return VIOMMU_INVAL;
	}
	return VIOMMU_OK;
}

static bool is_reserved(const struct viommu_domain *domain, uint64_t first, uint64_t last)
{
	list_for_each (item, &domain->members) {
		const struct viommu_endpoint *e =
			container_of(item, struct viommu_endpoint, member);

		for (unsigned int i = 0; i < e->n_reserved; i++) {
			if (e->reserved[i].first <= last && first <= e->reserved[i].last)
				return true;
		}
	}
	return false;
}

static enum viommu_status check_map(const struct viommu *viommu, const struct viommu_domain *domain,
				    const struct viommu_request *r)
{
	const struct viommu_limits *limits = &viommu->limits;
	uint64_t mask = (limits->page_sizes & -limits->page_sizes) - 1;
	uint64_t bytes = r->last - r->first + 1;

	if (!domain)
		return VIOMMU_NOENT;
	if (domain->bypass ||
	    (r->flags & ~(uint32_t)(VIOMMU_F_READ | VIOMMU_F_WRITE | VIOMMU_F_MMIO)))
		return VIOMMU_INVAL;
	if (!(r->flags & (VIOMMU_F_READ | VIOMMU_F_WRITE)) || r->last < r->first)
		return VIOMMU_INVAL;
	if ((r->first | (r->last + 1) | r->gpa) & mask)
		return VIOMMU_RANGE;
	/* bytes is 0 for all of 64 bits, which no guest has. */
	if (r->first < limits->first || r->last > limits->last || !bytes)
		return VIOMMU_RANGE;
	if (mappings_find(&domain->table, r->first, r->last) ||
	    is_reserved(domain, r->first, r->last))
		return VIOMMU_INVAL;
	if (viommu->mappings >= limits->mappings)
		return VIOMMU_NOMEM;
	return check_memory(viommu, r->gpa, bytes, r->flags & VIOMMU_F_WRITE);
}

static unsigned int access_of(uint32_t flags)
{
	return (flags & VIOMMU_F_READ ? IOAS_READ : 0u) |
	       (flags & VIOMMU_F_WRITE ? IOAS_WRITE : 0u);
}

static enum viommu_status insert_locked(struct viommu *viommu, struct viommu_domain *domain,
					const struct viommu_request *r)
{
	struct mapping *mapping;
	int code = mappings_insert(&domain->table, r->first, r->last, &mapping);

	if (!code) {
		mapping->gpa = r->gpa;
		mapping->access = access_of(r->flags);
		viommu->mappings++;
	}
	return viommu_status_of(code);
}

static void take_locked(struct viommu *viommu, struct viommu_domain *domain,
			struct mapping *mapping)
{
	mappings_remove(&domain->table, mapping);
	viommu->mappings--;
}

/* The hardware's part of a run: only what was accepted goes there, as one call. */
static void hardware(struct viommu_domain *domain, struct viommu_request *requests, unsigned int n,
		     unsigned int (*call)(struct hw_domain *domain, struct iommu_request *requests,
					  unsigned int n))
{
	struct iommu_request batch[REPLAY_BATCH];
	struct viommu_request *of[REPLAY_BATCH];

	for (unsigned int i = 0; domain->n_hw && i < n;) {
		unsigned int m = 0;

		for (; i < n && m < REPLAY_BATCH; i++) {
			if (requests[i].status != VIOMMU_OK)
				continue;
			of[m] = &requests[i];
			batch[m++] = requests[i].io;
		}
		if (m)
			call(domain->hw, batch, m);
		for (unsigned int j = 0; j < m; j++)
			of[j]->status = viommu_status_of(batch[j].result);
	}
}

void viommu_map_run(struct viommu *viommu, struct viommu_domain *domain,
		    struct viommu_request *requests, unsigned int n)
{
	struct ledger_entry entry = {.op = LEDGER_MAP};
	bool told = domain && domain->n_emulated;

	if (told)
		entry.start_ns = ledger_now(domain->ledger);
	pthread_rwlock_wrlock(&viommu->lock);
	for (unsigned int i = 0; i < n; i++) {
		struct viommu_request *r = &requests[i];

		r->status = check_map(viommu, domain, r);
		if (r->status != VIOMMU_OK)
			continue;
		r->io = (struct iommu_request){
			.iova = r->first,
			.bytes = r->last - r->first + 1,
			.gpa = r->gpa,
			.access = access_of(r->flags),
		};
		r->status = insert_locked(viommu, domain, r);
	}
	pthread_rwlock_unlock(&viommu->lock);
	if (!domain)
		return;
	/* What the hardware refuses leaves the table again: io.bytes says that it had been there. */
	for (unsigned int i = 0; i < n; i++)
		requests[i].io.result = requests[i].status == VIOMMU_OK;
	hardware(domain, requests, n, hw_domain_map);
	if (told)
		entry.end_ns = ledger_now(domain->ledger);
	for (unsigned int i = 0; i < n; i++) {
		struct viommu_request *r = &requests[i];
		bool entered = r->io.result;

		if (!entered)
			continue;
		if (r->status != VIOMMU_OK) {
			pthread_rwlock_wrlock(&viommu->lock);
			take_locked(viommu, domain,
				    mappings_find(&domain->table, r->first, r->last));
			pthread_rwlock_unlock(&viommu->lock);
		} else {
			viommu->totals.map_bytes += r->io.bytes;
		}
		if (!told)
			continue;
		entry.iova = r->first;
		entry.bytes = r->io.bytes;
		entry.gpa = r->gpa;
		entry.code = r->status == VIOMMU_OK ? 0 : -EIO;
		ledger_enter(domain->ledger, &entry, 1);
	}
}

/* --- UNMAP --- */

static enum viommu_status check_unmap(const struct viommu_domain *domain,
				      const struct viommu_request *r)
{
	if (!domain)
		return VIOMMU_NOENT;
	if (domain->bypass || r->last < r->first)
		return VIOMMU_INVAL;
	return mappings_cut(&domain->table, r->first, r->last) ? VIOMMU_RANGE : VIOMMU_OK;
}

/* From the table, narrowing the request to what there was: the hardware's call has no gaps at its
 * ends and fits its addresses. */
static void remove_all(struct viommu *viommu, struct viommu_domain *domain,
		       struct viommu_request *r, uint64_t start_ns)
{
	struct ledger_entry entry = {
		.op = LEDGER_UNMAP,
		.start_ns = start_ns,
		.end_ns = domain->n_emulated ? ledger_now(domain->ledger) : 0,
	};
	struct mapping *mapping, *next;
	uint64_t first = 0, last = 0, bytes = 0;

	pthread_rwlock_wrlock(&viommu->lock);
	for (mapping = mappings_find(&domain->table, r->first, r->last); mapping; mapping = next) {
		next = mappings_next(mapping, r->last);
		if (!bytes)
			first = mapping->iova;
		last = mapping->last;
		entry.iova = mapping->iova;
		entry.bytes = last - mapping->iova + 1;
		entry.gpa = mapping->gpa;
		bytes += entry.bytes;
		if (domain->n_emulated)
			ledger_enter(domain->ledger, &entry, 1);
		take_locked(viommu, domain, mapping);
	}
	pthread_rwlock_unlock(&viommu->lock);
	r->io = (struct iommu_request){.iova = first, .bytes = bytes ? last - first + 1 : 0};
}

void viommu_unmap_run(struct viommu *viommu, struct viommu_domain *domain,
		      struct viommu_request *requests, unsigned int n)
{
	uint64_t start_ns = domain && domain->n_emulated ? ledger_now(domain->ledger) : 0;
	bool any = false;

	for (unsigned int i = 0; i < n; i++) {
		struct viommu_request *r = &requests[i];

		r->io.bytes = 0;
		r->status = check_unmap(domain, r);
		if (r->status != VIOMMU_OK)
			continue;
		remove_all(viommu, domain, r, start_ns);
		any |= r->io.bytes;
	}
	if (!any)
		return;
	viommu_drain(domain);
	/* Those that had nothing to unmap are OK already, and stay out of the call. */
	for (unsigned int i = 0; i < n; i++) {
		unsigned int run = 0;

		while (i + run < n && requests[i + run].status == VIOMMU_OK &&
		       requests[i + run].io.bytes)
			run++;
		if (run)
			hardware(domain, requests + i, run, hw_domain_unmap);
		for (unsigned int j = i; j < i + run; j++) {
			if (requests[j].status != VIOMMU_OK)
				log_guest(viommu->log, &viommu->limit, "viommu",
					  "domain %u: the hardware kept [%#llx, %#llx]", domain->id,
					  (unsigned long long)requests[j].first,
					  (unsigned long long)requests[j].last);
		}
		i += run;
	}
}

/* --- whole domains --- */

int viommu_replay(struct viommu_domain *domain)
{
	struct iommu_request batch[REPLAY_BATCH];
	struct mapping *mapping;
	uint64_t at = 0;
	bool more = true;

	while (more) {
		unsigned int n = 0;

		while (n < REPLAY_BATCH &&
		       (more = (mapping = mappings_find(&domain->table, at, UINT64_MAX)))) {
			batch[n++] = (struct iommu_request){
				.iova = mapping->iova,
				.bytes = mapping->last - mapping->iova + 1,
				.gpa = mapping->gpa,
				.access = mapping->access,
			};
			at = mapping->last + 1; /* the input range ends before 2^64 */
		}
		if (!n || !hw_domain_map(domain->hw, batch, n))
			continue;
		for (unsigned int i = 0; i < n; i++) {
			if (batch[i].result)
				return batch[i].result;
		}
	}
	return 0;
}

void viommu_clear(struct viommu *viommu, struct viommu_domain *domain)
{
	viommu->mappings -= domain->table.count;
	mappings_clear(&domain->table);
}
