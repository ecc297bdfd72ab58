/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A passed-through device: VFIO's device becomes a PCI function of the machine.
 *
 *   config space   a copy that the guest sees (config_space.c): the capabilities in caps.c
 *   BARs           memory of the device, mapped into the guest: no exits (bars.c)
 *   interrupts     MSI-X, MSI and INTx by eventfd into KVM (interrupts.c)
 *   reset          when attached, when the guest is reset, at the end; FLR, else a hot reset of
 *                  exactly the set that the kernel names (reset.c)
 *   errors         ERR and REQ interrupts (events.c)
 *
 * Its endpoint must be attached already, so that its first DMA has an address space.
 *
 * Threads: creation and destruction in the machine's thread; the rest as core/device.h says.
 * Errors: a negative errno, with err on set-up. Ownership: files and the endpoint stay the
 * caller's.
 */
#ifndef PASSTHROUGH_VFIO_PCI_H
#define PASSTHROUGH_VFIO_PCI_H

#include "base/err.h"
#include "core/arch.h"
#include "core/device.h"
#include "core/pci.h"
#include "iommu/ioas.h"

enum vfio_on_error {
	VFIO_ON_ERROR_LOG,
	VFIO_ON_ERROR_RESET, /* reset the device; its driver in the guest notices */
	VFIO_ON_ERROR_PAUSE,
	VFIO_ON_ERROR_STOP,
};

enum vfio_event {
	VFIO_EVENT_ERROR,     /* the device reported an uncorrectable error */
	VFIO_EVENT_REQUESTED, /* the host requests the device: release it soon */
	VFIO_EVENT_GONE,      /* it no longer responds */
	VFIO_EVENT_RESET,
};

struct vfio_pci_config {
	const char *name;                /* the user's id */
	const char *bdf;                 /* of the host, for messages */
	struct iommu_endpoint *endpoint; /* attached; stays the caller's, outlives the device */
	/* type1: the group of the endpoint, to prove that a bus is ours when it is to be reset; the
	 * caller's. -1 with iommufd, which knows. */
	int group_fd;
	unsigned int group;
	struct arch_vm *arch; /* where BARs are mapped into the guest; outlives the device */
	struct pci_bus *bus;
	const struct pci_addr *addr; /* NULL: the lowest free slot of bus */
	enum vfio_on_error on_error;
	bool rom; /* show the expansion ROM */
	/* This process has just opened it as its only user, so the kernel has reset it if it can
	 * (vfio_pci_core_enable): no second reset is needed. */
	bool fresh;
	/* The guest is about to enable bus mastering: called in its vCPU's thread, under the
	 * device's lock. NULL: not reported. */
	void (*starts)(void *opaque);
	/* In the loop's thread. */
	void (*event)(void *opaque, struct device *dev, enum vfio_event event, const char *text);
	void *opaque;
};

/* Attached to bus and reset; destroyed by its ops (core/device.h). */
int vfio_pci_create(struct device **ret, const struct device_env *env,
		    const struct vfio_pci_config *config, struct err *err);

/* For status and tests. Any thread. */
struct vfio_pci_status {
	const char *interrupt; /* "MSI-X", "MSI", "INTx", "none" */
	unsigned int vectors;  /* connected */
	unsigned int resets;   /* enum vfio_reset_kind; 0: it cannot be reset */
	bool gone;
	uint64_t trapped; /* accesses of BARs and config space that returned to user space */
};
void vfio_pci_status(struct device *dev, struct vfio_pci_status *ret);
struct pci_device *vfio_pci_function(struct device *dev);

#endif
