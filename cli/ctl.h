/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of `hospes ctl`. Messages of failures are printed. */
#ifndef CLI_CTL_H
#define CLI_CTL_H

#include <jansson.h>
#include <stdio.h>

#include "ask.h"

/* Ask the machine that `what` names; to and reply as for ask. CLI_OK, or another enum cli_status;
 * free reply->body. */
int ctl_ask(const char *what, const struct question *question, FILE *to, struct reply *reply);

/* Open these devices, lists of them as a document has, and hand them over, one after another; the
 * first that fails ends it. NULL: there are none. Their ids go to standard output. */
int ctl_add(const char *what, const json_t *devices);

/* The machine writes its memory into this file, which must not exist; until it is done. */
int ctl_dump(const char *what, const char *path);

#endif
