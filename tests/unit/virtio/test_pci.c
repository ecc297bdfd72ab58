// SPDX-License-Identifier: Apache-2.0
/* The PCI transport, driven through the buses: negotiation, registers, interrupts by MSI-X and
 * INTx, and what a careless driver gets. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/num.h"
#include "probe.h"

Test(pci, it_is_a_modern_virtio_device)
{
	struct rig r = rig_create(NULL);

	cr_assert_eq(drv_cfg_read(r.d, 0, 4), 0x106a1af4);
	cr_assert_eq(drv_cfg_read(r.d, 8, 1), 1, "revision");
	cr_assert_eq(drv_cfg_read(r.d, 0x2e, 2), 0x40 + 42);
	cr_assert_eq(drv_status(r.d), 0);
	cr_assert_eq(r.d->n_queues, QUEUES);
	cr_assert_eq(r.d->notify_multiplier, 4);
	drv_common_write(r.d, QUEUE_SELECT, 1, 2);
	cr_assert_eq(drv_common_read(r.d, QUEUE_SIZE, 2), SIZE);
	cr_assert_eq(drv_common_read(r.d, QUEUE_VECTOR, 2), 0xffff);
	cr_assert_eq(drv_common_read(r.d, QUEUE_NOTIFY_OFF, 2), 1);
	drv_common_write(r.d, QUEUE_SELECT, QUEUES, 2);
	cr_assert_eq(drv_common_read(r.d, QUEUE_SIZE, 2), 0, "no such queue");
	rig_destroy(&r);
}

/* EDK II's driver takes the number of a BAR in a capability for the index of the BAR among all. */
static unsigned int count_bars_before(struct drv *d, unsigned int bar)
{
	unsigned int n = 0;

	for (unsigned int reg = 0x10; reg < 0x10 + 4 * bar; n++)
		reg += (drv_cfg_read(d, reg, 4) & 7) == 4 ? 8 : 4;
	return n;
}

Test(pci, a_driver_that_counts_bars_finds_those_of_the_capabilities)
{
	struct rig r = rig_create(NULL);
	unsigned int caps = 0;

	for (unsigned int at = drv_cfg_read(r.d, 0x34, 1); at; at = drv_cfg_read(r.d, at + 1, 1)) {
		unsigned int id = drv_cfg_read(r.d, at, 1);
		unsigned int bar = drv_cfg_read(r.d, at + 4, 1) & 7;

		if (id != 9 && id != 0x11) /* vendor, MSI-X */
			continue;
		caps++;
		cr_assert_eq(count_bars_before(r.d, bar), bar, "capability at 0x%x", at);
	}
	cr_assert_geq(caps, 6);
	rig_destroy(&r);
}

/* Negotiation */

Test(pci, features_are_negotiated_in_64_bits)
{
	struct rig r = rig_create(NULL);
	uint64_t offered = drv_offered(r.d);

	cr_assert_eq(offered,
		     1ull << 3 | 1ull << 50 | 1ull << 28 | 1ull << 29 | 1ull << 32 | 1ull << 40);
	drv_common_write(r.d, DEVICE_FEATURE_SELECT, 2, 4);
	cr_assert_eq(drv_common_read(r.d, DEVICE_FEATURE, 4), 0);
	cr_assert(drv_negotiate(r.d, 1ull << PROBE_HIGH_FEATURE));
	cr_assert_eq(r.p->vdev.features, 1ull << PROBE_HIGH_FEATURE | 1ull << 32);
	/* They are settled now. */
	drv_common_write(r.d, DRIVER_FEATURE_SELECT, 0, 4);
	drv_common_write(r.d, DRIVER_FEATURE, 1u << PROBE_FEATURE, 4);
	cr_assert_eq(drv_common_read(r.d, DRIVER_FEATURE, 4), 0);
	cr_assert_eq(r.p->vdev.features, 1ull << PROBE_HIGH_FEATURE | 1ull << 32);
	rig_destroy(&r);
}

Test(pci, features_that_were_not_offered_are_refused)
{
	struct rig r = rig_create(NULL);

	cr_assert_not(drv_negotiate(r.d, 1ull << 5));
	drv_reset(r.d);
	cr_assert_not(drv_negotiate(r.d, 1ull << 63));
	drv_reset(r.d);
	r.p->refuse = true;
	cr_assert_not(drv_negotiate(r.d, 0));
	cr_assert_eq(r.p->vdev.features, 0);
	rig_destroy(&r);
}

Test(pci, version_1_is_mandatory)
{
	struct rig r = rig_create(NULL);

	drv_set_status(r.d, 1);
	drv_set_status(r.d, 2);
	drv_set_status(r.d, 8);
	cr_assert_eq(drv_status(r.d), 3);
	rig_destroy(&r);
}

Test(pci, access_platform_must_be_accepted_where_it_is_offered)
{
	struct guest_config config = {.platform_dma = true};
	struct rig r = rig_create(&config);

	cr_assert(drv_offered(r.d) >> F_ACCESS_PLATFORM & 1);
	cr_assert_not(drv_negotiate(r.d, 0));
	drv_reset(r.d);
	cr_assert(drv_negotiate(r.d, 1ull << F_ACCESS_PLATFORM));
	rig_destroy(&r);
}

Test(pci, driver_ok_without_features_ok_is_not_taken)
{
	struct rig r = rig_create(NULL);

	drv_setup_queue(r.d, 0, SIZE);
	drv_common_write(r.d, STATUS, 7, 1);
	turns(&r);
	cr_assert_eq(drv_status(r.d), 3);
	cr_assert_eq(r.p->q[0].starts, 0);
	rig_destroy(&r);
}

Test(pci, status_bits_can_only_be_added)
{
	struct rig r = rig_create(NULL);

	drv_start(r.d, 0, SIZE);
	drv_common_write(r.d, STATUS, 1, 1);
	cr_assert_eq(drv_status(r.d), 15);
	drv_common_write(r.d, STATUS, 0x40 | 0x30, 1);
	cr_assert_eq(drv_status(r.d), 15, "NEEDS_RESET is the device's");
	drv_common_write(r.d, STATUS, 0x80, 1);
	cr_assert_eq(drv_status(r.d), 0x8f);
	rig_destroy(&r);
}

/* Queues */

Test(pci, registers_of_an_enabled_queue_are_fixed)
{
	struct rig r = rig_create(NULL);
	uint64_t desc;

	drv_start(r.d, 0, SIZE);
	drv_common_write(r.d, QUEUE_SELECT, 0, 2);
	desc = drv_common_read(r.d, QUEUE_DESC, 8);
	drv_common_write(r.d, QUEUE_DESC, 0x1000, 8);
	drv_common_write(r.d, QUEUE_SIZE, 4, 2);
	drv_common_write(r.d, QUEUE_ENABLE, 0, 2);
	cr_assert_eq(drv_common_read(r.d, QUEUE_DESC, 8), desc);
	cr_assert_eq(drv_common_read(r.d, QUEUE_SIZE, 2), SIZE);
	cr_assert_eq(drv_common_read(r.d, QUEUE_ENABLE, 2), 1);
	request(&r, 0);
	rig_destroy(&r);
}

/* QEMU takes it, so there are drivers that make it. */
Test(pci, a_write_wider_than_its_field_is_of_that_field)
{
	struct rig r = rig_create(NULL);

	drv_common_write(r.d, STATUS, 3, 4);
	cr_assert_eq(drv_status(r.d), 3);
	cr_assert_eq(drv_common_read(r.d, QUEUE_SELECT, 2), 0);
	drv_common_write(r.d, QUEUE_SIZE, 0x70000 | SIZE / 2, 4);
	cr_assert_eq(drv_common_read(r.d, QUEUE_SIZE, 2), SIZE / 2);
	cr_assert_eq(drv_common_read(r.d, QUEUE_SIZE + 2, 2), 0xffff,
		     "the vector is another field");
	rig_destroy(&r);
}

Test(pci, sizes_that_cannot_be_are_ignored)
{
	struct rig r = rig_create(NULL);
	static const uint16_t bad[] = {0, 3, SIZE + 1, SIZE * 2, 0xffff};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		drv_common_write(r.d, QUEUE_SIZE, bad[i], 2);
		cr_assert_eq(drv_common_read(r.d, QUEUE_SIZE, 2), SIZE);
	}
	drv_common_write(r.d, QUEUE_SIZE, 1, 2);
	cr_assert_eq(drv_common_read(r.d, QUEUE_SIZE, 2), 1);
	rig_destroy(&r);
}

Test(pci, rings_outside_memory_break_the_device)
{
	struct rig r = rig_create(NULL);

	cr_assert(drv_negotiate(r.d, 0));
	drv_common_write(r.d, QUEUE_SELECT, 0, 2);
	drv_common_write(r.d, QUEUE_DESC, 1ull << 50, 8);
	drv_common_write(r.d, QUEUE_ENABLE, 1, 2);
	drv_set_status(r.d, 4);
	turns(&r);
	cr_assert_eq(drv_status(r.d), 0x4f);
	cr_assert_eq(r.p->q[0].starts, 0);
	drv_start(r.d, 0, SIZE);
	request(&r, 0);
	rig_destroy(&r);
}

/* Interrupts */

Test(pci, without_msix_the_line_follows_the_isr)
{
	struct rig r = rig_create(NULL);

	cr_assert(drv_negotiate(r.d, 0));
	for (unsigned int i = 0; i < QUEUES; i++)
		drv_setup_queue(r.d, i, SIZE);
	drv_set_status(r.d, 4);
	request(&r, 0);
	cr_assert(drv_intx(r.d));
	cr_assert_eq(drv_cfg_read(r.d, 6, 2) & 8, 8, "interrupt status");
	cr_assert_eq(drv_bar_read(r.d, r.d->isr, 1), 1);
	cr_assert_not(drv_intx(r.d));
	cr_assert_eq(drv_bar_read(r.d, r.d->isr, 1), 0);
	virtio_config_begin(&r.p->vdev);
	virtio_config_end(&r.p->vdev, true);
	cr_assert(drv_intx(r.d));
	cr_assert_eq(drv_bar_read(r.d, r.d->isr, 1), 2);
	request(&r, 0);
	drv_reset(r.d);
	cr_assert_not(drv_intx(r.d));
	rig_destroy(&r);
}

Test(pci, vectors_that_are_not_there_cannot_be_assigned)
{
	struct rig r = rig_create(NULL);

	drv_common_write(r.d, CONFIG_VECTOR, QUEUES + 1, 2);
	cr_assert_eq(drv_common_read(r.d, CONFIG_VECTOR, 2), 0xffff);
	drv_common_write(r.d, QUEUE_VECTOR, QUEUES, 2);
	cr_assert_eq(drv_common_read(r.d, QUEUE_VECTOR, 2), QUEUES);
	drv_common_write(r.d, QUEUE_VECTOR, 0x1234, 2);
	cr_assert_eq(drv_common_read(r.d, QUEUE_VECTOR, 2), 0xffff);
	rig_destroy(&r);
}

Test(pci, a_queue_without_vector_does_not_interrupt)
{
	struct rig r = rig_create(NULL);

	drv_start(r.d, 0, SIZE);
	drv_common_write(r.d, QUEUE_SELECT, 0, 2);
	drv_common_write(r.d, QUEUE_VECTOR, 0xffff, 2);
	request(&r, 0);
	for (unsigned int v = 0; v <= QUEUES; v++)
		cr_assert_eq(drv_interrupts(r.d, v), 0);
	cr_assert_not(drv_intx(r.d));
	rig_destroy(&r);
}

Test(pci, a_change_of_configuration_is_told)
{
	struct rig r = rig_create(NULL);
	uint64_t generation;

	virtio_config_begin(&r.p->vdev);
	virtio_config_end(&r.p->vdev, true);
	drv_start(r.d, 0, SIZE);
	cr_assert_eq(drv_interrupts(r.d, QUEUES), 0, "nobody was there to tell");
	generation = drv_common_read(r.d, GENERATION, 1);
	r.p->config[4] = 0x5a;
	virtio_config_begin(&r.p->vdev);
	virtio_config_end(&r.p->vdev, true);
	cr_assert_eq(drv_interrupts(r.d, QUEUES), 1);
	cr_assert_neq(drv_common_read(r.d, GENERATION, 1), generation);
	cr_assert_eq(drv_bar_read(r.d, r.d->config + 4, 4), 0x5a);
	rig_destroy(&r);
}

Test(pci, device_configuration_is_bounded)
{
	struct rig r = rig_create(NULL);

	drv_bar_write(r.d, r.d->config + 16, 0x1122334455667788, 8);
	cr_assert_eq(r.p->config[16], 0x88);
	cr_assert_eq(drv_bar_read(r.d, r.d->config + 20, 2), 0x3344);
	/* Beyond its end. */
	drv_bar_write(r.d, r.d->config + CONFIG_BYTES, ~0ull, 8);
	cr_assert_eq(drv_bar_read(r.d, r.d->config + CONFIG_BYTES, 8), 0);
	cr_assert_eq(drv_bar_read(r.d, r.d->config + 0xff8, 8), 0);
	rig_destroy(&r);
}

Test(pci, a_malformed_ring_breaks_the_device_until_it_is_reset)
{
	struct rig r = rig_create(NULL);
	unsigned int kicks;

	drv_start(r.d, 0, SIZE);
	drv_write_desc(r.d, 1, 0, 1ull << 60, 8, 0, 0);
	r.d->queues[1].avail_idx = 1;
	drv_kick(r.d, 1);
	turns(&r);
	cr_assert_eq(drv_status(r.d), 0x4f);
	cr_assert_eq(drv_interrupts(r.d, QUEUES), 1);
	cr_assert_eq(guest_log_lines(r.g), 1);
	cr_assert(strstr(guest_last_line(r.g), "queue 1"), "%s", guest_last_line(r.g));
	kicks = r.p->q[0].kicks;
	drv_notify(r.d, 0);
	turns(&r);
	cr_assert_eq(r.p->q[0].kicks, kicks, "no more kicks");
	drv_start(r.d, 0, SIZE);
	request(&r, 1);
	rig_destroy(&r);
}

/* Others */

Test(pci, registers_can_be_reached_through_config_space)
{
	struct rig r = rig_create(NULL);
	unsigned int cap = r.d->pci_cap;

	drv_cfg_write(r.d, cap + 4, DRV_BAR, 1);
	drv_cfg_write(r.d, cap + 8, r.d->common + DRV_STATUS, 4);
	drv_cfg_write(r.d, cap + 12, 1, 4);
	drv_cfg_write(r.d, cap + 16, 3, 4);
	cr_assert_eq(drv_status(r.d), 3);
	cr_assert_eq(drv_cfg_read(r.d, cap + 16, 4), 3);
	drv_cfg_write(r.d, cap + 8, r.d->common + DRV_NUM_QUEUES, 4);
	drv_cfg_write(r.d, cap + 12, 2, 4);
	cr_assert_eq(drv_cfg_read(r.d, cap + 16, 2), QUEUES);
	/* Outside the BAR, of odd length, of another BAR. */
	drv_cfg_write(r.d, cap + 8, 0x8000, 4);
	drv_cfg_write(r.d, cap + 16, 0xffff, 4);
	drv_cfg_write(r.d, cap + 8, 0xffffffff, 4);
	drv_cfg_write(r.d, cap + 12, 4, 4);
	drv_cfg_write(r.d, cap + 16, 0xffff, 4);
	drv_cfg_write(r.d, cap + 8, r.d->common + DRV_STATUS, 4);
	drv_cfg_write(r.d, cap + 12, 3, 4);
	drv_cfg_write(r.d, cap + 16, 0, 4);
	drv_cfg_write(r.d, cap + 12, 1, 4);
	drv_cfg_write(r.d, cap + 4, 1, 1);
	drv_cfg_write(r.d, cap + 16, 0, 4);
	cr_assert_eq(drv_status(r.d), 3);
	rig_destroy(&r);
}

Test(pci, any_write_to_any_register_leaves_a_device_that_can_be_reset)
{
	struct rig r = rig_create(NULL);
	static const unsigned int sizes[] = {1, 2, 4, 8};
	unsigned int seed = 1;

	for (unsigned int round = 0; round < 20000; round++) {
		unsigned int size = sizes[(unsigned int)rand_r(&seed) % 4];
		uint64_t offset = (uint64_t)rand_r(&seed) % 0x8000;
		uint64_t value = (uint64_t)rand_r(&seed) << 32 ^ (uint64_t)rand_r(&seed) << 8;

		/* Mostly the common registers, mostly small values. */
		if (round % 4)
			offset = r.d->common + offset % 64;
		if (round % 3)
			value %= 16;
		offset = align_down(offset, size);
		drv_bar_write(r.d, offset, value, size);
		(void)drv_bar_read(r.d, offset, size);
		if (round % 16 == 0)
			guest_turn(r.g);
	}
	drv_start(r.d, 0, SIZE);
	request(&r, 0);
	rig_destroy(&r);
}
