// SPDX-License-Identifier: Apache-2.0
// How much a disk or a network may move in a second.
#include "machine/rate.h"

#include <errno.h>
#include <inttypes.h>

#include "machine/kind_disk.h"
#include "machine/kind_net.h"
#include "virtio/virtio.h"

static int check(const char *kind, const char *id, uint64_t bytes_per_s, struct err *err)
{
	if (!bytes_per_s || bytes_per_s >= VIRTIO_RATE_BYTES_MIN)
		return 0;
	return err_set(err, -EINVAL,
		       "%s '%s': bytes_per_s %" PRIu64 " is too low; give at least %d, or 0 for no "
		       "limit",
		       kind, id, bytes_per_s, VIRTIO_RATE_BYTES_MIN);
}

int config_rate_check(const struct config_rate *rate, const struct config_device *device,
		      bool elsewhere, struct err *err)
{
	const char *kind = device->item.schema->what;

	if (elsewhere && (rate->bytes_per_s || rate->ops_per_s))
		return err_set(err, -EINVAL,
			       "%s '%s': nothing limits queues that are not served by hospes "
			       "(vhost, vhost_user); leave that out, or %s",
			       kind, device->id, rate->bytes_per_s ? "bytes_per_s" : "ops_per_s");
	return check(kind, device->id, rate->bytes_per_s, err);
}

void config_rate_apply(const struct config_rate *rate, struct virtio_device *vdev)
{
	virtio_device_set_rate(vdev, rate->bytes_per_s, rate->ops_per_s);
}

static bool has_one(const struct vm_device *d)
{
	return d->vdev && (d->kind == &kind_disk || d->kind == &kind_net);
}

static bool served_elsewhere(const struct vm_device *d)
{
	const struct config_net *net;

	if (d->kind == &kind_disk)
		return config_vhost_user_given(
			&container_of(d->config, struct config_disk, base)->daemon);
	net = container_of(d->config, struct config_net, base);
	return net->vhost || config_vhost_user_given(&net->daemon);
}

int vm_device_set_rate(struct vm_device *d, uint64_t bytes_per_s, uint64_t ops_per_s,
		       struct err *err)
{
	const char *kind = d->kind->schema.what, *id = d->config->id;
	const struct virtio_rate *rate;
	int rc;

	if (!has_one(d))
		return err_set(err, -EOPNOTSUPP,
			       "%s '%s': only disks and networks of hospes have a rate", kind, id);
	if (served_elsewhere(d))
		return err_set(err, -EOPNOTSUPP,
			       "%s '%s': nothing limits queues that are not served by hospes; "
			       "start it without vhost and vhost_user",
			       kind, id);
	rate = &d->vdev->rates[0];
	if (bytes_per_s == UINT64_MAX)
		bytes_per_s = atomic_load(&rate->bytes_per_s);
	if (ops_per_s == UINT64_MAX)
		ops_per_s = atomic_load(&rate->ops_per_s);
	if (ops_per_s > UINT32_MAX)
		return err_set(err, -EINVAL, "%s '%s': ops_per_s %" PRIu64 " is more than %u", kind,
			       id, ops_per_s, UINT32_MAX);
	rc = check(kind, id, bytes_per_s, err);
	if (!rc)
		virtio_device_set_rate(d->vdev, bytes_per_s, ops_per_s);
	return rc;
}

void vm_device_rate_status(struct vm_device *d, json_t *item)
{
	struct virtio_rate *rates;
	uint64_t rests = 0;

	if (!has_one(d))
		return;
	rates = d->vdev->rates;
	for (size_t i = 0; i < ARRAY_SIZE(d->vdev->rates); i++)
		rests += atomic_load(&rates[i].rests);
	if (!virtio_rate_limits(rates) && !rests)
		return;
	json_object_set_new(item, "rate",
			    json_pack("{s:I, s:I, s:I}", "bytes_per_s",
				      (json_int_t)atomic_load(&rates[0].bytes_per_s), "ops_per_s",
				      (json_int_t)atomic_load(&rates[0].ops_per_s), "rests",
				      (json_int_t)rests));
}
