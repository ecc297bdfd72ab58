// SPDX-License-Identifier: Apache-2.0
// Consoles: the document's keys, and a serial port or virtio-console between two file descriptors.
#include "machine/kind_console.h"

#include <errno.h>
#include <stdlib.h>

#include "base/fd.h"
#include "machine/open.h"
#include "machine/vm.h"
#include "platform/serial.h"
#include "virtio/console.h"

struct vm_console {
	struct vm_device d;
	int in, out; /* ours; -1: none */
};

static const char *const type_names[] = {
	[CONFIG_CONSOLE_SERIAL] = "serial",
	[CONFIG_CONSOLE_VIRTIO] = "virtio",
	NULL,
};

static const char *const overflow_names[] = {
	[CONFIG_OVERFLOW_DROP] = "drop",
	[CONFIG_OVERFLOW_WAIT] = "wait",
	NULL,
};

/* A reader that is only slow takes something in this time. */
static const uint64_t patience_ns = 1000000000;

#define AT(member) .offset = offsetof(struct config_console, member)
static const struct schema_field fields[] = {
	{"id", SCHEMA_STRING, AT(base.id)},
	{"type", SCHEMA_ENUM, AT(type), .names = type_names},
	{"in", SCHEMA_FD, AT(in), .max = INT32_MAX},
	{"out", SCHEMA_FD, AT(out), .max = INT32_MAX},
	{"path", SCHEMA_STRING, AT(path)},
	{"overflow", SCHEMA_ENUM, AT(overflow), .names = overflow_names},
	{"addr", SCHEMA_PCI, AT(base.addr)},
	{NULL},
};
static const struct config_console defaults = {.in = -1, .out = -1};

static struct config_console *config_of(struct config_device *device)
{
	return container_of(device, struct config_console, base);
}

static struct schema_pci *place(struct config_device *device)
{
	return config_of(device)->type == CONFIG_CONSOLE_VIRTIO ? &device->addr : NULL;
}

/* The serial port before `until` (NULL: any). */
static struct config_device *serial(const struct config *c, const struct config_device *until)
{
	struct config_device *d = NULL;

	while ((d = config_next(c, d, &kind_console)) && d != until) {
		if (config_of(d)->type == CONFIG_CONSOLE_SERIAL)
			return d;
	}
	return NULL;
}

bool config_has_serial(const struct config *config)
{
	return serial(config, NULL) != NULL;
}

static int validate(struct config *c, struct config_device *device, struct err *err)
{
	const struct config_console *console = config_of(device);
	bool is_serial = console->type == CONFIG_CONSOLE_SERIAL;
	const struct config_device *other = is_serial ? serial(c, device) : NULL;

	if (console->path && console->out >= 0)
		return err_set(err, -EINVAL, "console '%s': give either out or path", device->id);
	if (is_serial && device->addr.set)
		return err_set(err, -EINVAL, "console '%s': a serial port has no PCI address",
			       device->id);
	if (other)
		return err_set(err, -EINVAL,
			       "console '%s': the machine has a serial port already ('%s'); it has "
			       "one, the others can be of type virtio",
			       device->id, other->id);
	return 0;
}

static int hand_over(struct config_device *device, const struct kind_receiver *to, struct err *err)
{
	struct config_console *c = config_of(device);

	(void)to;
	if (!c->path || c->out >= 0) /* both: the machine refuses it */
		return 0;
	c->out = open_output("console", device->id, c->path, err);
	free(c->path);
	c->path = NULL;
	return MIN(c->out, 0);
}

static struct vm_console *of(struct vm_device *d)
{
	return container_of(d, struct vm_console, d);
}

/* Of an fd in the document, which is the embedder's: our duplicate. */
static int duplicate(const char *id, const char *what, int fd, int *ret, struct err *err)
{
	*ret = fd < 0 ? -1 : fd_dup(fd);
	if (fd < 0 || *ret >= 0)
		return 0;
	return err_set(err, *ret, "console '%s': %s: fd %d: %s", id, what, fd, err_name(*ret));
}

static int open_it(struct vm_device *d, struct err *err)
{
	const struct config_console *c = config_of(d->config);
	struct vm_console *console = of(d);
	int rc;

	console->in = console->out = -1;
	rc = duplicate(d->config->id, "in", c->in, &console->in, err);
	if (rc || !c->path)
		return rc ? rc : duplicate(d->config->id, "out", c->out, &console->out, err);
	console->out = open_output("console", d->config->id, c->path, err);
	return MIN(console->out, 0);
}

static int create(struct vm_device *d, struct err *err)
{
	const struct vm_console *console = of(d);
	const struct device_env env = vm_device_env(d->vm);
	bool drop = config_of(d->config)->overflow == CONFIG_OVERFLOW_DROP;
	const struct serial_config port = {
		.name = d->config->id,
		.port = PLATFORM_SERIAL_PORT,
		.gsi = PLATFORM_SERIAL_GSI,
		.in_fd = console->in,
		.out_fd = console->out,
		.patience_ns = drop ? patience_ns : 0,
	};
	const struct virtio_console_setup config = {
		.name = d->config->id,
		.in_fd = console->in,
		.out_fd = console->out,
		.patience_ns = drop ? patience_ns : 0,
		.loop = d->vm->loop,
	};
	struct virtio_device *vdev;
	int rc;

	if (config_of(d->config)->type == CONFIG_CONSOLE_SERIAL)
		return serial_create(&d->dev, &env, &port, err);
	rc = virtio_console_create(&vdev, &config, &d->vm->log, err);
	return rc ? rc : vm_device_plug_virtio(d, vdev, err);
}

int console_view(struct vm_device *d, int fd, bool take, struct err *err)
{
	const char *id = d->config->id;
	int rc;

	if (!d->dev)
		return err_set(err, -ENODEV, "console '%s': it has left the machine", id);
	rc = d->vdev ? virtio_console_view(d->vdev, fd, take, err)
		     : serial_view(d->dev, fd, take, err);
	if (rc == -EBUSY)
		return err_set(err, rc,
			       "console '%s': somebody looks at it already; take it from them: "
			       "'hospes ctl NAME console %s force'",
			       id, id);
	return rc ? err_prefix(err, "console '%s'", id) : 0;
}

static void status(struct vm_device *d, json_t *item)
{
	uint64_t bytes =
		d->vdev ? virtio_console_output_bytes(d->vdev) : serial_output_bytes(d->dev);

	json_object_set_new(item, "output_bytes", json_integer((json_int_t)bytes));
	json_object_set_new(item, "viewed",
			    json_boolean(d->vdev ? virtio_console_is_viewed(d->vdev)
						 : serial_is_viewed(d->dev)));
}

static void close_it(struct vm_device *d)
{
	fd_close(&of(d)->in);
	fd_close(&of(d)->out);
}

const struct device_kind kind_console = {
	.schema = {"console", fields, sizeof(struct config_console), &defaults},
	.key = "consoles",
	.max = 8,
	.bytes = sizeof(struct vm_console),
	.place = place,
	.validate = validate,
	.hand_over = hand_over,
	.open = open_it,
	.create = create,
	.close = close_it,
	.status = status,
};
