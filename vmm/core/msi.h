/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MSI: one message in config space that stands for 1 to 32 vectors, for passed-through devices
 * without MSI-X. The vector's number replaces the lowest bits of the message's data.
 *
 * All vectors that the guest enables have a route and a GSI from then until it disables MSI; a mask
 * bit (where the capability has them), and bus mastering being off, only divert signals to the
 * pending bit.
 *
 * PCI Local Bus 3.0, 6.8.1; PCI Express Base 6.0, 7.7.1.
 *
 * Threads: config accesses under the device's lock; msi_fd's eventfds may be signalled by anybody.
 */
#ifndef CORE_MSI_H
#define CORE_MSI_H

#include <stdbool.h>

#include "base/err.h"
#include "core/pci.h"

struct msi;

enum { MSI_MAX_VECTORS = 32 };

struct msi_config {
	unsigned int vectors; /* 1, 2, 4, … MSI_MAX_VECTORS */
	bool wide;            /* 64-bit address */
	bool maskable;        /* per-vector mask and pending bits */
	/* The guest enabled this many vectors, 0 to n - 1 (changing their number disables first),
	 * or disabled MSI (0; its result is not looked at): passthrough connects its device's
	 * interrupts then. May be NULL. */
	int (*vectors_used)(void *opaque, unsigned int n);
	void *opaque;
};

/* Adds the capability to dev, 10 to 24 bytes long (msi_bytes); before pci_attach. */
int msi_init(struct msi **ret, struct pci_device *dev, struct irq_chip *chip,
	     const struct msi_config *config, struct err *err);
void msi_done(struct msi *msi);
unsigned int msi_bytes(const struct msi_config *config);

/* How many vectors the guest has enabled: 0 while MSI is off. */
unsigned int msi_enabled(const struct msi *msi);

/* Raise vector v (not enabled: ignored). Any thread. */
void msi_raise(struct msi *msi, unsigned int v);
/* The eventfd of vector v, which stays msi's and exists from msi_init to msi_done; -1 out of range.
 * What was signalled before MSI was enabled is forgotten. */
int msi_fd(struct msi *msi, unsigned int v);

#endif
