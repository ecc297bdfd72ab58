/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unpack the payload of a bzImage, as the kernel build packs it: gzip, xz (with the x86 filter),
 * zstd (windows up to 128 MiB), lz4 (the legacy frame), or an ELF file stored as it is.
 *
 * One call, from memory to memory, straight to where the result stays. `out_bytes` is what the
 * image says; a payload that holds more or less is damaged. Returns 0, -EINVAL with a text (without
 * the file's name: the caller puts it in front), or -ENOMEM.
 */
#ifndef FIRMWARE_UNPACK_H
#define FIRMWARE_UNPACK_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "firmware/image.h"

int unpack(enum image_codec codec, const uint8_t *in, size_t in_bytes, uint8_t *out,
	   size_t out_bytes, struct err *err);

#endif
