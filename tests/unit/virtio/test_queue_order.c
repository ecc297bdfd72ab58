// SPDX-License-Identifier: Apache-2.0
// The virtqueue over time: indices that wrap, interrupts and kicks only when wanted, rings that
// move behind a translation.
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include "base/num.h"
#include "queue_rig.h"

/* Indices */

Test(order, indices_wrap)
{
	struct rig *r = rig_create(true);

	for (unsigned int n = 0; n < 70000; n++) {
		offer_simple(r, (uint16_t)(n % SIZE));
		cr_assert_eq(virtq_pop(r->q, &r->chain[0]), 1);
		cr_assert_eq(r->chain[0].head, n % SIZE);
		virtq_push(r->q, &r->chain[0], n);
		cr_assert_eq(*used(r, 2), (uint16_t)(n + 1));
		cr_assert_eq(used_elem(r, n % SIZE, 1), n);
	}
	rig_destroy(r);
}

Test(order, a_restart_goes_on_where_the_queue_was)
{
	struct rig *r = rig_create(false);

	for (uint16_t i = 0; i < 3; i++) {
		offer_simple(r, i);
		cr_assert_eq(virtq_pop(r->q, &r->chain[0]), 1);
		virtq_push(r->q, &r->chain[0], 0);
	}
	cr_assert_eq(virtq_next_avail(r->q), 3);
	virtq_stop(r->q);
	cr_assert_eq(virtq_pop(r->q, &r->chain[0]), 0);
	offer_simple(r, 3);
	cr_assert_eq(virtq_start(r->q, &r->layout, 3), 0);
	cr_assert_eq(virtq_pop(r->q, &r->chain[0]), 1);
	cr_assert_eq(r->chain[0].head, 3);
	virtq_push(r->q, &r->chain[0], 0);
	cr_assert_eq(*used(r, 2), 4);
	virtq_set_next(r->q, 7);
	cr_assert_eq(virtq_next_avail(r->q), 7);
	rig_destroy(r);
}

Test(order, unpop_puts_chains_back_in_reverse)
{
	struct rig *r = rig_create(false);

	for (uint16_t i = 0; i < 3; i++)
		offer_simple(r, i);
	for (unsigned int i = 0; i < 3; i++)
		cr_assert_eq(virtq_pop(r->q, &r->chain[i]), 1);
	virtq_unpop(r->q, &r->chain[2]);
	virtq_unpop(r->q, &r->chain[1]);
	cr_assert(virtq_has_avail(r->q));
	cr_assert_eq(virtq_pop(r->q, &r->chain[1]), 1);
	cr_assert_eq(r->chain[1].head, 1);
	virtq_drop(r->q, &r->chain[0]);
	virtq_drop(r->q, &r->chain[1]);
	rig_destroy(r);
}

Test(order, staged_chains_appear_together)
{
	struct rig *r = rig_create(false);

	for (uint16_t i = 0; i < 3; i++) {
		offer_simple(r, i);
		cr_assert_eq(virtq_pop(r->q, &r->chain[i]), 1);
	}
	virtq_stage(r->q, &r->chain[0], 10);
	virtq_stage(r->q, &r->chain[1], 11);
	cr_assert_eq(*used(r, 2), 0);
	virtq_publish(r->q);
	cr_assert_eq(*used(r, 2), 2);
	cr_assert_eq(used_elem(r, 1, 1), 11);
	virtq_push(r->q, &r->chain[2], 12);
	cr_assert_eq(*used(r, 2), 3);
	rig_destroy(r);
}

/* Notifications */

static void serve(struct rig *r, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		offer_simple(r, (uint16_t)(r->avail_idx % SIZE));
		cr_assert_eq(virtq_pop(r->q, &r->chain[0]), 1);
		virtq_push(r->q, &r->chain[0], 0);
	}
	virtq_flush(r->q);
}

Test(order, an_interrupt_per_batch_unless_the_flag_says_no)
{
	struct rig *r = rig_create(false);

	virtq_flush(r->q);
	cr_assert_eq(r->notified, 0, "nothing was used");
	serve(r, 3);
	cr_assert_eq(r->notified, 1);
	virtq_flush(r->q);
	cr_assert_eq(r->notified, 1, "nothing since");
	*avail(r, 0) = 1;
	serve(r, 2);
	cr_assert_eq(r->notified, 1);
	*avail(r, 0) = 0;
	serve(r, 1);
	cr_assert_eq(r->notified, 2);
	rig_destroy(r);
}

Test(order, with_the_event_index_an_interrupt_when_it_is_passed)
{
	struct rig *r = rig_create(true);
	uint16_t *used_event = avail(r, 4 + 2 * SIZE);

	*used_event = 0;
	serve(r, 1);
	cr_assert_eq(r->notified, 1);
	/* Element 3 is wanted: 1 and 2 are not it. */
	*used_event = 3;
	serve(r, 2);
	cr_assert_eq(r->notified, 1);
	serve(r, 1);
	cr_assert_eq(r->notified, 2);
	serve(r, 1);
	cr_assert_eq(r->notified, 2);
	/* The flag means nothing here. */
	*avail(r, 0) = 1;
	*used_event = 6;
	serve(r, 5);
	cr_assert_eq(r->notified, 3);
	rig_destroy(r);
}

Test(order, staged_elements_do_not_interrupt_before_they_are_published)
{
	struct rig *r = rig_create(true);

	*avail(r, 4 + 2 * SIZE) = 1;
	serve(r, 1);
	cr_assert_eq(r->notified, 0);
	offer_simple(r, 1);
	cr_assert_eq(virtq_pop(r->q, &r->chain[0]), 1);
	virtq_stage(r->q, &r->chain[0], 0);
	virtq_flush(r->q);
	cr_assert_eq(r->notified, 0);
	virtq_publish(r->q);
	virtq_flush(r->q);
	cr_assert_eq(r->notified, 1);
	rig_destroy(r);
}

Test(order, kicks_are_suppressed_by_flag_or_event_index)
{
	struct rig *r = rig_create(false);

	virtq_kick_disable(r->q);
	cr_assert_eq(*used(r, 0), 1);
	cr_assert_not(virtq_kick_enable(r->q));
	cr_assert_eq(*used(r, 0), 0);
	rig_destroy(r);

	r = rig_create(true);
	serve(r, 3);
	virtq_kick_disable(r->q);
	cr_assert_eq(*used(r, 0), 0);
	cr_assert_not(virtq_kick_enable(r->q));
	cr_assert_eq(*used(r, 4 + 8 * SIZE), 3, "avail_event");
	rig_destroy(r);
}

Test(order, kick_enable_sees_what_came_meanwhile)
{
	struct rig *r = rig_create(true);

	cr_assert_eq(virtq_pop(r->q, &r->chain[0]), 0);
	cr_assert_not(virtq_has_avail(r->q));
	offer_simple(r, 0);
	cr_assert(virtq_kick_enable(r->q));
	cr_assert(virtq_has_avail(r->q));
	rig_destroy(r);
}

/* Behind a translation */

struct mmu {
	_Atomic uint64_t base; /* iova base + x is gpa x, by pages in reverse below `reverse` */
	uint64_t reverse;      /* pages [0, reverse) of low memory appear in reverse order */
	_Atomic bool off;
	_Atomic unsigned int faults;
};

static int mmu_translate(void *opaque, uint64_t iova, uint64_t len, enum dma_dir dir, uint64_t *gpa,
			 uint64_t *contiguous)
{
	struct mmu *m = opaque;
	uint64_t x = iova - m->base;

	(void)dir;
	if (m->off || iova < m->base || x >= m->reverse * 4096)
		return -EFAULT;
	*gpa = (m->reverse - 1 - x / 4096) * 4096 + x % 4096;
	*contiguous = MIN(len, 4096 - x % 4096);
	return 0;
}

static void mmu_fault(void *opaque, uint32_t requester, uint64_t iova, uint64_t len,
		      enum dma_dir dir)
{
	struct mmu *m = opaque;

	(void)requester;
	(void)iova;
	(void)len;
	(void)dir;
	m->faults++;
}

static const struct dma_space_ops mmu_ops = {.translate = mmu_translate, .fault = mmu_fault};

enum { MMU_BASE = 1 << 30, MMU_SIZE = 1024, MMU_PAGES = 16384 };

/* Where gpa is reached now. */
static uint64_t iova_of(struct mmu *m, uint64_t gpa)
{
	return m->base + (m->reverse - 1 - gpa / 4096) * 4096 + gpa % 4096;
}

/* Guest memory by iova, as the driver sees its virtually contiguous rings. */
static void mmu_copy(struct rig *r, struct mmu *m, uint64_t iova, void *buf, size_t len, bool write)
{
	for (size_t i = 0; i < len; i++) {
		uint64_t gpa = 0, n;

		cr_assert_eq(mmu_translate(m, iova + i, 1, DMA_TO_DEVICE, &gpa, &n), 0);
		uint8_t *p = guest_ptr(r->g, gpa, 1);

		if (write)
			*p = ((uint8_t *)buf)[i];
		else
			((uint8_t *)buf)[i] = *p;
	}
}

/* Rings of 1024 entries whose pages are nowhere contiguous; one chain through each slot, with an
 * indirect table that crosses a page. */
static void translated_round(struct rig *r, struct mmu *m, uint64_t ring, unsigned int n)
{
	struct virtq_layout l = r->layout;

	for (unsigned int i = 0; i < n; i++) {
		uint16_t head = (uint16_t)(r->avail_idx % MMU_SIZE), idx;
		uint64_t table = ring + 0x20000 + 4096 - 16;
		uint64_t words[4] = {ring + 0x30000 + 4000, 200 | (uint64_t)NEXT << 32 | 1ull << 48,
				     ring + 0x40000, 8 | (uint64_t)WRITE << 32};
		uint64_t d[2] = {table, 32 | (uint64_t)INDIRECT << 32};
		uint32_t elem[2];

		mmu_copy(r, m, table, words, sizeof(words), true);
		mmu_copy(r, m, l.desc_iova + 16u * head, d, 16, true);
		mmu_copy(r, m, l.avail_iova + 4 + 2u * head, &head, 2, true);
		idx = ++r->avail_idx;
		mmu_copy(r, m, l.avail_iova + 2, &idx, 2, true);
		cr_assert_eq(virtq_pop(r->q, &r->chain[0]), 1, "%s", r->text);
		cr_assert_eq(r->chain[0].head, head);
		cr_assert_eq(r->chain[0].n_out, 2, "its data crosses a page");
		cr_assert_eq(r->chain[0].out_bytes, 200);
		virtq_push(r->q, &r->chain[0], idx);
		mmu_copy(r, m, l.used_iova + 2, &idx, 2, false);
		cr_assert_eq(idx, r->avail_idx);
		mmu_copy(r, m, l.used_iova + 4 + 8u * head, elem, 8, false);
		cr_assert_eq(elem[0], head);
		cr_assert_eq(elem[1], idx);
	}
}

static struct rig *mmu_rig(struct mmu *m, uint64_t *ring)
{
	struct guest_config config = {.dma_ops = &mmu_ops, .dma_opaque = m};
	struct rig *r;

	*m = (struct mmu){.base = MMU_BASE, .reverse = MMU_PAGES};
	r = rig_create_sized(true, MMU_SIZE, &config);
	/* An iova range of 512 KiB over memory nobody else uses. */
	*ring = iova_of(m, 40 << 20);
	r->layout.desc_iova = *ring;
	r->layout.avail_iova = *ring + 0x8000 - 6;
	r->layout.used_iova = *ring + 0x10000 - 4; /* an element straddles each page */
	cr_assert_eq(virtq_start(r->q, &r->layout, 0), 0);
	return r;
}

Test(order, rings_need_not_be_contiguous_behind_a_translation)
{
	struct mmu m;
	uint64_t ring;
	struct rig *r = mmu_rig(&m, &ring);

	translated_round(r, &m, ring, 2 * MMU_SIZE + 5);
	cr_assert_eq(m.faults, 0);
	rig_destroy(r);
}

Test(order, rings_are_found_again_when_the_address_space_changes)
{
	struct mmu m;
	uint64_t ring;
	struct rig *r = mmu_rig(&m, &ring);
	uint8_t *old;
	uint8_t bytes[0x14000];

	translated_round(r, &m, ring, 10);
	/* The same iovas lead to other memory from now on; its contents move along. */
	old = guest_ptr(r->g, 0, 1);
	mmu_copy(r, &m, ring, bytes, sizeof(bytes), false);
	m.base -= 256 * 4096;
	mmu_copy(r, &m, ring, bytes, sizeof(bytes), true);
	dma_space_drain(guest_dma(r->g));
	translated_round(r, &m, ring, 10);
	cr_assert_eq(r->broken, 0);
	cr_assert_not_null(old);
	rig_destroy(r);
}

Test(order, rings_that_were_unmapped_break_the_queue)
{
	struct mmu m;
	uint64_t ring;
	struct rig *r = mmu_rig(&m, &ring);

	translated_round(r, &m, ring, 1);
	m.off = true;
	dma_space_drain(guest_dma(r->g));
	cr_assert_eq(virtq_pop(r->q, &r->chain[0]), -EPROTO);
	cr_assert(strstr(r->text, "not mapped any more"), "%s", r->text);
	rig_destroy(r);
}
