// SPDX-License-Identifier: Apache-2.0
// Single values of a document: checks with messages that show the form that is expected.
#include "machine/values.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "base/units.h"

static int read_string(const json_t *value, const char *path, char **at, struct err *err)
{
	if (!json_is_string(value))
		return err_set(err, -EINVAL, "%s: must be text in quotes", path);
	if (strlen(json_string_value(value)) != json_string_length(value))
		return err_set(err, -EINVAL, "%s: holds a zero character", path);
	*at = strdup(json_string_value(value));
	return *at ? 0 : err_set(err, -ENOMEM, "%s: no memory", path);
}

int value_add_key(char **at, const char *key, const json_t *value, const char *path,
		  struct err *err)
{
	const char *text = json_string_value(value);
	char number[24], *all;

	if (json_is_integer(value)) {
		snprintf(number, sizeof(number), "%" JSON_INTEGER_FORMAT,
			 json_integer_value(value));
		text = number;
	}
	if (!text || strchr(text, ',') || strpbrk(key, ",="))
		return err_set(err, -EINVAL, "%s: '%s' must be one number or word", path, key);
	if (asprintf(&all, "%s,%s=%s", *at, key, text) < 0)
		return err_set(err, -ENOMEM, "%s: no memory", path);
	free(*at);
	*at = all;
	return 0;
}

static int read_choice(const json_t *value, const char *path, char **at, struct err *err)
{
	const json_t *name = json_object_get(value, "name");
	const char *key;
	json_t *item;
	int rc;

	if (json_is_object(value) && !name)
		return err_set(err, -EINVAL, "%s: lacks its \"name\"", path);
	rc = read_string(name ? name : value, path, at, err);
	if (!rc && name && strchr(*at, ','))
		rc = err_set(err, -EINVAL, "%s: '%s' is not one name", path, *at);
	json_object_foreach((json_t *)value, key, item)
	{
		if (!rc && item != name)
			rc = value_add_key(at, key, item, path, err);
	}
	return rc;
}

static int read_bool(const json_t *value, const char *path, bool *at, struct err *err)
{
	const char *text = json_string_value(value);

	if (json_is_boolean(value))
		*at = json_is_true(value);
	else if (text && strcmp(text, "on") == 0)
		*at = true;
	else if (text && strcmp(text, "off") == 0)
		*at = false;
	else
		return err_set(err, -EINVAL, "%s: must be true or false (on or off)", path);
	return 0;
}

static int read_integer(const struct schema_field *f, const json_t *value, const char *path,
			int64_t *ret, struct err *err)
{
	const char *text = json_string_value(value);
	int64_t low = f->kind == SCHEMA_INT || f->kind == SCHEMA_FD ? -1 : (int64_t)f->min;
	char *end;

	if (json_is_integer(value)) {
		*ret = json_integer_value(value);
	} else if (text && *text) {
		errno = 0;
		*ret = strtoll(text, &end, 10);
		if (*end || errno)
			return err_set(err, -EINVAL, "%s: '%s' is not a whole number", path, text);
	} else {
		return err_set(err, -EINVAL, "%s: must be a whole number", path);
	}
	if (*ret < low || *ret > (int64_t)f->max)
		return err_set(err, -ERANGE,
			       "%s: %" PRId64 " is not within %" PRId64 " to %" PRIu64, path, *ret,
			       low, f->max);
	return 0;
}

static int read_size(const struct schema_field *f, const json_t *value, const char *path,
		     uint64_t *at, struct err *err)
{
	const char *text = json_string_value(value);
	int rc = 0;

	if (json_is_integer(value) && json_integer_value(value) >= 0)
		*at = (uint64_t)json_integer_value(value);
	else if (text)
		rc = units_parse_bytes(text, at);
	else
		rc = -EINVAL;
	if (rc == -EINVAL)
		return err_set(err, rc, "%s: %s%s%sis not a size; write bytes, or \"256M\", \"6G\"",
			       path, text ? "'" : "", text ? text : "", text ? "' " : "");
	if (rc || *at < f->min || *at > f->max)
		return err_set(err, -ERANGE,
			       "%s: %s is not within %" PRIu64 " and %" PRIu64 " bytes", path,
			       text ? text : "the size", f->min, f->max);
	return 0;
}

static int read_enum(const struct schema_field *f, const json_t *value, const char *path, int *at,
		     struct err *err)
{
	const char *text = json_string_value(value);
	char all[160] = "";

	if (json_is_boolean(value))
		text = json_is_true(value) ? "on" : "off";
	for (int i = 0; f->names[i]; i++) {
		size_t used = strlen(all);

		if (text && strcmp(text, f->names[i]) == 0) {
			*at = i;
			return 0;
		}
		snprintf(all + used, sizeof(all) - used, "%s%s", used ? ", " : "", f->names[i]);
	}
	return err_set(err, -EINVAL, "%s: '%s' is not one of: %s", path, text ? text : "?", all);
}

static int read_pci(const json_t *value, const char *path, struct schema_pci *at, struct err *err)
{
	int rc;

	if (!json_is_string(value))
		return err_set(err, -EINVAL, "%s: must be a PCI address like \"04.0\"", path);
	rc = pci_addr_parse(&at->addr, json_string_value(value), err);
	if (rc)
		return err_prefix(err, "%s", path);
	at->set = true;
	return 0;
}

static unsigned int hex_digit(char c)
{
	int lower = tolower((unsigned char)c);

	return (unsigned int)(lower <= '9' ? lower - '0' : lower - 'a' + 10);
}

static int read_mac(const json_t *value, const char *path, struct schema_mac *at, struct err *err)
{
	const char *text = json_string_value(value);
	bool good = text && strlen(text) == 17;
	unsigned int b[6] = {0};

	for (int i = 0; good && i < 17; i++) {
		if (i % 3 == 2)
			good = text[i] == ':';
		else if (isxdigit((unsigned char)text[i]))
			b[i / 3] = b[i / 3] << 4 | hex_digit(text[i]);
		else
			good = false;
	}
	if (!good)
		return err_set(err, -EINVAL,
			       "%s: '%s' is not a MAC address like \"52:54:00:12:34:56\"", path,
			       text ? text : "?");
	if (b[0] & 1)
		return err_set(err, -EINVAL,
			       "%s: '%s' is a multicast address; the first byte of a "
			       "station's is even",
			       path, text);
	for (int i = 0; i < 6; i++)
		at->byte[i] = (uint8_t)b[i];
	at->set = true;
	return 0;
}

static int read_uuid(const json_t *value, const char *path, struct schema_uuid *at, struct err *err)
{
	static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
	const char *text = json_string_value(value);
	unsigned int n = 0;
	bool good = text && strlen(text) == sizeof(form) - 1;

	for (size_t i = 0; good && form[i]; i++) {
		if (form[i] == '-') {
			good = text[i] == '-';
			continue;
		}
		good = isxdigit((unsigned char)text[i]);
		if (good) {
			unsigned int digit = hex_digit(text[i]);

			at->byte[n / 2] = (uint8_t)((unsigned int)at->byte[n / 2] << 4 | digit);
			n++;
		}
	}
	if (!good)
		return err_set(err, -EINVAL,
			       "%s: '%s' is not a UUID like "
			       "\"6ba7b810-9dad-11d1-80b4-00c04fd430c8\"",
			       path, text ? text : "?");
	at->set = true;
	return 0;
}

static int add_cpus(struct schema_cpus *at, uint64_t first, uint64_t last)
{
	for (uint64_t cpu = first; cpu <= last; cpu++) {
		if (cpu > UINT16_MAX || at->n == SCHEMA_MAX_CPUS)
			return -ERANGE;
		at->cpu[at->n++] = (uint16_t)cpu;
	}
	return first <= last ? 0 : -EINVAL;
}

static int parse_cpus(const char *text, struct schema_cpus *at)
{
	int rc = *text ? 0 : -EINVAL;

	while (*text && rc == 0) {
		uint64_t first;
		uint64_t last;
		char *end;

		if (!isdigit((unsigned char)*text))
			return -EINVAL;
		first = strtoull(text, &end, 10);
		last = first;
		if (*end == '-' && isdigit((unsigned char)end[1]))
			last = strtoull(end + 1, &end, 10);
		rc = add_cpus(at, first, last);
		if (*end == '+' || *end == ',')
			end++;
		else if (*end)
			return -EINVAL;
		text = end;
	}
	return rc;
}

static int read_cpus(const json_t *value, const char *path, struct schema_cpus *at, struct err *err)
{
	int rc = 0;
	size_t i;
	json_t *item;

	at->n = 0;
	if (json_is_string(value)) {
		rc = parse_cpus(json_string_value(value), at);
	} else if (json_is_integer(value) && json_integer_value(value) >= 0) {
		rc = add_cpus(at, (uint64_t)json_integer_value(value),
			      (uint64_t)json_integer_value(value));
	} else if (json_is_array(value)) {
		json_array_foreach(value, i, item)
		{
			if (rc == 0)
				rc = json_is_integer(item) && json_integer_value(item) >= 0
					     ? add_cpus(at, (uint64_t)json_integer_value(item),
							(uint64_t)json_integer_value(item))
					     : -EINVAL;
		}
	} else {
		rc = -EINVAL;
	}
	if (rc)
		return err_set(err, rc, "%s: must be host CPUs like \"0-3\" or [0, 2], at most %d",
			       path, SCHEMA_MAX_CPUS);
	return 0;
}

int value_read(const struct schema_field *f, const json_t *value, const char *path, void *at,
	       struct err *err)
{
	int64_t number;
	int rc;

	switch (f->kind) {
	case SCHEMA_STRING:
		return read_string(value, path, at, err);
	case SCHEMA_BOOL:
		return read_bool(value, path, at, err);
	case SCHEMA_UINT:
		rc = read_integer(f, value, path, &number, err);
		if (rc == 0)
			*(uint32_t *)at = (uint32_t)number;
		return rc;
	case SCHEMA_INT:
	case SCHEMA_FD:
		rc = read_integer(f, value, path, &number, err);
		if (rc == 0)
			*(int *)at = (int)number;
		return rc;
	case SCHEMA_SIZE:
		return read_size(f, value, path, at, err);
	case SCHEMA_ENUM:
		return read_enum(f, value, path, at, err);
	case SCHEMA_PCI:
		return read_pci(value, path, at, err);
	case SCHEMA_MAC:
		return read_mac(value, path, at, err);
	case SCHEMA_UUID:
		return read_uuid(value, path, at, err);
	case SCHEMA_CPUS:
		return read_cpus(value, path, at, err);
	case SCHEMA_CHOICE:
		return read_choice(value, path, at, err);
	case SCHEMA_OBJECT:
	case SCHEMA_LIST:
	case SCHEMA_ITEM:
		break;
	}
	assert(false);
	return -EINVAL;
}

bool value_absent(const struct schema_field *f, const void *at)
{
	switch (f->kind) {
	case SCHEMA_STRING:
	case SCHEMA_CHOICE:
		return !*(char *const *)at;
	case SCHEMA_INT:
	case SCHEMA_FD:
		return *(const int *)at < 0;
	case SCHEMA_PCI:
		return !((const struct schema_pci *)at)->set;
	case SCHEMA_MAC:
		return !((const struct schema_mac *)at)->set;
	case SCHEMA_UUID:
		return !((const struct schema_uuid *)at)->set;
	case SCHEMA_CPUS:
		return !((const struct schema_cpus *)at)->n;
	default:
		return false;
	}
}

static json_t *write_size(uint64_t bytes)
{
	char text[UNITS_TEXT];

	units_bytes_text(bytes, text);
	return isdigit((unsigned char)text[strlen(text) - 1]) ? json_integer((json_int_t)bytes)
							      : json_string(text);
}

static json_t *write_uuid(const struct schema_uuid *uuid)
{
	const uint8_t *b = uuid->byte;

	return json_sprintf("%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
			    b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10],
			    b[11], b[12], b[13], b[14], b[15]);
}

json_t *value_write(const struct schema_field *f, const void *at)
{
	char text[PCI_ADDR_TEXT];
	const struct schema_cpus *cpus;
	const uint8_t *b;
	json_t *list;

	switch (f->kind) {
	case SCHEMA_STRING:
	case SCHEMA_CHOICE:
		return json_string(*(char *const *)at);
	case SCHEMA_BOOL:
		return json_boolean(*(const bool *)at);
	case SCHEMA_UINT:
		return json_integer(*(const uint32_t *)at);
	case SCHEMA_INT:
	case SCHEMA_FD:
		return json_integer(*(const int *)at);
	case SCHEMA_SIZE:
		return write_size(*(const uint64_t *)at);
	case SCHEMA_ENUM:
		return json_string(f->names[*(const int *)at]);
	case SCHEMA_PCI:
		return json_string(pci_addr_format(&((const struct schema_pci *)at)->addr, text));
	case SCHEMA_MAC:
		b = ((const struct schema_mac *)at)->byte;
		return json_sprintf("%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4],
				    b[5]);
	case SCHEMA_UUID:
		return write_uuid(at);
	case SCHEMA_CPUS:
		cpus = at;
		list = json_array();
		for (unsigned int i = 0; i < cpus->n; i++)
			json_array_append_new(list, json_integer(cpus->cpu[i]));
		return list;
	case SCHEMA_OBJECT:
	case SCHEMA_LIST:
	case SCHEMA_ITEM:
		break;
	}
	return NULL;
}
