// SPDX-License-Identifier: Apache-2.0
// A request, by http-parser: its callbacks keep what matters, within the limits.
#include "control/http.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static struct http_request *request_of(http_parser *parser)
{
	return parser->data;
}

/* Nonzero, for the parser: it stops. */
static int refuse(struct http_request *r, int status)
{
	r->progress = HTTP_REFUSED;
	r->status = status;
	return -1;
}

static int on_url(http_parser *parser, const char *at, size_t n)
{
	struct http_request *r = request_of(parser);

	if (n > HTTP_TARGET_MAX - r->n_target)
		return refuse(r, 414);
	memcpy(r->target + r->n_target, at, n);
	r->n_target += n;
	r->target[r->n_target] = '\0';
	return 0;
}

static int on_header_field(http_parser *parser, const char *at, size_t n)
{
	struct http_request *r = request_of(parser);

	if (r->in_value)
		r->n_header = 0;
	r->in_value = false;
	/* A longer name is cut, and so differs from every name that is looked for. */
	if (n > sizeof(r->header) - r->n_header)
		n = sizeof(r->header) - r->n_header;
	memcpy(r->header + r->n_header, at, n);
	r->n_header += n;
	return 0;
}

static int on_header_value(http_parser *parser, const char *at, size_t n)
{
	struct http_request *r = request_of(parser);

	(void)at;
	(void)n;
	r->in_value = true;
	if (r->n_header == strlen("expect") && strncasecmp(r->header, "expect", r->n_header) == 0)
		r->expects = true;
	return 0;
}

static int on_headers_complete(http_parser *parser)
{
	struct http_request *r = request_of(parser);

	r->in_body = true;
	/* Another protocol is offered, which we may leave alone. */
	parser->upgrade = 0;
	if (parser->content_length != ULLONG_MAX && parser->content_length > HTTP_BODY_MAX)
		return refuse(r, 413);
	return 0;
}

/* Room for n more bytes of the body; it doubles, so that a body costs what came of it. */
static int reserve(struct http_request *r, size_t n)
{
	size_t room = r->body_room ? r->body_room : 512;
	char *body;

	if (n > HTTP_BODY_MAX - r->n_body)
		return refuse(r, 413);
	while (room < r->n_body + n)
		room *= 2;
	if (room == r->body_room)
		return 0;
	body = realloc(r->body, room);
	if (!body)
		return refuse(r, 503);
	r->body = body;
	r->body_room = room;
	return 0;
}

static int on_body(http_parser *parser, const char *at, size_t n)
{
	struct http_request *r = request_of(parser);
	int rc = reserve(r, n);

	if (rc)
		return rc;
	memcpy(r->body + r->n_body, at, n);
	r->n_body += n;
	return 0;
}

static int on_message_complete(http_parser *parser)
{
	struct http_request *r = request_of(parser);

	r->progress = HTTP_COMPLETE;
	r->method = http_method_str((enum http_method)parser->method);
	r->keeps_alive = http_should_keep_alive(parser) != 0;
	http_parser_pause(parser, 1); /* what follows is the next request's */
	return 0;
}

static const http_parser_settings callbacks = {
	.on_url = on_url,
	.on_header_field = on_header_field,
	.on_header_value = on_header_value,
	.on_headers_complete = on_headers_complete,
	.on_body = on_body,
	.on_message_complete = on_message_complete,
};

void http_request_init(struct http_request *request)
{
	memset(request, 0, sizeof(*request));
	http_parser_init(&request->parser, HTTP_REQUEST);
	request->parser.data = request;
}

void http_request_done(struct http_request *request)
{
	free(request->body);
	request->body = NULL;
}

size_t http_request_feed(struct http_request *r, const char *bytes, size_t n)
{
	size_t taken = 0;

	while (taken < n && r->progress == HTTP_MORE) {
		size_t limit = r->in_body ? HTTP_HEAD_MAX + HTTP_BODY_MAX : HTTP_HEAD_MAX;
		size_t some = n - taken, used;

		if (r->n_bytes == limit) {
			refuse(r, r->in_body ? 413 : 431);
			break;
		}
		if (some > limit - r->n_bytes)
			some = limit - r->n_bytes;
		used = http_parser_execute(&r->parser, &callbacks, bytes + taken, some);
		r->n_bytes += used;
		taken += used;
		if (r->progress == HTTP_MORE && HTTP_PARSER_ERRNO(&r->parser) != HPE_OK)
			refuse(r, 400);
	}
	return taken;
}
