// SPDX-License-Identifier: Apache-2.0
// The ledger, with a clock of the test.
#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <string.h>

#include "iommu/ledger.h"

static uint64_t now_ns;
static struct ledger *ledger;

static uint64_t test_clock(void *opaque)
{
	return *(uint64_t *)opaque;
}

static void setup(void)
{
	now_ns = 1000000000;
	cr_assert_eq(ledger_create(&ledger, NULL), 0);
	ledger_set_clock(ledger, test_clock, &now_ns);
}

static void teardown(void)
{
	ledger_destroy(ledger);
}

TestSuite(ledger, .init = setup, .fini = teardown);

static void record(enum ledger_op op, uint64_t iova, uint64_t bytes, uint64_t gpa, uint64_t ns,
		   int code)
{
	uint64_t start = ledger_now(ledger);

	now_ns += ns;
	ledger_record(ledger, op, iova, bytes, gpa, start, code);
}

static struct ledger_totals totals(void)
{
	struct ledger_totals t;

	ledger_totals(ledger, &t);
	return t;
}

static bool close_to(double a, double b)
{
	return fabs(a - b) < 1e-6 * (fabs(b) + 1);
}

Test(ledger, counts_calls_bytes_and_time_by_kind)
{
	struct ledger_totals t;

	record(LEDGER_MAP, 0x1000, 0x3000, 0, 700, 0);
	record(LEDGER_MAP, 0x9000, 0x1000, 0, 300, -ENOMEM);
	record(LEDGER_UNMAP, 0x1000, 0x3000, 0, 50, 0);
	t = totals();
	cr_assert_eq(t.kind[LEDGER_MAP].calls, 2);
	cr_assert_eq(t.kind[LEDGER_MAP].failed, 1);
	cr_assert_eq(t.kind[LEDGER_MAP].bytes, 0x3000);
	cr_assert_eq(t.kind[LEDGER_MAP].ns, 1000);
	cr_assert_eq(t.kind[LEDGER_MAP].max_ns, 700);
	cr_assert_eq(t.kind[LEDGER_UNMAP].calls, 1);
	cr_assert_eq(t.kind[LEDGER_COPY].calls, 0);
	cr_assert_eq(t.mapped_bytes, 0);
	cr_assert_eq(t.mapped_peak_bytes, 0x3000);
}

Test(ledger, integrates_what_is_mapped_over_time)
{
	struct ledger_totals t;

	record(LEDGER_MAP, 0x1000, 4096, 0, 0, 0);
	now_ns += 2000000000;
	record(LEDGER_COPY, 0x3000, 8192, 0, 0, 0);
	now_ns += 1000000000;
	record(LEDGER_UNMAP, 0x1000, 12288, 0, 0, 0);
	now_ns += 5000000000;
	t = totals();
	cr_assert(close_to(t.mapped_byte_seconds, 2 * 4096 + 12288), "%f", t.mapped_byte_seconds);
	cr_assert(close_to(t.requested_byte_seconds, t.mapped_byte_seconds),
		  "nobody asked per buffer, so nothing is over-exposed");
}

Test(ledger, integrates_requested_and_stale_bytes_apart)
{
	struct ledger_stale stale = {.bytes = 4096, .promised_ns = UINT64_MAX};
	struct ledger_totals t;

	record(LEDGER_MAP, 0, 1 << 20, 0, 0, 0);
	ledger_request(ledger, 4096, true);
	now_ns += 1000000000;
	ledger_request(ledger, 4096, false);
	stale.since_ns = ledger_stale(ledger, 4096);
	now_ns += 500000000;
	ledger_stale_end(ledger, &stale);
	now_ns += 500000000;
	t = totals();
	cr_assert(close_to(t.mapped_byte_seconds, 2.0 * (1 << 20)));
	cr_assert(close_to(t.requested_byte_seconds, 4096));
	cr_assert(close_to(t.stale_byte_seconds, 2048));
	cr_assert_eq(t.requested_bytes, 0);
	cr_assert_eq(t.stale_bytes, 0);
}

Test(ledger, integrates_pinned_bytes)
{
	struct ledger_totals t;

	ledger_pinned(ledger, 8192);
	now_ns += 500000000;
	ledger_pinned(ledger, -4096);
	now_ns += 500000000;
	t = totals();
	cr_assert(close_to(t.pinned_byte_seconds, 4096 + 2048), "%f", t.pinned_byte_seconds);
	cr_assert_eq(t.pinned_bytes, 4096);
}

Test(ledger, levels_do_not_pass_zero)
{
	record(LEDGER_UNMAP, 0, 4096, 0, 0, 0);
	ledger_pinned(ledger, -4096);
	ledger_pinned(ledger, 8192);
	ledger_pinned(ledger, -4096);
	cr_assert_eq(totals().mapped_bytes, 0);
	cr_assert_eq(totals().pinned_bytes, 4096);
}

Test(ledger, buckets_are_powers_of_two)
{
	struct ledger_totals t;

	record(LEDGER_MAP, 0, 4096, 0, 0, 0);
	record(LEDGER_MAP, 0, 4096, 0, 1, 0);
	record(LEDGER_MAP, 0, 4096, 0, 2, 0);
	record(LEDGER_MAP, 0, 4096, 0, 1023, 0);
	record(LEDGER_MAP, 0, 4096, 0, 1024, 0);
	record(LEDGER_MAP, 0, 4096, 0, UINT64_C(1) << 50, 0);
	t = totals();
	cr_assert_eq(t.kind[LEDGER_MAP].histogram[0], 2);
	cr_assert_eq(t.kind[LEDGER_MAP].histogram[1], 1);
	cr_assert_eq(t.kind[LEDGER_MAP].histogram[9], 1);
	cr_assert_eq(t.kind[LEDGER_MAP].histogram[10], 1);
	cr_assert_eq(t.kind[LEDGER_MAP].histogram[LEDGER_BUCKETS - 1], 1);
}

Test(ledger, quantiles_are_the_upper_end_of_a_bucket)
{
	struct ledger_kind kind = {0};
	struct ledger_totals t;

	cr_assert_eq(ledger_quantile_ns(&kind, 0.5), 0, "no calls");
	for (unsigned int i = 0; i < 90; i++)
		record(LEDGER_MAP, 0, 4096, 0, 100, 0);
	for (unsigned int i = 0; i < 10; i++)
		record(LEDGER_MAP, 0, 4096, 0, 5000, 0);
	t = totals();
	cr_assert_eq(ledger_quantile_ns(&t.kind[LEDGER_MAP], 0.0), 128);
	cr_assert_eq(ledger_quantile_ns(&t.kind[LEDGER_MAP], 0.5), 128);
	cr_assert_eq(ledger_quantile_ns(&t.kind[LEDGER_MAP], 0.9), 128);
	cr_assert_eq(ledger_quantile_ns(&t.kind[LEDGER_MAP], 0.91), 8192);
	cr_assert_eq(ledger_quantile_ns(&t.kind[LEDGER_MAP], 1.0), 8192);
}

static void expect_history(uint64_t iova, const char *wanted)
{
	char text[120];

	ledger_history(ledger, iova, text, sizeof(text));
	cr_assert_str_eq(text, wanted);
}

Test(ledger, history_tells_the_last_thing_that_happened)
{
	expect_history(0x1000, "never mapped");
	record(LEDGER_MAP, 0x1000, 0x2000, 0x80001000, 0, 0);
	now_ns += 20000000000;
	expect_history(0x2fff, "mapped 20.0 s ago (request 1, gpa 0x80002fff)");
	expect_history(0x3000, "never mapped");
	record(LEDGER_UNMAP, 0x1000, 0x2000, UINT64_MAX, 0, 0);
	now_ns += 3100000;
	expect_history(0x1000, "unmapped 3.1 ms ago (request 2, gpa 0x80001000)");
	record(LEDGER_MAP, 0x1000, 0x1000, 0, 0, -ENOMEM);
	now_ns += 1500;
	expect_history(0x1000, "unmapped 3.1 ms ago (request 2, gpa 0x80001000)");
	record(LEDGER_COPY, 0x1000, 0x1000, 0x1c3000, 0, 0);
	now_ns += 1500;
	expect_history(0x1010, "mapped 1.5 us ago (request 4, gpa 0x1c3010)");
}

/* One call unmaps neighbours whose memory is scattered. */
Test(ledger, history_tells_what_each_mapping_of_an_unmapped_run_was)
{
	struct ledger_entry run = {
		.op = LEDGER_UNMAP, .iova = 0x1000, .bytes = 0x3000, .gpa = UINT64_MAX};

	record(LEDGER_MAP, 0x1000, 0x1000, 0x9000, 0, 0);
	record(LEDGER_MAP, 0x2000, 0x1000, 0x4000, 0, 0);
	record(LEDGER_MAP, 0x3000, 0x1000, UINT64_MAX, 0, 0);
	run.end_ns = now_ns;
	run.stale = true;
	ledger_enter(ledger, &run, 1);
	now_ns += 3100000;
	expect_history(0x1010, "stale until it was unmapped 3.1 ms ago (request 4, gpa 0x9010)");
	expect_history(0x2000, "stale until it was unmapped 3.1 ms ago (request 4, gpa 0x4000)");
	expect_history(0x3000, "stale until it was unmapped 3.1 ms ago (request 4)");
}

Test(ledger, counts_what_is_stale_and_what_ended_it)
{
	struct ledger_stale a = {.bytes = 4096, .promised_ns = 100, .hit = true};
	struct ledger_stale b = {.bytes = 8192, .promised_ns = 100};
	struct ledger_stale c = {.bytes = 4096, .promised_ns = UINT64_MAX};
	struct ledger_totals t;

	a.since_ns = ledger_stale(ledger, a.bytes);
	b.since_ns = ledger_stale(ledger, b.bytes);
	c.since_ns = ledger_stale(ledger, c.bytes);
	t = totals();
	cr_assert(t.stale_bytes == 16384 && t.stale_peak_bytes == 16384 && t.stale_mappings == 3);
	now_ns += 201; /* a nanosecond of grace */
	ledger_stale_end(ledger, &a);
	cr_assert_eq(totals().overruns, 0);
	now_ns++;
	ledger_stale_end(ledger, &b);
	now_ns += 1000;
	ledger_stale_end(ledger, &c);
	t = totals();
	cr_assert_eq(t.overruns, 1, "more than twice as long as was promised");
	cr_assert(t.stale_bytes == 0 && t.stale_peak_bytes == 16384 && t.stale_mappings == 0);
	cr_assert(t.hits == 1 && t.evicted == 2);
	cr_assert_eq(t.stale_longest_ns, 1202);
}

Test(ledger, history_forgets_what_left_the_ring)
{
	record(LEDGER_MAP, 0x1000, 0x1000, UINT64_MAX, 0, 0);
	for (unsigned int i = 1; i < LEDGER_RECENT; i++)
		record(LEDGER_MAP, 0x100000, 0x1000, UINT64_MAX, 0, 0);
	expect_history(0x1000, "mapped 0.0 us ago (request 1)");
	record(LEDGER_MAP, 0x100000, 0x1000, UINT64_MAX, 0, 0);
	expect_history(0x1000, "not in the last 4096 operations");
}

Test(ledger, attaching_is_no_history_of_an_address)
{
	record(LEDGER_ATTACH, 0, 0x100000, 0, 0, 0);
	expect_history(0x1000, "never mapped");
}

Test(ledger, every_operation_has_a_name)
{
	for (int op = 0; op < LEDGER_OPS; op++)
		cr_assert_str_neq(ledger_op_name((enum ledger_op)op), "?");
	cr_assert_str_eq(ledger_op_name(LEDGER_OPS), "?");
}
