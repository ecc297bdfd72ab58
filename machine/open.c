// SPDX-License-Identifier: Apache-2.0
// Opening KVM, boot files and disks, with messages that name the way out. Networks: open_net.c.
#include "machine/open.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/num.h"

static int explain_kvm(int error, struct err *err)
{
	switch (error) {
	case ENOENT:
		return err_set(
			err, -ENOENT,
			"/dev/kvm is missing: load the module (modprobe kvm_intel or kvm_amd), "
			"and check that virtualization is on in the firmware");
	case EACCES:
	case EPERM:
		return err_set(err, -error,
			       "/dev/kvm: permission denied: add this user to the group kvm (sudo "
			       "usermod -aG kvm $USER, then log in again)");
	case ENODEV:
	case ENXIO:
		return err_set(
			err, -error,
			"/dev/kvm: no such device: the kvm module found no usable CPU feature");
	default:
		return err_set(err, -error, "/dev/kvm: %s", err_name(error));
	}
}

int open_kvm(struct kvm *kvm, int fd, struct err *err)
{
	int version;

	kvm->fd = fd > 0 ? fd_dup(fd) : open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (fd > 0 && kvm->fd < 0)
		return err_set(err, kvm->fd, "kvm_fd %d: %s", fd, err_name(kvm->fd));
	if (kvm->fd < 0)
		return explain_kvm(errno, err);
	version = kvm_call_value(kvm->calls, kvm->fd, KVM_GET_API_VERSION, 0);
	if (version != KVM_API_VERSION)
		return err_set(err, -EINVAL, "%s is not KVM (API version %d, expected %d)",
			       fd > 0 ? "kvm_fd" : "/dev/kvm", version, KVM_API_VERSION);
	return 0;
}

int open_boot_file(const char *what, const char *path, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return err_set(err, -errno, "%s '%s': %s", what, path, err_name(errno));
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		return fd;
	err_set(err, -EINVAL, "%s '%s': is %s, not a file", what, path,
		S_ISDIR(st.st_mode) ? "a directory" : "a device or pipe");
	close(fd);
	return -EINVAL;
}

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
		snprintf(text, bytes, "disk '%s' (%s)", disk->id, disk->path);
	else
		snprintf(text, bytes, "disk '%s' (fd %d)", disk->id, disk->fd);
	return text;
}

/* Locks of the open file description: gone with the last fd, whoever crashes. */
static int lock_disk(int fd, bool readonly, const char *name, struct err *err)
{
	struct flock lock = {.l_type = readonly ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};

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

static int check_disk(const struct config_disk *disk, struct open_disk *ret, const char *name,
		      struct err *err)
{
	struct stat st;
	int flags = fcntl(ret->fd, F_GETFL);

	if (flags < 0 || fstat(ret->fd, &st) != 0)
		return err_set(err, -errno, "%s: %s", name, err_name(errno));
	if (S_ISDIR(st.st_mode))
		return err_set(err, -EISDIR, "%s: is a directory", name);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return err_set(err, -EINVAL, "%s: is neither a file nor a block device", name);
	if (!disk->readonly && (flags & O_ACCMODE) == O_RDONLY)
		return err_set(err, -EACCES, "%s: the fd is read-only; say readonly=on", name);
	ret->block_device = S_ISBLK(st.st_mode);
	if (open_disk_size(ret->fd, &ret->size_bytes) != 0)
		return err_set(err, -EIO, "%s: cannot tell its size", name);
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
	return lock_disk(ret->fd, disk->readonly, name, err);
}

int open_disk(const struct config_disk *disk, struct open_disk *ret, struct err *err)
{
	int flags = O_CLOEXEC | (disk->readonly ? O_RDONLY : O_RDWR) |
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
		if (ret->fd < 0 && (errno == EACCES || errno == EROFS) && !disk->readonly)
			return err_set(err, -errno, "%s: %s; readonly=on needs less", name,
				       err_name(errno));
	} else {
		ret->fd = fcntl(disk->fd, F_DUPFD_CLOEXEC, 3);
	}
	if (ret->fd < 0)
		return err_set(err, -errno, "%s: %s", name, err_name(errno));
	rc = check_disk(disk, ret, name, err);
	if (rc)
		fd_close(&ret->fd);
	return rc;
}

int open_cache_dir(const struct config_kernel *kernel, char **ret, struct err *err)
{
	const char *base = secure_getenv("XDG_CACHE_HOME");
	const char *home = secure_getenv("HOME");
	int rc = 0;

	*ret = NULL;
	if (!kernel->cache)
		return 0;
	if (kernel->cache_dir)
		rc = asprintf(ret, "%s", kernel->cache_dir);
	else if (base && *base == '/')
		rc = asprintf(ret, "%s/hospes/kernels", base);
	else if (home && *home == '/')
		rc = asprintf(ret, "%s/.cache/hospes/kernels", home);
	if (rc < 0) {
		*ret = NULL;
		return err_set(err, -ENOMEM, "no memory");
	}
	return 0;
}
