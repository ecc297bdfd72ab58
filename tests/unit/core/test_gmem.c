/* SPDX-License-Identifier: Apache-2.0 */
/* Guest memory: the checked accessor, transactions with listeners that refuse, backings. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/num.h"
#include "core/gmem.h"
#include "deny.h"

static struct gmem *gmem;
static struct err err;

static void set_up(void)
{
	cr_assert_eq(gmem_create(&gmem, NULL, &err), 0);
}

static void tear_down(void)
{
	gmem_destroy(gmem);
}

TestSuite(gmem, .init = set_up, .fini = tear_down);

static struct gmem_region_config ram(const char *name, uint64_t gpa, uint64_t size)
{
	return (struct gmem_region_config){.name = name,
					   .gpa = gpa,
					   .size_bytes = size,
					   .backing = GMEM_ANONYMOUS,
					   .numa_node = -1,
					   .fd = -1};
}

static void add(const struct gmem_region_config *config)
{
	cr_assert_eq(gmem_begin(gmem, &err), 0, "%s", err.text);
	cr_assert_eq(gmem_add(gmem, config, &err), 0, "%s", err.text);
	cr_assert_eq(gmem_commit(gmem, &err), 0, "%s", err.text);
}

static void add_ram(uint64_t gpa, uint64_t size)
{
	struct gmem_region_config c = ram("ram", gpa, size);

	add(&c);
}

Test(gmem, a_pointer_is_given_only_inside_one_region)
{
	add_ram(0, MiB);
	add_ram(2 * MiB, MiB);
	cr_assert_not_null(gmem_host(gmem, 0, MiB, true));
	cr_assert_not_null(gmem_host(gmem, MiB - 1, 1, true));
	cr_assert_null(gmem_host(gmem, MiB - 1, 2, true));
	cr_assert_null(gmem_host(gmem, MiB, 1, false));
	cr_assert_null(gmem_host(gmem, 0, 0, false));
	cr_assert_null(gmem_host(gmem, UINT64_MAX, 8, false));
	cr_assert_null(gmem_host(gmem, MiB / 2, SIZE_MAX, false));
	cr_assert_eq(gmem_contiguous(gmem, 2 * MiB + 5), MiB - 5);
	cr_assert_eq(gmem_contiguous(gmem, MiB), 0);
}

Test(gmem, host_addresses_are_congruent_for_huge_pages)
{
	add_ram(0, 4 * MiB);
	add_ram(4 * GiB + 12 * KiB, 4 * MiB);
	cr_assert_eq((uint64_t)gmem_host(gmem, 0, 1, true) % (2 * MiB), 0);
	cr_assert_eq((uint64_t)gmem_host(gmem, 4 * GiB + 12 * KiB, 1, true) % (2 * MiB), 12 * KiB);
}

Test(gmem, copies_cross_neighbours_but_not_holes)
{
	char out[] = "across the border", in[sizeof(out)];

	add_ram(0, MiB);
	add_ram(MiB, MiB);
	cr_assert_eq(gmem_write(gmem, MiB - 5, out, sizeof(out)), 0);
	cr_assert_eq(gmem_read(gmem, MiB - 5, in, sizeof(in)), 0);
	cr_assert_str_eq(in, out);
	cr_assert_eq(memcmp(gmem_host(gmem, MiB, 1, false), out + 5, 5), 0);
	cr_assert_eq(gmem_read(gmem, 2 * MiB - 5, in, sizeof(in)), -EFAULT);
	cr_assert_eq(gmem_read(gmem, UINT64_MAX - 2, in, sizeof(in)), -EFAULT);
}

Test(gmem, rom_is_read_and_not_written)
{
	struct gmem_region_config rom = ram("rom", 0, MiB);
	int x = 0;

	rom.flags = GMEM_READONLY;
	add(&rom);
	cr_assert_not_null(gmem_host(gmem, 0, 8, false));
	cr_assert_null(gmem_host(gmem, 0, 8, true));
	cr_assert_eq(gmem_write(gmem, 0, &x, sizeof(x)), -EFAULT);
	cr_assert_eq(gmem_ram_bytes(gmem), 0);
}

Test(gmem, an_overlap_is_refused_and_names_both)
{
	struct gmem_region_config a = ram("first", 0, MiB), b = ram("second", MiB - 4096, MiB);

	add(&a);
	cr_assert_eq(gmem_begin(gmem, &err), 0);
	cr_assert_eq(gmem_add(gmem, &b, &err), -EEXIST);
	cr_assert_not_null(strstr(err.text, "first"));
	cr_assert_not_null(strstr(err.text, "second"));
	b.gpa = 4 * MiB;
	cr_assert_eq(gmem_add(gmem, &b, &err), 0);
	b.gpa = 4 * MiB + 4096;
	cr_assert_eq(gmem_add(gmem, &b, &err), -EEXIST, "with what the transaction adds, too");
	gmem_abort(gmem);
	cr_assert_eq(gmem_ram_bytes(gmem), MiB);
}

Test(gmem, bad_sizes_are_refused)
{
	static const struct {
		uint64_t gpa, size;
	} bad[] = {{0, 0}, {0, 4095}, {100, 4096}, {UINT64_MAX - 4095, 8192}, {4096, 1ull << 63}};

	cr_assert_eq(gmem_begin(gmem, &err), 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		struct gmem_region_config c = ram("odd", bad[i].gpa, bad[i].size);

		cr_assert_eq(gmem_add(gmem, &c, &err), -EINVAL, "%u", i);
		cr_assert_not_null(strstr(err.text, "odd"));
	}
	gmem_abort(gmem);
}

Test(gmem, more_than_the_host_has_is_an_error_that_says_so)
{
	static const enum gmem_backing kinds[] = {GMEM_ANONYMOUS, GMEM_MEMFD};
	char mode[4] = "";
	FILE *f = fopen("/proc/sys/vm/overcommit_memory", "re");

	if (f && fgets(mode, sizeof(mode), f) && mode[0] == '1')
		cr_skip("this host allows every overcommitment");
	if (f)
		fclose(f);
	cr_assert_eq(gmem_begin(gmem, &err), 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct gmem_region_config c = ram("huge", 0, 64 * TiB);

		c.backing = kinds[i];
		cr_assert_eq(gmem_add(gmem, &c, &err), -ENOMEM);
		cr_assert_not_null(strstr(err.text, "huge"));
		cr_assert_not_null(strstr(err.text, "available"));
	}
	gmem_abort(gmem);
}

Test(gmem, missing_huge_pages_are_counted_in_the_message)
{
	struct gmem_region_config c = ram("pages", 0, 256 * GiB);
	int ret;

	c.backing = GMEM_HUGETLB_2M;
	cr_assert_eq(gmem_begin(gmem, &err), 0);
	ret = gmem_add(gmem, &c, &err);
	if (!ret)
		cr_skip("this host has them all");
	if (ret == -ENOMEM) {
		cr_assert_not_null(strstr(err.text, "needs 131072 huge pages of 2 MiB"));
		cr_assert_not_null(strstr(err.text, "vm.nr_hugepages="));
	} else {
		cr_assert_not_null(strstr(err.text, "huge pages of that size"), "%s", err.text);
	}
	c.size_bytes = MiB;
	cr_assert_eq(gmem_add(gmem, &c, &err), -EINVAL, "not a multiple of 2 MiB");
	gmem_abort(gmem);
}

Test(gmem, an_absent_numa_node_is_refused)
{
	struct gmem_region_config c = ram("far", 0, MiB);

	cr_assert_eq(gmem_begin(gmem, &err), 0);
	c.numa_node = 999;
	cr_assert_lt(gmem_add(gmem, &c, &err), 0);
	cr_assert_not_null(strstr(err.text, "999"), "%s", err.text);
	c.numa_node = 5000;
	cr_assert_eq(gmem_add(gmem, &c, &err), -EINVAL);
	c.numa_node = 0;
	cr_assert_eq(gmem_add(gmem, &c, &err), 0, "%s", err.text);
	gmem_abort(gmem);
}

static int keep_region(void *opaque, const struct gmem_region *region)
{
	*(const struct gmem_region **)opaque = region;
	return 1;
}

Test(gmem, a_memfd_is_sealed_against_shrinking_and_growing)
{
	struct gmem_region_config c = ram("shared", 0, MiB);
	const struct gmem_region *r = NULL;
	uint32_t there = 0, value = 0x12345678;

	c.backing = GMEM_AUTO;
	c.share = true;
	add(&c);
	cr_assert_eq(gmem_walk(gmem, keep_region, &r), 1);
	cr_assert_geq(r->fd, 0, "auto is a memfd when something shares");
	cr_assert_eq(ftruncate(r->fd, 4096), -1);
	cr_assert_eq(ftruncate(r->fd, 2 * MiB), -1);
	cr_assert(fcntl(r->fd, F_GETFD) & FD_CLOEXEC);
	gmem_write(gmem, 0x1000, &value, 4);
	cr_assert_eq(pread(r->fd, &there, 4, 0x1000), 4);
	cr_assert_eq(there, value, "and holds the guest's memory");
}

/* Has the kernel been asked for huge pages at this address (" hg" of VmFlags in smaps), or not to
 * (" nh")? */
static bool advised(const void *hva, const char *flag)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	unsigned long first, end;
	bool here = false, ret = false;
	char line[512];

	cr_assert(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &first, &end) == 2)
			here = first <= (uintptr_t)hva && (uintptr_t)hva < end;
		else if (here && strncmp(line, "VmFlags:", 8) == 0)
			ret = strstr(line, flag) != NULL;
	}
	fclose(f);
	return ret;
}

Test(gmem, memory_asks_for_huge_pages_whether_it_is_shared_or_not)
{
	struct gmem_region_config c = ram("own", 0, 4 * MiB);

	if (access("/sys/kernel/mm/transparent_hugepage", F_OK) < 0)
		cr_skip("this kernel has none");
	c.backing = GMEM_AUTO;
	add(&c);
	c.gpa = 8 * MiB;
	c.share = true;
	add(&c);
	cr_assert(advised(gmem_host(gmem, 0, 1, false), " hg"), "anonymous");
	cr_assert(advised(gmem_host(gmem, 8 * MiB, 1, false), " hg"), "memfd");
}

Test(gmem, memory_of_which_small_parts_are_to_leave_refuses_huge_pages)
{
	struct gmem_region_config c = ram("own", 0, 4 * MiB);

	if (access("/sys/kernel/mm/transparent_hugepage", F_OK) < 0)
		cr_skip("this kernel has none");
	c.small_pages = true;
	c.backing = GMEM_AUTO;
	add(&c);
	c.gpa = 8 * MiB;
	c.share = true;
	add(&c);
	cr_assert(advised(gmem_host(gmem, 0, 1, false), " nh"), "anonymous");
	cr_assert(advised(gmem_host(gmem, 8 * MiB, 1, false), " nh"), "memfd");
}

Test(gmem, auto_is_anonymous_when_nothing_shares)
{
	struct gmem_region_config c = ram("own", 0, MiB);
	const struct gmem_region *r = NULL;

	c.backing = GMEM_AUTO;
	add(&c);
	gmem_walk(gmem, keep_region, &r);
	cr_assert_eq(r->fd, -1);
}

Test(gmem, a_given_fd_must_be_long_enough)
{
	struct gmem_region_config c = ram("given", 0, MiB);
	const struct gmem_region *r = NULL;
	int fd = memfd_create("given", MFD_CLOEXEC);

	c.backing = GMEM_FD;
	c.fd = fd;
	cr_assert_eq(ftruncate(fd, MiB), 0);
	c.fd_offset = 4096;
	cr_assert_eq(gmem_begin(gmem, &err), 0);
	cr_assert_eq(gmem_add(gmem, &c, &err), -EINVAL, "it would end in SIGBUS");
	c.fd_offset = 100;
	c.size_bytes = 4096;
	cr_assert_eq(gmem_add(gmem, &c, &err), -EINVAL);
	c.fd_offset = 8192;
	cr_assert_eq(gmem_add(gmem, &c, &err), 0);
	cr_assert_eq(gmem_commit(gmem, &err), 0);
	close(fd); /* it was duplicated */
	gmem_walk(gmem, keep_region, &r);
	cr_assert_eq(gmem_write(gmem, 0, "x", 1), 0);
	cr_assert_eq(gmem_discard(gmem, 0, 4096), 0);
	cr_assert_eq(*(char *)gmem_host(gmem, 0, 1, false), 0);
	cr_assert_eq(r->fd_offset, 8192);
	c.fd = 12345;
	cr_assert_eq(gmem_begin(gmem, &err), 0);
	c.gpa = MiB;
	cr_assert_eq(gmem_add(gmem, &c, &err), -EBADF);
	gmem_abort(gmem);
}

/* --- transactions --- */

enum refusal {
	NEVER,
	AT_MAP, /* of the second addition */
	AT_BATCH,
};

struct watcher {
	struct gmem_listener listener;
	enum refusal refuse;
	uint64_t mapped[8]; /* gpas */
	unsigned int n;
	unsigned int maps, batches;
};

static int watcher_map(void *opaque, const struct gmem_region *region, struct err *e)
{
	struct watcher *w = opaque;

	w->maps++;
	if (w->refuse == AT_MAP && region->gpa == 0x30 * MiB)
		return err_set(e, -ENOSPC, "no slot left");
	for (unsigned int i = 0; i < w->n; i++)
		cr_assert_neq(w->mapped[i], region->gpa, "mapped twice");
	w->mapped[w->n++] = region->gpa;
	return 0;
}

static void watcher_unmap(void *opaque, const struct gmem_region *region)
{
	struct watcher *w = opaque;

	for (unsigned int i = 0; i < w->n; i++) {
		if (w->mapped[i] == region->gpa) {
			w->mapped[i] = w->mapped[--w->n];
			return;
		}
	}
	cr_assert(false, "unmapped what was not mapped");
}

static int watcher_batch(void *opaque, struct err *e)
{
	struct watcher *w = opaque;

	w->batches++;
	if (w->refuse != AT_BATCH)
		return 0;
	w->refuse = NEVER; /* the undo goes through */
	return err_set(e, -EIO, "batch refused");
}

static const struct gmem_listener_ops watcher_ops = {
	.name = "watcher", .map = watcher_map, .unmap = watcher_unmap, .batch_end = watcher_batch};

static bool sees(const struct watcher *w, uint64_t gpa)
{
	for (unsigned int i = 0; i < w->n; i++) {
		if (w->mapped[i] == gpa)
			return true;
	}
	return false;
}

/* Until the map is destroyed, which may be after the test's own frame is gone. */
static void listen(struct watcher *w)
{
	w->listener.ops = &watcher_ops;
	w->listener.opaque = w;
	cr_assert_eq(gmem_listen(gmem, &w->listener, &err), 0);
}

/* Remove 0x10, add 0x20 and 0x30 (in MiB), keep 0. */
static int change(void)
{
	struct gmem_region_config a = ram("a", 0x20 * MiB, MiB), b = ram("b", 0x30 * MiB, MiB);

	cr_assert_eq(gmem_begin(gmem, &err), 0);
	cr_assert_eq(gmem_remove(gmem, 0x10 * MiB, &err), 0);
	cr_assert_eq(gmem_add(gmem, &b, &err), 0);
	cr_assert_eq(gmem_add(gmem, &a, &err), 0);
	return gmem_commit(gmem, &err);
}

Test(gmem, a_change_reaches_every_listener)
{
	static struct watcher w[3];

	add_ram(0, MiB);
	add_ram(0x10 * MiB, MiB);
	for (unsigned int i = 0; i < 3; i++)
		listen(&w[i]);
	cr_assert_eq(w[2].n, 2, "registering replays the present map");
	cr_assert_eq(change(), 0);
	for (unsigned int i = 0; i < 3; i++) {
		cr_assert_eq(w[i].n, 3);
		cr_assert(sees(&w[i], 0) && sees(&w[i], 0x20 * MiB) && sees(&w[i], 0x30 * MiB));
		cr_assert_eq(w[i].batches, 2);
	}
	cr_assert_null(gmem_host(gmem, 0x10 * MiB, 1, false));
	cr_assert_not_null(gmem_host(gmem, 0x20 * MiB, 1, false));
	gmem_unlisten(gmem, &w[1].listener);
	cr_assert_eq(w[1].n, 0, "removal replays unmaps");
	gmem_destroy(gmem);
	gmem = NULL;
	cr_assert_eq(w[0].n + w[2].n, 0, "destroy tells the rest");
}

static void refused_in(unsigned int position, enum refusal how, int code)
{
	static struct watcher w[3];
	void *before;

	add_ram(0, MiB);
	add_ram(0x10 * MiB, MiB);
	before = gmem_host(gmem, 0x10 * MiB, 1, false);
	for (unsigned int i = 0; i < 3; i++)
		listen(&w[i]);
	w[position].refuse = how;
	cr_assert_eq(change(), code);
	cr_assert_not_null(strstr(err.text, "watcher: "));
	for (unsigned int i = 0; i < 3; i++) {
		cr_assert_eq(w[i].n, 2, "listener %u", i);
		cr_assert(sees(&w[i], 0) && sees(&w[i], 0x10 * MiB), "listener %u", i);
		if (i > position)
			cr_assert_eq(w[i].maps, 2, "later listeners were not asked");
	}
	cr_assert_eq(gmem_host(gmem, 0x10 * MiB, 1, false), before);
	cr_assert_null(gmem_host(gmem, 0x20 * MiB, 1, false));
	w[position].refuse = NEVER;
	cr_assert_eq(change(), 0, "the same change is possible later");
}

Test(gmem, a_refused_map_in_first_position_changes_nothing)
{
	refused_in(0, AT_MAP, -ENOSPC);
}

Test(gmem, a_refused_map_in_the_middle_changes_nothing)
{
	refused_in(1, AT_MAP, -ENOSPC);
}

Test(gmem, a_refused_map_in_last_position_changes_nothing)
{
	refused_in(2, AT_MAP, -ENOSPC);
}

Test(gmem, a_refused_batch_in_first_position_changes_nothing)
{
	refused_in(0, AT_BATCH, -EIO);
}

Test(gmem, a_refused_batch_in_last_position_changes_nothing)
{
	refused_in(2, AT_BATCH, -EIO);
}

Test(gmem, a_listener_that_refuses_the_present_map_is_not_registered)
{
	static struct watcher w = {.refuse = AT_MAP};

	add_ram(0, MiB);
	add_ram(0x30 * MiB, MiB);
	w.listener.ops = &watcher_ops;
	w.listener.opaque = &w;
	cr_assert_eq(gmem_listen(gmem, &w.listener, &err), -ENOSPC);
	cr_assert_eq(w.n, 0);
	w.refuse = NEVER;
	add_ram(0x50 * MiB, MiB);
	cr_assert_eq(w.n, 0);
}

Test(gmem, one_region_replaces_another_in_one_transaction)
{
	struct gmem_region_config c = ram("new", 0, 2 * MiB);
	static struct watcher w;

	add_ram(0, MiB);
	listen(&w);
	cr_assert_eq(gmem_begin(gmem, &err), 0);
	cr_assert_eq(gmem_remove(gmem, 0, &err), 0);
	cr_assert_eq(gmem_remove(gmem, 0, &err), -ENOENT);
	cr_assert_eq(gmem_add(gmem, &c, &err), 0);
	cr_assert_eq(gmem_commit(gmem, &err), 0);
	cr_assert_eq(w.n, 1);
	cr_assert_eq(gmem_contiguous(gmem, 0), 2 * MiB);
}

Test(gmem, two_transactions_at_once_are_refused)
{
	cr_assert_eq(gmem_begin(gmem, &err), 0);
	cr_assert_eq(gmem_begin(gmem, &err), -EBUSY);
	gmem_abort(gmem);
	cr_assert_eq(gmem_begin(gmem, &err), 0);
	gmem_abort(gmem);
}

Test(gmem, removed_memory_stays_readable_until_quiesce)
{
	char *p;

	add_ram(0, MiB);
	p = gmem_host(gmem, 0, MiB, true);
	p[100] = 7;
	cr_assert_eq(gmem_begin(gmem, &err), 0);
	cr_assert_eq(gmem_remove(gmem, 0, &err), 0);
	cr_assert_eq(gmem_commit(gmem, &err), 0);
	cr_assert_null(gmem_host(gmem, 0, 1, false));
	cr_assert_eq(p[100], 7);
	gmem_quiesce(gmem);
	/* mincore fails where nothing is mapped. */
	cr_assert_eq(mincore(p, 4096, &(unsigned char){0}), -1);
}

static void remove_at(uint64_t gpa)
{
	cr_assert_eq(gmem_begin(gmem, &err), 0, "%s", err.text);
	cr_assert_eq(gmem_remove(gmem, gpa, &err), 0, "%s", err.text);
	cr_assert_eq(gmem_commit(gmem, &err), 0, "%s", err.text);
}

static bool is_resident(void *p)
{
	unsigned char in;

	cr_assert_eq(mincore(p, 4096, &in), 0);
	return in & 1;
}

static void comes_back(enum gmem_backing backing)
{
	struct gmem_region_config c = ram("unit", 8 * MiB, 2 * MiB);
	char *p;

	c.backing = backing;
	add_ram(0, MiB);
	add(&c);
	p = gmem_host(gmem, c.gpa, c.size_bytes, true);
	p[MiB] = 7;
	remove_at(c.gpa);
	cr_assert_eq(gmem_ram_bytes(gmem), MiB);
	cr_assert_eq(gmem_empty_removed(gmem), 0);
	cr_assert_not(is_resident(p + MiB), "the host has it back");
	/* A request that was in flight. */
	p[MiB] = 8;
	cr_assert_null(gmem_host(gmem, c.gpa, 1, false));
	add(&c);
	cr_assert_eq(gmem_host(gmem, c.gpa, c.size_bytes, true), p, "where it was");
	cr_assert_eq(p[MiB], 0, "and empty");
	/* One that is to be somewhere else, or of another kind, is another one. */
	remove_at(c.gpa);
	c.backing = backing == GMEM_MEMFD ? GMEM_ANONYMOUS : GMEM_MEMFD;
	add(&c);
	cr_assert_neq(gmem_host(gmem, c.gpa, c.size_bytes, true), p);
}

Test(gmem, what_was_removed_is_the_hosts_again_and_comes_back_empty_in_its_place)
{
	comes_back(GMEM_ANONYMOUS);
}

Test(gmem, what_was_removed_comes_back_from_its_memfd_too)
{
	comes_back(GMEM_MEMFD);
}

Test(gmem, one_that_could_not_come_back_can_later)
{
	struct gmem_region_config c = ram("unit", 8 * MiB, 2 * MiB);
	struct gmem_region_config overlap = ram("other", 9 * MiB, 2 * MiB);
	char *p;

	add(&c);
	p = gmem_host(gmem, c.gpa, c.size_bytes, true);
	remove_at(c.gpa);
	cr_assert_eq(gmem_begin(gmem, &err), 0);
	cr_assert_eq(gmem_add(gmem, &c, &err), 0);
	cr_assert_eq(gmem_add(gmem, &overlap, &err), -EEXIST);
	gmem_abort(gmem);
	p[0] = 1; /* it is mapped still */
	add(&overlap);
	cr_assert_eq(gmem_begin(gmem, &err), 0);
	cr_assert_eq(gmem_add(gmem, &c, &err), -EEXIST);
	gmem_abort(gmem);
	remove_at(overlap.gpa);
	add(&c);
	cr_assert_eq(gmem_host(gmem, c.gpa, c.size_bytes, true), p);
}

/* 200000 tables would be some MiB, and are refused long before. */
Test(gmem, memory_that_comes_and_goes_leaves_nothing_behind)
{
	struct gmem_region_config c = ram("unit", 8 * MiB, 2 * MiB);
	char *p;

	add_ram(0, MiB);
	add(&c);
	p = gmem_host(gmem, c.gpa, c.size_bytes, true);
	for (unsigned int i = 0; i < 5000; i++) {
		remove_at(c.gpa);
		add(&c);
	}
	cr_assert_eq(gmem_host(gmem, c.gpa, c.size_bytes, true), p);
}

Test(gmem, a_map_of_ever_new_shapes_has_an_end)
{
	unsigned int n = 0;

	while (!gmem_begin(gmem, &err)) {
		struct gmem_region_config c = ram("ever", 0, 4096);

		c.gpa = n * 4096ull;
		cr_assert_lt(n++, 10000u);
		cr_assert_eq(gmem_add(gmem, &c, &err), 0, "%s", err.text);
		cr_assert_eq(gmem_commit(gmem, &err), 0, "%s", err.text);
	}
	cr_assert_not_null(strstr(err.text, "4096 shapes"), "%s", err.text);
	gmem_quiesce(gmem);
	add_ram(64 * MiB, MiB);
}

/* --- prefault, discard, dirty --- */

static size_t resident(uint64_t gpa, size_t pages)
{
	unsigned char *in = calloc(1, pages);
	size_t n = 0;

	cr_assert_eq(mincore(gmem_host(gmem, gpa, pages * 4096, false), pages * 4096, in), 0);
	for (size_t i = 0; i < pages; i++)
		n += in[i] & 1;
	free(in);
	return n;
}

Test(gmem, prefault_touches_every_page_and_changes_none)
{
	uint32_t v = 0xfeedface, w = 0;

	add_ram(0, 4 * MiB);
	add_ram(16 * MiB, 70 * MiB);
	gmem_write(gmem, 0x2000, &v, 4);
	cr_assert_eq(gmem_prefault(gmem, 3, &err), 0, "%s", err.text);
	cr_assert_eq(resident(0, 1024), 1024);
	cr_assert_eq(resident(16 * MiB, 70 * 256), 70 * 256);
	gmem_read(gmem, 0x2000, &w, 4);
	cr_assert_eq(w, v);
}

Test(gmem, a_region_can_be_touched_as_it_comes)
{
	struct gmem_region_config c = ram("ram", 0, MiB);

	c.populate = true;
	add(&c);
	cr_assert_eq(resident(0, 256), 256u);
}

Test(gmem, discard_gives_zeroes_back)
{
	static const enum gmem_backing kinds[] = {GMEM_ANONYMOUS, GMEM_MEMFD};

	for (unsigned int i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct gmem_region_config c = ram("ram", i * 8 * MiB, 4 * MiB);
		char *p;

		c.backing = kinds[i];
		add(&c);
		p = gmem_host(gmem, c.gpa, 4 * MiB, true);
		memset(p, 0xaa, 4 * MiB);
		cr_assert_eq(gmem_discard(gmem, c.gpa + 0x1000, 0x2000), 0);
		cr_assert_eq(p[0xfff], (char)0xaa);
		cr_assert_eq(p[0x1000], 0);
		cr_assert_eq(p[0x2fff], 0);
		cr_assert_eq(p[0x3000], (char)0xaa);
	}
}

Test(gmem, discard_of_what_is_no_ram_discards_nothing)
{
	char *p;

	add_ram(0, MiB);
	p = gmem_host(gmem, 0, MiB, true);
	p[MiB - 4096] = 1;
	cr_assert_eq(gmem_discard(gmem, MiB - 4096, 8192), -EFAULT);
	cr_assert_eq(p[MiB - 4096], 1);
	cr_assert_eq(gmem_discard(gmem, 100, 4096), -EINVAL);
	cr_assert_eq(gmem_discard(gmem, 0, 100), -EINVAL);
	cr_assert_eq(gmem_discard(gmem, 0, 0), -EINVAL);
	cr_assert_eq(gmem_discard(gmem, UINT64_MAX - 4095, 8192), -EINVAL);
}

static struct {
	struct gmem_dirty dirty;
	uint64_t gpa[4], len[4];
	unsigned int n;
} tracker;

static void mark(struct gmem_dirty *dirty, uint64_t gpa, uint64_t len)
{
	cr_assert_eq(dirty, &tracker.dirty);
	tracker.gpa[tracker.n] = gpa;
	tracker.len[tracker.n++] = len;
}

Test(gmem, dirty_marks_reach_the_tracker_by_guest_address)
{
	char *p;

	add_ram(0x10 * MiB, MiB);
	p = gmem_host(gmem, 0x10 * MiB, 1, true);
	gmem_mark_dirty_host(gmem, p, 100);
	tracker.dirty.mark = mark;
	gmem_set_dirty(gmem, &tracker.dirty);
	gmem_mark_dirty_host(gmem, p + 0x100, 0x20);
	gmem_mark_dirty_host(gmem, p + MiB - 0x10, 0x1000);
	gmem_mark_dirty_host(gmem, &tracker, 100);
	cr_assert_eq(tracker.n, 2, "before tracking and outside of guest memory: nothing");
	cr_assert_eq(tracker.gpa[0], 0x10 * MiB + 0x100);
	cr_assert_eq(tracker.len[0], 0x20);
	cr_assert_eq(tracker.gpa[1], 0x11 * MiB - 0x10);
	cr_assert_eq(tracker.len[1], 0x10);
}

/* --- system calls that fail --- */

enum {
	ODD_BYTES = 0x23000, /* a length nothing else has, to tell our calls by */
};

struct failure {
	long nr;
	uint32_t second; /* argument, 0 for any */
	int error;
	enum gmem_backing backing;
	int node;
	int expect;
};

ParameterizedTestParameters(gmem, a_region_that_cannot_be_made_leaves_nothing)
{
	static struct failure failures[] = {
		{SYS_mmap, ODD_BYTES + 4096, ENOMEM, GMEM_ANONYMOUS, -1, -ENOMEM}, /* reserve */
		{SYS_mmap, ODD_BYTES, ENOMEM, GMEM_ANONYMOUS, -1, -ENOMEM},
		{SYS_mmap, ODD_BYTES, EACCES, GMEM_MEMFD, -1, -EACCES},
		{SYS_memfd_create, 0, EMFILE, GMEM_MEMFD, -1, -EMFILE},
		{SYS_ftruncate, 0, EFBIG, GMEM_MEMFD, -1, -EFBIG},
		{SYS_fcntl, F_ADD_SEALS, EPERM, GMEM_MEMFD, -1, -EPERM},
		{SYS_mbind, 0, EPERM, GMEM_MEMFD, 0, -EPERM},
		{SYS_fstatfs, 0, EIO, GMEM_FD, -1, -EIO},
		{SYS_fcntl, F_DUPFD_CLOEXEC, EMFILE, GMEM_FD, -1, -EMFILE},
	};

	return cr_make_param_array(struct failure, failures, ARRAY_SIZE(failures));
}

ParameterizedTest(struct failure *f, gmem, a_region_that_cannot_be_made_leaves_nothing)
{
	struct gmem_region_config c = ram("victim", 0, ODD_BYTES);
	int fds, fd = memfd_create("given", MFD_CLOEXEC);

	cr_assert_eq(ftruncate(fd, ODD_BYTES), 0);
	c.backing = f->backing;
	c.numa_node = f->node;
	c.fd = fd;
	fds = count_fds();
	cr_assert_eq(deny(f->nr, f->second, f->error), 0);
	cr_assert_eq(gmem_begin(gmem, &err), 0);
	cr_assert_eq(gmem_add(gmem, &c, &err), f->expect, "%d: %s", f->expect, err.text);
	cr_assert_not_null(strstr(err.text, "victim"), "%s", err.text);
	cr_assert_eq(count_fds(), fds);
	gmem_abort(gmem);
	cr_assert_eq(gmem_ram_bytes(gmem), 0);
}

Test(gmem, prefault_works_on_kernels_without_populate)
{
	add_ram(0, ODD_BYTES);
	cr_assert_eq(gmem_write(gmem, 0x3000, "x", 1), 0);
	cr_assert_eq(deny(SYS_madvise, ODD_BYTES, EINVAL), 0);
	cr_assert_eq(gmem_prefault(gmem, 1, &err), 0);
	cr_assert_eq(resident(0, ODD_BYTES / 4096), ODD_BYTES / 4096);
	cr_assert_eq(*(char *)gmem_host(gmem, 0x3000, 1, false), 'x');
}

Test(gmem, a_prefault_that_fails_says_what_there_is)
{
	add_ram(0, ODD_BYTES);
	add_ram(MiB, ODD_BYTES);
	cr_assert_eq(deny(SYS_madvise, ODD_BYTES, ENOMEM), 0);
	cr_assert_eq(gmem_prefault(gmem, 4, &err), -ENOMEM);
	cr_assert_not_null(strstr(err.text, "available"));
}

Test(gmem, a_kernel_without_numa_has_node_0)
{
	struct gmem_region_config c = ram("near", 0, MiB);

	cr_assert_eq(deny(SYS_mbind, 0, ENOSYS), 0);
	cr_assert_eq(gmem_begin(gmem, &err), 0);
	c.numa_node = 0;
	cr_assert_eq(gmem_add(gmem, &c, &err), 0);
	c.numa_node = 1;
	c.gpa = MiB;
	cr_assert_eq(gmem_add(gmem, &c, &err), -ENOSYS);
	gmem_abort(gmem);
}

/* --- threads --- */

static atomic_bool stop;

static void *look(void *opaque)
{
	uint64_t found = 0;

	(void)opaque;
	while (!atomic_load(&stop)) {
		const uint32_t *always = gmem_host(gmem, 0, 4, false);
		const uint32_t *sometimes = gmem_host(gmem, 8 * MiB, 4, false);

		if (!always || *always != 0x11111111)
			abort();
		if (sometimes) {
			found++;
			if (*sometimes)
				abort();
		}
	}
	return found ? gmem : NULL;
}

Test(gmem, lookups_go_on_while_the_map_changes)
{
	uint32_t v = 0x11111111;
	pthread_t t[2];

	add_ram(0, MiB);
	gmem_write(gmem, 0, &v, 4);
	for (unsigned int i = 0; i < 2; i++)
		cr_assert_eq(pthread_create(&t[i], NULL, look, NULL), 0);
	for (unsigned int i = 0; i < 200; i++) {
		add_ram(8 * MiB, MiB);
		sched_yield();
		cr_assert_eq(gmem_begin(gmem, &err), 0);
		cr_assert_eq(gmem_remove(gmem, 8 * MiB, &err), 0);
		cr_assert_eq(gmem_commit(gmem, &err), 0);
	}
	atomic_store(&stop, true);
	for (unsigned int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	gmem_quiesce(gmem);
}
