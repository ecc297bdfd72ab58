/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio over PCI, modern only (virtio 1.3, 4.1): one memory BAR with common configuration, ISR,
 * device configuration, notification and MSI-X; MSI-X through irqfd, kicks through ioeventfd, INTx
 * as the specification demands it for drivers without MSI-X.
 *
 *   BAR 4   0x0000 common   0x1000 ISR   0x2000 device   0x3000 notify, 4 bytes a queue
 *           0x4000 MSI-X table   0x5000 pending bits
 *   BAR 2   ports: notify, 4 bytes a queue
 *
 * Vector 0 to n of MSI-X are the driver's to assign: one for each queue and one for configuration.
 * While bus mastering is off no queue runs (transport.h).
 *
 * virtio_pci_create takes a device (ownership passes on success) and puts it on the bus. 0 or a
 * negative errno, err says why: the address is taken, no memory, no eventfd. The result is
 * quiesced and destroyed through its struct device_ops. All of it: the machine's thread.
 */
#ifndef VIRTIO_PCI_H
#define VIRTIO_PCI_H

#include "base/err.h"
#include "core/device.h"
#include "core/pci.h"
#include "virtio/virtio.h"

struct virtio_pci_config {
	const struct pci_addr *addr; /* NULL: next free */
	struct pci_bus *bus;
	bool platform_dma; /* a virtual IOMMU is in front: VIRTIO_F_ACCESS_PLATFORM, must be
			      accepted */
};

/* The result is the machine's handle on the device: destroy it through its ops. */
int virtio_pci_create(struct device **ret, const struct device_env *env,
		      const struct virtio_pci_config *config, struct virtio_device *vdev,
		      struct err *err);
const struct pci_addr *virtio_pci_addr(const struct device *dev);

#endif
