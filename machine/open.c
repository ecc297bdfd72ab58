// SPDX-License-Identifier: Apache-2.0
// Opening KVM, boot files and files for output, with messages that name the remedy.
#include "machine/open.h"

#include <errno.h>
#include <fcntl.h>
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
	/* Of a pipe the open would wait for a writer. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;

	if (fd < 0)
		return err_set(err, -errno, "%s '%s': %s", what, path, err_name(errno));
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && fd_set_blocking(fd) == 0)
		return fd;
	err_set(err, -EINVAL, "%s '%s': is %s, not a file", what, path,
		S_ISDIR(st.st_mode) ? "a directory" : "a device or pipe");
	close(fd);
	return -EINVAL;
}

int open_output(const char *what, const char *id, const char *path, struct err *err)
{
	/* In a directory that others can write to, a link could lead to any file of ours. */
	cleanup_fd int fd = open(
		path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK, 0600);
	struct stat st;
	int ret;

	if (fd < 0)
		return err_set(err, -errno, "%s '%s': '%s': %s", what, id, path,
			       errno == ELOOP   ? "is a symbolic link; give the file that is meant"
			       : errno == ENXIO ? "is a pipe that nobody reads"
						: err_name(errno));
	if (fstat(fd, &st) != 0)
		return err_set(err, -errno, "%s '%s': '%s': %s", what, id, path, err_name(errno));
	if (S_ISREG(st.st_mode) && st.st_nlink > 1)
		return err_set(
			err, -EMLINK,
			"%s '%s': '%s': has other names too (hard links); give a file of its own",
			what, id, path);
	if (S_ISBLK(st.st_mode))
		return err_set(err, -EINVAL, "%s '%s': '%s': is a block device", what, id, path);
	if ((S_ISREG(st.st_mode) && ftruncate(fd, 0) != 0) || fd_set_blocking(fd) != 0)
		return err_set(err, -errno, "%s '%s': '%s': %s", what, id, path, err_name(errno));
	ret = fd;
	fd = -1;
	return ret;
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
