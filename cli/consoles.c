// SPDX-License-Identifier: Apache-2.0
// Which console has the terminal, and the pipe behind our escape.
#include "consoles.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "output.h"

void consoles_default(json_t *document)
{
	json_t *consoles = json_object_get(document, "consoles");
	json_t *console;
	size_t i;

	if (!consoles) {
		consoles = json_array();
		json_array_append_new(consoles, json_pack("{s:s}", "type", "serial"));
		json_object_set_new(document, "consoles", consoles);
	}
	json_array_foreach(consoles, i, console)
	{
		if (json_object_get(console, "in") || json_object_get(console, "out") ||
		    json_object_get(console, "path"))
			continue;
		json_object_set_new(console, "in", json_integer(STDIN_FILENO));
		json_object_set_new(console, "out", json_integer(STDOUT_FILENO));
		return;
	}
}

int consoles_take_terminal(json_t *document, int *from_terminal, int *to_guest)
{
	json_t *console;
	int ends[2];
	size_t i;

	if (!isatty(STDIN_FILENO))
		return CLI_OK;
	json_array_foreach(json_object_get(document, "consoles"), i, console)
	{
		json_t *in = json_object_get(console, "in");

		if (!json_is_integer(in) || json_integer_value(in) != STDIN_FILENO)
			continue;
		if (pipe2(ends, O_CLOEXEC) != 0) {
			cli_error("cannot make a pipe: %s", strerror(errno));
			return CLI_FAILED;
		}
		fcntl(ends[1], F_SETFL, O_NONBLOCK);
		*from_terminal = ends[0];
		*to_guest = ends[1];
		json_object_set_new(console, "in", json_integer(ends[0]));
		return CLI_OK;
	}
	return CLI_OK;
}
