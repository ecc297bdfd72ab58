// SPDX-License-Identifier: Apache-2.0
// Saved state of virtio over PCI: config space and MSI-X, these registers, then the transport.
#include <errno.h>

#include "core/state.h"
#include "virtio/pci_impl.h"

static const struct state_field pci_fields[] = {
	STATE_ONE(struct virtio_pci, device_feature_select),
	STATE_ONE(struct virtio_pci, driver_feature_select),
	STATE_ONE(struct virtio_pci, queue_select),
	STATE_ONE(struct virtio_pci, isr, .mask = VIRTIO_PCI_ISR_QUEUE | VIRTIO_PCI_ISR_CONFIG),
	STATE_ONE(struct virtio_pci, config_vector),
	STATE_ARRAY(struct virtio_pci, vectors),
};

STATE_DERIVED(struct virtio_pci, "made by virtio_pci_create", dev, mmio, pio, region, ports,
	      access_cap, attached, n_ioeventfds, ioeventfd);
STATE_DERIVED(struct virtio_pci, "have sections of their own", pci, t, msix);
STATE_DERIVED(struct virtio_pci, "follows from config space", msix_on);

static int check_pci(const void *record, const void *live, uint32_t i, struct err *err)
{
	const struct virtio_pci *v = record, *here = live;
	unsigned int n = msix_vectors(v->msix);

	if (v->config_vector >= n && v->config_vector != VIRTIO_MSI_NO_VECTOR)
		return err_set(err, -EPROTO, "config_vector is %u, of %u", v->config_vector, n);
	for (i = 0; i < VIRTIO_MAX_QUEUES; i++) {
		bool there = i < v->t.vdev->n_queues;

		if (there ? v->vectors[i] >= n && v->vectors[i] != VIRTIO_MSI_NO_VECTOR
			  : v->vectors[i] != here->vectors[i])
			return err_set(err, -EPROTO, "vectors[%u] is %u, of %u", i, v->vectors[i],
				       n);
	}
	return 0;
}

static const struct state_section pci_section =
	STATE_SECTION("virtio-pci", 1, struct virtio_pci, pci_fields, .check = check_pci);

int virtio_pci_save(struct device *dev, struct state_writer *w, struct err *err)
{
	struct virtio_pci *v = container_of(dev, struct virtio_pci, dev);

	pci_device_save(&v->pci, w);
	state_save(w, &pci_section, v, 1);
	return transport_save(&v->t, w, err);
}

int virtio_pci_load(struct device *dev, struct state_reader *r, struct err *err)
{
	struct virtio_pci *v = container_of(dev, struct virtio_pci, dev);
	int ret = pci_device_load(&v->pci, r, err);

	if (!ret)
		ret = state_load(r, &pci_section, v, 1, err);
	if (!ret)
		ret = transport_load(&v->t, r, err);
	if (!ret)
		ret = state_commit(r, err);
	if (ret)
		return ret;
	pci_device_loaded(&v->pci);
	pthread_mutex_lock(&dev->lock);
	v->msix_on = msix_enabled(v->msix);
	virtio_pci_set_isr(v, v->isr);
	pthread_mutex_unlock(&dev->lock);
	return 0;
}
