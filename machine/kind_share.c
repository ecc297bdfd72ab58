// SPDX-License-Identifier: Apache-2.0
// Shared folders: the document's keys, and a virtio-fs that a daemon serves.
#include "machine/kind_share.h"

#include <errno.h>
#include <string.h>

#include "base/num.h"
#include "machine/vhost_user.h"
#include "machine/vm.h"
#include "virtio/vhost_device.h"

struct config_share {
	struct config_device base;
	struct config_vhost_user daemon;
	char *path; /* of the folder: for whoever starts the daemon */
	bool readonly;
	char *tag;
	uint32_t queues; /* beside the one of high priority */
	uint32_t queue_size;
};

struct vm_share {
	struct vm_device d;
	struct vm_daemon daemon;
};

#define AT(member) .offset = offsetof(struct config_share, member)
static const struct schema_field fields[] = {
	{"id", SCHEMA_STRING, AT(base.id)},
	CONFIG_VHOST_USER_FIELDS(struct config_share, daemon),
	{"path", SCHEMA_STRING, AT(path)},
	{"readonly", SCHEMA_BOOL, AT(readonly)},
	{"tag", SCHEMA_STRING, AT(tag)},
	{"queues", SCHEMA_UINT, AT(queues), .min = 1, .max = 64},
	{"queue_size", SCHEMA_UINT, AT(queue_size), .min = 2, .max = 1024},
	{"viommu", SCHEMA_BOOL, AT(base.viommu)},
	{"addr", SCHEMA_PCI, AT(base.addr)},
	{NULL},
};
static const struct config_share defaults = {
	.daemon = CONFIG_VHOST_USER_NONE, .queues = 1, .queue_size = 256};

static struct config_share *config_of(struct config_device *device)
{
	return container_of(device, struct config_share, base);
}

static struct vm_share *of(struct vm_device *d)
{
	return container_of(d, struct vm_share, d);
}

static int check(struct config_share *s, struct err *err)
{
	const char *id = s->base.id;

	if (!config_vhost_user_given(&s->daemon) && !s->path)
		return err_set(err, -EINVAL,
			       "share '%s': give path, a folder, or vhost_user, the socket of "
			       "'virtiofsd --socket-path SOCKET --shared-dir DIR'",
			       id);
	if (config_vhost_user_given(&s->daemon) && (s->path || s->readonly))
		return err_set(err, -EINVAL,
			       "share '%s': with vhost_user its daemon decides; leave out %s", id,
			       s->path ? "path" : "readonly");
	if (!s->tag || !*s->tag || strlen(s->tag) > VIRTIO_VHOST_TAG_BYTES)
		return err_set(err, -EINVAL,
			       "share '%s': give tag, by which the guest mounts it ('mount -t "
			       "virtiofs TAG DIR'), of 1 to %d bytes",
			       id, VIRTIO_VHOST_TAG_BYTES);
	if (!is_power_of_two(s->queue_size))
		return err_set(err, -EINVAL, "share '%s': queue_size %u is not a power of two", id,
			       s->queue_size);
	return config_vhost_user_check(&s->daemon, &s->base, err);
}

static int validate(struct config *c, struct config_device *device, struct err *err)
{
	const struct config_share *s = config_of(device);
	struct config_device *other = NULL;
	int rc = check(config_of(device), err);

	while (!rc && (other = config_next(c, other, &kind_share)) && other != device) {
		if (strcmp(config_of(other)->tag, s->tag) == 0)
			rc = err_set(err, -EEXIST,
				     "share '%s' and share '%s' have the same tag '%s'", other->id,
				     device->id, s->tag);
	}
	return rc;
}

static int refuse_path(const struct config_share *s, struct err *err)
{
	if (!s->path)
		return 0;
	return err_set(err, -EOPNOTSUPP,
		       "share '%s': '%s' needs a daemon, which 'hospes run' and 'hospes ctl NAME "
		       "add' start, and the library does not: start virtiofsd and give vhost_user",
		       s->base.id, s->path);
}

static int hand_over(struct config_device *device, const struct kind_receiver *to, struct err *err)
{
	int rc = check(config_of(device), err);

	(void)to;
	if (!rc)
		rc = refuse_path(config_of(device), err);
	return rc ? rc : config_vhost_user_hand_over(&config_of(device)->daemon, device, err);
}

static int open_it(struct vm_device *d, struct err *err)
{
	int rc = refuse_path(config_of(d->config), err);

	return rc ? rc : vm_daemon_open(&of(d)->daemon, d, &config_of(d->config)->daemon, err);
}

static int create(struct vm_device *d, struct err *err)
{
	const struct config_share *c = config_of(d->config);
	const struct virtio_vhost_setup setup = {
		.type = VIRTIO_VHOST_FS,
		.queues = c->queues,
		.queue_size = c->queue_size,
		.tag = c->tag,
	};

	return vm_daemon_create(&of(d)->daemon, &setup, err);
}

static void close_it(struct vm_device *d)
{
	vm_daemon_close(&of(d)->daemon);
}

static void status(struct vm_device *d, json_t *item)
{
	vm_daemon_status(&of(d)->daemon, item);
}

static int movable(struct vm_device *d, struct err *err)
{
	return vm_daemon_refuse_move(d, err);
}

const struct device_kind kind_share = {
	.schema = {"share", fields, sizeof(struct config_share), &defaults},
	.key = "shares",
	.max = 32,
	.bytes = sizeof(struct vm_share),
	.validate = validate,
	.hand_over = hand_over,
	.open = open_it,
	.create = create,
	.close = close_it,
	.movable = movable,
	.status = status,
};
