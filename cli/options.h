/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands and their options, as tables. A command's help is generated from its row; so is the
 * message for an unknown word, which names the nearest known one.
 *
 * "--name value" and "--name=value" mean the same; options may be repeated, may stand before or
 * behind operands, and end at "--". Values are borrowed from argv.
 */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

struct option;
/* Take the value (NULL: the option has none) into the struct at `at`. CLI_OK, or another enum
 * cli_status with the message printed. */
typedef int option_fn(void *at, const struct option *option, const char *value);

/* What is written at the option's offset. */
enum option_kind {
	OPTION_SWITCH, /* bool: true */
	OPTION_COUNT,  /* unsigned int: how often the option was given */
	OPTION_TEXT,   /* const char *: the value */
	OPTION_CHOICE, /* likewise; one of the words of option.value, "on|off" */
	OPTION_NUMBER, /* unsigned int: from option.min to option.max */
	OPTION_SIZE,   /* uint64_t: bytes, from "512M" */
	OPTION_CALL,   /* option.set does it */
};

struct option {
	const char *name;  /* without the dashes */
	const char *value; /* as help shows it; NULL: the option takes none */
	const char *help;  /* lines */
	char letter;       /* "-v"; only for options without a value */
	enum option_kind kind;
	size_t offset;
	unsigned int min, max;
	const char *otherwise; /* the value if no word follows; NULL: one must */
	option_fn *set;
	const void *data; /* for set */
};

/* The part of a row that says how its value is written to a member of the group's struct. */
#define OPTION_AT(how, type, member) .kind = OPTION_##how, .offset = offsetof(type, member)

struct command {
	const char *name;     /* without "hospes": "vf set" */
	const char *operands; /* as the usage line shows them; NULL: none */
	const char *summary;  /* one line, for the list of commands */
	const char *text;     /* paragraphs before the options; NULL: none */
	struct {
		const char *title;
		const struct option *options; /* a row without a name ends them */
		size_t offset; /* of the struct that these options fill, in the command's */
	} groups[3];
	const char *notes;    /* paragraphs after the options; NULL: none */
	const char *examples; /* lines */
	/* Called for each operand, before any option is set; NULL: there are none. */
	int (*operand)(void *into, char *text);
	/* argv[0] is the last word of the name. Returns enum cli_status. */
	int (*run)(int argc, char **argv);
	/* A command with commands of its own has these instead of options; NULL ends them. */
	const struct command *const *commands;
};

/* Set the struct at `into` by argv[1] and on. True: go on. False: help or an error was printed, and
 * *status is the exit status. */
bool options_parse(const struct command *command, int argc, char **argv, void *into, int *status);

/* The command that argv names is run; its exit status. */
int command_run(const struct command *command, int argc, char **argv);

#endif
