/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VFIO device that is memory: answers the calls of passthrough/vfio_calls.h and remembers what
 * was asked of it. Used by unit tests and by the fuzzer of config spaces.
 */
#ifndef FAKE_VFIO_H
#define FAKE_VFIO_H

#include <stdbool.h>
#include <stdint.h>

#include "passthrough/vfio_pci_impl.h"

enum { FAKE_VECTORS = 64, FAKE_BAR_BYTES = 64 * 1024 };

struct fake_vfio {
	uint8_t config[PCI_CONFIG_BYTES];
	uint8_t written[PCI_CONFIG_BYTES]; /* config bytes that anybody wrote */
	unsigned int config_bytes;
	uint64_t bar_bytes[PCI_BARS];
	bool bar_maps[PCI_BARS];
	unsigned int n_sparse; /* of BAR 0 */
	struct vfio_area sparse[4];
	uint8_t bar[PCI_PLACES][FAKE_BAR_BYTES]; /* what pread and pwrite reach */
	uint64_t rom_bytes;                      /* 0: none */
	unsigned int irqs[VFIO_PCI_NUM_IRQS];    /* how many of each kind */
	bool noresize;
	/* now */
	int32_t fds[VFIO_PCI_NUM_IRQS][FAKE_VECTORS];
	unsigned int enabled[VFIO_PCI_NUM_IRQS]; /* size of the block, 0: off */
	int unmask_fd;
	/* so far */
	unsigned int set_irqs, resets, hot_resets, maps;
	uint16_t command_at_reset;
	bool irqs_at_reset;
	bool has_reset, has_hot_reset, owned;
	bool dead; /* reads and writes fail */
};

extern const struct vfio_file_ops fake_vfio_ops;
/* 1af4:1234, a network controller without capabilities, BARs or interrupts; it can be reset. */
void fake_vfio_init(struct fake_vfio *f);

#endif
