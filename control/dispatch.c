// SPDX-License-Identifier: Apache-2.0
// Find the method, check what was sent against its row, call it.
#include "control/dispatch.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/method.h"

enum { TEXT_BYTES = 512 };

static const char schema_remedy[] = "GET /v1/schema shows what this machine takes";

/* --- failures --- */

void dispatch_refuse(struct answer *answer, int status, const char *code, const char *text,
		     const char *remedy)
{
	json_t *object = json_pack("{s:s, s:s, s:s}", "code", code, "text", text, "remedy", remedy);

	/* Whoever sent no UTF-8 gets it without the text. */
	if (!object)
		object = json_pack("{s:s, s:s, s:s}", "code", code, "text", "the value is no UTF-8",
				   "remedy", remedy);
	*answer = (struct answer){
		.status = status,
		.type = "application/json",
		.text = object ? json_dumps(object, JSON_COMPACT) : NULL,
	};
	json_decref(object);
}

__attribute__((format(printf, 4, 5))) static int refuse(struct answer *answer, int status,
							const char *code, const char *fmt, ...)
{
	char text[TEXT_BYTES];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	dispatch_refuse(answer, status, code, text, schema_remedy);
	return -EINVAL;
}

/* Of the library: how its errors look from outside. The last row fits all others. */
static const struct {
	int error, status;
	const char *code, *remedy;
} failures[] = {
	{EINVAL, 400, "invalid", schema_remedy},
	{ERANGE, 400, "invalid", schema_remedy},
	{ENOENT, 404, "not_found", "GET /v1/status lists the devices"},
	{ENODEV, 409, "no_device", "GET /v1/status lists the devices"},
	{EEXIST, 409, "exists", "GET /v1/status lists the devices"},
	{EALREADY, 409, "asked_already", "GET /v1/events shows how it ends"},
	{EBUSY, 409, "wrong_state", "GET /v1/status shows the machine's state"},
	{EOPNOTSUPP, 409, "unsupported", "GET /v1/status shows the machine's devices"},
	{ENOSPC, 409, "no_space", "GET /v1/status shows what is used"},
	{ENOMEM, 503, "no_memory", "try again when the host has memory"},
	{ETIMEDOUT, 504, "timeout", "try again; the host's log says what does not answer"},
	{0, 500, "failed", "the machine's log says more"},
};

/* A message is "what; remedy". */
static void fail(struct answer *answer, const struct hospes_error *error, int rc)
{
	char text[sizeof(error->text)];
	char *semicolon;
	size_t i = 0;

	while (failures[i].error && failures[i].error != -rc)
		i++;
	snprintf(text, sizeof(text), "%s", error->text[0] ? error->text : strerror(-rc));
	semicolon = strstr(text, "; ");
	if (semicolon)
		*semicolon = '\0';
	dispatch_refuse(answer, failures[i].status, failures[i].code, text,
			semicolon ? semicolon + 2 : failures[i].remedy);
}

/* --- which method --- */

static int hex(char c)
{
	return c >= '0' && c <= '9'   ? c - '0'
	       : c >= 'a' && c <= 'f' ? c - 'a' + 10
	       : c >= 'A' && c <= 'F' ? c - 'A' + 10
				      : -1;
}

/* A segment of n bytes, decoded, into id; false: it is none. */
static bool decode(const char *at, size_t n, char id[METHOD_ID_MAX + 1])
{
	size_t length = 0;

	for (size_t i = 0; i < n; i++) {
		int c = (unsigned char)at[i];

		if (c == '%') {
			if (n - i < 3 || hex(at[i + 1]) < 0 || hex(at[i + 2]) < 0)
				return false;
			c = hex(at[i + 1]) * 16 + hex(at[i + 2]);
			i += 2;
		}
		if (c == 0 || length == METHOD_ID_MAX)
			return false;
		id[length++] = (char)c;
	}
	id[length] = '\0';
	return length > 0;
}

/* Does the path of n bytes fit the pattern? "{id}" is one segment. */
static bool fits(const char *pattern, const char *path, size_t n, char id[METHOD_ID_MAX + 1])
{
	const char *end = path + n;

	id[0] = '\0';
	while (*pattern && path < end) {
		if (*pattern == '{') {
			const char *slash = memchr(path, '/', (size_t)(end - path));

			if (!slash)
				slash = end;
			if (!decode(path, (size_t)(slash - path), id))
				return false;
			path = slash;
			pattern = strchr(pattern, '}') + 1;
		} else if (*pattern++ != *path++) {
			return false;
		}
	}
	return !*pattern && path == end;
}

static const struct method *find(const struct request *request, struct call *call,
				 struct answer *answer)
{
	size_t n = strcspn(request->target, "?#");
	const char *allow = NULL;

	for (const struct method *m = methods; m->verb; m++) {
		if (!fits(m->path, request->target, n, call->id))
			continue;
		if (strcmp(m->verb, request->verb) == 0)
			return m;
		allow = m->verb;
	}
	if (allow)
		refuse(answer, 405, "wrong_method", "%.*s: takes %s, not %s", (int)n,
		       request->target, allow, request->verb);
	else
		refuse(answer, 404, "unknown_path", "%.*s: no such path", (int)n, request->target);
	answer->allow = allow;
	return NULL;
}

/* --- what was sent --- */

static const struct field *find_field(const struct field *fields, const char *name, size_t n)
{
	for (; fields && fields->name; fields++) {
		if (strlen(fields->name) == n && strncmp(fields->name, name, n) == 0)
			return fields;
	}
	return NULL;
}

static int check_integer(const struct field *field, int64_t value, struct answer *answer)
{
	if (value >= field->min && value <= field->max)
		return 0;
	return refuse(answer, 400, "invalid", "%s: %lld is not from %lld to %lld", field->name,
		      (long long)value, (long long)field->min, (long long)field->max);
}

static int check_value(const struct field *field, const json_t *value, struct answer *answer)
{
	switch (field->type) {
	case FIELD_INTEGER:
		if (json_is_integer(value))
			return check_integer(field, json_integer_value(value), answer);
		return refuse(answer, 400, "invalid", "%s: must be an integer", field->name);
	case FIELD_BOOLEAN:
		if (json_is_boolean(value))
			return 0;
		return refuse(answer, 400, "invalid", "%s: must be true or false", field->name);
	case FIELD_TEXT:
		if (json_is_string(value) && json_string_length(value))
			return 0;
		return refuse(answer, 400, "invalid", "%s: must be a text", field->name);
	case FIELD_OBJECT:
		if (json_is_object(value))
			return 0;
		return refuse(answer, 400, "invalid", "%s: must be an object", field->name);
	}
	return 0;
}

static int check_body(const struct field *fields, json_t *body, struct answer *answer)
{
	const char *key;
	json_t *value;

	if (!json_is_object(body))
		return refuse(answer, 400, "invalid", "the body must be a JSON object");
	json_object_foreach(body, key, value)
	{
		const struct field *field = find_field(fields, key, strlen(key));
		int rc = field ? check_value(field, value, answer)
			       : refuse(answer, 400, "invalid", "%s: unknown key", key);

		if (rc)
			return rc;
	}
	for (; fields && fields->name; fields++) {
		if (!fields->optional && !json_object_get(body, fields->name))
			return refuse(answer, 400, "invalid", "%s: is missing", fields->name);
	}
	return 0;
}

static int read_body(const struct method *m, const struct request *request, struct call *call,
		     struct answer *answer)
{
	json_error_t where;

	if (!request->body_bytes) {
		if (m->body)
			return refuse(answer, 400, "invalid", "%s: needs a body", m->path);
		return 0;
	}
	call->body = json_loadb(request->body, request->body_bytes, JSON_REJECT_DUPLICATES, &where);
	if (!call->body)
		return refuse(answer, 400, "invalid", "the body is no JSON: line %d, column %d: %s",
			      where.line, where.column, where.text);
	return check_body(m->body, call->body, answer);
}

/* One "name=number" of n bytes: the only fields of queries are integers. */
static int read_pair(const struct method *m, const char *at, size_t n, json_t *query,
		     struct answer *answer)
{
	const char *equals = memchr(at, '=', n);
	const struct field *field;
	int64_t value;
	char *end;

	field = equals ? find_field(m->query, at, (size_t)(equals - at)) : NULL;
	if (!field)
		return refuse(answer, 400, "invalid", "%.*s: unknown query", (int)n, at);
	errno = 0;
	value = strtoll(equals + 1, &end, 10);
	if (equals[1] < '0' || equals[1] > '9' || end != at + n || errno)
		return refuse(answer, 400, "invalid", "%.*s: not an integer", (int)n, at);
	if (check_integer(field, value, answer))
		return -EINVAL;
	json_object_set_new(query, field->name, json_integer(value));
	return 0;
}

static int read_query(const struct method *m, const struct request *request, struct call *call,
		      struct answer *answer)
{
	const char *at = strchr(request->target, '?');
	int rc = 0;

	call->query = json_object();
	for (; at && *at && *at != '#' && !rc; at += strcspn(at, "&#")) {
		at++;
		if (*at)
			rc = read_pair(m, at, strcspn(at, "&#"), call->query, answer);
	}
	return rc;
}

static int check_fds(const struct method *m, const struct request *request, struct answer *answer)
{
	if (!request->n_fds || m->takes_fds)
		return 0;
	return refuse(answer, 400, "invalid", "%s: takes no file descriptors, %u came", m->path,
		      request->n_fds);
}

/* --- the call --- */

static void succeed(const struct method *m, struct call *call, struct answer *answer)
{
	static const char *const types[] = {
		[ANSWER_STATE] = "application/json",
		[ANSWER_OBJECT] = "application/json",
		[ANSWER_TEXT] = "text/plain; charset=utf-8",
		[ANSWER_METRICS] = "text/plain; version=0.0.4; charset=utf-8",
		[ANSWER_EVENTS] = "application/x-ndjson",
	};
	const json_t *since = json_object_get(call->query, "since");
	json_t *state;

	*answer = (struct answer){
		.status = m->answer == ANSWER_NOTHING ? 204
			  : m->answer == ANSWER_LATER ? 202
						      : 200,
		.type = types[m->answer],
		.text = call->text,
		.events = m->answer == ANSWER_EVENTS,
		.since = since ? (uint64_t)json_integer_value(since) + 1 : UINT64_MAX,
	};
	call->text = NULL;
	if (m->answer != ANSWER_STATE)
		return;
	state = json_pack("{s:s}", "state", events_state_name(hospes_vm_state(call->vm)));
	answer->text = json_dumps(state, JSON_COMPACT);
	json_decref(state);
}

void dispatch(struct hospes_vm *vm, const struct request *request, struct answer *answer)
{
	struct call call = {.vm = vm, .fds = request->fds, .n_fds = request->n_fds};
	const struct method *m = find(request, &call, answer);

	if (m && !check_fds(m, request, answer) && !read_query(m, request, &call, answer) &&
	    !read_body(m, request, &call, answer)) {
		int rc = m->run ? m->run(&call) : 0;

		if (rc < 0)
			fail(answer, &call.error, rc);
		else
			succeed(m, &call, answer);
	}
	json_decref(call.body);
	json_decref(call.query);
}
