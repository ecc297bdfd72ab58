/* SPDX-License-Identifier: Apache-2.0 */
/* The file of an initial RAM disk, which is hostile like the kernel's. Errors name its path. */
#ifndef FIRMWARE_INITRD_H
#define FIRMWARE_INITRD_H

#include <stdint.h>

#include "base/err.h"

/* *ret: a duplicate, the caller's; -1 where none is given (-1). 0 or a negative errno. */
int initrd_take(int given, const char *path, int *ret, struct err *err);
/* How large it is now; 0 where there is none (-1). -EINVAL, -EISDIR: not a file with something in
 * it. */
int initrd_size(int fd, const char *path, uint64_t *ret, struct err *err);

#endif
