// SPDX-License-Identifier: Apache-2.0
// Interrupts of the device: the kernel signals eventfds, and KVM takes those.
//
//   device ─ MSI-X, MSI ─► vfio-pci ─► eventfd of msix.c or msi.c ─► irqfd ─► vCPU
//   device ─ INTx ───────► vfio-pci (masks the pin) ─► intx_fd ─► irqfd with resample ─► vCPU
//                             ▲ unmask_fd ◄── end of interrupt ─────────────┘
//
// The kernel gives a device one kind at a time. Which one follows from what the guest enabled:
// MSI-X or MSI, else INTx while the command register permits it.
//
// Without dynamic allocation (before Linux 6.5), more MSI-X vectors are allocated only by freeing
// all of them and requesting a larger block. Interrupts that arrive in between are lost, so every
// vector that was connected is signalled once: drivers tolerate an extra interrupt.
#include <errno.h>
#include <stdlib.h>

#include "base/fd.h"
#include "base/le.h"
#include "passthrough/vfio_pci_impl.h"

enum {
	TRIGGER = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
	UNMASK = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_UNMASK,
};

static unsigned int count_of(struct vfio_pci *v, unsigned int index, uint32_t *flags)
{
	struct vfio_irq_info info;

	if (vfio_get_irq(&v->file, index, &info) || !(info.flags & VFIO_IRQ_INFO_EVENTFD))
		return 0;
	*flags = info.flags;
	return info.count;
}

int vfio_irqs_init(struct vfio_pci *v, struct err *err)
{
	struct vfio_irqs *q = &v->irqs;
	uint32_t flags = 0;

	q->intx_fd = q->unmask_fd = -1;
	q->has_msix = count_of(v, VFIO_PCI_MSIX_IRQ_INDEX, &flags);
	q->has_msix = MIN(q->has_msix, (unsigned int)VFIO_MAX_VECTORS);
	q->dynamic = q->has_msix && !(flags & VFIO_IRQ_INFO_NORESIZE);
	q->has_msi = count_of(v, VFIO_PCI_MSI_IRQ_INDEX, &flags);
	q->has_intx = count_of(v, VFIO_PCI_INTX_IRQ_INDEX, &flags);
	q->fds = calloc(q->has_msix + 1u, sizeof(*q->fds));
	if (!q->fds)
		return err_set(err, -ENOMEM, "out of memory");
	for (unsigned int i = 0; i < q->has_msix; i++)
		q->fds[i] = -1;
	if (!q->has_intx)
		return 0;
	q->intx_fd = fd_eventfd();
	q->unmask_fd = fd_eventfd();
	if (q->intx_fd < 0 || q->unmask_fd < 0) {
		int ret = MIN(q->intx_fd, q->unmask_fd);

		return err_set(err, ret, "cannot create an eventfd for INTx: %s", err_name(ret));
	}
	return 0;
}

void vfio_irqs_done(struct vfio_pci *v)
{
	struct vfio_irqs *q = &v->irqs;

	if (q->intx_fd >= 0)
		fd_close(&q->intx_fd);
	if (q->unmask_fd >= 0)
		fd_close(&q->unmask_fd);
	free(q->fds);
	q->fds = NULL;
}

/* --- INTx --- */

static void intx_stop(struct vfio_pci *v)
{
	struct vfio_irqs *q = &v->irqs;

	irq_line_disconnect(&v->pci.intx);
	vfio_disable_irqs(&v->file, VFIO_PCI_INTX_IRQ_INDEX);
	fd_event_drain(q->intx_fd);
	fd_event_drain(q->unmask_fd);
	q->mode = VFIO_IRQ_NONE;
}

static int intx_start(struct vfio_pci *v)
{
	struct vfio_irqs *q = &v->irqs;
	int ret = vfio_set_irqs(&v->file, VFIO_PCI_INTX_IRQ_INDEX, TRIGGER, 0, 1, &q->intx_fd);

	if (ret)
		return ret;
	q->mode = VFIO_IRQ_INTX;
	ret = vfio_set_irqs(&v->file, VFIO_PCI_INTX_IRQ_INDEX, UNMASK, 0, 1, &q->unmask_fd);
	/* What was signalled meanwhile is in the eventfd, and KVM looks when it takes it. */
	if (!ret)
		ret = irq_line_connect(&v->pci.intx, q->intx_fd, q->unmask_fd);
	if (ret)
		intx_stop(v);
	return ret;
}

void vfio_intx_update(struct vfio_pci *v)
{
	struct vfio_irqs *q = &v->irqs;
	uint16_t command = load_le16(&v->pci.config[PCI_COMMAND]);
	bool want = v->pci.intx.chip && !(command & PCI_COMMAND_INTX_DISABLE) &&
		    command & (PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER) &&
		    !(v->msix && msix_enabled(v->msix)) && !(v->msi && msi_enabled(v->msi)) &&
		    !atomic_load(&v->gone);
	int ret;

	if (q->mode == VFIO_IRQ_INTX && !want)
		intx_stop(v);
	if (q->mode != VFIO_IRQ_NONE || !want || q->intx_failed)
		return;
	ret = intx_start(v);
	if (!ret)
		return;
	q->intx_failed = true;
	log_warn(v->dev.log, v->dev.name,
		 "INTx is not available (%s)%s: the guest's driver needs MSI or MSI-X",
		 err_name(ret),
		 ret == -EBUSY ? ", its line is shared with another device on this host" : "");
}

/* --- MSI-X --- */

static int msix_set(struct vfio_pci *v, unsigned int first, unsigned int n, const int32_t *fds)
{
	return vfio_set_irqs(&v->file, VFIO_PCI_MSIX_IRQ_INDEX, TRIGGER, first, n, fds);
}

static void msix_stop(struct vfio_pci *v)
{
	struct vfio_irqs *q = &v->irqs;

	vfio_disable_irqs(&v->file, VFIO_PCI_MSIX_IRQ_INDEX);
	for (unsigned int i = 0; i < q->has_msix; i++)
		q->fds[i] = -1;
	q->allocated = q->connected = 0;
	q->mode = VFIO_IRQ_NONE;
}

/* A larger block: vectors 0 to n - 1 as fds say. */
static int msix_enlarge(struct vfio_pci *v, unsigned int n)
{
	struct vfio_irqs *q = &v->irqs;
	int ret;

	if (q->mode == VFIO_IRQ_MSIX)
		vfio_disable_irqs(&v->file, VFIO_PCI_MSIX_IRQ_INDEX);
	ret = msix_set(v, 0, n, q->fds);
	if (ret && q->allocated) /* what there was before */
		msix_set(v, 0, q->allocated, q->fds);
	for (unsigned int i = 0; i < q->allocated; i++) {
		if (q->fds[i] >= 0)
			fd_event_signal(q->fds[i]);
	}
	if (ret)
		return ret;
	q->mode = VFIO_IRQ_MSIX;
	q->allocated = n;
	return 0;
}

static int msix_connect(struct vfio_pci *v, unsigned int i)
{
	struct vfio_irqs *q = &v->irqs;
	int32_t none = -1;
	int ret;

	if (!q->dynamic && i >= q->allocated)
		return msix_enlarge(v, i + 1);
	if (q->mode != VFIO_IRQ_MSIX) {
		/* the smallest block, to which others are added */
		ret = msix_set(v, 0, 1, i ? &none : &q->fds[0]);
		if (ret)
			return ret;
		q->mode = VFIO_IRQ_MSIX;
		q->allocated = 1;
		if (!i)
			return 0;
	}
	return msix_set(v, i, 1, &q->fds[i]);
}

/* msix.c's hook: vector i got a route, or lost it. */
int vfio_msix_used(void *opaque, unsigned int i, bool on)
{
	struct vfio_pci *v = opaque;
	struct vfio_irqs *q = &v->irqs;
	int32_t none = -1;
	int ret;

	if (i >= q->has_msix)
		return -EINVAL;
	if (!on) {
		if (q->mode != VFIO_IRQ_MSIX || q->fds[i] < 0)
			return 0;
		q->fds[i] = -1;
		q->connected--;
		if (!q->connected || !msix_enabled(v->msix))
			msix_stop(v);
		else
			msix_set(v, i, 1, &none);
		return 0;
	}
	if (atomic_load(&v->gone))
		return -ENODEV;
	if (q->mode == VFIO_IRQ_INTX)
		intx_stop(v);
	if (q->mode == VFIO_IRQ_MSI)
		return -EBUSY; /* MSI is on too: undefined, and the guest's to mend */
	q->fds[i] = msix_fd(v->msix, i);
	ret = msix_connect(v, i);
	if (ret)
		q->fds[i] = -1;
	else
		q->connected++;
	return ret;
}

/* --- MSI --- */

int vfio_msi_used(void *opaque, unsigned int n)
{
	struct vfio_pci *v = opaque;
	struct vfio_irqs *q = &v->irqs;
	int32_t fds[MSI_MAX_VECTORS];
	int ret;

	if (!n) {
		if (q->mode == VFIO_IRQ_MSI) {
			vfio_disable_irqs(&v->file, VFIO_PCI_MSI_IRQ_INDEX);
			q->mode = VFIO_IRQ_NONE;
		}
		return 0;
	}
	if (atomic_load(&v->gone))
		return -ENODEV;
	if (q->mode == VFIO_IRQ_INTX)
		intx_stop(v);
	if (q->mode != VFIO_IRQ_NONE)
		return -EBUSY;
	for (unsigned int i = 0; i < n; i++)
		fds[i] = msi_fd(v->msi, i);
	ret = vfio_set_irqs(&v->file, VFIO_PCI_MSI_IRQ_INDEX, TRIGGER, 0, n, fds);
	if (!ret)
		q->mode = VFIO_IRQ_MSI;
	return ret;
}

void vfio_irqs_off(struct vfio_pci *v)
{
	if (v->irqs.mode == VFIO_IRQ_INTX)
		intx_stop(v);
	if (v->irqs.mode == VFIO_IRQ_MSIX)
		msix_stop(v);
	if (v->irqs.mode == VFIO_IRQ_MSI)
		vfio_msi_used(v, 0);
}
