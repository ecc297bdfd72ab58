// SPDX-License-Identifier: Apache-2.0
// One parser for all commands, and the help that its tables give.
#include "options.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "output.h"
#include "table.h"

/* --- help --- */

enum {
	HELP_AT = 24,    /* the column of the explanations */
	WORD_BYTES = 32, /* longer words are no misspelling of ours */
	GROUPS = sizeof(((struct command *)NULL)->groups) /
		 sizeof(((struct command *)NULL)->groups[0]),
};

/* Lines of text, from the second on indented. */
static void print_lines(FILE *to, const char *text, int indent)
{
	for (size_t n; *text; text += n + (text[n] != '\0')) {
		n = strcspn(text, "\n");
		fprintf(to, "%.*s\n%*s", (int)n, text, text[n] ? indent : 0, "");
	}
}

static void print_row(FILE *to, const char *before, const char *name, const char *value,
		      const char *text)
{
	int n = fprintf(to, "  %s%s%s%s", before, name, value ? " " : "", value ? value : "");

	if (n < HELP_AT - 1)
		fprintf(to, "%*s", HELP_AT - n, "");
	else
		fprintf(to, "\n%*s", HELP_AT, "");
	print_lines(to, text, HELP_AT);
}

static void help(FILE *to, const struct command *c)
{
	fprintf(to, "usage: hospes%s%s%s%s\n", *c->name ? " " : "", c->name, c->operands ? " " : "",
		c->operands ? c->operands : "");
	if (c->text)
		fprintf(to, "\n%s", c->text);
	for (unsigned int g = 0; g < GROUPS && c->groups[g].title; g++) {
		fprintf(to, "\n%s:\n", c->groups[g].title);
		for (const struct option *o = c->groups[g].options; o->name; o++)
			print_row(to,
				  o->letter ? (char[]){'-', o->letter, ',', ' ', '-', '-', 0}
					    : "--",
				  o->name, o->value, o->help);
	}
	if (c->commands)
		fprintf(to, "\nCommands ('hospes%s%s COMMAND --help' shows more):\n",
			*c->name ? " " : "", c->name);
	for (const struct command *const *sub = c->commands; sub && *sub; sub++)
		print_row(to, "", (*sub)->name, (*sub)->commands ? NULL : (*sub)->operands,
			  (*sub)->summary);
	if (c->notes)
		fprintf(to, "\n%s", c->notes);
	if (c->examples)
		fprintf(to, "\nExamples:\n%s", c->examples);
}

static bool asks_for_help(const char *word)
{
	return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

/* --- unknown words --- */

static const char *last_word(const struct command *c)
{
	const char *blank = strrchr(c->name, ' ');

	return blank ? blank + 1 : c->name;
}

static unsigned int distance(const char *a, size_t n, const char *b, size_t m)
{
	unsigned int row[WORD_BYTES];

	for (size_t j = 0; j <= m; j++)
		row[j] = (unsigned int)j;
	for (size_t i = 1; i <= n; i++) {
		unsigned int corner = row[0];

		row[0] = (unsigned int)i;
		for (size_t j = 1; j <= m; j++) {
			unsigned int replaced = corner + (a[i - 1] != b[j - 1]);
			unsigned int shorter = row[j] < row[j - 1] ? row[j] : row[j - 1];

			corner = row[j];
			row[j] = replaced <= shorter ? replaced : shorter + 1;
		}
	}
	return row[m];
}

/* Keep the nearer of *best and the candidate. A word of which more than every third letter is wrong
 * is no misspelling. */
static void nearer(const char *word, size_t n, const char *candidate, const char **best)
{
	size_t m = strlen(candidate);
	unsigned int d;

	if (n >= WORD_BYTES || m >= WORD_BYTES)
		return;
	d = distance(word, n, candidate, m);
	if (d <= (n + 2) / 3 && (!*best || d < distance(word, n, *best, strlen(*best))))
		*best = candidate;
}

static int unknown(const struct command *c, const char *what, const char *dashes, const char *word,
		   size_t n)
{
	const char *best = NULL;

	for (const struct command *const *sub = c->commands; sub && *sub; sub++)
		nearer(word, n, last_word(*sub), &best);
	for (unsigned int g = 0; g < GROUPS && c->groups[g].title; g++) {
		for (const struct option *o = c->groups[g].options; o->name; o++)
			nearer(word, n, o->name, &best);
	}
	cli_error("%s%sunknown %s '%s%.*s'%s%s%s%s; 'hospes%s%s --help' lists them", c->name,
		  *c->name ? ": " : "", what, dashes, (int)n, word, best ? " (did you mean '" : "",
		  best ? dashes : "", best ? best : "", best ? "'?)" : "", *c->name ? " " : "",
		  c->name);
	return CLI_USAGE;
}

/* --- values --- */

/* Is the value one of the words in "a|b|c"? */
static bool is_choice(const char *words, const char *value)
{
	size_t n = strlen(value);

	for (const char *at = words; at; at = strchr(at, '|')) {
		at += *at == '|';
		if (n && strncmp(at, value, n) == 0 && (!at[n] || at[n] == '|'))
			return true;
	}
	return false;
}

static int set_number(unsigned int *at, const struct option *o, const char *value)
{
	unsigned long n;
	char *end;

	errno = 0;
	n = strtoul(value, &end, 10);
	if (*value < '0' || *value > '9' || *end || errno || n < o->min || n > o->max) {
		cli_error("--%s: '%s' is not a number from %u to %u", o->name, value, o->min,
			  o->max);
		return CLI_USAGE;
	}
	*at = (unsigned int)n;
	return CLI_OK;
}

static int set(const struct option *o, void *group, const char *value)
{
	void *at = (char *)group + o->offset;

	switch (o->kind) {
	case OPTION_SWITCH:
		*(bool *)at = true;
		return CLI_OK;
	case OPTION_COUNT:
		++*(unsigned int *)at;
		return CLI_OK;
	case OPTION_CHOICE:
		if (!is_choice(o->value, value)) {
			cli_error("--%s: '%s' is not one of %s", o->name, value, o->value);
			return CLI_USAGE;
		}
		*(const char **)at = value;
		return CLI_OK;
	case OPTION_TEXT:
		*(const char **)at = value;
		return CLI_OK;
	case OPTION_NUMBER:
		return set_number(at, o, value);
	case OPTION_SIZE:
		if (table_size_parse(value, at))
			return CLI_OK;
		cli_error("--%s: '%s' is not a size like 512M or 4G", o->name, value);
		return CLI_USAGE;
	case OPTION_CALL:
		break;
	}
	return o->set(at, o, value);
}

/* --- words --- */

enum pass {
	PASS_OPERANDS, /* options are checked; a file is read before they are set */
	PASS_OPTIONS,
};

/* The option that the word names, by n letters after its dashes, and the struct that it fills. */
static const struct option *find(const struct command *c, const char *word, size_t n, void **into)
{
	for (unsigned int g = 0; g < GROUPS && c->groups[g].title; g++) {
		for (const struct option *o = c->groups[g].options; o->name; o++) {
			if (word[1] == '-' ? n != strlen(o->name) || strncmp(o->name, word + 2, n)
					   : n != 1 || word[1] != o->letter)
				continue;
			*into = (char *)*into + c->groups[g].offset;
			return o;
		}
	}
	return NULL;
}

/* The option at *i; moves *i to its value. */
static int one_option(const struct command *c, int argc, char **argv, int *i, void *into,
		      enum pass pass)
{
	const char *word = argv[*i], *equals = strchr(word, '='), *value = NULL;
	size_t dashes = word[1] == '-' ? 2 : 1;
	size_t n = (equals ? (size_t)(equals - word) : strlen(word)) - dashes;
	const struct option *o = find(c, word, n, &into);

	if (!o)
		return unknown(c, "option", dashes == 2 ? "--" : "-", word + dashes, n);
	if (!o->value && equals) {
		cli_error("--%s: takes no value; 'hospes %s --help' shows it", o->name, c->name);
		return CLI_USAGE;
	}
	if (equals)
		value = equals + 1;
	else if (o->value && *i + 1 < argc && !(o->otherwise && argv[*i + 1][0] == '-'))
		value = argv[++*i];
	else
		value = o->otherwise;
	if (o->value && !value) {
		cli_error("--%s: needs a value (%s); 'hospes %s --help' shows it", o->name,
			  o->value, c->name);
		return CLI_USAGE;
	}
	return pass == PASS_OPTIONS ? set(o, into, value) : CLI_OK;
}

static int walk(const struct command *c, int argc, char **argv, void *into, enum pass pass)
{
	bool options = true;
	int status = CLI_OK;

	for (int i = 1; i < argc && status == CLI_OK; i++) {
		if (options && strcmp(argv[i], "--") == 0) {
			options = false;
		} else if (options && argv[i][0] == '-' && argv[i][1]) {
			status = one_option(c, argc, argv, &i, into, pass);
		} else if (!c->operand) {
			cli_error("%s: unexpected '%s'; 'hospes %s --help' shows the usage",
				  c->name, argv[i], c->name);
			status = CLI_USAGE;
		} else if (pass == PASS_OPERANDS) {
			status = c->operand(into, argv[i]);
		}
	}
	return status;
}

bool options_parse(const struct command *command, int argc, char **argv, void *into, int *status)
{
	*status = CLI_OK;
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
		if (asks_for_help(argv[i])) {
			help(stdout, command);
			return false;
		}
	}
	*status = walk(command, argc, argv, into, PASS_OPERANDS);
	if (*status == CLI_OK)
		*status = walk(command, argc, argv, into, PASS_OPTIONS);
	return *status == CLI_OK;
}

int command_run(const struct command *command, int argc, char **argv)
{
	if (!command->commands)
		return command->run(argc, argv);
	if (argc < 2) {
		help(stderr, command);
		return CLI_USAGE;
	}
	if (asks_for_help(argv[1]) || strcmp(argv[1], "help") == 0) {
		help(stdout, command);
		return CLI_OK;
	}
	for (const struct command *const *sub = command->commands; *sub; sub++) {
		if (strcmp(argv[1], last_word(*sub)) == 0)
			return command_run(*sub, argc - 1, argv + 1);
	}
	return unknown(command, "command", "", argv[1], strlen(argv[1]));
}
