/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CPUID of a vCPU: the host's CPUID as KVM supports it, without features that guests do not get,
 * with the machine's own topology. Pure functions.
 *
 * Sources: Intel SDM 2A CPUID and 3A 10.9 (topology), AMD APM 3 appendix E, Linux
 * Documentation/virt/kvm/x86/cpuid.rst.
 */
#ifndef X86_64_CPUID_H
#define X86_64_CPUID_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/arch.h"

struct cpuid_params {
	struct arch_topology topology;
	unsigned int index;     /* of the vCPU */
	unsigned int phys_bits; /* guest address width */
	uint32_t tsc_khz;       /* 0: not known */
	bool tsc_deadline;      /* KVM_CAP_TSC_DEADLINE_TIMER */
};

enum {
	CPUID_SPARE = 8, /* entries that cpuid_build may add */
};

/* Fill ret (room for supported->nent + CPUID_SPARE entries) for one vCPU. */
void cpuid_build(struct kvm_cpuid2 *ret, const struct kvm_cpuid2 *supported,
		 const struct cpuid_params *params);

/* The entry of a leaf, NULL when there is none. */
struct kvm_cpuid_entry2 *cpuid_find(struct kvm_cpuid2 *cpuid, uint32_t function, uint32_t index);
const struct kvm_cpuid_entry2 *cpuid_get(const struct kvm_cpuid2 *cpuid, uint32_t function,
					 uint32_t index);

/* The address width a guest may use, at most 52: what KVM supports, less when the host's
 * second-level tables translate less. */
unsigned int cpuid_phys_bits(const struct kvm_cpuid2 *supported);
bool cpuid_is_amd(const struct kvm_cpuid2 *cpuid);

#endif
