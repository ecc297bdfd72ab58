/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recognise a kernel image from its head: what it holds and where; or why it cannot be booted, in
 * one line that names what the file looks like.
 *
 *   bzImage (Documentation/arch/x86/boot.rst):
 *   0        0x1f1            (setup_sects + 1) * 512
 *   | boot sector, setup header, real-mode code | protected-mode code ... payload ... |
 *                                               |<-------- syssize * 16 ------------->|
 */
#ifndef FIRMWARE_IMAGE_H
#define FIRMWARE_IMAGE_H

#include <asm/bootparam.h>
#include <stdint.h>

#include "base/err.h"

enum image_format {
	IMAGE_BZIMAGE,
	IMAGE_VMLINUX,
};

/* How the payload of a bzImage is packed. */
enum image_codec {
	CODEC_NONE, /* an ELF file as it is */
	CODEC_GZIP,
	CODEC_XZ,
	CODEC_ZSTD,
	CODEC_LZ4,
	CODEC_OTHER, /* bzip2, lzma, lzo, or unknown: the kernel's own decompressor knows */
};

struct image {
	enum image_format format;
	enum image_codec codec;
	const char *codec_name;
	uint64_t file_bytes;

	/* bzImage only; every range is inside the file. */
	struct setup_header header;             /* what the file declares; zero beyond its length */
	uint64_t code_offset, code_bytes;       /* protected-mode code */
	uint64_t payload_offset, payload_bytes; /* in the file; without the size trailer */
	uint64_t unpacked_bytes;                /* as the trailer says; 0: no payload to unpack */
};

/* An unpacked kernel is never larger than the kernel's own image window (KERNEL_IMAGE_SIZE). */
#define IMAGE_UNPACKED_MAX (1ull << 30)

/* boot.rst: where the 64-bit entry lies in the protected-mode code. */
#define IMAGE_ENTRY64_OFFSET 0x200

/* fd: a regular file. -EINVAL, -ENOEXEC (not a kernel for this machine) or a read error. */
int image_recognise(struct image *ret, int fd, const char *path, struct err *err);

/* Firmware: an ELF file with a PVH note, which vmlinux_parse looks for. The same errors. */
int image_recognise_firmware(struct image *ret, int fd, const char *path, struct err *err);

#endif
