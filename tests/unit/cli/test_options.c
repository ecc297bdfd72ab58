// SPDX-License-Identifier: Apache-2.0
// The option parser: how options may be written, what is refused, and what the help shows.
#include <criterion/criterion.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "options.h"

struct seen {
	bool quick;
	unsigned int verbose, count;
	const char *file, *mode;
	uint64_t bytes;
	char log[128]; /* operands and options with a function, in the order of the calls */
};

static int note(void *at, const struct option *option, const char *value)
{
	struct seen *seen = at;

	snprintf(seen->log + strlen(seen->log), sizeof(seen->log) - strlen(seen->log), "%s=%s ",
		 option->name, value);
	return CLI_OK;
}

static int operand(void *into, char *text)
{
	struct seen *seen = into;

	snprintf(seen->log + strlen(seen->log), sizeof(seen->log) - strlen(seen->log), "%s ", text);
	return strcmp(text, "bad") == 0 ? CLI_FAILED : CLI_OK;
}

static const struct option options[] = {
	{"quick", NULL, "be quick", .kind = OPTION_SWITCH, .offset = offsetof(struct seen, quick)},
	{"verbose", NULL, "say more\nand more", .letter = 'v', .kind = OPTION_COUNT,
	 .offset = offsetof(struct seen, verbose)},
	{"count", "N", "how many", .kind = OPTION_NUMBER, .min = 1, .max = 7,
	 .offset = offsetof(struct seen, count)},
	{"file", "FILE", "where", .kind = OPTION_TEXT, .offset = offsetof(struct seen, file)},
	{"mode", "on|off|auto", "how", .kind = OPTION_CHOICE,
	 .offset = offsetof(struct seen, mode)},
	{"memory", "SIZE", "how large", .kind = OPTION_SIZE,
	 .offset = offsetof(struct seen, bytes)},
	{"disk", "PATH", "a disk", .kind = OPTION_CALL, .set = note},
	{"viommu", "[on|off]", "one", .otherwise = "on", .kind = OPTION_CALL, .set = note},
	{0},
};
static const struct command with_operands = {
	.name = "try",
	.operands = "[FILE]",
	.summary = "try it",
	.groups = {{"Options", options, 0}},
	.examples = "  hospes try --quick\n",
	.operand = operand,
};
static const struct command without = {.name = "none", .groups = {{"Options", options, 0}}};

/* The status of a parse; -1: it goes on. */
static int parse_words(const struct command *command, struct seen *seen, char **words)
{
	int argc = 0, status;

	*seen = (struct seen){0};
	while (words[argc])
		argc++;
	return options_parse(command, argc, words, seen, &status) ? -1 : status;
}
#define PARSE(command, seen, ...) \
	parse_words(&(command), seen, (char *[]){(char *)"try", __VA_ARGS__, NULL})

/* What the file descriptor gets while the words are parsed. */
static const char *output_of(int fd, const struct command *command, char **words)
{
	static char text[4096];
	FILE *file = tmpfile();
	int argc = 0, status, saved = dup(fd);
	struct seen seen;
	size_t n;

	while (words[argc])
		argc++;
	fflush(NULL);
	dup2(fileno(file), fd);
	if (command->commands)
		command_run(command, argc, words);
	else
		options_parse(command, argc, words, &seen, &status);
	fflush(NULL);
	dup2(saved, fd);
	close(saved);
	fseek(file, 0, SEEK_SET);
	n = fread(text, 1, sizeof(text) - 1, file);
	text[n] = '\0';
	fclose(file);
	return text;
}
#define OUTPUT(fd, command, ...) \
	output_of(fd, &(command), (char *[]){(char *)"try", __VA_ARGS__, NULL})
#define W(text) ((char *)(text))

Test(options, a_value_is_the_next_word_or_follows_an_equals_sign)
{
	struct seen seen;

	cr_assert_eq(PARSE(without, &seen, W("--count"), W("3"), W("--file=a=b"), W("--memory"),
			   W("2M"), W("--mode=off"), W("--quick")),
		     -1);
	cr_assert(seen.quick && seen.count == 3 && seen.bytes == 2 << 20);
	cr_assert_str_eq(seen.file, "a=b");
	cr_assert_str_eq(seen.mode, "off");
}

Test(options, repeated_options_count_or_are_all_called)
{
	struct seen seen;

	cr_assert_eq(PARSE(without, &seen, W("-v"), W("--verbose"), W("-v"), W("--disk"), W("a"),
			   W("--disk=b"), W("--file"), W("x"), W("--file"), W("y")),
		     -1);
	cr_assert_eq(seen.verbose, 3);
	cr_assert_str_eq(seen.log, "disk=a disk=b ");
	cr_assert_str_eq(seen.file, "y");
}

Test(options, operands_come_before_options_wherever_they_stand)
{
	struct seen seen;

	cr_assert_eq(PARSE(with_operands, &seen, W("--disk"), W("a"), W("one"), W("--"), W("-v")),
		     -1);
	cr_assert_str_eq(seen.log, "one -v disk=a ");
	cr_assert_eq(seen.verbose, 0);
	cr_assert_eq(PARSE(with_operands, &seen, W("bad"), W("--disk"), W("a")), CLI_FAILED);
	cr_assert_str_eq(seen.log, "bad ");
}

Test(options, an_optional_value_is_not_the_next_option)
{
	struct seen seen;

	cr_assert_eq(PARSE(without, &seen, W("--viommu"), W("--viommu"), W("off"), W("--viommu=x"),
			   W("--viommu")),
		     -1);
	cr_assert_str_eq(seen.log, "viommu=on viommu=off viommu=x viommu=on ");
}

Test(options, what_cannot_be_is_a_usage_error_and_nothing_is_set)
{
	static const char *const words[] = {"--nothing", "--quick=yes",  "--count",    "--count=8",
					    "--count=0", "--count=-1",   "--count=3x", "--mode=o",
					    "--mode=",   "--memory=big", "-x",         "-vv",
					    "operand",   "--qu"};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		struct seen seen;

		cr_assert_eq(PARSE(without, &seen, W(words[i])), CLI_USAGE, "%s", words[i]);
		cr_assert(!seen.quick && !seen.verbose && !seen.count && !seen.mode);
	}
}

Test(options, a_later_mistake_keeps_earlier_options_from_being_set)
{
	struct seen seen;

	cr_assert_eq(PARSE(with_operands, &seen, W("file"), W("--disk=a"), W("--nothing")),
		     CLI_USAGE);
	cr_assert_str_eq(seen.log, "file ");
}

Test(options, an_unknown_option_names_the_nearest)
{
	cr_assert_str_eq(OUTPUT(2, without, W("--memroy=1G")),
			 "hospes: none: unknown option '--memroy' (did you mean '--memory'?); "
			 "'hospes none --help' lists them\n");
	cr_assert_str_eq(OUTPUT(2, without, W("--something")),
			 "hospes: none: unknown option '--something'; 'hospes none --help' lists "
			 "them\n");
}

Test(options, a_very_long_word_is_only_unknown)
{
	char word[5000] = "--";

	memset(word + 2, 'm', sizeof(word) - 3);
	cr_assert(strstr(OUTPUT(2, without, word), "unknown option"));
}

Test(options, help_shows_each_option_and_an_example)
{
	cr_assert_str_eq(OUTPUT(1, with_operands, W("--nothing"), W("--help")),
			 "usage: hospes try [FILE]\n\nOptions:\n"
			 "  --quick               be quick\n"
			 "  -v, --verbose         say more\n"
			 "                        and more\n"
			 "  --count N             how many\n"
			 "  --file FILE           where\n"
			 "  --mode on|off|auto    how\n"
			 "  --memory SIZE         how large\n"
			 "  --disk PATH           a disk\n"
			 "  --viommu [on|off]     one\n"
			 "\nExamples:\n  hospes try --quick\n");
}

static int answer(int argc, char **argv)
{
	(void)argv;
	return 40 + argc;
}

static const struct command leaf = {.name = "top leaf", .summary = "a leaf", .run = answer};
static const struct command top = {.name = "top",
				   .commands = (const struct command *const[]){&leaf, NULL}};

Test(options, a_command_is_found_by_its_last_word)
{
	char *words[] = {W("top"), W("leaf"), W("x"), NULL};

	cr_assert_eq(command_run(&top, 3, words), 42);
}

Test(options, an_unknown_command_names_the_nearest)
{
	char *nothing[] = {W("top"), NULL};

	cr_assert_str_eq(OUTPUT(2, top, W("laef")),
			 "hospes: top: unknown command 'laef' (did you mean 'leaf'?); "
			 "'hospes top --help' lists them\n");
	cr_assert_eq(command_run(&top, 1, nothing), CLI_USAGE);
	cr_assert(strstr(OUTPUT(1, top, W("--help")), "  top leaf              a leaf\n"));
}
