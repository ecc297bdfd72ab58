// SPDX-License-Identifier: Apache-2.0
// What can be asked of a machine. Each method is one call of the library.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "control/method.h"

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

static int set_disk_size(struct call *call)
{
	uint64_t bytes = (uint64_t)integer_of(call, "bytes");

	return hospes_vm_disk_resize(call->vm, call->id, bytes, &call->error);
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

static const struct field since[] = {
	{"since", FIELD_INTEGER, 0, INT64_MAX, true,
	 "begin behind the event of this number, as far as it is kept"},
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

static const struct field net_link[] = {
	{"up", FIELD_BOOLEAN, .text = "whether the link is up"},
	{0},
};

static const struct field console_size[] = {
	{"columns", FIELD_INTEGER, 1, UINT16_MAX, false, "characters in a line"},
	{"rows", FIELD_INTEGER, 1, UINT16_MAX, false, "lines"},
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
	{"PUT", "/v1/strategy", "set_strategy",
	 "Switch the passed-through devices behind the virtual IOMMU to another strategy",
	 .body = strategy, .answer = ANSWER_NOTHING, .run = set_strategy},
	{"PUT", "/v1/disks/{id}/size", "set_disk_size", "The disk's backing has a new size",
	 .body = disk_size, .answer = ANSWER_NOTHING, .run = set_disk_size},
	{"PUT", "/v1/nets/{id}/link", "set_net_link", "Link of a network device", .body = net_link,
	 .answer = ANSWER_NOTHING, .run = set_net_link},
	{"PUT", "/v1/consoles/{id}/size", "set_console_size",
	 "Size of the terminal behind a virtio console", .body = console_size,
	 .answer = ANSWER_NOTHING, .run = set_console_size},
	{0},
};
