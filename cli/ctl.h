/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of `hospes ctl`. Messages of failures are printed. */
#ifndef CLI_CTL_H
#define CLI_CTL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "ask.h"

enum { CTL_TARGET_BYTES = 512 };

/* /v1/KIND/ID/WHAT, n bytes of id as a segment of a path. False: it is too long. */
bool ctl_target(char target[CTL_TARGET_BYTES], const char *kind, const char *id, size_t n,
		const char *what);

/* Ask the machine that `what` names; to and reply as for ask. CLI_OK, or another enum cli_status;
 * free reply->body. */
int ctl_ask(const char *what, const struct question *question, FILE *to, struct reply *reply);

/* Open these devices, lists of them as a document has, and hand them over, one after another; the
 * first that fails ends it. NULL: there are none. Their ids go to standard output. */
int ctl_add(const char *what, const json_t *devices);

/* An event that tells how something ended; `subject` is what it is about, in messages. */
struct awaited {
	const char *event, *subject;
	const char *progress; /* another, whose texts are shown meanwhile; NULL: none */
};
/* Ask, and wait for that. *body, if wanted: the answer's, for free. */
int ctl_await(const char *what, const struct question *question, const struct awaited *awaited,
	      char **body);
/* The machine moves to who waits at this address, until it has; or its way there is ended
 * ("cancel"), or only looked at. downtime: a time, or NULL. */
int ctl_migrate(const char *what, const char *address, const char *downtime, bool only_check);
/* What becomes of the machine after a snapshot: it goes on, if it ran; stands still; ends. */
enum ctl_then { CTL_RESUME, CTL_PAUSE, CTL_STOP };
/* The machine in this directory, which must not exist; until all is on the disk. */
int ctl_snapshot(const char *what, const char *path, enum ctl_then then);
/* The machine writes its memory into this file, which must not exist; until it is done. */
int ctl_dump(const char *what, const char *path);

/* This terminal, or standard input and output, on a console of the machine, until either ends. id
 * NULL: its first. take: also where somebody else looks at it, who loses it. */
int ctl_console(const char *what, const char *id, bool take);

#endif
