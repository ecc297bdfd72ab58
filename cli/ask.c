// SPDX-License-Identifier: Apache-2.0
// One request a connection: the answer ends when the machine closes.
#include "ask.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "socket.h"

enum { FDS_MAX = 8 /* that a machine takes with one request */ };

/* What has come. */
struct input {
	char *bytes; /* terminated */
	size_t n, room;
};

static int send_all(int fd, const char *bytes, size_t n)
{
	while (n) {
		ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		/* An answer may be there all the same. */
		if (sent < 0)
			return errno == EPIPE ? 0 : -errno;
		bytes += sent;
		n -= (size_t)sent;
	}
	return 0;
}

/* The first bytes of the request, with the descriptors. How many were sent, or a negative errno. */
static ssize_t send_fds(int fd, const char *bytes, size_t n, const struct question *q)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
	} with = {0};
	struct iovec iov = {.iov_base = (void *)bytes, .iov_len = n};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *header;
	ssize_t sent;

	if (q->n_fds > FDS_MAX)
		return -E2BIG;
	message.msg_control = &with;
	message.msg_controllen = CMSG_SPACE(q->n_fds * sizeof(int));
	header = CMSG_FIRSTHDR(&message);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(q->n_fds * sizeof(int));
	memcpy(CMSG_DATA(header), q->fds, q->n_fds * sizeof(int));
	do
		sent = sendmsg(fd, &message, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : sent;
}

static int send_question(int fd, const char *head, const struct question *q)
{
	ssize_t sent = q->n_fds ? send_fds(fd, head, strlen(head), q) : 0;
	int rc = sent < 0 ? (int)sent : send_all(fd, head + sent, strlen(head + sent));

	return rc || !q->body ? rc : send_all(fd, q->body, strlen(q->body));
}

/* 1: some bytes, 0: the end, or a negative errno. */
static int receive(int fd, struct input *in)
{
	ssize_t n;

	if (in->room - in->n < 4096) {
		size_t room = in->room * 2 + 8192;
		char *bytes = realloc(in->bytes, room);

		if (!bytes)
			return -ENOMEM;
		in->bytes = bytes;
		in->room = room;
	}
	do
		n = recv(fd, in->bytes + in->n, in->room - in->n - 1, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? -ETIMEDOUT : errno == ECONNRESET ? 0 : -errno;
	in->n += (size_t)n;
	in->bytes[in->n] = '\0';
	return n > 0;
}

/* The status line and the headers, up to *body. 0, or a negative errno. */
static int read_head(int fd, struct input *in, struct reply *reply, size_t *body)
{
	char *end;
	int rc;

	do {
		rc = receive(fd, in);
		if (rc < 0)
			return rc;
		end = in->n ? strstr(in->bytes, "\r\n\r\n") : NULL;
	} while (rc > 0 && !end);
	if (!end || strncmp(in->bytes, "HTTP/1.1 ", 9) != 0)
		return -EPROTO;
	reply->status = (int)strtol(in->bytes + 9, NULL, 10);
	*body = (size_t)(end - in->bytes) + 4;
	return 0;
}

/* From now on to the stream. */
static int copy(int fd, struct input *in, FILE *to)
{
	int rc;

	do {
		if (fwrite(in->bytes, 1, in->n, to) != in->n || fflush(to) != 0)
			return -errno;
		in->n = 0;
		rc = receive(fd, in);
	} while (rc > 0);
	return rc;
}

static int exchange(int fd, const char *head, const struct question *q, FILE *to, struct input *in,
		    struct reply *reply)
{
	size_t at;
	int rc = send_question(fd, head, q);

	if (!rc)
		rc = read_head(fd, in, reply, &at);
	if (rc)
		return rc;
	in->n -= at;
	memmove(in->bytes, in->bytes + at, in->n + 1);
	if (to && reply->status < 300)
		return copy(fd, in, to);
	do
		rc = receive(fd, in);
	while (rc > 0);
	if (rc == 0) {
		reply->body = in->bytes;
		in->bytes = NULL;
	}
	return rc;
}

int ask(const char *path, const struct question *question, FILE *to, unsigned int seconds,
	struct reply *reply)
{
	const struct timeval limit = {.tv_sec = seconds};
	struct input in = {0};
	char head[1024];
	int fd = socket_connect(path), rc;

	*reply = (struct reply){0};
	if (fd < 0)
		return fd;
	rc = snprintf(head, sizeof(head),
		      "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
		      "Content-Length: %zu\r\n\r\n",
		      question->verb, question->target,
		      question->body ? strlen(question->body) : 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	rc = (size_t)rc < sizeof(head) ? exchange(fd, head, question, to, &in, reply)
				       : -ENAMETOOLONG;
	free(in.bytes);
	close(fd);
	return rc;
}
