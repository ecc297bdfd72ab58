/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control sockets of machines: where they are, who listens, and how one begins to. Messages of
 * failures are printed.
 */
#ifndef CLI_SOCKET_H
#define CLI_SOCKET_H

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/un.h>

enum { SOCKET_PATH = sizeof(((struct sockaddr_un *)0)->sun_path) };

struct control_socket {
	char path[SOCKET_PATH]; /* "": none, or the descriptor is somebody else's to name */
	int fd;                 /* that listens; -1: not yet */
	struct stat bound;      /* the file that was made */
};

/* $XDG_RUNTIME_DIR/hospes if `own`, and there is one; else /run/hospes. */
const char *socket_directory(bool own, char directory[SOCKET_PATH]);

/* The directory that the path is in. */
void socket_parent(const char *path, char directory[SOCKET_PATH]);

/* Where a new machine of this name listens. CLI_OK or CLI_FAILED. */
int socket_place(char path[SOCKET_PATH], const char *name);
/* Where the machine listens that `what` names: a path, if it has a slash, or its name. */
int socket_find(char path[SOCKET_PATH], const char *what);

/* Every control socket at a default place, whoever listens or listened: first the user's own, then
 * the system's, each by name. */
typedef void socket_fn(void *opaque, const char *path, const char *name);
void socket_each(socket_fn *fn, void *opaque);

/* A connected socket, or a negative errno. path: less than SOCKET_PATH bytes. */
int socket_connect(const char *path);
/* Bind to a path of less than SOCKET_PATH bytes; a socket that nobody listens at any more is
 * replaced. -EADDRINUSE: somebody listens there; -EEXIST: something else is there; or another
 * negative errno. */
int socket_bind(int fd, const char *path);
/* Is somebody there? If so, the message was printed. */
bool socket_is_taken(const char *path);

/* Listen at socket->path, mode 0600; what a machine that was killed has left there is replaced. */
int socket_listen(struct control_socket *socket);
/* Close it, and remove the file if it is still the one that was made. */
void socket_done(struct control_socket *socket);

/* The descriptor of a service manager (LISTEN_FDS) that is named so, or of that number; -1. */
int socket_inherited(const char *name);

#endif
