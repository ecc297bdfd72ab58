// SPDX-License-Identifier: Apache-2.0
// A VM of KVM, as far as it is the same on every architecture: creation, ioeventfd, irqfd.
#include <errno.h>
#include <stdlib.h>

#include "base/fd.h"
#include "common/common.h"

int arch_check_kvm(const struct kvm *kvm, const struct arch_need *need, size_t n, const char *since,
		   struct err *err)
{
	int version = kvm_call_value(kvm->calls, kvm->fd, KVM_GET_API_VERSION, 0);

	if (version != KVM_API_VERSION)
		return err_set(err, version < 0 ? version : -EINVAL,
			       version < 0 ? "this is no KVM device"
					   : "KVM's API is not version 12");
	for (size_t i = 0; i < n; i++) {
		if (!arch_kvm_has(kvm, need[i].cap))
			return err_set(err, -EOPNOTSUPP, "this kernel's KVM lacks %s: %s has it",
				       need[i].name, since);
	}
	return 0;
}

int arch_vm_do(const struct arch_common *c, unsigned long request, const void *arg,
	       const char *what, struct err *err)
{
	int rc = arch_vm_call(c, request, arg);

	return rc < 0 ? err_set(err, rc, "%s: %s", what, err_name(rc)) : 0;
}

/* --- ioeventfd --- */

static int assign_ioeventfd(void *opaque, enum bus_kind kind, uint64_t addr,
			    const struct bus_ioeventfd *e, bool on)
{
	const struct arch_common *c = opaque;
	struct kvm_ioeventfd arg = {
		.datamatch = e->match ? e->value : 0,
		.addr = addr,
		.len = e->size,
		.fd = e->fd,
	};

	if (e->match)
		arg.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
	if (kind == BUS_PIO && c->pio_gpa)
		arg.addr += c->pio_gpa;
	else if (kind == BUS_PIO)
		arg.flags |= KVM_IOEVENTFD_FLAG_PIO;
	if (!on)
		arg.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
	return arch_vm_call(c, KVM_IOEVENTFD, &arg);
}

static const struct bus_ioeventfd_ops ioeventfd_ops = {.assign = assign_ioeventfd};

/* --- interrupts --- */

int arch_set_irqfd(const struct arch_common *c, uint32_t gsi, int fd, int resample_fd, bool on)
{
	struct kvm_irqfd arg = {
		.fd = (uint32_t)fd,
		.gsi = gsi,
		.flags = on ? 0 : KVM_IRQFD_FLAG_DEASSIGN,
	};

	if (on && resample_fd >= 0) {
		arg.flags |= KVM_IRQFD_FLAG_RESAMPLE;
		arg.resamplefd = (uint32_t)resample_fd;
	}
	return arch_vm_call(c, KVM_IRQFD, &arg);
}

int arch_send_msi(const struct arch_common *c, uint64_t address, uint32_t data, uint32_t flags,
		  uint32_t devid)
{
	const struct kvm_msi arg = {
		.address_lo = (uint32_t)address,
		.address_hi = (uint32_t)(address >> 32),
		.data = data,
		.flags = flags,
		.devid = devid,
	};

	/* Positive: delivered; 0: the guest blocked it, which is its business. */
	return MIN(arch_vm_call(c, KVM_SIGNAL_MSI, &arg), 0);
}

/* --- creation --- */

void arch_common_init(struct arch_common *c, const struct arch_vm_config *config)
{
	c->log = config->log;
	c->kvm = config->kvm;
	c->gmem = config->gmem;
	c->mmio = config->mmio;
	c->pio = config->pio;
	c->fd = -1;
	c->vfio_fd = -1;
	pthread_mutex_init(&c->slot_lock, NULL);
}

int arch_common_create(struct arch_common *c, unsigned long type, struct err *err)
{
	int rc;

	do
		rc = kvm_call_value(c->kvm.calls, c->kvm.fd, KVM_CREATE_VM, type);
	while (rc == -EINTR);
	if (rc < 0)
		return err_set(err, rc, "KVM_CREATE_VM: %s", err_name(rc));
	c->fd = rc;
	return 0;
}

int arch_common_listen(struct arch_common *c, struct err *err)
{
	int rc = arch_slots_listen(c, err);

	if (rc)
		return rc;
	bus_set_ioeventfd_ops(c->mmio, &ioeventfd_ops, c);
	bus_set_ioeventfd_ops(c->pio, &ioeventfd_ops, c);
	return 0;
}

void arch_common_done(struct arch_common *c)
{
	if (c->listening) {
		bus_set_ioeventfd_ops(c->mmio, NULL, NULL);
		bus_set_ioeventfd_ops(c->pio, NULL, NULL);
		gmem_unlisten(c->gmem, &c->listener);
	}
	fd_close(&c->vfio_fd);
	fd_close(&c->fd);
	pthread_mutex_destroy(&c->slot_lock);
	free(c->slots);
	free(c->slot_used);
}
