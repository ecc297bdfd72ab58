// SPDX-License-Identifier: Apache-2.0
// Random numbers: a virtio-rng, which a machine has unless its document says no.
#include "machine/kind_rng.h"

#include "machine/vm.h"
#include "virtio/rng.h"

#define AT(member) .offset = offsetof(struct config_device, member)
static const struct schema_field fields[] = {
	{"id", SCHEMA_STRING, AT(id)},
	{"enabled", SCHEMA_BOOL, AT(enabled)},
	{"addr", SCHEMA_PCI, AT(addr)},
	{NULL},
};
static const struct config_device defaults = {.enabled = true};

static int create(struct vm_device *d, struct err *err)
{
	const struct virtio_rng_setup config = {.name = d->config->id, .loop = d->vm->loop};
	struct virtio_device *vdev;
	int rc = virtio_rng_create(&vdev, &config, &d->vm->log, err);

	return rc ? rc : vm_device_plug_virtio(d, vdev, err);
}

const struct device_kind kind_rng = {
	.schema = {"rng", fields, sizeof(struct config_device), &defaults},
	.key = "rng",
	.bytes = sizeof(struct vm_device),
	.create = create,
};
