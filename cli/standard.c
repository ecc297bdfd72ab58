// SPDX-License-Identifier: Apache-2.0
// The descriptors that this process was started with. See standard.h.
#include "standard.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

int standard_fds_keep(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		if (fcntl(fd, F_GETFD) >= 0 || errno != EBADF)
			continue;
		/* The lowest free number is this one. Not close-on-exec: a child inherits it.
		 * Without a /dev, any directory keeps the place; its reads and writes fail. */
		if (open("/dev/null", O_RDWR) < 0 && open("/", O_PATH) < 0)
			return -errno;
	}
	return 0;
}

static struct {
	int *fd;
	unsigned int n;
} strays;

void strays_note(void)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		int fd = atoi(entry->d_name), *grown;

		if (fd <= STDERR_FILENO || fd == dirfd(dir))
			continue;
		grown = realloc(strays.fd, (strays.n + 1) * sizeof(*grown));
		if (!grown)
			break;
		strays.fd = grown;
		strays.fd[strays.n++] = fd;
	}
	if (dir)
		closedir(dir);
}

void strays_close(int keep)
{
	for (unsigned int i = 0; i < strays.n; i++) {
		if (strays.fd[i] != keep)
			close(strays.fd[i]);
	}
	free(strays.fd);
	strays.fd = NULL;
	strays.n = 0;
}
