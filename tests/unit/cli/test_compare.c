// SPDX-License-Identifier: Apache-2.0
// A comparison from fixed figures: medians and relations, what the guest's programs say, and the
// three ways to tell it, with hostile strings in all of them.
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "compare/compare.h"
#include "compare/report.h"
#include "table.h"

static struct compare c;

static void sample(unsigned int row, unsigned int at, double rate, double cpu, double mapped,
		   double requested)
{
	struct compare_cell *cell = compare_cell(&c, row, at);
	double *f = cell->samples[cell->n++];

	for (unsigned int i = 0; i < COMPARE_FIGURES; i++)
		f[i] = 0;
	f[COMPARE_RATE] = rate;
	f[COMPARE_CPU] = cpu;
	f[COMPARE_MAPPED] = f[COMPARE_PINNED] = mapped;
	f[COMPARE_REQUESTED] = requested;
	f[COMPARE_MAP_REQUESTS] = c.rows[row].guest[0] ? 2 : 0;
	f[COMPARE_P99] = (double)NAN;
}

static void setup(void)
{
	c = (struct compare){.device = "0000:02:00.0", .seconds = 2, .repeats = 3};
	compare_add_row(&c, "direct", "", "", "all of it");
	compare_add_row(&c, "strict", "strict", "", "what <is> mapped & \"nothing\" else");
	compare_add_row(&c, "strict", "lazy", "poll", NULL);
	compare_add_case(&c, COMPARE_BLOCK, 4096, 1);
	compare_add_case(&c, COMPARE_BLOCK, 65536, 64);
	cr_assert_eq(compare_start(&c), 0);
	sample(0, 0, 1000, 10, 512 << 20, (double)NAN);
	sample(0, 0, 3000, 30, 512 << 20, (double)NAN);
	sample(0, 0, 2000, 20, 512 << 20, (double)NAN);
	sample(1, 0, 500, 60, 2 << 20, 1 << 20);
	sample(1, 0, 700, 100, 2 << 20, 1 << 20);
	sample(2, 0, 900, 30, 4 << 20, 1 << 20);
}

static void teardown(void)
{
	compare_done(&c);
}

TestSuite(compare, .init = setup, .fini = teardown);

static char *printed(void (*print)(FILE *to, const struct compare *c))
{
	char *text = NULL;
	size_t bytes;
	FILE *to = open_memstream(&text, &bytes);

	print(to, &c);
	fclose(to);
	return text;
}

static bool near(double a, double b)
{
	return fabs(a - b) < 1e-6 * fmax(1, fabs(b));
}

Test(compare, medians_of_odd_and_even_numbers_of_samples)
{
	struct compare_value v = compare_value(&c, 0, 0, COMPARE_RATE);

	cr_assert(near(v.median, 2000) && near(v.low, 1000) && near(v.high, 3000));
	cr_assert(near(compare_value(&c, 1, 0, COMPARE_RATE).median, 600));
	cr_assert(isnan(compare_value(&c, 1, 1, COMPARE_RATE).median));
	cr_assert(isnan(compare_value(&c, 0, 0, COMPARE_P99).median));
}

Test(compare, relations_are_to_direct_without_a_virtual_iommu)
{
	bool borrowed;

	cr_assert(near(compare_relative(&c, 1, 0, COMPARE_RATE), 0.3));
	cr_assert(near(compare_pair_us(&c, 1, 0), (80 - 20) / 2.0));
	cr_assert(isnan(compare_pair_us(&c, 0, 0)));
	cr_assert(near(compare_over_exposure(&c, 1, 0, &borrowed), 2) && !borrowed);
	cr_assert(near(compare_over_exposure(&c, 0, 0, &borrowed), 512) && borrowed,
		  "held to what a guest under strict wants");
	cr_assert(isnan(compare_relative(&c, 1, 1, COMPARE_RATE)));
}

Test(compare, without_direct_nothing_is_relative)
{
	snprintf(c.rows[0].strategy, sizeof(c.rows[0].strategy), "pool");
	cr_assert(isnan(compare_relative(&c, 1, 0, COMPARE_RATE)));
	cr_assert(isnan(compare_pair_us(&c, 1, 0)));
}

Test(compare, rows_and_cases_end_at_their_room)
{
	while (compare_add_row(&c, "strict", "lazy", "", NULL))
		;
	while (compare_add_case(&c, COMPARE_STREAM, 64, 1))
		;
	cr_assert_eq(c.n_rows, COMPARE_ROWS);
	cr_assert_eq(c.n_cases, COMPARE_CASES);
}

Test(compare, numbers_have_three_digits)
{
	char text[COMPARE_TEXT];

	cr_assert_str_eq(compare_number(1234.56, text), "1235");
	cr_assert_str_eq(compare_number(12.345, text), "12.3");
	cr_assert_str_eq(compare_number(0.12345, text), "0.123");
	cr_assert_str_eq(compare_number(0, text), "0");
	cr_assert_str_eq(compare_number((double)NAN, text), "-");
	cr_assert_str_eq(table_size(4096, text), "4 KiB");
	cr_assert_str_eq(table_size(1.5 * (1 << 20), text), "1.50 MiB");
	cr_assert_str_eq(table_size((double)NAN, text), "-");
}

/* --- what guests say --- */

static char terse[2048];

static const char *fio_line(const char *version, const char *error, const char *kib)
{
	int n = snprintf(terse, sizeof(terse), "%s;fio-3.39;j;0;%s;%s;4000;1000;2000", version,
			 error, kib);

	for (unsigned int i = 9; i < 60; i++)
		n += snprintf(terse + n, sizeof(terse) - (size_t)n, ";%s",
			      i == 30   ? "99.000000%=1234"
			      : i == 39 ? "250.5"
					: "1");
	return terse;
}

Test(compare_parse, fio_in_its_terse_form)
{
	struct compare_answer a;

	cr_assert_eq(compare_parse_fio(fio_line("3", "0", "8000"), 4096, &a), 0);
	cr_assert(near(a.operations, 2000) && near(a.seconds, 2));
	cr_assert(near(a.latency_us, 250.5) && near(a.p99_us, 1234));
}

Test(compare_parse, fio_that_failed_or_is_not_fio)
{
	struct compare_answer a;

	cr_assert_lt(compare_parse_fio(fio_line("3", "5", "8000"), 4096, &a), 0);
	cr_assert_lt(compare_parse_fio(fio_line("4", "0", "8000"), 4096, &a), 0);
	cr_assert_lt(compare_parse_fio(fio_line("3", "0", "0"), 4096, &a), 0);
	cr_assert_lt(compare_parse_fio(fio_line("3", "0", "nan"), 4096, &a), 0);
	cr_assert_lt(compare_parse_fio(fio_line("3", "0", "8e999"), 4096, &a), 0);
	cr_assert_lt(compare_parse_fio(fio_line("3", "0", "8000"), 0, &a), 0);
	cr_assert_lt(compare_parse_fio("3;0;0", 4096, &a), 0);
	cr_assert_lt(compare_parse_fio("", 4096, &a), 0);
	memset(terse, '9', sizeof(terse) - 1);
	cr_assert_lt(compare_parse_fio(terse, 4096, &a), 0);
}

Test(compare_parse, iperf3_and_ping)
{
	struct compare_answer a;

	cr_assert_eq(compare_parse_iperf("{\"end\": {\"sum_received\": {\"bytes\": 65536, "
					 "\"seconds\": 2.0}}}",
					 64, &a),
		     0);
	cr_assert(near(a.operations, 1024) && near(a.seconds, 2) && isnan(a.latency_us));
	cr_assert_lt(compare_parse_iperf("{\"error\": \"refused\"}", 64, &a), 0);
	cr_assert_lt(compare_parse_iperf("{\"end\": []", 64, &a), 0);
	cr_assert_eq(
		compare_parse_ping("500 packets transmitted, 499 received, 0% packet loss, time "
				   "999msrtt min/avg/max/mdev = 0.1/0.25/3/0.1 ms, ipg/ewma",
				   1, &a),
		0);
	cr_assert(near(a.operations, 499) && near(a.latency_us, 250));
	cr_assert_lt(
		compare_parse_ping("5 packets transmitted, 0 received, 100% packet loss", 1, &a),
		0);
}

static void parse_any(const char *text)
{
	struct compare_answer a[3];
	int rc[3] = {compare_parse_fio(text, 4096, &a[0]), compare_parse_iperf(text, 64, &a[1]),
		     compare_parse_ping(text, 1, &a[2])};

	for (int i = 0; i < 3; i++) {
		if (rc[i])
			continue;
		cr_assert(isfinite(a[i].operations) && a[i].operations > 0, "%s", text);
		cr_assert(isfinite(a[i].seconds) && a[i].seconds > 0, "%s", text);
		cr_assert(isnan(a[i].latency_us) ||
				  (isfinite(a[i].latency_us) && a[i].latency_us >= 0),
			  "%s", text);
		cr_assert(!isinf(a[i].p99_us), "%s", text);
	}
}

Test(compare_parse, whatever_a_guest_says_is_refused_or_gives_numbers)
{
	static const char bytes[] = "0123456789.;:,=/e-+ infa\"{}[]";
	const char *good[] = {
		fio_line("3", "0", "8000"),
		"{\"end\": {\"sum_received\": {\"bytes\": 65536, \"seconds\": 2.0}}}",
		"9 packets transmitted, 9 received, rtt min/avg/max/mdev = 0.1/0.2/0.3/0 ms",
		"9 packets transmitted, 9 received, rtt min/avg/max/mdev = 0.1/inf/0.3/0 ms",
		"9 packets transmitted, 9 received, rtt min/avg/max/mdev = 0.1/-2/0.3/0 ms",
	};
	uint64_t random = 88172645463325252ull;

	for (unsigned int i = 0; i < 20000; i++) {
		/* Its end is the end of its memory, for sanitizers. */
		char *text = strdup(good[i % 5]);
		size_t n = strlen(text);

		for (unsigned int k = 0; k < i / 5 % 6; k++) {
			random ^= random << 13;
			random ^= random >> 7;
			random ^= random << 17;
			text[random % n] = bytes[(random >> 32) % (sizeof(bytes) - 1)];
		}
		if (i % 7 == 6)
			text[random % n] = '\0';
		parse_any(text);
		free(text);
	}
}

static const char status_text[] =
	"{\"exits\": {\"total\": 7}, \"iommu\": {\"spaces\": [{\"devices\": [\"other\"]},"
	" {\"devices\": [\"d\"], \"operations\": {\"map\": {\"calls\": 2, \"ns\": 9},"
	"  \"copy\": {\"calls\": 1, \"ns\": 3}, \"unmap\": {\"calls\": 1, \"ns\": 4}}, \"at_ns\": 1500000000, \"mapped_byte_seconds\": 10.5,"
	"  \"requested_byte_seconds\": 1, \"stale_byte_seconds\": 0, \"pinned_byte_seconds\": 3}]},"
	" \"viommu\": {\"requests\": {\"map\": {\"calls\": 5}, \"unmap\": {\"calls\": 6}},"
	"  \"endpoints\": [{\"id\": \"d\", \"operations\": {\"map\": {\"calls\": 20, \"ns\": 1},"
	"  \"copy\": {\"calls\": 0, \"ns\": 0}, \"unmap\": {\"calls\": 10, \"ns\": 1}}, \"retained\": {\"hits\": 30}, \"joined\": 4,"
	"  \"mapped_byte_seconds\": 1}]}}";

Test(compare_parse, the_status_by_where_the_device_is)
{
	json_t *status = json_loads(status_text, 0, NULL);
	struct compare_snapshot s;

	cr_assert_not_null(status);
	cr_assert_eq(compare_parse_status(status, "d", false, &s), 0);
	cr_assert(near(s.maps, 3) && near(s.unmaps, 1) && near(s.mapped, 10.5) &&
		  near(s.time_s, 1.5) && near(s.returns, 7));
	cr_assert_eq(compare_parse_status(status, "d", true, &s), 0);
	cr_assert(near(s.maps, 20) && near(s.map_requests, 5) && near(s.unmap_requests, 6) &&
		  near(s.hits, 34));
	cr_assert_lt(compare_parse_status(status, "other", false, &s), 0);
	cr_assert_lt(compare_parse_status(status, "e", true, &s), 0);
	json_decref(status);
}

Test(compare_parse, figures_are_differences_per_operation)
{
	struct compare_snapshot from = {.maps = 100, .map_ns = 1000, .mapped = 50};
	struct compare_snapshot to = {.time_s = 2,
				      .guest_s = 0.5,
				      .user_s = 0.75,
				      .kernel_s = 1,
				      .maps = 300,
				      .map_ns = 401000,
				      .mapped = 90};
	struct compare_answer answer = {.operations = 100, .seconds = 1.6};
	double f[COMPARE_FIGURES];

	compare_figures_of(&from, &to, &answer, 4096, true, f);
	cr_assert(near(f[COMPARE_RATE], 62.5) && near(f[COMPARE_BYTES], 256000));
	cr_assert(near(f[COMPARE_GUEST], 5000) && near(f[COMPARE_VMM], 2500));
	cr_assert(near(f[COMPARE_KERNEL], 10000) && near(f[COMPARE_CPU], 17500));
	cr_assert(near(f[COMPARE_MAPS], 2) && near(f[COMPARE_MAP_TIME], 2));
	cr_assert(near(f[COMPARE_PINNED], 20), "what is mapped is pinned");
	cr_assert(near(f[COMPARE_MAPPED], 20) && isnan(f[COMPARE_UNMAP_TIME]));
}

/* --- how it is reported --- */

Test(compare, the_table_has_all_rows_their_relations_and_the_figures_of_others)
{
	char *text;

	snprintf(c.rows[2].error, sizeof(c.rows[2].error), "it hung");
	c.emulated = true;
	text = printed(compare_print_table);
	cr_assert(strstr(text, "4 KiB reads, depth 1"));
	cr_assert(strstr(text, "x0.300"), "%s", text);
	cr_assert(strstr(text, "~x512"));
	cr_assert(strstr(text, "512 MiB"));
	cr_assert(strstr(text, "theirs: likewise: 3.6 times [Stevens"));
	cr_assert(strstr(text, "OLS 2007"));
	cr_assert(strstr(text, "NOT ALL OF 'strict, guest lazy, poll': it hung"));
	cr_assert(strstr(text, "itself a virtual machine"));
	free(text);
}

Test(compare, the_document_has_medians_spread_and_relations)
{
	json_t *d = compare_json(&c), *first, *rate;

	cr_assert_not_null(d);
	cr_assert_eq(json_array_size(json_object_get(d, "results")), 3,
		     "cells without a sample are left out");
	first = json_array_get(json_object_get(d, "results"), 1);
	cr_assert_eq(json_integer_value(json_object_get(first, "row")), 1);
	rate = json_object_get(json_object_get(first, "values"), "operations_per_second");
	cr_assert(near(json_real_value(json_object_get(rate, "median")), 600));
	cr_assert(near(json_real_value(json_object_get(rate, "of_direct")), 0.3));
	cr_assert(json_is_null(json_object_get(
		json_object_get(json_object_get(first, "values"), "latency_p99_us"), "median")));
	json_decref(d);
}

Test(compare, the_front_has_rows_that_no_other_betters_in_both)
{
	json_t *d;

	cr_assert(compare_is_on_front(&c, 0, 0), "the cheapest");
	cr_assert(compare_is_on_front(&c, 1, 0), "the least exposed");
	cr_assert(compare_is_on_front(&c, 2, 0), "between them");
	cr_assert(!compare_is_on_front(&c, 0, 1), "nothing is known");
	sample(2, 0, 900, 200, 8 << 20, 1 << 20);
	cr_assert(!compare_is_on_front(&c, 2, 0));
	compare_cell(&c, 2, 0)->n = 0;
	sample(2, 0, 900, 80, 2 << 20, 1 << 20);
	cr_assert(compare_is_on_front(&c, 1, 0) && compare_is_on_front(&c, 2, 0), "equals");
	d = compare_json(&c);
	cr_assert(json_is_true(
		json_object_get(json_array_get(json_object_get(d, "results"), 0), "on_front")));
	json_decref(d);
}

static void check_front(const char *text)
{
	const char *at = strstr(text, "<path class=\"front\"");
	double x[5], y[4];

	cr_assert_not_null(at, "%s", text);
	cr_assert(!strstr(at + 1, "<path"), "a panel of nothing has none");
	cr_assert_eq(sscanf(at, "<path class=\"front\" d=\"M%lf %lfH%lfV%lfH%lfV%lfH%lfV%lfH%lf",
			    &x[0], &y[0], &x[1], &y[1], &x[2], &y[2], &x[3], &y[3], &x[4]),
		     9, "%.200s", at);
	cr_assert(x[0] == x[1] && x[1] < x[2] && x[2] < x[3] && x[3] < x[4]);
	cr_assert(y[0] < y[1] && y[1] < y[2] && y[2] < y[3], "down is less");
}

Test(compare, the_picture_has_the_front_as_steps_in_each_panel)
{
	char *text = printed(compare_print_svg);

	check_front(text);
	free(text);
}

Test(compare, hit_rates_are_beside_each_row)
{
	char *text;

	compare_cell(&c, 1, 0)->samples[0][COMPARE_HITS] = 1;
	compare_cell(&c, 1, 0)->samples[1][COMPARE_HITS] = 2;
	cr_assert(near(compare_hit_rate(&c, 1, 0), 0.75));
	cr_assert(isnan(compare_hit_rate(&c, 0, 0)), "it asks for nothing");
	text = printed(compare_print_table);
	cr_assert(strstr(text, " found ") && strstr(text, "75%"), "%s", text);
	free(text);
}

/* --- an interrupted run --- */

static struct compare again(void)
{
	struct compare to = c;

	to.cells = NULL;
	to.guest[0] = to.date[0] = '\0';
	cr_assert_eq(compare_start(&to), 0);
	return to;
}

Test(compare, a_document_gives_back_its_samples)
{
	struct compare to;
	json_t *d;
	char why[256];

	snprintf(c.guest, sizeof(c.guest), "Linux");
	d = compare_json(&c);
	to = again();
	cr_assert(compare_resume(&to, d, why, sizeof(why)), "%s", why);
	cr_assert_str_eq(to.guest, "Linux");
	for (unsigned int i = 0; i < c.n_rows * c.n_cases; i++) {
		cr_assert_eq(to.cells[i].n, c.cells[i].n);
		for (unsigned int k = 0; k < c.cells[i].n * COMPARE_FIGURES; k++) {
			unsigned int sample = k / COMPARE_FIGURES, f = k % COMPARE_FIGURES;
			double a = c.cells[i].samples[sample][f];
			double b = to.cells[i].samples[sample][f];

			cr_assert(isnan(a) ? isnan(b) : near(a, b));
		}
	}
	compare_done(&to);
	json_decref(d);
}

Test(compare, other_rows_and_more_runs_are_left_out)
{
	json_t *d = compare_json(&c);
	struct compare to = again();
	char why[256];

	snprintf(to.rows[1].label, sizeof(to.rows[1].label), "other");
	to.repeats = 2;
	cr_assert(compare_resume(&to, d, why, sizeof(why)), "%s", why);
	cr_assert_eq(compare_cell(&to, 0, 0)->n, 2);
	cr_assert_eq(compare_cell(&to, 1, 0)->n, 0);
	cr_assert_eq(compare_cell(&to, 2, 0)->n, 1);
	compare_done(&to);
	json_decref(d);
}

Test(compare, a_document_of_something_else_is_refused_with_the_difference)
{
	json_t *d = compare_json(&c), *none = json_object();
	struct compare to = again();
	char why[256];

	cr_assert(!compare_resume(&to, none, why, sizeof(why)) && strstr(why, "no comparison"));
	snprintf(to.device, sizeof(to.device), "0000:03:00.0");
	cr_assert(!compare_resume(&to, d, why, sizeof(why)));
	cr_assert_str_eq(why, "its device is '0000:02:00.0', and now '0000:03:00.0'");
	to = (compare_done(&to), again());
	to.seconds = 5;
	cr_assert(!compare_resume(&to, d, why, sizeof(why)));
	cr_assert_str_eq(why, "its runs are of 2 s, and now of 5 s");
	compare_done(&to);
	json_decref(none);
	json_decref(d);
}

Test(compare, the_file_is_written_as_a_whole_and_read_again)
{
	char name[] = "/tmp/hospes-compare-XXXXXX", file[64], stale[64];
	struct compare_report report = {.json = file};
	struct compare to = again();

	cr_assert_not_null(mkdtemp(name));
	snprintf(file, sizeof(file), "%s/c.json", name);
	snprintf(stale, sizeof(stale), "%s.new", file);
	cr_assert_eq(compare_report_open(&report), 0);
	cr_assert_eq(compare_report_resume(&report, &to), 0, "there is nothing yet");
	cr_assert_eq(compare_report_save(&report, &c), 0);
	cr_assert_eq(access(stale, F_OK), -1);
	cr_assert_eq(compare_report_close(&report), 0);

	report = (struct compare_report){.json = file};
	cr_assert_eq(compare_report_open(&report), 0, "which leaves it as it is");
	cr_assert_eq(compare_report_resume(&report, &to), 0);
	cr_assert_eq(compare_cell(&to, 0, 0)->n, 3);
	cr_assert_eq(compare_report_close(&report), 0);
	unlink(file);
	rmdir(name);
	compare_done(&to);
}

static const char hostile[] = "</text><script>x('&\")\x1b[2J\xff";

Test(compare, hostile_strings_are_text_everywhere)
{
	json_t *d;
	char *text;

	snprintf(c.guest, sizeof(c.guest), "%s", hostile);
	snprintf(c.device, sizeof(c.device), "%s", hostile);
	snprintf(c.rows[0].label, sizeof(c.rows[0].label), "%s", hostile);
	snprintf(c.cases[0].label, sizeof(c.cases[0].label), "%s", hostile);
	text = printed(compare_print_svg);
	cr_assert(!strstr(text, "<script") && !strchr(text, '\x1b') && !strchr(text, '\xff'));
	cr_assert(strstr(text, "&lt;/text&gt;&lt;script&gt;x(&#39;&amp;&quot;)?[2J?"));
	free(text);
	d = compare_json(&c);
	text = json_dumps(d, 0);
	cr_assert_not_null(text);
	free(text);
	json_decref(d);
	text = strdup(hostile);
	cr_assert_str_eq(compare_clean(text), "</text><script>x('&\")?[2J?");
	free(text);
}

/* --- the picture --- */

/* Each opening tag has its end, in order; attributes are quoted. */
static void well_formed(const char *xml)
{
	char stack[16][32];
	unsigned int depth = 0;

	for (const char *at = strchr(xml, '<'); at; at = strchr(at + 1, '<')) {
		const char *end = strchr(at, '>');
		size_t name = strcspn(at + 1, " />"), quotes = 0;

		cr_assert_not_null(end);
		for (const char *q = at; q < end; q++)
			quotes += *q == '"';
		cr_assert_eq(quotes % 2, 0);
		if (at[1] == '/') {
			cr_assert(depth > 0);
			depth--;
			cr_assert(strncmp(stack[depth], at + 2, strlen(stack[depth])) == 0, "%.40s",
				  at);
		} else if (end[-1] != '/') {
			cr_assert(depth < 16 && name < 32);
			snprintf(stack[depth++], 32, "%.*s", (int)name, at + 1);
		}
	}
	cr_assert_eq(depth, 0);
}

Test(compare, the_picture_is_well_formed_and_for_light_and_dark)
{
	char *text = printed(compare_print_svg);

	well_formed(text);
	cr_assert(strstr(text, "prefers-color-scheme:dark"));
	cr_assert(strstr(text, "&lt;is&gt; mapped &amp; &quot;nothing&quot;"));
	cr_assert(!strstr(text, "nan") && !strstr(text, "inf\""), "no figure is no mark");
	free(text);
}

Test(compare, letters_in_the_picture_overlap_nothing)
{
	struct letter {
		double x, y;
	} letters[64];
	unsigned int n = 0;
	char *text;

	/* Many marks in one place. */
	while (c.n_rows < 12)
		compare_add_row(&c, "strict", "strict", "", NULL);
	compare_done(&c);
	cr_assert_eq(compare_start(&c), 0);
	for (unsigned int row = 0; row < c.n_rows; row++)
		sample(row, 0, 100, row < 4 ? 20 : row < 8 ? 21 : 22, 1 << 20, 1 << 20);
	text = printed(compare_print_svg);
	for (const char *at = text; (at = strstr(at, "<text class=\"letter\"")); at++) {
		cr_assert_eq(sscanf(at, "<text class=\"letter\" x=\"%lf\" y=\"%lf\"", &letters[n].x,
				    &letters[n].y),
			     2);
		n++;
	}
	cr_assert_eq(n, 12);
	for (unsigned int i = 0; i < n; i++) {
		for (unsigned int k = 0; k < i; k++)
			cr_assert(fabs(letters[i].x - letters[k].x) >= 8.9 ||
				  fabs(letters[i].y - letters[k].y) >= 10.9);
	}
	free(text);
}

Test(compare, a_picture_of_nothing_is_one_too)
{
	char *text;

	compare_done(&c);
	cr_assert_eq(compare_start(&c), 0);
	text = printed(compare_print_svg);
	well_formed(text);
	cr_assert(!strstr(text, "nan"));
	free(text);
}
