// SPDX-License-Identifier: Apache-2.0
// State of a virtio device behind any transport (core/state.h): status, features, queues, and the
// device's own section.
#include <errno.h>

#include "base/num.h"
#include "core/state.h"
#include "virtio/transport.h"

static const struct state_field transport_fields[] = {
	STATE_ONE(struct virtio_transport, offered),
	STATE_ONE(struct virtio_transport, accepted),
	STATE_ONE(struct virtio_transport, status, .mask = VIRTIO_CONFIG_S_ALL),
	STATE_ONE(struct virtio_transport, generation),
};

STATE_DERIVED(struct virtio_transport, "made by transport_init", ops, vdev, owner);
STATE_DERIVED(struct virtio_transport, "where the machine stands", paused);
STATE_DERIVED(struct virtio_transport, "over when it is quiesced", resetting);
STATE_DERIVED(struct virtio_transport, "a section of its own", queues);
STATE_DERIVED(struct virtio_device, "made by virtio_device_init and the device", ops, name, log,
	      features_offered, features_withheld, config_bytes, n_queues, queues, transport);
STATE_DERIVED(struct virtio_device, "what was accepted, from FEATURES_OK on", features);
STATE_DERIVED(struct virtio_device, "of the log, not of the device", limit);
STATE_DERIVED(struct virtio_device, "the host's, as it has set them", rates);

static void fill_transport(void *record, const void *live, uint32_t i)
{
	(void)i;
	*(struct virtio_transport *)record = *(const struct virtio_transport *)live;
}

static void apply_transport(void *live, const void *record, uint32_t i)
{
	const struct virtio_transport *from = record;
	struct virtio_transport *t = live;

	(void)i;
	t->offered = from->offered;
	t->accepted = from->accepted;
	t->status = from->status;
	t->generation = from->generation;
	t->vdev->features = t->status & VIRTIO_CONFIG_S_FEATURES_OK ? t->accepted : 0;
	atomic_store(&t->owner.broken, t->status & VIRTIO_CONFIG_S_NEEDS_RESET);
}

/* A machine that was made by an older hospes may offer less, and goes on doing so. But it is behind
 * the virtual IOMMU, or not, as it was. */
static bool may_offer(const struct virtio_transport *here, uint64_t offered)
{
	return !(offered & ~here->offered) &&
	       !(here->offered & ~offered & 1ull << VIRTIO_F_ACCESS_PLATFORM);
}

static int check_transport(const void *record, const void *live, uint32_t i, struct err *err)
{
	const struct virtio_transport *t = record, *here = live;
	uint8_t ok = t->status & (VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);

	(void)i;
	if (!may_offer(here, t->offered))
		return err_set(err, -EPROTO,
			       "offered is 0x%llx; this machine's device offers 0x%llx",
			       (unsigned long long)t->offered, (unsigned long long)here->offered);
	if (ok == VIRTIO_CONFIG_S_DRIVER_OK)
		return err_set(err, -EPROTO, "status is 0x%x: DRIVER_OK without FEATURES_OK",
			       t->status);
	if (ok && !transport_features_acceptable(t))
		return err_set(err, -EPROTO, "accepted is 0x%llx, which this device refuses",
			       (unsigned long long)t->accepted);
	return 0;
}

static const struct state_section transport_section =
	STATE_SECTION("virtio", 1, struct virtio_transport, transport_fields,
		      .fill = fill_transport, .apply = apply_transport, .check = check_transport);

static const struct state_field queue_fields[] = {
	STATE_ONE(struct transport_queue, size),   STATE_ONE(struct transport_queue, desc),
	STATE_ONE(struct transport_queue, driver), STATE_ONE(struct transport_queue, device),
	STATE_ONE(struct transport_queue, enable), STATE_ONE(struct transport_queue, next_avail),
};

STATE_DERIVED(struct transport_queue, "over when it is quiesced", resetting);

/* Nothing is in flight in a queue that is off, so how far it got is one number (virtq_set_next). */
static void fill_queue(void *record, const void *live, uint32_t i)
{
	*(struct transport_queue *)record = ((const struct virtio_transport *)live)->queues[i];
}

static void apply_queue(void *live, const void *record, uint32_t i)
{
	((struct virtio_transport *)live)->queues[i] = *(const struct transport_queue *)record;
}

/* Where its rings are is checked when it starts, as for a driver. */
static int check_queue(const void *record, const void *live, uint32_t i, struct err *err)
{
	const struct virtio_transport *t = live;
	const struct transport_queue *q = record;

	if (!is_power_of_two(q->size) || q->size > t->vdev->queues[i].max_size)
		return err_set(err, -EPROTO, "size is %u; a power of two up to %u", q->size,
			       t->vdev->queues[i].max_size);
	return 0;
}

static const struct state_section queue_section =
	STATE_SECTION("virtio-queues", 1, struct transport_queue, queue_fields, .fill = fill_queue,
		      .apply = apply_queue, .check = check_queue);

int transport_save(struct virtio_transport *t, struct state_writer *w, struct err *err)
{
	const struct virtio_device_ops *ops = t->vdev->ops;

	if (ops->no_state)
		return err_set(err, -EOPNOTSUPP, "%s: %s", t->vdev->name, ops->no_state);
	state_save(w, &transport_section, t, 1);
	state_save(w, &queue_section, t, t->vdev->n_queues);
	if (ops->state)
		state_save(w, ops->state, t->vdev, 1);
	return 0;
}

int transport_load(struct virtio_transport *t, struct state_reader *r, struct err *err)
{
	const struct virtio_device_ops *ops = t->vdev->ops;
	int ret;

	if (ops->no_state)
		return err_set(err, -EOPNOTSUPP, "%s: %s", t->vdev->name, ops->no_state);
	ret = state_load(r, &transport_section, t, 1, err);
	if (!ret)
		ret = state_load(r, &queue_section, t, t->vdev->n_queues, err);
	if (!ret && ops->state)
		ret = state_load(r, ops->state, t->vdev, 1, err);
	return ret;
}
