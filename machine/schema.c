// SPDX-License-Identifier: Apache-2.0
// Reading, writing and freeing of table-described JSON objects. The kinds of values are in
// values.c.
#include "machine/schema.h"

#include <errno.h>
#include <fcntl.h>
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

/* The choice that the object makes, to which its other keys belong; NULL: none. */
static const struct schema_field *find_choice(const struct schema *schema, const json_t *json)
{
	for (const struct schema_field *f = schema->fields; f->key; f++) {
		if (f->kind == SCHEMA_CHOICE && json_object_get(json, f->key))
			return f;
	}
	return NULL;
}

static void set_defaults(const struct schema *schema, void *data)
{
	if (schema->defaults)
		memcpy(data, schema->defaults, schema->bytes);
	else
		memset(data, 0, schema->bytes);
	for (const struct schema_field *f = schema->fields; f->key; f++) {
		void *at = (char *)data + f->offset;

		if (f->kind == SCHEMA_OBJECT)
			set_defaults(f->sub, at);
		else if (f->kind == SCHEMA_LIST || f->kind == SCHEMA_ITEM)
			list_init(at);
	}
}

int schema_item_read(const struct schema *schema, const json_t *json, const char *path,
		     struct schema_item **ret, struct err *err)
{
	struct schema_item *item = calloc(1, schema->bytes);
	int rc;

	if (!item)
		return err_set(err, -ENOMEM, "%s: no memory", path);
	rc = schema_read(schema, json, path, item, err);
	if (rc) {
		free(item);
		return rc;
	}
	list_init(&item->link);
	item->schema = schema;
	*ret = item;
	return 0;
}

void schema_item_free(struct schema_item *item)
{
	list_remove(&item->link);
	schema_free(item->schema, item);
	free(item);
}

static int read_item(const struct schema *schema, const json_t *value, const char *path,
		     struct list *list, struct err *err)
{
	struct schema_item *item;
	int rc = schema_item_read(schema, value, path, &item, err);

	if (!rc)
		list_append(list, &item->link);
	return rc;
}

static int read_list(const struct schema_field *f, const json_t *value, const char *path,
		     struct list *list, struct err *err)
{
	size_t n = json_array_size(value);
	char item_path[PATH_BYTES];
	int rc = 0;

	if (!json_is_array(value))
		return err_set(err, -EINVAL, "%s: must be a list of objects", path);
	if (n > f->max)
		return err_set(err, -EINVAL, "%s: %zu items, at most %llu are possible", path, n,
			       (unsigned long long)f->max);
	for (size_t i = 0; i < n && rc == 0; i++) {
		snprintf(item_path, sizeof(item_path), "%s[%zu]", path, i);
		rc = read_item(f->sub, json_array_get(value, i), item_path, list, err);
	}
	return rc;
}

static int absent(const struct schema_field *f, const char *path, void *at, struct err *err)
{
	json_t *nothing;
	int rc;

	if (f->kind != SCHEMA_ITEM)
		return 0;
	nothing = json_object();
	rc = read_item(f->sub, nothing, path, at, err);
	json_decref(nothing);
	return rc;
}

static int read_field(const struct schema_field *f, const json_t *value, const char *path, void *at,
		      struct err *err)
{
	switch (f->kind) {
	case SCHEMA_OBJECT:
		return schema_read(f->sub, value, path, at, err);
	case SCHEMA_LIST:
		return read_list(f, value, path, at, err);
	case SCHEMA_ITEM:
		return read_item(f->sub, value, path, at, err);
	default:
		return value_read(f, value, path, at, err);
	}
}

int schema_read(const struct schema *schema, const json_t *json, const char *path, void *ret,
		struct err *err)
{
	const struct schema_field *choice = find_choice(schema, json);
	const char *key;
	json_t *value;
	int rc = 0;

	set_defaults(schema, ret);
	if (!json_is_object(json))
		return err_set(err, -EINVAL, "%s: must be an object", *path ? path : "document");

	json_object_foreach((json_t *)json, key, value)
	{
		if (!choice && !find(schema, key))
			return unknown_key(schema, path, key, err);
	}
	for (const struct schema_field *f = schema->fields; f->key && !rc; f++) {
		void *at = (char *)ret + f->offset;
		char field_path[PATH_BYTES];

		value = json_object_get(json, f->key);
		snprintf(field_path, sizeof(field_path), "%s%s%s", path, *path ? "." : "", f->key);
		rc = value ? read_field(f, value, field_path, at, err)
			   : absent(f, field_path, at, err);
	}
	json_object_foreach((json_t *)json, key, value)
	{
		if (!rc && !find(schema, key))
			rc = value_add_key((char **)(void *)((char *)ret + choice->offset), key,
					   value, path, err);
	}
	if (rc)
		schema_free(schema, ret);
	return rc;
}

/* Those of the list that are this field's. */
static json_t *write_list(const struct schema_field *f, const struct list *from, bool fds)
{
	json_t *list = json_array();

	list_for_each (i, (struct list *)from) {
		const struct schema_item *item = container_of(i, struct schema_item, link);

		if (item->schema == f->sub && list &&
		    json_array_append_new(list, schema_write(f->sub, item, fds)) != 0) {
			json_decref(list);
			list = NULL;
		}
	}
	return list;
}

static json_t *write_item(const struct schema_field *f, const struct list *from, bool fds)
{
	json_t *list = write_list(f, from, fds);
	json_t *item = json_incref(json_array_get(list, 0));

	json_decref(list);
	return item;
}

json_t *schema_write(const struct schema *schema, const void *from, bool fds)
{
	json_t *object = json_object();

	for (const struct schema_field *f = schema->fields; object && f->key; f++) {
		const void *at = (const char *)from + f->offset;
		json_t *value;

		if (f->kind == SCHEMA_OBJECT)
			value = schema_write(f->sub, at, fds);
		else if (f->kind == SCHEMA_LIST)
			value = write_list(f, at, fds);
		else if (f->kind == SCHEMA_ITEM)
			value = write_item(f, at, fds);
		else if (value_absent(f, at) || (f->kind == SCHEMA_FD && !fds))
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

/* As write_list: those that are this field's. */
static int check_list(const struct schema_field *f, const struct list *list, const char *path,
		      struct err *err)
{
	char item_path[PATH_BYTES];
	unsigned int n = 0;
	int rc = 0;

	list_for_each (i, (struct list *)list) {
		const struct schema_item *item = container_of(i, struct schema_item, link);

		if (rc || item->schema != f->sub)
			continue;
		snprintf(item_path, sizeof(item_path), "%s[%u]", path, n++);
		rc = schema_check_fds(f->sub, item, item_path, err);
	}
	return rc;
}

int schema_check_fds(const struct schema *schema, const void *data, const char *path,
		     struct err *err)
{
	int rc = 0;

	for (const struct schema_field *f = schema->fields; f->key && !rc; f++) {
		const void *at = (const char *)data + f->offset;
		char field_path[PATH_BYTES];
		int fd;

		snprintf(field_path, sizeof(field_path), "%s%s%s", path, *path ? "." : "", f->key);
		if (f->kind == SCHEMA_OBJECT) {
			rc = schema_check_fds(f->sub, at, field_path, err);
		} else if (f->kind == SCHEMA_LIST || f->kind == SCHEMA_ITEM) {
			rc = check_list(f, at, field_path, err);
		} else if (f->kind == SCHEMA_FD) {
			fd = *(const int *)at;
			if (fd >= 0 && fcntl(fd, F_GETFD) < 0)
				rc = err_set(err, -EBADF,
					     "%s: fd %d is not open; hand it to this process, open",
					     field_path, fd);
		}
	}
	return rc;
}

static void free_list(struct list *list)
{
	list_for_each_safe (item, list)
		schema_item_free(container_of(item, struct schema_item, link));
}

void schema_free(const struct schema *schema, void *data)
{
	for (const struct schema_field *f = schema->fields; f->key; f++) {
		void *at = (char *)data + f->offset;

		if (f->kind == SCHEMA_STRING || f->kind == SCHEMA_CHOICE) {
			free(*(char **)at);
			*(char **)at = NULL;
		} else if (f->kind == SCHEMA_OBJECT) {
			schema_free(f->sub, at);
		} else if (f->kind == SCHEMA_LIST || f->kind == SCHEMA_ITEM) {
			free_list(at);
		}
	}
}
