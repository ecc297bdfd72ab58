/* SPDX-License-Identifier: Apache-2.0 */
/* Arithmetic that cannot wrap unseen, and the few sizes everybody needs. */
#ifndef BASE_NUM_H
#define BASE_NUM_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KiB ((uint64_t)1 << 10)
#define MiB ((uint64_t)1 << 20)
#define GiB ((uint64_t)1 << 30)
#define TiB ((uint64_t)1 << 40)

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* Each argument is evaluated once; names are unique, so that one may stand inside another. */
#define NUM_PASTE_(a, b) a##b
#define NUM_PASTE(a, b)  NUM_PASTE_(a, b)
#define NUM_PICK_(a, b, op, x, y)    \
	({                           \
		__auto_type x = (a); \
		__auto_type y = (b); \
		x op y ? x : y;      \
	})
#define MIN(a, b) \
	NUM_PICK_(a, b, <, NUM_PASTE(pick_a_, __COUNTER__), NUM_PASTE(pick_b_, __COUNTER__))
#define MAX(a, b) \
	NUM_PICK_(a, b, >, NUM_PASTE(pick_a_, __COUNTER__), NUM_PASTE(pick_b_, __COUNTER__))

#define container_of(ptr, type, member) \
	((type *)(void *)((char *)(1 ? (ptr) : &((type *)0)->member) - offsetof(type, member)))

/* true when the sum or product does not fit; *ret is then unspecified. */
#define add_overflows(a, b, ret) __builtin_add_overflow(a, b, ret)
#define mul_overflows(a, b, ret) __builtin_mul_overflow(a, b, ret)

/* Is [start, start + len) inside [base, base + size)? Empty ranges are inside nothing. No wrap. */
static inline bool range_inside(uint64_t start, uint64_t len, uint64_t base, uint64_t size)
{
	return len && start >= base && len <= size && start - base <= size - len;
}

/* Do the two ranges share a byte? Neither may wrap around 2^64. */
static inline bool ranges_overlap(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a_len && b_len && a <= b + (b_len - 1) && b <= a + (a_len - 1);
}

static inline bool is_power_of_two(uint64_t v)
{
	return v && !(v & (v - 1));
}

/* align is a power of two; align_up must not be asked to pass 2^64 (assert). */
static inline uint64_t align_down(uint64_t v, uint64_t align)
{
	return v & ~(align - 1);
}

static inline uint64_t align_up(uint64_t v, uint64_t align)
{
	assert(v <= UINT64_MAX - (align - 1));
	return (v + align - 1) & ~(align - 1);
}

static inline bool is_aligned(uint64_t v, uint64_t align)
{
	return !(v & (align - 1));
}

/* The smallest power of two that is not below v; v is at most 2^63. */
static inline uint64_t power_of_two_up(uint64_t v)
{
	assert(v <= 1ull << 63);
	return v <= 1 ? 1 : 1ull << (64 - __builtin_clzll(v - 1));
}

#endif
