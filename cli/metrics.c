// SPDX-License-Identifier: Apache-2.0
// hospes metrics: the numbers of several machines in one file of Prometheus' text format, where
// each family stands once and a label says whose a sample is.
#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ask.h"
#include "cli.h"
#include "output.h"
#include "socket.h"

enum { LABEL_BYTES = 2 * SOCKET_PATH };

struct metrics {
	bool all;
	json_t *machines; /* names; NULL: none */
	/* By the family's name, in order: its lines. */
	json_t *families;
};

/* --- one text --- */

/* As the format quotes a label's value. */
static void quote(char label[LABEL_BYTES], const char *name)
{
	size_t n = 0;

	for (; *name && n + 3 < LABEL_BYTES; name++) {
		if (*name == '"' || *name == '\\' || *name == '\n')
			label[n++] = '\\';
		label[n++] = *name == '\n' ? 'n' : *name;
	}
	label[n] = '\0';
}

/* "NAME VALUE" or "NAME{LABELS} VALUE". */
static void add_sample(json_t *lines, const char *label, const char *line)
{
	size_t n = strcspn(line, "{ ");

	json_array_append_new(lines, json_sprintf("%.*s{machine=\"%s\"%s%s", (int)n, line, label,
						  line[n] == '{' ? "," : "} ", line + n + 1));
}

/* The lines of the family that begins with "# HELP NAME TEXT"; *is_new: they are to be written. */
static json_t *family_of(struct metrics *m, const char *help, bool *is_new)
{
	const char *name = help + strlen("# HELP ");
	json_t *key = json_stringn(name, strcspn(name, " "));
	json_t *lines = json_object_get(m->families, json_string_value(key));

	*is_new = !lines;
	if (!lines) {
		lines = json_array();
		json_object_set_new(m->families, json_string_value(key), lines);
	}
	json_decref(key);
	return lines;
}

/* text is cut up. */
static void add_text(struct metrics *m, const char *label, char *text)
{
	json_t *lines = NULL;
	bool is_new = false;
	char *rest;

	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		if (strncmp(line, "# HELP ", 7) == 0)
			lines = family_of(m, line, &is_new);
		if (*line != '#')
			add_sample(lines, label, line);
		else if (is_new)
			json_array_append_new(lines, json_string(line));
	}
}

/* --- machines --- */

static void add_machine(struct metrics *m, const char *path, const char *name)
{
	const struct question question = {.verb = "GET", .target = "/metrics"};
	char label[LABEL_BYTES], up[] = "hospes_up 1";
	struct reply reply;
	int rc = ask(path, &question, NULL, ASK_PATIENCE_S, &reply);
	bool answers = rc == 0 && reply.status == 200 && reply.body;

	quote(label, name);
	if (!answers) {
		up[strlen(up) - 1] = '0';
		cli_error("%s: does not answer at %s%s%s", name, path, rc ? ": " : "",
			  rc ? strerror(-rc) : "");
	}
	add_sample(json_object_get(m->families, "hospes_up"), label, up);
	if (answers)
		add_text(m, label, reply.body);
	free(reply.body);
}

static void add_found(void *opaque, const char *path, const char *name)
{
	int fd = socket_connect(path);

	if (fd >= 0)
		close(fd);
	if (fd != -ECONNREFUSED && fd != -ENOENT) /* left by a machine that was killed */
		add_machine(opaque, path, name);
}

static int add_named(struct metrics *m)
{
	json_t *name;
	size_t i;

	json_array_foreach(m->machines, i, name)
	{
		char path[SOCKET_PATH];
		int status = socket_find(path, json_string_value(name));

		if (status != CLI_OK)
			return status;
		add_machine(m, path, json_string_value(name));
	}
	return CLI_OK;
}

static void print(const struct metrics *m)
{
	const char *name;
	json_t *lines;

	json_object_foreach(m->families, name, lines)
	{
		/* Of no machine. */
		if (json_array_size(lines) < 3)
			continue;
		for (size_t i = 0; i < json_array_size(lines); i++)
			puts(json_string_value(json_array_get(lines, i)));
	}
}

/* --- the command --- */

static int take_name(void *into, char *text)
{
	struct metrics *m = into;

	if (!m->machines)
		m->machines = json_array();
	if (json_array_append_new(m->machines, json_string(text)) == 0)
		return CLI_OK;
	cli_error("metrics: '%s': no UTF-8", text);
	return CLI_USAGE;
}

static const struct option options[] = {
	{"all", NULL, "of every machine that 'hospes list' shows",
	 OPTION_AT(SWITCH, struct metrics, all)},
	{0},
};

static int execute(int argc, char **argv)
{
	struct metrics m = {0};
	int status;

	if (options_parse(&metrics_command, argc, argv, &m, &status)) {
		m.families = json_pack("{s:[s, s]}", "hospes_up",
				       "# HELP hospes_up 1: the machine answers.",
				       "# TYPE hospes_up gauge");
		if (m.all == !!m.machines) {
			cli_error("metrics: takes --all, or machines; 'hospes metrics --help' "
				  "shows the usage");
			status = CLI_USAGE;
		} else if (m.all) {
			socket_each(add_found, &m);
		} else {
			status = add_named(&m);
		}
		if (status == CLI_OK)
			print(&m);
	}
	json_decref(m.families);
	json_decref(m.machines);
	return status;
}

const struct command metrics_command = {
	.name = "metrics",
	.operands = "--all | MACHINE...",
	.summary = "numbers of machines that run, for Prometheus",
	.groups = {{"Options", options, 0}},
	.operand = take_name,
	.notes =
		"Samples have the label machine. One that does not answer has hospes_up 0 and no more.\n",
	.examples = "  hospes metrics --all >/var/lib/node_exporter/hospes.prom.new &&\n"
		    "      mv /var/lib/node_exporter/hospes.prom.new "
		    "/var/lib/node_exporter/hospes.prom\n",
	.run = execute,
};
