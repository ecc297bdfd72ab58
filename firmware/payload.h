/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An unpacked kernel, ready to be placed: extents of file data, relocations, and its properties. It
 * comes from unpacking a bzImage or from the cache, and is the same either way.
 */
#ifndef FIRMWARE_PAYLOAD_H
#define FIRMWARE_PAYLOAD_H

#include <asm/bootparam.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "firmware/block.h"
#include "firmware/vmlinux.h"
#include "firmware/image.h"
#include "firmware/kaslr.h"

/* A part of the image that is not zero. */
struct extent {
	uint64_t image_offset; /* ascending, no two overlap, inside the image's span */
	uint64_t data_offset;  /* inside data */
	uint64_t bytes;
};

struct payload {
	struct vmlinux elf; /* elf.ecam: Linux with CONFIG_PCI_MMCONFIG */
	struct relocs relocs;
	const struct extent *extent;
	uint32_t n_extents;
	bool cached;          /* from the cache: `digest` is checked when it is placed */
	struct digest digest; /* of the extents in order, then of the lists in order */
	const uint8_t *data;
	uint64_t data_bytes;
	/* Owned. */
	void *map;
	size_t map_bytes;
	struct extent *extent_array;
};

/* Unpack the payload of a recognised bzImage. 0, -EINVAL (damaged), -ENOTSUP (intact, but not in a
 * form that can be entered directly: leave it to the kernel's own decompressor), -ENOMEM, or a read
 * error; with a text without the file's name. */
int payload_unpack(struct payload *ret, const struct image *image, int fd, struct err *err);

/* Frees; the struct is empty afterwards. An empty one is allowed. */
void payload_release(struct payload *payload);

/* Copy the image to `image`, span_bytes of memory, and zero what is not copied unless it is fresh
 * (known to be zero). -EBADMSG when a payload of the cache proves damaged: what was written is then
 * worthless, and relocations must not be applied. */
int payload_place(const struct payload *payload, uint8_t *image, bool fresh);

/* The digest of a payload that was unpacked here. */
void payload_digest(const struct payload *payload, struct digest *ret);

#endif
