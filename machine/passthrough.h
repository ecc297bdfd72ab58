/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Passed-through devices of a machine: from the document's list to devices of the host in the guest,
 * their address spaces, and what happens to them while the guest runs.
 *
 *   vm_passthrough_prepare   which devices; preflight; what RAM must avoid   (before the layout)
 *   vm_passthrough_create    iommu ─► domain (one per IOMMU group or ioas name) ─► endpoint attached
 *                            ─► VFIO device behind a root port of its own
 *   vm_passthrough_act       after a turn of the loop: what an event asked for
 *   vm_passthrough_destroy   devices are gone: endpoint ─► domain ─► iommu   (before guest memory)
 *
 * When the host asks for a device back, or it is gone, the guest loses it as if it were pulled out of
 * its slot; on_error says what follows a device's own errors.
 *
 * Threads: the machine's.
 */
#ifndef MACHINE_PASSTHROUGH_H
#define MACHINE_PASSTHROUGH_H

#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"
#include "base/log.h"
#include "iommu/fault.h"
#include "iommu/strategy.h"
#include "machine/open_passthrough.h"
#include "passthrough/vfio_pci.h"

struct hospes_vm;
struct arch_layout;

/* An address space that one or several devices are in. */
struct vm_space {
	char name[40];
	int group; /* IOMMU group of its devices; -1: not known, or ioas joins several */
	struct hw_domain *domain;
};

struct vm_passthrough {
	struct hospes_vm *vm;
	const struct config_passthrough *config;
	struct open_passthrough found;
	char name[40]; /* of the host's device, in messages: its address, else the id */
	int fd;        /* the endpoint's, which KVM knows too; -1 */
	int said;      /* base/holder.h: which machine has it; -1 */
	bool registered_with_kvm;
	struct vm_space *space;
	struct iommu_endpoint *endpoint;
	bool attached;
	struct viommu_endpoint *behind; /* NULL: not behind the guest's IOMMU */
	struct device *port;            /* NULL: on bus 0 */
	struct device *dev;             /* NULL: released */
	/* What an event asked for, until the turn ends. */
	bool remove, pause, stop;
	uint64_t faults;
	struct log_limit fault_limit;
	char last_fault[256];
};

struct vm_passthroughs {
	struct vm_passthrough *items;
	unsigned int n;
	struct vm_space *spaces; /* room for n */
	unsigned int n_spaces;
	struct iommu *iommu;
	struct fault_watch *faults;
	struct arch_avoid *avoid; /* for the layout; what points into avoid_text */
	char (*avoid_text)[64];
	unsigned int n_avoid;
};

int vm_passthrough_prepare(struct hospes_vm *vm, struct arch_layout *layout, struct err *err);
int vm_passthrough_create(struct hospes_vm *vm, struct err *err);
void vm_passthrough_act(struct hospes_vm *vm);
void vm_passthrough_destroy(struct hospes_vm *vm);

/* Between the files: callbacks (the loop's, so the machine's thread), and giving one device back. */
void vm_passthrough_event(void *opaque, struct device *dev, enum vfio_event event,
			  const char *text);
void vm_passthrough_fault(void *opaque, const struct iommu_fault *fault);
void vm_passthrough_release(struct vm_passthrough *p);

/* status_passthrough.c: what `devices` says of it, and the machine's "iommu" (NULL: no such device). */
json_t *vm_passthrough_status(struct vm_passthrough *p);
json_t *vm_iommu_status(struct hospes_vm *vm);
/* Put into an object what the domain's ledger has counted, and its strategy. */
void vm_ledger_status(json_t *item, const struct hw_domain *domain);

#endif
