// SPDX-License-Identifier: Apache-2.0
// CPUID of a vCPU: KVM_GET_SUPPORTED_CPUID filtered, with our topology written in. See cpuid.h.
#include "x86_64/cpuid.h"

#include <assert.h>
#include <string.h>

#include "base/num.h"

#define BIT32(n) (1u << (n))

enum {
	LEAF_KVM = 0x40000000,
	LEAF_KVM_FREQUENCY = 0x40000010,
	APIC_BUS_KHZ = 1000000, /* KVM's APIC timer counts nanoseconds */
	AMD_EBX = 0x68747541,   /* "Auth" */
	HYGON_EBX = 0x6f677948, /* "Hygo" */
};

const struct kvm_cpuid_entry2 *cpuid_get(const struct kvm_cpuid2 *cpuid, uint32_t function,
					 uint32_t index)
{
	for (uint32_t i = 0; i < cpuid->nent; i++) {
		const struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

		if (e->function == function &&
		    (!(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || e->index == index))
			return e;
	}
	return NULL;
}

struct kvm_cpuid_entry2 *cpuid_find(struct kvm_cpuid2 *cpuid, uint32_t function, uint32_t index)
{
	const struct kvm_cpuid_entry2 *e = cpuid_get(cpuid, function, index);

	return e ? &cpuid->entries[e - cpuid->entries] : NULL;
}

bool cpuid_is_amd(const struct kvm_cpuid2 *cpuid)
{
	const struct kvm_cpuid_entry2 *e = cpuid_get(cpuid, 0, 0);

	return e && (e->ebx == AMD_EBX || e->ebx == HYGON_EBX);
}

unsigned int cpuid_phys_bits(const struct kvm_cpuid2 *supported)
{
	const struct kvm_cpuid_entry2 *e = cpuid_get(supported, 0x80000008, 0);
	unsigned int bits = 36, guest;

	if (e && (e->eax & 0xff))
		bits = e->eax & 0xff;
	/* Bits 23:16: what the host maps for a guest, when that is less (Linux 6.9). */
	guest = e ? e->eax >> 16 & 0xff : 0;
	if (guest)
		bits = MIN(bits, guest);
	return MIN(bits, 52u);
}

/* Width of the fields of an APIC id (arch_cpu_id). */
struct fields {
	unsigned int thread_bits;
	unsigned int package_bits; /* thread and core */
	unsigned int per_package;  /* logical processors that exist in one */
	uint32_t id;
};

static unsigned int bits_for(unsigned int n)
{
	unsigned int bits = 0;

	while (1u << bits < n)
		bits++;
	return bits;
}

static struct fields fields_of(const struct cpuid_params *p)
{
	struct fields f;

	f.thread_bits = bits_for(p->topology.threads);
	f.package_bits = f.thread_bits + bits_for(p->topology.cores);
	f.per_package = p->topology.cores * p->topology.threads;
	f.id = arch_cpu_id(&p->topology, p->index);
	return f;
}

static bool is_dropped(uint32_t function)
{
	switch (function) {
	case 0xb:  /* rewritten */
	case 0x1f: /* V2 topology: software falls back to 0xb */
	case 0x14: /* processor trace */
	case 0x15: /* TSC ratio of the host's crystal: not what the guest's TSC runs at */
	case 0x16:
	case 0x1d: /* AMX: the process has not asked the kernel for its state */
	case 0x1e:
	case 0x8000000a: /* SVM */
	case 0x8000001f: /* memory encryption */
	case 0x80000020: /* resource control */
	case 0x80000026: /* extended topology: software falls back to 0xb */
	case LEAF_KVM_FREQUENCY:
		return true;
	default:
		return false;
	}
}

static void patch_leaf1(struct kvm_cpuid_entry2 *e, const struct cpuid_params *p,
			const struct fields *f)
{
	unsigned int addressable = MIN(1u << f->package_bits, 255u);

	e->ebx = (e->ebx & 0xffff) | addressable << 16 | (f->id & 0xff) << 24;
	if (!(e->ebx & 0xff00))
		e->ebx |= 8 << 8; /* CLFLUSH of 64 bytes */
	/* MONITOR, VMX, SMX, EST, TM2 and what else belongs to the host alone. */
	e->ecx &= ~(BIT32(2) | BIT32(3) | BIT32(4) | BIT32(5) | BIT32(6) | BIT32(7) | BIT32(8) |
		    BIT32(11) | BIT32(15) | BIT32(18) | BIT32(24));
	e->ecx |= BIT32(21) | BIT32(31); /* x2APIC: KVM emulates it; a hypervisor is present */
	if (p->tsc_deadline)
		e->ecx |= BIT32(24);
	e->edx &= ~(BIT32(18) | BIT32(21) | BIT32(22) | BIT32(28) | BIT32(29) | BIT32(31));
	if (f->per_package > 1)
		e->edx |= BIT32(28);
}

/* Deterministic cache parameters, Intel: who shares it, by addressable ids. */
static void patch_leaf4(struct kvm_cpuid_entry2 *e, const struct fields *f)
{
	unsigned int level = e->eax >> 5 & 7;
	unsigned int shared = level < 3 ? f->thread_bits : f->package_bits;
	unsigned int core_bits = f->package_bits - f->thread_bits;

	if (!(e->eax & 0x1f))
		return;
	e->eax &= 0x3fff;
	e->eax |= MIN((1u << shared) - 1, 0xfffu) << 14;
	e->eax |= MIN((1u << core_bits) - 1, 0x3fu) << 26;
}

static void patch_leaf7(struct kvm_cpuid_entry2 *e)
{
	if (e->index == 0) {
		e->ebx &= ~(BIT32(2) | BIT32(14) | BIT32(25));  /* SGX, MPX, processor trace */
		e->ecx &= ~(BIT32(5) | BIT32(29) | BIT32(30));  /* WAITPKG, ENQCMD, SGX_LC */
		e->edx &= ~(BIT32(22) | BIT32(24) | BIT32(25)); /* AMX */
	} else if (e->index == 1) {
		e->eax &= ~BIT32(21); /* AMX-FP16 */
		e->edx &= ~BIT32(8);  /* AMX-COMPLEX */
	}
}

/* AMD: like leaf 4, and the number of processors that share a cache less one. */
static void patch_cache_amd(struct kvm_cpuid_entry2 *e, const struct cpuid_params *p,
			    const struct fields *f)
{
	unsigned int level = e->eax >> 5 & 7;
	unsigned int shared = level < 3 ? p->topology.threads : f->per_package;

	if (!(e->eax & 0x1f))
		return;
	e->eax = (e->eax & ~(0xfffu << 14)) | MIN(shared - 1, 0xfffu) << 14;
}

static void patch_size(struct kvm_cpuid_entry2 *e, const struct cpuid_params *p,
		       const struct fields *f, bool amd)
{
	e->eax = (e->eax & 0xff00) | p->phys_bits;
	if (!(e->eax & 0xff00))
		e->eax |= 48 << 8;
	if (amd) {
		e->ecx &= ~0xffffu;
		e->ecx |= MIN(f->per_package - 1, 0xffu) | f->package_bits << 12;
	} else {
		e->ecx = 0;
	}
}

static void patch(struct kvm_cpuid_entry2 *e, const struct cpuid_params *p, const struct fields *f,
		  bool amd)
{
	switch (e->function) {
	case 0:
		e->eax = MAX(e->eax, 0xbu);
		break;
	case 1:
		patch_leaf1(e, p, f);
		break;
	case 4:
		patch_leaf4(e, f);
		break;
	case 5: /* MONITOR */
		e->eax = e->ebx = e->ecx = e->edx = 0;
		break;
	case 6: /* of power management only: the APIC timer always runs */
		e->eax &= BIT32(2);
		e->ebx = e->ecx = e->edx = 0;
		break;
	case 7:
		patch_leaf7(e);
		break;
	case 0xd:
		if (e->index == 0)
			e->eax &= ~(BIT32(17) | BIT32(18)); /* AMX */
		else if (e->index == 17 || e->index == 18)
			e->eax = e->ebx = e->ecx = e->edx = 0;
		break;
	case LEAF_KVM:
		if (p->tsc_khz)
			e->eax = MAX(e->eax, (uint32_t)LEAF_KVM_FREQUENCY);
		break;
	case 0x80000000:
		e->eax = MAX(e->eax, 0x80000008u);
		break;
	case 0x80000001:
		/* SVM, IBS, SKINIT, watchdog, lightweight profiling, northbridge counters */
		e->ecx &= ~(BIT32(2) | BIT32(10) | BIT32(12) | BIT32(13) | BIT32(15) | BIT32(24));
		if (amd && f->per_package > 1)
			e->ecx |= BIT32(1); /* CmpLegacy: leaf 1's count is of cores */
		else
			e->ecx &= ~BIT32(1);
		break;
	case 0x80000008:
		patch_size(e, p, f, amd);
		break;
	case 0x8000001d:
		patch_cache_amd(e, p, f);
		break;
	case 0x8000001e:
		if (!amd)
			break;
		e->eax = f->id;
		e->ebx = (f->id >> f->thread_bits & 0xff) | (p->topology.threads - 1) << 8;
		e->ecx = f->id >> f->package_bits & 0xff; /* one node per package */
		e->edx = 0;
		break;
	default:
		break;
	}
}

static void append(struct kvm_cpuid2 *cpuid, const struct kvm_cpuid_entry2 *e)
{
	cpuid->entries[cpuid->nent++] = *e;
}

static void append_topology(struct kvm_cpuid2 *ret, const struct cpuid_params *p,
			    const struct fields *f)
{
	struct kvm_cpuid_entry2 e = {
		.function = 0xb,
		.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
		.edx = f->id,
	};

	e.eax = f->thread_bits;
	e.ebx = p->topology.threads;
	e.ecx = 1 << 8; /* SMT */
	append(ret, &e);
	e.index = 1;
	e.eax = f->package_bits;
	e.ebx = f->per_package;
	e.ecx = 2 << 8 | 1; /* core */
	append(ret, &e);
	e.index = 2;
	e.eax = e.ebx = 0;
	e.ecx = 2; /* the end */
	append(ret, &e);
}

static void append_frequency(struct kvm_cpuid2 *ret, const struct cpuid_params *p)
{
	struct kvm_cpuid_entry2 e = {
		.function = LEAF_KVM_FREQUENCY,
		.eax = p->tsc_khz,
		.ebx = APIC_BUS_KHZ,
	};

	if (p->tsc_khz)
		append(ret, &e);
}

void cpuid_build(struct kvm_cpuid2 *ret, const struct kvm_cpuid2 *supported,
		 const struct cpuid_params *params)
{
	struct fields f = fields_of(params);
	bool amd = cpuid_is_amd(supported), have_size = false;

	assert(params->index < params->topology.cpus);
	ret->nent = 0;
	ret->padding = 0;
	for (uint32_t i = 0; i < supported->nent; i++) {
		struct kvm_cpuid_entry2 e = supported->entries[i];

		if (is_dropped(e.function))
			continue;
		patch(&e, params, &f, amd);
		have_size |= e.function == 0x80000008;
		append(ret, &e);
	}
	append_topology(ret, params, &f);
	append_frequency(ret, params);
	if (!have_size) {
		struct kvm_cpuid_entry2 e = {.function = 0x80000008};

		patch_size(&e, params, &f, amd);
		append(ret, &e);
	}
}
