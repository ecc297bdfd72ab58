// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"
#include "firmware/vmlinux.h"
#include "synth.h"

static struct err err;

static int parse(const struct blob *b, struct vmlinux *v)
{
	struct elf_source source = {b->data, -1, b->len};

	err = (struct err)ERR_INIT;
	return vmlinux_parse(v, &source, &err);
}

Test(vmlinux, says_where_everything_is)
{
	cleanup_blob struct blob b = synth_elf(&(struct synth){0});
	struct vmlinux v;

	cr_assert_eq(parse(&b, &v), 0, "%s", err.text);
	cr_assert_eq(v.base_gpa, SYNTH_BASE);
	cr_assert_eq(v.base_va, SYNTH_VA);
	cr_assert_eq(v.span_bytes, SYNTH_SPAN);
	cr_assert_eq(v.entry_offset, SYNTH_ENTRY);
	cr_assert_eq(v.pvh_entry, SYNTH_BASE + SYNTH_PVH);
	cr_assert_eq(v.n_segments, 3);
	cr_assert_eq(v.elf_end, b.len);
}

Test(vmlinux, a_file_is_read_as_a_buffer_is)
{
	cleanup_blob struct blob b = synth_elf(&(struct synth){0});
	struct elf_source source = {NULL, synth_file(&b), b.len};
	struct vmlinux from_file, from_buffer;

	cr_assert_eq(vmlinux_parse(&from_file, &source, NULL), 0);
	cr_assert_eq(parse(&b, &from_buffer), 0);
	cr_assert_eq(memcmp(&from_file, &from_buffer, sizeof(from_file)), 0);
	close(source.fd);
}

Test(vmlinux, segments_in_any_order_are_sorted)
{
	cleanup_blob struct blob b = synth_elf(&(struct synth){0});
	Elf64_Phdr *p = (void *)(b.data + sizeof(Elf64_Ehdr)), keep = p[0];
	struct vmlinux v;

	p[0] = p[2];
	p[2] = keep;
	cr_assert_eq(parse(&b, &v), 0, "%s", err.text);
	cr_assert_eq(v.base_va, SYNTH_VA);
	cr_assert_eq(v.segment[0].image_offset, 0);
	cr_assert_lt(v.segment[1].image_offset, v.segment[2].image_offset);
}

Test(vmlinux, a_virtual_entry_address_is_understood)
{
	cleanup_blob struct blob b = synth_elf(&(struct synth){0});
	struct vmlinux v;

	((Elf64_Ehdr *)(void *)b.data)->e_entry = SYNTH_VA + SYNTH_ENTRY;
	cr_assert_eq(parse(&b, &v), 0);
	cr_assert_eq(v.entry_offset, SYNTH_ENTRY);
}

Test(vmlinux, a_note_of_another_kind_is_passed_over)
{
	cleanup_blob struct blob b = synth_elf(&(struct synth){0});
	Elf64_Phdr *p = (void *)(b.data + sizeof(Elf64_Ehdr));
	Elf64_Nhdr *n = (void *)(b.data + p[3].p_offset);
	struct vmlinux v;

	n->n_type = 6;
	cr_assert_eq(parse(&b, &v), 0);
	cr_assert_eq(v.pvh_entry, 0);
	n->n_descsz = ~0u;
	n->n_namesz = ~0u;
	cr_assert_eq(parse(&b, &v), 0);
	cr_assert_eq(v.pvh_entry, 0);
}

static void refused(void (*change)(Elf64_Ehdr *e, Elf64_Phdr *p), const char *want)
{
	cleanup_blob struct blob b = synth_elf(&(struct synth){0});
	struct vmlinux v;

	change((void *)b.data, (void *)(b.data + sizeof(Elf64_Ehdr)));
	cr_assert_lt(parse(&b, &v), 0);
	cr_assert(strstr(err.text, want), "'%s' does not say '%s'", err.text, want);
}

#define REFUSED(name, statement, want)                          \
	static void change_##name(Elf64_Ehdr *e, Elf64_Phdr *p) \
	{                                                       \
		(void)e;                                        \
		(void)p;                                        \
		statement;                                      \
	}                                                       \
	Test(vmlinux, name)                                     \
	{                                                       \
		refused(change_##name, want);                   \
	}

REFUSED(no_program_headers, e->e_phnum = 0, "absurd program headers")
REFUSED(odd_program_headers, e->e_phentsize = 55, "absurd program headers")
REFUSED(program_headers_past_the_end, e->e_phoff = 1ull << 40, "cut short")
REFUSED(program_headers_that_wrap, e->e_phoff = ~0ull - 8, "cut short")
REFUSED(sections_past_the_end, e->e_shoff = 1ull << 40, "cut short")
REFUSED(sections_that_wrap, e->e_shoff = ~0ull - 8, "cut short")
REFUSED(a_segment_past_the_end, p[0].p_offset = 1ull << 40, "cut short: a segment")
REFUSED(a_segment_whose_end_wraps, p[0].p_offset = ~0ull - 8, "cut short: a segment")
REFUSED(more_file_than_memory, p[0].p_memsz = 8, "absurd segment")
REFUSED(a_huge_segment, p[0].p_memsz = 1ull << 40, "absurd segment")
REFUSED(a_segment_out_of_any_memory, p[0].p_paddr = ~0ull - 4096, "absurd segment")
REFUSED(a_segment_in_low_memory, p[0].p_paddr = 0, "above the first MiB")
REFUSED(overlapping_segments, p[1].p_paddr = SYNTH_BASE + 0x1000, "overlapping")
REFUSED(segments_far_apart, p[1].p_paddr = SYNTH_BASE + (2ull << 30), "more than 1 GiB")
REFUSED(an_entry_outside, e->e_entry = 0x10, "absurd entry")
REFUSED(no_segment, p[0].p_type = p[1].p_type = p[2].p_type = PT_NULL, "without a loadable")
REFUSED(an_object_file, e->e_type = ET_REL, "not a program")
REFUSED(another_machine, e->e_machine = EM_AARCH64, "not an x86-64")

Test(vmlinux, a_pvh_entry_outside_is_refused)
{
	cleanup_blob struct blob b = synth_elf(&(struct synth){0});
	Elf64_Phdr *p = (void *)(b.data + sizeof(Elf64_Ehdr));
	struct vmlinux v;

	memset(b.data + p[3].p_offset + 16, 0xff, 4);
	cr_assert_eq(parse(&b, &v), -EINVAL);
	cr_assert(strstr(err.text, "PVH entry"));
}

Test(vmlinux, any_cut_is_survived)
{
	cleanup_blob struct blob b = synth_elf(&(struct synth){0});
	size_t whole = b.len;
	struct vmlinux v;

	for (b.len = 0; b.len < whole; b.len += 37)
		cr_assert_lt(parse(&b, &v), 0, "accepted with %zu of %zu bytes", b.len, whole);
}
