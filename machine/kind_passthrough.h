/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Passed-through devices of a machine: from the document to a function in the guest, their address
 * spaces, and what happens to them while the guest runs.
 *
 *   open     which device; preflight                                     kind_passthrough.c
 *   layout   what RAM must avoid
 *   create   iommu ─► domain (one per IOMMU group or ioas name) ─► endpoint attached
 *            ─► VFIO device behind a root port of its own                 passthrough.c
 *   act      after an iteration of the loop: what an event asked for      passthrough_events.c
 *   close    endpoint ─► domain ─► iommu, each with its last user
 *
 * When the host asks for a device back, or it is gone, the guest loses it as if it were pulled out
 * of its slot; on_error says what follows a device's own errors.
 *
 * Threads: the machine's.
 */
#ifndef MACHINE_KIND_PASSTHROUGH_H
#define MACHINE_KIND_PASSTHROUGH_H

#include <jansson.h>
#include <stdbool.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "iommu/fault.h"
#include "iommu/hw_domain.h"
#include "machine/kind.h"
#include "machine/open_passthrough.h"
#include "passthrough/vfio_pci.h"

enum { CONFIG_MAX_PASSTHROUGH = 32 };

extern const struct device_kind kind_passthrough;

/* An address space that one or several devices are in. Like all here the machine's thread's. */
struct vm_space {
	struct list link; /* of vm_host_iommu */
	char name[40];
	unsigned int users;
	struct hw_domain *domain;
};

/* What the passed-through devices of a machine share, while it has one. */
struct vm_host_iommu {
	unsigned int users;
	struct iommu *iommu; /* NULL: no user */
	struct fault_watch *faults;
	struct list spaces;
};

struct vm_passthrough {
	struct vm_device d;
	struct open_passthrough found;
	char name[40]; /* of the host's device, in messages: its address, else the id */
	int fd;        /* the endpoint's, which KVM has too; -1 */
	int holder;    /* base/holder.h: which machine has it; -1 */
	bool registered_with_kvm;
	bool uses_iommu;
	struct vm_space *space;
	struct iommu_endpoint *endpoint;
	bool attached;
	/* What an event asked for, until the iteration ends. */
	bool remove, pause, stop;
	uint64_t faults;
	struct log_limit fault_limit;
	struct budget event_budget;
	char last_fault[256];
};

static inline struct vm_passthrough *passthrough_of(struct vm_device *d)
{
	return container_of(d, struct vm_passthrough, d);
}

static inline const struct config_passthrough *passthrough_config(const struct vm_passthrough *p)
{
	return container_of(p->d.config, struct config_passthrough, base);
}

/* The device after this one (NULL: the first), also those that were released. */
struct vm_passthrough *passthrough_next(struct hospes_vm *vm, const struct vm_passthrough *after);

/* Of the kind: passthrough.c, passthrough_events.c, status_passthrough.c. */
int passthrough_create(struct vm_device *d, struct err *err);
void passthrough_close(struct vm_device *d);
void passthrough_act(struct vm_device *d);
void passthrough_status(struct vm_device *d, json_t *item);

/* Callbacks, in the loop and so in the machine's thread: opaque is the vm_passthrough, and the
 * machine. */
void passthrough_event(void *opaque, struct device *dev, enum vfio_event event, const char *text);
void passthrough_fault(void *opaque, const struct iommu_fault *fault);

/* The machine's "iommu" of the status. */
json_t *vm_iommu_status(struct hospes_vm *vm);
/* Put into an object what the domain's ledger has counted, and its strategy. */
void vm_ledger_status(json_t *item, const struct hw_domain *domain);

#endif
