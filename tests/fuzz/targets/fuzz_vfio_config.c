// SPDX-License-Identifier: Apache-2.0
// A device whose config space is hostile: the input is what it reads. Oracle, on what the guest
// gets:
//
// - both lists end, and hold only what the table allows, each within its half, none twice at a
// place;
// - the guest writes every byte: the device's BARs, MSI and MSI-X registers, ids and VPD data stay
// as they
//   were, and of its command register decoding stays on;
// - at the end no interrupt is on, nothing is mapped into the guest, and the device is no bus
// master.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "base/le.h"
#include "base/num.h"
#include "fake_vfio.h"
#include "pci_host.h"

enum { GSIS = PINS + 2 * FAKE_VECTORS, SLOT = 2 };

static struct fake_vfio fake;
static struct pci_host pci;
static struct log silent;
static int mapped;

static const struct irq_chip_ops chip_ops = {.set_routes = accept_routes,
					     .set_irqfd = accept_irqfd,
					     .set_line = accept_line,
					     .pins = PINS,
					     .max_gsi = GSIS};

static int host_map(void *opaque, uint64_t gpa, void *hva, uint64_t bytes, struct err *err)
{
	(void)opaque;
	(void)gpa;
	(void)hva;
	(void)bytes;
	(void)err;
	mapped++;
	return 0;
}

static void host_unmap(void *opaque, uint64_t gpa)
{
	(void)opaque;
	(void)gpa;
	mapped--;
}

static void set_up(void)
{
	pci_host_init(&pci, &chip_ops, &silent);
	fake_vfio_init(&fake);
	fake.bar_bytes[0] = 16 * KiB;
	fake.bar_maps[0] = true;
	fake.bar_bytes[2] = 64;
	fake.irqs[VFIO_PCI_INTX_IRQ_INDEX] = 1;
	fake.irqs[VFIO_PCI_MSI_IRQ_INDEX] = 32;
	fake.irqs[VFIO_PCI_MSIX_IRQ_INDEX] = FAKE_VECTORS;
}

static uint32_t rd(unsigned int reg, unsigned int size)
{
	uint32_t value = 0;

	check(bus_read(pci.mmio, ECAM + (SLOT << 15) + reg, &value, size));
	return value;
}

static void wr(unsigned int reg, uint32_t value, unsigned int size)
{
	check(bus_write(pci.mmio, ECAM + (SLOT << 15) + reg, &value, size));
}

/* What the committed table lets through, said once more by hand. */
static bool allowed(uint16_t id, bool extended)
{
	static const uint16_t standard[] = {0x01, 0x03, 0x05, 0x09, 0x10, 0x11, 0x12, 0x13};
	static const uint16_t ext[] = {0x0000, 0x0001, 0x0003, 0x000b, 0x0023};
	const uint16_t *ids = extended ? ext : standard;
	size_t n = extended ? ARRAY_SIZE(ext) : ARRAY_SIZE(standard);

	for (size_t i = 0; i < n; i++) {
		if (ids[i] == id)
			return true;
	}
	return false;
}

/* Marks the bytes of MSI, MSI-X and VPD data, which the device must keep. */
static void walk(uint8_t *ours)
{
	uint8_t seen[PCI_CONFIG_BYTES] = {0};
	unsigned int at = rd(6, 2) & 0x10 ? rd(0x34, 1) : 0;

	while (at) {
		uint32_t head = rd(at, 4);

		check(at >= 0x40 && !(at & 3) && !seen[at]);
		seen[at] = 1;
		check(allowed(head & 0xff, false));
		if ((head & 0xff) == 0x11)
			memset(&ours[at], 1, 12);
		if ((head & 0xff) == 0x05)
			memset(&ours[at], 1, 10);
		if ((head & 0xff) == 0x03)
			memset(&ours[at + 4], 1, 4);
		at = head >> 8 & 0xff;
	}
	for (at = 0x100; at;) {
		uint32_t head = rd(at, 4);

		check(at >= 0x100 && !(at & 3) && !seen[at]);
		seen[at] = 1;
		if (!head)
			break;
		check(allowed((uint16_t)head, true));
		at = head >> 20;
	}
}

static void attack(const uint8_t *data, size_t size)
{
	uint8_t before[PCI_CONFIG_BYTES], ours[PCI_CONFIG_BYTES] = {0};

	memset(ours, 1, 4);           /* ids */
	memset(&ours[0x08], 1, 0x38); /* the header but for command and status */
	walk(ours);
	memcpy(before, fake.config, sizeof(before));
	for (unsigned int i = 4; i < PCI_CONFIG_BYTES; i += 4)
		wr(i, size > i + 4 ? load_le32(&data[i]) * 0x9e3779b1u : ~0u, 4);
	wr(4, 6, 2);
	for (unsigned int i = 0; i < PCI_CONFIG_BYTES; i++)
		check(!ours[i] || fake.config[i] == before[i]);
	check((fake.config[4] & 3) == 3);
	memset(ours, 0, sizeof(ours));
	walk(ours);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct pci_addr addr = {.slot = SLOT};
	struct vfio_file file = {.ops = &fake_vfio_ops, .opaque = &fake, .fd = -1};
	struct vfio_host host = {.map = host_map, .unmap = host_unmap};
	struct device *dev = NULL;

	set_up();
	memcpy(fake.config, data, MIN(size, (size_t)PCI_CONFIG_BYTES));
	{
		struct device_env env = {
			.log = &silent, .mmio = pci.mmio, .pio = pci.pio, .irq = pci.chip};
		struct vfio_pci_config config = {.name = "x",
						 .bdf = "0000:01:00.0",
						 .group_fd = -1,
						 .bus = pci_root_bus(pci.root),
						 .addr = &addr};

		if (!vfio_pci_create_on(&dev, &env, &config, &file, &host, NULL)) {
			check(!pci_root_assign(pci.root, NULL));
			attack(data, size);
			dev->ops->reset(dev);
			dev->ops->destroy(dev);
		}
	}
	check(!mapped);
	for (unsigned int i = 0; i <= VFIO_PCI_MSIX_IRQ_INDEX; i++)
		check(!fake.enabled[i]);
	check(!dev || !(fake.config[4] & 4));
	pci_host_done(&pci);
	return 0;
}
