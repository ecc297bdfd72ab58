// SPDX-License-Identifier: Apache-2.0
// The balloon: the document's keys, and a virtio-balloon over the machine's memory.
#include "machine/kind_balloon.h"

#include <errno.h>

#include "base/clock.h"
#include "core/reclaim.h"
#include "machine/vm.h"
#include "virtio/balloon.h"

enum { STATS_MAX_S = 86400 };

#define AT(member) .offset = offsetof(struct config_balloon, member)
static const struct schema_field fields[] = {
	{"id", SCHEMA_STRING, AT(base.id)},
	{"enabled", SCHEMA_BOOL, AT(base.enabled)},
	{"stats", SCHEMA_UINT, AT(stats_s), .max = STATS_MAX_S},
	{"deflate_on_oom", SCHEMA_BOOL, AT(deflate_on_oom)},
	{"free_page_reporting", SCHEMA_BOOL, AT(reporting)},
	{"granule", SCHEMA_SIZE, AT(granule_bytes), .min = RECLAIM_MIN_GRANULE,
	 .max = RECLAIM_MAX_GRANULE},
	{"addr", SCHEMA_PCI, AT(base.addr)},
	{NULL},
};
static const struct config_balloon defaults = {
	.deflate_on_oom = true,
	.granule_bytes = RECLAIM_MAX_GRANULE,
};

static int validate(struct config *c, struct config_device *device, struct err *err)
{
	uint64_t granule = container_of(device, struct config_balloon, base)->granule_bytes;

	if (!is_power_of_two(granule))
		return err_set(err, -EINVAL,
			       "balloon '%s': granule %llu is not a power of two; 256K, 512K, 1M "
			       "or 2M",
			       device->id, (unsigned long long)granule);
	device->small_pages = granule < RECLAIM_MAX_GRANULE;
	if (c->memory.backing != GMEM_HUGETLB_2M && c->memory.backing != GMEM_HUGETLB_1G)
		return 0;
	return err_set(err, -EINVAL,
		       "balloon '%s': memory.backing is %s: this host reserves such pages, and one "
		       "that leaves may be gone when the guest wants it back; use auto",
		       device->id, config_backing_names[c->memory.backing]);
}

static void on_event(void *opaque, enum virtio_balloon_event event, const char *text)
{
	struct vm_device *d = opaque;

	switch (event) {
	case VIRTIO_BALLOON_REACHED:
		vm_emit_device(d->vm, HOSPES_EVENT_BALLOON, 0, text, d->config->id);
		break;
	case VIRTIO_BALLOON_NOT_MAPPED:
		vm_emit_device(d->vm, HOSPES_EVENT_DEVICE_ERROR, 0, text, d->config->id);
		break;
	}
}

static int create(struct vm_device *d, struct err *err)
{
	const struct config_balloon *c = container_of(d->config, struct config_balloon, base);
	const struct virtio_balloon_setup setup = {
		.name = d->config->id,
		.loop = d->vm->loop,
		.gmem = d->vm->gmem,
		.deflate_on_oom = c->deflate_on_oom,
		.reporting = c->reporting,
		.stats_s = c->stats_s,
		.event = on_event,
		.opaque = d,
	};
	struct virtio_device *vdev;
	int rc = reclaim_enable(d->vm->gmem, c->granule_bytes, err);

	if (rc == -EBUSY)
		return err_prefix(err,
				  "balloon '%s': give it at the start (--balloon), so that memory "
				  "is made and mapped in parts that can leave",
				  d->config->id);
	if (rc)
		return err_prefix(err, "balloon '%s'", d->config->id);
	rc = virtio_balloon_create(&vdev, &setup, &d->vm->log, err);
	return rc ? rc : vm_device_plug_virtio(d, vdev, err);
}

/* A guest that gives the balloon up has taken everything back; one that loses it has not. */
static void close_it(struct vm_device *d)
{
	int rc = d->vm->gmem ? virtio_balloon_deflate(d->vm->gmem) : 0;

	if (rc)
		log_error(&d->vm->log, d->config->id,
			  "memory of the guest cannot be mapped for passed-through devices: %s",
			  err_name(rc));
}

static void put(json_t *item, const char *key, uint64_t value)
{
	json_object_set_new(item, key, json_integer((json_int_t)value));
}

static void status(struct vm_device *d, json_t *item)
{
	struct virtio_balloon_status s;
	json_t *stats;

	if (!d->vdev)
		return;
	virtio_balloon_status(d->vdev, &s);
	put(item, "target_bytes", s.target_bytes);
	put(item, "actual_bytes", s.actual_bytes);
	put(item, "given_bytes", s.given_bytes);
	put(item, "out_bytes", s.out_bytes);
	put(item, "reported_bytes", s.reported_bytes);
	put(item, "kept_bytes", s.kept_bytes);
	json_object_set_new(item, "waits", json_boolean(s.waits));
	if (!s.stats_ns)
		return;
	stats = json_object();
	put(stats, "age_ns", clock_ns() - s.stats_ns);
	for (unsigned int i = 0; i < VIRTIO_BALLOON_STATS; i++) {
		if (s.has_stats >> i & 1)
			put(stats, virtio_balloon_stat_names[i], s.stats[i] & INT64_MAX);
	}
	json_object_set_new(item, "stats", stats);
}

int balloon_set(struct hospes_vm *vm, uint64_t bytes, struct err *err)
{
	struct vm_device *d = vm_next_device(vm, NULL, &kind_balloon);
	uint64_t memory = gmem_ram_bytes(vm->gmem);

	if (!d || !d->vdev)
		return err_set(err, -ENOENT,
			       "this machine has no balloon; start it with --balloon "
			       "(balloon.enabled)");
	if (bytes % 4096 || bytes >= memory)
		return err_set(err, -EINVAL,
			       "balloon: %llu bytes: a multiple of 4096, less than the guest's "
			       "memory of %llu; it is what the balloon takes from the guest",
			       (unsigned long long)bytes, (unsigned long long)memory);
	virtio_balloon_set(d->vdev, bytes);
	return 0;
}

const struct device_kind kind_balloon = {
	.schema = {"balloon", fields, sizeof(struct config_balloon), &defaults},
	.key = "balloon",
	.bytes = sizeof(struct vm_device),
	.validate = validate,
	.create = create,
	.close = close_it,
	.status = status,
};
