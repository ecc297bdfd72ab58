/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by the files of a passed-through device.
 *
 * Everything here is changed under the device's lock, or before the device is attached and after it
 * is detached. Where the PCI root's lock is held too (config accesses, resets), it came first.
 */
#ifndef PASSTHROUGH_VFIO_PCI_IMPL_H
#define PASSTHROUGH_VFIO_PCI_IMPL_H

#include <linux/pci_regs.h>
#include <pthread.h>
#include <stdatomic.h>

#include "core/loop.h"
#include "core/msi.h"
#include "core/msix.h"
#include "passthrough/caps.h"
#include "passthrough/vfio_calls.h"
#include "passthrough/vfio_pci.h"

/* How BARs get into the guest: arch_vm_map_host, or a test's. */
struct vfio_host {
	int (*map)(void *opaque, uint64_t gpa, void *hva, uint64_t bytes, struct err *err);
	void (*unmap)(void *opaque, uint64_t gpa);
	void *opaque;
};

struct vfio_bar {
	struct vfio_pci *vfio;
	unsigned int index;
	enum pci_bar_kind kind;
	struct vfio_region file;  /* the device's */
	struct bus_region region; /* all of it, trapped; mapped areas lie over it and do not trap */
	/* Mapped here, and in the guest while the BAR is visible at a whole page. */
	void *hva;
	uint64_t hva_bytes; /* reserved */
	unsigned int n_areas;
	struct vfio_area areas[VFIO_MAX_AREAS];
	bool in_guest[VFIO_MAX_AREAS];
	bool on_bus; /* region, for a BAR with mapped areas */
};

enum vfio_irq_mode {
	VFIO_IRQ_NONE,
	VFIO_IRQ_INTX,
	VFIO_IRQ_MSI,
	VFIO_IRQ_MSIX,
};

struct vfio_irqs {
	enum vfio_irq_mode mode; /* what the device uses: the kernel permits one at a time */
	unsigned int has_intx, has_msi, has_msix; /* how many the kernel offers */
	bool dynamic;                             /* MSI-X vectors come and go one by one */
	int32_t *fds;                             /* MSI-X: of each connected vector, else -1 */
	unsigned int allocated; /* MSI-X: vectors 0 to n - 1 exist in the kernel */
	unsigned int connected;
	int intx_fd, unmask_fd; /* INTx: to KVM, and back at the end of interrupt */
	bool intx_failed;       /* logged once */
};

struct vfio_watch {
	struct loop_op op; /* of the loop */
	struct vfio_pci *vfio;
	int fd;
	bool on; /* in flight */
};

struct vfio_events {
	struct loop *loop;
	struct loop_op start, stop; /* posted */
	pthread_cond_t still;       /* with the device's lock: nothing is in flight or posted */
	bool created, posted, stopping;
	struct vfio_watch error, request;
};

struct vfio_pci {
	struct device dev; /* first: it is the machine's handle */
	struct pci_device pci;
	struct vfio_pci_config config;
	char bdf[16];
	struct vfio_file file;
	struct vfio_region config_region;
	struct vfio_host host;
	struct bus *mmio;
	struct irq_chip *irq;
	bool attached;
	bool ready; /* its config space is known: it can be reset */
	/* Config space. */
	uint8_t live[PCI_CONFIG_BYTES];    /* bits that are read from the device */
	uint8_t forward[PCI_CONFIG_BYTES]; /* bits whose writes go to the device */
	unsigned int pm, af, vpd;          /* offsets of these capabilities; 0: none */
	bool af_asked;                     /* the guest is just asking for a reset by AF */
	uint8_t pm_state;
	struct msi *msi;
	struct msix *msix;
	uint8_t msix_bar, pba_bar;
	uint32_t msix_table, msix_pba; /* offsets in their BARs */
	struct vfio_bar bars[PCI_PLACES];
	struct vfio_irqs irqs;
	struct vfio_events events;
	unsigned int resets; /* enum vfio_reset_kind */
	_Atomic bool gone;
	_Atomic uint64_t config_traps;
};

static inline struct vfio_pci *vfio_of_pci(struct pci_device *pci)
{
	return container_of(pci, struct vfio_pci, pci);
}

/* config_space_build.c: what the guest sees; config_space.c: the three hooks. */
int vfio_config_init(struct vfio_pci *v, const struct pci_device_ops *ops, bool integrated,
		     struct err *err);
void vfio_config_done(struct vfio_pci *v);
void vfio_config_write(struct pci_device *pci, unsigned int offset, unsigned int size,
		       uint32_t value);
void vfio_config_written(struct pci_device *pci, unsigned int offset, unsigned int size);
void vfio_config_read(struct pci_device *pci, unsigned int offset, unsigned int size);

/* command.c */
/* The device's command register: what hospes wants of decoding, and bus mastering as said. */
int vfio_command_set(struct vfio_pci *v, bool master);
/* Does the device still answer? Otherwise everything of it reads all ones from now on. */
bool vfio_answers(struct vfio_pci *v);
void vfio_mark_unplugged(struct vfio_pci *v);

/* bars.c */
int vfio_bars_init(struct vfio_pci *v, const uint8_t *config, struct err *err);
/* After the MSI-X table's place is known: what may be mapped. */
int vfio_bars_map(struct vfio_pci *v, struct err *err);
void vfio_bars_done(struct vfio_pci *v);
void vfio_bar_mapped(struct pci_device *pci, unsigned int index, uint64_t gpa, bool on);
/* Whole pages of `in` that touch none of the holes, ascending: how many there are, of which up to
 * max are stored. page: a power of two. */
unsigned int vfio_bar_split(const struct vfio_area *in, unsigned int n,
			    const struct vfio_area *holes, unsigned int n_holes, uint64_t page,
			    struct vfio_area *out, unsigned int max);

/* interrupts.c */
int vfio_irqs_init(struct vfio_pci *v, struct err *err);
void vfio_irqs_done(struct vfio_pci *v);
int vfio_msix_used(void *opaque, unsigned int i, bool on);
int vfio_msi_used(void *opaque, unsigned int n);
/* INTx as command register, MSI and MSI-X leave it. Attached. */
void vfio_intx_update(struct vfio_pci *v);
/* Afterwards the device raises no interrupt. */
void vfio_irqs_off(struct vfio_pci *v);

/* reset.c */
enum vfio_reset_kind {
	VFIO_RESET_FUNCTION = 1 << 0, /* VFIO_DEVICE_RESET */
	VFIO_RESET_HOT = 1 << 1,      /* the bus or slot, of which all is ours */
};
/* How it can be reset (vfio_pci.resets); 0 leaves in err why it cannot. */
void vfio_reset_probe(struct vfio_pci *v, struct err *err);
/* Interrupts and bus mastering off, and the device as after power-on. */
int vfio_reset(struct vfio_pci *v, struct err *err);
/* The same while a driver uses the device: interrupts, decoding and bus mastering stay (the kernel
 * restores them), so that the driver finds a device that has forgotten it, and can set it up
 * again. */
int vfio_reset_in_place(struct vfio_pci *v, struct err *err);

/* events.c: destroy waits until nothing is in flight. Not under the device's lock. */
int vfio_events_init(struct vfio_pci *v, struct loop *loop, struct err *err);
void vfio_events_done(struct vfio_pci *v);

/* vfio_pci.c: hooks of PCI, and creation with a seam below. */
int vfio_pci_create_on(struct device **ret, const struct device_env *env,
		       const struct vfio_pci_config *config, const struct vfio_file *file,
		       const struct vfio_host *host, struct err *err);

#endif
