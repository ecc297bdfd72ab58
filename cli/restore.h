/* SPDX-License-Identifier: Apache-2.0 */
/* hospes run --restore DIR: the snapshot's document, changed by what the command line says. */
#ifndef CLI_RESTORE_H
#define CLI_RESTORE_H

#include <jansson.h>
#include <stdbool.h>

/* If the document has a `restore` with a path: put the snapshot's document beneath it. Objects are
 * merged; the items of a list belong to those of the snapshot's by their id, or, without one, by
 * their place. verify: check the checksums first. enum cli_status; messages are printed. */
int restore_document(json_t **document, bool verify);

/* That merge alone; whose: in messages, "snapshot". */
int restore_merge(json_t *base, json_t *over, const char *whose);

#endif
