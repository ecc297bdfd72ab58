/* SPDX-License-Identifier: Apache-2.0 */
/* pvpanic on a port: a guest kernel reports that it panicked, or that a crash kernel takes over. */
#include <errno.h>

#include "base/mem.h"
#include "base/num.h"
#include "core/bus.h"
#include "core/state.h"
#include "platform/platform.h"

enum {
	PANICKED = 1 << 0,
	CRASH_LOADED = 1 << 1,
};

struct pvpanic {
	struct device dev;
	struct bus *pio;
	struct bus_region region;
	struct platform_sink sink;
};

/* The events that are understood. */
static uint64_t pvpanic_read(void *opaque, uint64_t offset, unsigned int size)
{
	(void)opaque;
	(void)offset;
	(void)size;
	return PANICKED | CRASH_LOADED;
}

static void pvpanic_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct pvpanic *pvpanic = opaque;

	(void)offset;
	(void)size;
	if (value & PANICKED)
		pvpanic->sink.event(pvpanic->sink.opaque, PLATFORM_PANICKED);
	else if (value & CRASH_LOADED)
		pvpanic->sink.event(pvpanic->sink.opaque, PLATFORM_CRASH_LOADED);
}

static const struct bus_ops pvpanic_bus_ops = {
	.read = pvpanic_read,
	.write = pvpanic_write,
	.min = 1,
	.max = 1,
};

static void pvpanic_reset(struct device *dev)
{
	(void)dev; /* no state */
}

static void pvpanic_quiesce(struct device *dev, unsigned int phase)
{
	(void)dev;
	(void)phase;
}

static void pvpanic_resume(struct device *dev)
{
	(void)dev;
}

static void pvpanic_destroy(struct device *dev)
{
	struct pvpanic *pvpanic = container_of(dev, struct pvpanic, dev);

	if (!dev)
		return;
	bus_del(pvpanic->pio, &pvpanic->region);
	bus_synchronize(pvpanic->pio);
	device_done(dev);
	free(pvpanic);
}

STATE_DERIVED(struct pvpanic, "made by pvpanic_create", dev, pio, region, sink);

static int pvpanic_save(struct device *dev, struct state_writer *w, struct err *err)
{
	(void)dev; /* no state */
	(void)w;
	(void)err;
	return 0;
}

static int pvpanic_load(struct device *dev, struct state_reader *r, struct err *err)
{
	(void)dev;
	return state_commit(r, err);
}

static const struct device_ops pvpanic_ops = {
	.type = "pvpanic",
	.reset = pvpanic_reset,
	.quiesce = pvpanic_quiesce,
	.resume = pvpanic_resume,
	.destroy = pvpanic_destroy,
	.save = pvpanic_save,
	.load = pvpanic_load,
};

int pvpanic_create(struct device **ret, const struct device_env *env,
		   const struct platform_sink *sink, struct err *err)
{
	struct pvpanic *pvpanic;
	int r;

	if (!mem_new(pvpanic))
		return err_set(err, -ENOMEM, "pvpanic: out of memory");
	device_init(&pvpanic->dev, &pvpanic_ops, "pvpanic", env->log);
	pvpanic->pio = env->pio;
	pvpanic->sink = *sink;
	pvpanic->region = (struct bus_region){
		.ops = &pvpanic_bus_ops,
		.opaque = pvpanic,
		.name = "pvpanic",
		.size_bytes = 1,
		.lock = &pvpanic->dev.lock,
	};
	r = bus_add(env->pio, &pvpanic->region, PLATFORM_PANIC_PORT, err);
	if (r) {
		pvpanic_destroy(&pvpanic->dev);
		return r;
	}
	*ret = &pvpanic->dev;
	return 0;
}
