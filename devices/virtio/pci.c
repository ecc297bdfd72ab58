// SPDX-License-Identifier: Apache-2.0
// virtio over PCI (virtio 1.3, 4.1): registers, capabilities, interrupts. What the registers mean
// is in transport.c.
#include "virtio/pci.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <linux/pci_regs.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_pci.h>

#include "base/fd.h"
#include "base/le.h"
#include "base/mem.h"
#include "base/num.h"
#include "core/msix.h"
#include "core/state.h"
#include "virtio/transport.h"

enum {
	VENDOR_ID = 0x1af4,
	DEVICE_ID_BASE = 0x1040,
	/* Not below 0x40, so that no legacy driver takes the device (4.1.2.1). */
	SUBSYSTEM_BASE = 0x40,
	REVISION = 1,

	BAR = 0,
	WINDOW_BYTES = 0x1000,
	COMMON = 0x0000,
	ISR = 0x1000,
	DEVICE = 0x2000,
	NOTIFY = 0x3000,
	MSIX_TABLE = 0x4000,
	MSIX_PBA = 0x5000,
	BAR_BYTES = 0x8000,
	NOTIFY_MULTIPLIER = 4,
	/* Notifications by a port come first among the capabilities: KVM hands a port write on as
	 * it is, where for a write to memory it may have to read and decode the instruction (on AMD
	 * always). */
	PORTS_BAR = 2,

	ISR_QUEUE = 1, /* VIRTIO_PCI_ISR_CONFIG is the other */
};

static_assert(VIRTIO_MAX_QUEUES * NOTIFY_MULTIPLIER <= WINDOW_BYTES, "notify window");
static_assert((VIRTIO_MAX_QUEUES + 1) * MSIX_ENTRY_BYTES <= WINDOW_BYTES, "MSI-X table");

/* 4.1.4.3: what the kernel's older headers have not is at the end. */
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

static struct virtio_pci *of_dev(struct device *dev)
{
	return container_of(dev, struct virtio_pci, dev);
}

static struct virtio_pci *of_pci(struct pci_device *pci)
{
	return container_of(pci, struct virtio_pci, pci);
}

static struct virtio_pci *of_transport(struct virtio_transport *t)
{
	return container_of(t, struct virtio_pci, t);
}

/* Interrupts (4.1.5.3, 4.1.5.4) */

static void set_isr(struct virtio_pci *v, uint8_t isr)
{
	v->isr = isr;
	/* Without MSI-X the line is the OR of the bits (4.1.4.5.1). */
	pci_set_intx(&v->pci, isr && !v->msix_on);
}

/* For queues without an eventfd: INTx; or MSI-X was switched on, or a vector given, a moment
 * ago. */
static void queue_interrupt(struct virtio_transport *t, unsigned int index)
{
	struct virtio_pci *v = of_transport(t);

	pthread_mutex_lock(&v->dev.lock);
	if (!v->msix_on)
		set_isr(v, v->isr | ISR_QUEUE);
	else if (v->vectors[index] != VIRTIO_MSI_NO_VECTOR)
		msix_raise(v->msix, v->vectors[index]);
	pthread_mutex_unlock(&v->dev.lock);
}

static void config_interrupt(struct virtio_transport *t)
{
	struct virtio_pci *v = of_transport(t);
	uint16_t vector = v->config_vector;

	set_isr(v, v->isr | VIRTIO_PCI_ISR_CONFIG);
	if (v->msix_on && vector != VIRTIO_MSI_NO_VECTOR)
		msix_raise(v->msix, vector);
}

static int queue_interrupt_fd(struct virtio_transport *t, unsigned int index)
{
	struct virtio_pci *v = of_transport(t);
	uint16_t vector = v->vectors[index];

	return v->msix_on && vector != VIRTIO_MSI_NO_VECTOR ? msix_fd(v->msix, vector) : -1;
}

static bool dma_allowed(struct virtio_transport *t)
{
	return pci_bus_master(&of_transport(t)->pci);
}

static uint32_t requester(struct virtio_transport *t)
{
	return pci_requester_id(&of_transport(t)->pci);
}

static void registers_reset(struct virtio_transport *t)
{
	struct virtio_pci *v = of_transport(t);

	v->device_feature_select = 0;
	v->driver_feature_select = 0;
	v->queue_select = 0;
	/* 4.1.5.1.2.1 */
	v->config_vector = VIRTIO_MSI_NO_VECTOR;
	for (unsigned int i = 0; i < t->vdev->n_queues; i++)
		v->vectors[i] = VIRTIO_MSI_NO_VECTOR;
	set_isr(v, 0);
}

static const struct virtio_transport_ops transport_ops = {
	.queue_interrupt = queue_interrupt,
	.config_interrupt = config_interrupt,
	.queue_interrupt_fd = queue_interrupt_fd,
	.dma_allowed = dma_allowed,
	.requester = requester,
	.reset = registers_reset,
};

/* Common configuration (4.1.4.3). A read is served from an image of the registers, so any size at
 * any offset is well-defined; a write must be of one field, as the specification demands, or it is
 * ignored. */

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

static void common_write(struct virtio_pci *v, uint32_t offset, uint64_t value, unsigned int size)
{
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
	uint32_t at = (uint32_t)offset % WINDOW_BYTES;
	uint8_t bytes[8] = {0};
	uint8_t isr;

	switch (offset - at) {
	case COMMON:
		return common_read(v, at, size);
	case ISR:
		if (at)
			return 0;
		isr = v->isr;
		set_isr(v, 0);
		return isr;
	case DEVICE:
		transport_config_read(&v->t, at, bytes, size);
		return load_le64(bytes);
	case MSIX_TABLE:
		return size < 4 ? 0 : msix_table_read(v->msix, at, size);
	case MSIX_PBA:
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
	if (at % NOTIFY_MULTIPLIER == 0 && at / NOTIFY_MULTIPLIER < v->t.vdev->n_queues)
		notified(v, at / NOTIFY_MULTIPLIER, by_cap);
}

static void window_write(struct virtio_pci *v, uint64_t offset, uint64_t value, unsigned int size,
			 bool by_cap)
{
	uint32_t at = (uint32_t)offset % WINDOW_BYTES;
	uint8_t bytes[8];

	switch (offset - at) {
	case COMMON:
		common_write(v, at, value, size);
		break;
	case DEVICE:
		store_le64(bytes, value);
		transport_config_write(&v->t, at, bytes, size);
		break;
	case NOTIFY:
		notify_write(v, at, by_cap);
		break;
	case MSIX_TABLE:
		if (size >= 4)
			msix_table_write(v->msix, at, value, size);
		break;
	default:
		break;
	}
}

static void bar_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	window_write(opaque, offset, value, size, false);
}

static const struct bus_ops bar_ops = {
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

static const struct bus_ops ports_ops = {
	.read = ports_read,
	.write = ports_write,
	.min = 1,
	.max = 4,
};

/* Config space */

/* The window to BARs for firmware that cannot map them (4.1.4.9): true and the access when what the
 * driver put into the capability is one that it may make. */
static bool access_window(struct virtio_pci *v, unsigned int offset, unsigned int size,
			  uint32_t *bar_offset, unsigned int *bar_size)
{
	const uint8_t *cap = v->pci.config + v->access_cap;
	uint32_t length = load_le32(cap + offsetof(struct virtio_pci_cap, length));
	unsigned int data = v->access_cap + (unsigned int)sizeof(struct virtio_pci_cap);

	*bar_offset = load_le32(cap + offsetof(struct virtio_pci_cap, offset));
	*bar_size = length;
	return ranges_overlap(offset, size, data, 4) &&
	       cap[offsetof(struct virtio_pci_cap, bar)] == BAR &&
	       (length == 1 || length == 2 || length == 4) && is_aligned(*bar_offset, length) &&
	       range_inside(*bar_offset, length, 0, BAR_BYTES);
}

static void config_read(struct pci_device *pci, unsigned int offset, unsigned int size)
{
	struct virtio_pci *v = of_pci(pci);
	unsigned int bar_size;
	uint32_t at;

	if (access_window(v, offset, size, &at, &bar_size))
		store_le32(v->pci.config + v->access_cap + sizeof(struct virtio_pci_cap),
			   (uint32_t)bar_read(v, at, bar_size));
}

static void config_written(struct pci_device *pci, unsigned int offset, unsigned int size)
{
	struct virtio_pci *v = of_pci(pci);
	unsigned int bar_size;
	uint32_t at;

	if (access_window(v, offset, size, &at, &bar_size)) {
		uint32_t data =
			load_le32(v->pci.config + v->access_cap + sizeof(struct virtio_pci_cap));

		window_write(v, at, bar_size == 4 ? data : data & ((1u << 8 * bar_size) - 1),
			     bar_size, true);
	}
	if (v->msix_on != msix_enabled(v->msix)) {
		v->msix_on = msix_enabled(v->msix);
		set_isr(v, v->isr);
		transport_interrupts_changed(&v->t);
	}
	/* Bus mastering may have changed. */
	transport_update(&v->t);
}

/* The bus above was reset by the guest. What was in flight may end a little later; until then
 * status does not read 0. */
static void bus_reset(struct pci_device *pci)
{
	struct virtio_pci *v = of_pci(pci);

	v->msix_on = false;
	transport_reset_begin(&v->t);
}

static const struct pci_device_ops pci_ops = {
	.config_written = config_written,
	.config_read = config_read,
	.reset = bus_reset,
};

static unsigned int add_cap(struct virtio_pci *v, uint8_t type, unsigned int bar, uint32_t offset,
			    uint32_t length, unsigned int extra_bytes)
{
	unsigned int len = (unsigned int)sizeof(struct virtio_pci_cap) + extra_bytes;
	unsigned int at = pci_add_cap(&v->pci, PCI_CAP_ID_VNDR, len);
	uint8_t *c = v->pci.config + at;

	c[offsetof(struct virtio_pci_cap, cap_len)] = (uint8_t)len;
	c[offsetof(struct virtio_pci_cap, cfg_type)] = type;
	c[offsetof(struct virtio_pci_cap, bar)] = (uint8_t)bar;
	store_le32(c + offsetof(struct virtio_pci_cap, offset), offset);
	store_le32(c + offsetof(struct virtio_pci_cap, length), length);
	return at;
}

static void add_notify(struct virtio_pci *v, unsigned int bar, uint32_t offset, unsigned int queues)
{
	unsigned int at =
		add_cap(v, VIRTIO_PCI_CAP_NOTIFY_CFG, bar, offset, queues * NOTIFY_MULTIPLIER, 4);

	store_le32(v->pci.config + at + sizeof(struct virtio_pci_cap), NOTIFY_MULTIPLIER);
}

static void add_caps(struct virtio_pci *v, const struct virtio_device *vdev)
{
	unsigned int at;

	add_cap(v, VIRTIO_PCI_CAP_COMMON_CFG, BAR, COMMON, sizeof(struct common_cfg), 0);
	add_cap(v, VIRTIO_PCI_CAP_ISR_CFG, BAR, ISR, 1, 0);
	if (vdev->config_bytes)
		add_cap(v, VIRTIO_PCI_CAP_DEVICE_CFG, BAR, DEVICE, vdev->config_bytes, 0);
	/* A driver takes the first that it can use (4.1.4.4). */
	add_notify(v, PORTS_BAR, 0, vdev->n_queues);
	add_notify(v, BAR, NOTIFY, vdev->n_queues);

	at = add_cap(v, VIRTIO_PCI_CAP_PCI_CFG, BAR, 0, 0, 4);
	v->access_cap = at;
	v->pci.wmask[at + offsetof(struct virtio_pci_cap, bar)] = 0xff;
	memset(v->pci.wmask + at + offsetof(struct virtio_pci_cap, offset), 0xff, 12);
}

static uint32_t class_code(uint16_t id)
{
	switch (id) {
	case VIRTIO_ID_NET:
		return 0x020000; /* Ethernet controller */
	case VIRTIO_ID_BLOCK:
		return 0x018000; /* other mass storage */
	case VIRTIO_ID_CONSOLE:
		return 0x078000; /* other communication controller */
	default:
		return 0x00ff00; /* none of the classes */
	}
}

/* The machine's side */

static void virtio_pci_reset(struct device *dev)
{
	struct virtio_pci *v = of_dev(dev);

	transport_reset(&v->t);
	pci_device_reset(&v->pci);
	pthread_mutex_lock(&dev->lock);
	v->msix_on = false;
	registers_reset(&v->t);
	pthread_mutex_unlock(&dev->lock);
}

static void virtio_pci_quiesce(struct device *dev, unsigned int phase)
{
	transport_quiesce(&of_dev(dev)->t, phase);
}

static void virtio_pci_resume(struct device *dev)
{
	transport_resume(&of_dev(dev)->t);
}

static void take_down(struct virtio_pci *v)
{
	while (v->n_ioeventfds) {
		struct bus_ioeventfd *e = &v->ioeventfd[--v->n_ioeventfds];

		bus_ioeventfd_del(e->region == &v->ports ? v->pio : v->mmio, e);
	}
	if (v->attached)
		pci_detach(&v->pci);
	if (v->msix)
		msix_done(v->msix);
	transport_done(&v->t);
	device_done(&v->dev);
}

static void virtio_pci_destroy(struct device *dev)
{
	struct virtio_pci *v;
	struct virtio_device *vdev;

	if (!dev)
		return;
	v = of_dev(dev);
	vdev = v->t.vdev;
	/* Quiesced by contract; what was posted since has to run out all the same. */
	transport_quiesce(&v->t, 1);
	take_down(v);
	vdev->ops->destroy(vdev);
	free(v);
}

static const struct state_field pci_fields[] = {
	STATE_ONE(struct virtio_pci, device_feature_select),
	STATE_ONE(struct virtio_pci, driver_feature_select),
	STATE_ONE(struct virtio_pci, queue_select),
	STATE_ONE(struct virtio_pci, isr, .mask = ISR_QUEUE | VIRTIO_PCI_ISR_CONFIG),
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

static int virtio_pci_save(struct device *dev, struct state_writer *w, struct err *err)
{
	struct virtio_pci *v = of_dev(dev);

	pci_device_save(&v->pci, w);
	state_save(w, &pci_section, v, 1);
	return transport_save(&v->t, w, err);
}

static int virtio_pci_load(struct device *dev, struct state_reader *r, struct err *err)
{
	struct virtio_pci *v = of_dev(dev);
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
	set_isr(v, v->isr);
	pthread_mutex_unlock(&dev->lock);
	return 0;
}

static const struct device_ops device_ops = {
	.type = "virtio-pci",
	.reset = virtio_pci_reset,
	.quiesce = virtio_pci_quiesce,
	.resume = virtio_pci_resume,
	.destroy = virtio_pci_destroy,
	.save = virtio_pci_save,
	.load = virtio_pci_load,
};

static int add_ioeventfd(struct virtio_pci *v, struct bus *bus, struct bus_region *region,
			 uint64_t offset, unsigned int queue, struct err *err)
{
	struct bus_ioeventfd *e = &v->ioeventfd[v->n_ioeventfds];
	int r;

	*e = (struct bus_ioeventfd){
		.region = region,
		.offset = offset + (uint64_t)queue * NOTIFY_MULTIPLIER,
		.fd = v->t.vdev->queues[queue].kick_fd,
	};
	r = bus_ioeventfd_add(bus, e);
	if (r)
		return err_set(err, r, "ioeventfd of queue %u: %s", queue, err_name(r));
	v->n_ioeventfds++;
	return 0;
}

static int add_ioeventfds(struct virtio_pci *v, struct err *err)
{
	int r = 0;

	for (unsigned int i = 0; i < v->t.vdev->n_queues && !r; i++) {
		if (v->t.vdev->queues[i].serve_in_vcpu)
			continue;
		r = add_ioeventfd(v, v->pio, &v->ports, 0, i, err);
		if (!r)
			r = add_ioeventfd(v, v->mmio, &v->region, NOTIFY, i, err);
	}
	return r;
}

static int set_up(struct virtio_pci *v, const struct device_env *env,
		  const struct virtio_pci_config *config, struct virtio_device *vdev,
		  struct err *err)
{
	const struct msix_config msix = {
		.vectors = vdev->n_queues + 1,
		.bar = BAR,
		.table_offset = MSIX_TABLE,
		.pba_offset = MSIX_PBA,
	};
	uint64_t offered = 1ull << VIRTIO_RING_F_INDIRECT_DESC | 1ull << VIRTIO_RING_F_EVENT_IDX |
			   1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_F_RING_RESET;
	const struct pci_ids ids = {
		.vendor = VENDOR_ID,
		.device = (uint16_t)(DEVICE_ID_BASE + vdev->ops->id),
		.subsystem_vendor = VENDOR_ID,
		.subsystem = (uint16_t)(SUBSYSTEM_BASE + vdev->ops->id),
		.revision = REVISION,
		.class_code = class_code(vdev->ops->id),
		.pin = 1,
	};
	int r;

	if (config->platform_dma)
		offered |= 1ull << VIRTIO_F_ACCESS_PLATFORM;
	v->mmio = env->mmio;
	v->pio = env->pio;
	v->ports = (struct bus_region){
		.ops = &ports_ops,
		.opaque = v,
		.name = v->dev.name,
		.size_bytes = power_of_two_up(vdev->n_queues * NOTIFY_MULTIPLIER),
		.lock = &v->dev.lock,
	};
	v->region = (struct bus_region){
		.ops = &bar_ops,
		.opaque = v,
		.name = v->dev.name,
		.size_bytes = BAR_BYTES,
		.lock = &v->dev.lock,
	};
	pci_device_init(&v->pci, &pci_ops, v->dev.name, &ids);
	v->pci.lock = &v->dev.lock;
	pci_set_bar(&v->pci, BAR, PCI_BAR_MEM64, BAR_BYTES, &v->region);
	pci_set_bar(&v->pci, PORTS_BAR, PCI_BAR_IO, v->ports.size_bytes, &v->ports);
	add_caps(v, vdev);
	r = msix_init(&v->msix, &v->pci, env->irq, &msix, err);
	if (!r)
		r = transport_init(&v->t, &transport_ops, vdev, &v->dev.lock, env->dma, offered,
				   err);
	if (r)
		return r;
	v->config_vector = VIRTIO_MSI_NO_VECTOR;
	for (unsigned int i = 0; i < vdev->n_queues; i++)
		v->vectors[i] = VIRTIO_MSI_NO_VECTOR;
	r = pci_attach(&v->pci, config->bus, config->addr, err);
	if (r)
		return r;
	v->attached = true;
	return add_ioeventfds(v, err);
}

int virtio_pci_create(struct device **ret, const struct device_env *env,
		      const struct virtio_pci_config *config, struct virtio_device *vdev,
		      struct err *err)
{
	struct virtio_pci *v;
	int r;

	if (!vdev->n_queues || vdev->n_queues > VIRTIO_MAX_QUEUES ||
	    vdev->config_bytes > WINDOW_BYTES)
		return err_set(err, -EINVAL, "%s: %u queues, %u bytes of configuration", vdev->name,
			       vdev->n_queues, vdev->config_bytes);
	if (!mem_new(v))
		return err_set(err, -ENOMEM, "%s: no memory", vdev->name);
	device_init(&v->dev, &device_ops, vdev->name, env->log);
	r = set_up(v, env, config, vdev, err);
	if (r) {
		take_down(v);
		free(v);
		return err_prefix(err, "%s", vdev->name);
	}
	*ret = &v->dev;
	return 0;
}

const struct pci_addr *virtio_pci_addr(const struct device *dev)
{
	return &container_of((struct device *)(uintptr_t)dev, struct virtio_pci, dev)->pci.addr;
}
