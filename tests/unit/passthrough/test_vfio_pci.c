/* SPDX-License-Identifier: Apache-2.0 */
/* A function of the guest on a device that is memory: what the guest does, and what reaches the
 * device. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "base/fd.h"
#include "base/le.h"
#include "base/num.h"
#include "core/loop.h"
#include "core/state.h"
#include "fake_vfio.h"
#include "pci_host.h"

enum {
	GSIS = 128,
	SLOT = 3,
	MAX_MAPS = 8,
	/* where the device has its capabilities */
	PM = 0x40,
	MSI = 0x50,
	MSIX = 0x70,
	EXP = 0x80,
	VPD = 0xc0,
	SRIOV = 0x100,
	AER = 0x140,
	TABLE = 0x3000, /* in BAR 0 */
	PBA = 0x3800,
	VECTORS = 8,
};

static struct fake_vfio fake;
static struct pci_host pci;
static struct loop *loop;
static struct device *dev;
static struct err err;
static struct log silent;
static int gsi_fd[GSIS], gsi_resample[GSIS];
static struct {
	uint64_t gpa, bytes;
} maps[MAX_MAPS];
static enum vfio_event events[8];
static unsigned int n_events;

static int set_irqfd(void *opaque, uint32_t gsi, int fd, int resample_fd, bool on)
{
	(void)opaque;
	cr_assert_eq(gsi_fd[gsi], on ? -1 : fd);
	gsi_fd[gsi] = on ? fd : -1;
	gsi_resample[gsi] = on ? resample_fd : -1;
	return 0;
}

static const struct irq_chip_ops chip_ops = {.set_routes = accept_routes,
					     .set_irqfd = set_irqfd,
					     .set_line = accept_line,
					     .pins = PINS,
					     .max_gsi = GSIS};

static int host_map(void *opaque, uint64_t gpa, void *hva, uint64_t bytes, struct err *e)
{
	(void)opaque;
	(void)hva;
	for (unsigned int i = 0; i < MAX_MAPS; i++) {
		if (maps[i].bytes)
			continue;
		maps[i].gpa = gpa;
		maps[i].bytes = bytes;
		return 0;
	}
	return err_set(e, -ENOSPC, "no slot");
}

static void host_unmap(void *opaque, uint64_t gpa)
{
	(void)opaque;
	for (unsigned int i = 0; i < MAX_MAPS; i++) {
		if (maps[i].bytes && maps[i].gpa == gpa) {
			maps[i].bytes = 0;
			return;
		}
	}
	cr_assert_fail("unmapped what was not mapped");
}

static uint64_t mapped(uint64_t gpa)
{
	for (unsigned int i = 0; i < MAX_MAPS; i++) {
		if (maps[i].bytes && maps[i].gpa == gpa)
			return maps[i].bytes;
	}
	return 0;
}

static unsigned int n_mapped(void)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < MAX_MAPS; i++)
		n += maps[i].bytes != 0;
	return n;
}

static void on_event(void *opaque, struct device *d, enum vfio_event event, const char *text)
{
	(void)opaque;
	(void)d;
	(void)text;
	if (n_events < ARRAY_SIZE(events))
		events[n_events++] = event;
}

static void put(unsigned int at, uint8_t id, uint8_t next)
{
	fake.config[at] = id;
	fake.config[at + 1] = next;
}

/* An NVMe-like device: BAR 0 with MSI-X inside, BAR 2 for ports, BAR 4 64-bit prefetchable. */
static void describe(void)
{
	uint8_t *c = fake.config;

	fake_vfio_init(&fake);
	store_le16(&c[6], 0x0010);
	c[0x34] = PM;
	c[0x3d] = 1;
	fake.bar_bytes[0] = 16 * KiB;
	fake.bar_maps[0] = true;
	store_le32(&c[0x10], 0xfe000004);
	fake.bar_bytes[2] = 32;
	store_le32(&c[0x18], 0xc001);
	fake.bar_bytes[4] = 16 * GiB;
	fake.bar_maps[4] = true;
	store_le32(&c[0x20], 0x0000000c);
	put(PM, 0x01, MSI);
	store_le16(&c[PM + 2], 0xfe03);
	put(MSI, 0x05, MSIX);
	store_le16(&c[MSI + 2], 0x0082); /* 2 vectors, 64-bit */
	put(MSIX, 0x11, EXP);
	store_le16(&c[MSIX + 2], VECTORS - 1);
	store_le32(&c[MSIX + 4], TABLE);
	store_le32(&c[MSIX + 8], PBA);
	put(EXP, 0x10, VPD);
	store_le16(&c[EXP + 2], 0x0002);
	store_le32(&c[EXP + 4], 0x10008000);
	store_le16(&c[EXP + 8], 0x2810);
	put(VPD, 0x03, 0);
	store_le32(&c[SRIOV], 0x0010 | 1 << 16 | (unsigned int)AER << 20);
	store_le32(&c[AER], 0x0001 | 2 << 16);
	fake.irqs[VFIO_PCI_INTX_IRQ_INDEX] = 1;
	fake.irqs[VFIO_PCI_MSI_IRQ_INDEX] = 2;
	fake.irqs[VFIO_PCI_MSIX_IRQ_INDEX] = VECTORS;
	fake.irqs[VFIO_PCI_ERR_IRQ_INDEX] = 1;
	fake.irqs[VFIO_PCI_REQ_IRQ_INDEX] = 1;
}

static void build_machine(void)
{
	struct loop_config lc = {.log = &silent, .name = "test"};

	for (unsigned int i = 0; i < GSIS; i++)
		gsi_fd[i] = gsi_resample[i] = -1;
	pci_host_init(&pci, &chip_ops, &silent);
	cr_assert_eq(loop_create(&loop, &lc, &err), 0);
}

/* Told before the device can do anything. */
static unsigned int starts;

static void on_start(void *opaque)
{
	(void)opaque;
	cr_assert(!(load_le16(&fake.config[4]) & 4));
	starts++;
}

static bool want_rom, fresh;

static int create_device(enum vfio_on_error on_error)
{
	const struct pci_addr addr = {.slot = SLOT};
	struct device_env env = {
		.log = &silent, .mmio = pci.mmio, .pio = pci.pio, .irq = pci.chip, .loop = loop};
	struct vfio_pci_config config = {.name = "nic0",
					 .bdf = "0000:01:10.0",
					 .group_fd = -1,
					 .bus = pci_root_bus(pci.root),
					 .addr = &addr,
					 .on_error = on_error,
					 .rom = want_rom,
					 .fresh = fresh,
					 .starts = on_start,
					 .event = on_event};
	struct vfio_file file = {.ops = &fake_vfio_ops, .opaque = &fake, .fd = -1};
	struct vfio_host host = {.map = host_map, .unmap = host_unmap};

	return vfio_pci_create_on(&dev, &env, &config, &file, &host, &err);
}

static void set_up(void)
{
	describe();
	build_machine();
	cr_assert_eq(create_device(VFIO_ON_ERROR_LOG), 0, "%s", err.text);
	cr_assert_eq(pci_root_assign(pci.root, &err), 0, "%s", err.text);
	loop_iterate(loop, false);
}

static void tear_down(void)
{
	if (dev)
		dev->ops->destroy(dev);
	cr_assert_eq(n_mapped(), 0);
	for (unsigned int i = 0; i < GSIS; i++)
		cr_assert_eq(gsi_fd[i], -1);
	for (unsigned int i = 0; i < VFIO_PCI_NUM_IRQS; i++)
		cr_assert_eq(fake.enabled[i], 0, "interrupts of kind %u are on", i);
	loop_destroy(loop);
	pci_host_done(&pci);
}

static uint64_t at(unsigned int reg)
{
	return ECAM + ((unsigned int)SLOT << 15) + reg;
}

static uint32_t rd(unsigned int reg, unsigned int size)
{
	uint32_t value = 0;

	bus_read(pci.mmio, at(reg), &value, size);
	return value;
}

static void wr(unsigned int reg, uint32_t value, unsigned int size)
{
	bus_write(pci.mmio, at(reg), &value, size);
}

static uint64_t bar_at(unsigned int bar)
{
	return vfio_pci_function(dev)->bars[bar].address;
}

static void entry(unsigned int v, bool masked)
{
	uint32_t e[4] = {0xfee00000, 0, 0x40 + v, masked};

	for (unsigned int i = 0; i < 4; i++)
		bus_write(pci.mmio, bar_at(0) + TABLE + 16 * v + 4 * i, &e[i], 4);
}

TestSuite(vfio_pci, .init = set_up, .fini = tear_down);
/* For those that say what the device is like before it is taken. */
TestSuite(vfio_pci_made, .init = build_machine, .fini = tear_down);

Test(vfio_pci, is_reset_when_attached_with_bus_mastering_off)
{
	cr_assert_eq(fake.resets, 1);
	cr_assert(!(fake.command_at_reset & 4) && !fake.irqs_at_reset);
	cr_assert_eq(load_le16(&fake.config[4]) & 7, 3);
}

Test(vfio_pci_made, one_that_the_kernel_has_just_reset_is_not_reset_again)
{
	describe();
	store_le16(&fake.config[4], 7);
	fresh = true;
	cr_assert_eq(create_device(VFIO_ON_ERROR_LOG), 0, "%s", err.text);
	cr_assert_eq(fake.resets, 0);
	cr_assert_eq(load_le16(&fake.config[4]) & 7, 3);
	/* Nor can a bus, of which the kernel leaves the reset to us. */
	dev->ops->destroy(dev);
	dev = NULL;
	fake.has_reset = false;
	fake.has_hot_reset = fake.owned = true;
	fake.resets = fake.hot_resets = 0;
	cr_assert_eq(create_device(VFIO_ON_ERROR_LOG), 0, "%s", err.text);
	cr_assert_eq(fake.hot_resets, 1);
}

Test(vfio_pci, shows_ids_and_the_capabilities_of_the_table)
{
	cr_assert_eq(rd(0, 4), 0x12341af4);
	cr_assert_eq(rd(8, 4), 0x02000001);
	cr_assert_eq(rd(0x34, 1), PM);
	cr_assert_eq(rd(PM, 2), MSI << 8 | 0x01);
	cr_assert_eq(rd(PM + 2, 2), 0x0003); /* no D1, D2, PME */
	cr_assert_eq(rd(MSI, 2), MSIX << 8 | 0x05);
	cr_assert_eq(rd(MSIX, 2), EXP << 8 | 0x11);
	cr_assert_eq(rd(EXP + 2, 2), 0x92); /* integrated: it is on bus 0 */
	/* SR-IOV is gone, and the list begins where it was */
	cr_assert_eq(rd(SRIOV, 4), (unsigned int)AER << 20);
	cr_assert_eq(rd(AER, 4), 0x20001);
}

Test(vfio_pci, bars_are_memory_but_for_the_page_of_msix)
{
	wr(4, 2, 2);
	cr_assert_eq(mapped(bar_at(0)), TABLE);
	cr_assert_eq(mapped(bar_at(4)), 16 * GiB);
	cr_assert_eq(n_mapped(), 2);
	wr(4, 0, 2);
	cr_assert_eq(n_mapped(), 0);
}

Test(vfio_pci, a_bar_that_moves_takes_its_memory_along)
{
	wr(4, 2, 2);
	wr(0x10, (uint32_t)(MMIO32 + 0x100000), 4);
	wr(0x14, 0, 4);
	cr_assert_eq(mapped(MMIO32 + 0x100000), TABLE);
	cr_assert_eq(n_mapped(), 2);
}

Test(vfio_pci, what_is_not_mapped_is_forwarded)
{
	uint32_t value = 0x12345678;

	wr(4, 3, 2);
	store_le32(&fake.bar[0][0x3ff0], 0xcafe);
	bus_read(pci.mmio, bar_at(0) + 0x3ff0, &value, 4);
	cr_assert_eq(value, 0xcafe);
	value = 0x77;
	bus_write(pci.pio, bar_at(2) + 8, &value, 4);
	cr_assert_eq(load_le32(&fake.bar[2][8]), 0x77);
}

Test(vfio_pci_made, its_rom_is_read_and_never_written)
{
	uint32_t value = 0;

	describe();
	fake.rom_bytes = 32 * KiB;
	store_le32(&fake.bar[PCI_ROM][0x7ffc], 0x12345678);
	want_rom = true;
	cr_assert_eq(create_device(VFIO_ON_ERROR_LOG), 0, "%s", err.text);
	cr_assert_eq(pci_root_assign(pci.root, &err), 0);
	loop_iterate(loop, false);
	wr(4, 2, 2);
	wr(0x30, 0xfffff800, 4);
	cr_assert_eq(rd(0x30, 4), 0xffff8000);
	wr(0x30, MMIO32 + 0x8001, 4);
	bus_read(pci.mmio, MMIO32 + 0x8000 + 0x7ffc, &value, 4);
	cr_assert_eq(value, 0x12345678);
	value = 0;
	bus_write(pci.mmio, MMIO32 + 0x8000 + 0x7ffc, &value, 4);
	cr_assert_eq(load_le32(&fake.bar[PCI_ROM][0x7ffc]), 0x12345678);
	cr_assert(!fake.written[0x30], "the real register is VFIO's");
}

Test(vfio_pci_made, a_rom_that_is_not_there_is_an_error)
{
	describe();
	want_rom = true;
	cr_assert_eq(create_device(VFIO_ON_ERROR_LOG), -ENOENT);
	cr_assert_not_null(strstr(err.text, "rom=on"), "%s", err.text);
}

Test(vfio_pci, the_msix_table_of_the_device_is_never_touched)
{
	uint32_t value;

	wr(4, 6, 2);
	entry(1, true);
	bus_read(pci.mmio, bar_at(0) + TABLE + 16, &value, 4);
	cr_assert_eq(value, 0xfee00000);
	cr_assert_eq(load_le32(&fake.bar[0][TABLE + 16]), 0);
}

Test(vfio_pci, forwards_bus_mastering_and_nothing_of_bars_or_msi)
{
	memset(fake.written, 0, sizeof(fake.written));
	wr(4, 0x546, 2);
	cr_assert_eq(load_le16(&fake.config[4]), 0x0007);
	wr(0x10, ~0u, 4);
	wr(0x20, ~0u, 4);
	wr(MSI + 4, 0xfee00000, 4);
	wr(MSI + 2, 1, 2);
	wr(MSIX + 2, 0x8000, 2);
	wr(PM + 4, 3, 2);
	for (unsigned int i = 0; i < PCI_CONFIG_BYTES; i++)
		cr_assert(!fake.written[i] || i == 4 || i == 5, "byte 0x%x was written", i);
}

Test(vfio_pci, tells_each_time_that_its_driver_starts_it)
{
	wr(4, 2, 2);
	cr_assert_eq(starts, 0, "decoding is no start");
	wr(4, 6, 2);
	wr(4, 6, 2);
	wr(5, 4, 1);
	cr_assert_eq(starts, 1, "bus mastering is, and it was off");
	wr(4, 2, 2);
	wr(4, 6, 4);
	cr_assert_eq(starts, 2);
}

Test(vfio_pci, a_vector_is_connected_from_its_first_unmask_until_msix_is_off)
{
	wr(4, 6, 2);
	wr(MSIX + 2, 0x8000, 2);
	cr_assert_eq(fake.enabled[VFIO_PCI_MSIX_IRQ_INDEX], 0);
	entry(3, false);
	cr_assert_geq(fake.fds[VFIO_PCI_MSIX_IRQ_INDEX][3], 0);
	cr_assert_eq(fake.fds[VFIO_PCI_MSIX_IRQ_INDEX][0], -1);
	entry(5, false);
	entry(3, true);
	cr_assert_geq(fake.fds[VFIO_PCI_MSIX_IRQ_INDEX][3], 0);
	wr(MSIX + 2, 0, 2);
	cr_assert_eq(fake.enabled[VFIO_PCI_MSIX_IRQ_INDEX], 0);
}

Test(vfio_pci_made, without_dynamic_vectors_a_larger_block_replaces_the_smaller)
{
	int first;

	describe();
	fake.noresize = true;
	cr_assert_eq(create_device(VFIO_ON_ERROR_LOG), 0, "%s", err.text);
	cr_assert_eq(pci_root_assign(pci.root, &err), 0);
	loop_iterate(loop, false);
	wr(4, 6, 2);
	wr(MSIX + 2, 0x8000, 2);
	entry(0, false);
	first = fake.fds[VFIO_PCI_MSIX_IRQ_INDEX][0];
	fd_event_drain(first);
	entry(5, false);
	cr_assert_eq(fake.enabled[VFIO_PCI_MSIX_IRQ_INDEX], 6);
	cr_assert_eq(fake.fds[VFIO_PCI_MSIX_IRQ_INDEX][0], first);
	/* something may have been lost in between */
	cr_assert_neq(fd_event_drain(first), 0);
}

Test(vfio_pci, intx_runs_between_the_kernels_until_msix_comes)
{
	uint32_t gsi = 16 + SLOT;

	cr_assert_eq(rd(0x3d, 1), 1);
	wr(4, 6, 2);
	cr_assert_eq(fake.enabled[VFIO_PCI_INTX_IRQ_INDEX], 1);
	cr_assert_eq(gsi_fd[gsi], fake.fds[VFIO_PCI_INTX_IRQ_INDEX][0]);
	cr_assert_eq(gsi_resample[gsi], fake.unmask_fd);
	wr(4, 0x406, 2);
	cr_assert_eq(fake.enabled[VFIO_PCI_INTX_IRQ_INDEX], 0);
	cr_assert_eq(gsi_fd[gsi], -1);
	wr(4, 6, 2);
	cr_assert_eq(fake.enabled[VFIO_PCI_INTX_IRQ_INDEX], 1);
	wr(MSIX + 2, 0x8000, 2);
	cr_assert_eq(fake.enabled[VFIO_PCI_INTX_IRQ_INDEX], 0);
	entry(0, false);
	cr_assert_eq(fake.enabled[VFIO_PCI_MSIX_IRQ_INDEX], 1);
	wr(MSIX + 2, 0, 2);
	cr_assert_eq(fake.enabled[VFIO_PCI_INTX_IRQ_INDEX], 1);
}

Test(vfio_pci, msi_connects_all_that_the_guest_enables)
{
	wr(4, 6, 2);
	wr(MSI + 4, 0xfee00000, 4);
	wr(MSI + 2, 0x0011, 2); /* 2 vectors */
	cr_assert_eq(fake.enabled[VFIO_PCI_MSI_IRQ_INDEX], 2);
	cr_assert_eq(fake.enabled[VFIO_PCI_INTX_IRQ_INDEX], 0);
	wr(MSI + 2, 0, 2);
	cr_assert_eq(fake.enabled[VFIO_PCI_MSI_IRQ_INDEX], 0);
}

Test(vfio_pci, a_function_level_reset_stops_it_first)
{
	wr(4, 6, 2);
	wr(MSIX + 2, 0x8000, 2);
	entry(0, false);
	cr_assert_eq(rd(EXP + 4, 4) >> 28 & 1, 1);
	wr(EXP + 8, 0x8000, 2);
	cr_assert_eq(fake.resets, 2);
	cr_assert(!(fake.command_at_reset & 4) && !fake.irqs_at_reset);
	cr_assert_eq(rd(4, 2) & 7, 0);
	cr_assert_eq(n_mapped(), 0);
}

Test(vfio_pci, leaving_d3hot_without_its_state_is_a_reset)
{
	wr(4, 6, 2);
	wr(PM + 4, 1, 2); /* D1 is not offered */
	cr_assert_eq(rd(PM + 4, 2) & 3, 0);
	wr(PM + 4, 3, 2);
	cr_assert_eq(fake.resets, 1);
	wr(PM + 4, 0, 2);
	cr_assert_eq(fake.resets, 2);
	cr_assert_eq(rd(4, 2) & 7, 0);
}

Test(vfio_pci, status_bits_live_in_the_device_and_are_cleared_there)
{
	store_le16(&fake.config[6], 0x2010);
	cr_assert_eq(rd(6, 2), 0x2010);
	memset(fake.written, 0, sizeof(fake.written));
	wr(6, 0xf900, 2);
	cr_assert(fake.written[7]);
	cr_assert_eq(load_le16(&fake.config[6]), 0xf900); /* what was written there, 0x10 not */
}

Test(vfio_pci, vpd_is_read_and_never_written)
{
	memset(fake.written, 0, sizeof(fake.written));
	wr(VPD + 4, 0x12345678, 4);
	wr(VPD + 2, 0x8004, 2);
	for (unsigned int i = 0; i < 8; i++)
		cr_assert(!fake.written[VPD + i]);
	cr_assert_eq(rd(VPD + 2, 2), 0x0004);
	wr(VPD + 2, 0x0008, 2);
	cr_assert_eq(load_le16(&fake.config[VPD + 2]), 0x0008);
	store_le16(&fake.config[VPD + 2], 0x8008);
	store_le32(&fake.config[VPD + 4], 0xfeed);
	cr_assert_eq(rd(VPD + 2, 2), 0x8008);
	cr_assert_eq(rd(VPD + 4, 4), 0xfeed);
}

Test(vfio_pci, a_device_that_is_gone_reads_all_ones)
{
	uint32_t value;
	struct vfio_pci_status status;

	wr(4, 6, 2);
	fake.dead = true;
	rd(6, 2); /* found out here */
	cr_assert_eq(rd(0, 4), UINT32_MAX);
	cr_assert_eq(rd(0x100, 4), UINT32_MAX);
	bus_read(pci.mmio, bar_at(0) + 0x3ff0, &value, 4);
	cr_assert_eq(value, UINT32_MAX);
	wr(4, 0, 2);
	wr(MSIX + 2, 0x8000, 2);
	vfio_pci_status(dev, &status);
	cr_assert(status.gone);
	dev->ops->reset(dev);
}

Test(vfio_pci, the_hosts_request_is_an_event)
{
	fd_event_signal(fake.fds[VFIO_PCI_REQ_IRQ_INDEX][0]);
	while (!n_events)
		loop_iterate(loop, true);
	cr_assert_eq(events[0], VFIO_EVENT_REQUESTED);
}

Test(vfio_pci_made, an_error_may_reset_it_in_place)
{
	describe();
	cr_assert_eq(create_device(VFIO_ON_ERROR_RESET), 0, "%s", err.text);
	cr_assert_eq(pci_root_assign(pci.root, &err), 0);
	loop_iterate(loop, false);
	wr(4, 6, 2);
	wr(MSIX + 2, 0x8000, 2);
	entry(2, false);
	fd_event_signal(fake.fds[VFIO_PCI_ERR_IRQ_INDEX][0]);
	while (n_events < 2)
		loop_iterate(loop, true);
	cr_assert_eq(events[0], VFIO_EVENT_ERROR);
	cr_assert_eq(events[1], VFIO_EVENT_RESET);
	cr_assert_eq(fake.resets, 2);
	cr_assert_geq(fake.fds[VFIO_PCI_MSIX_IRQ_INDEX][2], 0);
	cr_assert_eq(rd(4, 2) & 6, 6);
}

Test(vfio_pci, the_end_leaves_nothing_of_the_guest)
{
	wr(4, 6, 2);
	wr(MSIX + 2, 0x8000, 2);
	entry(0, false);
	dev->ops->destroy(dev);
	dev = NULL;
	cr_assert_eq(fake.resets, 2);
	cr_assert(!(fake.command_at_reset & 4) && !fake.irqs_at_reset);
}

Test(vfio_pci_made, a_bus_is_reset_when_all_of_it_is_ours)
{
	describe();
	fake.has_reset = false;
	fake.has_hot_reset = fake.owned = true;
	cr_assert_eq(create_device(VFIO_ON_ERROR_LOG), 0, "%s", err.text);
	cr_assert_eq(fake.hot_resets, 1);
}

Test(vfio_pci_made, a_bus_that_others_are_on_is_not_reset)
{
	describe();
	fake.has_reset = false;
	fake.has_hot_reset = true;
	cr_assert_eq(create_device(VFIO_ON_ERROR_LOG), 0, "%s", err.text);
	cr_assert_eq(fake.hot_resets, 0);
	pci_root_assign(pci.root, &err);
	cr_assert_eq(rd(EXP + 4, 4) >> 28 & 1, 0); /* no FLR is offered then */
}

Test(vfio_pci_made, a_bridge_and_a_silent_device_are_refused)
{
	describe();
	fake.config[0x0e] = 1;
	cr_assert_eq(create_device(VFIO_ON_ERROR_LOG), -EINVAL);
	cr_assert(strstr(err.text, "bridge"));
	describe();
	memset(fake.config, 0xff, sizeof(fake.config));
	cr_assert_eq(create_device(VFIO_ON_ERROR_LOG), -ENODEV);
	dev = NULL;
}

Test(split, holes_and_sparse_areas)
{
	const struct vfio_area all = {0, 0x10000};
	const struct vfio_area sparse[] = {{0x8000, 0x3000}, {0x0, 0x2800}, {0x2800, 0x100}};
	const struct vfio_area holes[] = {{0x3800, 8}, {0x3000, 0x80}, {0xf000, 0x1000}};
	struct vfio_area out[4];

	cr_assert_eq(vfio_bar_split(&all, 1, NULL, 0, 0x1000, out, 4), 1);
	cr_assert_eq(out[0].bytes, 0x10000);
	cr_assert_eq(vfio_bar_split(&all, 1, holes, 3, 0x1000, out, 4), 2);
	cr_assert(out[0].offset == 0 && out[0].bytes == 0x3000);
	cr_assert(out[1].offset == 0x4000 && out[1].bytes == 0xb000);
	/* what is not a whole page is trapped */
	cr_assert_eq(vfio_bar_split(sparse, 3, NULL, 0, 0x1000, out, 4), 2);
	cr_assert(out[0].offset == 0 && out[0].bytes == 0x2000);
	cr_assert(out[1].offset == 0x8000 && out[1].bytes == 0x3000);
	/* larger pages of the host */
	cr_assert_eq(vfio_bar_split(&all, 1, holes, 1, 0x10000, out, 4), 0);
	/* more than there is room for: counted */
	cr_assert_eq(vfio_bar_split(&all, 1, holes, 2, 0x1000, out, 1), 2);
}

Test(vfio_pci, its_state_is_refused_with_the_reason)
{
	struct state_buffer buffer = {0};
	struct state_writer w;

	state_writer_begin(&w, state_buffer_sink, &buffer);
	cr_assert_eq(state_save_device(&w, dev, &err), -EOPNOTSUPP);
	cr_assert(strstr(err.text, "is in its hardware"));
	cr_assert_eq(dev->ops->load(dev, NULL, &err), -EOPNOTSUPP);
	free(buffer.bytes);
}
