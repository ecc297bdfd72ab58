/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One HTTP/1.1 request, from bytes that come in any division. The grammar is http-parser's; this
 * adds the limits and keeps what the dispatcher needs. A peer chooses the bytes.
 *
 * Costs: the head at most HTTP_HEAD_MAX bytes, its target HTTP_TARGET_MAX, the body HTTP_BODY_MAX
 * (allocated as it comes, not as it is announced), and all bytes of the request together the first
 * and the last, whatever its chunks are. Threads: one at a time.
 */
#ifndef CONTROL_HTTP_H
#define CONTROL_HTTP_H

#include <http_parser.h>
#include <stdbool.h>
#include <stddef.h>

enum {
	HTTP_HEAD_MAX = 8 * 1024,
	HTTP_TARGET_MAX = 512,
	HTTP_BODY_MAX = 64 * 1024,
};

enum http_progress {
	HTTP_MORE,     /* it is not complete */
	HTTP_COMPLETE, /* method, target and body are valid */
	HTTP_REFUSED,  /* `status` says why; nothing that follows can be understood */
};

struct http_request {
	http_parser parser;
	enum http_progress progress;
	int status; /* of HTTP_REFUSED: 400, 413, 414, 431, 503 */
	const char *method;
	char target[HTTP_TARGET_MAX + 1]; /* path and query, as sent */
	size_t n_target;
	char *body; /* not terminated; NULL: none came */
	size_t n_body, body_room;
	size_t n_bytes;   /* taken so far, of everything */
	bool in_body;     /* the head is complete */
	bool expects;     /* the client waits for "100 Continue" before it sends the body */
	bool keeps_alive; /* the connection can take another request */
	bool in_value;    /* of a header */
	char header[8];   /* its name, as far as it matters */
	size_t n_header;
};

void http_request_init(struct http_request *request);
/* Free what it holds. It can be initialised again. */
void http_request_done(struct http_request *request);

/* Take bytes until it is complete or refused; returns how many were taken. After that, none. */
size_t http_request_feed(struct http_request *request, const char *bytes, size_t n);

#endif
