// SPDX-License-Identifier: Apache-2.0
// Registers of virtio over PCI (virtio 1.3, 4.1.4): the windows of the memory BAR, and the ports.
#include <string.h>

#include "base/fd.h"
#include "base/le.h"
#include "base/num.h"
#include "virtio/pci_impl.h"

void virtio_pci_set_isr(struct virtio_pci *v, uint8_t isr)
{
	v->isr = isr;
	/* Without MSI-X the line is the OR of the bits (4.1.4.5.1). */
	pci_set_intx(&v->pci, isr && !v->msix_on);
}

void virtio_pci_registers_reset(struct virtio_pci *v)
{
	v->device_feature_select = 0;
	v->driver_feature_select = 0;
	v->queue_select = 0;
	/* 4.1.5.1.2.1 */
	v->config_vector = VIRTIO_MSI_NO_VECTOR;
	for (unsigned int i = 0; i < v->t.vdev->n_queues; i++)
		v->vectors[i] = VIRTIO_MSI_NO_VECTOR;
	virtio_pci_set_isr(v, 0);
}

/* Common configuration (4.1.4.3). A read is served from an image of the registers, so any size at
 * any offset is well-defined; a write must be of one field, as the specification demands, or it is
 * ignored. But one of up to 4 bytes that is wider than its field is of that field alone: drivers
 * were written against QEMU, which takes it so. */

static void common_image(struct virtio_pci *v, struct common_cfg *image)
{
	struct virtio_pci_common_cfg *c = &image->cfg;
	struct virtio_transport *t = &v->t;
	const struct transport_queue *q;
	unsigned int n = v->queue_select;

	*image = (struct common_cfg){
		.cfg.device_feature_select = htole32(v->device_feature_select),
		.cfg.guest_feature_select = htole32(v->driver_feature_select),
		.cfg.msix_config = htole16(v->config_vector),
		.cfg.num_queues = htole16((uint16_t)t->vdev->n_queues),
		.cfg.device_status = transport_status(t),
		.cfg.config_generation = t->generation,
		.cfg.queue_select = htole16(v->queue_select),
		.cfg.queue_msix_vector = htole16(VIRTIO_MSI_NO_VECTOR),
	};
	if (v->device_feature_select < 2)
		c->device_feature =
			htole32((uint32_t)(t->offered >> (32 * v->device_feature_select)));
	if (v->driver_feature_select < 2)
		c->guest_feature =
			htole32((uint32_t)(t->accepted >> (32 * v->driver_feature_select)));
	/* A queue that is not there has size 0 (4.1.4.3.1). */
	if (n >= t->vdev->n_queues)
		return;
	q = &t->queues[n];
	c->queue_size = htole16(q->size);
	c->queue_msix_vector = htole16(v->vectors[n]);
	c->queue_enable = htole16(q->enable);
	c->queue_notify_off = htole16((uint16_t)n);
	c->queue_desc_lo = htole32((uint32_t)q->desc);
	c->queue_desc_hi = htole32((uint32_t)(q->desc >> 32));
	c->queue_avail_lo = htole32((uint32_t)q->driver);
	c->queue_avail_hi = htole32((uint32_t)(q->driver >> 32));
	c->queue_used_lo = htole32((uint32_t)q->device);
	c->queue_used_hi = htole32((uint32_t)(q->device >> 32));
	image->queue_reset = htole16(q->resetting);
}

static uint64_t common_read(struct virtio_pci *v, uint32_t offset, unsigned int size)
{
	struct common_cfg c;
	uint8_t bytes[8] = {0};

	common_image(v, &c);
	if (range_inside(offset, size, 0, sizeof(c)))
		memcpy(bytes, (const uint8_t *)&c + offset, size);
	return load_le64(bytes);
}

static void write_vector(struct virtio_pci *v, uint16_t *vector, uint64_t value)
{
	/* What cannot be assigned reads back as VIRTIO_MSI_NO_VECTOR (4.1.5.1.2). */
	if (v->t.resetting)
		return;
	*vector = value < msix_vectors(v->msix) ? (uint16_t)value : (uint16_t)VIRTIO_MSI_NO_VECTOR;
	transport_interrupts_changed(&v->t);
}

/* An address of a queue, whole or by halves. */
static void write_address(struct virtio_pci *v, uint64_t *address, unsigned int half,
			  uint64_t value, unsigned int size)
{
	if (!transport_queue_writable(&v->t, v->queue_select))
		return;
	if (size == 8)
		*address = value;
	else if (size == 4)
		*address = (*address & ~(0xffffffffull << (32 * half))) | value << (32 * half);
}

static void write_queue_field(struct virtio_pci *v, uint32_t offset, uint64_t value,
			      unsigned int size)
{
	unsigned int n = v->queue_select;
	struct transport_queue *q;

	if (n >= v->t.vdev->n_queues)
		return;
	q = &v->t.queues[n];
	switch (offset) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		if (size == 2)
			transport_queue_set_size(&v->t, n, (uint16_t)value);
		break;
	case VIRTIO_PCI_COMMON_Q_MSIX:
		if (size == 2)
			write_vector(v, &v->vectors[n], value);
		break;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		if (size == 2 && value == 1)
			transport_queue_enable(&v->t, n);
		break;
	case VIRTIO_PCI_COMMON_Q_DESCLO:
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		write_address(v, &q->desc, offset / 4 & 1, value, size);
		break;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		write_address(v, &q->driver, offset / 4 & 1, value, size);
		break;
	case VIRTIO_PCI_COMMON_Q_USEDLO:
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		write_address(v, &q->device, offset / 4 & 1, value, size);
		break;
	case VIRTIO_PCI_COMMON_Q_RESET:
		if (size == 2 && value == 1)
			transport_queue_reset(&v->t, n);
		break;
	default:
		break;
	}
}

/* Of the fields with fewer than 4 bytes where an aligned access can be wider; 0: any other. */
static unsigned int narrow_field_bytes(uint32_t offset)
{
	switch (offset) {
	case VIRTIO_PCI_COMMON_STATUS:
		return 1;
	case VIRTIO_PCI_COMMON_MSIX:
	case VIRTIO_PCI_COMMON_Q_SIZE:
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		return 2;
	default:
		return 0;
	}
}

static void common_write(struct virtio_pci *v, uint32_t offset, uint64_t value, unsigned int size)
{
	unsigned int bytes = narrow_field_bytes(offset);

	if (bytes && size > bytes && size <= 4) {
		size = bytes;
		value &= (1u << 8 * bytes) - 1;
	}
	switch (offset) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		if (size == 4)
			v->device_feature_select = (uint32_t)value;
		break;
	case VIRTIO_PCI_COMMON_GFSELECT:
		if (size == 4)
			v->driver_feature_select = (uint32_t)value;
		break;
	case VIRTIO_PCI_COMMON_GF:
		if (size == 4)
			transport_write_features(&v->t, v->driver_feature_select, (uint32_t)value);
		break;
	case VIRTIO_PCI_COMMON_MSIX:
		if (size == 2)
			write_vector(v, &v->config_vector, value);
		break;
	case VIRTIO_PCI_COMMON_STATUS:
		if (size == 1)
			transport_write_status(&v->t, (uint8_t)value);
		break;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		if (size == 2)
			v->queue_select = (uint16_t)value;
		break;
	default:
		write_queue_field(v, offset, value, size);
		break;
	}
}

/* The BAR. Accesses are naturally aligned, so none crosses a window. */

static uint64_t bar_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct virtio_pci *v = opaque;
	uint32_t at = (uint32_t)offset % VIRTIO_PCI_WINDOW_BYTES;
	uint8_t bytes[8] = {0};
	uint8_t isr;

	switch (offset - at) {
	case VIRTIO_PCI_AT_COMMON:
		return common_read(v, at, size);
	case VIRTIO_PCI_AT_ISR:
		if (at)
			return 0;
		isr = v->isr;
		virtio_pci_set_isr(v, 0);
		return isr;
	case VIRTIO_PCI_AT_DEVICE:
		transport_config_read(&v->t, at, bytes, size);
		return load_le64(bytes);
	case VIRTIO_PCI_AT_MSIX_TABLE:
		return size < 4 ? 0 : msix_table_read(v->msix, at, size);
	case VIRTIO_PCI_AT_MSIX_PBA:
		return size < 4 ? 0 : msix_pba_read(v->msix, at, size);
	default:
		return 0;
	}
}

/* Where KVM has no ioeventfd for it. A queue that is served here may wait for a thread that needs
 * the device's lock. An access through VIRTIO_PCI_CAP_PCI_CFG holds other locks too, so the queue's
 * loop serves it. */
static void notified(struct virtio_pci *v, unsigned int index, bool by_cap)
{
	struct virtio_queue *q = &v->t.vdev->queues[index];

	if (!q->serve_in_vcpu || by_cap) {
		fd_event_signal(q->kick_fd);
		return;
	}
	pthread_mutex_unlock(&v->dev.lock);
	virtio_queue_notify(q);
	pthread_mutex_lock(&v->dev.lock);
}

static void notify_write(struct virtio_pci *v, uint32_t at, bool by_cap)
{
	if (at % VIRTIO_PCI_NOTIFY_BYTES == 0 && at / VIRTIO_PCI_NOTIFY_BYTES < v->t.vdev->n_queues)
		notified(v, at / VIRTIO_PCI_NOTIFY_BYTES, by_cap);
}

void virtio_pci_window_write(struct virtio_pci *v, uint64_t offset, uint64_t value,
			     unsigned int size, bool by_cap)
{
	uint32_t at = (uint32_t)offset % VIRTIO_PCI_WINDOW_BYTES;
	uint8_t bytes[8];

	switch (offset - at) {
	case VIRTIO_PCI_AT_COMMON:
		common_write(v, at, value, size);
		break;
	case VIRTIO_PCI_AT_DEVICE:
		store_le64(bytes, value);
		transport_config_write(&v->t, at, bytes, size);
		break;
	case VIRTIO_PCI_AT_NOTIFY:
		notify_write(v, at, by_cap);
		break;
	case VIRTIO_PCI_AT_MSIX_TABLE:
		if (size >= 4)
			msix_table_write(v->msix, at, value, size);
		break;
	default:
		break;
	}
}

static void bar_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	virtio_pci_window_write(opaque, offset, value, size, false);
}

const struct bus_ops virtio_pci_bar_ops = {
	.read = bar_read,
	.write = bar_write,
};

static uint64_t ports_read(void *opaque, uint64_t offset, unsigned int size)
{
	(void)opaque;
	(void)offset;
	(void)size;
	return 0;
}

static void ports_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	(void)value;
	(void)size;
	notify_write(opaque, (uint32_t)offset, false);
}

const struct bus_ops virtio_pci_ports_ops = {
	.read = ports_read,
	.write = ports_write,
	.min = 1,
	.max = 4,
};
