// SPDX-License-Identifier: Apache-2.0
// Addresses of a migration's two ends. See address.h.
#include "address.h"

#include <errno.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "output.h"
#include "socket.h"

static int failed(const char *text, const char *why)
{
	cli_error("%s: %s", text, why);
	return -1;
}

static int take_fd(const char *text, const char *number)
{
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);
	char *end;
	long fd = strtol(number, &end, 10);

	if (!*number || *end || fd < 3 || fd > 1 << 20 ||
	    getpeername((int)fd, (struct sockaddr *)&peer, &len) < 0)
		return failed(text, "not the number of a connected socket that came with this "
				    "process");
	return dup((int)fd);
}

static bool is_socket_path(const char *text, const char *path)
{
	if (*path && strlen(path) < SOCKET_PATH)
		return true;
	failed(text, "a socket's path has from 1 to 107 bytes");
	return false;
}

static int unix_connect(const char *text, const char *path)
{
	int fd;

	if (!is_socket_path(text, path))
		return -1;
	fd = socket_connect(path);
	return fd < 0 ? failed(text, strerror(-fd)) : fd;
}

/* For its owner alone. */
static int unix_listen(const char *text, const char *path)
{
	mode_t mask;
	int fd, rc;

	if (!is_socket_path(text, path))
		return -1;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return failed(text, strerror(errno));
	mask = umask(0077);
	rc = socket_bind(fd, path);
	umask(mask);
	if (!rc && listen(fd, 1) < 0)
		rc = -errno;
	if (!rc)
		return fd;
	close(fd);
	return failed(text, rc == -EADDRINUSE || rc == -EEXIST
				    ? "is there already; remove it, or give another path"
				    : strerror(-rc));
}

/* HOST:PORT, with the host in brackets where it has colons. */
static struct addrinfo *look_up(const char *text, const char *place, bool listens)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
				 .ai_flags = listens ? AI_PASSIVE : AI_ADDRCONFIG};
	const char *colon = strrchr(place, ':');
	struct addrinfo *list = NULL;
	size_t n = colon ? (size_t)(colon - place) : 0;
	char host[256];
	int rc;

	if (!colon || !colon[1] || n >= sizeof(host)) {
		failed(text, "takes tcp:HOST:PORT");
		return NULL;
	}
	if (n >= 2 && place[0] == '[' && place[n - 1] == ']')
		snprintf(host, sizeof(host), "%.*s", (int)n - 2, place + 1);
	else
		snprintf(host, sizeof(host), "%.*s", (int)n, place);
	rc = getaddrinfo(*host ? host : NULL, colon + 1, &hints, &list);
	if (rc) {
		failed(text, gai_strerror(rc));
		return NULL;
	}
	return list;
}

static int tcp_socket(const char *text, const char *place, bool listens)
{
	struct addrinfo *list = look_up(text, place, listens);
	int fd = -1, why = 0, on = 1;

	for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
		fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
		if (fd < 0) {
			why = errno;
			continue;
		}
		if (listens)
			setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
		if (listens ? bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, 1) == 0
			    : connect(fd, a->ai_addr, a->ai_addrlen) == 0)
			break;
		why = errno;
		close(fd);
		fd = -1;
	}
	if (list)
		freeaddrinfo(list);
	return fd < 0 && why ? failed(text, strerror(why)) : fd;
}

static int unknown(const char *text)
{
	return failed(text, "takes unix:PATH, tcp:HOST:PORT or fd:N");
}

int address_connect(const char *text)
{
	if (strncmp(text, "unix:", 5) == 0)
		return unix_connect(text, text + 5);
	if (strncmp(text, "tcp:", 4) == 0)
		return tcp_socket(text, text + 4, false);
	if (strncmp(text, "fd:", 3) == 0)
		return take_fd(text, text + 3);
	return unknown(text);
}

int address_accept(const char *text)
{
	bool is_unix = strncmp(text, "unix:", 5) == 0;
	int listens, fd;

	if (strncmp(text, "fd:", 3) == 0)
		return take_fd(text, text + 3);
	if (!is_unix && strncmp(text, "tcp:", 4) != 0)
		return unknown(text);
	listens = is_unix ? unix_listen(text, text + 5) : tcp_socket(text, text + 4, true);
	if (listens < 0)
		return -1;
	do
		fd = accept4(listens, NULL, NULL, SOCK_CLOEXEC);
	while (fd < 0 && errno == EINTR);
	if (fd < 0)
		failed(text, strerror(errno));
	close(listens);
	if (is_unix)
		unlink(text + 5);
	return fd;
}
