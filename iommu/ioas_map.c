// SPDX-License-Identifier: Apache-2.0
// Mapping and unmapping: checked against the table of what is mapped, done by the backend, written
// to the ledger. The lock is held for the table only, never over a system call; a range that a call
// is at work on is marked busy meanwhile.
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

/* Take a place in the table, for the caller's system call. */
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
	mapping->busy = true;
	*ret = mapping;
	return 0;
}

/* What became of it is known. Returns the bytes that this space pins by it. */
static int64_t settle_locked(struct ioas *ioas, struct mapping *mapping, int code)
{
	int64_t own_bytes = mapping->shared ? 0 : (int64_t)(mapping->last - mapping->iova + 1);

	mapping->busy = false;
	if (!code)
		return own_bytes;
	mappings_remove(&ioas->mappings, mapping);
	return 0;
}

/* For the ledger, which is written under the table's lock: whoever looks finds them agreed, and what is pinned
 * when the last device leaves is known. */
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

/* places: of those that were refused NULL. */
static void reserve_all(struct ioas *ioas, struct ioas_mapping *maps, unsigned int n,
			struct mapping **places)
{
	pthread_rwlock_wrlock(&ioas->lock);
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
	pthread_rwlock_unlock(&ioas->lock);
}

static void call_all(struct ioas *ioas, struct ioas_mapping *maps, unsigned int n,
		     struct mapping *const *places, struct ledger_entry *entries)
{
	uint64_t now_ns = ledger_now(ioas->ledger);

	pthread_rwlock_rdlock(&ioas->calls);
	for (unsigned int i = 0; i < n; i++) {
		struct ioas_mapping *m = &maps[i];
		struct ledger_entry *entry = &entries[i];

		entry->op = LEDGER_MAP;
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
	pthread_rwlock_unlock(&ioas->calls);
}

static void settle_all(struct ioas *ioas, unsigned int n, struct mapping *const *places,
		       struct ledger_entry *entries)
{
	pthread_rwlock_wrlock(&ioas->lock);
	for (unsigned int i = 0; i < n; i++) {
		int64_t own_bytes = places[i] ? settle_locked(ioas, places[i], entries[i].code) : 0;

		entries[i].pinned_bytes = pinned(ioas, own_bytes);
	}
	ledger_enter(ioas->ledger, entries, n);
	pthread_rwlock_unlock(&ioas->lock);
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

/* A run of mappings without a gap between them, marked busy so that they stay. */
struct run {
	struct mapping *first;
	uint64_t iova, last, gpa;
};

/* The next one in [iova, last]. */
static int take_run(struct ioas *ioas, uint64_t iova, uint64_t last, struct run *run)
{
	struct mapping *mapping = mappings_find(&ioas->mappings, iova, last);

	if (!mapping)
		return -ENOENT;
	if (mapping->busy)
		return -EBUSY;
	*run = (struct run){.first = mapping, .iova = mapping->iova, .gpa = mapping->gpa};
	do {
		mapping->busy = true;
		run->last = mapping->last;
		mapping = mappings_next(mapping, last);
	} while (mapping && mapping->iova == run->last + 1 && !mapping->busy);
	return 0;
}

static void finish_run(struct ioas *ioas, const struct run *run, struct ledger_entry *entry)
{
	int64_t own_bytes = 0;

	for (struct mapping *next, *mapping = run->first; mapping; mapping = next) {
		next = mappings_next(mapping, run->last);
		mapping->busy = false;
		if (!entry->code) {
			if (!mapping->shared)
				own_bytes -= (int64_t)(mapping->last - mapping->iova + 1);
			mappings_remove(&ioas->mappings, mapping);
		}
	}
	entry->pinned_bytes = pinned(ioas, own_bytes);
	ledger_enter(ioas->ledger, entry, 1);
}

int ioas_unmap(struct ioas *ioas, uint64_t iova, uint64_t bytes, uint64_t *unmapped)
{
	struct ledger_entry entry = {.op = LEDGER_UNMAP, .end_ns = ledger_now(ioas->ledger)};
	uint64_t last, at = iova;
	struct run run;
	int ret = check_range(ioas, iova, bytes, &last);

	*unmapped = 0;
	if (ret)
		return ret;
	pthread_rwlock_wrlock(&ioas->lock);
	ret = mappings_cut(&ioas->mappings, iova, last) ? -ERANGE : 0;
	while (!ret && !(ret = take_run(ioas, at, last, &run))) {
		/* Run by run: what lies in the gaps was not unmapped, and a fault must not say so. */
		entry.iova = run.iova;
		entry.bytes = run.last - run.iova + 1;
		entry.gpa = run.gpa;
		entry.start_ns = entry.end_ns;
		pthread_rwlock_unlock(&ioas->lock);
		pthread_rwlock_rdlock(&ioas->calls);
		ret = entry.code = ioas->iommu->ops->unmap(ioas, run.iova, entry.bytes);
		probe_unmap(run.iova, entry.bytes, ret);
		pthread_rwlock_unlock(&ioas->calls);
		entry.end_ns = ledger_now(ioas->ledger);
		pthread_rwlock_wrlock(&ioas->lock);
		finish_run(ioas, &run, &entry);
		if (!ret)
			*unmapped += entry.bytes;
		at = run.last + 1;
		if (run.last == last)
			break;
	}
	pthread_rwlock_unlock(&ioas->lock);
	return ret == -ENOENT ? 0 : ret; /* there are no more */
}

void ioas_unmap_all(struct ioas *ioas)
{
	uint64_t first = 0, last = 0, unmapped;

	for (;;) {
		const struct mapping *mapping;

		pthread_rwlock_rdlock(&ioas->lock);
		mapping = mappings_find(&ioas->mappings, 0, UINT64_MAX);
		if (mapping)
			first = mapping->iova;
		for (const struct mapping *m = mapping; m && (m == mapping || m->iova == last + 1);
		     m = mappings_next(m, UINT64_MAX))
			last = m->last;
		pthread_rwlock_unlock(&ioas->lock);
		if (!mapping || ioas_unmap(ioas, first, last - first + 1, &unmapped))
			return;
	}
}

/* --- copy --- */

/* What `from` has at from_iova, up to last. */
static int source_extent(struct ioas *from, uint64_t iova, uint64_t last, unsigned int access,
			 struct mapping *piece)
{
	const struct mapping *mapping;
	int ret = 0;

	pthread_rwlock_rdlock(&from->lock);
	mapping = mappings_find(&from->mappings, iova, iova);
	if (!mapping || mapping->busy) {
		ret = -ENOENT;
	} else if ((access & IOAS_WRITE) && !(mapping->access & IOAS_WRITE)) {
		ret = -EPERM;
	} else {
		uint64_t off = iova - mapping->iova;

		*piece = *mapping;
		piece->iova = iova;
		piece->last = MIN(mapping->last, last);
		piece->hva += off;
		piece->gpa += piece->gpa == UINT64_MAX ? 0 : off;
	}
	pthread_rwlock_unlock(&from->lock);
	return ret;
}

/* The copies in [iova, last] are mapped now, or are not to be there. */
static void settle(struct ioas *ioas, uint64_t iova, uint64_t last, int code)
{
	pthread_rwlock_wrlock(&ioas->lock);
	for (struct mapping *next, *mapping = mappings_find(&ioas->mappings, iova, last); mapping;
	     mapping = next) {
		next = mappings_next(mapping, last);
		settle_locked(ioas, mapping, code);
	}
	pthread_rwlock_unlock(&ioas->lock);
}

/* Places for all pieces of [from_iova, from_last], at iova and up. */
static int reserve_copy(struct ioas *ioas, uint64_t iova, struct ioas *from, uint64_t from_iova,
			uint64_t from_last, unsigned int access)
{
	uint64_t start = iova, at = from_iova;
	struct mapping piece, *ignored;
	int ret;

	for (;;) {
		ret = source_extent(from, at, from_last, access, &piece);
		if (ret)
			break;
		piece.access = access;
		piece.shared = true;
		pthread_rwlock_wrlock(&ioas->lock);
		ret = reserve_locked(ioas, iova, iova + (piece.last - piece.iova), &piece,
				     &ignored);
		pthread_rwlock_unlock(&ioas->lock);
		if (ret || piece.last == from_last)
			break;
		iova += piece.last - piece.iova + 1;
		at = piece.last + 1;
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
		pthread_rwlock_rdlock(&ioas->calls);
		if (from != ioas)
			pthread_rwlock_rdlock(&from->calls);
		ret = ioas->iommu->ops->copy(ioas, iova, bytes, from, from_iova, access);
		if (from != ioas)
			pthread_rwlock_unlock(&from->calls);
		pthread_rwlock_unlock(&ioas->calls);
		settle(ioas, iova, last, ret);
	}
	ledger_record(ioas->ledger, LEDGER_COPY, iova, bytes, UINT64_MAX, start_ns, ret);
	return ret;
}

/* Does `from` map exactly this memory there, in one piece? */
static bool has_same(struct ioas *from, uint64_t iova, uint64_t bytes,
		     const struct ioas_memory *memory, unsigned int access)
{
	struct mapping piece;

	return !source_extent(from, iova, iova + (bytes - 1), access, &piece) &&
	       piece.last == iova + (bytes - 1) && piece.hva == memory->hva &&
	       piece.access == access;
}

int ioas_map_sharing(struct ioas *ioas, uint64_t iova, uint64_t bytes,
		     const struct ioas_memory *memory, unsigned int access)
{
	uint64_t last;

	if (!ioas->iommu->ops->copy || check_range(ioas, iova, bytes, &last))
		return ioas_map(ioas, iova, bytes, memory, access);
	list_for_each (item, &ioas->iommu->spaces) {
		struct ioas *from = container_of(item, struct ioas, link);

		if (from != ioas && has_same(from, iova, bytes, memory, access) &&
		    !ioas_copy(ioas, iova, bytes, from, iova, access))
			return 0;
	}
	return ioas_map(ioas, iova, bytes, memory, access);
}

/* --- what is there --- */

bool ioas_mapped_in(const struct ioas *ioas, uint64_t first, uint64_t last, uint64_t *iova)
{
	pthread_rwlock_t *lock = (pthread_rwlock_t *)&ioas->lock;
	const struct mapping *mapping;

	pthread_rwlock_rdlock(lock);
	mapping = mappings_find(&ioas->mappings, first, last);
	if (mapping)
		*iova = mapping->iova;
	pthread_rwlock_unlock(lock);
	return mapping != NULL;
}

void ioas_history(const struct ioas *ioas, uint64_t iova, char *text, unsigned int bytes)
{
	static const char *const how[] = {"", "read-only", "write-only", "for reading and writing"};
	pthread_rwlock_t *lock = (pthread_rwlock_t *)&ioas->lock;
	const struct mapping *found;
	struct mapping now = {0};

	pthread_rwlock_rdlock(lock);
	found = mappings_find(&ioas->mappings, iova, iova);
	if (found)
		now = *found;
	pthread_rwlock_unlock(lock);
	if (!found)
		ledger_history(ioas->ledger, iova, text, bytes);
	else if (now.gpa == UINT64_MAX)
		snprintf(text, bytes, "mapped %s", how[now.access & 3]);
	else
		snprintf(text, bytes, "mapped %s (gpa 0x%llx)", how[now.access & 3],
			 (unsigned long long)(now.gpa + (iova - now.iova)));
}

int ioas_soft_translate(const struct ioas *ioas, uint64_t iova, unsigned int access, void **hva,
			uint64_t *contiguous)
{
	pthread_rwlock_t *lock = (pthread_rwlock_t *)&ioas->lock;
	const struct mapping *mapping;
	int ret = -EFAULT;

	assert(ioas->iommu->ops->kind == IOMMU_SOFT);
	pthread_rwlock_rdlock(lock);
	mapping = mappings_find(&ioas->mappings, iova, iova);
	if (mapping && !mapping->busy && (mapping->access & access) == access) {
		*hva = mapping->hva + (iova - mapping->iova);
		*contiguous = mapping->last - iova + 1;
		ret = 0;
	}
	pthread_rwlock_unlock(lock);
	return ret;
}
