// SPDX-License-Identifier: Apache-2.0
// The terminal's escape: what reaches the guest, and which command was meant.
#include <criterion/criterion.h>
#include <string.h>

#include "terminal.h"

static size_t filter(struct terminal_filter *f, const char *in, char *out, size_t *used,
		     enum terminal_command *command)
{
	size_t kept;

	strcpy(out, in);
	kept = terminal_filter(f, (uint8_t *)out, strlen(in), used, command);
	out[kept] = '\0';
	return kept;
}

Test(terminal, plain_bytes_pass)
{
	struct terminal_filter f = {0};
	enum terminal_command command;
	char out[32];
	size_t used;

	cr_assert_eq(filter(&f, "ls -l\r", out, &used, &command), 6);
	cr_assert_str_eq(out, "ls -l\r");
	cr_assert_eq(command, TERMINAL_NONE);
	cr_assert_eq(used, 6);
}

Test(terminal, a_command_stops_and_the_rest_is_left)
{
	struct terminal_filter f = {0};
	enum terminal_command command;
	char out[32];
	size_t used;

	filter(&f, "ab\001xcd", out, &used, &command);
	cr_assert_str_eq(out, "ab");
	cr_assert_eq(command, TERMINAL_END);
	cr_assert_eq(used, 4);
}

Test(terminal, an_escape_may_be_split_over_reads)
{
	struct terminal_filter f = {0};
	enum terminal_command command;
	char out[32];
	size_t used;

	cr_assert_eq(filter(&f, "\001", out, &used, &command), 0);
	cr_assert_eq(command, TERMINAL_NONE);
	filter(&f, "p", out, &used, &command);
	cr_assert_eq(command, TERMINAL_POWER);
	cr_assert_str_eq(out, "");
}

Test(terminal, escape_twice_sends_one)
{
	struct terminal_filter f = {0};
	enum terminal_command command;
	char out[32];
	size_t used;

	filter(&f, "a\001\001b", out, &used, &command);
	cr_assert_str_eq(out, "a\001b");
	cr_assert_eq(command, TERMINAL_NONE);
}

Test(terminal, each_command_has_its_key)
{
	static const struct {
		const char *typed;
		enum terminal_command means;
	} keys[] = {
		{"\001x", TERMINAL_END},       {"\001p", TERMINAL_POWER},
		{"\001r", TERMINAL_RESET},     {"\001s", TERMINAL_STATUS},
		{"\001i", TERMINAL_REGISTERS}, {"\0011", TERMINAL_STRATEGY},
		{"\001h", TERMINAL_HELP},
	};

	for (unsigned int i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		struct terminal_filter f = {0};
		enum terminal_command command;
		char out[32];
		size_t used;

		cr_assert_eq(filter(&f, keys[i].typed, out, &used, &command), 0);
		cr_assert_eq(command, keys[i].means, "%s", keys[i].typed + 1);
	}
}

Test(terminal, a_digit_chooses_a_strategy)
{
	struct terminal_filter f = {0};
	enum terminal_command command;
	char out[32];
	size_t used;

	filter(&f, "\0013", out, &used, &command);
	cr_assert_eq(command, TERMINAL_STRATEGY);
	cr_assert_eq(f.strategy, 2);
	filter(&f, "\0010", out, &used, &command);
	cr_assert_eq(command, TERMINAL_HELP);
}
