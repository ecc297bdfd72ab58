/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files of vmm/arch/aarch64. Private to the folder. */
#ifndef AARCH64_ARM64_H
#define AARCH64_ARM64_H

#include <linux/kvm.h>

#include "common/common.h"

enum {
	ARM64_SPIS = 64, /* shared peripheral interrupts, which are GSIs 0 and up */
	ARM64_CPUS_MAX = 255,
	/* platform.c draws the whole layout. */
	ARM64_PIO_GPA = 0x01000000,
	ARM64_DIST_GPA = 0x02000000,
	ARM64_ITS_GPA = 0x02020000,
	ARM64_REDIST_GPA = 0x03000000,
};

/* Registers of the interrupt controller that a reset brings back to what they were when it was
 * made. */
struct arm64_gic_saved {
	uint32_t dist_group[ARM64_SPIS / 32 + 1];
	uint32_t redist_group;
	uint64_t icc_ctlr;
};

struct arch_vm {
	struct arch_common common;
	struct arch_topology topology;
	struct bus_region pio_window; /* ports, in memory */
	bool window_on;
	struct kvm_vcpu_init init; /* what each vCPU is */
	/* KVM makes the interrupt controller for as many vCPUs as there are then. -1:
	 * arch_vcpu_create has taken it. The machine's thread's. */
	int *vcpu_fds;
	int gic_fd, its_fd;
	struct arm64_gic_saved power_on;
};

struct arch_vcpu {
	struct arch_vm *vm;
	unsigned int index;
	int fd;
	struct arch_run area;
};

/* The layout as a function of the guest's address width: arch_platform_init without the host. */
int arm64_layout(struct arch_platform *ret, unsigned int phys_bits,
		 const struct arch_layout *layout, struct err *err);
/* How many bits KVM gives a guest's addresses at most. */
unsigned int arm64_phys_bits(const struct kvm *kvm);

/* The affinity of the vCPU that KVM calls `index`, as in MPIDR_EL1: 16 in a cluster. */
static inline uint64_t arm64_affinity(unsigned int index)
{
	return (index & 0xf) | (uint64_t)(index >> 4 & 0xff) << 8 |
	       (uint64_t)(index >> 12 & 0xff) << 16;
}

/* gic.c: a GICv3 with an ITS, when all vCPUs are there; and back to power-on, while none of them
 * runs. */
int arm64_gic_create(struct arch_vm *vm, struct err *err);
int arm64_gic_reset(struct arch_vm *vm, struct err *err);

#endif
