/* SPDX-License-Identifier: Apache-2.0 */
/* A request to a machine's control socket: the client's side, of `hospes ctl` and its like. */
#ifndef CLI_ASK_H
#define CLI_ASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum { ASK_PATIENCE_S = 5 /* with a machine that may not answer */ };

struct question {
	const char *verb, *target;
	const char *body; /* JSON, or NULL */
	const int *fds;   /* that go with it; they stay the caller's */
	unsigned int n_fds;
};

struct reply {
	int status; /* of HTTP; 0: there was no answer */
	char *body; /* terminated, from malloc; NULL: it went to the stream, or there is none */
};

/* Ask at this path. to: a successful answer is copied there as it comes; NULL: it is in
 * reply->body. seconds: how long to wait for bytes, 0: without end. 0, or a negative errno; free
 * reply->body. */
int ask(const char *path, const struct question *question, FILE *to, unsigned int seconds,
	struct reply *reply);

#endif
