/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small kernels made up for tests: an ELF file in the form of a Linux kernel, with relocations
 * behind it, packed into a bzImage. Nothing in them runs.
 */
#ifndef TEST_SYNTH_H
#define TEST_SYNTH_H

#include <asm/bootparam.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/gmem.h"
#include "firmware/image.h"

#define SYNTH_BASE    0x1000000ull
#define SYNTH_VA      0xffffffff81000000ull
#define SYNTH_TEXT    (64u * 1024)
#define SYNTH_PERCPU  (8u * 1024) /* at virtual address 0, as in kernels up to 6.14 */
#define SYNTH_DATA    (128u * 1024)
#define SYNTH_BSS     (256u * 1024)
#define SYNTH_SPAN    (4u << 20)
#define SYNTH_ENTRY   0x140u
#define SYNTH_PVH     0x200u
#define SYNTH_HOLE_AT (2u * 1024 * 1024 + 32 * 1024) /* 64 KiB of zeroes inside the data */

struct synth {
	enum image_codec codec;
	unsigned int lists; /* 0: no relocations; 2 or 3 */
	bool no_pvh;
	bool no_banner; /* nothing says that it is Linux */
	bool ecam;      /* it has what CONFIG_PCI_MMCONFIG brings */
	bool no_sections;
};

struct blob {
	uint8_t *data;
	size_t len;
};

void blob_free(struct blob *blob);
#define cleanup_blob __attribute__((cleanup(blob_free)))

/* The ELF file, with relocations behind it as asked. */
struct blob synth_elf(const struct synth *synth);
/* Packed as the kernel's build does it, with the size behind it. */
struct blob synth_pack(enum image_codec codec, const void *data, size_t len);
/* The whole bzImage; `payload` (packed) or what synth asks for when NULL. */
struct blob synth_bzimage(const struct synth *synth, const struct blob *payload);
struct setup_header *synth_header(struct blob *bzimage);

/* What memory from SYNTH_BASE on holds when the kernel is in place, moved by delta. */
struct blob synth_expected(const struct synth *synth, uint64_t delta);

/* A file with that content; -1 never. */
int synth_file(const struct blob *blob);

/* Guest memory: [0, bytes), anonymous. */
struct gmem *synth_memory(uint64_t bytes);

#endif
