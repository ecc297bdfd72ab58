/* SPDX-License-Identifier: Apache-2.0 */
/* Arithmetic at the edges of 64 bits, where a guest puts its numbers. */
#include <criterion/criterion.h>
#include <signal.h>

#include "base/num.h"

Test(num, range_inside_accepts_the_whole_and_each_end)
{
	cr_assert(range_inside(0x1000, 0x1000, 0x1000, 0x1000));
	cr_assert(range_inside(0x1000, 1, 0x1000, 0x1000));
	cr_assert(range_inside(0x1fff, 1, 0x1000, 0x1000));
}

Test(num, range_inside_refuses_one_byte_too_many)
{
	cr_assert_not(range_inside(0x1000, 0x1001, 0x1000, 0x1000));
	cr_assert_not(range_inside(0x1fff, 2, 0x1000, 0x1000));
	cr_assert_not(range_inside(0xfff, 2, 0x1000, 0x1000));
	cr_assert_not(range_inside(0x2000, 1, 0x1000, 0x1000));
}

Test(num, range_inside_refuses_empty_ranges)
{
	cr_assert_not(range_inside(0x1000, 0, 0x1000, 0x1000));
	cr_assert_not(range_inside(0x1000, 0, 0x1000, 0));
}

Test(num, range_inside_does_not_wrap)
{
	cr_assert_not(range_inside(UINT64_MAX, 2, 0, 0x1000));
	cr_assert_not(range_inside(0x1000, UINT64_MAX, 0x1000, 0x1000));
	cr_assert_not(range_inside(UINT64_MAX - 1, UINT64_MAX, 0, UINT64_MAX));
	cr_assert(range_inside(UINT64_MAX, 1, UINT64_MAX, 1));
	cr_assert(range_inside(UINT64_MAX - 1, 2, UINT64_MAX - 0xfff, 0x1000));
}

Test(num, ranges_overlap_sees_one_shared_byte)
{
	cr_assert(ranges_overlap(0, 10, 9, 10));
	cr_assert(ranges_overlap(9, 10, 0, 10));
	cr_assert(ranges_overlap(0, 100, 50, 1));
	cr_assert_not(ranges_overlap(0, 10, 10, 10));
	cr_assert_not(ranges_overlap(10, 10, 0, 10));
}

Test(num, ranges_overlap_at_the_top_of_the_space)
{
	cr_assert(ranges_overlap(UINT64_MAX, 1, UINT64_MAX - 1, 2));
	cr_assert_not(ranges_overlap(UINT64_MAX, 1, 0, UINT64_MAX));
}

Test(num, nothing_overlaps_an_empty_range)
{
	cr_assert_not(ranges_overlap(5, 0, 0, 10));
	cr_assert_not(ranges_overlap(0, 10, 5, 0));
}

Test(num, powers_of_two)
{
	cr_assert_not(is_power_of_two(0));
	cr_assert(is_power_of_two(1));
	cr_assert(is_power_of_two(1ull << 63));
	cr_assert_not(is_power_of_two(UINT64_MAX));
	cr_assert_eq(power_of_two_up(0), 1);
	cr_assert_eq(power_of_two_up(1), 1);
	cr_assert_eq(power_of_two_up(3), 4);
	cr_assert_eq(power_of_two_up(4), 4);
	cr_assert_eq(power_of_two_up((1ull << 62) + 1), 1ull << 63);
	cr_assert_eq(power_of_two_up(1ull << 63), 1ull << 63);
}

Test(num, alignment)
{
	cr_assert_eq(align_up(0, 4096), 0);
	cr_assert_eq(align_up(1, 4096), 4096);
	cr_assert_eq(align_up(4096, 4096), 4096);
	cr_assert_eq(align_up(UINT64_MAX - 4095, 4096), UINT64_MAX - 4095);
	cr_assert_eq(align_down(4095, 4096), 0);
	cr_assert_eq(align_down(UINT64_MAX, 4096), UINT64_MAX - 4095);
	cr_assert(is_aligned(8192, 4096));
	cr_assert_not(is_aligned(8193, 4096));
}

Test(num, align_up_past_the_end_is_our_own_bug, .signal = SIGABRT)
{
	volatile uint64_t v = UINT64_MAX;

	(void)align_up(v, 4096);
}

Test(num, overflow_is_seen)
{
	uint64_t sum;
	uint32_t small;

	cr_assert(add_overflows(UINT64_MAX, 1ull, &sum));
	cr_assert_not(add_overflows(UINT64_MAX, 0ull, &sum));
	cr_assert(mul_overflows(1ull << 33, 1ull << 31, &sum));
	cr_assert(add_overflows(UINT32_MAX, 1u, &small), "the result's type counts");
}

Test(num, min_and_max_evaluate_once)
{
	int a = 1;
	int b = 5;

	cr_assert_eq(MIN(a++, b++), 1);
	cr_assert_eq(a, 2);
	cr_assert_eq(b, 6);
	cr_assert_eq(MAX(a++, b++), 6);
	cr_assert_eq(b, 7);
}

struct outer {
	int first;
	int member;
};

Test(num, container_of_goes_back)
{
	struct outer o = {.first = 1, .member = 2};

	cr_assert_eq(container_of(&o.member, struct outer, member), &o);
}
