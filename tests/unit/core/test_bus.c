/* SPDX-License-Identifier: Apache-2.0 */
/* Buses: splitting and widening, holes, shadows, ioeventfds that follow, and tables that are
 * swapped under readers. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/num.h"
#include "core/bus.h"

/* A region backed by bytes that writes down the accesses its handler gets. */
struct dev {
	struct bus_region region;
	uint8_t bytes[256];
	unsigned int n;
	struct {
		uint64_t offset;
		unsigned int size;
		bool write;
	} calls[32];
};

static void note(struct dev *d, uint64_t offset, unsigned int size, bool write)
{
	cr_assert_leq(offset + size, d->region.size_bytes, "the handler sees only its own bytes");
	if (d->n < ARRAY_SIZE(d->calls)) {
		d->calls[d->n].offset = offset;
		d->calls[d->n].size = size;
		d->calls[d->n].write = write;
	}
	d->n++;
}

static uint64_t dev_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct dev *d = opaque;
	uint64_t v = 0;

	note(d, offset, size, false);
	memcpy(&v, &d->bytes[offset], size);
	return v;
}

static void dev_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct dev *d = opaque;

	note(d, offset, size, true);
	memcpy(&d->bytes[offset], &value, size);
}

static const struct bus_ops any = {.read = dev_read, .write = dev_write};
static const struct bus_ops only4 = {.read = dev_read, .write = dev_write, .min = 4, .max = 4};
static const struct bus_ops upto2 = {.read = dev_read, .write = dev_write, .min = 1, .max = 2};
static const struct bus_ops loose = {
	.read = dev_read, .write = dev_write, .min = 1, .max = 8, .unaligned = true};

static struct dev make(const char *name, const struct bus_ops *ops, uint64_t size)
{
	struct dev d = {.region = {.ops = ops, .name = name, .size_bytes = size}};

	for (unsigned int i = 0; i < sizeof(d.bytes); i++)
		d.bytes[i] = (uint8_t)(i + 1);
	return d;
}

static struct bus *bus;
static struct err err;

static void set_up(void)
{
	cr_assert_eq(bus_create(&bus, BUS_MMIO, &err), 0);
}

static void tear_down(void)
{
	bus_destroy(bus);
}

TestSuite(bus, .init = set_up, .fini = tear_down);

static void add(struct dev *d, uint64_t base)
{
	d->region.opaque = d;
	cr_assert_eq(bus_add(bus, &d->region, base, &err), 0, "%s", err.text);
}

static uint64_t read_at(uint64_t addr, unsigned int size)
{
	uint64_t v = 0;

	bus_read(bus, addr, &v, size);
	return v;
}

Test(bus, reads_of_nobody_are_all_ones_and_unclaimed)
{
	uint64_t v = 0;

	cr_assert_not(bus_read(bus, 0x1000, &v, 8));
	cr_assert_eq(v, UINT64_MAX);
	v = 5;
	cr_assert_not(bus_write(bus, 0x1000, &v, 4));
}

Test(bus, an_access_that_fits_is_one_call)
{
	static struct dev d;
	uint64_t v = 0;

	d = make("d", &any, 0x100);
	add(&d, 0x1000);
	cr_assert(bus_read(bus, 0x1010, &v, 8));
	cr_assert_eq(d.n, 1);
	cr_assert_eq(d.calls[0].offset, 0x10);
	cr_assert_eq(v, 0x1817161514131211ull);
	cr_assert_eq(atomic_load(&d.region.traps), 1);
}

Test(bus, an_access_that_is_too_large_is_split)
{
	static struct dev d;

	d = make("d", &upto2, 0x100);
	add(&d, 0x1000);
	cr_assert_eq(read_at(0x1000, 8), 0x0807060504030201ull);
	cr_assert_eq(d.n, 4);
	cr_assert_eq(d.calls[3].offset, 6);
	cr_assert_eq(d.calls[3].size, 2);
}

Test(bus, an_unaligned_access_is_split_into_aligned_ones)
{
	static struct dev d;

	d = make("d", &any, 0x100);
	add(&d, 0x1000);
	cr_assert_eq(read_at(0x1001, 4), 0x05040302u);
	cr_assert_eq(d.n, 3);
	for (unsigned int i = 0; i < d.n; i++)
		cr_assert(is_aligned(d.calls[i].offset, d.calls[i].size));
}

Test(bus, an_unaligned_access_passes_whole_where_it_is_declared)
{
	static struct dev d;

	d = make("d", &loose, 0x100);
	add(&d, 0x1000);
	cr_assert_eq(read_at(0x1003, 4), 0x07060504u);
	cr_assert_eq(d.n, 1);
	cr_assert_eq(d.calls[0].offset, 3);
}

Test(bus, a_narrow_read_is_widened)
{
	static struct dev d;

	d = make("d", &only4, 0x100);
	add(&d, 0x1000);
	cr_assert_eq(read_at(0x1006, 1), 7);
	cr_assert_eq(d.n, 1);
	cr_assert_eq(d.calls[0].offset, 4);
	cr_assert_eq(d.calls[0].size, 4);
}

Test(bus, a_narrow_write_changes_only_its_bytes)
{
	static struct dev d;
	uint16_t v = 0xaabb;

	d = make("d", &only4, 0x100);
	add(&d, 0x1000);
	cr_assert(bus_write(bus, 0x1001, &v, 2));
	cr_assert_eq(d.bytes[0], 1);
	cr_assert_eq(d.bytes[1], 0xbb);
	cr_assert_eq(d.bytes[2], 0xaa);
	cr_assert_eq(d.bytes[3], 4);
}

Test(bus, an_access_over_two_regions_and_a_hole_reaches_each)
{
	static struct dev a, b;
	uint64_t v = 0x8877665544332211ull;

	a = make("a", &any, 2);
	b = make("b", &any, 0x10);
	add(&a, 0x1000);
	add(&b, 0x1004);
	cr_assert_eq(read_at(0x1000, 8), 0x04030201ffff0201ull);
	cr_assert(bus_write(bus, 0x1000, &v, 8));
	cr_assert_eq(a.bytes[1], 0x22);
	cr_assert_eq(b.bytes[0], 0x55);
	cr_assert_eq(b.bytes[3], 0x88);
}

Test(bus, the_top_of_the_address_space_does_not_wrap)
{
	static struct dev low, top;

	low = make("low", &any, 0x10);
	top = make("top", &any, 0x10);
	add(&low, 0);
	add(&top, UINT64_MAX - 0xf);
	cr_assert_eq(read_at(UINT64_MAX - 1, 8), 0xffffffffffff100full);
	cr_assert_eq(low.n, 0);
	cr_assert_eq(read_at(UINT64_MAX, 1), 0x10);
}

Test(bus, ports_end_at_0xffff)
{
	static struct dev d;
	struct bus *pio;

	d = make("d", &any, 8);
	cr_assert_eq(bus_create(&pio, BUS_PIO, &err), 0);
	d.region.opaque = &d;
	cr_assert_eq(bus_add(pio, &d.region, 0xfffc, &err), -EINVAL);
	cr_assert_eq(bus_add_shadowed(pio, &d.region, 0x10000), -EINVAL);
	cr_assert_eq(bus_add(pio, &d.region, 0xfff8, &err), 0);
	bus_destroy(pio);
}

Test(bus, an_overlap_is_refused_and_names_both)
{
	static struct dev a, b;

	a = make("first", &any, 0x100);
	b = make("second", &any, 0x100);
	add(&a, 0x1000);
	b.region.opaque = &b;
	cr_assert_eq(bus_add(bus, &b.region, 0x10ff, &err), -EEXIST);
	cr_assert_not_null(strstr(err.text, "first"));
	cr_assert_not_null(strstr(err.text, "second"));
	cr_assert_not(b.region.on);
	cr_assert_eq(bus_add(bus, &b.region, 0x1100, &err), 0, "neighbours do not overlap");
}

Test(bus, a_shadowed_region_shows_around_the_first_comer_and_when_it_leaves)
{
	static struct dev a, b;

	a = make("a", &any, 0x10);
	b = make("b", &any, 0x100);
	memset(a.bytes, 0xa0, sizeof(a.bytes));
	memset(b.bytes, 0xb0, sizeof(b.bytes));
	add(&a, 0x1010);
	b.region.opaque = &b;
	cr_assert_eq(bus_add_shadowed(bus, &b.region, 0x1000), 0);
	cr_assert_eq(read_at(0x100c, 8), 0xa0a0a0a0b0b0b0b0ull);
	cr_assert_eq(read_at(0x101c, 8), 0xb0b0b0b0a0a0a0a0ull);
	cr_assert_eq(b.calls[1].offset, 0x20, "offsets count from the region's start");
	bus_del(bus, &a.region);
	cr_assert_eq(read_at(0x1010, 4), 0xb0b0b0b0u);
	cr_assert_eq(a.n, 2);
}

Test(bus, a_shadowed_region_may_end_where_the_first_comer_ends)
{
	static struct dev a, b, c;
	uint64_t v;

	a = make("a", &any, 0x10);
	b = make("b", &any, 0x20);
	c = make("c", &any, 0x10);
	add(&a, 0x1010);
	add(&c, 0x1030);
	b.region.opaque = &b;
	cr_assert_eq(bus_add_shadowed(bus, &b.region, 0x1000), 0);
	memset(b.bytes, 0xb0, sizeof(b.bytes));
	cr_assert_eq(read_at(0x100f, 1), 0xb0);
	cr_assert_eq(read_at(0x1010, 1), 1);
	cr_assert_eq(read_at(0x101f, 1), 0x10);
	cr_assert_not(bus_read(bus, 0x1020, &v, 8), "nothing between the two");
	cr_assert_eq(read_at(0x1030, 1), 1);
}

Test(bus, many_regions_are_all_found)
{
	static struct dev d[200];
	uint64_t v;

	/* Inserted from both ends towards the middle */
	for (unsigned int i = 0; i < 200; i++) {
		unsigned int at = i % 2 ? 199 - i / 2 : i / 2;

		d[at] = make("d", &any, 0x10);
		d[at].bytes[0] = (uint8_t)at;
		add(&d[at], 0x1000 + at * 0x20);
	}
	for (unsigned int i = 0; i < 200; i++) {
		cr_assert_eq(read_at(0x1000 + i * 0x20, 1), i);
		cr_assert_not(bus_read(bus, 0x1010 + i * 0x20, &v, 4));
	}
	for (unsigned int i = 0; i < 200; i += 2)
		bus_del(bus, &d[i].region);
	for (unsigned int i = 0; i < 200; i++)
		cr_assert_eq(bus_read(bus, 0x1000 + i * 0x20, &v, 1), i % 2 == 1);
}

/* ioeventfds, as a kernel would have them */
static struct {
	unsigned int n;
	uint64_t addr[8];
	int fd[8];
	bool refuse;
} kernel;

static int assign(void *opaque, enum bus_kind kind, uint64_t addr, const struct bus_ioeventfd *e,
		  bool on)
{
	(void)opaque;
	cr_assert_eq(kind, BUS_MMIO);
	if (on) {
		for (unsigned int i = 0; i < kernel.n; i++)
			cr_assert(kernel.addr[i] != addr, "assigned twice at one address");
		if (kernel.refuse)
			return -ENOSPC;
		kernel.addr[kernel.n] = addr;
		kernel.fd[kernel.n++] = e->fd;
		return 0;
	}
	for (unsigned int i = 0; i < kernel.n; i++) {
		if (kernel.addr[i] == addr && kernel.fd[i] == e->fd) {
			kernel.n--;
			kernel.addr[i] = kernel.addr[kernel.n];
			kernel.fd[i] = kernel.fd[kernel.n];
			return 0;
		}
	}
	cr_assert(false, "took off what was not there");
	return -ENOENT;
}

static const struct bus_ioeventfd_ops kernel_ops = {.assign = assign};

Test(bus, an_ioeventfd_follows_its_region)
{
	static struct dev d;
	struct bus_ioeventfd e = {.region = &d.region, .offset = 0x40, .size = 2, .fd = 7};

	d = make("d", &any, 0x100);
	bus_set_ioeventfd_ops(bus, &kernel_ops, NULL);
	cr_assert_eq(bus_ioeventfd_add(bus, &e), 0);
	cr_assert_eq(kernel.n, 0, "its region is on no bus yet");
	add(&d, 0x1000);
	cr_assert_eq(kernel.n, 1);
	cr_assert_eq(kernel.addr[0], 0x1040);
	bus_del(bus, &d.region);
	cr_assert_eq(kernel.n, 0);
	add(&d, 0x5000);
	cr_assert_eq(kernel.addr[0], 0x5040);
	bus_ioeventfd_del(bus, &e);
	cr_assert_eq(kernel.n, 0);
}

Test(bus, a_shadowed_ioeventfd_is_not_assigned)
{
	static struct dev a, b;
	struct bus_ioeventfd ea = {.region = &a.region, .offset = 0x40, .size = 4, .fd = 1};
	struct bus_ioeventfd eb = {.region = &b.region, .offset = 0x40, .size = 4, .fd = 2};

	a = make("a", &any, 0x100);
	b = make("b", &any, 0x100);
	bus_set_ioeventfd_ops(bus, &kernel_ops, NULL);
	add(&a, 0x1000);
	b.region.opaque = &b;
	cr_assert_eq(bus_add_shadowed(bus, &b.region, 0x1000), 0);
	cr_assert_eq(bus_ioeventfd_add(bus, &ea), 0);
	cr_assert_eq(bus_ioeventfd_add(bus, &eb), 0);
	cr_assert_eq(kernel.n, 1);
	cr_assert_eq(kernel.fd[0], 1);
	bus_del(bus, &a.region);
	cr_assert_eq(kernel.n, 1);
	cr_assert_eq(kernel.fd[0], 2, "the second one's turn");
	bus_ioeventfd_del(bus, &ea);
	bus_ioeventfd_del(bus, &eb);
}

Test(bus, an_ioeventfd_that_the_kernel_refuses_is_an_error_and_leaves_the_handler)
{
	static struct dev d;
	struct bus_ioeventfd e = {.region = &d.region, .offset = 0x40, .size = 2, .fd = 7};
	uint16_t v = 1;

	d = make("d", &any, 0x100);
	bus_set_ioeventfd_ops(bus, &kernel_ops, NULL);
	add(&d, 0x1000);
	kernel.refuse = true;
	cr_assert_eq(bus_ioeventfd_add(bus, &e), -ENOSPC);
	kernel.refuse = false;
	bus_write(bus, 0x1040, &v, 2);
	cr_assert_eq(d.n, 1);
	bus_del(bus, &d.region);
	add(&d, 0x2000);
	cr_assert_eq(kernel.n, 0, "what was refused is not remembered");
}

/* Threads */

struct mover {
	struct dev d;
	struct bus_region *moves;
	uint64_t at;
};

static void move_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct mover *m = opaque;

	(void)offset;
	(void)size;
	bus_del(bus, m->moves);
	cr_assert_eq(bus_add_shadowed(bus, m->moves, value), 0);
}

static const struct bus_ops move_ops = {.read = dev_read, .write = move_write};

Test(bus, a_handler_moves_regions_itself_included)
{
	static struct mover m;
	uint64_t to = 0x4000, v;

	m.d = make("m", &move_ops, 0x10);
	m.d.region.opaque = &m;
	m.moves = &m.d.region;
	cr_assert_eq(bus_add(bus, &m.d.region, 0x1000, &err), 0);
	cr_assert(bus_write(bus, 0x1000, &to, 8));
	cr_assert_not(bus_read(bus, 0x1000, &v, 8));
	cr_assert_eq(m.d.region.base, 0x4000);
	to = 0x1000;
	cr_assert(bus_write(bus, 0x4000, &to, 8));
	cr_assert(m.d.region.on);
}

static atomic_bool stop;
static atomic_uint inside;
static atomic_uint served;

struct live {
	struct bus_region region;
	atomic_bool alive;
};

static uint64_t live_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct live *l = opaque;

	(void)offset;
	(void)size;
	atomic_fetch_add(&inside, 1);
	if (!atomic_load(&l->alive))
		abort(); /* a handler ran after bus_synchronize() */
	atomic_fetch_sub(&inside, 1);
	atomic_fetch_add(&served, 1);
	return 0x55;
}

static const struct bus_ops live_ops = {.read = live_read, .min = 1, .max = 8};

static void *reader(void *opaque)
{
	(void)opaque;
	while (!atomic_load(&stop)) {
		for (unsigned int i = 0; i < 64; i++) {
			uint8_t v = 0;
			bool claimed = bus_read(bus, 0x1000 + i % 4 * 0x10, &v, 1);

			if (v != (claimed ? 0x55 : 0xff))
				abort();
		}
	}
	return NULL;
}

Test(bus, after_synchronize_no_reader_is_in_a_removed_region)
{
	pthread_t t[3];

	for (unsigned int i = 0; i < ARRAY_SIZE(t); i++)
		cr_assert_eq(pthread_create(&t[i], NULL, reader, NULL), 0);
	for (unsigned int round = 0; round < 300 || atomic_load(&served) < 1000; round++) {
		struct live *l = calloc(1, sizeof(*l));

		l->region = (struct bus_region){
			.ops = &live_ops, .opaque = l, .name = "live", .size_bytes = 0x10};
		atomic_store(&l->alive, true);
		cr_assert_eq(bus_add_shadowed(bus, &l->region, 0x1000 + round % 4 * 0x10), 0);
		if (round % 8 == 0) { /* let them find it */
			unsigned int before = atomic_load(&served);

			while (atomic_load(&served) == before)
				sched_yield();
		}
		bus_del(bus, &l->region);
		bus_synchronize(bus);
		atomic_store(&l->alive, false);
		free(l);
	}
	atomic_store(&stop, true);
	for (unsigned int i = 0; i < ARRAY_SIZE(t); i++)
		pthread_join(t[i], NULL);
	cr_assert_eq(atomic_load(&inside), 0);
}

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool entered, synchronized;

static uint64_t blocking_read(void *opaque, uint64_t offset, unsigned int size)
{
	(void)opaque;
	(void)offset;
	(void)size;
	atomic_store(&entered, true);
	pthread_mutex_lock(&gate);
	pthread_mutex_unlock(&gate);
	cr_assert_not(atomic_load(&synchronized), "bus_synchronize() did not wait");
	return 0;
}

static const struct bus_ops blocking_ops = {.read = blocking_read};

static void *one_read(void *opaque)
{
	uint8_t v;

	(void)opaque;
	bus_read(bus, 0x1000, &v, 1);
	return NULL;
}

static void *synchronizer(void *opaque)
{
	(void)opaque;
	bus_synchronize(bus);
	atomic_store(&synchronized, true);
	return NULL;
}

Test(bus, synchronize_waits_for_an_access_of_before_but_not_for_later_ones)
{
	static struct dev d, other;
	pthread_t t[2];
	uint8_t v;

	d = make("slow", &blocking_ops, 0x10);
	other = make("other", &any, 0x10);
	add(&d, 0x1000);
	add(&other, 0x2000);
	pthread_mutex_lock(&gate);
	pthread_create(&t[0], NULL, one_read, NULL);
	while (!atomic_load(&entered))
		sched_yield();
	pthread_create(&t[1], NULL, synchronizer, NULL);
	/* Changes and other accesses go on meanwhile. */
	for (unsigned int i = 0; i < 1000; i++) {
		bus_del(bus, &other.region);
		cr_assert_eq(bus_add(bus, &other.region, 0x2000, &err), 0);
		cr_assert(bus_read(bus, 0x2000, &v, 1));
	}
	cr_assert_not(atomic_load(&synchronized));
	pthread_mutex_unlock(&gate);
	pthread_join(t[0], NULL);
	pthread_join(t[1], NULL);
	cr_assert(atomic_load(&synchronized));
}

static pthread_mutex_t region_lock = PTHREAD_MUTEX_INITIALIZER;
static int tried;

static uint64_t locked_read(void *opaque, uint64_t offset, unsigned int size)
{
	(void)opaque;
	(void)offset;
	(void)size;
	tried = pthread_mutex_trylock(&region_lock);
	return 0;
}

static const struct bus_ops locked_ops = {.read = locked_read};

Test(bus, the_regions_lock_is_held_around_its_handler)
{
	static struct dev d;

	d = make("d", &locked_ops, 0x10);
	d.region.lock = &region_lock;
	add(&d, 0x1000);
	read_at(0x1000, 4);
	cr_assert_eq(tried, EBUSY);
	cr_assert_eq(pthread_mutex_trylock(&region_lock), 0, "and given back after it");
	pthread_mutex_unlock(&region_lock);
}
