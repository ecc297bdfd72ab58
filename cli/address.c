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
#include <sys/un.h>
#include <unistd.h>

#include "output.h"

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

static int unix_socket(const char *text, const char *path, struct sockaddr_un *address)
{
	int fd;

	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (!*path || strlen(path) >= sizeof(address->sun_path))
		return failed(text, "a socket's path has from 1 to 107 bytes");
	memcpy(address->sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return fd < 0 ? failed(text, strerror(errno)) : fd;
}

static int unix_connect(const char *text, const char *path)
{
	struct sockaddr_un address;
	int fd = unix_socket(text, path, &address);

	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	failed(text, strerror(errno));
	close(fd);
	return -1;
}

/* What one that was ended while it waited has left: a socket that nobody listens at. */
static bool is_left_over(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool left = fd >= 0 &&
		    connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 &&
		    errno == ECONNREFUSED;

	if (fd >= 0)
		close(fd);
	return left && unlink(address->sun_path) == 0;
}

/* For its owner alone. 0, or why not. */
static int listen_at(int fd, const struct sockaddr_un *address)
{
	mode_t mask = umask(0077);
	int why = bind(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 ? 0 : errno;

	umask(mask);
	if (!why && listen(fd, 1) < 0)
		why = errno;
	return why;
}

static int unix_listen(const char *text, const char *path)
{
	struct sockaddr_un address;
	int fd = unix_socket(text, path, &address), why;

	if (fd < 0)
		return -1;
	why = listen_at(fd, &address);
	if (why == EADDRINUSE && is_left_over(&address))
		why = listen_at(fd, &address);
	if (!why)
		return fd;
	failed(text, why == EADDRINUSE ? "is there already; remove it, or give another path"
				       : strerror(why));
	close(fd);
	return -1;
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
