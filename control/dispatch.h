/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a request to its answer: the row of the table that fits, the checks that the row asks for,
 * the call, and how a failure looks. It knows neither sockets nor HTTP's grammar.
 *
 * A failure is an object {code, text, remedy}: a word for programs, a line that names the thing and
 * the value, and what to do. The library's messages are "what; remedy".
 */
#ifndef CONTROL_DISPATCH_H
#define CONTROL_DISPATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hospes/hospes.h"

struct request {
	const char *verb;
	const char *target; /* path and query */
	const char *body;   /* NULL: none */
	size_t body_bytes;
	const int *fds; /* that came with it; the caller's */
	unsigned int n_fds;
};

struct answer {
	int status;        /* of HTTP */
	const char *type;  /* of text; static */
	char *text;        /* from malloc; NULL: none */
	const char *allow; /* 405: the verbs that the path knows; else NULL */
	bool events;       /* instead of a text: events from number `since` on */
	uint64_t since;    /* UINT64_MAX: the next one */
};

/* Fill *answer, whatever the request is; free answer->text. It waits for the machine where the
 * library does. */
void dispatch(struct hospes_vm *vm, const struct request *request, struct answer *answer);

/* The answer for a failure outside of any method. */
void dispatch_refuse(struct answer *answer, int status, const char *code, const char *text,
		     const char *remedy);

#endif
