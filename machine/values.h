/* SPDX-License-Identifier: Apache-2.0 */
/* Single values of a document, by kind: the leaves under schema.c. */
#ifndef MACHINE_VALUES_H
#define MACHINE_VALUES_H

#include "machine/schema.h"

/* path names the value in messages. */
int value_read(const struct schema_field *f, const json_t *value, const char *path, void *at,
	       struct err *err);
/* ",key=value" is put behind a SCHEMA_CHOICE that was read. */
int value_add_key(char **at, const char *key, const json_t *value, const char *path,
		  struct err *err);
/* Not to be written: an absent string, address, fd, list. */
bool value_absent(const struct schema_field *f, const void *at);
/* A new reference, or NULL when there is no memory. */
json_t *value_write(const struct schema_field *f, const void *at);

#endif
