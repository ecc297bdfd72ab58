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
	HELP_AT = 24, /* the column of the explanations */
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

static void print_row(FILE *to, const char *left, const char *help)
{
	if (strlen(left) < HELP_AT - 1)
		fprintf(to, "%-*s", HELP_AT, left);
	else
		fprintf(to, "%s\n%*s", left, HELP_AT, "");
	print_lines(to, help, HELP_AT);
}

static void print_option(FILE *to, const struct option *o)
{
	char left[256], letter[8] = "";

	if (o->letter)
		snprintf(letter, sizeof(letter), "-%c, ", o->letter);
	snprintf(left, sizeof(left), "  %s--%s%s%s", letter, o->name, o->value ? " " : "",
		 o->value ? o->value : "");
	print_row(to, left, o->help);
}

static void print_command(FILE *to, const struct command *c)
{
	char left[256];

	const char *operands = c->operands && !c->commands ? c->operands : "";

	snprintf(left, sizeof(left), "  %s%s%s", c->name, *operands ? " " : "", operands);
	print_row(to, left, c->summary);
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
			print_option(to, o);
	}
	if (c->commands)
		fputs("\n", to);
	for (const struct command *const *sub = c->commands; sub && *sub; sub++)
		print_command(to, *sub);
	if (c->commands)
		fprintf(to, "\n'hospes%s%s COMMAND --help' shows more about one.\n",
			*c->name ? " " : "", c->name);
	if (c->notes)
		fprintf(to, "\n%s", c->notes);
	if (c->examples)
		fprintf(to, "\nExamples:\n%s", c->examples);
}

static bool asks_for_help(const char *word)
{
	return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

/* --- the nearest known word --- */

enum { WORD_BYTES = 32 };

static unsigned int distance(const char *a, size_t n, const char *b)
{
	unsigned int row[WORD_BYTES];
	size_t m = strlen(b);

	for (size_t j = 0; j <= m; j++)
		row[j] = (unsigned int)j;
	for (size_t i = 1; i <= n; i++) {
		unsigned int corner = row[0];

		row[0] = (unsigned int)i;
		for (size_t j = 1; j <= m; j++) {
			unsigned int best = corner + (a[i - 1] != b[j - 1]);

			corner = row[j];
			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			row[j] = best;
		}
	}
	return row[m];
}

/* Keep the nearer of *best and the candidate. A word of which more than every third letter is wrong
 * is no misspelling. */
static void nearer(const char *word, size_t n, const char *candidate, const char **best,
		   unsigned int *least)
{
	unsigned int d;

	if (n >= WORD_BYTES || strlen(candidate) >= WORD_BYTES)
		return;
	d = distance(word, n, candidate);
	if (d < *least && d <= (n + 2) / 3) {
		*least = d;
		*best = candidate;
	}
}

static int unknown_option(const struct command *c, const char *text, size_t n)
{
	unsigned int least = UINT32_MAX;
	const char *best = NULL;

	for (unsigned int g = 0; g < GROUPS && c->groups[g].title && n > 2; g++) {
		for (const struct option *o = c->groups[g].options; o->name; o++)
			nearer(text + 2, n - 2, o->name, &best, &least);
	}
	cli_error("%s: unknown option '%.*s'%s%s%s; 'hospes %s --help' lists them", c->name, (int)n,
		  text, best ? " (did you mean '--" : "", best ? best : "", best ? "'?)" : "",
		  c->name);
	return CLI_USAGE;
}

static const char *last_word(const struct command *c)
{
	const char *blank = strrchr(c->name, ' ');

	return blank ? blank + 1 : c->name;
}

static int unknown_command(const struct command *c, const char *word)
{
	unsigned int least = UINT32_MAX;
	const char *best = NULL;

	for (const struct command *const *sub = c->commands; *sub; sub++)
		nearer(word, strlen(word), last_word(*sub), &best, &least);
	cli_error("%s%sunknown command '%s'%s%s%s; 'hospes%s%s --help' lists them", c->name,
		  *c->name ? ": " : "", word, best ? " (did you mean '" : "", best ? best : "",
		  best ? "'?)" : "", *c->name ? " " : "", c->name);
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
	PASS_CHECK,    /* nothing is set: help and what is not understood come first */
	PASS_OPERANDS, /* a file that options add to is read before they are */
	PASS_OPTIONS,
};

/* The option of that name (or, with n 1 and no name, letter), and the struct that it fills. */
static const struct option *find(const struct command *c, const char *name, size_t n, char letter,
				 void **into)
{
	for (unsigned int g = 0; g < GROUPS && c->groups[g].title; g++) {
		for (const struct option *o = c->groups[g].options; o->name; o++) {
			if (letter ? o->letter != letter
				   : strncmp(o->name, name, n) != 0 || o->name[n])
				continue;
			*into = (char *)*into + c->groups[g].offset;
			return o;
		}
	}
	return NULL;
}

/* "-v", "-vv" */
static int letters(const struct command *c, const char *text, void *into, enum pass pass)
{
	int status = CLI_OK;

	for (const char *letter = text + 1; *letter && status == CLI_OK; letter++) {
		void *group = into;
		const struct option *o = find(c, NULL, 0, *letter, &group);

		if (!o)
			return unknown_option(c, text, strlen(text));
		if (pass == PASS_OPTIONS)
			status = set(o, group, NULL);
	}
	return status;
}

/* The option at *i; moves *i to its value. */
static int one_option(const struct command *c, int argc, char **argv, int *i, void *into,
		      enum pass pass)
{
	const char *text = argv[*i], *equals = strchr(text, '='), *value = NULL;
	size_t n = equals ? (size_t)(equals - text) : strlen(text);
	const struct option *o;

	if (text[1] != '-')
		return letters(c, text, into, pass);
	o = find(c, text + 2, n - 2, 0, &into);
	if (!o)
		return unknown_option(c, text, n);
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

static int one_operand(const struct command *c, char *text, void *into, enum pass pass)
{
	if (pass == PASS_OPERANDS)
		return c->operand(into, text);
	if (c->operand)
		return CLI_OK;
	cli_error("%s: unexpected '%s'; 'hospes %s --help' shows the usage", c->name, text,
		  c->name);
	return CLI_USAGE;
}

static int walk(const struct command *c, int argc, char **argv, void *into, enum pass pass)
{
	bool options = true;
	int status = CLI_OK;

	for (int i = 1; i < argc && status == CLI_OK; i++) {
		if (options && strcmp(argv[i], "--") == 0)
			options = false;
		else if (options && argv[i][0] == '-' && argv[i][1])
			status = one_option(c, argc, argv, &i, into, pass);
		else if (pass != PASS_OPTIONS)
			status = one_operand(c, argv[i], into, pass);
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
	for (enum pass pass = PASS_CHECK; pass <= PASS_OPTIONS && *status == CLI_OK; pass++)
		*status = walk(command, argc, argv, into, pass);
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
	return unknown_command(command, argv[1]);
}
