// SPDX-License-Identifier: Apache-2.0
// Bytes and file descriptors in, answers out.
#include "control/connection.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/dispatch.h"

struct connection *connection_create(int fd)
{
	struct connection *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->fd = fd;
	http_request_init(&c->request);
	return c;
}

static void close_fds(struct connection *c)
{
	while (c->n_fds)
		close(c->fds[--c->n_fds]);
}

void connection_destroy(struct connection *c)
{
	close_fds(c);
	http_request_done(&c->request);
	free(c->answer);
	close(c->fd);
	free(c);
}

bool connection_is_idle(const struct connection *c)
{
	return c->state == CONNECTION_READING && c->request.n_bytes == 0 && c->at == c->end;
}

uint32_t connection_wants(const struct connection *c)
{
	/* Input that is here already, or something to send: as soon as the client takes bytes. */
	bool writes = c->state == CONNECTION_WRITING || c->head_at < c->head_end ||
		      c->answer_at < c->answer_end ||
		      (c->state == CONNECTION_READING && c->at < c->end);

	if (writes)
		return EPOLLOUT;
	return c->state == CONNECTION_STREAMING ? EPOLLIN | EPOLLRDHUP : EPOLLIN;
}

/* --- out --- */

/* Send from *at to end. 1: all of it, 0: not all, negative: the client is gone. */
static int send_some(int fd, const char *bytes, size_t *at, size_t end)
{
	while (*at < end) {
		ssize_t n = send(fd, bytes + *at, end - *at, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		*at += (size_t)n;
	}
	return 1;
}

static int send_pending(struct connection *c)
{
	int rc = send_some(c->fd, c->head, &c->head_at, c->head_end);

	if (rc == 1)
		rc = send_some(c->fd, c->answer, &c->answer_at, c->answer_end);
	if (rc == 1) {
		free(c->answer);
		c->answer = NULL;
		c->head_at = c->head_end = c->answer_at = c->answer_end = 0;
	}
	return rc;
}

static const char *reason_of(int status)
{
	switch (status) {
#define REASON(number, name, text) \
	case number:               \
		return #text;
		HTTP_STATUS_MAP(REASON)
#undef REASON
	}
	return "";
}

/* The answer becomes what is to be sent. */
static void put_answer(struct connection *c, struct answer *answer, uint64_t deadline_ns)
{
	size_t n = answer->text ? strlen(answer->text) : 0;
	int used = snprintf(c->head, sizeof(c->head), "HTTP/1.1 %d %s\r\n", answer->status,
			    reason_of(answer->status));
	size_t at = (size_t)used;

	if (answer->type)
		at += (size_t)snprintf(c->head + at, sizeof(c->head) - at, "Content-Type: %s\r\n",
				       answer->type);
	if (answer->allow)
		at += (size_t)snprintf(c->head + at, sizeof(c->head) - at, "Allow: %s\r\n",
				       answer->allow);
	if (!answer->events && answer->status != 204)
		at += (size_t)snprintf(c->head + at, sizeof(c->head) - at,
				       "Content-Length: %zu\r\n", n);
	at += (size_t)snprintf(c->head + at, sizeof(c->head) - at, "%s\r\n",
			       c->closes ? "Connection: close\r\n" : "");
	c->head_at = 0;
	c->head_end = at;
	c->answer = answer->text;
	c->answer_at = 0;
	c->answer_end = n;
	c->state = CONNECTION_WRITING;
	c->deadline_ns = deadline_ns;
}

void connection_refuse(struct connection *c, int status, const char *code, const char *text,
		       const char *remedy, uint64_t deadline_ns)
{
	struct answer answer;

	dispatch_refuse(&answer, status, code, text, remedy);
	c->closes = true;
	put_answer(c, &answer, deadline_ns);
}

/* --- events --- */

/* The first line says which number is the last so far, and the state. */
static void begin_stream(struct connection *c, const struct connection_env *env,
			 struct answer *answer)
{
	enum hospes_state state = hospes_vm_state(env->vm);
	char line[96];

	c->next_event = answer->since == UINT64_MAX ? events_last(env->events) + 1 : answer->since;
	snprintf(line, sizeof(line), "{\"seq\":%llu,\"event\":\"stream\",\"state\":\"%s\"}\n",
		 (unsigned long long)(c->next_event - 1), events_state_name(state));
	answer->text = strdup(line);
	c->closes = true;
}

/* As many events as the client takes. */
static bool stream(struct connection *c, const struct connection_env *env)
{
	char line[EVENTS_LINE];
	int rc = send_pending(c);

	while (rc == 1) {
		size_t n = events_line(env->events, &c->next_event, line);

		if (!n)
			return true;
		c->answer = malloc(n);
		if (!c->answer)
			return false;
		memcpy(c->answer, line, n);
		c->answer_end = n;
		rc = send_pending(c);
	}
	return rc == 0;
}

/* --- in --- */

static const char *refusal_text(int status)
{
	switch (status) {
	case 413:
		return "the body is longer than 64 KiB";
	case 414:
		return "the path is longer than 512 bytes";
	case 431:
		return "the headers are longer than 8 KiB";
	case 503:
		return "no memory for the request";
	default:
		return "this is no HTTP/1.1 request";
	}
}

static void answer_request(struct connection *c, const struct connection_env *env,
			   uint64_t deadline_ns)
{
	const struct request request = {
		.verb = c->request.method,
		.target = c->request.target,
		.body = c->request.body,
		.body_bytes = c->request.n_body,
		.fds = c->fds,
		.n_fds = c->n_fds,
	};
	struct answer answer;

	dispatch(env->vm, &request, &answer);
	close_fds(c);
	c->closes = !c->request.keeps_alive;
	if (answer.events && !c->may_stream)
		dispatch_refuse(&answer, 503, "busy", "too many readers of events",
				"close one of them");
	else if (answer.events)
		begin_stream(c, env, &answer);
	http_request_done(&c->request);
	http_request_init(&c->request);
	c->continued = false;
	put_answer(c, &answer, deadline_ns);
	if (answer.events) {
		c->state = CONNECTION_STREAMING;
		c->deadline_ns = 0;
	}
}

/* The request takes input that is here. */
static void parse(struct connection *c, const struct connection_env *env, uint64_t deadline_ns)
{
	struct http_request *r = &c->request;

	if (c->at < c->end && !r->n_bytes)
		c->deadline_ns = deadline_ns;
	c->at += http_request_feed(r, c->input + c->at, c->end - c->at);
	if (r->progress == HTTP_COMPLETE) {
		answer_request(c, env, deadline_ns);
	} else if (r->progress == HTTP_REFUSED) {
		close_fds(c);
		c->at = c->end;
		connection_refuse(c, r->status, "invalid", refusal_text(r->status),
				  "docs/control.md shows requests that work", deadline_ns);
	} else if (r->in_body && r->expects && !c->continued) {
		c->continued = true;
		c->head_end =
			(size_t)snprintf(c->head, sizeof(c->head), "HTTP/1.1 100 Continue\r\n\r\n");
	}
}

/* Keep the descriptors of a message; false: there are too many, and none is kept. */
static bool take_fds(struct connection *c, struct msghdr *message)
{
	bool all = !(message->msg_flags & MSG_CTRUNC);

	for (struct cmsghdr *m = CMSG_FIRSTHDR(message); m; m = CMSG_NXTHDR(message, m)) {
		size_t n = (m->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (m->cmsg_level != SOL_SOCKET || m->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(m) + i * sizeof(fd), sizeof(fd));
			if (c->n_fds < CONNECTION_FDS) {
				c->fds[c->n_fds++] = fd;
			} else {
				close(fd);
				all = false;
			}
		}
	}
	if (!all)
		close_fds(c);
	return all;
}

/* Read when all earlier input was taken. False: the client has ended. */
static bool receive(struct connection *c, uint64_t deadline_ns)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(CONNECTION_FDS * sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = c->input, .iov_len = sizeof(c->input)};
	struct msghdr message = {.msg_iov = &iov,
				 .msg_iovlen = 1,
				 .msg_control = &control,
				 .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(c->fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (n == 0)
		return false;
	c->at = 0;
	c->end = (size_t)n;
	if (take_fds(c, &message))
		return true;
	c->at = c->end;
	connection_refuse(c, 400, "invalid", "more than 8 file descriptors",
			  "send those that the method takes", deadline_ns);
	return true;
}

/* A reader of events that says something more, or ends. */
static bool still_listens(struct connection *c)
{
	bool there = c->at == c->end ? receive(c, 0) && c->state == CONNECTION_STREAMING : true;

	close_fds(c);
	c->at = c->end;
	return there;
}

/* After an answer: the next request, or the end. */
static bool finish_answer(struct connection *c)
{
	int rc = send_pending(c);

	if (rc < 0 || (rc == 1 && c->closes))
		return false;
	if (rc == 1) {
		c->state = CONNECTION_READING;
		c->deadline_ns = 0;
	}
	return true;
}

bool connection_work(struct connection *c, const struct connection_env *env, uint32_t revents,
		     uint64_t deadline_ns)
{
	if (revents & EPOLLERR)
		return false;
	if (c->state == CONNECTION_READING && c->head_at < c->head_end && send_pending(c) < 0)
		return false;
	if (c->state == CONNECTION_READING && c->at == c->end &&
	    revents & (EPOLLIN | EPOLLHUP | EPOLLRDHUP) && !receive(c, deadline_ns))
		return false;
	if (c->state == CONNECTION_READING && c->at < c->end)
		parse(c, env, deadline_ns);
	if (c->state == CONNECTION_READING)
		return c->head_at == c->head_end || send_pending(c) >= 0;
	if (c->state == CONNECTION_WRITING)
		return !(revents & EPOLLHUP) && finish_answer(c);
	if (revents & (EPOLLIN | EPOLLHUP | EPOLLRDHUP) && !still_listens(c))
		return false;
	return stream(c, env);
}
