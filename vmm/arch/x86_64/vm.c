// SPDX-License-Identifier: Apache-2.0
// A VM of KVM: irqchip, PIT, ioeventfd and interrupt hooks. See core/arch.h.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/num.h"
#include "x86_64/cpuid.h"
#include "x86_64/x86.h"

enum {
	IOAPIC_PINS = 24,
	PIC_PINS = 16,
	MAX_GSI = ARCH_MAX_ROUTES - PIC_PINS,
};

int x86_supported_cpuid(const struct kvm *kvm, struct kvm_cpuid2 **ret, struct err *err)
{
	struct kvm_cpuid2 *cpuid =
		calloc(1, sizeof(*cpuid) + CPUID_MAX * sizeof(struct kvm_cpuid_entry2));
	int rc;

	if (!cpuid)
		return err_set(err, -ENOMEM, "no memory for CPUID");
	cpuid->nent = CPUID_MAX;
	rc = kvm_call(kvm->calls, kvm->fd, KVM_GET_SUPPORTED_CPUID, cpuid);
	if (rc) {
		free(cpuid);
		return err_set(err, rc, "KVM_GET_SUPPORTED_CPUID: %s", err_name(rc));
	}
	*ret = cpuid;
	return 0;
}

/* --- ioeventfd --- */

static int assign_ioeventfd(void *opaque, enum bus_kind kind, uint64_t addr,
			    const struct bus_ioeventfd *e, bool on)
{
	const struct arch_vm *vm = opaque;
	struct kvm_ioeventfd arg = {
		.datamatch = e->match ? e->value : 0,
		.addr = addr,
		.len = e->size,
		.fd = e->fd,
	};

	if (e->match)
		arg.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
	if (kind == BUS_PIO)
		arg.flags |= KVM_IOEVENTFD_FLAG_PIO;
	if (!on)
		arg.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
	return x86_vm_call(vm, KVM_IOEVENTFD, &arg);
}

static const struct bus_ioeventfd_ops ioeventfd_ops = {.assign = assign_ioeventfd};

/* --- interrupts --- */

static void add_pin(struct kvm_irq_routing *r, uint32_t gsi, uint32_t chip, uint32_t pin)
{
	r->entries[r->nr++] = (struct kvm_irq_routing_entry){
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_IRQCHIP,
		.u.irqchip = {.irqchip = chip, .pin = pin},
	};
}

/* As on a PC: lines 0 to 15 reach the PICs too, and line 0 is the I/O APIC's pin 2, which is what
 * the MADT's override says; GSI 2, the cascade, reaches nothing. */
static void add_line(struct kvm_irq_routing *r, uint32_t gsi, uint32_t pin)
{
	if (pin < 8)
		add_pin(r, gsi, KVM_IRQCHIP_PIC_MASTER, pin);
	else if (pin < PIC_PINS)
		add_pin(r, gsi, KVM_IRQCHIP_PIC_SLAVE, pin - 8);
	if (pin != 2)
		add_pin(r, gsi, KVM_IRQCHIP_IOAPIC, pin ? pin : 2);
}

static int set_routes(void *opaque, const struct irq_route *routes, unsigned int n)
{
	const struct arch_vm *vm = opaque;
	struct kvm_irq_routing *r;
	int rc;

	r = calloc(1, sizeof(*r) + (n + PIC_PINS) * sizeof(r->entries[0]));
	if (!r)
		return -ENOMEM;
	for (unsigned int i = 0; i < n; i++) {
		const struct irq_route *from = &routes[i];

		if (!from->msi) {
			add_line(r, from->gsi, from->pin);
			continue;
		}
		r->entries[r->nr++] = (struct kvm_irq_routing_entry){
			.gsi = from->gsi,
			.type = KVM_IRQ_ROUTING_MSI,
			.u.msi =
				{
					.address_lo = (uint32_t)from->address,
					.address_hi = (uint32_t)(from->address >> 32),
					.data = from->data,
				},
		};
	}
	rc = x86_vm_call(vm, KVM_SET_GSI_ROUTING, r);
	free(r);
	return rc;
}

static int set_irqfd(void *opaque, uint32_t gsi, int fd, int resample_fd, bool on)
{
	const struct arch_vm *vm = opaque;
	struct kvm_irqfd arg = {
		.fd = (uint32_t)fd,
		.gsi = gsi,
		.flags = on ? 0 : KVM_IRQFD_FLAG_DEASSIGN,
	};

	if (on && resample_fd >= 0) {
		arg.flags |= KVM_IRQFD_FLAG_RESAMPLE;
		arg.resamplefd = (uint32_t)resample_fd;
	}
	return x86_vm_call(vm, KVM_IRQFD, &arg);
}

static int set_line(void *opaque, uint32_t gsi, bool level)
{
	const struct arch_vm *vm = opaque;
	struct kvm_irq_level arg = {.irq = gsi, .level = level};

	return x86_vm_call(vm, KVM_IRQ_LINE, &arg);
}

static int send_msi(void *opaque, uint64_t address, uint32_t data, uint32_t devid)
{
	const struct arch_vm *vm = opaque;
	struct kvm_msi arg = {
		.address_lo = (uint32_t)address,
		.address_hi = (uint32_t)(address >> 32),
		.data = data,
	};

	(void)devid;
	/* Positive: delivered; 0: the guest blocked it, which is its business. */
	return MIN(x86_vm_call(vm, KVM_SIGNAL_MSI, &arg), 0);
}

const struct irq_chip_ops *arch_irq_ops(void)
{
	static const struct irq_chip_ops ops = {
		.set_routes = set_routes,
		.set_irqfd = set_irqfd,
		.set_line = set_line,
		.send_msi = send_msi,
		.pins = IOAPIC_PINS,
		.max_gsi = MAX_GSI,
	};

	return &ops;
}

/* --- creation --- */

static int check_kvm(const struct arch_vm *vm, struct err *err)
{
	static const struct {
		unsigned int cap;
		const char *name;
	} need[] = {
		{KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"},
		{KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
		{KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"},
		{KVM_CAP_SET_IDENTITY_MAP_ADDR, "KVM_CAP_SET_IDENTITY_MAP_ADDR"},
		{KVM_CAP_PIT2, "KVM_CAP_PIT2"},
		{KVM_CAP_PIT_STATE2, "KVM_CAP_PIT_STATE2"},
		{KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING"},
		{KVM_CAP_IRQFD, "KVM_CAP_IRQFD"},
		{KVM_CAP_IRQFD_RESAMPLE, "KVM_CAP_IRQFD_RESAMPLE"},
		{KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD"},
		{KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI"},
		{KVM_CAP_READONLY_MEM, "KVM_CAP_READONLY_MEM"},
		{KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
		{KVM_CAP_XCRS, "KVM_CAP_XCRS"},
		{KVM_CAP_XSAVE, "KVM_CAP_XSAVE"},
		{KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS"},
		{KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"},
		{KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
		{KVM_CAP_ADJUST_CLOCK, "KVM_CAP_ADJUST_CLOCK"},
	};
	int version = kvm_call_value(vm->kvm.calls, vm->kvm.fd, KVM_GET_API_VERSION, 0);

	if (version != KVM_API_VERSION)
		return err_set(err, version < 0 ? version : -EINVAL,
			       version < 0 ? "this is no KVM device"
					   : "KVM's API is not version 12");
	for (size_t i = 0; i < ARRAY_SIZE(need); i++) {
		if (!x86_kvm_has(&vm->kvm, need[i].cap))
			return err_set(
				err, -EOPNOTSUPP,
				"this kernel's KVM lacks %s: Linux 5.10 or newer on x86 has it",
				need[i].name);
	}
	return 0;
}

static int check_topology(const struct arch_vm *vm, struct err *err)
{
	const struct arch_topology *t = &vm->topology;
	int max = x86_kvm_has(&vm->kvm, KVM_CAP_MAX_VCPUS);
	int max_id = x86_kvm_has(&vm->kvm, KVM_CAP_MAX_VCPU_ID);
	uint32_t last;

	if (!t->cpus || t->sockets * t->cores * t->threads != t->cpus)
		return err_set(err, -EINVAL,
			       "%u CPUs are not %u sockets times %u cores times %u threads",
			       t->cpus, t->sockets, t->cores, t->threads);
	if (max > 0 && t->cpus > (unsigned int)max)
		return err_set(err, -EINVAL, "%u CPUs: this host's KVM runs at most %d", t->cpus,
			       max);
	/* 255 is the broadcast address of 8-bit destinations, which I/O APIC and MSI have. */
	last = arch_cpu_id(t, t->cpus - 1);
	if (last > 254 || (max_id > 0 && last >= (unsigned int)max_id))
		return err_set(
			err, -EINVAL,
			"%u sockets of %u cores of %u threads give the last CPU the APIC id %u, "
			"and 254 is the largest; use powers of two or one socket",
			t->sockets, t->cores, t->threads, last);
	return 0;
}

/* One call of the set-up; the error names it. */
static int vm_ioctl(const struct arch_vm *vm, unsigned long request, const void *arg,
		    const char *what, struct err *err)
{
	int rc = x86_vm_call(vm, request, arg);

	return rc < 0 ? err_set(err, rc, "%s: %s", what, err_name(rc)) : 0;
}

static int set_up_irqchip(struct arch_vm *vm, struct err *err)
{
	struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
	struct kvm_enable_cap x2apic = {
		.cap = KVM_CAP_X2APIC_API,
		.args = {KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK},
	};
	int rc = vm_ioctl(vm, KVM_CREATE_IRQCHIP, NULL, "KVM_CREATE_IRQCHIP", err);

	if (!rc)
		rc = vm_ioctl(vm, KVM_CREATE_PIT2, &pit, "KVM_CREATE_PIT2", err);
	/* Without it, ids in the local APIC's saved state are 8 bits wide, and 255 means
	 * everybody. */
	if (!rc && x86_kvm_has(&vm->kvm, KVM_CAP_X2APIC_API))
		rc = vm_ioctl(vm, KVM_ENABLE_CAP, &x2apic, "KVM_CAP_X2APIC_API", err);
	for (unsigned int i = 0; !rc && i < ARRAY_SIZE(vm->chips); i++) {
		vm->chips[i].chip_id = i;
		rc = vm_ioctl(vm, KVM_GET_IRQCHIP, &vm->chips[i], "KVM_GET_IRQCHIP", err);
	}
	if (!rc)
		rc = vm_ioctl(vm, KVM_GET_PIT2, &vm->pit, "KVM_GET_PIT2", err);
	return rc;
}

static int set_up(struct arch_vm *vm, struct err *err)
{
	uint64_t identity = IDENTITY_MAP_GPA;
	struct kvm_enable_cap triple = {.cap = KVM_CAP_X86_TRIPLE_FAULT_EVENT, .args = {1}};
	int n, rc;

	rc = vm_ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity, "KVM_SET_IDENTITY_MAP_ADDR", err);
	if (!rc)
		rc = vm_ioctl(vm, KVM_SET_TSS_ADDR, (void *)(uintptr_t)TSS_GPA, "KVM_SET_TSS_ADDR",
			      err);
	if (!rc)
		rc = set_up_irqchip(vm, err);
	if (rc)
		return rc;
	/* A triple fault that is pending while state is saved or reset (Linux 6.1). */
	vm->triple_fault_event = x86_vm_has(vm, KVM_CAP_X86_TRIPLE_FAULT_EVENT) &&
				 !x86_vm_call(vm, KVM_ENABLE_CAP, &triple);
	vm->xsave_bytes = MAX((size_t)x86_vm_has(vm, KVM_CAP_XSAVE2), sizeof(struct kvm_xsave));
	vm->tsc_deadline = x86_kvm_has(&vm->kvm, KVM_CAP_TSC_DEADLINE_TIMER);

	/* 0 is the host's rate of now. KVM's default is the rate of when it was initialised; where
	 * the kernel has since refined that and the CPU cannot scale, vCPUs would get a clock that
	 * stands still (set_tsc in vcpu.c does the rest). */
	if (x86_vm_has(vm, KVM_CAP_VM_TSC_CONTROL)) {
		rc = x86_vm_call_value(vm, KVM_SET_TSC_KHZ, 0);
		if (rc)
			log_debug(vm->log, "kvm", "KVM_SET_TSC_KHZ: %s", err_name(rc));
	}

	n = x86_kvm_has(&vm->kvm, KVM_CAP_NR_MEMSLOTS);
	vm->max_slots = n > 0 ? (unsigned int)n : 32;
	vm->slots = calloc(vm->max_slots, sizeof(*vm->slots));
	vm->slot_used = calloc(vm->max_slots, 1);
	if (!vm->slots || !vm->slot_used)
		return err_set(err, -ENOMEM, "no memory for %u memory slots", vm->max_slots);
	return 0;
}

int arch_vm_create(struct arch_vm **ret, const struct arch_vm_config *config, struct err *err)
{
	struct arch_vm *vm;
	int rc;

	if (!mem_new(vm))
		return err_set(err, -ENOMEM, "no memory for a VM");
	vm->log = config->log;
	vm->kvm = config->kvm;
	vm->topology = config->topology;
	vm->gmem = config->gmem;
	vm->mmio = config->mmio;
	vm->pio = config->pio;
	vm->fd = -1;
	vm->vfio_fd = -1;
	pthread_mutex_init(&vm->slot_lock, NULL);
	rc = check_kvm(vm, err);
	if (!rc)
		rc = check_topology(vm, err);
	if (!rc)
		rc = x86_supported_cpuid(&vm->kvm, &vm->cpuid, err);
	if (rc)
		goto fail;
	vm->phys_bits = cpuid_phys_bits(vm->cpuid);
	do
		rc = kvm_call_value(vm->kvm.calls, vm->kvm.fd, KVM_CREATE_VM, 0);
	while (rc == -EINTR);
	if (rc < 0) {
		err_set(err, rc, "KVM_CREATE_VM: %s", err_name(rc));
		goto fail;
	}
	vm->fd = rc;
	rc = set_up(vm, err);
	if (rc)
		goto fail;
	rc = x86_slots_listen(vm, err);
	if (rc)
		goto fail;
	bus_set_ioeventfd_ops(vm->mmio, &ioeventfd_ops, vm);
	bus_set_ioeventfd_ops(vm->pio, &ioeventfd_ops, vm);
	*ret = vm;
	return 0;
fail:
	arch_vm_destroy(vm);
	return rc;
}

void arch_vm_destroy(struct arch_vm *vm)
{
	if (!vm)
		return;
	if (vm->listening) {
		bus_set_ioeventfd_ops(vm->mmio, NULL, NULL);
		bus_set_ioeventfd_ops(vm->pio, NULL, NULL);
		gmem_unlisten(vm->gmem, &vm->listener);
	}
	fd_close(&vm->vfio_fd);
	fd_close(&vm->fd);
	pthread_mutex_destroy(&vm->slot_lock);
	free(vm->slots);
	free(vm->slot_used);
	free(vm->cpuid);
	free(vm);
}

int arch_vm_reset(struct arch_vm *vm, struct err *err)
{
	struct kvm_clock_data clock = {.clock = 0};
	int rc = 0;

	for (unsigned int i = 0; !rc && i < ARRAY_SIZE(vm->chips); i++)
		rc = vm_ioctl(vm, KVM_SET_IRQCHIP, &vm->chips[i], "KVM_SET_IRQCHIP", err);
	if (!rc)
		rc = vm_ioctl(vm, KVM_SET_PIT2, &vm->pit, "KVM_SET_PIT2", err);
	if (!rc)
		rc = vm_ioctl(vm, KVM_SET_CLOCK, &clock, "KVM_SET_CLOCK", err);
	return rc;
}
