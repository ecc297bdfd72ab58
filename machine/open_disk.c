// SPDX-License-Identifier: Apache-2.0
// Opening a disk: a raw file or a block device, locked against other machines.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "host/disk_users.h"
#include "machine/disk_format.h"
#include "machine/kind_disk.h"
#include "machine/open.h"

int open_disk_size(int fd, uint64_t *ret)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return -errno;
	if (S_ISBLK(st.st_mode))
		return ioctl(fd, BLKGETSIZE64, ret) == 0 ? 0 : -errno;
	*ret = (uint64_t)st.st_size;
	return 0;
}

/* What O_DIRECT asks of buffers and offsets; statx knows since 6.1. */
static uint32_t direct_alignment(int fd, bool block_device)
{
	struct statx sx = {0};
	int sector = 0;

#ifdef STATX_DIOALIGN
	if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) == 0 &&
	    sx.stx_mask & STATX_DIOALIGN && sx.stx_dio_offset_align)
		return MAX(sx.stx_dio_offset_align, sx.stx_dio_mem_align);
#else
	(void)sx;
#endif
	if (block_device && ioctl(fd, BLKSSZGET, &sector) == 0 && sector > 0)
		return (uint32_t)sector;
	return 4096;
}

static const char *disk_name(const struct config_disk *disk, char *text, size_t bytes)
{
	if (disk->path)
		snprintf(text, bytes, "disk '%s' (%s)", disk->base.id, disk->path);
	else
		snprintf(text, bytes, "disk '%s' (fd %d)", disk->base.id, disk->fd);
	return text;
}

/* Locks of the open file description: gone with the last fd, whoever crashes. */
static int lock_disk(int fd, bool readonly, const char *name, struct err *err)
{
	struct flock lock = {.l_type = (short)(readonly ? F_RDLCK : F_WRLCK), .l_whence = SEEK_SET};

	if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
		return 0;
	if (errno == EAGAIN || errno == EACCES)
		return err_set(
			err, -EBUSY,
			"%s: in use: another machine (or this one) has it open%s; stop that one, "
			"or use readonly=on for both",
			name, readonly ? " for writing" : "");
	if (errno == EINVAL || errno == EOPNOTSUPP || errno == ENOLCK)
		return 0; /* a file system without locks */
	return err_set(err, -errno, "%s: cannot lock: %s", name, err_name(errno));
}

int open_disk_hold(const struct config_disk *disk, int fd, bool hold, struct err *err)
{
	struct flock none = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
	char name[200];

	disk_name(disk, name, sizeof(name));
	if (hold)
		return lock_disk(fd, disk->readonly, name, err);
	(void)fcntl(fd, F_OFD_SETLK, &none); /* a file system without locks has none to give up */
	return 0;
}

static int refuse_used(const char *user, const char *name, struct err *err)
{
	return err_set(err, -EBUSY, "%s: in use on this host: %s; end that, or give readonly=on",
		       name, user);
}

/* A block device that was asked for exclusively is not to be had. */
static int explain_busy(const char *path, const char *name, struct err *err)
{
	char user[256];
	struct stat st;

	if (stat(path, &st) != 0 || !disk_users_find("", &st, user, sizeof(user)))
		return refuse_used("another program, another machine or a mount has it", name, err);
	return refuse_used(user, name, err);
}

/* A disk, that nobody else of this host uses, and raw. */
static int check_contents(const struct config_disk *disk, struct open_disk *ret, const char *name,
			  struct err *err)
{
	char user[256], fd_path[32];
	struct stat st;

	if (fstat(ret->fd, &st) != 0)
		return err_set(err, -errno, "%s: %s", name, err_name(errno));
	if (S_ISDIR(st.st_mode))
		return err_set(err, -EISDIR, "%s: is a directory", name);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return err_set(err, -EINVAL, "%s: is a device or pipe, not a disk or file", name);
	if (!disk->readonly && disk_users_find("", &st, user, sizeof(user)))
		return refuse_used(user, name, err);
	ret->block_device = S_ISBLK(st.st_mode);
	if (open_disk_size(ret->fd, &ret->size_bytes) != 0)
		return err_set(err, -EIO, "%s: cannot tell its size", name);
	if (disk->format == CONFIG_FORMAT_RAW)
		return 0;
	if (disk->format == CONFIG_FORMAT_QCOW2)
		return err_set(err, -EOPNOTSUPP,
			       "%s: qcow2 needs a daemon, which 'hospes run' and 'hospes ctl NAME "
			       "add' start for what they get by path, and the library does not: "
			       "start qemu-storage-daemon and give vhost_user",
			       name);
	snprintf(fd_path, sizeof(fd_path), "/dev/fd/%d", disk->fd);
	return disk_format_check(ret->fd, ret->size_bytes, name, disk->path ? disk->path : fd_path,
				 err);
}

static int check_disk(const struct config_disk *disk, bool hold, struct open_disk *ret,
		      const char *name, struct err *err)
{
	int flags = fcntl(ret->fd, F_GETFL);
	int rc;

	if (flags < 0)
		return err_set(err, -errno, "%s: %s", name, err_name(errno));
	rc = check_contents(disk, ret, name, err);
	if (rc)
		return rc;
	if (!disk->readonly && (flags & O_ACCMODE) == O_RDONLY)
		return err_set(err, -EACCES, "%s: the fd is read-only; say readonly=on", name);
	if (ret->size_bytes == 0)
		return err_set(err, -EINVAL, "%s: is empty; make it larger by 'truncate -s 1G'",
			       name);
	ret->align_bytes = flags & O_DIRECT ? direct_alignment(ret->fd, ret->block_device) : 1;
	ret->block_bytes = disk->block_bytes;
	if (!ret->block_bytes)
		ret->block_bytes = MAX(ret->align_bytes, 512u);
	if (ret->size_bytes % ret->block_bytes)
		return err_set(err, -EINVAL,
			       "%s: %" PRIu64 " bytes is not a multiple of %u; 'truncate -s %%%u' "
			       "rounds it up",
			       name, ret->size_bytes, ret->block_bytes, ret->block_bytes);
	return hold ? lock_disk(ret->fd, disk->readonly, name, err) : 0;
}

int open_disk(const struct config_disk *disk, bool hold, struct open_disk *ret, struct err *err)
{
	/* Of a pipe the open would wait for a writer. O_EXCL is about block devices: nobody else of
	 * the host may use one that is written; the source of a migration still does. */
	int flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK |
		    (disk->readonly ? O_RDONLY
		     : hold         ? O_RDWR | O_EXCL
				    : O_RDWR) |
		    (disk->cache == CONFIG_CACHE_DIRECT ? O_DIRECT : 0);
	char name[200];
	int rc;

	*ret = (struct open_disk){.fd = -1};
	disk_name(disk, name, sizeof(name));
	if (disk->path) {
		ret->fd = open(disk->path, flags);
		if (ret->fd < 0 && errno == EINVAL && flags & O_DIRECT)
			return err_set(err, -EINVAL,
				       "%s: its file system has no direct I/O; use cache=writeback",
				       name);
		if (ret->fd < 0 && errno == EBUSY)
			return explain_busy(disk->path, name, err);
		if (ret->fd < 0 && (errno == EACCES || errno == EROFS) && !disk->readonly)
			return err_set(err, -errno, "%s: %s; readonly=on needs less", name,
				       err_name(errno));
	} else {
		ret->fd = fcntl(disk->fd, F_DUPFD_CLOEXEC, 3);
	}
	if (ret->fd < 0)
		return err_set(err, -errno, "%s: %s", name, err_name(errno));
	rc = check_disk(disk, hold, ret, name, err);
	/* With O_NONBLOCK io_uring would not wait for a disk either. */
	if (!rc && disk->path && (rc = fd_set_blocking(ret->fd)))
		err_set(err, rc, "%s: %s", name, err_name(rc));
	if (rc)
		fd_close(&ret->fd);
	return rc;
}
