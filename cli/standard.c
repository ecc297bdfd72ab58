// SPDX-License-Identifier: Apache-2.0
// The places of standard input, output and error are never taken by a file of ours.
#include "standard.h"

#include <errno.h>
#include <fcntl.h>
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
