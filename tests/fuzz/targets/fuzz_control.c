// SPDX-License-Identifier: Apache-2.0
// Fuzzer: what a client of the control socket sends. The first byte says how the rest is divided.
//
// A request must be the same however it is divided, must stay within its limits, and must have an
// answer: a success only by a row of the table, a failure with code, text and remedy.
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "control/dispatch.h"
#include "control/http.h"
#include "control/method.h"
#include "fuzz.h"

/* --- a library that does what it is asked, and counts --- */

static unsigned int calls;

static int call(struct hospes_error *error)
{
	*error = (struct hospes_error){0};
	calls++;
	return 0;
}

static int answer_text(char **text, struct hospes_error *error)
{
	*text = strdup("{\"state\": \"running\"}");
	return call(error);
}

#define PLAIN(verb)                                                            \
	int hospes_vm_##verb(struct hospes_vm *vm, struct hospes_error *error) \
	{                                                                      \
		(void)vm;                                                      \
		return call(error);                                            \
	}
PLAIN(pause)
PLAIN(resume)
PLAIN(shutdown)
PLAIN(reset)
PLAIN(stop)

enum hospes_state hospes_vm_state(const struct hospes_vm *vm)
{
	(void)vm;
	return HOSPES_RUNNING;
}

int hospes_vm_status(struct hospes_vm *vm, char **json, struct hospes_error *error)
{
	(void)vm;
	return answer_text(json, error);
}

int hospes_vm_registers(struct hospes_vm *vm, char **text, struct hospes_error *error)
{
	(void)vm;
	return answer_text(text, error);
}

int hospes_vm_dump(struct hospes_vm *vm, int fd, struct hospes_error *error)
{
	(void)vm;
	check(fd >= 0);
	return call(error);
}

int hospes_vm_snapshot(struct hospes_vm *vm, int state_fd, int memory_fd, char **document,
		       struct hospes_error *error)
{
	(void)vm;
	check(state_fd >= 0 && memory_fd >= 0 && state_fd != memory_fd);
	return answer_text(document, error);
}

int hospes_vm_migrate(struct hospes_vm *vm, int fd, unsigned int downtime_ms,
		      struct hospes_error *error)
{
	(void)vm;
	check(fd >= 0 && downtime_ms >= 1 && downtime_ms <= 600000);
	return call(error);
}

int hospes_vm_migrate_cancel(struct hospes_vm *vm, struct hospes_error *error)
{
	(void)vm;
	return call(error);
}

int hospes_vm_migrate_check(struct hospes_vm *vm, char **report, struct hospes_error *error)
{
	(void)vm;
	return answer_text(report, error);
}

int hospes_vm_device_add(struct hospes_vm *vm, const char *json, size_t length, char **device,
			 struct hospes_error *error)
{
	json_t *body = json_loadb(json, length, 0, NULL);

	(void)vm;
	check(json_is_object(body));
	json_decref(body);
	return answer_text(device, error);
}

int hospes_vm_device_remove(struct hospes_vm *vm, const char *id, unsigned int timeout_ms,
			    unsigned int flags, struct hospes_error *error)
{
	(void)vm;
	check(strlen(id) >= 1 && strlen(id) <= METHOD_ID_MAX);
	check(timeout_ms <= 600000 && flags <= HOSPES_REMOVE_FORCE);
	return call(error);
}

int hospes_vm_disk_resize(struct hospes_vm *vm, const char *id, uint64_t size_bytes,
			  struct hospes_error *error)
{
	(void)vm;
	check(strlen(id) >= 1 && strlen(id) <= METHOD_ID_MAX);
	check(size_bytes <= INT64_MAX);
	return call(error);
}

int hospes_vm_set_rate(struct hospes_vm *vm, const char *id, uint64_t bytes_per_s,
		       uint64_t ops_per_s, struct hospes_error *error)
{
	(void)vm;
	check(strlen(id) >= 1 && strlen(id) <= METHOD_ID_MAX);
	check(bytes_per_s <= INT64_MAX || bytes_per_s == HOSPES_KEEP);
	check(ops_per_s <= UINT32_MAX || ops_per_s == HOSPES_KEEP);
	return call(error);
}

int hospes_vm_net_link(struct hospes_vm *vm, const char *id, int up, struct hospes_error *error)
{
	(void)vm;
	check(strlen(id) >= 1 && strlen(id) <= METHOD_ID_MAX);
	check(up == 0 || up == 1);
	return call(error);
}

int hospes_vm_console_resize(struct hospes_vm *vm, const char *id, uint16_t columns, uint16_t rows,
			     struct hospes_error *error)
{
	(void)vm;
	check(strlen(id) >= 1 && columns && rows);
	return call(error);
}

int hospes_vm_console_view(struct hospes_vm *vm, const char *id, int fd, unsigned int flags,
			   struct hospes_error *error)
{
	(void)vm;
	check(strlen(id) >= 1 && fd >= 0 && !(flags & ~(unsigned int)HOSPES_VIEW_TAKE));
	return call(error);
}

int hospes_vm_set_strategy(struct hospes_vm *vm, const char *strategy, struct hospes_error *error)
{
	(void)vm;
	check(strategy && *strategy);
	return call(error);
}

int hospes_vm_set_cpus(struct hospes_vm *vm, unsigned int count, struct hospes_error *error)
{
	(void)vm;
	check(count <= INT32_MAX);
	return call(error);
}

int hospes_vm_set_memory(struct hospes_vm *vm, uint64_t bytes, struct hospes_error *error)
{
	(void)vm;
	check(bytes <= INT64_MAX);
	return call(error);
}

int hospes_vm_balloon(struct hospes_vm *vm, uint64_t bytes, struct hospes_error *error)
{
	(void)vm;
	check(bytes <= INT64_MAX);
	return call(error);
}

const char *hospes_version(void)
{
	return "0";
}

void hospes_free(void *p)
{
	free(p);
}

/* --- the checks --- */

static void check_limits(const struct http_request *r)
{
	check(r->n_target <= HTTP_TARGET_MAX && r->target[r->n_target] == '\0');
	check(r->n_body <= HTTP_BODY_MAX && r->n_body <= r->n_bytes);
	check(r->n_bytes <= HTTP_HEAD_MAX + HTTP_BODY_MAX);
	check((r->progress == HTTP_REFUSED) == (r->status != 0));
}

static void check_same(const struct http_request *a, const struct http_request *b)
{
	check(a->progress == b->progress);
	if (a->progress != HTTP_COMPLETE)
		return;
	check(strcmp(a->method, b->method) == 0);
	check(a->n_target == b->n_target && memcmp(a->target, b->target, a->n_target) == 0);
	check(a->n_body == b->n_body);
	check(!a->n_body || memcmp(a->body, b->body, a->n_body) == 0);
	check(a->n_bytes == b->n_bytes && a->expects == b->expects);
	check(a->keeps_alive == b->keeps_alive);
}

static void check_text(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	check(text && *text);
}

static void check_answer(const struct http_request *r)
{
	const struct request request = {
		.verb = r->method, .target = r->target, .body = r->body, .body_bytes = r->n_body};
	struct answer answer;

	calls = 0;
	dispatch(NULL, &request, &answer);
	check(calls <= 1);
	check(answer.status >= 200 && answer.status < 600);
	if (answer.status >= 400) {
		json_t *object = json_loads(answer.text, 0, NULL);

		check(calls == 0);
		check_text(object, "code");
		check_text(object, "text");
		check_text(object, "remedy");
		json_decref(object);
	} else {
		check(calls == 1 || answer.events || strstr(r->target, "/v1/schema") == r->target);
		check((answer.status == 204 || answer.status == 202) ==
		      (answer.text == NULL && !answer.events));
	}
	free(answer.text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct http_request whole, divided;
	const char *bytes = (const char *)data + 1;
	size_t step, n, taken;

	if (size < 1)
		return 0;
	step = data[0] % 16 + 1u;
	n = size - 1;
	http_request_init(&whole);
	http_request_init(&divided);
	taken = http_request_feed(&whole, bytes, n);
	check(taken <= n);
	for (size_t at = 0; at < n && divided.progress == HTTP_MORE; at += step)
		http_request_feed(&divided, bytes + at, n - at < step ? n - at : step);
	check_limits(&whole);
	check_limits(&divided);
	check_same(&whole, &divided);
	if (whole.progress == HTTP_COMPLETE)
		check_answer(&whole);
	http_request_done(&whole);
	http_request_done(&divided);
	return 0;
}
