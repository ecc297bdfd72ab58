// SPDX-License-Identifier: Apache-2.0
// What becomes of the pages of guest memory: touched before they are used, given back and had
// again, marked where hospes itself has written.
#include <assert.h>
#include <errno.h>
#include <unistd.h>

#include "base/num.h"
#include "base/thread.h"
#include "core/gmem_backing.h"
#include "core/gmem_impl.h"

/* --- prefault --- */

enum {
	PREFAULT_CHUNK = 64 << 20, /* of one thread at a time; hugetlb 1 GiB pages go whole */
	PREFAULT_MAX_THREADS = 64,
};

struct prefault {
	const struct table *table;
	/* Where the next chunk begins: region index and offset, under lock. */
	pthread_mutex_t lock;
	unsigned int region;
	uint64_t offset;
	_Atomic int result;
};

static const struct gmem_region *prefault_next(struct prefault *p, uint64_t *offset, uint64_t *len)
{
	const struct gmem_region *ret = NULL;

	pthread_mutex_lock(&p->lock);
	while (p->region < p->table->n && !ret) {
		const struct gmem_region *r = &p->table->regions[p->region]->pub;

		if (p->offset < r->size_bytes && gmem_is_ram(r)) {
			*offset = p->offset;
			*len = MIN(r->size_bytes - p->offset,
				   MAX((uint64_t)PREFAULT_CHUNK, r->page_bytes));
			p->offset += *len;
			ret = r;
		} else {
			p->region++;
			p->offset = 0;
		}
	}
	pthread_mutex_unlock(&p->lock);
	return ret;
}

static void *prefault_thread(void *opaque)
{
	struct prefault *p = opaque;
	const struct gmem_region *r;
	uint64_t offset, len;

	while (!atomic_load(&p->result) && (r = prefault_next(p, &offset, &len))) {
		int ret = gmem_backing_populate(r, (char *)r->hva + offset, len);

		if (ret)
			atomic_store(&p->result, ret);
	}
	return NULL;
}

int gmem_prefault(struct gmem *gmem, unsigned int threads, struct err *err)
{
	struct prefault p = {.table = gmem_table(gmem), .lock = PTHREAD_MUTEX_INITIALIZER};
	uint64_t chunks = gmem_ram_bytes(gmem) / PREFAULT_CHUNK + 1;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	pthread_t helpers[PREFAULT_MAX_THREADS];
	unsigned int n = 0;
	int ret;

	if (!threads)
		threads = cpus > 0 ? (unsigned int)cpus : 1;
	threads = (unsigned int)MIN((uint64_t)MIN(threads, (unsigned int)PREFAULT_MAX_THREADS),
				    chunks);
	while (n + 1 < threads &&
	       !thread_start(&helpers[n], THREAD_HELPER, n, NULL, prefault_thread, &p))
		n++;
	prefault_thread(&p); /* this thread is one of them, and enough if there are no more */
	while (n)
		pthread_join(helpers[--n], NULL);
	pthread_mutex_destroy(&p.lock);
	ret = atomic_load(&p.result);
	if (ret)
		return err_set(err, ret,
			       "cannot prefault %llu MiB of guest memory: %s; %llu MiB are "
			       "available on this host",
			       (unsigned long long)(gmem_ram_bytes(gmem) / MiB), err_name(ret),
			       (unsigned long long)(gmem_host_meminfo("MemAvailable") / MiB));
	return 0;
}

/* --- leave and return --- */

/* All of it is RAM, in whole pages of its backing. */
static int check_discard(const struct gmem *gmem, uint64_t gpa, uint64_t len)
{
	uint64_t end;

	if (!len || add_overflows(gpa, len, &end))
		return -EINVAL;
	for (uint64_t at = gpa; at < end;) {
		const struct gmem_region *r = gmem_region_at(gmem, at);

		if (!r || !gmem_is_ram(r))
			return -EFAULT;
		if (!is_aligned(at - r->gpa, r->page_bytes))
			return -EINVAL;
		at = r->gpa + r->size_bytes;
		if (at > end && !is_aligned(end - r->gpa, r->page_bytes))
			return -EINVAL;
	}
	return 0;
}

/* What is done with a part of a region. */
typedef int part_fn(void *opaque, const struct gmem_region *region, uint64_t offset, uint64_t len);

/* For each region that [gpa, gpa + len) is in; *done: the bytes before a failure. */
static int each_part(const struct gmem *gmem, uint64_t gpa, uint64_t len, part_fn *fn, void *opaque,
		     uint64_t *done)
{
	for (*done = 0; *done < len;) {
		const struct gmem_region *r = gmem_region_at(gmem, gpa + *done);
		uint64_t offset, n;
		int ret;

		assert(r);
		offset = gpa + *done - r->gpa;
		n = MIN(len - *done, r->size_bytes - offset);
		ret = fn(opaque, r, offset, n);
		if (ret)
			return ret;
		*done += n;
	}
	return 0;
}

static void undo_parts(const struct gmem *gmem, const struct gmem_listener *listener, uint64_t gpa,
		       uint64_t len, part_fn *fn)
{
	struct err err = ERR_INIT;
	uint64_t done;
	int ret = fn && len ? each_part(gmem, gpa, len, fn, listener->opaque, &done) : 0;

	if (!ret)
		return;
	err_set(&err, ret, "%llu bytes at 0x%llx: %s", (unsigned long long)len,
		(unsigned long long)gpa, err_name(ret));
	gmem_undo_failed(gmem, listener, &err);
}

/* Ask every listener to leave, or to restore; a refusal undoes what was done. */
static int ask_listeners(struct gmem *gmem, uint64_t gpa, uint64_t len, bool leave)
{
	list_for_each (item, &gmem->listeners) {
		struct gmem_listener *l = container_of(item, struct gmem_listener, link);
		part_fn *fn = leave ? l->ops->leave : l->ops->restore;
		uint64_t done;
		int ret = fn ? each_part(gmem, gpa, len, fn, l->opaque, &done) : 0;

		if (!ret)
			continue;
		undo_parts(gmem, l, gpa, done, leave ? l->ops->restore : l->ops->leave);
		for (struct list *i = item->prev; i != &gmem->listeners; i = i->prev) {
			l = container_of(i, struct gmem_listener, link);
			undo_parts(gmem, l, gpa, len, leave ? l->ops->restore : l->ops->leave);
		}
		return ret;
	}
	return 0;
}

static int discard_part(void *opaque, const struct gmem_region *region, uint64_t offset,
			uint64_t len)
{
	(void)opaque;
	return gmem_backing_discard(region, offset, len);
}

int gmem_discard(struct gmem *gmem, uint64_t gpa, uint64_t len)
{
	uint64_t done;
	int ret;

	gmem_hold(gmem);
	ret = check_discard(gmem, gpa, len);
	if (!ret)
		ret = ask_listeners(gmem, gpa, len, true);
	if (!ret) {
		ret = each_part(gmem, gpa, len, discard_part, NULL, &done);
		gmem_mark_dirty(gmem, gpa, len); /* what was there is zero now */
	}
	gmem_release(gmem);
	return ret;
}

int gmem_restore(struct gmem *gmem, uint64_t gpa, uint64_t len)
{
	int ret;

	gmem_hold(gmem);
	ret = check_discard(gmem, gpa, len);
	if (!ret)
		ret = ask_listeners(gmem, gpa, len, false);
	gmem_release(gmem);
	return ret;
}

/* --- dirty marking --- */

void gmem_set_dirty(struct gmem *gmem, struct gmem_dirty *dirty)
{
	atomic_store_explicit(&gmem->dirty, dirty, memory_order_release);
}

void gmem_mark_dirty(const struct gmem *gmem, uint64_t gpa, uint64_t len)
{
	struct gmem_dirty *dirty = atomic_load_explicit(&gmem->dirty, memory_order_acquire);

	if (dirty && len)
		dirty->mark(dirty, gpa, len);
}

bool gmem_dirty_wanted(const struct gmem *gmem)
{
	return atomic_load_explicit(&gmem->dirty, memory_order_relaxed);
}

void gmem_mark_dirty_host(const struct gmem *gmem, const void *hva, uint64_t len)
{
	uint64_t start = (uint64_t)hva;
	const struct table *table;

	if (!len || !atomic_load_explicit(&gmem->dirty, memory_order_relaxed))
		return;
	table = gmem_table(gmem);
	for (unsigned int i = 0; i < table->n; i++) {
		const struct gmem_region *r = &table->regions[i]->pub;
		uint64_t base = (uint64_t)r->hva, from = MAX(start, base);
		uint64_t to = MIN(start + len, base + r->size_bytes);

		if (from < to)
			gmem_mark_dirty(gmem, r->gpa + (from - base), to - from);
	}
}
