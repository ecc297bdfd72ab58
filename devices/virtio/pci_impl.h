/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside virtio over PCI: the function, its config space and its life (pci.c), its registers
 * (pci_registers.c), and its saved state (pci_state.c). pci.c calls the other two.
 */
#ifndef VIRTIO_PCI_IMPL_H
#define VIRTIO_PCI_IMPL_H

#include <linux/virtio_pci.h>

#include "core/msix.h"
#include "virtio/pci.h"
#include "virtio/transport.h"

/* The memory BAR: windows, and where they begin (pci.h has the picture). */
enum {
	VIRTIO_PCI_WINDOW_BYTES = 0x1000,
	VIRTIO_PCI_AT_COMMON = 0x0000,
	VIRTIO_PCI_AT_ISR = 0x1000,
	VIRTIO_PCI_AT_DEVICE = 0x2000,
	VIRTIO_PCI_AT_NOTIFY = 0x3000,
	VIRTIO_PCI_AT_MSIX_TABLE = 0x4000,
	VIRTIO_PCI_AT_MSIX_PBA = 0x5000,
	VIRTIO_PCI_BAR_BYTES = 0x8000,
	VIRTIO_PCI_NOTIFY_BYTES = 4, /* of each queue */

	VIRTIO_PCI_ISR_QUEUE = 1, /* VIRTIO_PCI_ISR_CONFIG is the other bit */
};

static_assert(VIRTIO_MAX_QUEUES * VIRTIO_PCI_NOTIFY_BYTES <= VIRTIO_PCI_WINDOW_BYTES,
	      "notify window");
static_assert((VIRTIO_MAX_QUEUES + 1) * MSIX_ENTRY_BYTES <= VIRTIO_PCI_WINDOW_BYTES, "MSI-X table");

/* 4.1.4.3; older headers of the kernel lack the members behind cfg. */
struct common_cfg {
	struct virtio_pci_common_cfg cfg;
	uint16_t queue_notify_data;
	uint16_t queue_reset;
	uint16_t admin_queue_index;
	uint16_t admin_queue_num;
};
static_assert(sizeof(struct common_cfg) == 64, "virtio 1.3, 4.1.4.3");
static_assert(sizeof(struct virtio_pci_cap) == 16, "virtio 1.3, 4.1.4");

struct virtio_pci {
	/* Constant once it is attached, or with guards of their own. */
	struct device dev; /* first: it is the machine's handle */
	struct pci_device pci;
	struct virtio_transport t;
	struct bus *mmio, *pio;
	struct bus_region region, ports;
	struct msix *msix;
	unsigned int access_cap; /* offset of VIRTIO_PCI_CAP_PCI_CFG */
	bool attached;
	unsigned int n_ioeventfds;                             /* added so far */
	struct bus_ioeventfd ioeventfd[2 * VIRTIO_MAX_QUEUES]; /* by port and by memory, in turn */
	/* Registers; under the device's lock. */
	uint32_t device_feature_select;
	uint32_t driver_feature_select;
	uint16_t queue_select;
	uint8_t isr;
	bool msix_on;
	uint16_t config_vector;
	uint16_t vectors[VIRTIO_MAX_QUEUES];
};

/* pci_registers.c: under the device's lock. */
extern const struct bus_ops virtio_pci_bar_ops, virtio_pci_ports_ops;
void virtio_pci_set_isr(struct virtio_pci *v, uint8_t isr);
void virtio_pci_registers_reset(struct virtio_pci *v);
/* A write to the BAR; by_cap: through VIRTIO_PCI_CAP_PCI_CFG. */
void virtio_pci_window_write(struct virtio_pci *v, uint64_t offset, uint64_t value,
			     unsigned int size, bool by_cap);

/* pci_state.c: device_ops.save and load. */
int virtio_pci_save(struct device *dev, struct state_writer *w, struct err *err);
int virtio_pci_load(struct device *dev, struct state_reader *r, struct err *err);

#endif
