// SPDX-License-Identifier: Apache-2.0
// The guest-physical layout of arm64: nothing overlaps, memory is complete, for all address widths
// and many sizes; what does not fit is said.
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "aarch64/arm64.h"

static int lay_out(struct arch_platform *ret, unsigned int bits, uint64_t bytes,
		   const struct arch_avoid *avoid, unsigned int n, struct err *err)
{
	const struct arch_layout layout = {.memory_bytes = bytes, .avoid = avoid, .n_avoid = n};

	return arm64_layout(ret, bits, &layout, err);
}

static void check(const struct arch_platform *p, uint64_t memory)
{
	const struct {
		uint64_t start, bytes;
	} r[] = {
		{p->low_gpa, p->low_bytes},
		{p->high_gpa, p->high_bytes},
		{p->pci.mmio32_gpa, p->pci.mmio32_bytes},
		{p->pci.ecam_gpa, 256 * MiB},
		{p->pci.mmio64_gpa, p->pci.mmio64_bytes},
		{p->pio_gpa, 0x10000},
		{p->gic.dist_gpa, 0x10000},
		{p->gic.its_gpa, 0x20000},
		{p->gic.redist_gpa, (uint64_t)ARM64_CPUS_MAX * 0x20000},
		{0x8000000, MiB}, /* the host's doorbell */
	};

	cr_assert_eq(p->low_bytes + p->high_bytes, memory);
	cr_assert_geq(p->low_gpa, GiB);
	for (size_t i = 0; i < ARRAY_SIZE(r); i++) {
		cr_assert_leq(r[i].start + r[i].bytes, (uint64_t)1 << p->phys_bits, "%zu", i);
		for (size_t k = i + 1; k < ARRAY_SIZE(r); k++)
			cr_assert(!ranges_overlap(r[i].start, r[i].bytes, r[k].start, r[k].bytes),
				  "%zu and %zu, %u bits, %llu MiB", i, k, p->phys_bits,
				  (unsigned long long)(memory / MiB));
	}
	cr_assert(is_power_of_two(p->pci.mmio64_bytes));
	cr_assert(is_aligned(p->pci.mmio64_gpa, p->pci.mmio64_bytes));
	cr_assert_geq(p->pci.mmio64_bytes, GiB);
}

Test(arm64_layout, is_sound_or_refused)
{
	static const uint64_t sizes[] = {32 * MiB, 512 * MiB, 3 * GiB,  6 * GiB,  62 * GiB,
					 63 * GiB, 1 * TiB,   16 * TiB, 63 * TiB, 255 * TiB};
	unsigned int laid = 0;

	for (unsigned int bits = 36; bits <= 52; bits++) {
		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
			struct arch_platform p;
			struct err err = ERR_INIT;
			int rc = lay_out(&p, bits, sizes[i], NULL, 0, &err);

			if (!rc) {
				check(&p, sizes[i]);
				laid++;
			} else {
				cr_assert_eq(rc, -EINVAL);
				cr_assert(strstr(err.text, "use at most"), "%s", err.text);
			}
		}
	}
	cr_assert_gt(laid, 80);
}

Test(arm64_layout, memory_goes_around_what_a_device_cannot_reach)
{
	const struct arch_avoid avoid[] = {
		{8 * GiB, 9 * GiB - 1, "0000:00:02.0: reserved"},
		{2 * GiB, 2 * GiB + 0xfffff, "0000:00:03.0: reserved"},
	};
	struct arch_platform p;
	struct err err = ERR_INIT;

	cr_assert_eq(lay_out(&p, 40, 8 * GiB, avoid, 2, &err), 0, "%s", err.text);
	check(&p, 8 * GiB);
	cr_assert_eq(p.low_bytes, GiB);
	cr_assert_eq(p.high_gpa, 9 * GiB);
	for (unsigned int i = 0; i < 2; i++) {
		cr_assert(!ranges_overlap(p.low_gpa, p.low_bytes, avoid[i].first,
					  avoid[i].last - avoid[i].first + 1));
		cr_assert(!ranges_overlap(p.high_gpa, p.high_bytes, avoid[i].first,
					  avoid[i].last - avoid[i].first + 1));
	}
}

Test(arm64_layout, a_range_where_memory_must_be_is_named)
{
	const struct arch_avoid avoid = {GiB + MiB, GiB + 2 * MiB - 1,
					 "0000:00:02.0: reserved (direct)"};
	struct arch_platform p;
	struct err err = ERR_INIT;

	cr_assert_eq(lay_out(&p, 40, GiB, &avoid, 1, &err), -EINVAL);
	cr_assert(strstr(err.text, avoid.what), "%s", err.text);
}

/* All that an SMMU's driver keeps for messages is below memory. */
Test(arm64_layout, the_doorbell_of_a_host_moves_nothing)
{
	const struct arch_avoid avoid = {0x8000000, 0x80fffff, "0000:00:02.0: MSI window"};
	struct arch_platform p;
	struct err err = ERR_INIT;

	cr_assert_eq(lay_out(&p, 40, 4 * GiB, &avoid, 1, &err), 0, "%s", err.text);
	cr_assert_eq(p.low_bytes, 4 * GiB);
	cr_assert_eq(p.high_bytes, 0);
}
