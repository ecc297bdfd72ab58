// SPDX-License-Identifier: Apache-2.0
// The guest-physical layout: nothing overlaps, everything is aligned, memory is complete, for all
// address widths and many sizes; what does not fit is said.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "x86_64/x86.h"

static int lay_out(struct arch_platform *ret, unsigned int bits, bool amd, uint64_t memory_bytes,
		   struct err *err)
{
	const struct arch_layout layout = {.memory_bytes = memory_bytes};

	return x86_layout(ret, bits, amd, &layout, err);
}

struct range {
	uint64_t start, bytes;
};

static void check_window(const struct arch_platform *p, uint64_t memory, bool low_window)
{
	const struct range r[] = {
		{0, p->low_bytes},
		{p->high_gpa, p->high_bytes},
		{p->pci.mmio32_gpa, p->pci.mmio32_bytes},
		{p->pci.ecam_gpa, 256 * MiB},
		{p->pci.mmio64_gpa, p->pci.mmio64_bytes},
		{0xfec00000, 4096},
		{0xfee00000, 4096},
		{IDENTITY_MAP_GPA, 4 * 4096},
	};
	uint64_t limit = (uint64_t)1 << p->phys_bits;

	cr_assert_eq(p->low_bytes + p->high_bytes, memory);
	for (size_t i = 0; i < ARRAY_SIZE(r); i++) {
		cr_assert_leq(r[i].start + r[i].bytes, limit, "%zu", i);
		for (size_t k = i + 1; k < ARRAY_SIZE(r); k++)
			cr_assert(!ranges_overlap(r[i].start, r[i].bytes, r[k].start, r[k].bytes),
				  "%zu and %zu, %u bits, %llu MiB", i, k, p->phys_bits,
				  (unsigned long long)(memory / MiB));
	}
	/* Naturally aligned: a BAR of the window's own size fits. */
	cr_assert(is_power_of_two(p->pci.mmio64_bytes));
	cr_assert(is_aligned(p->pci.mmio64_gpa, low_window ? GiB : p->pci.mmio64_bytes));
	cr_assert_geq(p->pci.mmio64_bytes, 1 * GiB);
	cr_assert(is_aligned(p->pci.ecam_gpa, 256 * MiB));
}

static void check(const struct arch_platform *p, uint64_t memory)
{
	check_window(p, memory, false);
}

Test(platform, layouts_are_sound_or_refused)
{
	static const uint64_t sizes[] = {
		4096,     1 * MiB,        32 * MiB,   256 * MiB,  3 * GiB - 4096,
		3 * GiB,  3 * GiB + 4096, 4 * GiB,    6 * GiB,    31 * GiB,
		62 * GiB, 512 * GiB,      1008 * GiB, 1011 * GiB, 1013 * GiB,
		2 * TiB,  60 * TiB,       64 * TiB,   4096 * TiB,
	};
	unsigned int good = 0, refused = 0;

	for (unsigned int bits = 36; bits <= 52; bits++) {
		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
			for (int amd = 0; amd < 2; amd++) {
				struct arch_platform p;
				struct err err = ERR_INIT;
				int rc = lay_out(&p, bits, amd, sizes[i], &err);

				if (!rc) {
					check(&p, sizes[i]);
					cr_assert(!amd ||
						  !ranges_overlap(p.high_gpa, p.high_bytes,
								  0xfd00000000, 0x300000000));
					good++;
				} else {
					cr_assert_eq(rc, -EINVAL);
					cr_assert(strstr(err.text, "address bits"), "%s", err.text);
					/* Only what is large is refused. */
					cr_assert_gt(sizes[i] + 4 * GiB,
						     (uint64_t)1 << MIN(bits, 39u));
					refused++;
				}
			}
		}
	}
	cr_assert_gt(good, 100u);
	cr_assert_gt(refused, 10u);
}

Test(platform, the_limit_that_the_message_names_is_accepted)
{
	for (unsigned int bits = 36; bits <= 48; bits++) {
		for (int amd = 0; amd < 2; amd++) {
			struct arch_platform p;
			struct err err = ERR_INIT;
			unsigned long long most;

			cr_assert_neq(lay_out(&p, bits, amd, 4096 * TiB, &err), 0);
			cr_assert_eq(sscanf(strstr(err.text, "at most "), "at most %llu", &most),
				     1);
			cr_assert_eq(lay_out(&p, bits, amd, most * MiB, &err), 0, "%u bits: %s",
				     bits, err.text);
		}
	}
}

Test(platform, nonsense_is_refused)
{
	struct arch_platform p;
	struct err err = ERR_INIT;

	cr_assert_eq(lay_out(&p, 40, false, 0, &err), -EINVAL);
	cr_assert_eq(lay_out(&p, 40, false, 4097, &err), -EINVAL);
	cr_assert_eq(lay_out(&p, 35, false, 1 * GiB, &err), -EINVAL);
	cr_assert_eq(lay_out(&p, 52, false, UINT64_MAX - 4095, &err), -EINVAL);
}

static int avoiding(struct arch_platform *ret, uint64_t memory_bytes, uint64_t first, uint64_t last,
		    struct err *err)
{
	const struct arch_avoid avoid[] = {
		{0xfee00000, 0xfeefffff, "0000:01:00.0: reserved (msi)"},
		{first, last, "0000:00:02.0: reserved (direct)"},
	};
	const struct arch_layout layout = {
		.memory_bytes = memory_bytes, .avoid = avoid, .n_avoid = ARRAY_SIZE(avoid)};

	return x86_layout(ret, 46, false, &layout, err);
}

Test(platform, ram_makes_way_for_reserved_ranges)
{
	struct arch_platform p;
	struct err err = ERR_INIT;

	/* what is in the hole anyway costs nothing */
	cr_assert_eq(avoiding(&p, 6 * GiB, 0xfd000000, 0xfdffffff, &err), 0, "%s", err.text);
	cr_assert_eq(p.low_bytes, 3 * GiB);
	cr_assert_eq(p.high_gpa, 4 * GiB);
	/* stolen memory below 3 GiB */
	cr_assert_eq(avoiding(&p, 6 * GiB, 0x7b800000, 0x7fffffff, &err), 0, "%s", err.text);
	check(&p, 6 * GiB);
	cr_assert_eq(p.low_bytes, 1 * GiB);
	cr_assert_eq(p.high_bytes, 5 * GiB);
	/* a small one, low: 2 MiB */
	cr_assert_eq(avoiding(&p, 1 * GiB, 0x10100000, 0x101fffff, &err), 0, "%s", err.text);
	cr_assert_eq(p.low_bytes, 0x10000000);
	check(&p, 1 * GiB);
	/* above 4 GiB */
	cr_assert_eq(avoiding(&p, 6 * GiB, 5 * GiB, 5 * GiB + 4095, &err), 0, "%s", err.text);
	check(&p, 6 * GiB);
	cr_assert_eq(p.high_gpa, 6 * GiB);
	/* beyond everything */
	cr_assert_eq(avoiding(&p, 6 * GiB, 1ull << 39, UINT64_MAX, &err), 0, "%s", err.text);
	cr_assert_eq(p.high_gpa, 4 * GiB);
}

Test(platform, ram_that_cannot_make_way_is_refused_with_the_reason)
{
	struct arch_platform p;
	struct err err = ERR_INIT;

	cr_assert_eq(avoiding(&p, 1 * GiB, 0, 0xffffff, &err), -EINVAL);
	cr_assert(strstr(err.text, "0000:00:02.0: reserved (direct)"), "%s", err.text);
	/* an aperture of 36 bits holds 63 GiB above and below the hole */
	cr_assert_eq(avoiding(&p, 64 * GiB, 1ull << 36, UINT64_MAX, &err), -EINVAL);
	cr_assert(strstr(err.text, "at most 64512 MiB"), "%s", err.text);
	cr_assert_eq(avoiding(&p, 63 * GiB, 1ull << 36, UINT64_MAX, &err), 0, "%s", err.text);
	check(&p, 63 * GiB);
}

Test(platform, the_window_is_large_enough_for_known_bars)
{
	struct arch_layout layout = {.memory_bytes = GiB, .mmio64_bytes = 16 * GiB};
	struct arch_platform p;
	struct err err = ERR_INIT;

	cr_assert_eq(x86_layout(&p, 36, false, &layout, &err), 0, "%s", err.text);
	cr_assert_eq(p.pci.mmio64_bytes, 32 * GiB);
	check(&p, GiB);
	layout.mmio64_bytes = 0;
	cr_assert_eq(x86_layout(&p, 36, false, &layout, &err), 0, "%s", err.text);
	cr_assert_eq(p.pci.mmio64_bytes, 16 * GiB);
}

static int with_plug(struct arch_platform *ret, unsigned int bits, bool amd, uint64_t memory,
		     uint64_t plug, struct err *err)
{
	const struct arch_layout layout = {
		.memory_bytes = memory, .plug_bytes = plug, .plug_align = 2 * GiB};

	return x86_layout(ret, bits, amd, &layout, err);
}

Test(platform, memory_that_may_come_has_a_place_of_its_own_above_ram)
{
	static const uint64_t sizes[] = {256 * MiB, 3 * GiB,    4 * GiB,
					 31 * GiB,  1008 * GiB, 2 * TiB};
	unsigned int good = 0;

	for (unsigned int bits = 36; bits <= 52; bits++) {
		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
			for (size_t k = 0; k < 2 * ARRAY_SIZE(sizes); k++) {
				bool amd = k % 2;
				uint64_t plug = sizes[k / 2];
				struct arch_platform p;
				struct err err = ERR_INIT;
				int rc = with_plug(&p, bits, amd, sizes[i], plug, &err);

				if (rc) {
					cr_assert_eq(rc, -EINVAL);
					cr_assert_not_null(strstr(err.text, "memory"), "%s",
							   err.text);
					continue;
				}
				good++;
				check(&p, sizes[i]);
				cr_assert_eq(p.plug_bytes, plug);
				cr_assert(is_aligned(p.plug_gpa, 2 * GiB));
				cr_assert_geq(p.plug_gpa, MAX(4 * GiB, p.high_gpa + p.high_bytes));
				cr_assert_leq(p.plug_gpa + plug, p.pci.mmio64_gpa);
				cr_assert(!amd || !ranges_overlap(p.plug_gpa, plug, 0xfd00000000,
								  0x300000000));
				cr_assert_eq(p.pci.kept[2].gpa, p.plug_gpa, "no BAR goes there");
				cr_assert_eq(p.pci.kept[2].bytes, plug);
			}
		}
	}
	cr_assert_gt(good, 300u);
}

Test(platform, without_memory_that_may_come_the_layout_has_none)
{
	struct arch_platform p;
	struct err err = ERR_INIT;

	cr_assert_eq(lay_out(&p, 40, false, 6 * GiB, &err), 0);
	cr_assert_eq(p.plug_gpa | p.plug_bytes, 0u);
}

Test(platform, memory_that_may_come_is_laid_out_around_what_devices_cannot_reach)
{
	struct arch_avoid avoid = {5 * GiB, 7 * GiB - 1, "0000:00:02.0: reserved (direct)"};
	const struct arch_layout layout = {.memory_bytes = GiB,
					   .plug_bytes = 4 * GiB,
					   .plug_align = 2 * GiB,
					   .avoid = &avoid,
					   .n_avoid = 1};
	struct arch_platform p;
	struct err err = ERR_INIT;

	cr_assert_eq(x86_layout(&p, 40, false, &layout, &err), 0, "%s", err.text);
	cr_assert_eq(p.plug_gpa, 8 * GiB);
	/* An aperture that ends in it. */
	avoid = (struct arch_avoid){6 * GiB, UINT64_MAX, "0000:00:02.0: reserved (direct)"};
	cr_assert_eq(x86_layout(&p, 40, false, &layout, &err), -EINVAL);
	cr_assert_not_null(strstr(err.text, "memory.max: 4096 MiB beyond memory.size reach"), "%s",
			   err.text);
}

static void check_firmware(const struct arch_platform *p, uint64_t memory, uint64_t plug, bool amd)
{
	uint64_t end = MAX(4 * GiB, p->high_gpa + p->high_bytes);

	check_window(p, memory, true);
	cr_assert_eq(p->pci.mmio64_gpa, align_up(end, GiB), "right above RAM");
	cr_assert_geq(p->pci.mmio64_bytes, 4 * GiB);
	cr_assert_leq(p->pci.mmio64_bytes, 64 * GiB, "memory that may come is not far away");
	cr_assert(!amd || !ranges_overlap(p->pci.mmio64_gpa, p->pci.mmio64_bytes, 0xfd00000000,
					  0x300000000));
	cr_assert_eq(p->plug_bytes, plug);
	cr_assert(!plug || p->plug_gpa >= p->pci.mmio64_gpa + p->pci.mmio64_bytes);
	cr_assert_leq(p->plug_gpa + plug, (uint64_t)1 << MIN(p->phys_bits, 46u));
	cr_assert(!amd || !ranges_overlap(p->plug_gpa, plug, 0xfd00000000, 0x300000000));
}

Test(platform, with_firmware_the_window_begins_right_above_ram)
{
	static const uint64_t sizes[] = {256 * MiB, 3 * GiB, 5 * GiB, 31 * GiB, 1008 * GiB};
	unsigned int good = 0;

	for (unsigned int bits = 36; bits <= 52; bits++) {
		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
			for (size_t k = 0; k < 6; k++) {
				bool amd = k % 2;
				uint64_t plug = k / 2 * 8 * GiB;
				const struct arch_layout layout = {.memory_bytes = sizes[i],
								   .plug_bytes = plug,
								   .plug_align = 2 * GiB,
								   .firmware = true};
				struct arch_platform p;
				struct err err = ERR_INIT;

				if (x86_layout(&p, bits, amd, &layout, &err)) {
					cr_assert_not_null(strstr(err.text, "memory"), "%s",
							   err.text);
					continue;
				}
				good++;
				check_firmware(&p, sizes[i], plug, amd);
			}
		}
	}
	cr_assert_gt(good, 300u);
}
