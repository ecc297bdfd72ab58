// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/le.h"
#include "base/num.h"
#include "firmware/kaslr.h"
#include "synth.h"

static struct err err;

static int parse(struct blob *elf, struct vmlinux *v, struct relocs *relocs)
{
	struct elf_source source = {elf->data, -1, elf->len};

	err = (struct err)ERR_INIT;
	cr_assert_eq(vmlinux_parse(v, &source, &err), 0, "%s", err.text);
	return relocs_parse(relocs, v, elf->data, elf->len, &err);
}

static void applied_as_expected(unsigned int lists, bool no_sections)
{
	struct synth s = {.lists = lists, .no_sections = no_sections};
	cleanup_blob struct blob elf = synth_elf(&s), image = synth_expected(&s, 0);
	cleanup_blob struct blob want = synth_expected(&s, 0x12600000);
	struct relocs relocs;
	struct vmlinux v;

	cr_assert_eq(parse(&elf, &v, &relocs), 0, "%s", err.text);
	cr_assert(relocs_any(&relocs));
	cr_assert_eq(relocs.list[RELOC_INVERSE].n, lists == 3 ? 100 : 0);
	cr_assert(relocs_inside(&relocs, v.span_bytes));
	relocs_apply(&relocs, image.data, 0x12600000);
	cr_assert_eq(memcmp(image.data, want.data, want.len), 0);
}

Test(kaslr, three_lists_move_every_field)
{
	applied_as_expected(3, false);
}

Test(kaslr, two_lists_as_of_linux_6_15_move_every_field)
{
	applied_as_expected(2, false);
}

Test(kaslr, lists_are_found_without_section_headers)
{
	applied_as_expected(3, true);
}

Test(kaslr, a_kernel_without_relocations_has_empty_lists)
{
	cleanup_blob struct blob elf = synth_elf(&(struct synth){0});
	struct relocs relocs;
	struct vmlinux v;

	cr_assert_eq(parse(&elf, &v, &relocs), 0);
	cr_assert_not(relocs_any(&relocs));
}

/* The tail of an ELF file with three lists is replaced by these words. */
static int parse_tail(const uint32_t *word, unsigned int n, unsigned int extra)
{
	cleanup_blob struct blob elf = synth_elf(&(struct synth){0});
	struct relocs relocs;
	struct vmlinux v;

	elf.data = realloc(elf.data, elf.len + n * 4 + extra);
	memcpy(elf.data + elf.len, word, n * 4);
	memset(elf.data + elf.len + n * 4, 0, extra);
	elf.len += n * 4 + extra;
	return parse(&elf, &v, &relocs);
}

#define VA(offset) ((uint32_t)(SYNTH_VA + (offset)))
#define TAIL(...)  ((const uint32_t[]){__VA_ARGS__}), sizeof((const uint32_t[]){__VA_ARGS__}) / 4

Test(kaslr, what_is_not_a_relocation_table_is_refused)
{
	cr_assert_eq(parse_tail(TAIL(0, 0), 0), 0); /* two empty lists */
	cr_assert_eq(parse_tail(TAIL(0, 0), 1), -EINVAL);
	cr_assert_eq(parse_tail(TAIL(0), 0), -EINVAL);
	cr_assert_eq(parse_tail(TAIL(VA(8), 0), 0), -EINVAL);
	cr_assert_eq(parse_tail(TAIL(0, VA(8), VA(16)), 0), -EINVAL);
	cr_assert_eq(parse_tail(TAIL(0, VA(8), 0, 0, 0), 0), -EINVAL);
}

Test(kaslr, a_field_outside_of_the_kernel_is_refused)
{
	cr_assert_eq(parse_tail(TAIL(0, VA(SYNTH_SPAN - 8), 0, VA(SYNTH_SPAN - 4)), 0), 0);
	cr_assert_eq(parse_tail(TAIL(0, VA(SYNTH_SPAN - 7), 0), 0), -EINVAL);
	cr_assert_eq(parse_tail(TAIL(0, 0, VA(SYNTH_SPAN - 3)), 0), -EINVAL);
	cr_assert_eq(parse_tail(TAIL(0, 0, VA(0) - 1), 0), -EINVAL);
	cr_assert_eq(parse_tail(TAIL(0, 0, 8), 0), -EINVAL);
	cr_assert(strstr(err.text, "outside of the kernel"));
}

Test(kaslr, lists_from_a_file_are_checked_against_the_span)
{
	uint8_t word[12];
	struct relocs r = {.list[RELOC_64] = {word, 3}};

	for (unsigned int i = 0; i < 3; i++)
		store_le32(word + 4 * i, 4096 - 8);
	cr_assert(relocs_inside(&r, 4096));
	store_le32(word + 4, 4096 - 7);
	cr_assert_not(relocs_inside(&r, 4096));
	store_le32(word + 4, UINT32_MAX);
	cr_assert_not(relocs_inside(&r, 4096));
	r.list[RELOC_64].n = 0;
	r.list[RELOC_32] = (struct reloc_list){word, 1};
	cr_assert(relocs_inside(&r, 4096 - 4));
	cr_assert_not(relocs_inside(&r, 4096 - 5));
}

Test(kaslr, a_thousand_placements_are_aligned_inside_the_window_and_spread_evenly)
{
	struct vmlinux v = {.base_va = SYNTH_VA, .span_bytes = 60 * MiB};
	const uint64_t places = (KASLR_WINDOW - 16 * MiB - v.span_bytes) / (2 * MiB) + 1;
	unsigned int count[512] = {0}, quarter[4] = {0}, distinct = 0;

	cr_assert_eq(places, 475);
	for (unsigned int i = 0; i < 1000; i++) {
		uint64_t delta;

		cr_assert_eq(kaslr_choose_virtual(&v, 2 * MiB, &delta), 0);
		cr_assert(is_aligned(delta, 2 * MiB));
		cr_assert_leq(16 * MiB + delta + v.span_bytes, KASLR_WINDOW);
		distinct += !count[delta / (2 * MiB)]++;
		quarter[delta / (2 * MiB) * 4 / places]++;
	}
	/* Expected: 417 hit, give or take 7; 250 in each quarter, give or take 14. These bounds
	 * are ten times as wide. */
	cr_assert_gt(distinct, 350u);
	for (unsigned int i = 0; i < 4; i++)
		cr_assert(quarter[i] > 110 && quarter[i] < 390, "quarter %u: %u", i, quarter[i]);
}

Test(kaslr, an_image_that_fills_the_window_stays_where_it_is)
{
	struct vmlinux v = {.base_va = SYNTH_VA, .span_bytes = KASLR_WINDOW - 16 * MiB};
	uint64_t delta = 1;

	cr_assert_eq(kaslr_choose_virtual(&v, 2 * MiB, &delta), 0);
	cr_assert_eq(delta, 0);
	v.span_bytes++;
	cr_assert_eq(kaslr_choose_virtual(&v, 2 * MiB, &delta), -EINVAL);
}

Test(kaslr, nokaslr_is_a_word_of_its_own)
{
	cr_assert(cmdline_has("nokaslr", "nokaslr"));
	cr_assert(cmdline_has("a=b nokaslr quiet", "nokaslr"));
	cr_assert(cmdline_has("  nokaslr", "nokaslr"));
	cr_assert_not(cmdline_has("", "nokaslr"));
	cr_assert_not(cmdline_has("nokaslrx xnokaslr nokaslr=1", "nokaslr"));
}
