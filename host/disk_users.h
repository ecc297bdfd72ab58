/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who else on this host uses a disk: a mount, swap, a device on top of it (device mapper, RAID), a
 * loop device whose backing it is, a target that exports it. The kernel lets two write to it, and
 * neither knows of the other.
 *
 * It says what this process can see: not the mounts of another namespace. Whoever opens a block
 * device by its path asks for it exclusively (O_EXCL) as well, which sees all of them.
 *
 * Threads: no state; any thread.
 */
#ifndef HOST_DISK_USERS_H
#define HOST_DISK_USERS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

/* The first user of the block device (its partitions', too) or regular file that st is of: "mounted
 * at /mnt". false: none. root is in front of /proc and /sys: "", but for tests. */
bool disk_users_find(const char *root, const struct stat *st, char *text, size_t bytes);

#endif
