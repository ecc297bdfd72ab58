// SPDX-License-Identifier: Apache-2.0
// The document of a machine that comes from another host. See incoming.h.
//
// What its guest sees comes in the stream; where things are on this host (disks, taps, the kernel
// for its next reset) is for the command line alone: a source cannot make this side open anything.
#include "incoming.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "address.h"
#include "answer.h"
#include "cli.h"
#include "hospes/hospes.h"
#include "output.h"
#include "restore.h"

static json_t *read_document(int fd)
{
	struct hospes_error error;
	char *text;

	if (hospes_migration_document(fd, &text, &error) == 0)
		return answer_load(text);
	cli_error("--incoming: %s", error.text);
	return NULL;
}

static int differs(const char *where, const json_t *there, const json_t *here)
{
	char *a = json_dumps(here, JSON_ENCODE_ANY | JSON_COMPACT);
	char *b = json_dumps(there, JSON_ENCODE_ANY | JSON_COMPACT);

	cli_error("--incoming: %s is %s here, and %s at the source; give the same, or leave it out",
		  where, a ? a : "nothing", b ? b : "nothing");
	free(a);
	free(b);
	return CLI_USAGE;
}

/* Is all that the source says so here too? */
static int compare(const char *where, const json_t *there, const json_t *here)
{
	int status = CLI_OK;
	const char *key;
	json_t *value;
	char name[160];
	size_t i;

	if (json_is_object(there) && json_is_object(here)) {
		json_object_foreach((json_t *)there, key, value)
		{
			snprintf(name, sizeof(name), "%s%s%s", where, *where ? "." : "", key);
			status = compare(name, value, json_object_get(here, key));
			if (status != CLI_OK)
				return status;
		}
		return CLI_OK;
	}
	if (json_is_array(there) && json_array_size(there) == json_array_size(here)) {
		json_array_foreach(there, i, value)
		{
			snprintf(name, sizeof(name), "%s[%zu]", where, i);
			status = compare(name, value, json_array_get(here, i));
			if (status != CLI_OK)
				return status;
		}
		return CLI_OK;
	}
	return json_equal(there, here) ? CLI_OK : differs(where, there, here);
}

static int check(const json_t *document, const json_t *source)
{
	char *text = json_dumps(document, JSON_COMPACT), *effective;
	struct hospes_error error;
	json_t *here;
	int status;

	if (!text || hospes_config_check(text, strlen(text), &effective, &error) < 0) {
		cli_error("--incoming: %s", text ? error.text : "no memory");
		free(text);
		return CLI_FAILED;
	}
	free(text);
	here = json_loads(effective, 0, NULL);
	hospes_free(effective);
	status = here ? compare("", source, here) : CLI_FAILED;
	json_decref(here);
	return status;
}

int incoming_document(json_t **document, const char *address, int *fd)
{
	json_t *source, *merged;
	int status;

	cli_error("waiting for a machine at %s", address);
	*fd = address_accept(address);
	source = *fd < 0 ? NULL : read_document(*fd);
	if (!source)
		return CLI_FAILED;
	merged = json_deep_copy(source);
	status = merged ? restore_merge(merged, *document, "machine that comes") : CLI_FAILED;
	if (status == CLI_OK)
		status = check(merged, source);
	json_decref(source);
	if (status != CLI_OK) {
		json_decref(merged);
		return status;
	}
	json_object_set_new(merged, "incoming", json_pack("{s:i}", "fd", *fd));
	json_decref(*document);
	*document = merged;
	return CLI_OK;
}
