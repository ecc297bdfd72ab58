// SPDX-License-Identifier: Apache-2.0
// hospes list: every machine whose control socket is at its default place, and its state.
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "ask.h"
#include "cli.h"
#include "output.h"
#include "socket.h"
#include "table.h"

struct list_options {
	bool json;
};

/* A row for the machine that listens there; NULL: nobody does. */
static json_t *look(const char *path, const char *name)
{
	json_t *status = NULL, *row;
	const struct question question = {.verb = "GET", .target = "/v1/status"};
	struct reply reply;
	int rc = ask(path, &question, NULL, ASK_PATIENCE_S, &reply);

	if (rc == -ECONNREFUSED || rc == -ENOENT)
		return NULL;
	if (rc == 0 && reply.status == 200 && reply.body)
		status = json_loads(reply.body, 0, NULL);
	row = json_pack("{s:s, s:s, s:s}", "name", name, "state",
			text_of(status, "state",
				rc == -EACCES ? "belongs to another user" : "does not answer"),
			"socket", path);
	json_object_set(row, "pid", json_object_get(status, "pid"));
	json_object_set(row, "memory_bytes", json_object_get(status, "memory_bytes"));
	json_decref(status);
	free(reply.body);
	return row;
}

static void add(void *opaque, const char *path, const char *name)
{
	json_array_append_new(opaque, look(path, name));
}

static void print(const json_t *rows)
{
	const json_t *row;
	size_t i;

	if (!json_array_size(rows)) {
		puts("no machine with a name runs; 'hospes run --name NAME' gives it one");
		return;
	}
	printf("%-20s  %-8s  %8s  %10s  %s\n", "NAME", "STATE", "PID", "MEMORY", "SOCKET");
	json_array_foreach(rows, i, row)
	{
		double bytes = json_number_value(json_object_get(row, "memory_bytes"));
		char size[TABLE_SIZE_TEXT];

		printf("%-20s  %-8s  %8lld  %10s  %s\n", text_of(row, "name", ""),
		       text_of(row, "state", ""),
		       (long long)json_integer_value(json_object_get(row, "pid")),
		       table_size(bytes, size), text_of(row, "socket", ""));
	}
}

static const struct option options[] = {
	{"json", NULL, "as JSON", OPTION_AT(SWITCH, struct list_options, json)},
	{0},
};

static int execute(int argc, char **argv)
{
	struct list_options given = {0};
	json_t *rows;
	int status;

	if (!options_parse(&machines_command, argc, argv, &given, &status))
		return status;
	rows = json_array();
	socket_each(add, rows);
	if (!given.json)
		print(rows);
	else if (json_dumpf(rows, stdout, JSON_INDENT(2)) == 0)
		puts("");
	json_decref(rows);
	return CLI_OK;
}

const struct command machines_command = {
	.name = "list",
	.operands = "[--json]",
	.summary = "machines that run and have a name",
	.groups = {{"Options", options, 0}},
	.notes = "They are found by their control sockets, in $XDG_RUNTIME_DIR/hospes and "
		 "/run/hospes.\n",
	.examples = "  hospes list\n",
	.run = execute,
};
