/* SPDX-License-Identifier: Apache-2.0 */
/* The log: levels, and the budget of what a guest can provoke. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

static _Atomic int lines;
static _Atomic int dropped_lines;
static char last[2000];
static char last_component[32];
static enum log_level last_level;

static void record(void *opaque, enum log_level level, const char *component, const char *text)
{
	cr_assert_eq(opaque, (void *)&lines);
	if (strstr(text, "left out"))
		atomic_fetch_add(&dropped_lines, 1);
	else
		atomic_fetch_add(&lines, 1);
	last_level = level;
	snprintf(last, sizeof(last), "%s", text);
	snprintf(last_component, sizeof(last_component), "%s", component);
}

static void count(void *opaque, enum log_level level, const char *component, const char *text)
{
	(void)opaque;
	(void)level;
	(void)component;
	atomic_fetch_add(strstr(text, "left out") ? &dropped_lines : &lines, 1);
}

static struct log test_log = {.fn = record, .opaque = &lines, .level = LOG_INFO};

Test(log, delivers_level_component_and_text)
{
	log_warn(&test_log, "blk0", "sector %u of '%s'", 7u, "a.img");
	cr_assert_eq(lines, 1);
	cr_assert_eq(last_level, LOG_WARN);
	cr_assert_str_eq(last_component, "blk0");
	cr_assert_str_eq(last, "sector 7 of 'a.img'");
}

Test(log, is_silent_below_its_level)
{
	log_debug(&test_log, "x", "hidden");
	cr_assert_eq(lines, 0);
	test_log.level = LOG_DEBUG;
	log_debug(&test_log, "x", "shown");
	cr_assert_eq(lines, 1);
}

Test(log, no_log_and_no_sink_are_silent)
{
	struct log silent = {.fn = NULL, .level = LOG_DEBUG};
	struct log_limit limit = {0};

	log_error(NULL, "x", "nobody listens");
	log_error(&silent, "x", "nobody listens");
	log_guest(NULL, &limit, "x", "nobody listens");
	log_guest(&silent, &limit, "x", "nobody listens");
	cr_assert_eq(lines, 0);
}

Test(log, an_overlong_line_is_cut_not_overrun)
{
	char text[5000];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	log_info(&test_log, "x", "%s", text);
	cr_assert_eq(lines, 1);
	cr_assert_lt(strlen(last), sizeof(text) - 1);
	cr_assert_gt(strlen(last), 500);
}

Test(log, a_guest_cannot_flood)
{
	struct log_limit limit = {0};

	for (int i = 0; i < 100000; i++)
		log_guest(&test_log, &limit, "pci", "bad access %d", i);
	/* Ten, and one for each second this loop took; a slow machine may need some. */
	cr_assert_geq(lines, 10);
	cr_assert_leq(lines, 10 + 60);
}

Test(log, each_device_has_its_own_budget)
{
	struct log_limit noisy = {0};
	struct log_limit quiet = {0};
	int before;

	for (int i = 0; i < 1000; i++)
		log_guest(&test_log, &noisy, "a", "bad");
	before = lines;
	log_guest(&test_log, &quiet, "b", "one");
	cr_assert_eq(lines, before + 1);
	cr_assert_str_eq(last, "one");
}

Test(log, what_was_left_out_is_counted)
{
	struct log_limit limit = {0};
	int dropped;

	for (int i = 0; i < 1000; i++)
		log_guest(&test_log, &limit, "a", "bad");
	dropped = (int)limit.dropped;
	/* The next second, as far as the budget knows. */
	limit.window_s = 0;
	log_guest(&test_log, &limit, "a", "bad again");
	cr_assert_str_eq(last, "bad again");
	cr_assert_geq(dropped_lines, 1);
	cr_assert_gt(dropped, 900);
	cr_assert_eq(limit.dropped, 0);
}

static void *flood(void *arg)
{
	struct log_limit *limit = arg;
	const struct log log = {.fn = count, .level = LOG_INFO};

	for (int i = 0; i < 20000; i++)
		log_guest(&log, limit, "t", "bad");
	return NULL;
}

Test(log, threads_share_a_budget)
{
	struct log_limit limit = {0};
	pthread_t t[4];

	for (int i = 0; i < 4; i++)
		cr_assert_eq(pthread_create(&t[i], NULL, flood, &limit), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	/* Each thread may be between test and count once. */
	cr_assert_geq(lines, 10);
	cr_assert_leq(lines, 10 + 4 + 60);
}

Test(log, levels_have_names)
{
	cr_assert_str_eq(log_level_name(LOG_ERROR), "error");
	cr_assert_str_eq(log_level_name(LOG_DEBUG), "debug");
	cr_assert_str_eq(log_level_name((enum log_level)77), "?");
}
