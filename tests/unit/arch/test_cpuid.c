// SPDX-License-Identifier: Apache-2.0
// CPUID: the topology's invariants for every shape up to 255 CPUs, for both vendors; what is taken
// away; what is never invented.
#include "x86_64/cpuid.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"

enum { ROOM = 64 };

struct room {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 entries[ROOM];
};

static struct kvm_cpuid2 *add(struct kvm_cpuid2 *c, uint32_t function, uint32_t index,
			      uint32_t flags, uint32_t eax, uint32_t ebx, uint32_t ecx,
			      uint32_t edx)
{
	cr_assert_lt(c->nent, ROOM - CPUID_SPARE);
	c->entries[c->nent++] = (struct kvm_cpuid_entry2){
		.function = function,
		.index = index,
		.flags = flags,
		.eax = eax,
		.ebx = ebx,
		.ecx = ecx,
		.edx = edx,
	};
	return c;
}

/* What KVM might say: everything on where a filter should act. */
static struct kvm_cpuid2 *host(bool amd)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(struct room));
	uint32_t idx = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;

	add(c, 0, 0, 0, 0x20, amd ? 0x68747541 : 0x756e6547, amd ? 0x444d4163 : 0x6c65746e,
	    amd ? 0x69746e65 : 0x49656e69);
	add(c, 1, 0, 0, 0x306f2, 0x07200800, 0xffffffff, 0xffffffff);
	if (!amd) {
		add(c, 4, 0, idx, 0xfc004121, 0x01c0003f, 0x3f, 0);
		add(c, 4, 1, idx, 0xfc004122, 0x01c0003f, 0x3f, 0);
		add(c, 4, 2, idx, 0xfc004143, 0x01c0003f, 0x1ff, 0);
		add(c, 4, 3, idx, 0xfc1fc163, 0x04c0003f, 0x5fff, 6);
		add(c, 4, 4, idx, 0, 0, 0, 0);
	}
	add(c, 5, 0, 0, 0x40, 0x40, 3, 0x2120);
	add(c, 6, 0, 0, 0x77, 2, 9, 0);
	add(c, 7, 0, idx, 1, 0xffffffff, 0xffffffff, 0xffffffff);
	add(c, 7, 1, idx, 0xffffffff, 0, 0, 0xffffffff);
	add(c, 0xb, 0, idx, 1, 2, 0x100, 0x55);
	add(c, 0xb, 1, idx, 6, 64, 0x201, 0x55);
	add(c, 0xd, 0, idx, 0x602e7, 0x2b00, 0x2b00, 0);
	add(c, 0xd, 2, idx, 0x100, 0x240, 0, 0);
	add(c, 0xd, 17, idx, 64, 0xac0, 2, 0);
	add(c, 0xd, 18, idx, 8192, 0xb00, 6, 0);
	add(c, 0x14, 0, idx, 1, 15, 7, 0);
	add(c, 0x15, 0, 0, 2, 216, 25000000, 0);
	add(c, 0x1f, 0, idx, 1, 2, 0x100, 0x55);
	add(c, 0x40000000, 0, 0, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d);
	add(c, 0x40000001, 0, 0, 0x01007efb, 0, 0, 0);
	add(c, 0x80000000, 0, 0, 0x80000021, 0, 0, 0);
	add(c, 0x80000001, 0, 0, 0, 0, amd ? 0x00c037ff : 0x121, 0x2c100800);
	add(c, 0x80000008, 0, 0, 0x3030, 0, amd ? 0x703f : 0, 0);
	if (amd) {
		add(c, 0x8000000a, 0, 0, 1, 8, 0, 0xffff);
		add(c, 0x8000001d, 0, idx, 0x4121, 0x01c0003f, 0x3f, 0);
		add(c, 0x8000001d, 3, idx, 0x3c163, 0x03c0003f, 0x7fff, 1);
		add(c, 0x8000001e, 0, 0, 0x55, 0x101, 0x300, 7);
		add(c, 0x8000001f, 0, 0, 0xf, 0x33, 0xff, 1);
	}
	return c;
}

static struct kvm_cpuid2 *build(const struct kvm_cpuid2 *from, struct arch_topology t,
				unsigned int index)
{
	struct cpuid_params p = {
		.topology = t,
		.index = index,
		.phys_bits = 40,
		.tsc_khz = 2500000,
		.tsc_deadline = true,
	};
	struct kvm_cpuid2 *c = calloc(1, sizeof(struct room));

	cpuid_build(c, from, &p);
	cr_assert_leq(c->nent, from->nent + CPUID_SPARE);
	return c;
}

static struct arch_topology shape(unsigned int sockets, unsigned int cores, unsigned int threads)
{
	return (struct arch_topology){sockets * cores * threads, sockets, cores, threads};
}

/* Decode as an operating system does (Intel SDM 3A, 10.9.3): from the x2APIC id and the shifts. */
static void check_decoded(const struct kvm_cpuid2 *c, struct arch_topology t, unsigned int index)
{
	const struct kvm_cpuid_entry2 *smt = cpuid_get(c, 0xb, 0), *core = cpuid_get(c, 0xb, 1);
	const struct kvm_cpuid_entry2 *end = cpuid_get(c, 0xb, 2), *one = cpuid_get(c, 1, 0);
	uint32_t id;

	cr_assert(smt && core && end && one);
	id = smt->edx;
	cr_assert_eq(core->edx, id);
	cr_assert_eq(end->edx, id);
	cr_assert_eq(smt->ecx >> 8 & 0xff, 1u);
	cr_assert_eq(core->ecx >> 8 & 0xff, 2u);
	cr_assert_eq(end->ecx >> 8 & 0xff, 0u);
	cr_assert_eq(smt->ebx, t.threads);
	cr_assert_eq(core->ebx, t.cores * t.threads);
	cr_assert_geq(1u << smt->eax, t.threads);
	cr_assert_geq(core->eax, smt->eax);
	cr_assert_eq(id & ((1u << smt->eax) - 1), index % t.threads);
	cr_assert_eq((id & ((1u << core->eax) - 1)) >> smt->eax, index / t.threads % t.cores);
	cr_assert_eq(id >> core->eax, index / t.threads / t.cores);
	cr_assert_eq(id, arch_cpu_id(&t, index));
	cr_assert_eq(one->ebx >> 24, id & 0xff);
	cr_assert_eq(one->edx >> 28 & 1, t.cores * t.threads > 1);
	if (t.cores * t.threads <= 128)
		cr_assert_geq(one->ebx >> 16 & 0xff, t.cores * t.threads);
}

Test(cpuid, every_shape_decodes_to_itself_and_ids_are_distinct)
{
	for (int amd = 0; amd < 2; amd++) {
		struct kvm_cpuid2 *from = host(amd);

		for (unsigned int n = 1; n <= 255; n++) {
			for (unsigned int threads = 1; threads <= n; threads++) {
				for (unsigned int cores = 1; threads * cores <= n; cores++) {
					struct arch_topology t;
					uint32_t last = 0;

					if (n % (threads * cores))
						continue;
					t = shape(n / threads / cores, cores, threads);
					/* First, last and one between: all of them for small
					 * ones. */
					for (unsigned int i = 0; i < n;
					     i += n > 16 ? (n - 1) / 2 : 1) {
						struct kvm_cpuid2 *c = build(from, t, i);

						check_decoded(c, t, i);
						cr_assert(!i || arch_cpu_id(&t, i) > last);
						last = arch_cpu_id(&t, i);
						free(c);
					}
				}
			}
		}
		free(from);
	}
}

Test(cpuid, intel_caches_are_shared_by_core_and_package)
{
	struct kvm_cpuid2 *from = host(false), *c = build(from, shape(2, 6, 2), 23);

	for (uint32_t level = 0; level < 4; level++) {
		const struct kvm_cpuid_entry2 *e = cpuid_get(c, 4, level);

		cr_assert(e);
		cr_assert_eq(e->eax >> 26, 7u, "core ids of a package");
		cr_assert_eq(e->eax >> 14 & 0xfff, level < 3 ? 1u : 15u, "%u", level);
		cr_assert_eq(e->eax & 0x3fff, cpuid_get(from, 4, level)->eax & 0x3fff);
	}
	cr_assert_eq(cpuid_get(c, 4, 4)->eax, 0u, "the end of the list");
	free(c);
	free(from);
}

Test(cpuid, amd_leaves_agree_with_the_topology)
{
	struct kvm_cpuid2 *from = host(true), *c = build(from, shape(2, 6, 2), 15);
	uint32_t id = arch_cpu_id(&(struct arch_topology){24, 2, 6, 2}, 15);
	const struct kvm_cpuid_entry2 *e;

	cr_assert(cpuid_is_amd(from));
	e = cpuid_get(c, 0x80000008, 0);
	cr_assert_eq((e->ecx & 0xff) + 1, 12u, "threads of a package");
	cr_assert_eq(e->ecx >> 12 & 0xf, 4u, "bits of the id below the package");
	e = cpuid_get(c, 0x8000001e, 0);
	cr_assert_eq(e->eax, id);
	cr_assert_eq((e->ebx >> 8 & 0xff) + 1, 2u, "threads of a core");
	cr_assert_eq(e->ebx & 0xff, id >> 1 & 0xff);
	cr_assert_eq(e->ecx & 0xff, 1u, "node");
	cr_assert_eq(cpuid_get(c, 0x8000001d, 0)->eax >> 14 & 0xfff, 1u);
	cr_assert_eq(cpuid_get(c, 0x8000001d, 3)->eax >> 14 & 0xfff, 11u);
	cr_assert(cpuid_get(c, 0x80000001, 0)->ecx & 2, "CmpLegacy");
	free(c);
	c = build(from, shape(3, 1, 1), 0);
	cr_assert(!(cpuid_get(c, 0x80000001, 0)->ecx & 2), "CmpLegacy of a single core");
	free(c);
	free(from);
}

Test(cpuid, what_belongs_to_the_host_is_taken_away)
{
	for (int amd = 0; amd < 2; amd++) {
		struct kvm_cpuid2 *from = host(amd), *c = build(from, shape(1, 4, 1), 2);
		const struct kvm_cpuid_entry2 *e;

		e = cpuid_get(c, 1, 0);
		cr_assert_eq(e->ecx & (1u << 3 | 1u << 5 | 1u << 6), 0u, "MONITOR, VMX, SMX");
		cr_assert(e->ecx >> 31);
		cr_assert(e->ecx >> 21 & 1);
		cr_assert(e->ecx >> 24 & 1);
		e = cpuid_get(c, 7, 0);
		cr_assert_eq(e->ebx & (1u << 2 | 1u << 14 | 1u << 25), 0u, "SGX, MPX, PT");
		cr_assert_eq(e->edx & (1u << 22 | 1u << 24 | 1u << 25), 0u, "AMX");
		e = cpuid_get(c, 0xd, 0);
		cr_assert_eq(e->eax, 0x2e7u, "AMX state");
		cr_assert_eq(cpuid_get(c, 0xd, 18)->eax, 0u);
		cr_assert_null(cpuid_get(c, 0x14, 0));
		cr_assert_null(cpuid_get(c, 0x15, 0));
		cr_assert_null(cpuid_get(c, 0x1f, 0));
		cr_assert_null(cpuid_get(c, 0x8000000a, 0));
		cr_assert_null(cpuid_get(c, 0x8000001f, 0));
		cr_assert_eq(cpuid_get(c, 5, 0)->ecx, 0u);
		cr_assert_eq(cpuid_get(c, 6, 0)->eax, 4u);
		if (amd)
			cr_assert_eq(cpuid_get(c, 0x80000001, 0)->ecx & (1u << 2 | 1u << 12), 0u,
				     "SVM, SKINIT");
		free(c);
		free(from);
	}
}

Test(cpuid, no_feature_is_invented)
{
	static const uint32_t leaves[][2] = {{7, 0}, {7, 1}, {0x40000001, 0}, {0x80000001, 0}};

	for (int amd = 0; amd < 2; amd++) {
		struct kvm_cpuid2 *from = host(amd), *c = build(from, shape(1, 1, 1), 0);
		const struct kvm_cpuid_entry2 *a, *b;

		for (size_t i = 0; i < ARRAY_SIZE(leaves); i++) {
			a = cpuid_get(from, leaves[i][0], leaves[i][1]);
			b = cpuid_get(c, leaves[i][0], leaves[i][1]);
			cr_assert(a && b);
			cr_assert_eq(b->eax & ~a->eax, 0u);
			cr_assert_eq(b->ebx & ~a->ebx, 0u);
			cr_assert_eq(b->ecx & ~a->ecx, 0u);
			cr_assert_eq(b->edx & ~a->edx, 0u);
		}
		/* A host without TSC deadline timers gives none. */
		free(c);
		c = calloc(1, sizeof(struct room));
		cpuid_build(c, from,
			    &(struct cpuid_params){.topology = shape(1, 1, 1), .phys_bits = 40});
		cr_assert(!(cpuid_get(c, 1, 0)->ecx >> 24 & 1));
		cr_assert_null(cpuid_get(c, 0x40000010, 0));
		cr_assert_eq(cpuid_get(c, 0x40000000, 0)->eax, 0x40000001u);
		free(c);
		free(from);
	}
}

Test(cpuid, frequencies_and_sizes_are_told)
{
	struct kvm_cpuid2 *from = host(false), *c = build(from, shape(1, 1, 1), 0);

	cr_assert_eq(cpuid_get(c, 0x40000010, 0)->eax, 2500000u);
	cr_assert_eq(cpuid_get(c, 0x40000000, 0)->eax, 0x40000010u);
	cr_assert_eq(cpuid_get(c, 0x80000008, 0)->eax & 0xff, 40u);
	free(c);
	/* The host's width, or what its second-level tables can do. */
	cr_assert_eq(cpuid_phys_bits(from), 48u);
	cpuid_find(from, 0x80000008, 0)->eax = 0x00303934;
	cr_assert_eq(cpuid_phys_bits(from), 48u);
	cpuid_find(from, 0x80000008, 0)->eax = 0x3934;
	cr_assert_eq(cpuid_phys_bits(from), 52u);
	cpuid_find(from, 0x80000008, 0)->eax = 0x393f;
	cr_assert_eq(cpuid_phys_bits(from), 52u);
	from->nent = 1;
	cr_assert_eq(cpuid_phys_bits(from), 36u);
	free(from);
}
