// SPDX-License-Identifier: Apache-2.0
// Paths of control sockets, and the moment in which one is taken.
#include "socket.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli.h"
#include "output.h"

static const char system_directory[] = "/run/hospes";

const char *socket_directory(bool own, char directory[SOCKET_PATH])
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	int n;

	if (!own || !runtime || runtime[0] != '/')
		return system_directory;
	n = snprintf(directory, SOCKET_PATH, "%s/hospes", runtime);
	return n < SOCKET_PATH ? directory : system_directory;
}

void socket_parent(const char *path, char directory[SOCKET_PATH])
{
	char *slash;

	snprintf(directory, SOCKET_PATH, "%s", path);
	slash = strrchr(directory, '/');
	if (slash)
		slash[slash == directory] = '\0';
	else
		snprintf(directory, SOCKET_PATH, ".");
}

static int join(char path[SOCKET_PATH], const char *directory, const char *name)
{
	int n = snprintf(path, SOCKET_PATH, "%s/%s.sock", directory, name);

	if (n < SOCKET_PATH)
		return CLI_OK;
	cli_error("%s/%s.sock: longer than the %d bytes of a socket's path; choose a shorter name, "
		  "or give --control PATH",
		  directory, name, SOCKET_PATH - 1);
	return CLI_FAILED;
}

int socket_place(char path[SOCKET_PATH], const char *name)
{
	char own[SOCKET_PATH];
	const char *directory = socket_directory(true, own);

	if (!*name || strchr(name, '/') || name[0] == '.') {
		cli_error("name '%s': cannot be a file's name; give --control PATH, or none", name);
		return CLI_FAILED;
	}
	if (mkdir(directory, 0700) < 0 && errno != EEXIST) {
		cli_error("%s: cannot be made for the control socket: %s; give --control PATH, or "
			  "none",
			  directory, strerror(errno));
		return CLI_FAILED;
	}
	return join(path, directory, name);
}

int socket_find(char path[SOCKET_PATH], const char *what)
{
	char own[SOCKET_PATH];
	int n;

	if (!strchr(what, '/')) {
		int status = join(path, socket_directory(true, own), what);

		if (status == CLI_OK && access(path, F_OK) < 0)
			status = join(path, socket_directory(false, own), what);
		return status;
	}
	n = snprintf(path, SOCKET_PATH, "%s", what);
	if (n < SOCKET_PATH)
		return CLI_OK;
	cli_error("%s: longer than the %d bytes of a socket's path", what, SOCKET_PATH - 1);
	return CLI_FAILED;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_socket(const struct dirent *entry)
{
	size_t n = strlen(entry->d_name);

	return n > 5 && strcmp(entry->d_name + n - 5, ".sock") == 0;
}

static void each_in(const char *directory, socket_fn *fn, void *opaque)
{
	struct dirent **entries;
	int n = scandir(directory, &entries, is_socket, by_name);

	if (n < 0) {
		if (errno != ENOENT)
			cli_error("%s: %s", directory, strerror(errno));
		return;
	}
	for (int i = 0; i < n; i++) {
		char *name = entries[i]->d_name, path[SOCKET_PATH];
		int length = snprintf(path, sizeof(path), "%s/%s", directory, name);

		name[strlen(name) - 5] = '\0';
		if (length < SOCKET_PATH)
			fn(opaque, path, name);
		free(entries[i]);
	}
	free(entries);
}

void socket_each(socket_fn *fn, void *opaque)
{
	char own[SOCKET_PATH];
	const char *mine = socket_directory(true, own);

	each_in(mine, fn, opaque);
	if (strcmp(mine, system_directory) != 0)
		each_in(system_directory, fn, opaque);
}

static void set_address(struct sockaddr_un *address, const char *path)
{
	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	memcpy(address->sun_path, path, strlen(path) + 1);
}

int socket_connect(const char *path)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), rc;
	struct sockaddr_un address;

	if (fd < 0)
		return -errno;
	set_address(&address, path);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	rc = -errno;
	close(fd);
	return rc;
}

bool socket_is_taken(const char *path)
{
	int fd = socket_connect(path);

	if (fd < 0)
		return false;
	close(fd);
	cli_error("%s: a machine listens there already; choose another name or --control PATH "
		  "('hospes list' shows what runs)",
		  path);
	return true;
}

/* --- listening --- */

/* Between bind and listen a new socket looks like one that was left. Who takes a path in a
 * directory of ours holds its lock meanwhile; in one of others', where anybody could keep us
 * waiting, nobody does. The descriptor to be closed, or -1. */
static int lock_directory(const char *path)
{
	char directory[SOCKET_PATH];
	struct stat st;
	int fd;

	socket_parent(path, directory);
	fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0 && fstat(fd, &st) == 0 && st.st_uid == geteuid())
		flock(fd, LOCK_EX);
	return fd;
}

int socket_bind(int fd, const char *path)
{
	struct sockaddr_un address;
	struct stat st;
	int rc;

	set_address(&address, path);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return 0;
	if (errno != EADDRINUSE)
		return -errno;
	rc = socket_connect(path);
	if (rc >= 0) {
		close(rc);
		return -EADDRINUSE;
	}
	/* A file that is no socket refuses connections too. */
	if (rc != -ECONNREFUSED || lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode))
		return -EEXIST;
	if (unlink(path) < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	return 0;
}

static int take_path(struct control_socket *s)
{
	int rc = socket_bind(s->fd, s->path);

	if (rc)
		return rc;
	/* Nobody can connect before it listens. */
	if (lstat(s->path, &s->bound) < 0 || chmod(s->path, 0600) < 0 || listen(s->fd, 128) < 0)
		return -errno;
	return 0;
}

int socket_listen(struct control_socket *s)
{
	int lock = lock_directory(s->path), rc;

	s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	rc = s->fd < 0 ? -errno : take_path(s);
	if (lock >= 0)
		close(lock);
	if (rc == 0)
		return CLI_OK;
	if (rc == -EADDRINUSE)
		socket_is_taken(s->path);
	else if (rc == -EEXIST)
		cli_error("%s: exists and is no control socket; remove it, or give --control PATH",
			  s->path);
	else
		cli_error("%s: cannot listen: %s; give --control PATH, or none", s->path,
			  strerror(-rc));
	return CLI_FAILED;
}

void socket_done(struct control_socket *s)
{
	struct stat now;

	if (s->fd < 0)
		return;
	if (s->bound.st_ino && lstat(s->path, &now) == 0 && now.st_ino == s->bound.st_ino &&
	    now.st_dev == s->bound.st_dev)
		unlink(s->path);
	close(s->fd);
	s->fd = -1;
}

/* sd_listen_fds(3): from 3 on, for this process only. */
int socket_inherited(const char *name)
{
	const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
	const char *at = getenv("LISTEN_FDNAMES");
	char *end;
	long number = strtol(name, &end, 10);

	if (*name >= '0' && *name <= '9' && !*end && number <= 1 << 20)
		return (int)number;
	if (!pid || !count || !at || strtol(pid, NULL, 10) != getpid())
		return -1;
	for (long i = 0; i < strtol(count, NULL, 10); i++) {
		size_t n = strcspn(at, ":");

		if (n == strlen(name) && strncmp(at, name, n) == 0)
			return 3 + (int)i;
		at += n + (at[n] == ':');
	}
	return -1;
}
