/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MSI-X: table, masks and pending bits, one implementation for virtio and passthrough.
 *
 * A vector has a route and a GSI from the guest's first unmask of it (with MSI-X enabled) until the
 * guest disables MSI-X; masking in between, and bus mastering being off (a message is a write of
 * the device's, PCI Express Base 6.0, 7.5.1.1.3), only divert signals to the pending bit. The table
 * and the pending bits live in a BAR of the device (their offsets are the caller's), as trapped
 * regions.
 *
 * PCI Local Bus 3.0, 6.8.2; PCI Express Base 6.0, 7.7.2.
 *
 * Threads: config and table accesses under the device's lock; msix_fd's eventfd may be signalled by
 * anybody.
 */
#ifndef CORE_MSIX_H
#define CORE_MSIX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "core/pci.h"

struct msix;

enum {
	MSIX_ENTRY_BYTES = 16,
	MSIX_MAX_VECTORS = 2048,
};

struct msix_config {
	unsigned int vectors; /* 1 to MSIX_MAX_VECTORS */
	uint8_t bar;          /* where table and pending bits are */
	uint32_t table_offset;
	uint32_t pba_offset;
	/* Vector v got its first unmask (on) or lost its route (off): passthrough connects its
	 * device's interrupt then. May be NULL. */
	int (*vector_used)(void *opaque, unsigned int v, bool on);
	void *opaque;
};

/* Adds the capability to dev; before pci_attach. */
int msix_init(struct msix **ret, struct pci_device *dev, struct irq_chip *chip,
	      const struct msix_config *config, struct err *err);
void msix_done(struct msix *msix);

/* The device's BAR handler passes accesses of the table (offset from its start) and of the pending
 * bits here: sizes 4 and 8, naturally aligned. */
uint64_t msix_table_read(struct msix *msix, uint64_t offset, unsigned int size);
void msix_table_write(struct msix *msix, uint64_t offset, uint64_t value, unsigned int size);
uint64_t msix_pba_read(struct msix *msix, uint64_t offset, unsigned int size);

bool msix_enabled(const struct msix *msix);
unsigned int msix_vectors(const struct msix *msix);

/* Raise vector v (out of range: ignored). Any thread. */
void msix_raise(struct msix *msix, unsigned int v);
/* The eventfd of vector v, which stays msix's and exists from msix_init to msix_done: signalling it
 * raises the vector, or sets it pending while masked; -1 out of range. */
int msix_fd(struct msix *msix, unsigned int v);

#endif
