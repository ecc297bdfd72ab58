// SPDX-License-Identifier: Apache-2.0
// File descriptor helpers.
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/probe.h"

void fd_close(int *fd)
{
	if (*fd < 0)
		return;
	/* Linux frees the number even when close() fails; retrying would close someone else's. */
	close(*fd);
	*fd = -1;
}

int fd_try_open(const char *path)
{
	cleanup_fd int fd = open(path, O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : 0;
}

int fd_dup(int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);

	return copy < 0 ? -errno : copy;
}

int fd_set_blocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) != 0 ? -errno : 0;
}

int fd_eventfd(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

void fd_event_signal(int fd)
{
	uint64_t one = 1;
	ssize_t n;

	do
		n = write(fd, &one, sizeof(one));
	while (n < 0 && errno == EINTR);
	/* EAGAIN: the counter is full, so the reader is woken already. */
}

uint64_t fd_event_drain(int fd)
{
	uint64_t count = 0;
	ssize_t n;

	do
		n = read(fd, &count, sizeof(count));
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)sizeof(count) ? count : 0;
}

int fd_ioctl(int fd, unsigned long request, const void *arg)
{
	int result = ioctl(fd, request, arg);

	if (result < 0)
		result = -errno;
	probe_ioctl(fd, request, result);
	return result;
}

int fd_read_full(int fd, void *buf, size_t len, off_t offset)
{
	char *at = buf;

	while (len) {
		ssize_t n = offset < 0 ? read(fd, at, len) : pread(fd, at, len, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -ENODATA;
		at += n;
		len -= (size_t)n;
		if (offset >= 0)
			offset += n;
	}
	return 0;
}

int fd_write_full(int fd, const void *buf, size_t len, off_t offset)
{
	const char *at = buf;

	while (len) {
		ssize_t n = offset < 0 ? write(fd, at, len) : pwrite(fd, at, len, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		at += n;
		len -= (size_t)n;
		if (offset >= 0)
			offset += n;
	}
	return 0;
}
