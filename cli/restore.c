// SPDX-License-Identifier: Apache-2.0
// The document of a snapshot. See restore.h.
#include "restore.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "answer.h"
#include "cli.h"
#include "output.h"
#include "sums.h"

/* Memory is mapped from a file, which somebody may cut short. Only what a handler may call. */
static void on_bus_error(int signal)
{
	static const char line[] =
		"hospes: the snapshot's file of memory was cut short, or cannot be "
		"read: the machine ends\n";
	ssize_t written = write(STDERR_FILENO, line, sizeof(line) - 1);

	(void)signal;
	(void)written; /* there is nowhere else to say it */
	_exit(CLI_FAILED);
}

static json_t *find_item(json_t *list, const json_t *over, size_t place)
{
	const char *id = text_of(over, "id", NULL);
	json_t *item;
	size_t i;

	if (!id)
		return json_array_get(list, place);
	json_array_foreach(list, i, item)
	{
		if (strcmp(text_of(item, "id", ""), id) == 0)
			return item;
	}
	return NULL;
}

static int merge_list(const char *key, json_t *base, json_t *over, const char *whose)
{
	json_t *item, *into;
	int status = CLI_OK;
	size_t i;

	json_array_foreach(over, i, item)
	{
		into = find_item(base, item, i);
		if (!into) {
			cli_error(
				"%s: the %s has %zu of them, and not what is given as number %zu%s%s; "
				"it has the devices that it had",
				key, whose, json_array_size(base), i + 1,
				json_object_get(item, "id") ? ", id " : "",
				text_of(item, "id", ""));
			return CLI_USAGE;
		}
		status = restore_merge(into, item, whose);
		if (status != CLI_OK)
			return status;
	}
	return status;
}

int restore_merge(json_t *base, json_t *over, const char *whose)
{
	const char *key;
	json_t *value;

	json_object_foreach(over, key, value)
	{
		json_t *there = json_object_get(base, key);
		int status = CLI_OK;

		if (json_is_object(there) && json_is_object(value))
			status = restore_merge(there, value, whose);
		else if (json_is_array(there) && json_is_array(value) &&
			 json_is_object(json_array_get(value, 0)))
			status = merge_list(key, there, value, whose);
		else
			json_object_set(base, key, value);
		if (status != CLI_OK)
			return status;
	}
	return CLI_OK;
}

static json_t *load(int dir, const char *path)
{
	int fd = openat(dir, "config.json", O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	json_error_t at = {0};
	json_t *document = fd < 0 ? NULL : json_loadfd(fd, JSON_REJECT_DUPLICATES, &at);

	if (fd < 0)
		cli_error("--restore: '%s/config.json': %s; is it a snapshot?", path,
			  strerror(errno));
	else if (!json_is_object(document))
		cli_error("--restore: '%s/config.json': %s", path,
			  document ? "must hold an object { ... }" : at.text);
	if (fd >= 0)
		close(fd);
	if (json_is_object(document))
		return document;
	json_decref(document);
	return NULL;
}

int restore_document(json_t **document, bool verify)
{
	json_t *over = *document, *base;
	const char *path = text_of(json_object_get(over, "restore"), "path", NULL);
	int dir, status = CLI_OK;

	if (!path && verify) {
		cli_error("--verify: there is no snapshot to check; give --restore DIR");
		return CLI_USAGE;
	}
	if (!path)
		return CLI_OK;
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0) {
		cli_error("--restore: '%s': %s; give the directory of a snapshot", path,
			  strerror(errno));
		return CLI_FAILED;
	}
	if (verify)
		status = sums_verify(dir, path);
	base = status == CLI_OK ? load(dir, path) : NULL;
	close(dir);
	if (!base)
		return CLI_FAILED;
	status = restore_merge(base, over, "snapshot");
	if (status != CLI_OK) {
		json_decref(base);
		return status;
	}
	json_decref(over);
	*document = base;
	signal(SIGBUS, on_bus_error);
	return CLI_OK;
}
