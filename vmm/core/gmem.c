// SPDX-License-Identifier: Apache-2.0
// The map of guest memory: transactions over an immutable table that any thread reads.
#include "core/gmem.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "core/gmem_backing.h"
#include "core/gmem_impl.h"
#include "core/reclaim.h"

enum { RETIRED_TABLES = 4096 };

static struct table *table_alloc(unsigned int n)
{
	return calloc(1, sizeof(struct table) + n * sizeof(struct region *));
}

static void region_free(struct region *region)
{
	if (!region)
		return;
	gmem_backing_unmap(&region->pub);
	free(region->name);
	free(region);
}

int gmem_create(struct gmem **ret, const struct log *log, struct err *err)
{
	struct table *table = table_alloc(0);
	pthread_mutexattr_t attr;
	struct gmem *gmem;

	if (!mem_new(gmem) || !table) {
		free(gmem);
		free(table);
		return err_set(err, -ENOMEM, "guest memory: out of memory");
	}
	gmem->log = log;
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&gmem->map_lock, &attr);
	pthread_mutexattr_destroy(&attr);
	list_init(&gmem->listeners);
	atomic_init(&gmem->table, table);
	*ret = gmem;
	return 0;
}

void gmem_destroy(struct gmem *gmem)
{
	struct table *table;

	if (!gmem)
		return;
	gmem_abort(gmem);
	while (!list_empty(&gmem->listeners))
		gmem_unlisten(gmem, container_of(gmem->listeners.prev, struct gmem_listener, link));
	gmem_quiesce(gmem);
	reclaim_destroy(gmem_reclaim(gmem));
	table = atomic_load(&gmem->table);
	for (unsigned int i = 0; i < table->n; i++)
		region_free(table->regions[i]);
	free(table);
	pthread_mutex_destroy(&gmem->map_lock);
	free(gmem);
}

void gmem_quiesce(struct gmem *gmem)
{
	while (gmem->retired) {
		struct region *region = gmem->retired;

		gmem->retired = region->next;
		region_free(region);
	}
	while (gmem->retired_tables) {
		struct table *table = gmem->retired_tables;

		gmem->retired_tables = table->next;
		free(table);
	}
	gmem->n_retired_tables = 0;
}

int gmem_empty_removed(struct gmem *gmem)
{
	int ret = 0;

	for (struct region *r = gmem->retired; r; r = r->next) {
		int rc = gmem_backing_discard(&r->pub, 0, r->pub.size_bytes);

		ret = ret ? ret : rc;
	}
	return ret;
}

/* --- transactions --- */

void gmem_hold(struct gmem *gmem)
{
	pthread_mutex_lock(&gmem->map_lock);
}

void gmem_release(struct gmem *gmem)
{
	pthread_mutex_unlock(&gmem->map_lock);
}

int gmem_begin(struct gmem *gmem, struct err *err)
{
	gmem_hold(gmem);
	if (gmem->in_transaction) {
		gmem_release(gmem);
		return err_set(err, -EBUSY, "guest memory: another change is under way");
	}
	if (gmem->n_retired_tables == RETIRED_TABLES) {
		gmem_release(gmem);
		return err_set(err, -ENOSPC,
			       "guest memory: it has had %u shapes since the machine was started, "
			       "which is the most; stop the machine and start it again",
			       RETIRED_TABLES);
	}
	gmem->in_transaction = true;
	return 0;
}

static void retire(struct gmem *gmem, struct region *region)
{
	region->next = gmem->retired;
	gmem->retired = region;
}

/* It was to come, and does not. */
static void drop(struct gmem *gmem, struct region *region)
{
	if (region && region->returns)
		retire(gmem, region);
	else
		region_free(region);
}

void gmem_abort(struct gmem *gmem)
{
	const struct table *table = gmem_table(gmem);

	if (!gmem->in_transaction)
		return;
	while (gmem->adding) {
		struct region *region = gmem->adding;

		gmem->adding = region->next;
		drop(gmem, region);
	}
	for (unsigned int i = 0; i < table->n; i++) {
		table->regions[i]->leaving = false;
		table->regions[i]->closed = false;
	}
	gmem->in_transaction = false;
	gmem_release(gmem);
}

static const struct region *find_overlap(const struct gmem *gmem, uint64_t gpa, uint64_t size)
{
	const struct table *table = gmem_table(gmem);

	for (unsigned int i = 0; i < table->n; i++) {
		const struct region *r = table->regions[i];

		if (!r->leaving && ranges_overlap(gpa, size, r->pub.gpa, r->pub.size_bytes))
			return r;
	}
	for (const struct region *r = gmem->adding; r; r = r->next) {
		if (ranges_overlap(gpa, size, r->pub.gpa, r->pub.size_bytes))
			return r;
	}
	return NULL;
}

/* What was there before and is mapped still comes back, empty: whoever may hold a pointer into it
 * keeps one into guest memory. Huge pages, which the host reserves, and the embedder's are mapped
 * anew. */
static struct region *take_retired(struct gmem *gmem, const struct gmem_region_config *config)
{
	enum gmem_backing backing = gmem_backing_for(config->backing, config->share);

	if (backing != GMEM_ANONYMOUS && backing != GMEM_MEMFD)
		return NULL;
	for (struct region **link = &gmem->retired; *link; link = &(*link)->next) {
		struct region *r = *link;

		if (r->pub.gpa != config->gpa || r->pub.size_bytes != config->size_bytes ||
		    r->pub.flags != config->flags || r->pub.numa_node != config->numa_node ||
		    r->is_given || r->pub.small_pages != config->small_pages ||
		    (r->pub.fd >= 0) != (backing == GMEM_MEMFD) ||
		    strcmp(r->name, config->name) != 0 ||
		    gmem_backing_discard(&r->pub, 0, r->pub.size_bytes))
			continue;
		*link = r->next;
		r->leaving = false;
		r->closed = false;
		r->returns = true;
		return r;
	}
	return NULL;
}

static int map_new(struct gmem *gmem, struct region **ret, const struct gmem_region_config *config,
		   struct err *err)
{
	uint64_t others = gmem_ram_bytes(gmem);
	struct region *region;
	int rc;

	if (!mem_new(region) || !(region->name = strdup(config->name))) {
		free(region);
		return err_set(err, -ENOMEM, "memory '%s': out of memory", config->name);
	}
	for (struct region *r = gmem->adding; r; r = r->next)
		others += gmem_is_ram(&r->pub) ? r->pub.size_bytes : 0;
	rc = gmem_backing_map(&region->pub, config, others, err);
	if (rc) {
		region_free(region);
		return rc;
	}
	region->pub.name = region->name;
	region->is_given = config->backing == GMEM_FD;
	*ret = region;
	return 0;
}

static int populate(const struct gmem_region *region, struct err *err)
{
	int rc = gmem_backing_populate(region, region->hva, region->size_bytes);

	return rc ? err_set(err, rc,
			    "memory '%s': cannot touch %llu MiB: %s; %llu MiB are available on "
			    "this host",
			    region->name, (unsigned long long)(region->size_bytes / MiB),
			    err_name(rc),
			    (unsigned long long)(gmem_host_meminfo("MemAvailable") / MiB))
		  : 0;
}

int gmem_add(struct gmem *gmem, const struct gmem_region_config *config, struct err *err)
{
	const struct region *there;
	struct region *region, **link;
	int ret = 0;

	assert(gmem->in_transaction);
	region = take_retired(gmem, config);
	if (!region)
		ret = map_new(gmem, &region, config, err);
	if (ret)
		return ret;
	if (config->populate)
		ret = populate(&region->pub, err);
	if (ret)
		goto fail;
	there = find_overlap(gmem, config->gpa, config->size_bytes);
	if (there) {
		ret = err_set(err, -EEXIST,
			      "memory '%s': 0x%llx bytes at 0x%llx overlap '%s' (0x%llx bytes at "
			      "0x%llx)",
			      config->name, (unsigned long long)config->size_bytes,
			      (unsigned long long)config->gpa, there->name,
			      (unsigned long long)there->pub.size_bytes,
			      (unsigned long long)there->pub.gpa);
		goto fail;
	}
	for (link = &gmem->adding; *link && (*link)->pub.gpa < config->gpa; link = &(*link)->next)
		;
	region->next = *link;
	*link = region;
	return 0;
fail:
	drop(gmem, region);
	return ret;
}

int gmem_remove(struct gmem *gmem, uint64_t gpa, struct err *err)
{
	const struct table *table = gmem_table(gmem);

	assert(gmem->in_transaction);
	for (unsigned int i = 0; i < table->n; i++) {
		struct region *r = table->regions[i];

		if (r->pub.gpa == gpa && !r->leaving) {
			r->leaving = true;
			return 0;
		}
	}
	return err_set(err, -ENOENT, "guest memory: no region begins at 0x%llx",
		       (unsigned long long)gpa);
}

/* The table as it will be: what stays, merged with what comes, both sorted. */
static struct table *next_table(const struct gmem *gmem)
{
	const struct table *old = gmem_table(gmem);
	const struct region *last_added = NULL;
	struct region *add = gmem->adding;
	unsigned int n = old->n, i = 0;
	struct table *table;

	for (const struct region *r = add; r; r = r->next)
		n++;
	table = table_alloc(n);
	if (!table)
		return NULL;
	while (add || i < old->n) {
		if (i < old->n && old->regions[i]->leaving) {
			i++;
		} else if (add && (i == old->n || add->pub.gpa < old->regions[i]->pub.gpa)) {
			assert(!last_added || last_added->pub.gpa < add->pub.gpa);
			last_added = add;
			table->regions[table->n++] = add;
			add = add->next;
		} else {
			table->regions[table->n++] = old->regions[i++];
		}
	}
	return table;
}

void gmem_undo_failed(const struct gmem *gmem, const struct gmem_listener *listener,
		      const struct err *err)
{
	if (gmem->log)
		log_error(gmem->log, "gmem", "%s cannot go back: %s", listener->ops->name,
			  err->text);
}

static void batch_end_or_log(const struct gmem *gmem, struct gmem_listener *listener)
{
	struct err err = ERR_INIT;

	if (listener->ops->batch_end && listener->ops->batch_end(listener->opaque, &err))
		gmem_undo_failed(gmem, listener, &err);
}

/* Tell a listener the opposite of the first n_add additions and n_remove removals. */
static void rollback(struct gmem *gmem, struct gmem_listener *listener, unsigned int n_add,
		     unsigned int n_remove)
{
	const struct table *table = gmem_table(gmem);
	struct err err = ERR_INIT;

	while (n_add--) {
		struct region *r = gmem->adding;

		for (unsigned int i = 0; i < n_add; i++)
			r = r->next;
		listener->ops->unmap(listener->opaque, &r->pub);
	}
	for (unsigned int i = 0; i < table->n && n_remove; i++) {
		struct region *r = table->regions[i];

		if (!r->leaving)
			continue;
		n_remove--;
		if (listener->ops->map(listener->opaque, &r->pub, &err))
			gmem_undo_failed(gmem, listener, &err);
	}
	batch_end_or_log(gmem, listener);
}

/* Tell a listener all differences; a refusal leaves it as it was. What leaves goes first, because
 * what comes may take its place. */
static int tell(struct gmem *gmem, struct gmem_listener *listener, struct err *err)
{
	const struct table *table = gmem_table(gmem);
	unsigned int removed = 0, added = 0;
	int ret = 0;

	for (unsigned int i = 0; i < table->n; i++) {
		if (table->regions[i]->leaving) {
			listener->ops->unmap(listener->opaque, &table->regions[i]->pub);
			removed++;
		}
	}
	for (struct region *r = gmem->adding; r && !ret; r = r->next) {
		ret = listener->ops->map(listener->opaque, &r->pub, err);
		added += ret == 0;
	}
	if (!ret && listener->ops->batch_end)
		ret = listener->ops->batch_end(listener->opaque, err);
	if (ret)
		rollback(gmem, listener, added, removed);
	return ret;
}

static unsigned int count_leaving(const struct gmem *gmem)
{
	const struct table *table = gmem_table(gmem);
	unsigned int n = 0;

	for (unsigned int i = 0; i < table->n; i++)
		n += table->regions[i]->leaving;
	return n;
}

static unsigned int count_adding(const struct gmem *gmem)
{
	unsigned int n = 0;

	for (const struct region *r = gmem->adding; r; r = r->next)
		n++;
	return n;
}

/* One that was published before and has the same regions is used again, so that memory which comes
 * and goes does not leave a table behind each time. Readers may be in it still. */
static struct table *known(struct gmem *gmem, struct table *table)
{
	for (struct table **link = &gmem->retired_tables; *link; link = &(*link)->next) {
		struct table *old = *link;

		if (old->n != table->n ||
		    memcmp(old->regions, table->regions, table->n * sizeof(table->regions[0])) != 0)
			continue;
		*link = old->next;
		gmem->n_retired_tables--;
		free(table);
		return old;
	}
	return table;
}

static void publish(struct gmem *gmem, struct table *table)
{
	struct table *old =
		atomic_exchange_explicit(&gmem->table, known(gmem, table), memory_order_acq_rel);

	for (unsigned int i = 0; i < old->n; i++) {
		if (old->regions[i]->leaving)
			retire(gmem, old->regions[i]);
	}
	old->next = gmem->retired_tables;
	gmem->retired_tables = old;
	gmem->n_retired_tables++;
	gmem->adding = NULL;
	gmem->in_transaction = false;
	gmem_release(gmem);
}

/* From here on no device gets at what leaves, so that nothing is mapped that a listener has
 * unmapped. */
static void close_leaving(struct gmem *gmem)
{
	const struct table *table = gmem_table(gmem);

	for (unsigned int i = 0; i < table->n; i++)
		table->regions[i]->closed = table->regions[i]->leaving;
}

int gmem_commit(struct gmem *gmem, struct err *err)
{
	struct table *table;
	int ret = 0;

	assert(gmem->in_transaction);
	table = next_table(gmem);
	if (!table) {
		gmem_abort(gmem);
		return err_set(err, -ENOMEM, "guest memory: out of memory");
	}
	close_leaving(gmem);
	list_for_each (item, &gmem->listeners) {
		struct gmem_listener *l = container_of(item, struct gmem_listener, link);

		ret = tell(gmem, l, err);
		if (!ret)
			continue;
		err_prefix(err, "%s", l->ops->name);
		for (struct list *i = item->prev; i != &gmem->listeners; i = i->prev)
			rollback(gmem, container_of(i, struct gmem_listener, link),
				 count_adding(gmem), count_leaving(gmem));
		free(table);
		gmem_abort(gmem);
		return ret;
	}
	publish(gmem, table);
	return 0;
}

static void unmap_first(struct gmem_listener *listener, const struct table *table, unsigned int n)
{
	while (n--)
		listener->ops->unmap(listener->opaque, &table->regions[n]->pub);
}

static int listen_held(struct gmem *gmem, struct gmem_listener *listener, struct err *err)
{
	const struct table *table = gmem_table(gmem);
	unsigned int done = 0;
	int ret = 0;

	assert(!gmem->in_transaction);
	gmem->n_areas += listener->ops->areas;
	while (done < table->n && !ret) {
		ret = listener->ops->map(listener->opaque, &table->regions[done]->pub, err);
		done += ret == 0;
	}
	if (!ret && listener->ops->batch_end)
		ret = listener->ops->batch_end(listener->opaque, err);
	if (ret) {
		unmap_first(listener, table, done);
		batch_end_or_log(gmem, listener);
		gmem->n_areas -= listener->ops->areas;
		return ret;
	}
	list_append(&gmem->listeners, &listener->link);
	return 0;
}

int gmem_listen(struct gmem *gmem, struct gmem_listener *listener, struct err *err)
{
	int ret;

	gmem_hold(gmem);
	ret = listen_held(gmem, listener, err);
	gmem_release(gmem);
	return ret;
}

void gmem_unlisten(struct gmem *gmem, struct gmem_listener *listener)
{
	const struct table *table;

	gmem_hold(gmem);
	assert(!gmem->in_transaction);
	table = gmem_table(gmem);
	list_remove(&listener->link);
	unmap_first(listener, table, table->n);
	batch_end_or_log(gmem, listener);
	gmem->n_areas -= listener->ops->areas;
	gmem_release(gmem);
}

/* --- lookups: any thread --- */

const struct gmem_region *gmem_region_at(const struct gmem *gmem, uint64_t gpa)
{
	const struct table *table = gmem_table(gmem);
	unsigned int lo = 0, hi = table->n;

	while (lo < hi) {
		unsigned int mid = lo + (hi - lo) / 2;
		const struct gmem_region *r = &table->regions[mid]->pub;

		if (gpa < r->gpa)
			hi = mid;
		else if (gpa - r->gpa >= r->size_bytes)
			lo = mid + 1;
		else
			return r;
	}
	return NULL;
}

bool gmem_lookup(const struct gmem *gmem, uint64_t gpa, struct gmem_extent *ret)
{
	const struct gmem_region *r = gmem_region_at(gmem, gpa);

	if (!r)
		return false;
	ret->hva = (char *)r->hva + (gpa - r->gpa);
	ret->bytes = r->size_bytes - (gpa - r->gpa);
	ret->before = gpa - r->gpa;
	ret->flags = r->flags;
	if (container_of(r, struct region, pub)->closed)
		ret->flags |= GMEM_NO_DMA;
	return true;
}

void *gmem_host(const struct gmem *gmem, uint64_t gpa, size_t len, bool write)
{
	struct gmem_extent extent;

	if (!len || !gmem_lookup(gmem, gpa, &extent) || len > extent.bytes ||
	    (write && (extent.flags & GMEM_READONLY)))
		return NULL;
	return extent.hva;
}

uint64_t gmem_contiguous(const struct gmem *gmem, uint64_t gpa)
{
	struct gmem_extent extent;

	return gmem_lookup(gmem, gpa, &extent) ? extent.bytes : 0;
}

bool gmem_find_host(const struct gmem *gmem, const void *hva, uint64_t len, uint64_t *gpa)
{
	const struct table *table = gmem_table(gmem);
	uint64_t at = (uint64_t)hva;

	for (unsigned int i = 0; i < table->n; i++) {
		const struct gmem_region *r = &table->regions[i]->pub;
		uint64_t base = (uint64_t)r->hva;

		if (!range_inside(at, len, base, r->size_bytes))
			continue;
		*gpa = r->gpa + (at - base);
		return true;
	}
	return false;
}

static int copy(const struct gmem *gmem, uint64_t gpa, void *to, const void *from, size_t len)
{
	struct gmem_extent extent;
	uint64_t end;

	assert(!to != !from);
	if (add_overflows(gpa, len, &end))
		return -EFAULT;
	for (size_t done = 0; done < len;) {
		size_t n;

		if (!gmem_lookup(gmem, gpa + done, &extent) ||
		    (from && (extent.flags & GMEM_READONLY)))
			return -EFAULT;
		n = MIN(len - done, extent.bytes);
		if (from)
			memcpy(extent.hva, (const char *)from + done, n);
		else
			memcpy((char *)to + done, extent.hva, n);
		done += n;
	}
	return 0;
}

int gmem_read(const struct gmem *gmem, uint64_t gpa, void *buf, size_t len)
{
	return copy(gmem, gpa, buf, NULL, len);
}

int gmem_write(const struct gmem *gmem, uint64_t gpa, const void *buf, size_t len)
{
	int rc = copy(gmem, gpa, NULL, buf, len);

	gmem_mark_dirty(gmem, gpa, len);
	return rc;
}

int gmem_walk(const struct gmem *gmem, gmem_walk_fn *fn, void *opaque)
{
	const struct table *table = gmem_table(gmem);
	int ret = 0;

	for (unsigned int i = 0; i < table->n && !ret; i++)
		ret = fn(opaque, &table->regions[i]->pub);
	return ret;
}

int gmem_fill(struct gmem *gmem, uint64_t gpa, int fd, uint64_t offset, struct err *err)
{
	const struct table *table = gmem_table(gmem);

	for (unsigned int i = 0; i < table->n; i++) {
		if (table->regions[i]->pub.gpa == gpa)
			return gmem_backing_fill(&table->regions[i]->pub, fd, offset, err);
	}
	return err_set(err, -EINVAL, "memory: no region begins at 0x%llx", (unsigned long long)gpa);
}

void gmem_expect(struct gmem *gmem, uint64_t end)
{
	gmem->expected = end;
}

uint64_t gmem_expected(const struct gmem *gmem)
{
	return gmem->expected;
}

uint64_t gmem_ram_bytes(const struct gmem *gmem)
{
	const struct table *table = gmem_table(gmem);
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < table->n; i++)
		bytes += gmem_is_ram(&table->regions[i]->pub) ? table->regions[i]->pub.size_bytes
							      : 0;
	return bytes;
}

bool gmem_has_areas(const struct gmem *gmem)
{
	return atomic_load(&gmem->n_areas);
}

struct reclaim *gmem_reclaim(const struct gmem *gmem)
{
	return atomic_load_explicit(&gmem->reclaim, memory_order_acquire);
}

void gmem_set_reclaim(struct gmem *gmem, struct reclaim *reclaim)
{
	atomic_store_explicit(&gmem->reclaim, reclaim, memory_order_release);
}
