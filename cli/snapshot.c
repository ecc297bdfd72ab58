// SPDX-License-Identifier: Apache-2.0
// hospes snapshot verify DIR.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "output.h"
#include "sums.h"

static int take_directory(void *into, char *word)
{
	const char **path = into;

	if (*path) {
		cli_error("snapshot verify: one directory at a time");
		return CLI_USAGE;
	}
	*path = word;
	return CLI_OK;
}

static const struct command verify_command;

static int verify(int argc, char **argv)
{
	const char *path = NULL;
	int status, dir;

	if (!options_parse(&verify_command, argc, argv, &path, &status))
		return status;
	if (!path) {
		cli_error(
			"snapshot verify: needs a directory; 'hospes ctl NAME snapshot DIR' makes one");
		return CLI_USAGE;
	}
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0) {
		cli_error("%s: %s", path, strerror(errno));
		return CLI_FAILED;
	}
	status = sums_verify(dir, path);
	close(dir);
	if (status == CLI_OK)
		printf("%s: as it was written\n", path);
	return status;
}

static const struct command verify_command = {
	.name = "snapshot verify",
	.operands = "DIR",
	.summary = "is it as it was written?",
	.text = "Reads all of a snapshot and compares it with its checksums.\n",
	.operand = take_directory,
	.notes = "Exit status: 0 it is, 1 it is not, or cannot be read, 2 usage.\n",
	.examples = "  hospes snapshot verify web.snapshot\n",
	.run = verify,
};

const struct command snapshot_command = {
	.name = "snapshot",
	.operands = "COMMAND [ARGUMENT...]",
	.summary = "snapshots of machines ('hospes ctl NAME snapshot DIR' makes one)",
	.commands = (const struct command *const[]){&verify_command, NULL},
	.examples = "  hospes snapshot verify web.snapshot\n",
};
