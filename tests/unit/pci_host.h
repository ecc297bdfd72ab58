/* SPDX-License-Identifier: Apache-2.0 */
/* A PCI root with its buses and interrupt chip, for unit tests and fuzzers: a failure asserts. */
#ifndef TESTS_PCI_HOST_H
#define TESTS_PCI_HOST_H

#include <assert.h>

#include "base/num.h"
#include "core/bus.h"
#include "core/irq.h"
#include "core/pci.h"

#define ECAM         0xe0000000ull
#define MMIO32       0xc0000000ull
#define MMIO64       (1ull << 40)
#define MMIO64_BYTES (256 * GiB)

#define PCI_RAM_BYTES GiB
#define APICS         0xfec00000ull
#define PCI_TOP       (1ull << 42)

enum { PINS = 24, INTX_GSI = 16 };

struct pci_host {
	struct bus *mmio, *pio;
	struct irq_chip *chip;
	struct pci_root *root;
};

/* For chips that accept everything. */
static inline int accept_routes(void *opaque, const struct irq_route *routes, unsigned int n)
{
	(void)opaque;
	(void)routes;
	(void)n;
	return 0;
}

static inline int accept_irqfd(void *opaque, uint32_t gsi, int fd, int resample_fd, bool on)
{
	(void)opaque;
	(void)gsi;
	(void)fd;
	(void)resample_fd;
	(void)on;
	return 0;
}

static inline int accept_line(void *opaque, uint32_t gsi, bool level)
{
	(void)opaque;
	(void)gsi;
	(void)level;
	return 0;
}

static inline void pci_host_init(struct pci_host *h, const struct irq_chip_ops *ops,
				 const struct log *log)
{
	struct pci_root_config config = {.windows = {.ecam_gpa = ECAM,
						     .mmio32_gpa = MMIO32,
						     .mmio32_bytes = 256 * MiB,
						     .mmio64_gpa = MMIO64,
						     .mmio64_bytes = MMIO64_BYTES,
						     .io_base = 0x1000,
						     .io_bytes = 0xf000,
						     .top = PCI_TOP,
						     .kept = {{0, PCI_RAM_BYTES},
							      {ECAM, 256 * MiB},
							      {APICS, 4 * GiB - APICS}}},
					 .log = log,
					 .intx_gsi = INTX_GSI};
	int failed = bus_create(&h->mmio, BUS_MMIO, NULL);

	failed = failed ? failed : bus_create(&h->pio, BUS_PIO, NULL);
	failed = failed ? failed : irq_chip_create(&h->chip, ops, NULL, NULL);
	assert(!failed);
	config.mmio = h->mmio;
	config.pio = h->pio;
	config.irq = h->chip;
	failed = pci_root_create(&h->root, &config, NULL);
	assert(!failed);
}

/* All functions have been detached, and all vectors released. */
static inline void pci_host_done(struct pci_host *h)
{
	assert(!irq_chip_msi_in_use(h->chip));
	pci_root_destroy(h->root);
	irq_chip_destroy(h->chip);
	bus_destroy(h->pio);
	bus_destroy(h->mmio);
}

#endif
