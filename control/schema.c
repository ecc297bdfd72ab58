// SPDX-License-Identifier: Apache-2.0
// The table of methods as an OpenAPI 3 document.
#include <string.h>

#include "control/method.h"

static json_t *type_of(const struct field *field)
{
	static const char *const types[] = {
		[FIELD_INTEGER] = "integer",
		[FIELD_BOOLEAN] = "boolean",
		[FIELD_TEXT] = "string",
		[FIELD_OBJECT] = "object",
	};
	json_t *schema = json_pack("{s:s}", "type", types[field->type]);

	if (field->type == FIELD_INTEGER) {
		json_object_set_new(schema, "format", json_string("int64"));
		json_object_set_new(schema, "minimum", json_integer(field->min));
		json_object_set_new(schema, "maximum", json_integer(field->max));
	}
	if (field->type == FIELD_TEXT)
		json_object_set_new(schema, "minLength", json_integer(1));
	return schema;
}

static json_t *body_of(const struct field *fields)
{
	json_t *properties = json_object(), *required = json_array();

	for (; fields->name; fields++) {
		json_t *schema = type_of(fields);

		json_object_set_new(schema, "description", json_string(fields->text));
		json_object_set_new(properties, fields->name, schema);
		if (!fields->optional)
			json_array_append_new(required, json_string(fields->name));
	}
	/* OpenAPI 3.0 has no empty list here. */
	if (!json_array_size(required)) {
		json_decref(required);
		required = NULL;
	}
	return json_pack("{s:b, s:{s:{s:{s:s, s:b, s:o*, s:o}}}}", "required", 1, "content",
			 "application/json", "schema", "type", "object", "additionalProperties", 0,
			 "required", required, "properties", properties);
}

static json_t *parameters_of(const struct method *m)
{
	json_t *list = json_array();

	if (strchr(m->path, '{'))
		json_array_append_new(list,
				      json_pack("{s:s, s:s, s:b, s:s, s:{s:s}}", "name", "id", "in",
						"path", "required", 1, "description",
						"the device's id, as the status document has it",
						"schema", "type", "string"));
	for (const struct field *f = m->query; f && f->name; f++)
		json_array_append_new(list, json_pack("{s:s, s:s, s:b, s:s, s:o}", "name", f->name,
						      "in", "query", "required", 0, "description",
						      f->text, "schema", type_of(f)));
	return list;
}

static json_t *success_of(const struct method *m)
{
	switch (m->answer) {
	case ANSWER_NOTHING:
		return json_pack("{s:{s:s}}", "204", "description", "done");
	case ANSWER_LATER:
		return json_pack("{s:{s:s}}", "202", "description",
				 "it has begun; an event says how it ended");
	case ANSWER_STATE:
		return json_pack("{s:{s:s, s:{s:{s:{s:s}}}}}", "200", "description",
				 "done; the state of the machine then", "content",
				 "application/json", "schema", "$ref",
				 "#/components/schemas/State");
	case ANSWER_OBJECT:
		return json_pack("{s:{s:s, s:{s:{s:{s:s}}}}}", "200", "description", "the document",
				 "content", "application/json", "schema", "type", "object");
	case ANSWER_EVENTS:
		return json_pack("{s:{s:s, s:{s:{s:{s:s}}}}}", "200", "description",
				 "a line for each event, until the reader or the machine ends; "
				 "numbers that are missing are events that the reader was too "
				 "slow for",
				 "content", "application/x-ndjson", "schema", "$ref",
				 "#/components/schemas/Event");
	case ANSWER_TEXT:
	case ANSWER_METRICS:
		break;
	}
	return json_pack("{s:{s:s, s:{s:{s:{s:s}}}}}", "200", "description", "text", "content",
			 "text/plain", "schema", "type", "string");
}

static json_t *operation_of(const struct method *m)
{
	json_t *responses = success_of(m), *parameters = parameters_of(m);
	json_t *operation = json_pack("{s:s, s:s}", "operationId", m->name, "summary", m->text);

	json_object_set_new(responses, "default",
			    json_pack("{s:s}", "$ref", "#/components/responses/Error"));
	if (json_array_size(parameters))
		json_object_set(operation, "parameters", parameters);
	json_decref(parameters);
	if (m->body)
		json_object_set_new(operation, "requestBody", body_of(m->body));
	json_object_set_new(operation, "responses", responses);
	return operation;
}

static json_t *text_schema(const char *description)
{
	return json_pack("{s:s, s:s}", "type", "string", "description", description);
}

static json_t *components(void)
{
	json_t *state = json_pack("{s:s, s:[s], s:{s:{s:s, s:[s, s, s, s]}}}", "type", "object",
				  "required", "state", "properties", "state", "type", "string",
				  "enum", "created", "running", "paused", "stopped");
	json_t *event = json_pack(
		"{s:s, s:[s, s], s:{s:{s:s, s:s}, s:{s:s, s:s}, s:o, s:o, s:o, s:{s:s, s:s}, s:o, "
		"s:{s:s, s:s}, s:o}}",
		"type", "object", "required", "seq", "event", "properties", "seq", "type",
		"integer", "description", "one more than that of the event before", "time_ns",
		"type", "integer", "description", "since 1970", "event",
		text_schema("state, outcome, reset, device_error, device_requested, device_gone, "
			    "device_reset, device_released, dma_fault, device_added, "
			    "device_removed, device_kept, strategy; first of all: stream"),
		"state", text_schema("of stream and state: the machine's state"), "outcome",
		text_schema("of outcome: why it ends"), "index", "type", "integer", "description",
		"of a passed-through device's events: its place in the document's list", "device",
		text_schema("of device_added, _removed, _kept: its id"), "forced", "type",
		"boolean", "description", "of device_removed: the guest had not given it up",
		"text", text_schema("a line for people"));
	json_t *error = json_pack("{s:s, s:[s, s, s], s:{s:o, s:o, s:o}}", "type", "object",
				  "required", "code", "text", "remedy", "properties", "code",
				  text_schema("a word for programs"), "text",
				  text_schema("what is wrong, in one line"), "remedy",
				  text_schema("what can be done"));

	return json_pack("{s:{s:o, s:o, s:o}, s:{s:{s:s, s:{s:{s:{s:s}}}}}}", "schemas", "State",
			 state, "Event", event, "Error", error, "responses", "Error", "description",
			 "it failed, and nothing has changed unless the text says so", "content",
			 "application/json", "schema", "$ref", "#/components/schemas/Error");
}

char *schema_text(void)
{
	json_t *paths = json_object(), *document;
	char *text = NULL;

	for (const struct method *m = methods; m->verb; m++) {
		json_t *path = json_object_get(paths, m->path);
		char verb[8] = "";

		for (size_t i = 0; i < sizeof(verb) - 1 && m->verb[i]; i++)
			verb[i] = (char)(m->verb[i] | 0x20);
		if (!path) {
			path = json_object();
			json_object_set_new(paths, m->path, path);
		}
		json_object_set_new(path, verb, operation_of(m));
	}
	document = json_pack(
		"{s:s, s:{s:s, s:s, s:s}, s:[{s:s}], s:o, s:o}", "openapi", "3.0.3", "info",
		"title", "hospes: control of a virtual machine", "version", "1", "description",
		"HTTP/1.1 on a UNIX socket of one machine. docs/control.md is the "
		"introduction.",
		"servers", "url", "http://localhost", "paths", paths, "components", components());
	if (document)
		text = json_dumps(document, JSON_INDENT(2));
	json_decref(document);
	return text;
}
