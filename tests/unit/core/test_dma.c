/* SPDX-License-Identifier: Apache-2.0 */
/* DMA of emulated devices: permissions, segments, faults, and drains that wait for open
 * brackets. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/num.h"
#include "core/dma.h"
#include "ram.h"

static struct gmem *gmem;
static struct dma_space *space;
static struct dma_port port;
static struct err err;

static void set_up(void)
{
	cr_assert_eq(gmem_create(&gmem, NULL, &err), 0);
	add_ram(gmem, 0, MiB, 0, GMEM_ANONYMOUS);
	add_ram(gmem, 2 * MiB, MiB, GMEM_READONLY, GMEM_ANONYMOUS);
	add_ram(gmem, 4 * MiB, MiB, GMEM_NO_DMA, GMEM_ANONYMOUS);
	cr_assert_eq(dma_space_create(&space, gmem, NULL, NULL, &err), 0);
	dma_port_init(&port, space, 0x10);
}

static void tear_down(void)
{
	dma_port_done(&port);
	dma_space_destroy(space);
	gmem_destroy(gmem);
}

TestSuite(dma, .init = set_up, .fini = tear_down);

static int map(uint64_t iova, uint64_t len, enum dma_dir dir, struct iovec *iov, unsigned int max)
{
	struct dma_bracket b;
	int n;

	dma_open(&port, &b);
	n = dma_map(&port, iova, len, dir, iov, max);
	dma_close(&port, &b);
	return n;
}

Test(dma, identity_is_guest_memory_with_its_permissions)
{
	struct iovec iov[2];

	cr_assert_eq(map(0x1000, 0x2000, DMA_FROM_DEVICE, iov, 2), 1);
	cr_assert_eq(iov[0].iov_base, gmem_host(gmem, 0x1000, 1, true));
	cr_assert_eq(iov[0].iov_len, 0x2000);
	cr_assert_eq(map(2 * MiB, 8, DMA_TO_DEVICE, iov, 2), 1);
	cr_assert_eq(map(2 * MiB, 8, DMA_FROM_DEVICE, iov, 2), -EFAULT, "ROM is not written");
	cr_assert_eq(map(4 * MiB, 8, DMA_TO_DEVICE, iov, 2), -EFAULT, "closed to DMA");
	cr_assert_eq(map(MiB - 4, 8, DMA_TO_DEVICE, iov, 2), -EFAULT, "a hole behind it");
	cr_assert_eq(map(0, 0, DMA_TO_DEVICE, iov, 2), -EINVAL);
	cr_assert_eq(map(UINT64_MAX - 3, 8, DMA_TO_DEVICE, iov, 2), -EINVAL);
}

/* A translation: pages of 4 KiB, iova page i is gpa page of[i], 0 for none. */
static struct {
	_Atomic uint64_t of[8];
	atomic_uint faults;
	_Atomic uint64_t fault_iova;
	_Atomic uint32_t fault_requester;
} iommu;

static int translate(void *opaque, uint64_t iova, uint64_t len, enum dma_dir dir, uint64_t *gpa,
		     uint64_t *contiguous)
{
	uint64_t page = iova / 4096, to = page < 8 ? atomic_load(&iommu.of[page]) : 0;

	(void)opaque;
	(void)dir;
	if (!to)
		return -EFAULT;
	*gpa = to * 4096 + iova % 4096;
	*contiguous = MIN(len, 4096 - iova % 4096);
	return 0;
}

static void fault(void *opaque, uint32_t requester, uint64_t iova, uint64_t len, enum dma_dir dir)
{
	(void)opaque;
	(void)len;
	(void)dir;
	iommu.faults++;
	iommu.fault_iova = iova;
	iommu.fault_requester = requester;
}

static const struct dma_space_ops iommu_ops = {.translate = translate, .fault = fault};

static void translated(void)
{
	dma_port_done(&port);
	dma_space_destroy(space);
	cr_assert_eq(dma_space_create(&space, gmem, &iommu_ops, NULL, &err), 0);
	dma_port_init(&port, space, 0x10);
}

Test(dma, a_translation_gives_segments_and_joins_neighbours)
{
	struct iovec iov[4];

	translated();
	iommu.of[0] = 5;
	iommu.of[1] = 6; /* next to page 5 */
	iommu.of[2] = 3;
	cr_assert_eq(map(0x800, 0x2000, DMA_FROM_DEVICE, iov, 4), 2);
	cr_assert_eq(iov[0].iov_base, gmem_host(gmem, 0x5800, 1, true));
	cr_assert_eq(iov[0].iov_len, 0x1800);
	cr_assert_eq(iov[1].iov_base, gmem_host(gmem, 0x3000, 1, true));
	cr_assert_eq(iov[1].iov_len, 0x800);
	cr_assert_eq(map(0x800, 0x2000, DMA_FROM_DEVICE, iov, 1), -E2BIG);
	cr_assert_eq(iommu.faults, 0);
}

Test(dma, identity_for_a_while_is_as_without_a_translation)
{
	struct iovec iov;

	translated();
	iommu.of[1] = 5;
	dma_space_set_identity(space, true);
	dma_space_drain(space);
	for (unsigned int i = 0; i < 2; i++) {
		cr_assert_eq(map(0x1000, 8, DMA_FROM_DEVICE, &iov, 1), 1);
		cr_assert_eq(iov.iov_base, gmem_host(gmem, 0x1000, 8, true));
	}
	dma_space_set_identity(space, false);
	dma_space_drain(space);
	cr_assert_eq(map(0x1000, 8, DMA_FROM_DEVICE, &iov, 1), 1);
	cr_assert_eq(iov.iov_base, gmem_host(gmem, 0x5000, 8, true));
	cr_assert_eq(map(0x3000, 8, DMA_FROM_DEVICE, &iov, 1), -EFAULT);
}

Test(dma, a_fault_names_the_requester_and_the_place)
{
	struct iovec iov[4];

	translated();
	iommu.of[0] = 5;
	cr_assert_eq(map(0x800, 0x2000, DMA_TO_DEVICE, iov, 4), -EFAULT);
	cr_assert_eq(iommu.faults, 1);
	cr_assert_eq(iommu.fault_iova, 0x1000);
	cr_assert_eq(iommu.fault_requester, 0x10);
}

Test(dma, a_translation_to_nowhere_is_a_fault)
{
	struct iovec iov[4];

	translated();
	iommu.of[0] = 0x12345678;
	cr_assert_eq(map(0, 16, DMA_TO_DEVICE, iov, 4), -EFAULT);
	cr_assert_eq(iommu.faults, 1);
}

Test(dma, copies_take_any_number_of_segments)
{
	char out[0x7000], in[sizeof(out)];

	translated();
	/* Descending pages never join: more segments than one round of a copy has. */
	for (unsigned int i = 0; i < 8; i++)
		iommu.of[i] = 20 - 2 * i;
	for (unsigned int i = 0; i < sizeof(out); i++)
		out[i] = (char)(i * 7);
	cr_assert_eq(dma_write(&port, 0x123, out, sizeof(out)), 0);
	cr_assert_eq(dma_read(&port, 0x123, in, sizeof(in)), 0);
	cr_assert_eq(memcmp(in, out, sizeof(in)), 0);
	cr_assert_eq(memcmp(gmem_host(gmem, 18 * 4096, 1, false), out + 0x1000 - 0x123, 16), 0);
	cr_assert_eq(dma_read(&port, 0x8000 - 4, in, 8), -EFAULT);
	cr_assert(list_empty(&port.open), "an error closes the bracket too");
}

static struct {
	struct gmem_dirty dirty;
	uint64_t gpa[4], len[4];
	unsigned int n;
} tracker;

static void mark(struct gmem_dirty *dirty, uint64_t gpa, uint64_t len)
{
	(void)dirty;
	tracker.gpa[tracker.n] = gpa;
	tracker.len[tracker.n++] = len;
}

Test(dma, only_what_was_written_becomes_dirty)
{
	struct dma_bracket b;
	struct iovec iov[2];

	tracker.dirty.mark = mark;
	gmem_set_dirty(gmem, &tracker.dirty);
	dma_open(&port, &b);
	cr_assert_eq(dma_map(&port, 0x1000, 0x100, DMA_FROM_DEVICE, &iov[0], 1), 1);
	cr_assert_eq(dma_map(&port, 0x8000, 0x100, DMA_FROM_DEVICE, &iov[1], 1), 1);
	dma_written(&port, iov, 2, 0x180);
	dma_close(&port, &b);
	cr_assert_eq(tracker.n, 2);
	cr_assert_eq(tracker.gpa[0], 0x1000);
	cr_assert_eq(tracker.len[0], 0x100);
	cr_assert_eq(tracker.gpa[1], 0x8000);
	cr_assert_eq(tracker.len[1], 0x80);
}

Test(dma, a_drain_with_nothing_open_returns_and_ends_a_generation)
{
	uint64_t before = dma_generation(&port);

	dma_space_drain(space);
	cr_assert_neq(dma_generation(&port), before);
}

static atomic_bool drained;

static void *drain(void *opaque)
{
	(void)opaque;
	dma_space_drain(space);
	atomic_store(&drained, true);
	return NULL;
}

/* dma_space_drain has begun to wait when the generation has changed and its wish is noted. */
static void await_waiting(struct dma_port *p)
{
	while (!(atomic_load(&p->oldest) >> 63))
		sched_yield();
}

Test(dma, a_drain_waits_for_open_brackets_but_not_for_later_ones)
{
	struct dma_bracket old[2], later;
	pthread_t t;

	dma_open(&port, &old[0]);
	dma_open(&port, &old[1]);
	pthread_create(&t, NULL, drain, NULL);
	await_waiting(&port);
	dma_open(&port, &later);
	dma_close(&port, &old[1]); /* out of order */
	cr_assert_not(atomic_load(&drained));
	dma_close(&port, &old[0]);
	pthread_join(t, NULL); /* though `later` is open */
	cr_assert(atomic_load(&drained));
	dma_close(&port, &later);
}

Test(dma, a_drain_waits_for_every_port)
{
	struct dma_port other;
	struct dma_bracket a, b;
	pthread_t t;

	dma_port_init(&other, space, 0x18);
	dma_open(&port, &a);
	dma_open(&other, &b);
	pthread_create(&t, NULL, drain, NULL);
	await_waiting(&port);
	dma_close(&port, &a);
	await_waiting(&other);
	cr_assert_not(atomic_load(&drained));
	dma_close(&other, &b);
	pthread_join(t, NULL);
	dma_port_done(&other);
}

/* The promise: after unmap and drain, no device touches the page. Each round maps a fresh page,
 * lets the devices work, unmaps, drains, and then owns the memory alone: a late write is a data
 * race, and shows as a changed value too. */
static atomic_bool stop;

static void *device(void *opaque)
{
	struct dma_port own;
	uint64_t done = 0;

	dma_port_init(&own, space, (uint32_t)(uint64_t)opaque);
	while (!atomic_load(&stop)) {
		struct dma_bracket b;
		struct iovec iov;

		dma_open(&own, &b);
		if (dma_map(&own, 16 * (uint64_t)opaque, 8, DMA_FROM_DEVICE, &iov, 1) == 1) {
			*(volatile uint64_t *)iov.iov_base += 1;
			done++;
		}
		dma_close(&own, &b);
	}
	dma_port_done(&own);
	return (void *)done;
}

Test(dma, after_a_drain_nobody_touches_what_was_unmapped)
{
	pthread_t t[2];
	uint64_t *page = NULL;
	void *done;

	translated();
	for (uint64_t i = 0; i < 2; i++)
		cr_assert_eq(pthread_create(&t[i], NULL, device, (void *)i), 0);
	for (unsigned int round = 0; round < 200; round++) {
		uint64_t gpn = 8 + round % 4;

		page = gmem_host(gmem, gpn * 4096, 4096, true);
		atomic_store(&iommu.of[0], gpn);
		for (unsigned int i = 0; i < round % 7; i++)
			sched_yield();
		atomic_store(&iommu.of[0], 0);
		dma_space_drain(space);
		page[0] = round;
		page[2] = round;
		for (unsigned int i = 0; i < 50; i++)
			cr_assert(((volatile uint64_t *)page)[0] == round &&
				  ((volatile uint64_t *)page)[2] == round);
	}
	atomic_store(&stop, true);
	for (unsigned int i = 0; i < 2; i++)
		pthread_join(t[i], &done);
}

Test(dma, a_port_goes_while_another_thread_drains)
{
	pthread_t t;
	struct dma_bracket b;

	for (unsigned int i = 0; i < 100; i++) {
		struct dma_port p;

		dma_port_init(&p, space, 1);
		dma_open(&p, &b);
		atomic_store(&drained, false);
		pthread_create(&t, NULL, drain, NULL);
		if (i % 2)
			await_waiting(&p);
		dma_close(&p, &b);
		dma_port_done(&p);
		pthread_join(t, NULL);
	}
}
