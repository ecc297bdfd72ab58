// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/le.h"
#include "firmware/image.h"
#include "synth.h"

static struct err err;

static int recognise(struct blob *blob, struct image *image)
{
	int fd = synth_file(blob), r;

	err = (struct err)ERR_INIT;
	r = image_recognise(image, fd, "k", &err);
	close(fd);
	return r;
}

/* The content is refused, with a text that holds `want`. */
static void refused(const void *data, size_t len, int code, const char *want)
{
	cleanup_blob struct blob blob = {malloc(len + 1), len};
	struct image image;

	memcpy(blob.data, data, len);
	cr_assert_eq(recognise(&blob, &image), code, "%s", err.text);
	cr_assert(strstr(err.text, want), "'%s' does not say '%s'", err.text, want);
	cr_assert(strstr(err.text, "kernel 'k': "), "'%s'", err.text);
}

static void header_refused(void (*change)(struct setup_header *h), int code, const char *want)
{
	cleanup_blob struct blob b = synth_bzimage(&(struct synth){.codec = CODEC_GZIP}, NULL);

	change(synth_header(&b));
	refused(b.data, b.len, code, want);
}

#define HEADER_TEST(name, statement, code, want)           \
	static void change_##name(struct setup_header *h)  \
	{                                                  \
		statement;                                 \
	}                                                  \
	Test(image, name)                                  \
	{                                                  \
		header_refused(change_##name, code, want); \
	}

Test(image, finds_the_payload_of_each_compression)
{
	static const struct {
		enum image_codec codec;
		const char *name;
	} all[] = {{CODEC_GZIP, "gzip"}, {CODEC_XZ, "xz"},     {CODEC_ZSTD, "zstd"},
		   {CODEC_LZ4, "lz4"},   {CODEC_NONE, "none"}, {CODEC_OTHER, "bzip2"}};

	for (size_t i = 0; i < 6; i++) {
		struct synth s = {.codec = all[i].codec, .lists = 3};
		cleanup_blob struct blob b = synth_bzimage(&s, NULL), elf = synth_elf(&s);
		struct image image;

		cr_assert_eq(recognise(&b, &image), 0, "%s", err.text);
		cr_assert_eq(image.format, IMAGE_BZIMAGE);
		cr_assert_eq(image.codec, all[i].codec);
		cr_assert_str_eq(image.codec_name, all[i].name);
		if (all[i].codec != CODEC_OTHER)
			cr_assert_eq(image.unpacked_bytes, elf.len);
	}
}

Test(image, a_vmlinux_is_recognised)
{
	cleanup_blob struct blob b = synth_elf(&(struct synth){0});
	struct image image;

	cr_assert_eq(recognise(&b, &image), 0);
	cr_assert_eq(image.format, IMAGE_VMLINUX);
}

Test(image, an_empty_file_says_so)
{
	refused("", 0, -EINVAL, "is empty");
}

Test(image, a_directory_says_so)
{
	struct image image;
	struct err e = ERR_INIT;
	int fd = open("/", O_RDONLY | O_DIRECTORY);

	cr_assert_eq(image_recognise(&image, fd, "k", &e), -EISDIR);
	cr_assert(strstr(e.text, "is a directory"));
	close(fd);
}

Test(image, a_pipe_is_refused)
{
	struct image image;
	int fd[2];

	cr_assert_eq(pipe(fd), 0);
	cr_assert_eq(image_recognise(&image, fd[0], "k", NULL), -EINVAL);
}

Test(image, text_and_archives_are_named)
{
	refused("hello world\n", 12, -ENOEXEC, "looks like text");
	refused("#!/bin/sh\n", 10, -ENOEXEC, "a script");
	refused("\x1f\x8b\x08", 3, -ENOEXEC, "gzip");
	refused("070701000", 9, -ENOEXEC, "cpio archive; is it the initrd?");
	refused("QFI\xfb\0\0\0\3", 8, -ENOEXEC, "qcow2");
	refused("\x80\x81\x82", 3, -ENOEXEC, "unknown data");
	refused("\0\0\0\0\0\0", 6, -ENOEXEC, "zeroes");
}

Test(image, other_architectures_are_named)
{
	uint8_t head[512] = {0};

	memcpy(head, "MZ", 2);
	store_le32(head + 56, 0x644d5241);
	refused(head, sizeof(head), -ENOEXEC, "for arm64");
	store_le32(head + 56, 0x05435352);
	refused(head, sizeof(head), -ENOEXEC, "for RISC-V");
	store_le32(head + 56, 0);
	refused(head, sizeof(head), -ENOEXEC, "EFI or Windows program");
	/* The name of a section in a table of sections. */
	memcpy(head + 400, ".linux", 6);
	refused(head, sizeof(head), -ENOEXEC, "objcopy -O binary --only-section=.linux");
}

Test(image, elf_files_of_other_machines_are_named)
{
	cleanup_blob struct blob b = synth_elf(&(struct synth){0});
	Elf64_Ehdr *e = (void *)b.data;

	e->e_machine = EM_AARCH64;
	refused(b.data, b.len, -ENOEXEC, "for arm64");
	e->e_machine = EM_386;
	refused(b.data, b.len, -ENOEXEC, "for 32-bit x86");
	e->e_ident[EI_DATA] = ELFDATA2MSB;
	refused(b.data, b.len, -ENOEXEC, "big-endian");
	refused(b.data, 40, -EINVAL, "cut short");
}

Test(image, a_bzimage_that_is_cut_short_says_how_much_is_missing)
{
	cleanup_blob struct blob b = synth_bzimage(&(struct synth){.codec = CODEC_GZIP}, NULL);

	refused(b.data, b.len - 16, -EINVAL, "cut short");
	refused(b.data, 4096, -EINVAL, "cut short: 4096 of ");
	refused(b.data, 0x220, -EINVAL, "cut short");
}

HEADER_TEST(code_that_ends_before_its_64_bit_entry_is_absurd, h->syssize = 0x20, -EINVAL,
	    "512 bytes of code, which end before the 64-bit entry at 0x200")
HEADER_TEST(a_32_bit_kernel_says_so, h->xloadflags = 0, -ENOEXEC, "32-bit x86 kernel")
HEADER_TEST(an_ancient_kernel_says_so, h->version = 0x206, -ENOEXEC, "older than Linux 3.8")
HEADER_TEST(a_zimage_says_so, h->loadflags = 0, -ENOEXEC, "zImage")
HEADER_TEST(absurd_syssize, h->syssize = 0, -EINVAL, "absurd header")
HEADER_TEST(absurd_alignment, h->kernel_alignment = 3, -EINVAL, "kernel_alignment 0x3")
HEADER_TEST(no_alignment, h->kernel_alignment = 0, -EINVAL, "kernel_alignment 0x0")
HEADER_TEST(huge_alignment, h->kernel_alignment = 1u << 31, -EINVAL, "kernel_alignment")
HEADER_TEST(absurd_init_size, h->init_size = 0xfffff000, -EINVAL, "init_size 0xfffff000")
HEADER_TEST(absurd_pref_address, h->pref_address = ~0ull, -EINVAL, "pref_address")
HEADER_TEST(pref_address_in_low_memory, h->pref_address = 0x1000, -EINVAL, "pref_address 0x1000")
HEADER_TEST(absurd_payload_offset, h->payload_offset = ~0u, -EINVAL, "absurd header: payload")
HEADER_TEST(absurd_payload_length, h->payload_length = ~0u, -EINVAL, "absurd header: payload")
HEADER_TEST(absurd_cmdline_size, h->cmdline_size = 0, -EINVAL, "cmdline_size")

Test(image, an_absurd_unpacked_size_is_refused)
{
	cleanup_blob struct blob b = synth_bzimage(&(struct synth){.codec = CODEC_ZSTD}, NULL);
	struct setup_header *h = synth_header(&b);
	uint8_t *trailer = b.data + 5 * 512 + h->payload_offset + h->payload_length - 4;

	store_le32(trailer, 0xffffffff);
	refused(b.data, b.len, -EINVAL, "unpacks to 4294967295 bytes");
	store_le32(trailer, 0);
	refused(b.data, b.len, -EINVAL, "unpacks to 0 bytes");
}
