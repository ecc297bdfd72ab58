// SPDX-License-Identifier: Apache-2.0
// Counts, and how long things took.
#include <criterion/criterion.h>

#include "base/counter.h"

Test(counter, adds_up)
{
	_Atomic uint64_t n = 0;

	counter_add(&n, 3);
	counter_add(&n, 1ull << 40);
	cr_assert_eq(counter_read(&n), (1ull << 40) + 3);
}

Test(latency, what_is_at_most_a_bound_is_below_it)
{
	static const struct {
		uint64_t ns;
		unsigned int bucket;
	} rows[] = {
		{0, 0},
		{1, 0},
		{1000, 0},
		{1001, 1},
		{2000, 1},
		{2001, 2},
		{4000, 2},
		{4001, 3},
		{1024000, 10},
		{1024001, 11},
		{(1ull << 22) * 1000, 22},
		{(1ull << 22) * 1000 + 1, 23},
		{1ull << 50, 23},
		{UINT64_MAX, 23},
	};
	uint64_t total = 0;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct latency l = {0};

		latency_add(&l, rows[i].ns);
		cr_expect_eq(counter_read(&l.n[rows[i].bucket]), 1, "%llu",
			     (unsigned long long)rows[i].ns);
		cr_expect_eq(counter_read(&l.total_ns), rows[i].ns);
		total += rows[i].bucket;
	}
	cr_assert_eq(total, 0 + 1 + 1 + 2 + 2 + 3 + 10 + 11 + 22 + 23 + 23 + 23);
}
