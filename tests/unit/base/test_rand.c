/* SPDX-License-Identifier: Apache-2.0 */
/* Randomness: every byte is filled, and no two fills agree. */
#include <criterion/criterion.h>
#include <string.h>

#include "base/mem.h"
#include "base/rand.h"

Test(rand, fills_every_byte)
{
	unsigned char seen[64] = {0};
	unsigned char buf[64];

	/* Each byte is zero in one fill of 256: never in all of 32 is certain enough. */
	for (int i = 0; i < 32; i++) {
		memset(buf, 0, sizeof(buf));
		cr_assert_eq(rand_bytes(buf, sizeof(buf)), 0);
		for (size_t j = 0; j < sizeof(buf); j++)
			seen[j] |= buf[j];
	}
	for (size_t j = 0; j < sizeof(seen); j++)
		cr_assert_neq(seen[j], 0, "byte %zu was never filled", j);
}

Test(rand, two_fills_differ)
{
	unsigned char a[32];
	unsigned char b[32];

	cr_assert_eq(rand_bytes(a, sizeof(a)), 0);
	cr_assert_eq(rand_bytes(b, sizeof(b)), 0);
	cr_assert_neq(memcmp(a, b, sizeof(a)), 0);
}

Test(rand, asks_for_more_than_one_call_gives)
{
	size_t size = 40u << 20; /* getrandom(2) stops at 32 MiB */
	cleanup_free unsigned char *buf = calloc(1, size);

	cr_assert_not_null(buf);
	cr_assert_eq(rand_bytes(buf, size), 0);
	cr_assert(memcmp(buf + size - 64, (unsigned char[64]){0}, 64) != 0);
}

Test(rand, nothing_is_nothing)
{
	cr_assert_eq(rand_bytes(NULL, 0), 0);
}
