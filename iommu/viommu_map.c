// SPDX-License-Identifier: Apache-2.0
// Guest mappings of a domain: the checks of MAP and UNMAP, the table of records, by which emulated
// devices translate, and the calls of the hw_domain.
#include <errno.h>

#include "base/num.h"
#include "iommu/guest_memory.h"
#include "iommu/viommu_impl.h"

enum {
	BATCH = 256,  /* requests per call of the hw_domain */
	SLICE = 1024, /* records that are changed while translation waits */
};

static enum viommu_status status_of(int code)
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

/* --- the table --- */

/* Only translation for emulated devices reads the table without `serial`. */
static void table_lock(struct viommu *viommu, const struct viommu_domain *domain)
{
	if (domain->n_emulated)
		pthread_rwlock_wrlock(&viommu->lock);
}

static void table_unlock(struct viommu *viommu, const struct viommu_domain *domain)
{
	if (domain->n_emulated)
		pthread_rwlock_unlock(&viommu->lock);
}

/* Called per changed record: let translation in after each SLICE. */
static void table_step(struct viommu *viommu, const struct viommu_domain *domain, unsigned int *n)
{
	if (++*n % SLICE)
		return;
	table_unlock(viommu, domain);
	table_lock(viommu, domain);
}

static void remove_record(struct viommu *viommu, struct viommu_domain *domain,
			  struct mapping *record)
{
	viommu->mappings--;
	viommu->mapped_bytes -= record->last - record->iova + 1;
	viommu->tables -= domain->table.tables;
	mappings_remove(&domain->table, record);
	viommu->tables += domain->table.tables;
}

/* From now on translation refuses the record. */
static void make_going(const struct viommu_domain *domain, struct mapping *record, uint64_t now_ns)
{
	const struct ledger_entry entry = {
		.op = LEDGER_UNMAP,
		.iova = record->iova,
		.bytes = record->last - record->iova + 1,
		.gpa = record->gpa,
		.start_ns = now_ns,
		.end_ns = now_ns,
	};

	record->state = MAPPING_GOING;
	if (domain->n_emulated)
		ledger_enter(domain->ledger, &entry, 1);
}

/* Remove the GOING records in [first, last] from the table. */
static void sweep(struct viommu *viommu, struct viommu_domain *domain, uint64_t first,
		  uint64_t last)
{
	struct mapping *record, *next;
	unsigned int steps = 0;

	table_lock(viommu, domain);
	for (record = mappings_find(&domain->table, first, last); record; record = next) {
		next = mappings_next(record, last);
		table_step(viommu, domain, &steps);
		if (record->state == MAPPING_GOING)
			remove_record(viommu, domain, record);
	}
	table_unlock(viommu, domain);
}

void viommu_drain(struct viommu_domain *domain)
{
	list_for_each (item, &domain->members) {
		struct viommu_endpoint *e = container_of(item, struct viommu_endpoint, member);

		if (e->space)
			dma_space_drain(e->space);
	}
}

/* --- retained records --- */

int viommu_flush(struct viommu_domain *domain, uint64_t first, uint64_t last)
{
	return domain->hw ? hw_domain_flush(domain->hw, first, last) : 0;
}

void viommu_gone(void *opaque, struct mapping *record)
{
	struct viommu_domain *domain = opaque;

	table_lock(domain->viommu, domain);
	remove_record(domain->viommu, domain, record);
	table_unlock(domain->viommu, domain);
}

static uint64_t n_retained(const struct viommu_domain *domain)
{
	return hw_domain_retained(domain->hw).mappings;
}

/* A limit is met: flush every domain. False: nothing was freed. */
static bool give_back(struct viommu *viommu)
{
	bool any = false;

	list_for_each (item, &viommu->domains) {
		struct viommu_domain *d = container_of(item, struct viommu_domain, link);
		uint64_t before = n_retained(d);

		(void)viommu_flush(d, 0, UINT64_MAX);
		any |= n_retained(d) < before;
	}
	return any;
}

/* --- the hardware --- */

/* Pass the accepted requests to the hw_domain in one call. */
static void hardware(struct viommu_domain *domain, struct viommu_request *requests, unsigned int n,
		     unsigned int (*call)(struct hw_domain *domain, struct hw_request *requests,
					  unsigned int n))
{
	struct hw_request batch[BATCH];
	struct viommu_request *of[BATCH];
	unsigned int m = 0;

	for (unsigned int i = 0; domain->n_hw && i < n; i++) {
		if (requests[i].status != VIOMMU_OK || !requests[i].hw.bytes)
			continue;
		of[m] = &requests[i];
		batch[m++] = requests[i].hw;
	}
	if (m)
		call(domain->hw, batch, m);
	for (unsigned int j = 0; j < m; j++) {
		of[j]->hw = batch[j];
		of[j]->status = status_of(batch[j].result);
	}
}

/* --- MAP --- */

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

static bool is_range(const struct viommu_limits *limits, const struct viommu_request *r)
{
	uint64_t mask = (limits->page_sizes & -limits->page_sizes) - 1;

	if ((r->first | (r->last + 1) | r->gpa) & mask)
		return false;
	/* A length of 2^64 wraps to 0. */
	return r->first >= limits->first && r->last <= limits->last && r->last - r->first + 1;
}

static unsigned int access_of(uint32_t flags)
{
	return (flags & VIOMMU_F_READ ? IOAS_READ : 0u) |
	       (flags & VIOMMU_F_WRITE ? IOAS_WRITE : 0u);
}

/* Does the request map again exactly what the hardware still has? */
static bool is_retained_as(const struct mapping *record, const struct viommu_request *r)
{
	return record->state == MAPPING_RETAINED && record->iova == r->first &&
	       record->last == r->last && record->gpa == r->gpa &&
	       record->access == access_of(r->flags);
}

/* All of memory for each device, and once more for all together: a guest that gives devices to its
 * own guests or processes maps no more. */
void viommu_limits_locked(const struct viommu *viommu, struct viommu_limits *ret)
{
	enum { SCATTERED_TABLES = 65536 };

	*ret = viommu->limits;
	if (!ret->mapped_bytes)
		ret->mapped_bytes =
			(viommu->n_endpoints + 1) * gmem_ram_bytes(viommu->gmem) + 256 * MiB;
	if (!ret->tables)
		ret->tables = ret->mapped_bytes / (2 * MiB) + SCATTERED_TABLES;
}

/* Limits are by cost: a guest chooses the size and place of each mapping. */
static bool exceeds_limits(const struct viommu *viommu, const struct viommu_domain *domain,
			   const struct viommu_request *r)
{
	struct viommu_limits limits;
	uint64_t bytes = r->last - r->first + 1;

	viommu_limits_locked(viommu, &limits);
	return viommu->mappings >= limits.mappings || bytes > limits.mapped_bytes ||
	       viommu->mapped_bytes > limits.mapped_bytes - bytes ||
	       viommu->tables + mappings_more_tables(&domain->table, r->first, r->last) >
		       limits.tables;
}

static enum viommu_status check_map(const struct viommu *viommu, const struct viommu_domain *domain,
				    const struct viommu_request *r, struct mapping **record,
				    char **hva)
{
	const uint32_t known = VIOMMU_F_READ | VIOMMU_F_WRITE | VIOMMU_F_MMIO;

	if (domain->bypass || r->flags & ~known)
		return VIOMMU_INVAL;
	if (!(r->flags & (VIOMMU_F_READ | VIOMMU_F_WRITE)) || r->last < r->first)
		return VIOMMU_INVAL;
	if (!is_range(&viommu->limits, r))
		return VIOMMU_RANGE;
	*record = mappings_find(&domain->table, r->first, r->last);
	if ((*record && !is_retained_as(*record, r)) || is_reserved(domain, r->first, r->last))
		return VIOMMU_INVAL;
	if (!*record && exceeds_limits(viommu, domain, r))
		return VIOMMU_NOMEM;
	switch (guest_memory_check(viommu->gmem, r->gpa, r->last - r->first + 1,
				   access_of(r->flags), hva)) {
	case 0:
		return VIOMMU_OK;
	case -EPERM:
		return VIOMMU_INVAL;
	default:
		return VIOMMU_RANGE;
	}
}

/* Check the request and insert its record: COMING, or WANTED where there is no hardware. */
static void admit_locked(struct viommu *viommu, struct viommu_domain *domain,
			 struct viommu_request *r)
{
	uint64_t tables = domain->table.tables;
	struct mapping *record = NULL;
	char *hva = NULL;

	r->hw = (struct hw_request){0};
	r->status = check_map(viommu, domain, r, &record, &hva);
	if (r->status != VIOMMU_OK)
		return;
	if (!record) {
		r->status = status_of(mappings_insert(&domain->table, r->first, r->last, &record));
		if (r->status != VIOMMU_OK)
			return;
		viommu->mappings++;
		viommu->mapped_bytes += r->last - r->first + 1;
		viommu->tables += domain->table.tables - tables;
	}
	record->gpa = r->gpa;
	record->hva = hva;
	record->access = access_of(r->flags);
	record->state = domain->n_hw ? MAPPING_COMING : MAPPING_WANTED;
	r->hw = (struct hw_request){
		.iova = r->first,
		.last = r->last,
		.bytes = r->last - r->first + 1,
		.record = record,
	};
}

/* Is something else in the range of the request than exactly its mapping, retained? */
static bool is_in_the_way(const struct viommu_domain *domain, const struct viommu_request *r)
{
	const struct mapping *record =
		r->last < r->first ? NULL : mappings_find(&domain->table, r->first, r->last);

	return record && !is_retained_as(record, r);
}

/* Flush what is in the way of the requests, neighbours in one call. */
static void make_way(struct viommu_domain *domain, const struct viommu_request *requests,
		     unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		uint64_t first = requests[i].first, last = requests[i].last;

		if (!is_in_the_way(domain, &requests[i]))
			continue;
		while (i + 1 < n && requests[i + 1].first == last + 1 &&
		       is_in_the_way(domain, &requests[i + 1]))
			last = requests[++i].last;
		(void)viommu_flush(domain, first, last);
	}
}

static void admit(struct viommu *viommu, struct viommu_domain *domain,
		  struct viommu_request *requests, unsigned int n)
{
	if (n_retained(domain))
		make_way(domain, requests, n);
	table_lock(viommu, domain);
	for (unsigned int i = 0; i < n; i++) {
		struct viommu_request *r = &requests[i];

		admit_locked(viommu, domain, r);
		if (r->status != VIOMMU_NOMEM)
			continue;
		table_unlock(viommu, domain);
		if (give_back(viommu)) {
			table_lock(viommu, domain);
			admit_locked(viommu, domain, r);
		} else {
			table_lock(viommu, domain);
		}
	}
	table_unlock(viommu, domain);
}

static void map_hardware(struct viommu *viommu, struct viommu_domain *domain,
			 struct viommu_request *requests, unsigned int n)
{
	bool full = false;

	hardware(domain, requests, n, hw_domain_map);
	for (unsigned int i = 0; i < n; i++)
		full |= requests[i].hw.record && requests[i].status == VIOMMU_NOMEM;
	if (!full || !give_back(viommu))
		return;
	for (unsigned int i = 0; i < n; i++) {
		if (!requests[i].hw.record || requests[i].status != VIOMMU_NOMEM)
			continue;
		requests[i].status = VIOMMU_OK;
		hardware(domain, &requests[i], 1, hw_domain_map);
	}
}

/* The hardware has accepted or refused the mapping; from now on emulated devices can use it. */
static void settle_locked(struct viommu *viommu, struct viommu_domain *domain,
			  struct viommu_request *r, struct ledger_entry *entry)
{
	if (!r->hw.record)
		return;
	if (r->status == VIOMMU_OK) {
		r->hw.record->state = MAPPING_WANTED;
		viommu->totals.map_bytes += r->hw.bytes;
	} else {
		remove_record(viommu, domain, r->hw.record);
	}
	if (!domain->n_emulated)
		return;
	entry->iova = r->first;
	entry->bytes = r->hw.bytes;
	entry->gpa = r->gpa;
	entry->code = r->status == VIOMMU_OK ? 0 : -EIO;
	ledger_enter(domain->ledger, entry, 1);
}

static void map_batch(struct viommu *viommu, struct viommu_domain *domain,
		      struct viommu_request *requests, unsigned int n)
{
	struct ledger_entry entry = {.op = LEDGER_MAP};

	if (domain->n_emulated)
		entry.start_ns = ledger_now(domain->ledger);
	admit(viommu, domain, requests, n);
	map_hardware(viommu, domain, requests, n);
	if (domain->n_emulated)
		entry.end_ns = ledger_now(domain->ledger);
	table_lock(viommu, domain);
	for (unsigned int i = 0; i < n; i++)
		settle_locked(viommu, domain, &requests[i], &entry);
	table_unlock(viommu, domain);
}

static void refuse(struct viommu_request *requests, unsigned int n, enum viommu_status status)
{
	for (unsigned int i = 0; i < n; i++)
		requests[i].status = status;
}

void viommu_map_run(struct viommu *viommu, struct viommu_domain *domain,
		    struct viommu_request *requests, unsigned int n)
{
	if (!domain)
		refuse(requests, n, VIOMMU_NOENT);
	for (unsigned int i = 0; domain && i < n; i += BATCH)
		map_batch(viommu, domain, requests + i, MIN(n - i, (unsigned int)BATCH));
}

/* --- UNMAP --- */

/* Make the WANTED records of the request GOING, so that translation refuses them. r->hw spans from
 * the first of these records to the last, since the request's own range may be larger than the
 * hardware's. */
static void begin_unmap(struct viommu *viommu, struct viommu_domain *domain,
			struct viommu_request *r)
{
	uint64_t now_ns = domain->n_emulated ? ledger_now(domain->ledger) : 0;
	unsigned int steps = 0;
	struct mapping *record;

	table_lock(viommu, domain);
	record = mappings_find(&domain->table, r->first, r->last);
	for (; record; record = mappings_next(record, r->last)) {
		table_step(viommu, domain, &steps);
		if (record->state != MAPPING_WANTED)
			continue;
		make_going(domain, record, now_ns);
		if (!r->hw.bytes)
			r->hw.iova = record->iova;
		r->hw.last = record->last;
		r->hw.bytes += record->last - record->iova + 1;
	}
	table_unlock(viommu, domain);
}

static enum viommu_status check_unmap(const struct viommu_domain *domain,
				      const struct viommu_request *r)
{
	if (domain->bypass || r->last < r->first)
		return VIOMMU_INVAL;
	return mappings_cut(&domain->table, r->first, r->last) ? VIOMMU_RANGE : VIOMMU_OK;
}

static void unmap_batch(struct viommu *viommu, struct viommu_domain *domain,
			struct viommu_request *requests, unsigned int n)
{
	bool any = false;

	for (unsigned int i = 0; i < n; i++) {
		struct viommu_request *r = &requests[i];

		r->hw = (struct hw_request){0};
		r->status = check_unmap(domain, r);
		if (r->status == VIOMMU_OK)
			begin_unmap(viommu, domain, r);
		any |= r->hw.bytes != 0;
	}
	if (!any)
		return;
	viommu_drain(domain);
	hardware(domain, requests, n, hw_domain_unmap);
	for (unsigned int i = 0; i < n; i++) {
		struct viommu_request *r = &requests[i];

		if (!r->hw.bytes)
			continue;
		sweep(viommu, domain, r->hw.iova, r->hw.last);
		if (r->status != VIOMMU_OK)
			log_guest(viommu->log, &viommu->limit, "viommu",
				  "domain %u: the hardware refuses to unmap [%#llx, %#llx], which "
				  "stays mapped",
				  domain->id, (unsigned long long)r->first,
				  (unsigned long long)r->last);
	}
}

void viommu_unmap_run(struct viommu *viommu, struct viommu_domain *domain,
		      struct viommu_request *requests, unsigned int n)
{
	if (!domain)
		refuse(requests, n, VIOMMU_NOENT);
	for (unsigned int i = 0; domain && i < n; i += BATCH)
		unmap_batch(viommu, domain, requests + i, MIN(n - i, (unsigned int)BATCH));
}

/* --- whole domains --- */

void viommu_clear(struct viommu *viommu, struct viommu_domain *domain)
{
	viommu->mappings -= domain->table.count;
	viommu->mapped_bytes -= domain->table.bytes;
	viommu->tables -= domain->table.tables;
	mappings_clear(&domain->table);
}

/* Make the records of any part of this memory GOING. False: there are none. */
static bool mark_memory(struct viommu *viommu, struct viommu_domain *domain, uint64_t gpa,
			uint64_t bytes)
{
	uint64_t now_ns = domain->n_emulated ? ledger_now(domain->ledger) : 0;
	struct mapping *record;
	unsigned int steps = 0;
	bool any = false;

	table_lock(viommu, domain);
	record = mappings_find(&domain->table, 0, UINT64_MAX);
	for (; record; record = record->next) {
		table_step(viommu, domain, &steps);
		if (record->state != MAPPING_WANTED ||
		    !ranges_overlap(record->gpa, record->last - record->iova + 1, gpa, bytes))
			continue;
		make_going(domain, record, now_ns);
		any = true;
	}
	table_unlock(viommu, domain);
	return any;
}

/* Unmap the GOING records from the hardware. False: it refuses some. A strategy may release records
 * meanwhile, but none of those that it is asked to unmap. */
static bool unmap_going(struct viommu_domain *domain)
{
	struct mapping *record = mappings_find(&domain->table, 0, UINT64_MAX);
	bool good = true;

	for (; domain->n_hw && record; record = record->next) {
		struct hw_request r = {
			.iova = record->iova,
			.last = record->last,
			.bytes = record->last - record->iova + 1,
		};

		if (record->state != MAPPING_GOING)
			continue;
		good &= !hw_domain_unmap(domain->hw, &r, 1);
	}
	return good;
}

bool viommu_unmap_memory(struct viommu *viommu, struct viommu_domain *domain, uint64_t gpa,
			 uint64_t bytes, bool *any)
{
	bool good = true;

	*any = mark_memory(viommu, domain, gpa, bytes);
	if (*any) {
		good = unmap_going(domain);
		sweep(viommu, domain, 0, UINT64_MAX);
	}
	good = !viommu_flush(domain, 0, UINT64_MAX) && good;
	if (domain->hw)
		hw_domain_forget(domain->hw, gpa, bytes);
	return good;
}
