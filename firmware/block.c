// SPDX-License-Identifier: Apache-2.0
// The loops over whole kernels: written with vector types, compiled twice (baseline and AVX2).
#include "firmware/block.h"

#include <string.h>

#define BLOCK 64

typedef uint64_t vec __attribute__((vector_size(32)));
typedef uint32_t vec32 __attribute__((vector_size(32)));

#define INLINE static inline __attribute__((always_inline))

#define LOAD(v, p)  memcpy(&(v), (p), sizeof(v))
#define STORE(p, v) memcpy((p), &(v), sizeof(v))

/* dst NULL: checksum only; sums NULL: copy only (both known when compiled). */
INLINE void run(uint64_t *sums, uint8_t *dst, const uint8_t *src, size_t len)
{
	vec a = {0}, b = {0}, h = {0}, g = {0};

	if (sums) {
		LOAD(a, sums);
		LOAD(b, sums + 4);
		LOAD(h, sums + 8);
		LOAD(g, sums + 12);
	}
#define STEP(at)                               \
	do {                                   \
		vec v_;                        \
		LOAD(v_, src + (at));          \
		if (dst)                       \
			STORE(dst + (at), v_); \
		if (sums) {                    \
			a += v_;               \
			b += a;                \
			h += v_ >> 32;         \
			g += h;                \
		}                              \
	} while (0)
	while (len >= 4 * BLOCK) {
		STEP(0);
		STEP(32);
		STEP(64);
		STEP(96);
		STEP(128);
		STEP(160);
		STEP(192);
		STEP(224);
		src += 4 * BLOCK;
		len -= 4 * BLOCK;
		if (dst)
			dst += 4 * BLOCK;
	}
	while (len >= BLOCK) {
		STEP(0);
		STEP(32);
		src += BLOCK;
		len -= BLOCK;
		if (dst)
			dst += BLOCK;
	}
	if (len) {
		uint8_t last[BLOCK] = {0};

		memcpy(last, src, len);
		if (dst)
			memcpy(dst, last, len);
		src = last;
		dst = NULL;
		STEP(0);
		STEP(32);
	}
#undef STEP
	if (sums) {
		STORE(sums, a);
		STORE(sums + 4, b);
		STORE(sums + 8, h);
		STORE(sums + 12, g);
	}
}

INLINE uint32_t max_of(const uint8_t *word, size_t n)
{
	vec32 most = {0};
	uint32_t max = 0;
	size_t i = 0;

	for (; n - i >= 8; i += 8) {
		vec32 v, gt;

		LOAD(v, word + 4 * i);
		gt = (vec32)(v > most);
		most = (v & gt) | (most & ~gt);
	}
	for (unsigned int k = 0; k < 8; k++)
		max = most[k] > max ? most[k] : max;
	for (; i < n; i++) {
		uint32_t v;

		LOAD(v, word + 4 * i);
		max = v > max ? v : max;
	}
	return max;
}

INLINE bool all_zero(const uint8_t *src, size_t len)
{
	for (; len >= BLOCK; len -= BLOCK, src += BLOCK) {
		vec v, w;

		LOAD(v, src);
		LOAD(w, src + 32);
		v |= w;
		if (v[0] | v[1] | v[2] | v[3])
			return false;
	}
	return true;
}

#define AVX2 __attribute__((target("avx2"), noinline)) static

AVX2 void update_avx2(uint64_t *sums, const uint8_t *src, size_t len)
{
	run(sums, NULL, src, len);
}

AVX2 void copy_digest_avx2(uint64_t *sums, uint8_t *dst, const uint8_t *src, size_t len)
{
	run(sums, dst, src, len);
}

AVX2 void copy_avx2(uint8_t *dst, const uint8_t *src, size_t len)
{
	run(NULL, dst, src, len);
}

AVX2 uint32_t max_avx2(const uint8_t *word, size_t n)
{
	return max_of(word, n);
}

AVX2 bool zero_avx2(const uint8_t *src, size_t len)
{
	return all_zero(src, len);
}

void digest_init(struct digest *digest)
{
	/* Not zero, so that leading zeroes count. */
	for (unsigned int i = 0; i < 16; i++)
		digest->lane[i] = i + 1;
}

bool digest_equal(const struct digest *a, const struct digest *b)
{
	return !memcmp(a, b, sizeof(*a));
}

void digest_update(struct digest *digest, const void *src, size_t len)
{
	if (__builtin_cpu_supports("avx2"))
		update_avx2(digest->lane, src, len);
	else
		run(digest->lane, NULL, src, len);
}

void digest_copy(struct digest *digest, void *dst, const void *src, size_t len)
{
	if (__builtin_cpu_supports("avx2"))
		copy_digest_avx2(digest->lane, dst, src, len);
	else
		run(digest->lane, dst, src, len);
}

void block_copy(void *dst, const void *src, size_t len)
{
	if (__builtin_cpu_supports("avx2"))
		copy_avx2(dst, src, len);
	else
		run(NULL, dst, src, len);
}

uint32_t block_max(const void *words, size_t n)
{
	return __builtin_cpu_supports("avx2") ? max_avx2(words, n) : max_of(words, n);
}

bool block_is_zero(const void *src, size_t len)
{
	return __builtin_cpu_supports("avx2") ? zero_avx2(src, len) : all_zero(src, len);
}
