/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The methods, as one table: how each is called, what it takes, what it answers, and the function
 * that does it. The dispatcher checks a request by its row before the function sees it, the schema
 * (GET /v1/schema, docs/openapi.json) is made from the same rows.
 *
 * To add a method: a function and a row in methods.c, then docs/openapi.json again (docs/control.md
 * says how; a unit test compares them).
 */
#ifndef CONTROL_METHOD_H
#define CONTROL_METHOD_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "control/events.h"
#include "hospes/hospes.h"

enum { METHOD_ID_MAX = 128 /* bytes of an id in a path */ };

enum field_type {
	FIELD_INTEGER,
	FIELD_BOOLEAN,
	FIELD_TEXT,
	FIELD_OBJECT, /* the library knows what it holds */
};

/* A value in the body, or in the query. */
struct field {
	const char *name; /* NULL ends a list */
	enum field_type type;
	int64_t min, max; /* of an integer */
	bool optional;
	const char *text; /* what it is, one line */
};

/* What a method answers when it succeeds. */
enum answer_kind {
	ANSWER_STATE,   /* {"state": "running"} */
	ANSWER_NOTHING, /* 204 */
	ANSWER_LATER,   /* 202: it has begun; an event says how it ended */
	ANSWER_OBJECT,  /* a JSON document, which the library made */
	ANSWER_TEXT,    /* for people */
	ANSWER_METRICS, /* Prometheus' text format */
	ANSWER_EVENTS,  /* lines of JSON without an end */
};

/* One call of a method: what was sent, and what becomes of it. */
struct call {
	struct hospes_vm *vm;
	char id[METHOD_ID_MAX + 1]; /* of the device, "" without */
	json_t *body;               /* an object with the method's fields; NULL: it has none */
	json_t *query;              /* likewise; integers */
	const int *fds;             /* that came with the request; closed when it returns */
	unsigned int n_fds;
	char *text; /* the answer, from malloc; NULL: none */
	struct hospes_error error;
};

struct method {
	const char *verb;                 /* "GET" */
	const char *path;                 /* "/v1/disks/{id}/size" */
	const char *name;                 /* operationId */
	const char *text;                 /* one line */
	const struct field *body, *query; /* NULL: none */
	bool takes_fds;
	enum answer_kind answer;
	/* 0, or a negative errno with the message in call->error. NULL: the connection does it. */
	int (*run)(struct call *call);
};

/* A row without a verb ends them. */
extern const struct method methods[];

/* The OpenAPI document, from malloc; NULL: no memory. */
char *schema_text(void);

/* The status document in Prometheus' text format, from malloc; NULL: no memory, or no document. */
char *metrics_text(const char *status);

#endif
