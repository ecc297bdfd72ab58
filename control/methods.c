// SPDX-License-Identifier: Apache-2.0
// What can be asked of a machine. Each method is one call of the library.
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/method.h"

enum { REMOVE_TIMEOUT_MS = 30000, DOWNTIME_MS = 50 };

static int no_memory(struct call *call)
{
	call->error.code = -ENOMEM;
	snprintf(call->error.text, sizeof(call->error.text), "no memory for the answer");
	return -ENOMEM;
}

static int get_status(struct call *call)
{
	return hospes_vm_status(call->vm, &call->text, &call->error);
}

static int get_registers(struct call *call)
{
	return hospes_vm_registers(call->vm, &call->text, &call->error);
}

static int get_schema(struct call *call)
{
	call->text = schema_text();
	return call->text ? 0 : no_memory(call);
}

static int get_metrics(struct call *call)
{
	char *status;
	int rc = hospes_vm_status(call->vm, &status, &call->error);

	if (rc)
		return rc;
	call->text = metrics_text(status);
	hospes_free(status);
	return call->text ? 0 : no_memory(call);
}

static int do_pause(struct call *call)
{
	return hospes_vm_pause(call->vm, &call->error);
}

static int do_resume(struct call *call)
{
	return hospes_vm_resume(call->vm, &call->error);
}

static int do_shutdown(struct call *call)
{
	return hospes_vm_shutdown(call->vm, &call->error);
}

static int do_reset(struct call *call)
{
	return hospes_vm_reset(call->vm, &call->error);
}

static int do_stop(struct call *call)
{
	return hospes_vm_stop(call->vm, &call->error);
}

static json_int_t integer_of(const struct call *call, const char *name)
{
	return json_integer_value(json_object_get(call->body, name));
}

static int set_strategy(struct call *call)
{
	const char *strategy = json_string_value(json_object_get(call->body, "strategy"));

	return hospes_vm_set_strategy(call->vm, strategy, &call->error);
}

static int set_balloon(struct call *call)
{
	return hospes_vm_balloon(call->vm, (uint64_t)integer_of(call, "bytes"), &call->error);
}

static int set_cpus(struct call *call)
{
	return hospes_vm_set_cpus(call->vm, (unsigned int)integer_of(call, "count"), &call->error);
}

static int set_memory(struct call *call)
{
	return hospes_vm_set_memory(call->vm, (uint64_t)integer_of(call, "size_bytes"),
				    &call->error);
}

static int set_disk_size(struct call *call)
{
	uint64_t bytes = (uint64_t)integer_of(call, "bytes");

	return hospes_vm_disk_resize(call->vm, call->id, bytes, &call->error);
}

/* What is left out stays as it is. */
static uint64_t rate_of(const struct call *call, const char *name)
{
	const json_t *value = json_object_get(call->body, name);

	return value ? (uint64_t)json_integer_value(value) : HOSPES_KEEP;
}

static int set_rate(struct call *call)
{
	return hospes_vm_set_rate(call->vm, call->id, rate_of(call, "bytes_per_s"),
				  rate_of(call, "ops_per_s"), &call->error);
}

static int set_net_link(struct call *call)
{
	int up = json_is_true(json_object_get(call->body, "up"));

	return hospes_vm_net_link(call->vm, call->id, up, &call->error);
}

static int set_console_size(struct call *call)
{
	uint16_t columns = (uint16_t)integer_of(call, "columns");
	uint16_t rows = (uint16_t)integer_of(call, "rows");

	return hospes_vm_console_resize(call->vm, call->id, columns, rows, &call->error);
}

/* --- devices --- */

static const struct {
	const char *key;
	bool number; /* of a file descriptor; else something that would have to be opened */
} device_keys[] = {
	{"fd", true},          {"iommufd", true},   {"vhost_fd", true},
	{"in", true},          {"out", true},       {"path", false},
	{"tap", false},        {"socket", false},   {"vhost_user_fd", true},
	{"vhost_user", false}, {"keeper_fd", true},
};

__attribute__((format(printf, 2, 3))) static int invalid(struct call *call, const char *fmt, ...)
{
	va_list ap;

	call->error.code = -EINVAL;
	va_start(ap, fmt);
	vsnprintf(call->error.text, sizeof(call->error.text), fmt, ap);
	va_end(ap);
	return -EINVAL;
}

static int opens_nothing(struct call *call, const char *kind, const char *key)
{
	return invalid(call,
		       "%s: a machine that runs opens nothing for a client; 'hospes ctl NAME add "
		       "--%s ...' opens it and sends it; by HTTP, send the descriptor with the "
		       "request, and give its place (\"fd\": 0)",
		       key, kind);
}

/* A client's numbers are places among the descriptors that came with the request, never numbers of
 * this process. */
static int place_fds(struct call *call, const char *kind, json_t *device)
{
	/* With a descriptor it is a name only: which device of a VFIO group is meant. */
	if (json_object_get(device, "device") && !json_object_get(device, "fd"))
		return opens_nothing(call, kind, "device");
	for (size_t i = 0; i < sizeof(device_keys) / sizeof(device_keys[0]); i++) {
		const char *key = device_keys[i].key;
		const json_t *value = json_object_get(device, key);
		json_int_t number = json_integer_value(value);

		if (!value)
			continue;
		if (!device_keys[i].number)
			return opens_nothing(call, kind, key);
		if (!json_is_integer(value) || number < 0 || number >= (json_int_t)call->n_fds)
			return invalid(call,
				       "%s: not the place of one of the %u file descriptors that "
				       "came; count them from 0",
				       key, call->n_fds);
		json_object_set_new(device, key, json_integer(call->fds[number]));
	}
	return 0;
}

static int add_device(struct call *call)
{
	const char *kind;
	json_t *device;
	char *text;
	int rc = 0;

	json_object_foreach(call->body, kind, device)
	{
		rc = place_fds(call, kind, device);
		if (rc)
			return rc;
	}
	text = json_dumps(call->body, JSON_COMPACT);
	if (!text)
		return no_memory(call);
	rc = hospes_vm_device_add(call->vm, text, strlen(text), &call->text, &call->error);
	free(text);
	return rc;
}

/* The file at this place; -1: there is none. */
static int place_of(struct call *call, const char *name)
{
	json_int_t place = integer_of(call, name);

	return place < (json_int_t)call->n_fds ? call->fds[place] : -1;
}

static int do_dump(struct call *call)
{
	int fd = place_of(call, "fd");

	if (fd < 0)
		return invalid(call,
			       "fd: not the place of one of the %u file descriptors that came; "
			       "'hospes ctl NAME dump FILE' opens the file and sends it",
			       call->n_fds);
	return hospes_vm_dump(call->vm, fd, &call->error);
}

static int do_snapshot(struct call *call)
{
	int state = place_of(call, "state"), memory = place_of(call, "memory");

	if (state < 0 || memory < 0 || state == memory)
		return invalid(
			call,
			"state, memory: not two places of the %u file descriptors that came; "
			"'hospes ctl NAME snapshot DIR' makes the files and sends them",
			call->n_fds);
	return hospes_vm_snapshot(call->vm, state, memory, &call->text, &call->error);
}

static int do_migrate(struct call *call)
{
	const json_t *downtime = json_object_get(call->body, "downtime_ms");
	int fd = place_of(call, "fd");

	if (fd < 0)
		return invalid(call,
			       "fd: not the place of one of the %u file descriptors that came; "
			       "'hospes ctl NAME migrate ADDRESS' connects a socket and sends it",
			       call->n_fds);
	return hospes_vm_migrate(
		call->vm, fd, downtime ? (unsigned int)json_integer_value(downtime) : DOWNTIME_MS,
		&call->error);
}

static int cancel_migration(struct call *call)
{
	return hospes_vm_migrate_cancel(call->vm, &call->error);
}

static int check_migration(struct call *call)
{
	return hospes_vm_migrate_check(call->vm, &call->text, &call->error);
}

static int view_console(struct call *call)
{
	bool take = json_is_true(json_object_get(call->body, "take"));
	int fd = place_of(call, "fd");

	if (fd < 0)
		return invalid(call,
			       "fd: not the place of one of the %u file descriptors that came; "
			       "'hospes ctl NAME console' makes a socketpair and sends one end",
			       call->n_fds);
	return hospes_vm_console_view(call->vm, call->id, fd, take ? HOSPES_VIEW_TAKE : 0,
				      &call->error);
}

static int remove_device(struct call *call)
{
	const json_t *timeout = json_object_get(call->query, "timeout_ms");
	bool force = json_integer_value(json_object_get(call->query, "force")) != 0;
	unsigned int timeout_ms =
		timeout ? (unsigned int)json_integer_value(timeout) : REMOVE_TIMEOUT_MS;

	return hospes_vm_device_remove(call->vm, call->id, timeout_ms,
				       force ? HOSPES_REMOVE_FORCE : 0, &call->error);
}

static const struct field device[] = {
	{"disk", FIELD_OBJECT, .optional = true,
	 .text = "one of the document's disks, with fd (or vhost_user_fd)"},
	{"net", FIELD_OBJECT, .optional = true,
	 .text = "one of nets, with fd (and vhost_fd), or vhost_user_fd"},
	{"share", FIELD_OBJECT, .optional = true, .text = "one of shares, with vhost_user_fd"},
	{"console", FIELD_OBJECT, .optional = true, .text = "one of consoles, with in and out"},
	{"rng", FIELD_OBJECT, .optional = true, .text = "a source of random numbers"},
	{"balloon", FIELD_OBJECT, .optional = true, .text = "a balloon"},
	{"passthrough", FIELD_OBJECT, .optional = true, .text = "one of passthrough, with fd"},
	{0},
};

static const struct field removal[] = {
	{"timeout_ms", FIELD_INTEGER, 0, 600000, true, "for the guest to give it up (30000)"},
	{"force", FIELD_INTEGER, 0, 1, true, "1: when the time is over, take it in any case"},
	{0},
};

/* --- the table --- */

static const struct field since[] = {
	{"since", FIELD_INTEGER, 0, INT64_MAX, true,
	 "begin behind the event of this number, as far as it is kept"},
	{0},
};

static const struct field dump[] = {
	{"fd", FIELD_INTEGER, 0, HOSPES_DEVICE_FDS - 1, false,
	 "the file's place among the descriptors that come with the request"},
	{0},
};

static const struct field snapshot[] = {
	{"state", FIELD_INTEGER, 0, HOSPES_DEVICE_FDS - 1, false,
	 "the place of the file for the state, among the descriptors that come with the request"},
	{"memory", FIELD_INTEGER, 0, HOSPES_DEVICE_FDS - 1, false, "likewise, for memory"},
	{0},
};

static const struct field migration[] = {
	{"fd", FIELD_INTEGER, 0, HOSPES_DEVICE_FDS - 1, false,
	 "the place, among the descriptors that come with the request, of a socket that is connected "
	 "to 'hospes run --incoming'"},
	{"downtime_ms", FIELD_INTEGER, 1, 600000, true, "how long the guest may stand still (50)"},
	{0},
};

static const struct field strategy[] = {
	{"strategy", FIELD_TEXT, .text = "a strategy, as NAME or NAME,key=value"},
	{0},
};

static const struct field disk_size[] = {
	{"bytes", FIELD_INTEGER, 0, INT64_MAX, false, "a multiple of 512; 0: the backing's size"},
	{0},
};

static const struct field balloon[] = {
	{"bytes", FIELD_INTEGER, 0, INT64_MAX, false,
	 "what it is to hold, taken from the guest: a multiple of 4096"},
	{0},
};

static const struct field cpus[] = {
	{"count", FIELD_INTEGER, 0, INT32_MAX, false, "how many there are to be, 1 to cpus.max"},
	{0},
};

static const struct field memory[] = {
	{"size_bytes", FIELD_INTEGER, 0, INT64_MAX, false,
	 "how much there is to be, memory.size to memory.max, in whole units"},
	{0},
};

static const struct field rate[] = {
	{"bytes_per_s", FIELD_INTEGER, 0, INT64_MAX, true, "bytes, at least 1024; 0: no limit"},
	{"ops_per_s", FIELD_INTEGER, 0, UINT32_MAX, true,
	 "requests, or packets each way; 0: no limit"},
	{0},
};

static const struct field net_link[] = {
	{"up", FIELD_BOOLEAN, .text = "whether the link is up"},
	{0},
};

static const struct field console_size[] = {
	{"columns", FIELD_INTEGER, 1, UINT16_MAX, false, "characters in a line"},
	{"rows", FIELD_INTEGER, 1, UINT16_MAX, false, "lines"},
	{0},
};

static const struct field view[] = {
	{"fd", FIELD_INTEGER, 0, HOSPES_DEVICE_FDS - 1, false,
	 "the place, among the descriptors that come with the request, of one end of a socketpair"},
	{"take", FIELD_BOOLEAN, .optional = true, .text = "in the place of another viewer"},
	{0},
};

const struct method methods[] = {
	{"GET", "/v1/status", "status", "The status document (docs/configuration.md)",
	 .answer = ANSWER_OBJECT, .run = get_status},
	{"GET", "/v1/registers", "registers", "The registers of every vCPU, for people",
	 .answer = ANSWER_TEXT, .run = get_registers},
	{"GET", "/v1/events", "events",
	 "Events of the machine, a line of JSON each, as they happen", .query = since,
	 .answer = ANSWER_EVENTS},
	{"GET", "/v1/schema", "schema", "This document", .answer = ANSWER_OBJECT,
	 .run = get_schema},
	{"GET", "/metrics", "metrics", "The status document's numbers for Prometheus",
	 .answer = ANSWER_METRICS, .run = get_metrics},
	{"POST", "/v1/pause", "pause", "Pause it; a paused machine stays so",
	 .answer = ANSWER_STATE, .run = do_pause},
	{"POST", "/v1/resume", "resume", "Let it go on; a running machine does",
	 .answer = ANSWER_STATE, .run = do_resume},
	{"POST", "/v1/shutdown", "shutdown", "Press the power button; the guest decides what to do",
	 .answer = ANSWER_STATE, .run = do_shutdown},
	{"POST", "/v1/reset", "reset", "Reset it", .answer = ANSWER_STATE, .run = do_reset},
	{"POST", "/v1/stop", "stop", "Stop it now, whatever the guest is doing",
	 .answer = ANSWER_STATE, .run = do_stop},
	{"POST", "/v1/dump", "dump",
	 "Write memory and registers as an ELF core; an event says how it ended", .body = dump,
	 .takes_fds = true, .answer = ANSWER_LATER, .run = do_dump},
	{"POST", "/v1/snapshot", "snapshot",
	 "Write the whole machine into two files; the answer is its document, an event says how it "
	 "ended",
	 .body = snapshot, .takes_fds = true, .answer = ANSWER_OBJECT, .run = do_snapshot},
	{"GET", "/v1/migration", "check_migration", "Whether it can be migrated, and if not, why",
	 .answer = ANSWER_OBJECT, .run = check_migration},
	{"POST", "/v1/migration", "migrate",
	 "Move it to the other end of a socket while it works; events say how far it is, and how it "
	 "ended",
	 .body = migration, .takes_fds = true, .answer = ANSWER_LATER, .run = do_migrate},
	{"DELETE", "/v1/migration", "cancel_migration",
	 "Keep it here, as long as the target was not asked to go on", .answer = ANSWER_NOTHING,
	 .run = cancel_migration},
	{"POST", "/v1/devices", "add_device",
	 "Add a device: one of the document's, whose file descriptors come with the request",
	 .body = device, .takes_fds = true, .answer = ANSWER_OBJECT, .run = add_device},
	{"DELETE", "/v1/devices/{id}", "remove_device",
	 "Ask the guest to give the device up; an event says how it ended", .query = removal,
	 .answer = ANSWER_LATER, .run = remove_device},
	{"PUT", "/v1/strategy", "set_strategy",
	 "Switch the passed-through devices behind the virtual IOMMU to another strategy",
	 .body = strategy, .answer = ANSWER_NOTHING, .run = set_strategy},
	{"PUT", "/v1/balloon", "set_balloon",
	 "What the balloon is to hold of the guest's memory; an event says when it does",
	 .body = balloon, .answer = ANSWER_NOTHING, .run = set_balloon},
	{"PUT", "/v1/cpus", "set_cpus",
	 "How many vCPUs there are to be, as far as the guest agrees; an event says how it ended",
	 .body = cpus, .answer = ANSWER_LATER, .run = set_cpus},
	{"PUT", "/v1/memory", "set_memory",
	 "How much memory there is to be, as far as the guest agrees; an event says how it ended",
	 .body = memory, .answer = ANSWER_LATER, .run = set_memory},
	{"PUT", "/v1/devices/{id}/rate", "set_rate",
	 "How much a disk or a network may move in a second; what is left out stays as it is",
	 .body = rate, .answer = ANSWER_NOTHING, .run = set_rate},
	{"PUT", "/v1/disks/{id}/size", "set_disk_size", "The disk's backing has a new size",
	 .body = disk_size, .answer = ANSWER_NOTHING, .run = set_disk_size},
	{"PUT", "/v1/nets/{id}/link", "set_net_link", "Link of a network device", .body = net_link,
	 .answer = ANSWER_NOTHING, .run = set_net_link},
	{"PUT", "/v1/consoles/{id}/size", "set_console_size",
	 "Size of the terminal behind a virtio console", .body = console_size,
	 .answer = ANSWER_NOTHING, .run = set_console_size},
	{"POST", "/v1/consoles/{id}/view", "view_console",
	 "Look at a console and type on it, by a socket that comes with the request", .body = view,
	 .takes_fds = true, .answer = ANSWER_NOTHING, .run = view_console},
	{0},
};
