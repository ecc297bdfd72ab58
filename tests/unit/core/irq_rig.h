/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IRQ_RIG_H
#define IRQ_RIG_H

/* What the tests of MSI and MSI-X stand on: a kernel that keeps the routes and eventfds that it is
 * given, and refuses what KVM would refuse; a PCI root; a device in slot 3. */

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "core/bus.h"
#include "core/irq.h"
#include "core/pci.h"

enum {
	RIG_PINS = 24,
	RIG_GSIS = 40,
	RIG_BUS_MASTER = 4,
};
#define RIG_ECAM_GPA   0xe0000000ull
#define RIG_CONFIG_GPA (RIG_ECAM_GPA + (3 << 15)) /* of the device */

static struct {
	struct irq_route routes[RIG_GSIS];
	unsigned int n_routes, tables, refused; /* tables taken and refused so far */
	int fd[RIG_GSIS];
} kernel;

static struct irq_chip *chip;
static struct bus *mmio, *pio;
static struct pci_root *root;
static struct pci_device dev;
static struct err err;
static const struct pci_device_ops rig_ops = {0};
static const struct pci_ids rig_ids = {.vendor = 0x1234, .device = 1};

static int rig_set_routes(void *opaque, const struct irq_route *routes, unsigned int n)
{
	(void)opaque;
	for (unsigned int i = 0; i < n; i++) {
		if (routes[i].msi && routes[i].address >> 32) {
			kernel.refused++;
			return -EINVAL;
		}
	}
	kernel.tables++;
	memcpy(kernel.routes, routes, n * sizeof(*routes));
	kernel.n_routes = n;
	return 0;
}

static int rig_set_irqfd(void *opaque, uint32_t gsi, int fd, int resample_fd, bool on)
{
	(void)opaque;
	(void)resample_fd;
	cr_assert_eq(kernel.fd[gsi], on ? 0 : fd);
	kernel.fd[gsi] = on ? fd : 0;
	return 0;
}

/* Up to the device, which is not attached yet. gsis: how many the kernel has, up to RIG_GSIS. */
static void rig_make(unsigned int gsis)
{
	static struct irq_chip_ops chip_ops = {
		.set_routes = rig_set_routes, .set_irqfd = rig_set_irqfd, .pins = RIG_PINS};
	struct pci_root_config c = {.windows = {.ecam_gpa = RIG_ECAM_GPA}};

	cr_assert_leq(gsis, RIG_GSIS);
	chip_ops.max_gsi = gsis;
	cr_assert_eq(irq_chip_create(&chip, &chip_ops, NULL, &err), 0);
	cr_assert_eq(bus_create(&mmio, BUS_MMIO, &err), 0);
	cr_assert_eq(bus_create(&pio, BUS_PIO, &err), 0);
	c.mmio = mmio;
	c.pio = pio;
	c.irq = chip;
	cr_assert_eq(pci_root_create(&root, &c, &err), 0);
	pci_device_init(&dev, &rig_ops, "dev", &rig_ids);
}

static void rig_attach(void)
{
	const struct pci_addr addr = {.slot = 3};

	cr_assert_eq(pci_attach(&dev, pci_root_bus(root), &addr, &err), 0);
	dev.config[4] = RIG_BUS_MASTER;
}

/* After pci_detach() and the end of what uses the chip. */
static void rig_destroy(void)
{
	cr_assert_eq(irq_chip_msi_in_use(chip), 0);
	pci_root_destroy(root);
	bus_destroy(pio);
	bus_destroy(mmio);
	irq_chip_destroy(chip);
}

#endif
