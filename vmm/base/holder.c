// SPDX-License-Identifier: Apache-2.0
// Who has a file open.
#include "base/holder.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"

static bool same(const struct stat *a, const struct stat *b)
{
	/* A device node has many names, in containers too, but one number. */
	if (S_ISCHR(a->st_mode))
		return S_ISCHR(b->st_mode) && a->st_rdev == b->st_rdev;
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Has the process one of them open? Looking at an fd through /proc opens nothing. */
static bool has_open(const char *pid, const struct stat *files, unsigned int n)
{
	char path[64];
	struct dirent *entry;
	bool found = false;
	DIR *dir;
	int at;

	snprintf(path, sizeof(path), "/proc/%.16s/fd", pid);
	dir = opendir(path);
	if (!dir)
		return false;
	at = dirfd(dir);
	while (!found && at >= 0 && (entry = readdir(dir))) {
		struct stat st;

		if (entry->d_name[0] == '.' || fstatat(at, entry->d_name, &st, 0) < 0)
			continue;
		for (unsigned int i = 0; i < n && !found; i++)
			found = same(&files[i], &st);
	}
	closedir(dir);
	return found;
}

static void read_name(const char *pid, char *name, size_t bytes)
{
	char path[64];
	cleanup_fd int fd = -1;
	ssize_t got = 0;

	snprintf(path, sizeof(path), "/proc/%.16s/comm", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		got = read(fd, name, bytes - 1);
	name[got > 0 ? got : 0] = '\0';
	name[strcspn(name, "\n")] = '\0';
}

bool holder_find(struct holder *ret, const struct stat *files, unsigned int n, pid_t except)
{
	struct dirent *entry;
	bool found = false;
	DIR *dir = opendir("/proc");

	if (!dir)
		return false;
	while (!found && (entry = readdir(dir))) {
		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		ret->pid = atoi(entry->d_name);
		found = ret->pid != except && has_open(entry->d_name, files, n);
		if (found)
			read_name(entry->d_name, ret->name, sizeof(ret->name));
	}
	closedir(dir);
	return found;
}

/* How the kernel shows a memory file among a process's open ones: proc(5), memfd_create(2). */
#define SHOWN "/memfd:"

static void prefix_of(const char *what, char prefix[128])
{
	snprintf(prefix, 128, "hospes:%.100s:", what);
}

int holder_announce(const char *what, const char *label)
{
	char name[200], prefix[128];
	int fd;

	prefix_of(what, prefix);
	snprintf(name, sizeof(name), "%s%.*s", prefix, HOLDER_LABEL_BYTES - 1, label);
	fd = memfd_create(name, MFD_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Is what a link says "PREFIX…" of a memory file? The rest of it then, without the kernel's
 * remark. */
static bool take_label(char *link, const char *prefix, char label[HOLDER_LABEL_BYTES])
{
	static const char remark[] = " (deleted)";
	size_t n = strlen(SHOWN), len = strlen(link), tail = sizeof(remark) - 1;

	if (strncmp(link, SHOWN, n) != 0 || strncmp(link + n, prefix, strlen(prefix)) != 0)
		return false;
	if (len > tail && strcmp(link + len - tail, remark) == 0)
		link[len - tail] = '\0';
	snprintf(label, HOLDER_LABEL_BYTES, "%s", link + n + strlen(prefix));
	for (char *c = label; *c; c++) {
		if (*c < ' ' || *c > '~')
			*c = '?';
	}
	return true;
}

bool holder_announced(pid_t pid, const char *what, char label[HOLDER_LABEL_BYTES])
{
	char path[64], prefix[128], link[256];
	struct dirent *entry;
	bool found = false;
	DIR *dir;

	prefix_of(what, prefix);
	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	if (!dir)
		return false;
	while (!found && (entry = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, link, sizeof(link) - 1);

		link[n > 0 ? n : 0] = '\0';
		found = take_label(link, prefix, label);
	}
	closedir(dir);
	return found;
}
