/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the command line to the configuration document. A flag sets a key or appends to a list;
 * "key=value,key=value" becomes an object, whose values the library understands as text ("on",
 * "256M", "4"). A comma inside a value is written twice.
 */
#ifndef CLI_DOCUMENT_H
#define CLI_DOCUMENT_H

#include <jansson.h>

#include "options.h"

/* The machine's options, and those of its devices. They fill a json_t *, which is made when it is
 * NULL; the caller's. */
extern const struct option document_options[], device_options[];

/* Read the file into *ret, which must be NULL still. CLI_OK, or another enum cli_status with the
 * message printed. */
int document_load(json_t **ret, const char *path);

/* A credential without a file is the one of its name that the service manager has put into
 * $CREDENTIALS_DIRECTORY. */
void document_find_credentials(json_t *document);

#endif
