/* SPDX-License-Identifier: Apache-2.0 */
/* File descriptors: always O_CLOEXEC, closed once, -1 when there is none. */
#ifndef BASE_FD_H
#define BASE_FD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* Close *fd unless it is -1, and set it to -1. */
void fd_close(int *fd);
#define cleanup_fd __attribute__((cleanup(fd_close)))

/* Can it be opened to read and write? 0 or a negative errno. It opens the file, so do not use it on
 * a device that can be open only once. */
int fd_try_open(const char *path);

/* Duplicate with O_CLOEXEC: the new fd or a negative errno. */
int fd_dup(int fd);

/* Take O_NONBLOCK away from the open file: 0 or a negative errno. */
int fd_set_blocking(int fd);

/* A non-blocking eventfd: the fd or a negative errno. */
int fd_eventfd(void);
void fd_event_signal(int fd);
/* Read and clear the counter: its value, 0 when it was not signalled. */
uint64_t fd_event_drain(int fd);

/* ioctl(2), of a driver that is worth a probe (base/probe.h): its result, at least 0, or a negative
 * errno. */
int fd_ioctl(int fd, unsigned long request, const void *arg);

/* Read or write all of len bytes, over short transfers and EINTR. offset -1 means a stream.
 * Returns 0 or a negative errno; -ENODATA when the file ends before. */
int fd_read_full(int fd, void *buf, size_t len, off_t offset);
int fd_write_full(int fd, const void *buf, size_t len, off_t offset);

#endif
