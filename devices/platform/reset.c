/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ways in which guests reset a PC: the chipset's reset control at port 0xcf9 (which is also the
 * ACPI reset register), the keyboard controller's output port, pulsed or written, and port 0x92.
 */
#include <errno.h>

#include "base/mem.h"
#include "base/num.h"
#include "core/bus.h"
#include "core/state.h"
#include "platform/platform.h"

enum {
	/* 0xcf9: a reset happens when RST_CPU goes from 0 to 1; SYS_RST selects the kind, FULL_RST
	 * cycles power too. All are the same machine reset here. */
	CF9_SYS_RST = 1 << 1,
	CF9_RST_CPU = 1 << 2,
	CF9_FULL_RST = 1 << 3,

	KBD_DATA_PORT = 0x60,
	KBD_PORT = 0x64,
	KBD_WRITE_OUTPUT = 0xd1, /* the byte for the data port that follows sets the output lines */
	KBD_PULSE = 0xf0,        /* 0xf0 to 0xff: pulse the output lines whose bit is 0 … */
	KBD_RESET = 1 << 0,      /* … of which this one is the reset line */

	PORT_92 = 0x92,
	PORT_92_RESET = 1 << 0,
	PORT_92_A20 = 1 << 1,
};

struct reset {
	struct device dev;
	struct bus *pio;
	struct pci_root *root;
	struct bus_region cf9_region, kbd_region, kbd_data_region, port92_region;
	struct platform_sink sink;
	uint8_t cf9, port92;
	bool output_next; /* KBD_WRITE_OUTPUT was the last command */
};

static void fire(struct reset *reset)
{
	reset->sink.event(reset->sink.opaque, PLATFORM_RESET);
}

static uint64_t cf9_read(void *opaque, uint64_t offset, unsigned int size)
{
	const struct reset *reset = opaque;

	(void)offset;
	(void)size;
	return reset->cf9;
}

static void cf9_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct reset *reset = opaque;
	uint8_t old = reset->cf9;

	(void)offset;
	(void)size;
	reset->cf9 = value & (CF9_SYS_RST | CF9_RST_CPU | CF9_FULL_RST);
	if (reset->cf9 & ~old & CF9_RST_CPU)
		fire(reset);
}

/* Status of a keyboard controller that is always ready and has nothing to say. */
static uint64_t kbd_read(void *opaque, uint64_t offset, unsigned int size)
{
	(void)opaque;
	(void)offset;
	(void)size;
	return 0;
}

static void kbd_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct reset *reset = opaque;

	(void)offset;
	(void)size;
	reset->output_next = value == KBD_WRITE_OUTPUT;
	if ((value & KBD_PULSE) == KBD_PULSE && !(value & KBD_RESET))
		fire(reset);
}

static uint64_t kbd_data_read(void *opaque, uint64_t offset, unsigned int size)
{
	(void)opaque;
	(void)offset;
	(void)size;
	return 0xff;
}

static void kbd_data_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct reset *reset = opaque;
	bool output = reset->output_next;

	(void)offset;
	(void)size;
	reset->output_next = false;
	if (output && !(value & KBD_RESET))
		fire(reset);
}

static uint64_t port92_read(void *opaque, uint64_t offset, unsigned int size)
{
	const struct reset *reset = opaque;

	(void)offset;
	(void)size;
	return reset->port92;
}

static void port92_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct reset *reset = opaque;
	uint8_t old = reset->port92;

	(void)offset;
	(void)size;
	reset->port92 = (value & PORT_92_RESET) | PORT_92_A20; /* A20 is never masked */
	if (reset->port92 & ~old & PORT_92_RESET)
		fire(reset);
}

static const struct bus_ops cf9_ops = {.read = cf9_read, .write = cf9_write, .min = 1, .max = 1};
static const struct bus_ops kbd_ops = {.read = kbd_read, .write = kbd_write, .min = 1, .max = 1};
static const struct bus_ops kbd_data_ops = {
	.read = kbd_data_read,
	.write = kbd_data_write,
	.min = 1,
	.max = 1,
};
static const struct bus_ops port92_ops = {
	.read = port92_read,
	.write = port92_write,
	.min = 1,
	.max = 1,
};

static void reset_reset(struct device *dev)
{
	struct reset *reset = container_of(dev, struct reset, dev);

	pthread_mutex_lock(&dev->lock);
	reset->cf9 = 0;
	reset->port92 = PORT_92_A20;
	reset->output_next = false;
	pthread_mutex_unlock(&dev->lock);
}

static void reset_quiesce(struct device *dev, unsigned int phase)
{
	(void)dev;
	(void)phase;
}

static void reset_resume(struct device *dev)
{
	(void)dev;
}

static void reset_destroy(struct device *dev)
{
	struct reset *reset = container_of(dev, struct reset, dev);

	if (!dev)
		return;
	pci_root_set_reset_port(reset->root, NULL);
	bus_del(reset->pio, &reset->kbd_region);
	bus_del(reset->pio, &reset->kbd_data_region);
	bus_del(reset->pio, &reset->port92_region);
	bus_synchronize(reset->pio);
	device_done(dev);
	free(reset);
}

static const struct state_field reset_fields[] = {
	STATE_ONE(struct reset, cf9, .mask = CF9_SYS_RST | CF9_RST_CPU | CF9_FULL_RST),
	STATE_ONE(struct reset, port92, .mask = PORT_92_RESET | PORT_92_A20),
	STATE_ONE(struct reset, output_next, .since = 2),
};
static const struct state_section reset_section =
	STATE_SECTION("reset", 2, struct reset, reset_fields);

STATE_DERIVED(struct reset, "made by reset_create", dev, pio, root, cf9_region, kbd_region,
	      kbd_data_region, port92_region, sink);

static int reset_save(struct device *dev, struct state_writer *w, struct err *err)
{
	(void)err;
	state_save(w, &reset_section, container_of(dev, struct reset, dev), 1);
	return 0;
}

static int reset_load(struct device *dev, struct state_reader *r, struct err *err)
{
	int ret = state_load(r, &reset_section, container_of(dev, struct reset, dev), 1, err);

	return ret ? ret : state_commit(r, err);
}

static const struct device_ops reset_ops = {
	.type = "reset",
	.reset = reset_reset,
	.quiesce = reset_quiesce,
	.resume = reset_resume,
	.destroy = reset_destroy,
	.save = reset_save,
	.load = reset_load,
};

static void region_init(struct reset *reset, struct bus_region *region, const struct bus_ops *ops,
			const char *name)
{
	*region = (struct bus_region){
		.ops = ops,
		.opaque = reset,
		.name = name,
		.size_bytes = 1,
		.lock = &reset->dev.lock,
	};
}

int reset_create(struct device **ret, const struct device_env *env, struct pci_root *root,
		 const struct platform_sink *sink, struct err *err)
{
	struct reset *reset;
	int r;

	if (!mem_new(reset))
		return err_set(err, -ENOMEM, "reset: out of memory");
	device_init(&reset->dev, &reset_ops, "reset", env->log);
	reset->pio = env->pio;
	reset->root = root;
	reset->sink = *sink;
	reset->port92 = PORT_92_A20;
	region_init(reset, &reset->cf9_region, &cf9_ops, "reset");
	region_init(reset, &reset->kbd_region, &kbd_ops, "kbd-reset");
	region_init(reset, &reset->kbd_data_region, &kbd_data_ops, "kbd-data");
	region_init(reset, &reset->port92_region, &port92_ops, "port-92");
	pci_root_set_reset_port(root, &reset->cf9_region);
	r = bus_add(env->pio, &reset->kbd_region, KBD_PORT, err);
	if (!r)
		r = bus_add(env->pio, &reset->kbd_data_region, KBD_DATA_PORT, err);
	if (!r)
		r = bus_add(env->pio, &reset->port92_region, PORT_92, err);
	if (r) {
		reset_destroy(&reset->dev);
		return r;
	}
	*ret = &reset->dev;
	return 0;
}
