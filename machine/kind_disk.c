// SPDX-License-Identifier: Apache-2.0
// Disks: the document's keys, and virtio-blk over the file that they name, or served by a daemon.
#include "machine/kind_disk.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "machine/open.h"
#include "machine/queues.h"
#include "machine/vm.h"
#include "virtio/blk.h"
#include "virtio/vhost_device.h"

struct vm_disk {
	struct vm_device d;
	struct open_disk file; /* its fd is the device's once that is there; else -1 */
	int size_fd;           /* a duplicate, to ask its size; -1 */
	struct vm_daemon daemon;
};

static const char *const cache_names[] = {
	[CONFIG_CACHE_WRITEBACK] = "writeback",
	[CONFIG_CACHE_DIRECT] = "direct",
	[CONFIG_CACHE_WRITETHROUGH] = "writethrough",
	NULL,
};

static const char *const format_names[] = {
	[CONFIG_FORMAT_AUTO] = "auto",
	[CONFIG_FORMAT_RAW] = "raw",
	[CONFIG_FORMAT_QCOW2] = "qcow2",
	NULL,
};

#define AT(member) .offset = offsetof(struct config_disk, member)
static const struct schema_field fields[] = {
	{"id", SCHEMA_STRING, AT(base.id)},
	{"path", SCHEMA_STRING, AT(path)},
	{"fd", SCHEMA_FD, AT(fd), .max = INT32_MAX},
	CONFIG_VHOST_USER_FIELDS(struct config_disk, daemon),
	{"format", SCHEMA_ENUM, AT(format), .names = format_names},
	{"backing", SCHEMA_STRING, AT(backing)},
	{"readonly", SCHEMA_BOOL, AT(readonly)},
	{"cache", SCHEMA_ENUM, AT(cache), .names = cache_names},
	{"discard", SCHEMA_BOOL, AT(discard)},
	{"queues", SCHEMA_UINT, AT(queues), .min = 1, .max = 64},
	{"queue_size", SCHEMA_UINT, AT(queue_size), .min = 2, .max = 1024},
	{"block_size", SCHEMA_UINT, AT(block_bytes), .min = 0, .max = 4096},
	{"serial", SCHEMA_STRING, AT(serial)},
	CONFIG_RATE_FIELDS(struct config_disk, rate),
	{"viommu", SCHEMA_BOOL, AT(base.viommu)},
	{"addr", SCHEMA_PCI, AT(base.addr)},
	{NULL},
};
static const struct config_disk defaults = {.fd = -1,
					    .daemon = CONFIG_VHOST_USER_NONE,
					    .discard = true,
					    .queues = 1,
					    .queue_size = 256};

static struct config_disk *config_of(struct config_device *device)
{
	return container_of(device, struct config_disk, base);
}

static bool has_daemon(const struct vm_device *d)
{
	return config_vhost_user_given(&config_of(d->config)->daemon);
}

/* What is the daemon's to say. */
static int check_daemon(struct config_disk *d, struct err *err)
{
	const char *key = d->path || d->fd >= 0            ? "path and fd"
			  : d->format != defaults.format   ? "format"
			  : d->cache != defaults.cache     ? "cache"
			  : d->discard != defaults.discard ? "discard"
			  : d->block_bytes                 ? "block_size"
			  : d->serial                      ? "serial"
			  : d->backing                     ? "backing"
							   : NULL;

	if (key)
		return err_set(err, -EINVAL,
			       "disk '%s': with vhost_user its daemon decides; leave out %s",
			       d->base.id, key);
	return config_vhost_user_check(&d->daemon, &d->base, err);
}

static int validate(struct config *c, struct config_device *device, struct err *err)
{
	struct config_disk *d = config_of(device);
	bool daemon = config_vhost_user_given(&d->daemon);
	int rc = daemon ? check_daemon(d, err) : 0;

	(void)c;
	if (rc)
		return rc;
	if (!daemon && !d->path == (d->fd < 0))
		return err_set(err, -EINVAL, "disk '%s': give either path or fd", device->id);
	if (d->backing && (!d->path || d->format == CONFIG_FORMAT_RAW))
		return err_set(err, -EINVAL, "disk '%s': backing is for the path of a qcow2 image",
			       device->id);
	if (!is_power_of_two(d->queue_size))
		return err_set(err, -EINVAL, "disk '%s': queue_size %u is not a power of two",
			       device->id, d->queue_size);
	if (d->block_bytes && d->block_bytes != 512 && d->block_bytes != 4096)
		return err_set(err, -EINVAL, "disk '%s': block_size %u is neither 512 nor 4096",
			       device->id, d->block_bytes);
	if (d->serial && strlen(d->serial) > 20)
		return err_set(err, -EINVAL, "disk '%s': serial '%s' has more than 20 characters",
			       device->id, d->serial);
	return config_rate_check(&d->rate, device, daemon, err);
}

static int hand_over(struct config_device *device, const struct kind_receiver *to, struct err *err)
{
	struct config_disk *c = container_of(device, struct config_disk, base);
	struct open_disk file;
	int rc = validate(NULL, device, err);

	(void)to;
	if (!rc && config_vhost_user_given(&c->daemon))
		return config_vhost_user_hand_over(&c->daemon, device, err);
	if (rc || !c->path)
		return rc;
	rc = open_disk(c, true, &file, err);
	c->fd = file.fd;
	free(c->path);
	c->path = NULL;
	return rc;
}

static struct vm_disk *of(struct vm_device *d)
{
	return container_of(d, struct vm_disk, d);
}

/* What one descriptor and its duplicates lead to is one to a lock of the file. */
static bool same_file(int a, int b)
{
	struct stat sa, sb;

	if (fstat(a, &sa) != 0 || fstat(b, &sb) != 0)
		return false;
	if (S_ISBLK(sa.st_mode) && S_ISBLK(sb.st_mode))
		return sa.st_rdev == sb.st_rdev;
	return sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

static bool is_readonly(const struct vm_device *d)
{
	return container_of(d->config, struct config_disk, base)->readonly;
}

static int refuse_twice(struct vm_device *d, struct err *err)
{
	struct vm_device *other = NULL;

	while ((other = vm_next_device(d->vm, other, &kind_disk))) {
		if (other == d || of(other)->size_fd < 0 ||
		    (is_readonly(d) && is_readonly(other)) ||
		    !same_file(of(d)->size_fd, of(other)->size_fd))
			continue;
		return err_set(
			err, -EBUSY,
			"disk '%s': in use: it is the file of disk '%s' too; give each a file "
			"of its own, or use readonly=on for both",
			d->config->id, other->config->id);
	}
	return 0;
}

static int open_it(struct vm_device *d, struct err *err)
{
	struct vm_disk *disk = of(d);
	int rc;

	disk->size_fd = disk->file.fd = -1;
	if (has_daemon(d))
		return vm_daemon_open(&disk->daemon, d, &config_of(d->config)->daemon, err);
	rc = open_disk(config_of(d->config), !d->vm->snapshot.arrives, &disk->file, err);
	if (rc)
		return rc;
	disk->size_fd = fd_dup(disk->file.fd);
	if (disk->size_fd < 0)
		return err_set(err, disk->size_fd, "disk '%s': %s", d->config->id,
			       err_name(disk->size_fd));
	return refuse_twice(d, err);
}

static int create_served(struct vm_device *d, struct err *err)
{
	const struct config_disk *c = config_of(d->config);
	const struct virtio_vhost_setup setup = {
		.type = VIRTIO_VHOST_BLK,
		.queues = c->queues,
		.queue_size = c->queue_size,
		.readonly = c->readonly,
	};

	return vm_daemon_create(&of(d)->daemon, &setup, err);
}

static int create(struct vm_device *d, struct err *err)
{
	const struct config_disk *c = container_of(d->config, struct config_disk, base);
	struct open_disk *file = &of(d)->file;
	const struct virtio_blk_setup config = {
		.name = d->config->id,
		.serial = c->serial,
		.fd = file->fd,
		.size_bytes = file->size_bytes,
		.block_bytes = file->block_bytes,
		.align_bytes = file->align_bytes,
		.readonly = c->readonly,
		.block_device = file->block_device,
		.discard = c->discard && !c->readonly,
		.cache = c->cache == CONFIG_CACHE_WRITETHROUGH ? VIRTIO_BLK_WRITETHROUGH
							       : VIRTIO_BLK_WRITEBACK,
		.queues = c->queues,
		.queue_size = c->queue_size,
		.loops = d->vm->io_loops,
		.n_loops = d->vm->n_io_loops,
	};
	struct virtio_device *vdev;
	int rc;

	if (has_daemon(d))
		return create_served(d, err);
	rc = virtio_blk_create(&vdev, &config, &d->vm->log, err);
	if (rc)
		return rc;
	file->fd = -1;
	config_rate_apply(&c->rate, vdev);
	return vm_device_plug_virtio(d, vdev, err);
}

static void close_it(struct vm_device *d)
{
	fd_close(&of(d)->file.fd);
	fd_close(&of(d)->size_fd);
	vm_daemon_close(&of(d)->daemon);
}

int disk_resize(struct vm_device *d, uint64_t size_bytes, struct err *err)
{
	uint64_t there;
	int rc;

	if (has_daemon(d))
		return err_set(err, -EOPNOTSUPP,
			       "disk '%s': its daemon (vhost_user) says how large it is",
			       d->config->id);
	rc = open_disk_size(of(d)->size_fd, &there);
	if (rc)
		return err_set(err, rc, "disk '%s': cannot tell its size", d->config->id);
	if (size_bytes > there)
		return err_set(err, -EINVAL,
			       "disk '%s': %" PRIu64 " bytes is more than its backing has, %" PRIu64
			       "; make that larger first",
			       d->config->id, size_bytes, there);
	return virtio_blk_resize(d->vdev, size_bytes ? size_bytes : there, err);
}

static int movable(struct vm_device *d, struct err *err)
{
	return has_daemon(d) ? vm_daemon_refuse_move(d, err) : 0;
}

static int hold(struct vm_device *d, bool hold, struct err *err)
{
	return has_daemon(d) ? 0 : open_disk_hold(config_of(d->config), of(d)->size_fd, hold, err);
}

static void status(struct vm_device *d, json_t *item)
{
	if (has_daemon(d)) {
		vm_daemon_status(&of(d)->daemon, item);
		return;
	}
	vm_device_queues_status(d, item);
	vm_device_latency_status(d, item);
}

const struct device_kind kind_disk = {
	.schema = {"disk", fields, sizeof(struct config_disk), &defaults},
	.key = "disks",
	.max = 64,
	.bytes = sizeof(struct vm_disk),
	.validate = validate,
	.hand_over = hand_over,
	.open = open_it,
	.create = create,
	.close = close_it,
	.movable = movable,
	.hold = hold,
	.status = status,
};
