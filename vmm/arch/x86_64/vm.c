// SPDX-License-Identifier: Apache-2.0
// A VM of KVM: irqchip, PIT, ioeventfd and interrupt hooks. See core/arch.h.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

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

const char arch_name[] = "x86-64";

bool arch_has(enum arch_feature feature)
{
	(void)feature;
	return true;
}

struct arch_common *arch_common(struct arch_vm *vm)
{
	return &vm->common;
}

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

	return arch_set_irqfd(&vm->common, gsi, fd, resample_fd, on);
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

	(void)devid;
	return arch_send_msi(&vm->common, address, data, 0, 0);
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
	static const struct arch_need need[] = {
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

	return arch_check_kvm(&vm->common.kvm, need, ARRAY_SIZE(need), "Linux 5.10 or newer on x86",
			      err);
}

static int check_topology(const struct arch_vm *vm, struct err *err)
{
	const struct arch_topology *t = &vm->topology;
	int max = arch_kvm_has(&vm->common.kvm, KVM_CAP_MAX_VCPUS);
	int max_id = arch_kvm_has(&vm->common.kvm, KVM_CAP_MAX_VCPU_ID);
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

static int set_up_irqchip(struct arch_vm *vm, struct err *err)
{
	struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
	struct kvm_enable_cap x2apic = {
		.cap = KVM_CAP_X2APIC_API,
		.args = {KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK},
	};
	int rc = arch_vm_do(&vm->common, KVM_CREATE_IRQCHIP, NULL, "KVM_CREATE_IRQCHIP", err);

	if (!rc)
		rc = arch_vm_do(&vm->common, KVM_CREATE_PIT2, &pit, "KVM_CREATE_PIT2", err);
	/* Without it, ids in the local APIC's saved state are 8 bits wide, and 255 means
	 * everybody. */
	if (!rc && arch_kvm_has(&vm->common.kvm, KVM_CAP_X2APIC_API))
		rc = arch_vm_do(&vm->common, KVM_ENABLE_CAP, &x2apic, "KVM_CAP_X2APIC_API", err);
	for (unsigned int i = 0; !rc && i < ARRAY_SIZE(vm->chips); i++) {
		vm->chips[i].chip_id = i;
		rc = arch_vm_do(&vm->common, KVM_GET_IRQCHIP, &vm->chips[i], "KVM_GET_IRQCHIP",
				err);
	}
	if (!rc)
		rc = arch_vm_do(&vm->common, KVM_GET_PIT2, &vm->pit, "KVM_GET_PIT2", err);
	return rc;
}

static int set_up(struct arch_vm *vm, struct err *err)
{
	uint64_t identity = IDENTITY_MAP_GPA;
	struct kvm_enable_cap triple = {.cap = KVM_CAP_X86_TRIPLE_FAULT_EVENT, .args = {1}};
	int rc;

	rc = arch_vm_do(&vm->common, KVM_SET_IDENTITY_MAP_ADDR, &identity,
			"KVM_SET_IDENTITY_MAP_ADDR", err);
	if (!rc)
		rc = arch_vm_do(&vm->common, KVM_SET_TSS_ADDR, (void *)(uintptr_t)TSS_GPA,
				"KVM_SET_TSS_ADDR", err);
	if (!rc)
		rc = set_up_irqchip(vm, err);
	if (rc)
		return rc;
	/* A triple fault that is pending while state is saved or reset (Linux 6.1). */
	vm->triple_fault_event = x86_vm_has(vm, KVM_CAP_X86_TRIPLE_FAULT_EVENT) &&
				 !x86_vm_call(vm, KVM_ENABLE_CAP, &triple);
	vm->xsave_bytes = MAX((size_t)x86_vm_has(vm, KVM_CAP_XSAVE2), sizeof(struct kvm_xsave));
	vm->tsc_deadline = arch_kvm_has(&vm->common.kvm, KVM_CAP_TSC_DEADLINE_TIMER);

	/* 0 is the host's rate of now. KVM's default is the rate of when it was initialised; where
	 * the kernel has since refined that and the CPU cannot scale, vCPUs would get a clock that
	 * stands still (set_tsc in vcpu.c does the rest). */
	if (x86_vm_has(vm, KVM_CAP_VM_TSC_CONTROL)) {
		rc = arch_vm_call_value(&vm->common, KVM_SET_TSC_KHZ, 0);
		if (rc)
			log_debug(vm->common.log, "kvm", "KVM_SET_TSC_KHZ: %s", err_name(rc));
	}
	return 0;
}

int arch_vm_create(struct arch_vm **ret, const struct arch_vm_config *config, struct err *err)
{
	struct arch_vm *vm;
	int rc;

	if (!mem_new(vm))
		return err_set(err, -ENOMEM, "no memory for a VM");
	arch_common_init(&vm->common, config);
	vm->topology = config->topology;
	rc = check_kvm(vm, err);
	if (!rc)
		rc = check_topology(vm, err);
	if (!rc)
		rc = x86_supported_cpuid(&vm->common.kvm, &vm->cpuid, err);
	if (rc)
		goto fail;
	vm->phys_bits = cpuid_phys_bits(vm->cpuid);
	rc = arch_common_create(&vm->common, 0, err);
	if (!rc)
		rc = set_up(vm, err);
	if (!rc)
		rc = arch_common_listen(&vm->common, err);
	if (rc)
		goto fail;
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
	arch_common_done(&vm->common);
	free(vm->cpuid);
	free(vm);
}

int arch_vm_reset(struct arch_vm *vm, struct err *err)
{
	struct kvm_clock_data clock = {.clock = 0};
	int rc = 0;

	for (unsigned int i = 0; !rc && i < ARRAY_SIZE(vm->chips); i++)
		rc = arch_vm_do(&vm->common, KVM_SET_IRQCHIP, &vm->chips[i], "KVM_SET_IRQCHIP",
				err);
	if (!rc)
		rc = arch_vm_do(&vm->common, KVM_SET_PIT2, &vm->pit, "KVM_SET_PIT2", err);
	if (!rc)
		rc = arch_vm_do(&vm->common, KVM_SET_CLOCK, &clock, "KVM_SET_CLOCK", err);
	return rc;
}
