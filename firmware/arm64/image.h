/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An arm64 kernel: an Image (Linux Documentation/arch/arm64/booting.rst), alone, packed by gzip, or
 * as the payload of an EFI program that unpacks itself (zboot,
 * drivers/firmware/efi/libstub/zboot-header.S).
 *
 * The file is hostile: each field is checked where it is read, and the result's size is bounded.
 */
#ifndef FIRMWARE_ARM64_IMAGE_H
#define FIRMWARE_ARM64_IMAGE_H

#include <stdint.h>

#include "base/err.h"

enum { ARM64_IMAGE_HEAD = 64 };      /* bytes of the header */
#define ARM64_IMAGE_MAX (1ull << 30) /* of an unpacked kernel with its zeroes */

struct arm64_image {
	const char *format;      /* "Image", "zboot" */
	const char *compression; /* "none", "gzip" */
	uint8_t *bytes;          /* unpacked; owned */
	uint64_t len;
	uint64_t text_offset; /* from a multiple of 2 MiB, where it must lie */
	uint64_t image_bytes; /* with what it wants behind its end; at least len */
};

/* The header of an Image; fills in text_offset and image_bytes. -EINVAL or -ENOEXEC, with a text
 * that says what is wrong, without the file's name. */
int arm64_image_head(struct arm64_image *ret, const uint8_t *head, uint64_t len, struct err *err);
/* All of a file that is in memory: makes ret->bytes. The same errors, or -ENOMEM. */
int arm64_image_unpack(struct arm64_image *ret, const uint8_t *file, uint64_t len, struct err *err);
/* From a regular file. Messages name the path. */
int arm64_image_read(struct arm64_image *ret, int fd, const char *path, struct err *err);
/* An empty one is allowed. */
void arm64_image_release(struct arm64_image *image);

#endif
