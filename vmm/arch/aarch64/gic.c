// SPDX-License-Identifier: Apache-2.0
// The interrupt controller, GICv3 with an ITS, both KVM's (Linux
// Documentation/virt/kvm/devices/arm-vgic-v3.rst and arm-vgic-its.rst; Arm IHI 0069 for the
// registers).
#include <errno.h>

#include "aarch64/arm64.h"
#include "base/fd.h"

enum {
	GICD_CTLR = 0x0000,
	GICD_IGROUPR = 0x0080,
	GICD_ICENABLER = 0x0180,
	GICD_ISPENDR = 0x0200, /* written from here: what is pending, all of it */
	GICD_ICACTIVER = 0x0380,
	GICD_IPRIORITYR = 0x0400,
	GICD_ICFGR = 0x0c00,
	GICD_IROUTER = 0x6000,

	GICR_CTLR = 0x0000,
	GICR_PROPBASER = 0x0070,
	GICR_PENDBASER = 0x0078,
	GICR_SGI = 0x10000, /* the second frame, whose registers are at the distributor's places */

	PRIVATE = 32, /* interrupts that each vCPU has its own of */
};

/* As KVM numbers registers of the CPU interface: op0, op1, CRn, CRm, op2. */
#define ICC(op1, crn, crm, op2) (3u << 14 | (op1) << 11 | (crn) << 7 | (crm) << 3 | (op2))
#define ICC_PMR                 ICC(0u, 4u, 6u, 0u)
#define ICC_BPR0                ICC(0u, 12u, 8u, 3u)
#define ICC_AP0R0               ICC(0u, 12u, 8u, 4u)
#define ICC_AP1R0               ICC(0u, 12u, 9u, 0u)
#define ICC_BPR1                ICC(0u, 12u, 12u, 3u)
#define ICC_CTLR                ICC(0u, 12u, 12u, 4u)
#define ICC_IGRPEN0             ICC(0u, 12u, 12u, 6u)
#define ICC_IGRPEN1             ICC(0u, 12u, 12u, 7u)

static int set_attr(const struct arch_vm *vm, int fd, uint32_t group, uint64_t attr,
		    const void *value)
{
	const struct kvm_device_attr arg = {.group = group, .attr = attr, .addr = (uintptr_t)value};

	return kvm_call(vm->common.kvm.calls, fd, KVM_SET_DEVICE_ATTR, &arg);
}

static int get_attr(const struct arch_vm *vm, uint32_t group, uint64_t attr, void *value)
{
	const struct kvm_device_attr arg = {.group = group, .attr = attr, .addr = (uintptr_t)value};

	return kvm_call(vm->common.kvm.calls, vm->gic_fd, KVM_GET_DEVICE_ATTR, &arg);
}

/* A vCPU, where a register is a vCPU's. */
static uint64_t of(unsigned int vcpu)
{
	/* Affinities 3 to 0 as bytes, at the place of MPIDR in an attribute. */
	return arm64_affinity(vcpu) << KVM_DEV_ARM_VGIC_V3_MPIDR_SHIFT;
}

static int make(const struct arch_vm *vm, uint32_t type, const char *what, int *ret,
		struct err *err)
{
	struct kvm_create_device create = {.type = type};
	int rc = arch_vm_call(&vm->common, KVM_CREATE_DEVICE, &create);

	if (rc)
		return err_set(err, rc == -ENODEV ? -EOPNOTSUPP : rc, "KVM_CREATE_DEVICE(%s): %s",
			       what, rc == -ENODEV ? "this host's KVM has none" : err_name(rc));
	*ret = (int)create.fd;
	return 0;
}

/* One step of the set-up; the error names it. */
static int step(const struct arch_vm *vm, int fd, uint32_t group, uint64_t attr, const void *value,
		const char *what, struct err *err)
{
	int rc = set_attr(vm, fd, group, attr, value);

	return rc ? err_set(err, rc, "%s: %s", what, err_name(rc)) : 0;
}

static int power_on(struct arch_vm *vm, struct err *err)
{
	struct arm64_gic_saved *s = &vm->power_on;
	int rc = 0;

	for (unsigned int i = 1; i < ARRAY_SIZE(s->dist_group) && !rc; i++)
		rc = get_attr(vm, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, GICD_IGROUPR + 4 * i,
			      &s->dist_group[i]);
	if (!rc)
		rc = get_attr(vm, KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, GICR_SGI + GICD_IGROUPR,
			      &s->redist_group);
	if (!rc)
		rc = get_attr(vm, KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, ICC_CTLR, &s->icc_ctlr);
	return rc ? err_set(err, rc, "the GIC's registers: %s", err_name(rc)) : 0;
}

int arm64_gic_create(struct arch_vm *vm, struct err *err)
{
	uint64_t dist = ARM64_DIST_GPA, its = ARM64_ITS_GPA;
	/* One region, number 0, for so many (arm-vgic-v3.rst). */
	uint64_t region = ARM64_REDIST_GPA | (uint64_t)vm->topology.cpus << 52;
	uint32_t irqs = PRIVATE + ARM64_SPIS;
	int rc = make(vm, KVM_DEV_TYPE_ARM_VGIC_V3, "GICv3", &vm->gic_fd, err);

	if (!rc)
		rc = step(vm, vm->gic_fd, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST,
			  &dist, "the GIC's distributor", err);
	if (!rc)
		rc = step(vm, vm->gic_fd, KVM_DEV_ARM_VGIC_GRP_ADDR,
			  KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION, &region, "the GIC's redistributors",
			  err);
	if (!rc)
		rc = step(vm, vm->gic_fd, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, &irqs, "the GIC's size",
			  err);
	if (!rc)
		rc = step(vm, vm->gic_fd, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT,
			  NULL, "KVM_DEV_ARM_VGIC_CTRL_INIT", err);
	if (!rc)
		rc = make(vm, KVM_DEV_TYPE_ARM_VGIC_ITS, "GIC ITS", &vm->its_fd, err);
	if (!rc)
		rc = step(vm, vm->its_fd, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_ITS_ADDR_TYPE, &its,
			  "the ITS's place", err);
	if (!rc)
		rc = step(vm, vm->its_fd, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT,
			  NULL, "the ITS", err);
	return rc ? rc : power_on(vm, err);
}

/* --- reset --- */

struct write {
	uint32_t offset, value;
};

static int write_all(const struct arch_vm *vm, uint32_t group, uint64_t vcpu,
		     const struct write *writes, unsigned int n)
{
	int rc = 0;

	for (unsigned int i = 0; i < n && !rc; i++)
		rc = set_attr(vm, vm->gic_fd, group, vcpu | writes[i].offset, &writes[i].value);
	return rc;
}

/* Interrupts first and up of the distributor, or of a redistributor's frame: 32, one bit each. */
static int reset_word(const struct arch_vm *vm, uint32_t regs, uint64_t attr, unsigned int first,
		      uint32_t group)
{
	const uint32_t bits = first / 8;
	const struct write writes[] = {
		{GICD_ICENABLER + bits, UINT32_MAX},
		{GICD_ICACTIVER + bits, UINT32_MAX},
		{GICD_ISPENDR + bits, 0},
		{GICD_IGROUPR + bits, group},
		{GICD_ICFGR + 2 * bits + 4, 0},
	};
	const struct write own = {GICD_ICFGR + 2 * bits, 0};
	int rc = write_all(vm, regs, attr, writes, ARRAY_SIZE(writes));

	/* That of software-generated interrupts is fixed. */
	if (!rc && first)
		rc = write_all(vm, regs, attr, &own, 1);
	for (unsigned int i = first; i < first + 32 && !rc; i += 4) {
		const struct write priority = {GICD_IPRIORITYR + i, 0};

		rc = write_all(vm, regs, attr, &priority, 1);
	}
	return rc;
}

static int reset_distributor(const struct arch_vm *vm)
{
	const struct write off = {GICD_CTLR, 0};
	int rc = write_all(vm, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0, &off, 1);

	for (unsigned int i = PRIVATE; i < PRIVATE + ARM64_SPIS && !rc; i += 32)
		rc = reset_word(vm, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0, i,
				vm->power_on.dist_group[i / 32]);
	for (unsigned int i = PRIVATE; i < PRIVATE + ARM64_SPIS && !rc; i++) {
		const struct write route[] = {{GICD_IROUTER + 8 * i, 0},
					      {GICD_IROUTER + 8 * i + 4, 0}};

		rc = write_all(vm, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0, route, ARRAY_SIZE(route));
	}
	return rc;
}

static int reset_redistributor(const struct arch_vm *vm, unsigned int vcpu)
{
	/* LPIs off before their tables go. */
	const struct write lpis[] = {
		{GICR_CTLR, 0},      {GICR_PENDBASER, 0},     {GICR_PENDBASER + 4, 0},
		{GICR_PROPBASER, 0}, {GICR_PROPBASER + 4, 0},
	};
	int rc = write_all(vm, KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, of(vcpu), lpis, ARRAY_SIZE(lpis));

	return rc ? rc
		  : reset_word(vm, KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, of(vcpu) | GICR_SGI, 0,
			       vm->power_on.redist_group);
}

static int reset_interface(const struct arch_vm *vm, unsigned int vcpu)
{
	const struct {
		uint32_t reg;
		uint64_t value;
	} writes[] = {
		{ICC_IGRPEN0, 0}, {ICC_IGRPEN1, 0}, {ICC_CTLR, vm->power_on.icc_ctlr},
		{ICC_PMR, 0},     {ICC_BPR0, 0},    {ICC_BPR1, 0},
		{ICC_AP0R0, 0},   {ICC_AP1R0, 0},
	};
	int rc = 0;

	for (unsigned int i = 0; i < ARRAY_SIZE(writes) && !rc; i++)
		rc = set_attr(vm, vm->gic_fd, KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS,
			      of(vcpu) | writes[i].reg, &writes[i].value);
	return rc;
}

int arm64_gic_reset(struct arch_vm *vm, struct err *err)
{
	int rc = step(vm, vm->its_fd, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_ITS_CTRL_RESET, NULL,
		      "KVM_DEV_ARM_ITS_CTRL_RESET", err);

	if (rc)
		return rc;
	rc = reset_distributor(vm);
	if (rc)
		return err_set(err, rc, "the GIC's distributor, at a reset: %s", err_name(rc));
	for (unsigned int i = 0; i < vm->topology.cpus; i++) {
		rc = reset_redistributor(vm, i);
		if (!rc)
			rc = reset_interface(vm, i);
		if (rc)
			return err_set(err, rc, "vCPU %u's part of the GIC, at a reset: %s", i,
				       err_name(rc));
	}
	return 0;
}
