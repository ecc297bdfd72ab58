// SPDX-License-Identifier: Apache-2.0
// Recognise a kernel image. Section numbers are those of Documentation/arch/x86/boot.rst.
#include "firmware/image.h"

#include <elf.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/le.h"
#include "base/num.h"

#define SECTOR               512
#define HEAD_BYTES           4096
#define HEADER_AT            0x1f1
#define BOOT_SECTOR_MAGIC_AT 0x1fe
#define HDRS_AT              0x202
#define HDRS                 0x53726448u /* "HdrS" */
#define JUMP_LENGTH_AT       0x201
#define ARM64_MAGIC_AT       56
#define ARM64_MAGIC          0x644d5241u /* "ARM\x64" */
#define RISCV_MAGIC_AT       56
#define RISCV_MAGIC          0x05435352u /* "RSC\x05" */
#define VOLUME_MAGIC_AT      40          /* of a UEFI firmware volume */

struct head {
	uint8_t byte[HEAD_BYTES];
	size_t bytes;
};

static const char *machine_name(unsigned int machine)
{
	switch (machine) {
	case EM_386:
		return "32-bit x86";
	case EM_AARCH64:
		return "arm64";
	case EM_ARM:
		return "32-bit arm";
	case EM_RISCV:
		return "RISC-V";
	case EM_PPC64:
		return "POWER";
	case EM_S390:
		return "s390";
	default:
		return "another architecture";
	}
}

/* Files that are often given in place of a kernel, by their first bytes. */
static const struct {
	const char *magic;
	uint8_t len;
	const char *what;
} lookalikes[] = {
	{"\x1f\x8b", 2, "gzip-compressed data; unpack it first"},
	{"\xfd"
	 "7zXZ",
	 5, "xz-compressed data; unpack it first"},
	{"\x28\xb5\x2f\xfd", 4, "zstd-compressed data; unpack it first"},
	{"\x02\x21\x4c\x18", 4, "lz4-compressed data; unpack it first"},
	{"BZh", 3, "bzip2-compressed data; unpack it first"},
	{"070701", 6, "a cpio archive; is it the initrd?"},
	{"070702", 6, "a cpio archive; is it the initrd?"},
	{"QFI\xfb", 4, "a qcow2 disk image"},
	{"#!", 2, "a script"},
	{"!<arch>", 7, "a Debian package or library archive"},
	{"hsqs", 4, "a squashfs image"},
	{"\x27\x05\x19\x56", 4, "a U-Boot image"},
};

static const char *looks_like(const struct head *head)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(lookalikes); i++)
		if (head->bytes >= lookalikes[i].len &&
		    !memcmp(head->byte, lookalikes[i].magic, lookalikes[i].len))
			return lookalikes[i].what;
	for (i = 0; i < head->bytes; i++)
		if ((head->byte[i] < ' ' || head->byte[i] > '~') &&
		    !memchr("\t\n\r", head->byte[i], 3))
			break;
	if (i == head->bytes)
		return "text";
	for (i = 0; i < head->bytes && !head->byte[i]; i++)
		;
	if (i == head->bytes)
		return "all zeroes at its start";
	if (head->byte[0] == 'M' && head->byte[1] == 'Z' &&
	    memmem(head->byte, head->bytes, ".linux\0", 8))
		return "a unified kernel image; take out what is in it first: 'objcopy -O binary "
		       "--only-section=.linux UKI KERNEL', and .initrd and .cmdline likewise";
	if (head->byte[0] == 'M' && head->byte[1] == 'Z')
		return "an EFI or Windows program without a Linux setup header";
	if (head->bytes > BOOT_SECTOR_MAGIC_AT + 1 && head->byte[BOOT_SECTOR_MAGIC_AT] == 0x55 &&
	    head->byte[BOOT_SECTOR_MAGIC_AT + 1] == 0xaa)
		return "a boot sector or disk image";
	return "unknown data";
}

static int not_a_kernel(const struct head *head, const char *path, struct err *err)
{
	const char *arch = NULL;

	if (head->bytes >= ARM64_MAGIC_AT + 4) {
		if (load_le32(head->byte + ARM64_MAGIC_AT) == ARM64_MAGIC)
			arch = "arm64";
		else if (load_le32(head->byte + RISCV_MAGIC_AT) == RISCV_MAGIC)
			arch = "RISC-V";
	}
	if (arch)
		return err_set(err, -ENOEXEC,
			       "kernel '%s': a Linux image for %s; this machine is x86-64", path,
			       arch);
	return err_set(
		err, -ENOEXEC,
		"kernel '%s': not a kernel image: it looks like %s; give a bzImage or a vmlinux",
		path, looks_like(head));
}

static int recognise_elf(struct image *image, const struct head *head, const char *path,
			 struct err *err)
{
	unsigned int machine;

	if (head->bytes < sizeof(Elf64_Ehdr))
		return err_set(err, -EINVAL, "kernel '%s': cut short: %zu bytes of an ELF file",
			       path, head->bytes);
	if (head->byte[EI_DATA] != ELFDATA2LSB)
		return err_set(err, -ENOEXEC,
			       "kernel '%s': a big-endian ELF file; this machine is x86-64", path);
	machine = load_le16(head->byte + offsetof(Elf64_Ehdr, e_machine));
	if (machine != EM_X86_64)
		return err_set(
			err, -ENOEXEC,
			"kernel '%s': an ELF file for %s (machine %u); this machine is x86-64",
			path, machine_name(machine), machine);
	if (head->byte[EI_CLASS] != ELFCLASS64)
		return err_set(err, -ENOEXEC,
			       "kernel '%s': an x86-64 ELF file of the x32 kind, not a "
			       "kernel",
			       path);
	image->format = IMAGE_VMLINUX;
	image->codec = CODEC_NONE;
	image->codec_name = "none";
	return 0;
}

static const struct {
	const char *magic;
	uint8_t len;
	enum image_codec codec;
	const char *name;
} codecs[] = {
	{"\x1f\x8b\x08", 3, CODEC_GZIP, "gzip"},
	{"\xfd"
	 "7zXZ\0",
	 6, CODEC_XZ, "xz"},
	{"\x28\xb5\x2f\xfd", 4, CODEC_ZSTD, "zstd"},
	{"\x02\x21\x4c\x18", 4, CODEC_LZ4, "lz4"},
	{ELFMAG, SELFMAG, CODEC_NONE, "none"},
	{"BZh", 3, CODEC_OTHER, "bzip2"},
	{"\x5d\0\0", 3, CODEC_OTHER, "lzma"},
	{"\x89LZO", 4, CODEC_OTHER, "lzo"},
};

/* The payload and its 4-byte trailer with the unpacked size (1.5, payload_offset, payload_length).
 * A payload that is not understood is not an error: the kernel's own decompressor may know it. */
static int find_payload(struct image *image, int fd, const char *path, struct err *err)
{
	uint64_t offset = image->header.payload_offset, bytes = image->header.payload_length;
	uint8_t magic[8], trailer[4];
	int r;

	image->codec = CODEC_OTHER;
	image->codec_name = "unknown";
	if (image->header.version < 0x208 || !bytes)
		return 0;
	if (!range_inside(offset, bytes, 0, image->code_bytes))
		return err_set(
			err, -EINVAL,
			"kernel '%s': absurd header: payload of %lu bytes at %lu in %lu bytes of code",
			path, bytes, offset, image->code_bytes);
	if (bytes < sizeof(magic) + sizeof(trailer))
		return 0;
	image->payload_offset = image->code_offset + offset;
	r = fd_read_full(fd, magic, sizeof(magic), (off_t)image->payload_offset);
	if (!r)
		r = fd_read_full(fd, trailer, sizeof(trailer),
				 (off_t)(image->payload_offset + bytes - sizeof(trailer)));
	if (r)
		return err_set(err, r, "kernel '%s': cannot read it: %s", path, err_name(r));
	for (size_t i = 0; i < ARRAY_SIZE(codecs); i++) {
		if (memcmp(magic, codecs[i].magic, codecs[i].len))
			continue;
		image->codec = codecs[i].codec;
		image->codec_name = codecs[i].name;
		break;
	}
	if (image->codec == CODEC_OTHER)
		return 0;
	/* gzip's own trailer is that size; the build appends one to the others. */
	image->payload_bytes = image->codec == CODEC_GZIP ? bytes : bytes - sizeof(trailer);
	image->unpacked_bytes = load_le32(trailer);
	if (image->codec == CODEC_NONE) {
		image->payload_bytes = bytes;
		image->unpacked_bytes = bytes;
	}
	if (image->unpacked_bytes < sizeof(Elf64_Ehdr) ||
	    image->unpacked_bytes > IMAGE_UNPACKED_MAX)
		return err_set(
			err, -EINVAL,
			"kernel '%s': absurd header: the %s payload says it unpacks to %lu bytes",
			path, image->codec_name, image->unpacked_bytes);
	return 0;
}

static int recognise_bzimage(struct image *image, const struct head *head, int fd, const char *path,
			     struct err *err)
{
	struct setup_header *h = &image->header;
	uint64_t header_bytes, setup_sects, needed;

	image->format = IMAGE_BZIMAGE;
	/* 1.4: the header ends at 0x202 + the byte at 0x201. */
	header_bytes = HDRS_AT + head->byte[JUMP_LENGTH_AT] - HEADER_AT;
	header_bytes = MIN(header_bytes, sizeof(*h));
	if (head->bytes < HEADER_AT + sizeof(*h))
		return err_set(err, -EINVAL, "kernel '%s': cut short: %zu bytes", path,
			       head->bytes);
	memcpy(h, head->byte + HEADER_AT, header_bytes);
	if (h->version < 0x20c || !(h->xloadflags & XLF_KERNEL_64))
		return err_set(
			err, -ENOEXEC,
			"kernel '%s': a 32-bit x86 kernel, or one older than Linux 3.8 (boot "
			"protocol %u.%02u without a 64-bit entry)",
			path, h->version >> 8, h->version & 0xff);
	if (!(h->loadflags & LOADED_HIGH))
		return err_set(err, -ENOEXEC, "kernel '%s': a zImage; only bzImage can be booted",
			       path);
	setup_sects = h->setup_sects ? h->setup_sects : 4;
	image->code_offset = (setup_sects + 1) * SECTOR;
	image->code_bytes = (uint64_t)h->syssize * 16;
	needed = image->code_offset + image->code_bytes;
	/* syssize counts paragraphs, the last of which may be partly outside the file. */
	if (!image->code_bytes || needed > IMAGE_UNPACKED_MAX)
		return err_set(err, -EINVAL, "kernel '%s': absurd header: %lu bytes of code", path,
			       image->code_bytes);
	if (needed > image->file_bytes + 15)
		return err_set(err, -EINVAL, "kernel '%s': cut short: %lu of %lu bytes", path,
			       image->file_bytes, needed);
	image->code_bytes = MIN(needed, image->file_bytes) - image->code_offset;
	if (image->code_bytes <= IMAGE_ENTRY64_OFFSET)
		return err_set(
			err, -EINVAL,
			"kernel '%s': absurd header: %lu bytes of code, which end before the "
			"64-bit entry at 0x%x",
			path, image->code_bytes, IMAGE_ENTRY64_OFFSET);
	if (!is_power_of_two(h->kernel_alignment) || h->kernel_alignment < 4 * KiB ||
	    h->kernel_alignment > GiB)
		return err_set(err, -EINVAL, "kernel '%s': absurd header: kernel_alignment 0x%x",
			       path, h->kernel_alignment);
	if (!h->init_size || h->init_size > IMAGE_UNPACKED_MAX)
		return err_set(err, -EINVAL, "kernel '%s': absurd header: init_size 0x%x", path,
			       h->init_size);
	if (!is_aligned(h->pref_address, 4 * KiB) || h->pref_address > 64 * TiB ||
	    h->pref_address < MiB)
		return err_set(err, -EINVAL, "kernel '%s': absurd header: pref_address 0x%llx",
			       path, h->pref_address);
	if (!h->cmdline_size)
		return err_set(err, -EINVAL, "kernel '%s': absurd header: cmdline_size 0", path);
	return find_payload(image, fd, path, err);
}

static int read_head(struct image *ret, struct head *head, int fd, const char *what,
		     const char *path, struct err *err)
{
	struct stat st;
	int r;

	memset(ret, 0, sizeof(*ret));
	if (fstat(fd, &st))
		return err_set(err, -errno, "%s '%s': %s", what, path, err_name(errno));
	if (S_ISDIR(st.st_mode))
		return err_set(err, -EISDIR, "%s '%s': is a directory", what, path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "%s '%s': not a regular file", what, path);
	if (!st.st_size)
		return err_set(err, -EINVAL, "%s '%s': is empty", what, path);
	ret->file_bytes = (uint64_t)st.st_size;
	head->bytes = MIN(ret->file_bytes, sizeof(head->byte));
	r = fd_read_full(fd, head->byte, head->bytes, 0);
	if (r)
		return err_set(err, r, "%s '%s': cannot read it: %s", what, path, err_name(r));
	return 0;
}

int image_recognise(struct image *ret, int fd, const char *path, struct err *err)
{
	struct head head = {.bytes = 0};
	int r = read_head(ret, &head, fd, "kernel", path, err);

	if (r)
		return r;
	if (head.bytes > SELFMAG && !memcmp(head.byte, ELFMAG, SELFMAG))
		return recognise_elf(ret, &head, path, err);
	if (head.bytes < HDRS_AT + 4 || load_le32(head.byte + HDRS_AT) != HDRS ||
	    load_le16(head.byte + BOOT_SECTOR_MAGIC_AT) != 0xaa55)
		return not_a_kernel(&head, path, err);
	return recognise_bzimage(ret, &head, fd, path, err);
}

/* What people have that is not it: Debian's OVMF, SeaBIOS, a kernel. */
static const char *not_firmware(const struct head *head)
{
	if (head->bytes >= VOLUME_MAGIC_AT + 4 && !memcmp(head->byte + VOLUME_MAGIC_AT, "_FVH", 4))
		return "a flash image for QEMU (OVMF), which wants QEMU's own devices";
	if (head->bytes >= HDRS_AT + 4 && load_le32(head->byte + HDRS_AT) == HDRS)
		return "a Linux kernel, which is given by --kernel";
	return looks_like(head);
}

int image_recognise_firmware(struct image *ret, int fd, const char *path, struct err *err)
{
	struct head head = {.bytes = 0};
	int r = read_head(ret, &head, fd, "firmware", path, err);

	if (r)
		return r;
	if (head.bytes < sizeof(Elf64_Ehdr) || memcmp(head.byte, ELFMAG, SELFMAG))
		return err_set(
			err, -ENOEXEC,
			"firmware '%s': it looks like %s; give a CLOUDHV.fd (edk2's build for "
			"virtual machines, which hospes's tools/firmware makes)",
			path, not_firmware(&head));
	ret->format = IMAGE_VMLINUX;
	ret->codec = CODEC_NONE;
	ret->codec_name = "none";
	return 0;
}
