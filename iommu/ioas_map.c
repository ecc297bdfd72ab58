// SPDX-License-Identifier: Apache-2.0
// Mapping and unmapping: check the table, call the backend, write the ledger. The lock is not held
// over system calls: a range that a call works on is COMING or GOING meanwhile.
#include <errno.h>
#include <stdio.h>

#include "base/num.h"
#include "base/probe.h"
#include "iommu/ioas_impl.h"

static int check_range(const struct ioas *ioas, uint64_t iova, uint64_t bytes, uint64_t *last)
{
	uint64_t page = ioas->page_sizes & -ioas->page_sizes;

	if (!bytes || !is_aligned(iova | bytes, page) || add_overflows(iova, bytes - 1, last))
		return -EINVAL;
	return 0;
}

static bool access_valid(unsigned int access)
{
	return access && !(access & ~(unsigned int)(IOAS_READ | IOAS_WRITE));
}

/* Insert the range as COMING, for the caller's system call. */
static int reserve_locked(struct ioas *ioas, uint64_t iova, uint64_t last, const struct mapping *as,
			  struct mapping **ret)
{
	struct mapping *mapping;
	int code = mappings_insert(&ioas->mappings, iova, last, &mapping);

	if (code)
		return code;
	mapping->gpa = as->gpa;
	mapping->hva = as->hva;
	mapping->access = as->access;
	mapping->shared = as->shared;
	mapping->state = MAPPING_COMING;
	*ret = mapping;
	return 0;
}

/* The system call has ended with `code`. Returns the bytes that the mapping itself pins. */
static int64_t settle_locked(struct ioas *ioas, struct mapping *mapping, int code)
{
	int64_t own_bytes = mapping->shared ? 0 : (int64_t)(mapping->last - mapping->iova + 1);

	mapping->state = MAPPING_WANTED;
	if (!code)
		return own_bytes;
	mappings_remove(&ioas->mappings, mapping);
	return 0;
}

/* Add to own_bytes; returns the change of pinned bytes for the ledger. Both change under one lock,
 * so that they always agree. */
static int64_t pinned(struct ioas *ioas, int64_t own_bytes)
{
	ioas->own_bytes += (uint64_t)own_bytes;
	return ioas->pinning ? own_bytes : 0;
}

/* --- map --- */

static int check_map(const struct ioas *ioas, const struct ioas_mapping *m, uint64_t *last)
{
	int ret = check_range(ioas, m->iova, m->bytes, last);

	if (!ret &&
	    (!access_valid(m->access) || !is_aligned((uintptr_t)m->memory.hva, IOAS_PAGE_BYTES)))
		ret = -EINVAL;
	return ret;
}

/* places[i] is NULL where maps[i] is refused. */
static void reserve_all(struct ioas *ioas, struct ioas_mapping *maps, unsigned int n,
			struct mapping **places)
{
	pthread_mutex_lock(&ioas->lock);
	for (unsigned int i = 0; i < n; i++) {
		struct ioas_mapping *m = &maps[i];
		const struct mapping as = {
			.gpa = m->memory.gpa,
			.hva = m->memory.hva,
			.access = m->access,
		};
		uint64_t last;

		places[i] = NULL;
		m->result = check_map(ioas, m, &last);
		if (!m->result)
			m->result = reserve_locked(ioas, m->iova, last, &as, &places[i]);
	}
	pthread_mutex_unlock(&ioas->lock);
}

static void call_all(struct ioas *ioas, struct ioas_mapping *maps, unsigned int n,
		     struct mapping *const *places, struct ledger_entry *entries)
{
	uint64_t now_ns = ledger_now(ioas->ledger);

	for (unsigned int i = 0; i < n; i++) {
		struct ioas_mapping *m = &maps[i];
		struct ledger_entry *entry = &entries[i];

		entry->op = LEDGER_MAP;
		entry->stale = false;
		entry->iova = m->iova;
		entry->bytes = m->bytes;
		entry->gpa = m->memory.gpa;
		entry->start_ns = now_ns;
		if (places[i]) {
			m->result = ioas->iommu->ops->map(ioas, m->iova, m->bytes, &m->memory,
							  m->access);
			probe_map(m->iova, m->bytes, m->memory.gpa, m->result);
			now_ns = ledger_now(ioas->ledger);
		}
		entry->end_ns = now_ns;
		entry->code = m->result;
	}
}

static void settle_all(struct ioas *ioas, unsigned int n, struct mapping *const *places,
		       struct ledger_entry *entries)
{
	pthread_mutex_lock(&ioas->lock);
	for (unsigned int i = 0; i < n; i++) {
		int64_t own_bytes = places[i] ? settle_locked(ioas, places[i], entries[i].code) : 0;

		entries[i].pinned_bytes = pinned(ioas, own_bytes);
	}
	ledger_enter(ioas->ledger, entries, n);
	pthread_mutex_unlock(&ioas->lock);
}

void ioas_map_all(struct ioas *ioas, struct ioas_mapping *mappings, unsigned int n)
{
	enum { TOGETHER = 32 };
	struct ledger_entry entries[TOGETHER];
	struct mapping *places[TOGETHER];

	for (unsigned int i = 0, m; i < n; i += m) {
		m = MIN(n - i, (unsigned int)TOGETHER);
		reserve_all(ioas, mappings + i, m, places);
		call_all(ioas, mappings + i, m, places, entries);
		settle_all(ioas, m, places, entries);
	}
}

int ioas_map(struct ioas *ioas, uint64_t iova, uint64_t bytes, const struct ioas_memory *memory,
	     unsigned int access)
{
	struct ioas_mapping m = {
		.iova = iova,
		.bytes = bytes,
		.memory = *memory,
		.access = access,
	};

	ioas_map_all(ioas, &m, 1);
	return m.result;
}

/* --- unmap --- */

/* Areas without a gap between them. They are GOING, and so stay in the table during the call. */
struct run {
	struct mapping *first;
	uint64_t last;
};

/* Find the next run in [iova, last] and make it GOING. */
static int take_run(struct ioas *ioas, uint64_t iova, uint64_t last, struct run *run)
{
	struct mapping *area = mappings_find(&ioas->mappings, iova, last);

	if (!area)
		return -ENOENT;
	if (area->state != MAPPING_WANTED)
		return -EBUSY;
	run->first = area;
	do {
		area->state = MAPPING_GOING;
		run->last = area->last;
		area = mappings_next(area, last);
	} while (area && area->iova == run->last + 1 && area->state == MAPPING_WANTED);
	return 0;
}

/* The system call for the areas from `first` to `last` has ended. Returns the unmapped bytes. */
static uint64_t finish_run(struct ioas *ioas, struct mapping *first, uint64_t last,
			   struct ledger_entry *entry)
{
	int64_t own_bytes = 0;

	/* One entry per run: a fault in a gap must not be reported as "unmapped". Its gpa is only
	 * that of a single area: of others, the entries that mapped them tell it. */
	entry->iova = first->iova;
	entry->bytes = last - first->iova + 1;
	entry->gpa = first->last == last ? first->gpa : UINT64_MAX;
	entry->start_ns = entry->end_ns;
	entry->end_ns = ledger_now(ioas->ledger);
	for (struct mapping *next, *area = first; area; area = next) {
		next = mappings_next(area, last);
		area->state = MAPPING_WANTED;
		if (!entry->code) {
			if (!area->shared)
				own_bytes -= (int64_t)(area->last - area->iova + 1);
			mappings_remove(&ioas->mappings, area);
		}
	}
	entry->pinned_bytes = pinned(ioas, own_bytes);
	ledger_enter(ioas->ledger, entry, 1);
	return entry->code ? 0 : entry->bytes;
}

static int call_unmap(struct ioas *ioas, uint64_t iova, uint64_t last)
{
	int ret;

	pthread_mutex_unlock(&ioas->lock);
	ret = ioas->iommu->ops->unmap(ioas, iova, last - iova + 1);
	probe_unmap(iova, last - iova + 1, ret);
	pthread_mutex_lock(&ioas->lock);
	return ret;
}

/* A call that fails has unmapped the areas before the one that it refuses (IOMMU_IOAS_UNMAP of
 * Linux 6.12 and 7.3). So unmap one area after the other; -ENOENT means that the first call has
 * unmapped it. The area that is refused, and all behind it, stay. */
static int unmap_singly(struct ioas *ioas, const struct run *run, struct ledger_entry *entry,
			uint64_t *unmapped)
{
	for (struct mapping *next, *area = run->first; area; area = next) {
		int ret = call_unmap(ioas, area->iova, area->last);

		next = mappings_next(area, run->last);
		entry->code = ret == -ENOENT ? 0 : ret;
		*unmapped += finish_run(ioas, area, entry->code ? run->last : area->last, entry);
		if (entry->code)
			return entry->code;
	}
	return 0;
}

static int unmap_locked(struct ioas *ioas, uint64_t iova, uint64_t last, bool stale,
			uint64_t *unmapped)
{
	struct ledger_entry entry = {
		.op = LEDGER_UNMAP, .end_ns = ledger_now(ioas->ledger), .stale = stale};
	struct run run;
	int ret;

	if (mappings_cut(&ioas->mappings, iova, last))
		return -ERANGE;
	while (!(ret = take_run(ioas, iova, last, &run))) {
		bool single = run.first->last == run.last;

		ret = entry.code = call_unmap(ioas, run.first->iova, run.last);
		if (ret && !single)
			ret = unmap_singly(ioas, &run, &entry, unmapped);
		else
			*unmapped += finish_run(ioas, run.first, run.last, &entry);
		if (ret || run.last == last)
			return ret;
		iova = run.last + 1;
	}
	return ret == -ENOENT ? 0 : ret; /* -ENOENT: no run is left */
}

static int unmap(struct ioas *ioas, uint64_t iova, uint64_t bytes, bool stale, uint64_t *unmapped)
{
	uint64_t last;
	int ret = check_range(ioas, iova, bytes, &last);

	*unmapped = 0;
	if (ret)
		return ret;
	pthread_mutex_lock(&ioas->lock);
	ret = unmap_locked(ioas, iova, last, stale, unmapped);
	pthread_mutex_unlock(&ioas->lock);
	return ret;
}

int ioas_unmap(struct ioas *ioas, uint64_t iova, uint64_t bytes, uint64_t *unmapped)
{
	return unmap(ioas, iova, bytes, false, unmapped);
}

int ioas_unmap_stale(struct ioas *ioas, uint64_t iova, uint64_t bytes, uint64_t *unmapped)
{
	return unmap(ioas, iova, bytes, true, unmapped);
}

void ioas_unmap_all(struct ioas *ioas)
{
	uint64_t first = 0, last = 0, unmapped;

	for (;;) {
		const struct mapping *mapping;

		pthread_mutex_lock(&ioas->lock);
		mapping = mappings_find(&ioas->mappings, 0, UINT64_MAX);
		if (mapping)
			first = mapping->iova;
		for (const struct mapping *m = mapping; m && (m == mapping || m->iova == last + 1);
		     m = mappings_next(m, UINT64_MAX))
			last = m->last;
		pthread_mutex_unlock(&ioas->lock);
		if (!mapping || ioas_unmap(ioas, first, last - first + 1, &unmapped))
			return;
	}
}

/* --- copy --- */

/* The part of the mapping at iova of `from` that ends at `last` or before. */
static int source_extent(struct ioas *from, uint64_t iova, uint64_t last, unsigned int access,
			 struct mapping *extent)
{
	const struct mapping *mapping;
	int ret = 0;

	pthread_mutex_lock(&from->lock);
	mapping = mappings_find(&from->mappings, iova, iova);
	if (!mapping || mapping->state != MAPPING_WANTED) {
		ret = -ENOENT;
	} else if ((access & IOAS_WRITE) && !(mapping->access & IOAS_WRITE)) {
		ret = -EPERM;
	} else {
		uint64_t off = iova - mapping->iova;

		*extent = *mapping;
		extent->iova = iova;
		extent->last = MIN(mapping->last, last);
		extent->hva += off;
		extent->gpa += extent->gpa == UINT64_MAX ? 0 : off;
	}
	pthread_mutex_unlock(&from->lock);
	return ret;
}

/* The copy of [iova, last] has ended with `code`. */
static void settle(struct ioas *ioas, uint64_t iova, uint64_t last, int code)
{
	pthread_mutex_lock(&ioas->lock);
	for (struct mapping *next, *mapping = mappings_find(&ioas->mappings, iova, last); mapping;
	     mapping = next) {
		next = mappings_next(mapping, last);
		settle_locked(ioas, mapping, code);
	}
	pthread_mutex_unlock(&ioas->lock);
}

/* Reserve places from iova on for all extents of [from_iova, from_last]. */
static int reserve_copy(struct ioas *ioas, uint64_t iova, struct ioas *from, uint64_t from_iova,
			uint64_t from_last, unsigned int access)
{
	uint64_t start = iova, at = from_iova;
	struct mapping extent, *ignored;
	int ret;

	for (;;) {
		ret = source_extent(from, at, from_last, access, &extent);
		if (ret)
			break;
		extent.access = access;
		extent.shared = true;
		pthread_mutex_lock(&ioas->lock);
		ret = reserve_locked(ioas, iova, iova + (extent.last - extent.iova), &extent,
				     &ignored);
		pthread_mutex_unlock(&ioas->lock);
		if (ret || extent.last == from_last)
			break;
		iova += extent.last - extent.iova + 1;
		at = extent.last + 1;
	}
	if (ret && iova != start)
		settle(ioas, start, iova - 1, ret);
	return ret;
}

int ioas_copy(struct ioas *ioas, uint64_t iova, uint64_t bytes, struct ioas *from,
	      uint64_t from_iova, unsigned int access)
{
	uint64_t start_ns = ledger_now(ioas->ledger), last = 0, from_last = 0;
	int ret = check_range(ioas, iova, bytes, &last);

	if (!ioas->iommu->ops->copy || from->iommu != ioas->iommu)
		return -EOPNOTSUPP;
	if (!ret)
		ret = access_valid(access) ? check_range(from, from_iova, bytes, &from_last)
					   : -EINVAL;
	if (!ret)
		ret = reserve_copy(ioas, iova, from, from_iova, from_last, access);
	if (!ret) {
		ret = ioas->iommu->ops->copy(ioas, iova, bytes, from, from_iova, access);
		settle(ioas, iova, last, ret);
	}
	pthread_mutex_lock(&ioas->lock);
	ledger_record(ioas->ledger, LEDGER_COPY, iova, bytes, UINT64_MAX, start_ns, ret);
	pthread_mutex_unlock(&ioas->lock);
	return ret;
}

/* Does one mapping of `from` map exactly this memory there? */
static bool has_same(struct ioas *from, uint64_t iova, uint64_t bytes,
		     const struct ioas_memory *memory, unsigned int access)
{
	struct mapping extent;

	return !source_extent(from, iova, iova + (bytes - 1), access, &extent) &&
	       extent.last == iova + (bytes - 1) && extent.hva == memory->hva &&
	       extent.access == access;
}

/* From whichever other space has it. */
static bool copy_from_any(struct ioas *ioas, uint64_t iova, uint64_t bytes,
			  const struct ioas_memory *memory, unsigned int access)
{
	bool done = false;

	pthread_rwlock_rdlock(&ioas->iommu->lock);
	list_for_each (item, &ioas->iommu->spaces) {
		struct ioas *from = container_of(item, struct ioas, link);

		done = from != ioas && has_same(from, iova, bytes, memory, access) &&
		       !ioas_copy(ioas, iova, bytes, from, iova, access);
		if (done)
			break;
	}
	pthread_rwlock_unlock(&ioas->iommu->lock);
	return done;
}

int ioas_map_sharing(struct ioas *ioas, uint64_t iova, uint64_t bytes,
		     const struct ioas_memory *memory, unsigned int access)
{
	uint64_t last;

	if (ioas->iommu->ops->copy && !check_range(ioas, iova, bytes, &last) &&
	    copy_from_any(ioas, iova, bytes, memory, access))
		return 0;
	return ioas_map(ioas, iova, bytes, memory, access);
}

/* --- look-up --- */

bool ioas_mapped_in(const struct ioas *ioas, uint64_t first, uint64_t last, uint64_t *iova)
{
	pthread_mutex_t *lock = (pthread_mutex_t *)&ioas->lock;
	const struct mapping *mapping;

	pthread_mutex_lock(lock);
	mapping = mappings_find(&ioas->mappings, first, last);
	if (mapping)
		*iova = mapping->iova;
	pthread_mutex_unlock(lock);
	return mapping != NULL;
}

void ioas_history(struct ioas *ioas, uint64_t iova, char *text, unsigned int bytes)
{
	static const char *const how[] = {"", "read-only", "write-only", "for reading and writing"};
	const struct mapping *now;

	pthread_mutex_lock(&ioas->lock);
	now = mappings_find(&ioas->mappings, iova, iova);
	if (!now)
		ledger_history(ioas->ledger, iova, text, bytes);
	else if (now->gpa == UINT64_MAX)
		snprintf(text, bytes, "mapped %s", how[now->access & 3]);
	else
		snprintf(text, bytes, "mapped %s (gpa 0x%llx)", how[now->access & 3],
			 (unsigned long long)(now->gpa + (iova - now->iova)));
	pthread_mutex_unlock(&ioas->lock);
}
