// SPDX-License-Identifier: Apache-2.0
// Buses: an immutable sorted table of address extents, swapped as a whole.
//
// A reader counts itself in one of two counters, loads the table, and leaves again. Whoever swaps
// the table keeps the old one until both counters have been seen at zero since: a reader that holds
// the old table was counted before the swap, so the counter it is in cannot have been zero
// meanwhile. New readers use the counter that `epoch` names, so the other one drains whatever the
// load.
#include "core/bus.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"

struct extent {
	uint64_t start;
	uint64_t last; /* inclusive, so that the top of the address space can be covered */
	uint64_t base; /* of the region when this table was made */
	/* NULL: gone (see tombstone) */
	struct bus_region *_Atomic region;
};

/* Waits for earlier readers: a retired table, or a bus_synchronize() call (a ticket). */
struct waiting {
	struct waiting *next;
	unsigned int seen_zero; /* bit i: counter i was zero since */
	bool ticket;
};

struct table {
	struct waiting retired;
	unsigned int n;
	struct extent extents[];
};

struct doorbell {
	struct bus_ioeventfd e;
	bool assigned;
	uint64_t addr; /* where, when assigned */
};

struct bus {
	enum bus_kind kind;
	struct table *_Atomic table;
	_Atomic unsigned int epoch;
	_Atomic unsigned int readers[2];
	_Atomic unsigned int synchronizers; /* threads in bus_synchronize() */

	/* Guards what follows, and the making of tables. */
	pthread_mutex_t lock;
	pthread_cond_t drained; /* a counter reached zero while somebody synchronizes */
	struct waiting *waiting;
	struct bus_region **regions; /* in order of arrival, which is the order of precedence */
	unsigned int n_regions, max_regions;
	struct doorbell *doorbells;
	unsigned int n_doorbells, max_doorbells;
	const struct bus_ioeventfd_ops *ioeventfd_ops;
	void *ioeventfd_opaque;
};

static unsigned int reader_enter(struct bus *bus)
{
	unsigned int i = atomic_load(&bus->epoch) & 1;

	atomic_fetch_add(&bus->readers[i], 1);
	return i;
}

static void reader_leave(struct bus *bus, unsigned int i)
{
	if (atomic_fetch_sub(&bus->readers[i], 1) != 1 || !atomic_load(&bus->synchronizers))
		return;
	pthread_mutex_lock(&bus->lock);
	pthread_cond_broadcast(&bus->drained);
	pthread_mutex_unlock(&bus->lock);
}

/* Note which counters are at zero and free the tables that nobody can hold any more. Lock held. */
static void advance(struct bus *bus)
{
	for (int turn = 0; turn < 2; turn++) {
		unsigned int idle = (atomic_load(&bus->epoch) & 1) ^ 1;

		if (atomic_load(&bus->readers[idle]))
			break;
		for (struct waiting *w = bus->waiting; w; w = w->next)
			w->seen_zero |= 1u << idle;
		/* Newcomers move there, and the other counter drains. */
		atomic_fetch_add(&bus->epoch, 1);
	}
}

static void free_retired(struct bus *bus)
{
	struct waiting **link = &bus->waiting;

	advance(bus);
	while (*link) {
		struct waiting *w = *link;

		if (w->seen_zero == 3 && !w->ticket) {
			*link = w->next;
			free(container_of(w, struct table, retired));
		} else {
			link = &w->next;
		}
	}
}

/* A reader that empties a counter after `synchronizers` was raised wakes us, so nothing is missed
 * between looking and waiting. */
void bus_synchronize(struct bus *bus)
{
	struct waiting ticket = {.ticket = true};
	struct waiting **link;

	pthread_mutex_lock(&bus->lock);
	atomic_fetch_add(&bus->synchronizers, 1);
	ticket.next = bus->waiting;
	/* cppcheck-suppress autoVariables ; taken off the list below */
	bus->waiting = &ticket;
	for (free_retired(bus); ticket.seen_zero != 3; free_retired(bus))
		pthread_cond_wait(&bus->drained, &bus->lock);
	for (link = &bus->waiting; *link != &ticket; link = &(*link)->next)
		;
	*link = ticket.next;
	atomic_fetch_sub(&bus->synchronizers, 1);
	pthread_mutex_unlock(&bus->lock);
}

int bus_create(struct bus **ret, enum bus_kind kind, struct err *err)
{
	struct table *empty = calloc(1, sizeof(*empty));
	struct bus *bus;

	if (!mem_new(bus) || !empty) {
		free(bus);
		free(empty);
		return err_set(err, -ENOMEM, "bus: out of memory");
	}
	bus->kind = kind;
	pthread_mutex_init(&bus->lock, NULL);
	pthread_cond_init(&bus->drained, NULL);
	atomic_store(&bus->table, empty);
	*ret = bus;
	return 0;
}

static void doorbell_off(struct bus *bus, struct doorbell *d)
{
	if (d->assigned && bus->ioeventfd_ops)
		bus->ioeventfd_ops->assign(bus->ioeventfd_opaque, bus->kind, d->addr, &d->e, false);
	d->assigned = false;
}

void bus_destroy(struct bus *bus)
{
	if (!bus)
		return;
	bus_synchronize(bus);
	for (unsigned int i = 0; i < bus->n_doorbells; i++)
		doorbell_off(bus, &bus->doorbells[i]);
	for (unsigned int i = 0; i < bus->n_regions; i++)
		bus->regions[i]->on = false;
	free(bus->doorbells);
	free(bus->regions);
	free(atomic_load(&bus->table));
	pthread_cond_destroy(&bus->drained);
	pthread_mutex_destroy(&bus->lock);
	free(bus);
}

/* The extent that holds addr, or the first one after it; n when there is none. */
static unsigned int table_find(const struct table *table, uint64_t addr)
{
	unsigned int lo = 0, hi = table->n;

	while (lo < hi) {
		unsigned int mid = lo + (hi - lo) / 2;

		if (table->extents[mid].last < addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static void table_insert(struct table *table, unsigned int at, uint64_t start, uint64_t last,
			 struct bus_region *region)
{
	for (unsigned int i = table->n; i > at; i--) {
		table->extents[i].start = table->extents[i - 1].start;
		table->extents[i].last = table->extents[i - 1].last;
		table->extents[i].base = table->extents[i - 1].base;
		atomic_init(&table->extents[i].region, atomic_load(&table->extents[i - 1].region));
	}
	table->extents[at].start = start;
	table->extents[at].last = last;
	table->extents[at].base = region->base;
	atomic_init(&table->extents[at].region, region);
	table->n++;
}

/* Give region what of its range is still free. */
static void table_claim(struct table *table, struct bus_region *region)
{
	uint64_t start = region->base, last = region->base + (region->size_bytes - 1);

	for (unsigned int i = table_find(table, start);; i++) {
		bool more = i < table->n && table->extents[i].start <= last;
		uint64_t taken_last;

		if (!more) {
			table_insert(table, i, start, last, region);
			return;
		}
		taken_last = table->extents[i].last;
		if (table->extents[i].start > start) {
			table_insert(table, i, start, table->extents[i].start - 1, region);
			i++;
		}
		if (taken_last >= last)
			return;
		start = taken_last + 1;
	}
}

/* Each new region adds at most one gap to the ones before, so 2n - 1 extents are enough. */
static struct table *table_make(const struct bus *bus)
{
	struct table *table = calloc(1, sizeof(*table) + (2 * (size_t)bus->n_regions + 1) *
								 sizeof(struct extent));

	if (!table)
		return NULL;
	for (unsigned int i = 0; i < bus->n_regions; i++)
		table_claim(table, bus->regions[i]);
	return table;
}

static bool doorbell_visible(const struct table *table, const struct doorbell *d, uint64_t addr)
{
	const struct extent *p;
	unsigned int i = table_find(table, addr);

	if (i == table->n)
		return false;
	p = &table->extents[i];
	return addr >= p->start && p->last - addr >= MAX(d->e.size, 1u) - 1 &&
	       atomic_load(&p->region) == d->e.region;
}

/* Bring the ioeventfds to where the table says their regions are: first all that leave, so that one
 * may take the address of another. One that the kernel refuses stays unassigned: the access then
 * traps and the region's handler sees it. Returns the first refusal. */
static int doorbells_follow(struct bus *bus, const struct table *table)
{
	int ret = 0;

	for (int assign = 0; assign < 2; assign++) {
		for (unsigned int i = 0; i < bus->n_doorbells; i++) {
			struct doorbell *d = &bus->doorbells[i];
			uint64_t addr = d->e.region->base + d->e.offset;
			bool want = d->e.region->on && doorbell_visible(table, d, addr);
			int r;

			if (d->assigned && (!want || d->addr != addr))
				doorbell_off(bus, d);
			if (!assign || d->assigned || !want || !bus->ioeventfd_ops)
				continue;
			r = bus->ioeventfd_ops->assign(bus->ioeventfd_opaque, bus->kind, addr,
						       &d->e, true);
			d->assigned = r == 0;
			d->addr = addr;
			ret = ret ? ret : r;
		}
	}
	return ret;
}

static void table_publish(struct bus *bus, struct table *table)
{
	struct table *old = atomic_exchange(&bus->table, table);

	old->retired.seen_zero = 0;
	old->retired.next = bus->waiting;
	bus->waiting = &old->retired;
	free_retired(bus);
	doorbells_follow(bus, table);
}

/* No memory for a new table: take the region out of the present one. What it shadowed comes to
 * light with the next table. */
static void tombstone(struct bus *bus, struct bus_region *region)
{
	struct table *table = atomic_load(&bus->table);

	for (unsigned int i = 0; i < table->n; i++) {
		if (atomic_load(&table->extents[i].region) == region)
			atomic_store(&table->extents[i].region, NULL);
	}
	doorbells_follow(bus, table);
}

static unsigned int ops_min(const struct bus_ops *ops)
{
	return ops->min ? ops->min : 1;
}

static unsigned int ops_max(const struct bus_ops *ops)
{
	return ops->max ? ops->max : 8;
}

static int add_locked(struct bus *bus, struct bus_region *region, uint64_t base)
{
	struct table *table;

	if (bus->n_regions == bus->max_regions) {
		unsigned int max = bus->max_regions ? 2 * bus->max_regions : 16;
		struct bus_region **more = realloc(bus->regions, max * sizeof(*more));

		if (!more)
			return -ENOMEM;
		bus->regions = more;
		bus->max_regions = max;
	}
	region->base = base;
	bus->regions[bus->n_regions++] = region;
	table = table_make(bus);
	if (!table) {
		bus->n_regions--;
		return -ENOMEM;
	}
	region->on = true;
	table_publish(bus, table);
	return 0;
}

/* Own code decides sizes and ops; where a region goes may be the guest's doing. */
static bool fits(const struct bus *bus, const struct bus_region *region, uint64_t base)
{
	uint64_t top = bus->kind == BUS_PIO ? 0xffff : UINT64_MAX;

	assert(region->size_bytes && !region->on);
	assert(is_power_of_two(ops_min(region->ops)) && is_power_of_two(ops_max(region->ops)));
	assert(ops_min(region->ops) <= ops_max(region->ops) && ops_max(region->ops) <= 8);
	assert(is_aligned(region->size_bytes, ops_min(region->ops)));
	return base <= top && region->size_bytes - 1 <= top - base;
}

int bus_add(struct bus *bus, struct bus_region *region, uint64_t base, struct err *err)
{
	int ret = 0;

	if (!fits(bus, region, base))
		return err_set(err, -EINVAL, "%s: 0x%llx bytes at 0x%llx: beyond the bus",
			       region->name, (unsigned long long)region->size_bytes,
			       (unsigned long long)base);
	pthread_mutex_lock(&bus->lock);
	for (unsigned int i = 0; i < bus->n_regions && !ret; i++) {
		const struct bus_region *other = bus->regions[i];

		if (ranges_overlap(base, region->size_bytes, other->base, other->size_bytes))
			ret = err_set(err, -EEXIST,
				      "%s: 0x%llx bytes at 0x%llx: %s is there (0x%llx bytes at "
				      "0x%llx)",
				      region->name, (unsigned long long)region->size_bytes,
				      (unsigned long long)base, other->name,
				      (unsigned long long)other->size_bytes,
				      (unsigned long long)other->base);
	}
	if (!ret) {
		ret = add_locked(bus, region, base);
		if (ret)
			err_set(err, ret, "%s: out of memory", region->name);
	}
	pthread_mutex_unlock(&bus->lock);
	return ret;
}

int bus_add_shadowed(struct bus *bus, struct bus_region *region, uint64_t base)
{
	int ret;

	if (!fits(bus, region, base))
		return -EINVAL;
	pthread_mutex_lock(&bus->lock);
	ret = add_locked(bus, region, base);
	pthread_mutex_unlock(&bus->lock);
	return ret;
}

void bus_del(struct bus *bus, struct bus_region *region)
{
	struct table *table;
	unsigned int i;

	pthread_mutex_lock(&bus->lock);
	for (i = 0; i < bus->n_regions && bus->regions[i] != region; i++)
		;
	if (i < bus->n_regions) {
		memmove(&bus->regions[i], &bus->regions[i + 1],
			(bus->n_regions - i - 1) * sizeof(struct bus_region *));
		bus->n_regions--;
		region->on = false;
		table = table_make(bus);
		if (table)
			table_publish(bus, table);
		else
			tombstone(bus, region);
	}
	pthread_mutex_unlock(&bus->lock);
}

/* One access of a handler, at an offset and of a size it declared. */
static uint64_t call(struct bus_region *region, uint64_t offset, unsigned int size, bool write,
		     uint64_t value)
{
	if (write)
		region->ops->write(region->opaque, offset, value, size);
	else
		value = region->ops->read(region->opaque, offset, size);
	return value;
}

/* The largest access the handler takes at offset that does not go beyond left bytes, or its
 * smallest one when even that does (or begins before). */
static unsigned int chunk_size(const struct bus_ops *ops, uint64_t offset, unsigned int left)
{
	unsigned int size = ops_max(ops);

	while (size > left || (!ops->unaligned && !is_aligned(offset, size)))
		size /= 2;
	return size;
}

/* Guest memory order is little-endian and so is every host we run on: a value is its bytes. */
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "values are copied as bytes");

/* Bytes [offset, offset + n) of region, split and widened to what its handler takes. A write that
 * is narrower than the smallest access becomes read, modify, write, as a bus without byte enables
 * would do it. The region's lock is held over the whole, so the parts are one access to others. */
static void access_region(struct bus_region *region, uint64_t offset, uint8_t *data, unsigned int n,
			  bool write)
{
	const struct bus_ops *ops = region->ops;

	atomic_fetch_add_explicit(&region->traps, 1, memory_order_relaxed);
	if (region->lock)
		pthread_mutex_lock(region->lock);
	while (n) {
		unsigned int size = chunk_size(ops, offset, n), skip = 0, take = size;
		uint64_t value = 0;

		if (size < ops_min(ops)) {
			size = ops_min(ops);
			skip = (unsigned int)(offset & (size - 1));
			take = MIN(size - skip, n);
		}
		if (!write || take < size)
			value = call(region, offset - skip, size, false, 0);
		if (write) {
			memcpy((uint8_t *)&value + skip, data, take);
			call(region, offset - skip, size, true, value);
		} else {
			memcpy(data, (uint8_t *)&value + skip, take);
		}
		data += take;
		offset += take;
		n -= take;
	}
	if (region->lock)
		pthread_mutex_unlock(region->lock);
}

static bool access(struct bus *bus, uint64_t addr, uint8_t *data, unsigned int size, bool write)
{
	unsigned int reader = reader_enter(bus);
	struct table *table = atomic_load(&bus->table);
	unsigned int i = table_find(table, addr);
	bool claimed = false;

	while (size) {
		struct extent *p = i < table->n ? &table->extents[i] : NULL;
		struct bus_region *region = NULL;
		/* Bytes from addr to the top of the address space: beyond it nobody answers. */
		uint64_t n = MIN((uint64_t)size, UINT64_MAX - addr);

		n = n < size ? n + 1 : n;
		if (p && addr >= p->start) {
			n = MIN(n - 1, p->last - addr) + 1;
			region = atomic_load(&p->region);
			i++;
		} else if (p) {
			n = MIN(n, p->start - addr);
		}
		if (region) {
			access_region(region, addr - p->base, data, (unsigned int)n, write);
			claimed = true;
		} else if (!write) {
			memset(data, 0xff, n);
		}
		data += n;
		size -= (unsigned int)n;
		addr += n;
		if (!addr)
			i = table->n; /* wrapped */
	}
	reader_leave(bus, reader);
	return claimed;
}

bool bus_read(struct bus *bus, uint64_t addr, void *data, unsigned int size)
{
	return access(bus, addr, data, size, false);
}

bool bus_write(struct bus *bus, uint64_t addr, const void *data, unsigned int size)
{
	uint8_t copy[8];

	assert(size <= sizeof(copy));
	memcpy(copy, data, size);
	return access(bus, addr, copy, size, true);
}

void bus_set_ioeventfd_ops(struct bus *bus, const struct bus_ioeventfd_ops *ops, void *opaque)
{
	pthread_mutex_lock(&bus->lock);
	for (unsigned int i = 0; i < bus->n_doorbells; i++)
		doorbell_off(bus, &bus->doorbells[i]);
	bus->ioeventfd_ops = ops;
	bus->ioeventfd_opaque = opaque;
	doorbells_follow(bus, atomic_load(&bus->table));
	pthread_mutex_unlock(&bus->lock);
}

int bus_ioeventfd_add(struct bus *bus, const struct bus_ioeventfd *ioeventfd)
{
	struct doorbell *more;
	int ret = -ENOMEM;

	assert(range_inside(ioeventfd->offset, MAX(ioeventfd->size, 1u), 0,
			    ioeventfd->region->size_bytes));
	pthread_mutex_lock(&bus->lock);
	if (bus->n_doorbells == bus->max_doorbells) {
		unsigned int max = bus->max_doorbells ? 2 * bus->max_doorbells : 16;

		more = realloc(bus->doorbells, max * sizeof(*more));
		if (!more)
			goto out;
		bus->doorbells = more;
		bus->max_doorbells = max;
	}
	bus->doorbells[bus->n_doorbells++] = (struct doorbell){.e = *ioeventfd};
	ret = doorbells_follow(bus, atomic_load(&bus->table));
	if (ret && !bus->doorbells[bus->n_doorbells - 1].assigned)
		bus->n_doorbells--;
	else
		ret = 0;
out:
	pthread_mutex_unlock(&bus->lock);
	return ret;
}

static bool same_doorbell(const struct bus_ioeventfd *a, const struct bus_ioeventfd *b)
{
	return a->region == b->region && a->offset == b->offset && a->size == b->size &&
	       a->match == b->match && (!a->match || a->value == b->value) && a->fd == b->fd;
}

void bus_ioeventfd_del(struct bus *bus, const struct bus_ioeventfd *ioeventfd)
{
	pthread_mutex_lock(&bus->lock);
	for (unsigned int i = 0; i < bus->n_doorbells; i++) {
		if (!same_doorbell(&bus->doorbells[i].e, ioeventfd))
			continue;
		doorbell_off(bus, &bus->doorbells[i]);
		bus->doorbells[i] = bus->doorbells[--bus->n_doorbells];
		break;
	}
	pthread_mutex_unlock(&bus->lock);
}

void bus_walk(struct bus *bus, void (*fn)(void *opaque, const struct bus_region *region),
	      void *opaque)
{
	pthread_mutex_lock(&bus->lock);
	for (unsigned int i = 0; i < bus->n_regions; i++)
		fn(opaque, bus->regions[i]);
	pthread_mutex_unlock(&bus->lock);
}
