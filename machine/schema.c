// SPDX-License-Identifier: Apache-2.0
// Reading, writing and freeing of table-described JSON objects. The kinds of values are in values.c.
#include "machine/schema.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "machine/values.h"

enum { PATH_BYTES = 128 };

/* Edit distance, for keys of at most 32 characters. */
static unsigned int distance(const char *a, const char *b)
{
	unsigned int row[33];
	size_t la = strnlen(a, 32);
	size_t lb = strnlen(b, 32);

	for (size_t j = 0; j <= lb; j++)
		row[j] = (unsigned int)j;
	for (size_t i = 1; i <= la; i++) {
		unsigned int diagonal = row[0];

		row[0] = (unsigned int)i;
		for (size_t j = 1; j <= lb; j++) {
			unsigned int above = row[j];
			unsigned int best = diagonal + (a[i - 1] != b[j - 1]);

			best = MIN(best, above + 1);
			best = MIN(best, row[j - 1] + 1);
			diagonal = above;
			row[j] = best;
		}
	}
	return row[lb];
}

static int unknown_key(const struct schema *schema, const char *path, const char *key,
		       struct err *err)
{
	const struct schema_field *nearest = NULL;
	unsigned int best = 4; /* further away is not a spelling mistake */
	char known[400] = "";

	for (const struct schema_field *f = schema->fields; f->key; f++) {
		unsigned int d = distance(key, f->key);
		size_t used = strlen(known);

		if (d < best && d < strlen(f->key)) {
			best = d;
			nearest = f;
		}
		snprintf(known + used, sizeof(known) - used, "%s%s", used ? ", " : "", f->key);
	}
	if (nearest)
		return err_set(err, -EINVAL, "%s%sunknown key '%s'; did you mean '%s'?", path,
			       *path ? ": " : "", key, nearest->key);
	return err_set(err, -EINVAL, "%s%sunknown key '%s'; a %s has: %s", path, *path ? ": " : "",
		       key, schema->what, known);
}

static const struct schema_field *find(const struct schema *schema, const char *key)
{
	for (const struct schema_field *f = schema->fields; f->key; f++) {
		if (strcmp(f->key, key) == 0)
			return f;
	}
	return NULL;
}

static int read_array(const struct schema_field *f, const json_t *value, const char *path, void *at,
		      struct err *err)
{
	struct schema_array *array = at;
	size_t n = json_array_size(value);
	char item_path[PATH_BYTES];
	int rc = 0;

	if (!json_is_array(value))
		return err_set(err, -EINVAL, "%s: must be a list of objects", path);
	if (n > f->max)
		return err_set(err, -EINVAL, "%s: %zu items, at most %llu are possible", path, n,
			       (unsigned long long)f->max);
	if (n == 0)
		return 0;
	array->items = calloc(n, f->sub->bytes);
	if (!array->items)
		return err_set(err, -ENOMEM, "%s: no memory for %zu items", path, n);
	for (size_t i = 0; i < n && rc == 0; i++) {
		snprintf(item_path, sizeof(item_path), "%s[%zu]", path, i);
		rc = schema_read(f->sub, json_array_get(value, i), item_path,
				 (char *)array->items + i * f->sub->bytes, err);
		if (rc == 0)
			array->n++;
	}
	return rc;
}

static int read_field(const struct schema_field *f, const json_t *value, const char *path, void *at,
		      struct err *err)
{
	switch (f->kind) {
	case SCHEMA_OBJECT:
		return schema_read(f->sub, value, path, at, err);
	case SCHEMA_ARRAY:
		return read_array(f, value, path, at, err);
	default:
		return value_read(f, value, path, at, err);
	}
}

int schema_read(const struct schema *schema, const json_t *json, const char *path, void *ret,
		struct err *err)
{
	const char *key;
	json_t *value;
	int rc = 0;

	if (schema->defaults)
		memcpy(ret, schema->defaults, schema->bytes);
	else
		memset(ret, 0, schema->bytes);
	if (!json_is_object(json))
		return err_set(err, -EINVAL, "%s: must be an object", *path ? path : "document");

	json_object_foreach((json_t *)json, key, value)
	{
		const struct schema_field *f = find(schema, key);
		char field_path[PATH_BYTES];

		if (!f) {
			rc = unknown_key(schema, path, key, err);
			break;
		}
		snprintf(field_path, sizeof(field_path), "%s%s%s", path, *path ? "." : "", key);
		rc = read_field(f, value, field_path, (char *)ret + f->offset, err);
		if (rc)
			break;
	}
	if (rc)
		schema_free(schema, ret);
	return rc;
}

static json_t *write_array(const struct schema_field *f, const void *at)
{
	const struct schema_array *array = at;
	json_t *list = json_array();

	for (unsigned int i = 0; list && i < array->n; i++) {
		const char *item = (const char *)array->items + i * f->sub->bytes;

		if (json_array_append_new(list, schema_write(f->sub, item)) != 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

json_t *schema_write(const struct schema *schema, const void *from)
{
	json_t *object = json_object();

	for (const struct schema_field *f = schema->fields; object && f->key; f++) {
		const void *at = (const char *)from + f->offset;
		json_t *value;

		if (f->kind == SCHEMA_OBJECT)
			value = schema_write(f->sub, at);
		else if (f->kind == SCHEMA_ARRAY)
			value = write_array(f, at);
		else if (value_absent(f, at))
			continue;
		else
			value = value_write(f, at);
		if (json_object_set_new(object, f->key, value) != 0) {
			json_decref(object);
			return NULL;
		}
	}
	return object;
}

void schema_free(const struct schema *schema, void *data)
{
	for (const struct schema_field *f = schema->fields; f->key; f++) {
		void *at = (char *)data + f->offset;

		if (f->kind == SCHEMA_STRING) {
			free(*(char **)at);
			*(char **)at = NULL;
		} else if (f->kind == SCHEMA_OBJECT) {
			schema_free(f->sub, at);
		} else if (f->kind == SCHEMA_ARRAY) {
			struct schema_array *array = at;

			for (unsigned int i = 0; i < array->n; i++)
				schema_free(f->sub, (char *)array->items + i * f->sub->bytes);
			free(array->items);
			array->items = NULL;
			array->n = 0;
		}
	}
}
