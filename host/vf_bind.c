// SPDX-License-Identifier: Apache-2.0
// Which driver a function has. driver_override is written first and stays: it decides whenever the
// kernel looks for a driver again (after a reset of the PF, a rescan), so that nobody else gets it.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "host/vf.h"
#include "host/vf_impl.h"

/* The device, as it is while *lock is held. */
static int find_device(const char *text, struct host_device *ret, int *lock, struct err *err)
{
	char bdf[HOST_BDF_BYTES];
	int rc = host_find(text, bdf, err);

	if (rc)
		return rc;
	*lock = vf_lock(bdf);
	return host_read(ret, bdf, err);
}

/* The address into a file of a driver ("bind", "unbind"): 0 or a negative errno. */
static int notify_driver(const char *driver, const char *file, const char *bdf)
{
	char path[128];
	cleanup_fd int fd = -1;

	snprintf(path, sizeof(path), "/sys/bus/pci/drivers/%s/%s", driver, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	return write(fd, bdf, strlen(bdf)) < 0 ? -errno : 0;
}

/* "" is written as a newline: an empty write never reaches the kernel's attribute. */
static int set_override(const char *bdf, const char *driver, struct err *err)
{
	int rc = host_set_attribute(bdf, "driver_override", driver[0] ? driver : "\n", err);

	if (rc == -EACCES || rc == -EPERM || rc == -EROFS)
		return err_set(err, rc, "%s: cannot change its driver: %s; run this as root (sudo)",
			       bdf, err_name(rc));
	return rc;
}

static int check_driver(const char *bdf, const char *driver, struct err *err)
{
	char path[128];

	if (!driver[0] || strlen(driver) >= sizeof(((struct host_device *)0)->driver) ||
	    strchr(driver, '/') || driver[0] == '.')
		return err_set(err, -EINVAL, "%s: '%s' is no name of a driver", bdf, driver);
	snprintf(path, sizeof(path), "/sys/bus/pci/drivers/%s", driver);
	if (access(path, F_OK) == 0)
		return 0;
	return err_set(err, -ENOENT,
		       "%s: the driver %s is not loaded; 'modprobe %s' first, or look for the name "
		       "in /sys/bus/pci/drivers",
		       bdf, driver, driver);
}

static int check_unused(const struct host_device *dev, struct err *err)
{
	struct vf_user user;

	vf_user(dev, &user);
	return user.who[0] ? err_set(err, -EBUSY, "%s: in use by %s; %s", dev->bdf, user.who,
				     user.remedy)
			   : 0;
}

/* Why did the driver refuse it? */
static int not_taken(const struct host_device *dev, const char *driver, int rc, struct err *err)
{
	const char *hint = "the kernel's log ('dmesg') may say why";

	if (strcmp(driver, "vfio-pci") == 0 && dev->group < 0)
		hint = "no IOMMU translates for it: switch it on in the firmware set-up, and boot "
		       "with intel_iommu=on where it needs that";
	else if (rc == -EBUSY && strcmp(driver, "vfio-pci") == 0)
		hint = "does another member of its IOMMU group have a host driver? "
		       "'hospes device explain' lists them";
	return err_set(err, rc ? rc : -ENODEV, "%s: %s did not take it: %s; %s", dev->bdf, driver,
		       rc ? err_name(rc) : "no error reported", hint);
}

/* Restore the override and the driver. */
static void put_back(const struct host_device *dev)
{
	(void)set_override(dev->bdf, dev->driver[0] ? dev->driver : dev->driver_override, NULL);
	if (dev->driver[0])
		(void)notify_driver(dev->driver, "bind", dev->bdf);
	(void)set_override(dev->bdf, dev->driver_override, NULL);
}

int vf_bind(const char *bdf, const char *driver, struct err *err)
{
	struct host_device dev, now;
	cleanup_fd int lock = -1;
	int rc = find_device(bdf, &dev, &lock, err);

	if (rc)
		return rc;
	if (!driver)
		driver = "vfio-pci";
	rc = check_driver(dev.bdf, driver, err);
	if (!rc && strcmp(dev.driver, driver) == 0)
		return strcmp(dev.driver_override, driver) ? set_override(dev.bdf, driver, err) : 0;
	if (!rc)
		rc = check_unused(&dev, err);
	if (!rc)
		rc = set_override(dev.bdf, driver, err);
	if (rc)
		return rc;
	if (dev.driver[0])
		rc = notify_driver(dev.driver, "unbind", dev.bdf);
	if (rc) {
		err_set(err, rc, "%s: %s does not let it go: %s", dev.bdf, dev.driver,
			err_name(rc));
		put_back(&dev);
		return rc;
	}
	rc = notify_driver(driver, "bind", dev.bdf);
	if (rc == 0)
		rc = host_read(&now, dev.bdf, err);
	if (rc == 0 && strcmp(now.driver, driver) == 0)
		return 0;
	rc = not_taken(&dev, driver, rc, err);
	put_back(&dev);
	return rc;
}

/* A node that is not there is no way to the device. */
static int own_node(const char *path, uid_t uid, bool *found, struct err *err)
{
	if (lchown(path, uid, (gid_t)-1) == 0)
		*found = true;
	else if (errno != ENOENT)
		return err_set(err, -errno, "%s cannot be given to user %u: %s%s", path, uid,
			       err_name(errno), errno == EPERM ? "; run this as root (sudo)" : "");
	return 0;
}

int vf_own(const char *bdf, uid_t uid, struct err *err)
{
	char cdev[HOST_NODE_BYTES], group[HOST_NODE_BYTES];
	struct host_device dev;
	cleanup_fd int lock = -1;
	bool found = false;
	int rc = find_device(bdf, &dev, &lock, err);

	if (rc)
		return rc;
	if (strcmp(dev.driver, "vfio-pci") != 0)
		return err_set(
			err, -ENODEV,
			"%s: vfio-pci does not have it, but %s: bind it first (hospes vf bind "
			"%s)",
			dev.bdf, dev.driver[0] ? dev.driver : "no driver", dev.bdf);
	snprintf(cdev, sizeof(cdev), "/dev/vfio/devices/vfio%d", dev.vfio_cdev);
	snprintf(group, sizeof(group), "/dev/vfio/%d", dev.group);
	if (dev.vfio_cdev >= 0)
		rc = own_node(cdev, uid, &found, err);
	if (!rc && dev.group >= 0)
		rc = own_node(group, uid, &found, err);
	return rc || found ? rc
			   : err_set(err, -ENOENT,
				     "%s: has no node in /dev/vfio: is devtmpfs "
				     "mounted?",
				     dev.bdf);
}

int vf_unbind(const char *bdf, struct err *err)
{
	struct host_device dev;
	cleanup_fd int lock = -1;
	int rc = find_device(bdf, &dev, &lock, err);

	if (!rc && dev.driver[0])
		rc = check_unused(&dev, err);
	if (!rc && dev.driver_override[0])
		rc = set_override(dev.bdf, "", err);
	if (rc || !dev.driver[0])
		return rc;
	rc = notify_driver(dev.driver, "unbind", dev.bdf);
	if (!rc)
		return 0;
	if (rc == -EACCES || rc == -EPERM)
		err_set(err, rc, "%s: cannot change its driver: %s; run this as root (sudo)",
			dev.bdf, err_name(rc));
	else
		err_set(err, rc, "%s: %s does not let it go: %s", dev.bdf, dev.driver,
			err_name(rc));
	put_back(&dev);
	return rc;
}
