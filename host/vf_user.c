// SPDX-License-Identifier: Apache-2.0
// The present user of a function, checked before the function is taken away; and the lock of those
// who change one.
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "host/disk_users.h"
#include "host/vf.h"
#include "host/vf_impl.h"

/* Unbinding a device from VFIO waits in the kernel until its user closes it, without limit. */
static void vfio_user(const struct host_device *dev, struct vf_user *ret)
{
	char node[HOST_NODE_BYTES];
	int fd;

	host_vfio_user(dev, node, ret->who);
	if (ret->who[0] || !node[0])
		return;
	/* A group can be open once, and not at all while its device is in use as a cdev: tells of
	 * users that another pid namespace hides. */
	fd = open(node, O_RDWR | O_CLOEXEC);
	if (fd < 0 && errno == EBUSY)
		snprintf(ret->who, sizeof(ret->who),
			 "a process that cannot be seen from here (in a container?)");
	fd_close(&fd);
}

static void netdev_user(const struct host_device *dev, struct vf_user *ret)
{
	char name[64], flags[24];

	if (!dev->netdev[0])
		return;
	snprintf(name, sizeof(name), "net/%s/flags", dev->netdev);
	if (host_attribute(dev->bdf, name, flags, sizeof(flags)) <= 0 ||
	    !(strtoul(flags, NULL, 16) & 1)) /* IFF_UP */
		return;
	snprintf(ret->who, sizeof(ret->who), "this host: its interface %s is up", dev->netdev);
	snprintf(ret->remedy, sizeof(ret->remedy), "'ip link set %s down' first", dev->netdev);
}

/* By whom, where /proc and /sys say so. What somebody has claimed cannot be opened exclusively. */
static bool disk_used(const char *node, char *text, size_t bytes)
{
	struct stat st;
	cleanup_fd int fd = -1;

	if (stat(node, &st) == 0 && disk_users_find("", &st, text, bytes))
		return true;
	fd = open(node, O_RDONLY | O_EXCL | O_CLOEXEC);
	snprintf(text, bytes, "something has claimed it");
	return fd < 0 && errno == EBUSY;
}

static void disk_user(const struct host_device *dev, struct vf_user *ret)
{
	char pattern[96];
	glob_t found;

	snprintf(pattern, sizeof(pattern), "/sys/bus/pci/devices/%s/nvme/nvme*/nvme*n*", dev->bdf);
	if (glob(pattern, 0, NULL, &found))
		return;
	for (size_t i = 0; i < found.gl_pathc && !ret->who[0]; i++) {
		const char *disk = strrchr(found.gl_pathv[i], '/') + 1;
		char node[64], user[128];

		snprintf(node, sizeof(node), "/dev/%s", disk);
		if (disk_used(node, user, sizeof(user)))
			snprintf(ret->who, sizeof(ret->who), "this host: its disk %s: %s", disk,
				 user);
	}
	globfree(&found);
}

void vf_user(const struct host_device *dev, struct vf_user *ret)
{
	*ret = (struct vf_user){.remedy = "end it first"};
	if (dev->driver[0]) /* vfio-pci, or one of its variants: they have names of all kinds */
		vfio_user(dev, ret);
	if (!ret->who[0])
		netdev_user(dev, ret);
	if (!ret->who[0])
		disk_user(dev, ret);
}

int vf_lock(const char *bdf)
{
	char path[96];
	int fd;

	/* A file that only root can open, and that nothing is ever written to: nobody else can hold
	 * us up by locking it. */
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/rescan", bdf);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	while (fd >= 0 && flock(fd, LOCK_EX) < 0 && errno == EINTR)
		;
	return fd;
}
