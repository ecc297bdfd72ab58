// SPDX-License-Identifier: Apache-2.0
// docs/openapi.json is what the dispatcher's table says.
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "control/method.h"

static json_t *schema(void)
{
	char *text = schema_text();
	json_t *document;

	cr_assert_not_null(text);
	document = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	cr_assert_not_null(document);
	free(text);
	return document;
}

Test(schema, the_file_in_docs_is_that_of_the_table)
{
	json_t *made = schema(), *kept = json_load_file(OPENAPI, JSON_REJECT_DUPLICATES, NULL);
	bool equal = json_equal(made, kept);

	if (!equal)
		json_dump_file(made, "openapi.json", JSON_INDENT(2));
	cr_assert(equal,
		  "the methods have changed: cp openapi.json (of the build directory) docs/");
	json_decref(made);
	json_decref(kept);
}

Test(schema, every_method_is_there_with_its_fields)
{
	json_t *made = schema();

	for (const struct method *m = methods; m->verb; m++) {
		const char *verb = strcmp(m->verb, "GET") == 0      ? "get"
				   : strcmp(m->verb, "DELETE") == 0 ? "delete"
				   : strcmp(m->verb, "PUT") == 0    ? "put"
								    : "post";
		json_t *paths = json_object_get(made, "paths");
		json_t *operation = json_object_get(json_object_get(paths, m->path), verb);
		json_t *body = json_object_get(operation, "requestBody");

		cr_expect_str_eq(json_string_value(json_object_get(operation, "operationId")),
				 m->name);
		cr_expect_eq(body != NULL, m->body != NULL, "%s", m->path);
		cr_expect_not_null(json_object_get(operation, "responses"), "%s", m->path);
	}
	json_decref(made);
}

static void resolve(const json_t *root, const json_t *value)
{
	const char *key, *ref;
	const json_t *item;
	size_t i;

	json_array_foreach(value, i, item) resolve(root, item);
	json_object_foreach((json_t *)value, key, item)
	{
		resolve(root, item);
		ref = strcmp(key, "$ref") == 0 ? json_string_value(item) : NULL;
		if (ref) {
			char path[128];
			const json_t *at = root;

			cr_assert(strncmp(ref, "#/", 2) == 0, "%s", ref);
			snprintf(path, sizeof(path), "%s", ref + 2);
			for (char *word = strtok(path, "/"); word; word = strtok(NULL, "/"))
				at = json_object_get(at, word);
			cr_expect_not_null(at, "%s", ref);
		}
	}
}

/* The specification's validator, which is not everywhere, says so. */
static void refuse_empty_lists(const json_t *value)
{
	const char *key;
	json_t *item;
	size_t i;

	if (json_is_array(value))
		cr_expect_gt(json_array_size(value), 0);
	json_array_foreach(value, i, item) refuse_empty_lists(item);
	json_object_foreach((json_t *)value, key, item) refuse_empty_lists(item);
}

Test(schema, no_list_is_empty)
{
	json_t *made = schema();

	refuse_empty_lists(made);
	json_decref(made);
}

Test(schema, every_reference_is_resolved)
{
	json_t *made = schema();

	cr_assert_str_eq(json_string_value(json_object_get(made, "openapi")), "3.0.3");
	cr_assert_not_null(json_object_get(made, "components"));
	resolve(made, made);
	json_decref(made);
}
