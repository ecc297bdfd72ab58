/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A checksum against damage (not against malice), computed while copying: per 32 bytes a
 * load, a store and five operations.
 *
 * Fletcher's: eight streams of 32-bit words side by side, of each the sum and the sum of the sums,
 * held in four 64-bit lanes (a sums the words of 64 bits, h their high halves; b and g sum those).
 * The low halves' sums are a - (h << 32), so nothing is lost by not splitting them off. Sums of
 * 32-bit words do not wrap in 64 bits: any change of one or two words shows, at any distance, and
 * so do exchanged or zeroed blocks, and lost or repeated parts, but for a chance of 2^-64 and less.
 *
 * Data is taken in blocks of 64 bytes; a last partial block counts as if zeroes followed. Each
 * call's last block is padded so.
 */
#ifndef FIRMWARE_BLOCK_H
#define FIRMWARE_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct digest {
	uint64_t lane[16];
};

void digest_init(struct digest *digest);
void digest_update(struct digest *digest, const void *src, size_t len);
bool digest_equal(const struct digest *a, const struct digest *b);

/* Copy, and add the copied bytes to the checksum: src is read once. */
void digest_copy(struct digest *digest, void *dst, const void *src, size_t len);

/* Copy with wide loads and stores: no string instruction, whose set-up and microcode cost
 * more than they save on parts of a page. */
void block_copy(void *dst, const void *src, size_t len);

/* The largest of n unsigned 32-bit words at any alignment; 0 when n is 0. */
uint32_t block_max(const void *words, size_t n);

/* Are all len bytes zero? len is a multiple of 64. */
bool block_is_zero(const void *src, size_t len);

#endif
