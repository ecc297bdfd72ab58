// SPDX-License-Identifier: Apache-2.0
// hospes ctl NAME add: devices are opened here, with the rights of whoever asks, and go to the
// machine as file descriptors.
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "answer.h"
#include "cli.h"
#include "ctl.h"
#include "daemons.h"
#include "hospes/hospes.h"
#include "output.h"

/* Lists of a document, and what one device of each is called. */
static const struct {
	const char *list, *kind;
} kinds[] = {
	{"disks", "disk"},
	{"nets", "net"},
	{"shares", "share"},
	{"consoles", "console"},
	{"rng", "rng"},
	{"balloon", "balloon"},
	{"passthrough", "passthrough"},
};

/* The machine's "iommu": a passed-through device is opened for that. */
static int read_iommu(const char *what, json_t **ret)
{
	const struct question question = {.verb = "GET", .target = "/v1/status"};
	struct reply reply;
	int status = ctl_ask(what, &question, NULL, &reply);
	json_t *document = status == CLI_OK && reply.body ? json_loads(reply.body, 0, NULL) : NULL;

	*ret = json_incref(json_object_get(document, "iommu"));
	json_decref(document);
	free(reply.body);
	return status;
}

static int open_device(const json_t *iommu, const json_t *device, struct question *question,
		       int *fds)
{
	const struct hospes_open_options options = {
		.size = sizeof(options),
		.iommu = text_of(iommu, "backend", NULL),
		.has_iommufd = json_is_true(json_object_get(iommu, "iommufd")),
	};
	struct hospes_error error;
	char *text = json_dumps(device, JSON_COMPACT), *opened;
	int rc = text ? hospes_device_open(text, strlen(text), &options, &opened, fds,
					   &question->n_fds, &error)
		      : -1;

	if (rc < 0)
		cli_error("%s", text ? error.text : "no memory");
	free(text);
	question->body = rc < 0 ? NULL : opened;
	return rc < 0 ? CLI_FAILED : CLI_OK;
}

static void print_id(const struct reply *reply)
{
	json_t *added = reply->body ? json_loads(reply->body, 0, NULL) : NULL;

	puts(text_of(added, "id", ""));
	json_decref(added);
}

/* device: {"KIND": OBJECT} */
static int add_one(const char *what, const json_t *device)
{
	int fds[HOSPES_DEVICE_FDS];
	struct question question = {.verb = "POST", .target = "/v1/devices", .fds = fds};
	struct reply reply = {0};
	json_t *iommu = NULL;
	int status = CLI_OK;

	if (json_object_get(device, "passthrough"))
		status = read_iommu(what, &iommu);
	if (status == CLI_OK)
		status = open_device(iommu, device, &question, fds);
	if (status == CLI_OK)
		status = ctl_ask(what, &question, NULL, &reply);
	if (status == CLI_OK)
		print_id(&reply);
	while (question.n_fds)
		close(fds[--question.n_fds]);
	hospes_free((char *)question.body);
	free(reply.body);
	json_decref(iommu);
	return status;
}

static int add_object(const char *what, size_t kind, json_t *object)
{
	struct daemons daemons = {.n = 0};
	json_t *device = json_pack("{s:O}", kinds[kind].kind, object);
	int status = daemons_start_for(&daemons, kinds[kind].list, object, false, true);

	if (status == CLI_OK)
		status = add_one(what, device);
	daemons_release(&daemons);
	if (status != CLI_OK)
		daemons_wait(&daemons);
	json_decref(device);
	return status;
}

int ctl_add(const char *what, const json_t *devices)
{
	unsigned int n = 0;
	int status = CLI_OK;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		json_t *list = json_object_get(devices, kinds[i].list), *item;
		size_t k;

		if (json_is_object(list) && status == CLI_OK) {
			status = add_object(what, i, list);
			n++;
		}
		json_array_foreach(list, k, item)
		{
			if (status == CLI_OK)
				status = add_object(what, i, item);
			n++;
		}
	}
	if (n)
		return status;
	cli_error("%s: add: needs a device, such as --disk path=data.img; 'hospes ctl --help' "
		  "shows them",
		  what);
	return CLI_USAGE;
}
