// SPDX-License-Identifier: Apache-2.0
// A port whose bytes go to a file: the document's keys, and the device.
#include "kind_debugcon.h"

#include "base/fd.h"
#include "machine/open.h"
#include "machine/vm.h"

struct config_debugcon {
	struct config_device base;
	char *path;
	uint32_t port;
};
static const struct schema_field fields[] = {
	{"id", SCHEMA_STRING, offsetof(struct config_debugcon, base.id)},
	{"path", SCHEMA_STRING, offsetof(struct config_debugcon, path)},
	{"port", SCHEMA_UINT, offsetof(struct config_debugcon, port), .max = UINT16_MAX},
	{NULL},
};
static const struct config_debugcon defaults = {.port = 0xe9};

struct vm_debugcon {
	struct vm_device d;
	struct device dev;
	struct bus_region region;
	int fd; /* -1 */
	uint64_t bytes;
};

static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct vm_debugcon *con = opaque;
	char byte = (char)value;

	(void)offset;
	(void)size;
	con->bytes += fd_write_full(con->fd, &byte, 1, -1) == 0;
}
static const struct bus_ops port_ops = {.write = port_write, .min = 1, .max = 1};

static void destroy(struct device *dev)
{
	struct vm_debugcon *con = container_of(dev, struct vm_debugcon, dev);

	bus_del(con->d.vm->pio, &con->region);
	bus_synchronize(con->d.vm->pio);
	device_done(dev);
}
static const struct device_ops debugcon_ops = {.type = "debugcon", .destroy = destroy};

static const struct config_debugcon *config_of(const struct vm_device *d)
{
	return container_of(d->config, struct config_debugcon, base);
}

static int open_it(struct vm_device *d, struct err *err)
{
	const char *path = config_of(d)->path;
	struct vm_debugcon *con = container_of(d, struct vm_debugcon, d);

	con->fd = open_output("debugcon", d->config->id, path ? path : "/dev/null", err);
	return MIN(con->fd, 0);
}

static int create(struct vm_device *d, struct err *err)
{
	struct vm_debugcon *con = container_of(d, struct vm_debugcon, d);

	device_init(&con->dev, &debugcon_ops, d->config->id, &d->vm->log);
	con->region = (struct bus_region){
		.ops = &port_ops,
		.opaque = con,
		.name = con->dev.name,
		.size_bytes = 1,
		.lock = &con->dev.lock,
	};
	d->dev = &con->dev;
	return bus_add(d->vm->pio, &con->region, config_of(d)->port, err);
}

static void close_it(struct vm_device *d)
{
	fd_close(&container_of(d, struct vm_debugcon, d)->fd);
}

static void status(struct vm_device *d, json_t *item)
{
	const struct vm_debugcon *con = container_of(d, struct vm_debugcon, d);

	json_object_set_new(item, "bytes", json_integer((json_int_t)con->bytes));
}

const struct device_kind kind_debugcon = {
	.schema = {"debugcon", fields, sizeof(struct config_debugcon), &defaults},
	.key = "debugcons",
	.max = 4,
	.bytes = sizeof(struct vm_debugcon),
	.place = config_no_place,
	.open = open_it,
	.create = create,
	.close = close_it,
	.status = status,
};
