/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that are no raw disks, by the signature of their format: images of other machines' disks,
 * and compressed ones. A guest would see their headers as its first sectors, and write over them.
 *
 * What raw disks hold is not among them: partition tables, file systems, LUKS, archives.
 *
 * Threads: no state; any thread.
 */
#ifndef MACHINE_DISK_FORMAT_H
#define MACHINE_DISK_FORMAT_H

#include <stdint.h>

#include "base/err.h"

/* -EINVAL, with the line that converts it, when the file of so many bytes has the signature of such
 * a format; 0 when it has none, or when its ends cannot be read. name is the disk's in messages,
 * path the file's for that line. */
int disk_format_check(int fd, uint64_t size_bytes, const char *name, const char *path,
		      struct err *err);

#endif
