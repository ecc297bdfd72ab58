// SPDX-License-Identifier: Apache-2.0
// A VM of KVM on arm64: vCPUs, interrupt controller, ports in memory, interrupt hooks. See
// core/arch.h.
#include <errno.h>
#include <stdlib.h>

#include "aarch64/arm64.h"
#include "base/fd.h"
#include "base/mem.h"

enum {
	/* Routes are for pins and messages together; KVM's table is as large as on x86. */
	MAX_GSI = ARCH_MAX_ROUTES,
	PORTS_BYTES = 0x10000,
};

const char arch_name[] = "arm64";

bool arch_has(enum arch_feature feature)
{
	static const bool have[] = {
		[ARCH_CPU_PLUG] = false, [ARCH_MEMORY_PLUG] = false, [ARCH_VIOMMU] = false,
		[ARCH_FIRMWARE] = false, [ARCH_STATE] = false,       [ARCH_DEBUG] = false,
		[ARCH_BUTTON] = false,   [ARCH_SMBIOS] = false,
	};

	return have[feature];
}

struct arch_common *arch_common(struct arch_vm *vm)
{
	return &vm->common;
}

/* --- ports --- */

static uint64_t port_read(void *opaque, uint64_t offset, unsigned int size)
{
	const struct arch_vm *vm = opaque;
	uint64_t value = 0;

	bus_read(vm->common.pio, offset, &value, size);
	return value;
}

static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	const struct arch_vm *vm = opaque;

	bus_write(vm->common.pio, offset, &value, size);
}

static const struct bus_ops port_ops = {.read = port_read, .write = port_write, .max = 4};

static int add_ports(struct arch_vm *vm, struct err *err)
{
	int rc;

	vm->pio_window = (struct bus_region){
		.ops = &port_ops,
		.opaque = vm,
		.name = "ports",
		.size_bytes = PORTS_BYTES,
	};
	rc = bus_add(vm->common.mmio, &vm->pio_window, ARM64_PIO_GPA, err);
	vm->window_on = !rc;
	vm->common.pio_gpa = ARM64_PIO_GPA;
	return rc;
}

/* --- interrupts --- */

static int set_routes(void *opaque, const struct irq_route *routes, unsigned int n)
{
	const struct arch_vm *vm = opaque;
	struct kvm_irq_routing *r = calloc(1, sizeof(*r) + n * sizeof(r->entries[0]));
	int rc;

	if (!r)
		return -ENOMEM;
	for (unsigned int i = 0; i < n; i++) {
		const struct irq_route *from = &routes[i];
		struct kvm_irq_routing_entry *to = &r->entries[r->nr++];

		to->gsi = from->gsi;
		if (!from->msi) {
			to->type = KVM_IRQ_ROUTING_IRQCHIP;
			to->u.irqchip.pin = from->pin;
			continue;
		}
		to->type = KVM_IRQ_ROUTING_MSI;
		to->flags = KVM_MSI_VALID_DEVID;
		to->u.msi.address_lo = (uint32_t)from->address;
		to->u.msi.address_hi = (uint32_t)(from->address >> 32);
		to->u.msi.data = from->data;
		to->u.msi.devid = from->devid;
	}
	rc = arch_vm_call(&vm->common, KVM_SET_GSI_ROUTING, r);
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
	struct kvm_irq_level arg = {
		/* By its number in the controller, behind those of each vCPU. */
		.irq = (uint32_t)KVM_ARM_IRQ_TYPE_SPI << KVM_ARM_IRQ_TYPE_SHIFT | (gsi + 32),
		.level = level,
	};

	return arch_vm_call(&vm->common, KVM_IRQ_LINE, &arg);
}

static int send_msi(void *opaque, uint64_t address, uint32_t data, uint32_t devid)
{
	const struct arch_vm *vm = opaque;

	return arch_send_msi(&vm->common, address, data, KVM_MSI_VALID_DEVID, devid);
}

const struct irq_chip_ops *arch_irq_ops(void)
{
	static const struct irq_chip_ops ops = {
		.set_routes = set_routes,
		.set_irqfd = set_irqfd,
		.set_line = set_line,
		.send_msi = send_msi,
		.pins = ARM64_SPIS,
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
		{KVM_CAP_ONE_REG, "KVM_CAP_ONE_REG"},
		{KVM_CAP_DEVICE_CTRL, "KVM_CAP_DEVICE_CTRL"},
		{KVM_CAP_ARM_PSCI_0_2, "KVM_CAP_ARM_PSCI_0_2"},
		{KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING"},
		{KVM_CAP_IRQFD, "KVM_CAP_IRQFD"},
		{KVM_CAP_IRQFD_RESAMPLE, "KVM_CAP_IRQFD_RESAMPLE"},
		{KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD"},
		{KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI"},
		{KVM_CAP_READONLY_MEM, "KVM_CAP_READONLY_MEM"},
		{KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
		{KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
	};

	return arch_check_kvm(&vm->common.kvm, need, ARRAY_SIZE(need),
			      "Linux 5.10 or newer on arm64", err);
}

static int check_topology(const struct arch_vm *vm, struct err *err)
{
	const struct arch_topology *t = &vm->topology;
	int max = arch_kvm_has(&vm->common.kvm, KVM_CAP_MAX_VCPUS);

	if (!t->cpus || t->sockets * t->cores * t->threads != t->cpus)
		return err_set(err, -EINVAL,
			       "%u CPUs are not %u sockets times %u cores times %u threads",
			       t->cpus, t->sockets, t->cores, t->threads);
	if (t->cpus > ARM64_CPUS_MAX || (max > 0 && t->cpus > (unsigned int)max))
		return err_set(err, -EINVAL, "%u CPUs: this host's KVM runs at most %d", t->cpus,
			       max > 0 ? MIN(max, ARM64_CPUS_MAX) : ARM64_CPUS_MAX);
	return 0;
}

/* Asked for in KVM's type of a VM where it can be. */
static unsigned long vm_type(const struct arch_vm *vm)
{
	return arch_kvm_has(&vm->common.kvm, KVM_CAP_ARM_VM_IPA_SIZE)
		       ? KVM_VM_TYPE_ARM_IPA_SIZE(arm64_phys_bits(&vm->common.kvm))
		       : 0;
}

static int create_vcpus(struct arch_vm *vm, struct err *err)
{
	int rc = arch_vm_do(&vm->common, KVM_ARM_PREFERRED_TARGET, &vm->init,
			    "KVM_ARM_PREFERRED_TARGET", err);

	if (rc)
		return rc;
	vm->init.features[0] |= 1u << KVM_ARM_VCPU_PSCI_0_2;
	vm->vcpu_fds = malloc(vm->topology.cpus * sizeof(*vm->vcpu_fds));
	if (!vm->vcpu_fds)
		return err_set(err, -ENOMEM, "no memory for %u vCPUs", vm->topology.cpus);
	for (unsigned int i = 0; i < vm->topology.cpus; i++)
		vm->vcpu_fds[i] = -1;
	for (unsigned int i = 0; i < vm->topology.cpus; i++) {
		rc = arch_vm_call_value(&vm->common, KVM_CREATE_VCPU, i);
		if (rc < 0)
			return err_set(err, rc, "vcpu%u: KVM_CREATE_VCPU: %s", i, err_name(rc));
		vm->vcpu_fds[i] = rc;
		rc = kvm_call(vm->common.kvm.calls, vm->vcpu_fds[i], KVM_ARM_VCPU_INIT, &vm->init);
		if (rc)
			return err_set(err, rc, "vcpu%u: KVM_ARM_VCPU_INIT: %s", i, err_name(rc));
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
	vm->gic_fd = vm->its_fd = -1;
	rc = check_kvm(vm, err);
	if (!rc)
		rc = check_topology(vm, err);
	if (!rc)
		rc = arch_common_create(&vm->common, vm_type(vm), err);
	if (!rc)
		rc = create_vcpus(vm, err);
	if (!rc)
		rc = arm64_gic_create(vm, err);
	if (!rc)
		rc = add_ports(vm, err);
	if (!rc)
		rc = arch_common_listen(&vm->common, err);
	if (rc) {
		arch_vm_destroy(vm);
		return rc;
	}
	*ret = vm;
	return 0;
}

void arch_vm_destroy(struct arch_vm *vm)
{
	if (!vm)
		return;
	if (vm->window_on) {
		bus_del(vm->common.mmio, &vm->pio_window);
		bus_synchronize(vm->common.mmio);
	}
	for (unsigned int i = 0; vm->vcpu_fds && i < vm->topology.cpus; i++)
		fd_close(&vm->vcpu_fds[i]);
	fd_close(&vm->its_fd);
	fd_close(&vm->gic_fd);
	arch_common_done(&vm->common);
	free(vm->vcpu_fds);
	free(vm);
}

int arch_vm_reset(struct arch_vm *vm, struct err *err)
{
	return arm64_gic_reset(vm, err);
}
