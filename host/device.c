// SPDX-License-Identifier: Apache-2.0
// The PCI functions of this host, read from sysfs anew at each call.
#include "host/device.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/holder.h"
#include "base/mem.h"
#include "base/num.h"
#include "host/parse.h"

#define DEVICES "/sys/bus/pci/devices"
#define GROUPS  "/sys/kernel/iommu_groups"

/* All of a small file, terminated, without the newline at its end: length or a negative errno. */
static ssize_t read_text(const char *path, char *text, size_t bytes)
{
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t n = 0;

	text[0] = '\0';
	if (fd < 0)
		return -errno;
	while (n < bytes - 1) {
		ssize_t got = read(fd, text + n, bytes - 1 - n);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			text[0] = '\0';
			return -errno;
		}
		if (got == 0)
			break;
		n += (size_t)got;
	}
	text[n] = '\0';
	if (n && text[n - 1] == '\n')
		text[--n] = '\0';
	return (ssize_t)n;
}

/* The last component of a symbolic link's target; "" and false if path is no link. */
static bool link_name(const char *path, char *name, size_t bytes)
{
	char target[PATH_MAX];
	ssize_t n = readlink(path, target, sizeof(target) - 1);
	const char *slash;

	name[0] = '\0';
	if (n < 0)
		return false;
	target[n] = '\0';
	slash = strrchr(target, '/');
	snprintf(name, bytes, "%s", slash ? slash + 1 : target);
	return true;
}

/* The path of an attribute of a device whose address is canonical, so that no other file is
 * meant. */
static int device_path(const char *bdf, const char *name, char path[PATH_MAX])
{
	char canonical[HOST_BDF_BYTES];

	if (!host_parse_bdf(bdf, canonical) || strcmp(bdf, canonical) != 0)
		return -EINVAL;
	snprintf(path, PATH_MAX, DEVICES "/%s/%s", bdf, name);
	return 0;
}

ssize_t host_attribute(const char *bdf, const char *name, char *text, unsigned int bytes)
{
	char path[PATH_MAX];
	int rc = device_path(bdf, name, path);

	text[0] = '\0';
	return rc ? rc : read_text(path, text, bytes);
}

int host_set_attribute(const char *bdf, const char *name, const char *value, struct err *err)
{
	char path[PATH_MAX];
	cleanup_fd int fd = -1;
	int rc = device_path(bdf, name, path);

	if (rc)
		return err_set(err, rc, "'%s' is no PCI address like 0000:01:10.0", bdf);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return err_set(err, -errno, "%s: cannot open for writing: %s%s", path,
			       err_name(errno), errno == EACCES ? "; try again as root" : "");
	/* sysfs takes a value in one write. */
	do {
		rc = write(fd, value, strlen(value)) < 0 ? -errno : 0;
	} while (rc == -EINTR);
	if (rc)
		return err_set(err, rc, "%s: the kernel refuses '%s': %s", path, value,
			       err_name(rc));
	return 0;
}

/* A number in an attribute; fallback when there is none. */
static long long number(const char *bdf, const char *name, long long fallback)
{
	char text[64], *end;
	long long v;

	if (host_attribute(bdf, name, text, sizeof(text)) <= 0)
		return fallback;
	v = strtoll(text, &end, 0);
	return end != text ? v : fallback;
}

static bool exists(const char *bdf, const char *name)
{
	char path[PATH_MAX];

	return device_path(bdf, name, path) == 0 && access(path, F_OK) == 0;
}

/* The first entry of a directory of the device, in order of names, that starts with prefix. */
static bool first_entry(const char *bdf, const char *name, const char *prefix, char *text,
			size_t bytes)
{
	char path[PATH_MAX];
	struct dirent *entry;
	DIR *dir;

	text[0] = '\0';
	if (device_path(bdf, name, path) < 0)
		return false;
	dir = opendir(path);
	if (!dir)
		return false;
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] == '.' || strncmp(entry->d_name, prefix, strlen(prefix)) != 0)
			continue;
		if (!text[0] || strcmp(entry->d_name, text) < 0)
			snprintf(text, bytes, "%s", entry->d_name);
	}
	closedir(dir);
	return text[0];
}

/* ---- one device ---- */

static void read_driver(struct host_device *d)
{
	char path[PATH_MAX];

	if (device_path(d->bdf, "driver", path) == 0)
		link_name(path, d->driver, sizeof(d->driver));
	if (host_attribute(d->bdf, "driver_override", d->driver_override,
			   sizeof(d->driver_override)) < 0 ||
	    strcmp(d->driver_override, "(null)") == 0)
		d->driver_override[0] = '\0';
}

static void read_group(struct host_device *d)
{
	char path[PATH_MAX], name[16];

	d->group = -1;
	if (device_path(d->bdf, "iommu_group", path) < 0 || !link_name(path, name, sizeof(name)))
		return;
	d->group = atoi(name);
	snprintf(path, sizeof(path), GROUPS "/%d/type", d->group);
	read_text(path, d->group_type, sizeof(d->group_type));
}

/* The index of a VF among those of its PF. */
static unsigned int vf_index(const struct host_device *d)
{
	for (unsigned int i = 0;; i++) {
		char name[32], path[PATH_MAX], bdf[HOST_BDF_BYTES];

		snprintf(name, sizeof(name), "virtfn%u", i);
		if (device_path(d->pf, name, path) < 0 || !link_name(path, bdf, sizeof(bdf)))
			return 0; /* gone meanwhile */
		if (strcmp(bdf, d->bdf) == 0)
			return i;
	}
}

static void read_sriov(struct host_device *d)
{
	char path[PATH_MAX];

	d->max_vfs = (unsigned int)number(d->bdf, "sriov_totalvfs", 0);
	d->vfs = (unsigned int)number(d->bdf, "sriov_numvfs", 0);
	if (device_path(d->bdf, "physfn", path) < 0)
		return;
	d->is_vf = link_name(path, d->pf, sizeof(d->pf));
	if (d->is_vf)
		d->vf_index = vf_index(d);
}

static void read_config(struct host_device *d)
{
	char path[PATH_MAX], text[256];
	struct host_config config;
	uint8_t bytes[256];
	cleanup_fd int fd = -1;
	ssize_t n = 0;

	if (device_path(d->bdf, "config", path) == 0)
		fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		n = pread(fd, bytes, sizeof(bytes), 0);
	host_config_parse(bytes, n > 0 ? (unsigned int)n : 0, &config);
	d->msix = config.msix;
	d->msi = config.msi;
	d->pin = config.pin;
	/* Capabilities are hidden from ordinary users; sysfs shows the link of Express
	 * functions. */
	d->express = config.express || exists(d->bdf, "max_link_speed");
	if (host_attribute(d->bdf, "reset_method", text, sizeof(text)) >= 0)
		d->resets = host_parse_resets(text);
	else if (exists(d->bdf, "reset")) /* before Linux 5.15 the method is not shown */
		d->resets = config.resets ? config.resets : HOST_RESET_BUS;
}

/* A kernel without VFIO_DEVICE_CDEV has the entry, and no device node for it. */
static int cdev_number(const char *bdf, const char *entry)
{
	char name[64];

	snprintf(name, sizeof(name), "vfio-dev/%.32s/dev", entry);
	return exists(bdf, name) ? atoi(entry + strlen("vfio")) : -1;
}

int host_read(struct host_device *ret, const char *bdf, struct err *err)
{
	char text[1024];

	memset(ret, 0, sizeof(*ret));
	if (!host_parse_bdf(bdf, ret->bdf) || strcmp(bdf, ret->bdf) != 0)
		return err_set(err, -EINVAL, "'%s' is no PCI address like 0000:01:10.0", bdf);
	if (!exists(bdf, "vendor"))
		return err_set(err, -ENODEV, "%s: no such PCI device on this host", bdf);
	ret->vendor = (uint16_t)number(bdf, "vendor", 0xffff);
	ret->device = (uint16_t)number(bdf, "device", 0xffff);
	ret->subsystem_vendor = (uint16_t)number(bdf, "subsystem_vendor", 0);
	ret->subsystem = (uint16_t)number(bdf, "subsystem_device", 0);
	ret->class_code = (uint32_t)number(bdf, "class", 0) & 0xffffff;
	ret->numa_node = (int)number(bdf, "numa_node", -1);
	read_driver(ret);
	read_group(ret);
	read_sriov(ret);
	read_config(ret);
	if (host_attribute(bdf, "resource", text, sizeof(text)) > 0)
		host_parse_resource(text, ret->bars);
	first_entry(bdf, "net", "", ret->netdev, sizeof(ret->netdev));
	ret->vfio_cdev = -1;
	if (first_entry(bdf, "vfio-dev", "vfio", text, sizeof(text)))
		ret->vfio_cdev = cdev_number(bdf, text);
	return 0;
}

/* ---- several ---- */

static int by_address(const void *a, const void *b)
{
	const struct host_device *x = a, *y = b;

	return host_parse_compare(x->bdf, y->bdf);
}

/* Every device whose link is in the directory. */
static int list_in(const char *path, struct host_device **ret, unsigned int *n, struct err *err)
{
	struct host_device *devices = NULL;
	unsigned int count = 0, room = 0;
	struct dirent *entry;
	DIR *dir = opendir(path);
	int rc = 0;

	*ret = NULL;
	*n = 0;
	if (!dir)
		return err_set(err, -errno, "%s: cannot list: %s", path, err_name(errno));
	while ((entry = readdir(dir))) {
		char bdf[HOST_BDF_BYTES];

		if (!host_parse_bdf(entry->d_name, bdf)) /* ".", "..", other buses' members */
			continue;
		if (count == room) {
			struct host_device *more;

			room = room ? room * 2 : 32;
			more = reallocarray(devices, room, sizeof(*devices));
			if (!more) {
				rc = err_set(err, -ENOMEM, "no memory to list %s", path);
				break;
			}
			devices = more;
		}
		/* One that went away meanwhile is not in the list. */
		if (host_read(&devices[count], bdf, NULL) == 0)
			count++;
	}
	closedir(dir);
	if (rc) {
		free(devices);
		return rc;
	}
	if (count)
		qsort(devices, count, sizeof(*devices), by_address);
	*ret = devices;
	*n = count;
	return 0;
}

int host_list(struct host_device **ret, unsigned int *n, struct err *err)
{
	return list_in(DEVICES, ret, n, err);
}

int host_group(int group, struct host_device **ret, unsigned int *n, struct err *err)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), GROUPS "/%d/devices", group);
	return list_in(path, ret, n, err);
}

unsigned int host_aperture_bits(const char *bdf)
{
	char text[64];
	const char *word;

	if (host_attribute(bdf, "iommu/intel-iommu/cap", text, sizeof(text)) > 0)
		return host_parse_vtd_bits(strtoull(text, NULL, 16));
	if (host_attribute(bdf, "iommu/amd-iommu/features", text, sizeof(text)) > 0) {
		word = strrchr(text, ':'); /* newer kernels show a second register before it */
		return host_parse_amd_bits(strtoull(word ? word + 1 : text, NULL, 16));
	}
	return 0;
}

/* ---- finding ---- */

/* The PCI device that a sysfs path lies in: the last address in the resolved path. */
static bool bdf_of_path(const char *path, char bdf[HOST_BDF_BYTES])
{
	char resolved[PATH_MAX], *save = NULL;
	bool found = false;

	if (!realpath(path, resolved) || strncmp(resolved, "/sys/", 5) != 0)
		return false;
	for (char *part = strtok_r(resolved, "/", &save); part; part = strtok_r(NULL, "/", &save)) {
		char one[HOST_BDF_BYTES];

		if (host_parse_bdf(part, one)) {
			memcpy(bdf, one, sizeof(one));
			found = true;
		}
	}
	return found;
}

/* A character device that belongs to a PCI function: the cdev of VFIO. */
static bool bdf_of_cdev(const char *path, char bdf[HOST_BDF_BYTES])
{
	char link[64];
	struct stat st;

	if (stat(path, &st) < 0 || !S_ISCHR(st.st_mode))
		return false;
	snprintf(link, sizeof(link), "/sys/dev/char/%u:%u/device", major(st.st_rdev),
		 minor(st.st_rdev));
	return bdf_of_path(link, bdf);
}

/* Up to three similar ones: on the same bus, or in the same slot of another. */
static void similar(const char *bdf, char *text, size_t bytes)
{
	struct host_device *devices;
	unsigned int n, found = 0;
	size_t used = 0;

	text[0] = '\0';
	if (host_list(&devices, &n, NULL) < 0)
		return;
	for (unsigned int i = 0; i < n && found < 3; i++) {
		const char *other = devices[i].bdf;
		size_t bus = strlen(bdf) - strlen("10.0");

		if (strncmp(bdf, other, bus) != 0 && strcmp(bdf + bus, other + bus) != 0)
			continue;
		used += (size_t)snprintf(text + used, bytes - used, "%s%s",
					 found++ ? ", " : "; there is ", other);
	}
	free(devices);
}

int host_find(const char *text, char bdf[HOST_BDF_BYTES], struct err *err)
{
	char others[80];

	if (strchr(text, '/')) {
		if (bdf_of_path(text, bdf) || bdf_of_cdev(text, bdf))
			return 0;
		if (access(text, F_OK) < 0)
			return err_set(err, -errno, "%s: %s", text, err_name(errno));
		return err_set(err, -EINVAL,
			       "%s: leads to no PCI device; give an address (0000:01:10.0), a path "
			       "in /sys/bus/pci/devices, or /dev/vfio/devices/vfioN",
			       text);
	}
	if (!host_parse_bdf(text, bdf))
		return err_set(err, -EINVAL,
			       "'%s' is no PCI device; give its address (0000:01:10.0 or 01:10.0), "
			       "a path in /sys/bus/pci/devices, or /dev/vfio/devices/vfioN",
			       text);
	if (exists(bdf, "vendor"))
		return 0;
	similar(bdf, others, sizeof(others));
	return err_set(err, -ENODEV, "%s: no such PCI device on this host%s ('lspci -D' lists all)",
		       bdf, others);
}

/* ---- users ---- */

void host_user_of(const char *path, const char *bdf, char *text, unsigned int bytes)
{
	char label[HOLDER_LABEL_BYTES];
	struct holder holder;
	struct stat st;

	text[0] = '\0';
	if (stat(path, &st) < 0 || !holder_find(&holder, &st, 1, 0))
		return;
	if (!holder.name[0])
		snprintf(holder.name, sizeof(holder.name), "process");
	if (bdf && holder_announced(holder.pid, bdf, label))
		snprintf(text, bytes, "VM '%s' (%s, pid %d)", label, holder.name, (int)holder.pid);
	else
		snprintf(text, bytes, "%s (pid %d)", holder.name, (int)holder.pid);
}

void host_vfio_user(const struct host_device *dev, char node[HOST_NODE_BYTES],
		    char who[HOST_USER_BYTES])
{
	node[0] = who[0] = '\0';
	if (dev->vfio_cdev >= 0) {
		snprintf(node, HOST_NODE_BYTES, "/dev/vfio/devices/vfio%d", dev->vfio_cdev);
		host_user_of(node, dev->bdf, who, HOST_USER_BYTES);
	}
	if (who[0])
		return;
	node[0] = '\0';
	if (dev->group < 0)
		return;
	snprintf(node, HOST_NODE_BYTES, "/dev/vfio/%d", dev->group);
	host_user_of(node, dev->bdf, who, HOST_USER_BYTES);
}
