// SPDX-License-Identifier: Apache-2.0
// Sizes and times as people write them, and back.
#include <criterion/criterion.h>
#include <errno.h>

#include "base/num.h"
#include "base/units.h"

struct good {
	const char *text;
	uint64_t value;
};

Test(units, sizes_have_binary_suffixes)
{
	static const struct good good[] = {{"0", 0},
					   {"4096", 4096},
					   {"1K", 1024},
					   {"3m", 3 * MiB},
					   {"2G", 2 * GiB},
					   {"1TiB", TiB},
					   {"512MB", 512 * MiB},
					   {"7B", 7},
					   {"8P", 8 * 1024 * TiB}};
	static const char *const bad[] = {"", "M", "-1", "1X", "1MM", "1 M", "0x10", "1.5G"};
	uint64_t bytes;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		cr_assert_eq(units_parse_bytes(good[i].text, &bytes), 0, "%s", good[i].text);
		cr_assert_eq(bytes, good[i].value, "%s", good[i].text);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		cr_assert_eq(units_parse_bytes(bad[i], &bytes), -EINVAL, "%s", bad[i]);
	cr_assert_eq(units_parse_bytes("16777216T", &bytes), -ERANGE);
	cr_assert_eq(units_parse_bytes("18446744073709551616", &bytes), -ERANGE);
}

Test(units, times_need_their_unit)
{
	static const struct good good[] = {
		{"0s", 0}, {"7ns", 7}, {"3us", 3000}, {"10ms", 10000000}, {"2s", 2000000000}};
	static const char *const bad[] = {"",     "10",    "ms",  "-1s",  "1.5s",
					  "1 ms", "1msec", "1Ms", "0x1s", "1m"};
	uint64_t ns;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		cr_assert_eq(units_parse_ns(good[i].text, &ns), 0, "%s", good[i].text);
		cr_assert_eq(ns, good[i].value, "%s", good[i].text);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		cr_assert_eq(units_parse_ns(bad[i], &ns), -EINVAL, "%s", bad[i]);
	cr_assert_eq(units_parse_ns("18446744074s", &ns), -ERANGE);
	cr_assert_eq(units_parse_ns("18446744073709551616ns", &ns), -ERANGE);
}

Test(units, the_text_is_exact_and_reads_back)
{
	static const struct good sizes[] = {{"0", 0},         {"1023", 1023}, {"1K", 1024},
					    {"1025", 1025},   {"1M", MiB},    {"1025K", MiB + 1024},
					    {"64M", 64 * MiB}};
	static const struct good times[] = {
		{"0s", 0}, {"1ns", 1}, {"1500us", 1500000}, {"10ms", 10000000}, {"1s", 1000000000}};
	uint64_t edges[] = {UINT64_MAX, UINT64_MAX - 1023, 1ull << 63}, back;
	char text[UNITS_TEXT];

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		cr_assert_str_eq(units_bytes_text(sizes[i].value, text), sizes[i].text);
	for (size_t i = 0; i < ARRAY_SIZE(times); i++)
		cr_assert_str_eq(units_ns_text(times[i].value, text), times[i].text);
	for (size_t i = 0; i < ARRAY_SIZE(edges); i++) {
		cr_assert_eq(units_parse_bytes(units_bytes_text(edges[i], text), &back), 0);
		cr_assert_eq(back, edges[i]);
		cr_assert_eq(units_parse_ns(units_ns_text(edges[i], text), &back), 0);
		cr_assert_eq(back, edges[i]);
	}
}
