// SPDX-License-Identifier: Apache-2.0
// The file of an initial RAM disk. See initrd.h.
#include "firmware/initrd.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/fd.h"

int initrd_take(int given, const char *path, int *ret, struct err *err)
{
	*ret = given < 0 ? -1 : fd_dup(given);
	if (given < 0 || *ret >= 0)
		return 0;
	return err_set(err, *ret, "initrd '%s': %s", path, err_name(*ret));
}

int initrd_size(int fd, const char *path, uint64_t *ret, struct err *err)
{
	struct stat st;

	*ret = 0;
	if (fd < 0)
		return 0;
	if (fstat(fd, &st))
		return err_set(err, -errno, "initrd '%s': %s", path, err_name(errno));
	if (S_ISDIR(st.st_mode))
		return err_set(err, -EISDIR, "initrd '%s': is a directory", path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "initrd '%s': not a regular file", path);
	if (!st.st_size)
		return err_set(err, -EINVAL, "initrd '%s': is empty", path);
	*ret = (uint64_t)st.st_size;
	return 0;
}
