// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/le.h"
#include "firmware/block.h"

#define LEN 65536u

static uint8_t data[LEN];

static void fill(void)
{
	for (unsigned int i = 0; i < LEN; i++)
		data[i] = (uint8_t)(i * 167 >> 3);
}

static struct digest of(const void *p, size_t len)
{
	struct digest d;

	digest_init(&d);
	digest_update(&d, p, len);
	return d;
}

Test(digest, copying_gives_the_same_digest_and_bytes, .init = fill)
{
	uint8_t *copy = malloc(LEN + 1);

	for (size_t len = 0; len < 1100; len += len < 300 ? 1 : 97) {
		struct digest want = of(data + 1, len), d;

		digest_init(&d);
		copy[1 + len] = 0xa5;
		digest_copy(&d, copy + 1, data + 1, len);
		cr_assert(digest_equal(&d, &want), "%zu", len);
		cr_assert_eq(memcmp(copy + 1, data + 1, len), 0);
		cr_assert_eq(copy[1 + len], 0xa5);
		memset(copy, 0, len + 1);
		block_copy(copy + 1, data + 1, len);
		cr_assert_eq(memcmp(copy + 1, data + 1, len), 0);
		cr_assert_eq(copy[1 + len], 0xa5);
	}
	free(copy);
}

Test(digest, every_single_bit_counts, .init = fill)
{
	struct digest want = of(data, 4096);

	for (unsigned int bit = 0; bit < 4096 * 8; bit++) {
		struct digest d;

		data[bit / 8] ^= (uint8_t)(1u << bit % 8);
		d = of(data, 4096);
		cr_assert_not(digest_equal(&d, &want), "bit %u", bit);
		data[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

/* The weak spot of sums modulo 2^64: the same high bit twice, far apart by a power of two. */
Test(digest, the_same_bit_twice_counts_at_any_distance, .init = fill)
{
	struct digest want = of(data, LEN);

	for (unsigned int bit = 0; bit < 64; bit++)
		for (unsigned int distance = 8; distance < LEN / 2; distance *= 2)
			for (unsigned int sign = 0; sign < 2; sign++) {
				uint64_t a = load_le64(data + 4096),
					 b = load_le64(data + 4096 + distance);
				struct digest d;

				store_le64(data + 4096, a + (1ull << bit));
				store_le64(data + 4096 + distance,
					   sign ? b - (1ull << bit) : b + (1ull << bit));
				d = of(data, LEN);
				cr_assert_not(digest_equal(&d, &want), "bit %u distance %u", bit,
					      distance);
				store_le64(data + 4096, a);
				store_le64(data + 4096 + distance, b);
			}
}

Test(digest, exchanged_zeroed_and_missing_pages_count, .init = fill)
{
	struct digest want, d;
	uint8_t page[4096];

	for (unsigned int i = 0; i < LEN; i += 4096)
		data[i] = (uint8_t)(i / 4096);
	want = of(data, LEN);
	memcpy(page, data + 8192, 4096);
	memcpy(data + 8192, data + 12288, 4096);
	memcpy(data + 12288, page, 4096);
	d = of(data, LEN);
	cr_assert_not(digest_equal(&d, &want));
	memcpy(data + 12288, data + 8192, 4096);
	memset(data + 8192, 0, 4096);
	d = of(data, LEN);
	cr_assert_not(digest_equal(&d, &want));
	d = of(data, LEN - 4096);
	cr_assert_not(digest_equal(&d, &want));
}

Test(digest, leading_zeroes_count)
{
	static const uint8_t zero[256];
	struct digest a = of(zero, 128), b = of(zero, 192);

	cr_assert_not(digest_equal(&a, &b));
}

Test(digest, the_largest_word_is_found_at_any_place_and_alignment)
{
	uint8_t words[4 * 40 + 3];

	for (unsigned int shift = 0; shift < 4; shift++)
		for (unsigned int n = 1; n <= 40; n++)
			for (unsigned int at = 0; at < n; at++) {
				memset(words, 0x7f, sizeof(words));
				store_le32(words + shift + 4 * at, 0xfffffff0);
				cr_assert_eq(block_max(words + shift, n), 0xfffffff0);
			}
	cr_assert_eq(block_max(words, 0), 0);
}

Test(digest, zero_blocks_are_told_apart)
{
	uint8_t page[4096] = {0};

	cr_assert(block_is_zero(page, sizeof(page)));
	for (unsigned int i = 0; i < sizeof(page); i += 63) {
		page[i] = 1;
		cr_assert_not(block_is_zero(page, sizeof(page)));
		page[i] = 0;
	}
}
