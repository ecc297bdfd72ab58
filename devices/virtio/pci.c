// SPDX-License-Identifier: Apache-2.0
// virtio over PCI (virtio 1.3, 4.1): the PCI function, with its config space, interrupts and life.

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <linux/pci_regs.h>
#include <linux/virtio_ids.h>

#include "base/le.h"
#include "base/mem.h"
#include "base/num.h"
#include "virtio/pci_impl.h"

enum {
	VENDOR_ID = 0x1af4,
	DEVICE_ID_BASE = 0x1040,
	/* Not below 0x40, so that no legacy driver takes the device (4.1.2.1). */
	SUBSYSTEM_BASE = 0x40,
	REVISION = 1,

	/* The only BAR of 64 bits is behind all others, as in QEMU: drivers that count BARs instead
	 * of registers (those of UEFI's EDK II) reject a device with one behind it. */
	BAR = 4,
	/* Notifications by a port come first among the capabilities: KVM hands a port write on as
	 * it is, where for a write to memory it may have to read and decode the instruction (on AMD
	 * always). */
	PORTS_BAR = 2,
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

/* For queues without an eventfd: INTx; or MSI-X was switched on, or a vector given, a moment
 * ago. */
static void queue_interrupt(struct virtio_transport *t, unsigned int index)
{
	struct virtio_pci *v = of_transport(t);

	pthread_mutex_lock(&v->dev.lock);
	if (!v->msix_on)
		virtio_pci_set_isr(v, v->isr | VIRTIO_PCI_ISR_QUEUE);
	else if (v->vectors[index] != VIRTIO_MSI_NO_VECTOR)
		msix_raise(v->msix, v->vectors[index]);
	pthread_mutex_unlock(&v->dev.lock);
}

static void config_interrupt(struct virtio_transport *t)
{
	struct virtio_pci *v = of_transport(t);
	uint16_t vector = v->config_vector;

	virtio_pci_set_isr(v, v->isr | VIRTIO_PCI_ISR_CONFIG);
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

static void reset_registers(struct virtio_transport *t)
{
	virtio_pci_registers_reset(of_transport(t));
}

static const struct virtio_transport_ops transport_ops = {
	.queue_interrupt = queue_interrupt,
	.config_interrupt = config_interrupt,
	.queue_interrupt_fd = queue_interrupt_fd,
	.dma_allowed = dma_allowed,
	.requester = requester,
	.reset = reset_registers,
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
	       range_inside(*bar_offset, length, 0, VIRTIO_PCI_BAR_BYTES);
}

static void config_read(struct pci_device *pci, unsigned int offset, unsigned int size)
{
	struct virtio_pci *v = of_pci(pci);
	unsigned int bar_size;
	uint32_t at;

	if (access_window(v, offset, size, &at, &bar_size))
		store_le32(v->pci.config + v->access_cap + sizeof(struct virtio_pci_cap),
			   (uint32_t)virtio_pci_bar_ops.read(v, at, bar_size));
}

static void config_written(struct pci_device *pci, unsigned int offset, unsigned int size)
{
	struct virtio_pci *v = of_pci(pci);
	unsigned int bar_size;
	uint32_t at;

	if (access_window(v, offset, size, &at, &bar_size)) {
		uint32_t data =
			load_le32(v->pci.config + v->access_cap + sizeof(struct virtio_pci_cap));

		virtio_pci_window_write(v, at,
					bar_size == 4 ? data : data & ((1u << 8 * bar_size) - 1),
					bar_size, true);
	}
	if (v->msix_on != msix_enabled(v->msix)) {
		v->msix_on = msix_enabled(v->msix);
		virtio_pci_set_isr(v, v->isr);
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
	unsigned int at = add_cap(v, VIRTIO_PCI_CAP_NOTIFY_CFG, bar, offset,
				  queues * VIRTIO_PCI_NOTIFY_BYTES, 4);

	store_le32(v->pci.config + at + sizeof(struct virtio_pci_cap), VIRTIO_PCI_NOTIFY_BYTES);
}

static void add_caps(struct virtio_pci *v, const struct virtio_device *vdev)
{
	unsigned int at;

	add_cap(v, VIRTIO_PCI_CAP_COMMON_CFG, BAR, VIRTIO_PCI_AT_COMMON, sizeof(struct common_cfg),
		0);
	add_cap(v, VIRTIO_PCI_CAP_ISR_CFG, BAR, VIRTIO_PCI_AT_ISR, 1, 0);
	if (vdev->config_bytes)
		add_cap(v, VIRTIO_PCI_CAP_DEVICE_CFG, BAR, VIRTIO_PCI_AT_DEVICE, vdev->config_bytes,
			0);
	/* A driver takes the first that it can use (4.1.4.4). */
	add_notify(v, PORTS_BAR, 0, vdev->n_queues);
	add_notify(v, BAR, VIRTIO_PCI_AT_NOTIFY, vdev->n_queues);

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
	virtio_pci_registers_reset(v);
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
		.offset = offset + (uint64_t)queue * VIRTIO_PCI_NOTIFY_BYTES,
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
			r = add_ioeventfd(v, v->mmio, &v->region, VIRTIO_PCI_AT_NOTIFY, i, err);
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
		.table_offset = VIRTIO_PCI_AT_MSIX_TABLE,
		.pba_offset = VIRTIO_PCI_AT_MSIX_PBA,
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
		.ops = &virtio_pci_ports_ops,
		.opaque = v,
		.name = v->dev.name,
		.size_bytes = power_of_two_up(vdev->n_queues * VIRTIO_PCI_NOTIFY_BYTES),
		.lock = &v->dev.lock,
	};
	v->region = (struct bus_region){
		.ops = &virtio_pci_bar_ops,
		.opaque = v,
		.name = v->dev.name,
		.size_bytes = VIRTIO_PCI_BAR_BYTES,
		.lock = &v->dev.lock,
	};
	pci_device_init(&v->pci, &pci_ops, v->dev.name, &ids);
	v->pci.lock = &v->dev.lock;
	pci_set_bar(&v->pci, BAR, PCI_BAR_MEM64, VIRTIO_PCI_BAR_BYTES, &v->region);
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
	    vdev->config_bytes > VIRTIO_PCI_WINDOW_BYTES)
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
