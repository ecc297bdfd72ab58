// SPDX-License-Identifier: Apache-2.0
// Requests from bytes in any division, and the limits of what one may cost.
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/http.h"

static const char *const whole[] = {
	"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n",
	"\r\nPUT /v1/disks/a/size?x=1 HTTP/1.1\r\nContent-Length: 11\r\nX: \r\n\r\n{\"bytes\":0}",
	"POST /v1/pause HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;e=1\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
	"POST /a HTTP/1.0\r\nEXPECT: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
	"GET / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n",
	"GET /a HTTP/1.1\r\nContent-Length: x\r\n\r\n",
	"no HTTP at all\r\n\r\n",
};

static void same(const struct http_request *a, const struct http_request *b, const char *text)
{
	cr_assert_eq(a->progress, b->progress, "%s", text);
	cr_assert_neq(a->progress, HTTP_MORE, "%s", text);
	if (a->progress == HTTP_REFUSED) {
		cr_assert_eq(a->status, b->status, "%s", text);
		return;
	}
	cr_assert_str_eq(a->method, b->method);
	cr_assert_str_eq(a->target, b->target);
	cr_assert_eq(a->expects, b->expects);
	cr_assert_eq(a->keeps_alive, b->keeps_alive);
	cr_assert_eq(a->n_bytes, b->n_bytes);
	cr_assert_eq(a->n_body, b->n_body);
	cr_assert(!a->n_body || memcmp(a->body, b->body, a->n_body) == 0);
}

Test(http, a_request_is_the_same_wherever_it_is_divided)
{
	for (size_t i = 0; i < sizeof(whole) / sizeof(whole[0]); i++) {
		size_t n = strlen(whole[i]);
		struct http_request once;

		http_request_init(&once);
		http_request_feed(&once, whole[i], n);
		for (size_t at = 0; at <= n; at++) {
			struct http_request twice;

			http_request_init(&twice);
			http_request_feed(&twice, whole[i], at);
			http_request_feed(&twice, whole[i] + at, n - at);
			same(&once, &twice, whole[i]);
			http_request_done(&twice);
		}
		http_request_done(&once);
	}
}

static struct http_request feed(const char *bytes, size_t n)
{
	struct http_request r;

	http_request_init(&r);
	http_request_feed(&r, bytes, n);
	return r;
}

Test(http, a_request_takes_no_byte_of_the_next)
{
	const char *two = "GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n";
	struct http_request r;

	http_request_init(&r);
	cr_assert_eq(http_request_feed(&r, two, strlen(two)), strlen(two) / 2);
	cr_assert_str_eq(r.target, "/1");
	cr_assert_eq(http_request_feed(&r, two, strlen(two)), 0u);
	http_request_done(&r);
}

Test(http, chunks_become_one_body)
{
	struct http_request r = feed(whole[2], strlen(whole[2]));

	cr_assert_eq(r.progress, HTTP_COMPLETE);
	cr_assert_eq(r.n_body, 5u);
	cr_assert(memcmp(r.body, "abcde", 5) == 0);
	http_request_done(&r);
}

static void refused(const char *bytes, size_t n, int status)
{
	struct http_request r = feed(bytes, n);

	cr_assert_eq(r.progress, HTTP_REFUSED);
	cr_assert_eq(r.status, status, "%d", r.status);
	http_request_done(&r);
}

Test(http, an_endless_head_is_refused)
{
	size_t n = HTTP_HEAD_MAX + 1;
	char *text = malloc(n + 32);
	int at = sprintf(text, "GET / HTTP/1.1\r\nX: ");

	memset(text + at, 'a', n);
	refused(text, n, 431);
	memset(text, '\n', n);
	refused(text, n, 431);
	free(text);
}

Test(http, a_long_target_is_refused)
{
	char text[HTTP_TARGET_MAX + 64];
	int at = sprintf(text, "GET /");

	memset(text + at, 'a', HTTP_TARGET_MAX);
	strcpy(text + at + HTTP_TARGET_MAX, " HTTP/1.1\r\n\r\n");
	refused(text, strlen(text), 414);
	/* One less is taken whole. */
	memmove(text + at, text + at + 1, strlen(text + at));
	cr_assert_eq(feed(text, strlen(text)).n_target, (size_t)HTTP_TARGET_MAX);
}

Test(http, a_body_that_is_announced_too_long_is_refused_before_it_comes)
{
	static const char announced[] =
		"POST /v1/pause HTTP/1.1\r\nContent-Length: 4294967296\r\n\r\n";

	refused(announced, strlen(announced), 413);
}

Test(http, a_body_of_chunks_is_refused_where_it_gets_too_long)
{
	size_t n = HTTP_BODY_MAX + 1;
	char *text = malloc(n + 128);
	int at = sprintf(text, "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n%zx\r\n", n);

	memset(text + at, 'a', n);
	refused(text, (size_t)at + n, 413);
	free(text);
}

Test(http, many_small_chunks_cost_no_more_than_the_limit)
{
	static const char head[] = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
	struct http_request r = feed(head, strlen(head));
	unsigned int chunks = 0;

	while (r.progress == HTTP_MORE && chunks < HTTP_BODY_MAX) {
		http_request_feed(&r, "1;aaaaaaaa\r\nb\r\n", 15);
		chunks++;
	}
	cr_assert_eq(r.progress, HTTP_REFUSED);
	cr_assert_eq(r.status, 413);
	cr_assert_leq(r.n_bytes, (size_t)HTTP_HEAD_MAX + HTTP_BODY_MAX);
	http_request_done(&r);
}

Test(http, a_request_with_two_lengths_is_refused)
{
	static const char smuggled[] = "POST / HTTP/1.1\r\nContent-Length: 3\r\n"
				       "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n";

	refused(smuggled, strlen(smuggled), 400);
}
