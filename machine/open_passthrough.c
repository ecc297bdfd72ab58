// SPDX-License-Identifier: Apache-2.0
// Finding and opening a PCI device that is passed through: VFIO's character device or its group.
#include "machine/open_passthrough.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"

int open_passthrough_find(const struct config_passthrough *p, struct open_passthrough *ret,
			  struct err *err)
{
	char path[32];
	int rc;

	*ret = (struct open_passthrough){.host = {.group = -1, .vfio_cdev = -1}};
	if (p->fd >= 0 && fcntl(p->fd, F_GETFD) < 0)
		return err_set(err, -EBADF, "passthrough '%s': fd %d is not open", p->base.id,
			       p->fd);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", p->fd);
	rc = host_find(p->device ? p->device : path, ret->bdf, err);
	if (rc && p->fd < 0)
		return err_prefix(err, "passthrough '%s'", p->base.id);
	/* With an fd, what the host tells is welcome but not needed: a container may have no
	 * sysfs. */
	if (rc && p->device)
		snprintf(ret->bdf, sizeof(ret->bdf), "%s", p->device);
	if (rc)
		return 0;
	rc = host_read(&ret->host, ret->bdf, err);
	ret->known = rc == 0;
	return rc && p->fd < 0 ? err_prefix(err, "passthrough '%s'", p->base.id) : 0;
}

static int not_bound(const struct host_device *host, struct err *err)
{
	return err_set(err, -ENODEV, "%s: bound to %s, not vfio-pci; run 'hospes vf bind %s'",
		       host->bdf, host->driver[0] ? host->driver : "no driver", host->bdf);
}

static bool is_vfio(const struct host_device *host)
{
	return strstr(host->driver, "vfio") != NULL;
}

static int cannot_open(const char *bdf, const char *path, int error, struct err *err)
{
	char user[HOST_USER_BYTES];

	switch (error) {
	case EACCES:
	case EPERM:
		return err_set(err, -error,
			       "%s: %s: permission denied: give it to this user (sudo chown $USER "
			       "%s), or hand it in opened (fd=N)",
			       bdf, path, path);
	case EBUSY:
		host_user_of(path, bdf, user, sizeof(user));
		return err_set(err, -EBUSY, "%s: %s is in use%s%s; a device is one machine's", bdf,
			       path, user[0] ? " by " : "", user);
	default:
		return err_set(err, -error, "%s: %s: %s", bdf, path, err_name(error));
	}
}

static int open_cdev(const struct config_passthrough *p, const struct host_device *host,
		     struct err *err)
{
	char path[64];
	int fd;

	if (!is_vfio(host))
		return not_bound(host, err);
	if (host->vfio_cdev < 0)
		return err_set(err, -ENOENT,
			       "%s: has no /dev/vfio/devices/vfioN: this kernel lacks "
			       "CONFIG_VFIO_DEVICE_CDEV; use --iommu type1",
			       host->bdf);
	snprintf(path, sizeof(path), "/dev/vfio/devices/vfio%d", host->vfio_cdev);
	/* The user's own name of it, which may be somewhere else in a container. */
	if (p->device && strncmp(p->device, "/dev/", 5) == 0 && strlen(p->device) < sizeof(path))
		snprintf(path, sizeof(path), "%s", p->device);
	fd = open(path, O_RDWR | O_CLOEXEC);
	return fd < 0 ? cannot_open(host->bdf, path, errno, err) : fd;
}

static int open_group(const struct host_device *host, struct err *err)
{
	char path[32];
	int fd;

	if (!is_vfio(host))
		return not_bound(host, err);
	if (host->group < 0)
		return err_set(err, -ENODEV,
			       "%s: is in no IOMMU group, so nothing translates its accesses; "
			       "'hospes device explain %s' says why",
			       host->bdf, host->bdf);
	snprintf(path, sizeof(path), "/dev/vfio/%d", host->group);
	fd = open(path, O_RDWR | O_CLOEXEC);
	return fd < 0 ? cannot_open(host->bdf, path, errno, err) : fd;
}

int open_passthrough_fd(const struct config_passthrough *p, const struct open_passthrough *device,
			enum iommu_kind kind, struct err *err)
{
	int fd;

	if (p->fd >= 0) {
		if (kind == IOMMU_TYPE1 && !device->bdf[0])
			return err_set(err, -EINVAL,
				       "passthrough '%s': fd %d is a group's: give the device's "
				       "address too (device=0000:01:10.0)",
				       p->base.id, p->fd);
		fd = fd_dup(p->fd);
		return fd < 0 ? err_set(err, fd, "passthrough '%s': fd %d: %s", p->base.id, p->fd,
					err_name(fd))
			      : fd;
	}
	return kind == IOMMU_TYPE1 ? open_group(&device->host, err)
				   : open_cdev(p, &device->host, err);
}
