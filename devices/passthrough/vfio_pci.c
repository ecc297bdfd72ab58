// SPDX-License-Identifier: Apache-2.0
// A passed-through device: put together and taken apart.
#include "passthrough/vfio_pci.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "passthrough/vfio_pci_impl.h"

static struct vfio_pci *of_dev(struct device *dev)
{
	return container_of(dev, struct vfio_pci, dev);
}

static void tell_reset(struct vfio_pci *v)
{
	struct err err = ERR_INIT;

	if (vfio_reset(v, &err))
		log_guest(v->dev.log, &v->dev.limit, v->dev.name, "%s; it keeps the state it has",
			  err.text);
}

/* The guest resets the function or a bus above: under the root's lock and the device's. */
static void pci_was_reset(struct pci_device *pci)
{
	tell_reset(vfio_of_pci(pci));
}

static const struct pci_device_ops pci_ops = {
	.config_write = vfio_config_write,
	.config_written = vfio_config_written,
	.config_read = vfio_config_read,
	.bar_mapped = vfio_bar_mapped,
	.reset = pci_was_reset,
};

static void device_reset(struct device *dev)
{
	struct vfio_pci *v = of_dev(dev);

	/* The event's thread may be at a reset of its own. */
	if (v->pci.root)
		pci_root_lock(v->pci.root);
	pthread_mutex_lock(&dev->lock);
	pci_device_reset(&v->pci);
	tell_reset(v);
	pthread_mutex_unlock(&dev->lock);
	if (v->pci.root)
		pci_root_unlock(v->pci.root);
}

/* The hardware goes on while vCPUs are paused: its DMA and interrupts wait for the guest as they
 * would for a slow one. It cannot be stopped without breaking its driver's assumptions; snapshots,
 * which need that, require a device that can migrate. */
static void device_quiesce(struct device *dev, unsigned int phase)
{
	(void)dev;
	(void)phase;
}

static void device_resume(struct device *dev)
{
	(void)dev;
}

static void device_destroy(struct device *dev)
{
	struct vfio_pci *v;
	struct err err = ERR_INIT;

	if (!dev)
		return;
	v = of_dev(dev);
	vfio_events_done(v);
	if (v->attached)
		pci_detach(&v->pci);
	vfio_config_done(v);
	pthread_mutex_lock(&dev->lock);
	if (v->ready && vfio_reset(v, &err))
		log_warn(dev->log, dev->name, "%s; it is left as the guest had it", err.text);
	pthread_mutex_unlock(&dev->lock);
	vfio_bars_done(v);
	vfio_irqs_done(v);
	device_done(dev);
	free(v);
}

static int device_save(struct device *dev, struct state_writer *w, struct err *err)
{
	(void)w;
	return err_set(err, -EOPNOTSUPP,
		       "%s: the state of a passed-through device is in its hardware, from which "
		       "it cannot be had yet; remove the device first",
		       dev->name);
}

static int device_load(struct device *dev, struct state_reader *r, struct err *err)
{
	(void)r;
	return err_set(err, -EOPNOTSUPP, "%s: no state can be put into a passed-through device yet",
		       dev->name);
}

static const struct device_ops device_ops = {
	.type = "vfio-pci",
	.reset = device_reset,
	.quiesce = device_quiesce,
	.resume = device_resume,
	.destroy = device_destroy,
	.save = device_save,
	.load = device_load,
};

/* Everything that talks to the device, before the guest can. */
static int set_up(struct vfio_pci *v, const struct device_env *env, struct err *err)
{
	struct err why = ERR_INIT;
	int ret;

	ret = vfio_irqs_init(v, err);
	if (ret)
		return ret;
	vfio_reset_probe(v, &why);
	if (!v->resets)
		log_warn(
			env->log, v->dev.name,
			"%s: it cannot be reset, so that the guest finds it as it was left, and the "
			"next one likewise: %s",
			v->bdf, why.text);
	ret = vfio_config_init(v, &pci_ops, pci_bus_is_root(v->config.bus), err);
	if (ret)
		return ret;
	v->ready = true;
	if (v->resets && !(v->config.fresh && v->resets & VFIO_RESET_FUNCTION)) {
		ret = vfio_reset(v, err);
		if (ret)
			return ret;
	}
	ret = vfio_command_set(v, false);
	if (ret)
		return err_set(err, ret, "cannot write its command register: %s", err_name(ret));
	return vfio_bars_map(v, err);
}

int vfio_pci_create_on(struct device **ret, const struct device_env *env,
		       const struct vfio_pci_config *config, const struct vfio_file *file,
		       const struct vfio_host *host, struct err *err)
{
	struct vfio_pci *v;
	int r;

	if (!mem_new(v))
		return err_set(err, -ENOMEM, "%s: out of memory", config->name);
	device_init(&v->dev, &device_ops, config->name, env->log);
	v->config = *config;
	snprintf(v->bdf, sizeof(v->bdf), "%s", config->bdf);
	v->config.name = v->dev.name;
	v->config.bdf = v->bdf;
	v->config.addr = NULL;
	v->file = *file;
	if (file->opaque == file) /* the real one's is itself */
		v->file.opaque = &v->file;
	v->host = *host;
	v->mmio = env->mmio;
	v->irq = env->irq;
	v->irqs.intx_fd = v->irqs.unmask_fd = -1;
	r = set_up(v, env, err);
	if (!r) {
		r = pci_attach(&v->pci, config->bus, config->addr, err);
		v->attached = !r;
	}
	if (!r)
		r = vfio_events_init(v, env->loop, err);
	if (r) {
		err_prefix(err, "%s", v->bdf);
		device_destroy(&v->dev);
		return r;
	}
	*ret = &v->dev;
	return 0;
}

struct pci_device *vfio_pci_function(struct device *dev)
{
	return &of_dev(dev)->pci;
}

void vfio_pci_status(struct device *dev, struct vfio_pci_status *ret)
{
	static const char *const names[] = {
		[VFIO_IRQ_NONE] = "none",
		[VFIO_IRQ_INTX] = "INTx",
		[VFIO_IRQ_MSI] = "MSI",
		[VFIO_IRQ_MSIX] = "MSI-X",
	};
	struct vfio_pci *v = of_dev(dev);

	pthread_mutex_lock(&dev->lock);
	*ret = (struct vfio_pci_status){
		.interrupt = names[v->irqs.mode],
		.vectors = v->irqs.mode == VFIO_IRQ_MSIX  ? v->irqs.connected
			   : v->irqs.mode == VFIO_IRQ_MSI ? msi_enabled(v->msi)
							  : v->irqs.mode == VFIO_IRQ_INTX,
		.resets = v->resets,
		.gone = atomic_load(&v->gone),
		.trapped = atomic_load(&v->config_traps),
	};
	for (unsigned int i = 0; i < PCI_PLACES; i++)
		ret->trapped += atomic_load(&v->bars[i].region.traps);
	pthread_mutex_unlock(&dev->lock);
}
