/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kinds of devices, and the devices of a machine.
 *
 * A kind is one file (kind_disk.c) and one line in the table of kinds.c. The document, validation,
 * addresses, boot, hot-plug, status and the virtual IOMMU follow the table; none of them knows a
 * kind.
 *
 *   document ─► config_device ─ validate ─► open ─► create ─► in the machine ─► remove
 *                    └─ owned by the machine's config until the removal of the device ─┘
 *
 * vm_device_add and vm_device_remove are the only way in and out. Both run by boot and by teardown
 * in halves: all devices are opened before memory is laid out, since a passed-through device
 * decides where memory can be; and all leave their buses before the first one is released, since
 * the reset of one may need the others.
 *
 * Threads: the machine's, asserted. A machine that runs goes on meanwhile: its vCPUs are paused
 * only while a device leaves. Not inside a callback of a loop.
 */
#ifndef MACHINE_KIND_H
#define MACHINE_KIND_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/list.h"
#include "base/num.h"
#include "core/arch.h"
#include "machine/config.h"

struct hospes_vm;
struct pci_bus;
struct virtio_device;
struct vm_device;
struct vm_layout;
struct vm_port;

/* A machine of another process, which a device is opened for. */
struct kind_receiver {
	int backend;      /* enum iommu_kind */
	bool has_iommufd; /* it needs no other */
};

/* Functions may be NULL, but for create. Their messages name the device by its id. */
struct device_kind {
	/* .what is the kind's name ("disk"), .bytes of the struct that begins with struct
	 * config_device; "id" is one of the keys, or nobody frees it. */
	struct schema schema;
	const char *key; /* of the document: "disks" */
	/* A list of so many; 0: an object for one device, which has the kind's name as id. */
	unsigned int max;
	size_t bytes;       /* of the struct that begins with struct vm_device */
	bool host_device;   /* a device of this host: its DMA is the host IOMMU's, not ours */
	bool shares_memory; /* something outside this process maps guest memory */

	/* Where its place on bus 0 is kept; NULL: it takes none. Without this function, addr. */
	struct schema_pci *(*place)(struct config_device *device);
	/* Check and complete the values; the devices before this one in config are valid. */
	int (*validate)(struct config *config, struct config_device *device, struct err *err);

	/* Open what the device names, by the rules of open, and put the fds in place of the names:
	 * they are the caller's to close, also after a failure, like all that the device names by
	 * number. No machine is needed, and nothing was validated. NULL: it names nothing. */
	int (*hand_over)(struct config_device *device, const struct kind_receiver *to,
			 struct err *err);

	/* Open what the document names. Undone by close. */
	int (*open)(struct vm_device *d, struct err *err);
	/* At boot only: what the layout of memory must respect. */
	int (*layout)(struct vm_device *d, struct vm_layout *layout, struct err *err);
	/* Make d->dev (vm_device_plug_virtio does for virtio). What it takes from open is its own
	 * from then on. Also after a failure close follows. */
	int (*create)(struct vm_device *d, struct err *err);
	/* dev is gone (or never was): release the rest, from any stage, once more too. */
	void (*close)(struct vm_device *d);

	/* Can the machine be migrated with it? -EOPNOTSUPP and why not. */
	int (*movable)(struct vm_device *d, struct err *err);
	/* What it has of this host alone (a lock): given up, so that the target of a migration can
	 * have it, or taken (again). */
	int (*hold)(struct vm_device *d, bool hold, struct err *err);
	/* The machine has come from another host, and goes on. */
	void (*arrived)(struct vm_device *d);
	/* Put more into its object of the status. */
	void (*status)(struct vm_device *d, json_t *item);
	/* After an iteration of the loop: what an event asked for. */
	void (*act)(struct vm_device *d);
};

/* All kinds, ending with NULL; placed and created in this order. */
extern const struct device_kind *const device_kinds[];

static inline const struct device_kind *device_kind_of(const struct config_device *device)
{
	return container_of(device->item.schema, struct device_kind, schema);
}

/* A device of the machine, the machine's thread's. Each kind's struct begins with one. */
struct vm_device {
	struct list link; /* vm->devices */
	struct hospes_vm *vm;
	const struct device_kind *kind;
	struct config_device *config;     /* the device's own, until its removal */
	unsigned int index;               /* among those of its kind: the lowest that was free */
	struct device *dev;               /* NULL: not plugged, or released */
	struct virtio_device *vdev;       /* of dev; NULL: it is not virtio */
	struct viommu_endpoint *endpoint; /* NULL: not behind the virtual IOMMU */
	struct vm_port *port;             /* the root port that it is behind; NULL: none */
	uint64_t leave_ns;                /* until when the guest may give it up; 0: not asked */
	bool leave_force;                 /* and when it does not, it is pulled out */
	bool leave_stuck;                 /* a vCPU is held in an exit: once more at leave_ns */
};

/* Into the machine, before its start, running or paused. Once it runs, a PCI device goes behind a
 * spare root port, which the guest notices. config is taken over, also on failure. -ENOSPC: no port
 * is free. */
int vm_device_add(struct hospes_vm *vm, struct config_device *config, struct vm_device **ret,
		  struct err *err);
/* Out of it, as if it were pulled out of its slot, and freed: hotplug.h asks the guest first. Its
 * root port is free then, and one that it brought goes with it before the start. From any stage;
 * NULL is allowed. -ETIMEDOUT: the machine runs on with it, since a vCPU does not come out of an
 * exit. */
int vm_device_remove(struct vm_device *d);
/* Give back what it holds of the host. The guest sees it as pulled out of its slot; its port stays,
 * and it does in the status. Harmless when that was done. */
int vm_device_release(struct vm_device *d);

/* The halves, of all devices: open, plug; take down. */
int vm_open_devices(struct hospes_vm *vm, struct vm_layout *layout, struct err *err);
int vm_plug_devices(struct hospes_vm *vm, struct err *err);
void vm_remove_devices(struct hospes_vm *vm);

/* The device after this one (NULL: the first), in order of adding. Of one kind: NULL for any. */
struct vm_device *vm_next_device(struct hospes_vm *vm, const struct vm_device *after,
				 const struct device_kind *kind);
/* kind: NULL for any. -ENOENT in err: NULL. */
struct vm_device *vm_find_device(struct hospes_vm *vm, const char *kind, const char *id,
				 struct err *err);

/* For create: put a virtio device on its bus, behind the virtual IOMMU if config says so. It is
 * d's, or destroyed, afterwards. */
int vm_device_plug_virtio(struct vm_device *d, struct virtio_device *vdev, struct err *err);
/* For create: a root port at addr, for d alone; unless it is behind one already. */
int vm_device_add_port(struct vm_device *d, const struct pci_addr *addr, struct err *err);
/* For create: the bus to be on, its port's or bus 0. */
struct pci_bus *vm_device_bus(const struct vm_device *d);
/* By which its DMA is known to the guest's tables. d is plugged, and a PCI function. */
uint32_t vm_device_requester(const struct vm_device *d);

/* What devices ask of the layout, while the machine is made. */
struct vm_layout {
	struct arch_layout arch;
	struct arch_avoid *avoid; /* arch.avoid, growing; its texts are owned too */
};
int vm_layout_avoid(struct vm_layout *layout, uint64_t first, uint64_t last, const char *who,
		    const char *what);
void vm_layout_done(struct vm_layout *layout);

#endif
