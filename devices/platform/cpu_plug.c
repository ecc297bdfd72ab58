/* SPDX-License-Identifier: Apache-2.0 */
/* Processors that come and go. See cpu_plug.h. */
#include "platform/cpu_plug.h"

#include <assert.h>
#include <errno.h>

#include "base/mem.h"
#include "base/num.h"
#include "core/bus.h"
#include "core/irq.h"
#include "core/state.h"

enum {
	GPE_STS = 0x00,
	GPE_EN = 0x01,
	EVENT = 0x04,
	EJECT = 0x08,
	ANSWER = 0x0c,
	IN = 0x20,

	GPE_BIT = 1 << 0,

	/* _OST, ACPI 6.5, 6.3.5: "in progress" of an insertion, and of an ejection. */
	COMING = 0x80,
	LEAVING = 0x84,
};

struct processor {
	bool in;
	uint8_t event; /* enum cpu_plug_event, that the guest is to hear */
	uint8_t waits; /* likewise, that it has not answered */
	uint8_t refusal;
};

struct cpu_plug {
	struct device dev;
	struct bus *pio;
	struct bus_region region;
	struct irq_line sci;
	void (*changed)(void *opaque);
	void *opaque;
	unsigned int max;
	uint8_t enabled; /* GPE0_EN */
	bool heard;
	struct processor processors[CPU_PLUG_MAX];
};

static struct cpu_plug *of(struct device *dev)
{
	return container_of(dev, struct cpu_plug, dev);
}

/* --- registers, under the lock --- */

static uint32_t event(const struct cpu_plug *c)
{
	for (unsigned int i = 0; i < c->max; i++) {
		if (c->processors[i].event)
			return i | (uint32_t)c->processors[i].event << 16;
	}
	return 0;
}

static void update_sci(struct cpu_plug *c)
{
	irq_line_set(&c->sci, (c->enabled & GPE_BIT) && event(c));
}

static uint8_t read_byte(const struct cpu_plug *c, uint64_t offset)
{
	uint8_t v = 0;

	if (offset == GPE_STS)
		return event(c) ? GPE_BIT : 0;
	if (offset == GPE_EN)
		return c->enabled;
	for (unsigned int i = 0; i < 8 && offset >= IN; i++) {
		uint64_t number = 8 * (offset - IN) + i;

		v |= (uint8_t)((number < c->max && c->processors[number].in) << i);
	}
	return v;
}

static uint64_t read_register(void *opaque, uint64_t offset, unsigned int size)
{
	const struct cpu_plug *c = opaque;
	uint64_t v = 0;

	if (offset == EVENT && size == 4)
		return event(c);
	for (unsigned int i = 0; i < size; i++)
		v |= (uint64_t)read_byte(c, offset + i) << 8 * i;
	return v;
}

static void hear(struct cpu_plug *c, uint32_t value)
{
	uint32_t number = value & 0xffff;

	/* Another may have taken its place meanwhile, which the guest has not heard. */
	if (number < c->max && c->processors[number].event == value >> 16)
		c->processors[number].event = CPU_PLUG_NONE;
}

static void eject(struct cpu_plug *c, uint32_t number)
{
	if (number >= c->max || !c->processors[number].in)
		return;
	if (!number) {
		log_guest(c->dev.log, &c->dev.limit, c->dev.name,
			  "the guest gives up its first processor, with which it starts: ignored");
		return;
	}
	c->processors[number] = (struct processor){0};
	c->changed(c->opaque);
}

static void answer(struct cpu_plug *c, uint32_t value)
{
	uint32_t number = value & 0xff;
	uint8_t status = (uint8_t)(value >> 8);
	uint32_t what = value >> 16;
	struct processor *p;

	if (number >= c->max)
		return;
	p = &c->processors[number];
	if (!p->waits || what != p->waits || status == (what == CPU_PLUG_COMES ? COMING : LEAVING))
		return;
	/* Success of an ejection is EJECT alone. */
	if (what == CPU_PLUG_LEAVES && !status)
		return;
	p->waits = CPU_PLUG_NONE;
	p->refusal = status;
	c->changed(c->opaque);
}

static void write_register(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct cpu_plug *c = opaque;

	if (size == 4 && offset == EVENT) {
		hear(c, (uint32_t)value);
	} else if (size == 4 && offset == EJECT) {
		eject(c, (uint32_t)value);
	} else if (size == 4 && offset == ANSWER) {
		answer(c, (uint32_t)value);
	} else if (offset <= GPE_EN && offset + size > GPE_EN) {
		c->enabled = (uint8_t)(value >> 8 * (GPE_EN - offset) & GPE_BIT);
		c->heard |= c->enabled != 0;
	}
	update_sci(c);
}

static const struct bus_ops registers_ops = {
	.read = read_register,
	.write = write_register,
	.min = 1,
	.max = 4,
};

/* --- for the machine --- */

struct cpu_plug_view cpu_plug_look(struct device *dev, unsigned int number)
{
	const struct processor *p = &of(dev)->processors[number];
	struct cpu_plug_view ret;

	assert(number < CPU_PLUG_MAX);
	pthread_mutex_lock(&dev->lock);
	ret = (struct cpu_plug_view){p->in, (enum cpu_plug_event)p->waits, p->refusal};
	pthread_mutex_unlock(&dev->lock);
	return ret;
}

bool cpu_plug_is_heard(struct device *dev)
{
	bool heard;

	pthread_mutex_lock(&dev->lock);
	heard = of(dev)->heard;
	pthread_mutex_unlock(&dev->lock);
	return heard;
}

static void tell(struct device *dev, unsigned int number, enum cpu_plug_event what)
{
	struct cpu_plug *c = of(dev);

	assert(number && number < c->max);
	pthread_mutex_lock(&dev->lock);
	/* One that the guest has given up meanwhile is not asked for. */
	if (what == CPU_PLUG_COMES || c->processors[number].in)
		c->processors[number] = (struct processor){
			.in = true, .event = (uint8_t)what, .waits = (uint8_t)what};
	update_sci(c);
	pthread_mutex_unlock(&dev->lock);
}

void cpu_plug_add(struct device *dev, unsigned int number)
{
	tell(dev, number, CPU_PLUG_COMES);
}

void cpu_plug_ask(struct device *dev, unsigned int number)
{
	tell(dev, number, CPU_PLUG_LEAVES);
}

void cpu_plug_forget(struct device *dev)
{
	struct cpu_plug *c = of(dev);

	pthread_mutex_lock(&dev->lock);
	for (unsigned int i = 0; i < c->max; i++) {
		struct processor *p = &c->processors[i];

		p->waits = CPU_PLUG_NONE;
		p->refusal = 0;
		if (p->event == CPU_PLUG_LEAVES)
			p->event = CPU_PLUG_NONE;
	}
	update_sci(c);
	pthread_mutex_unlock(&dev->lock);
}

/* --- the device --- */

static void cpu_plug_reset(struct device *dev)
{
	struct cpu_plug *c = of(dev);

	pthread_mutex_lock(&dev->lock);
	c->enabled = 0;
	c->heard = false;
	for (unsigned int i = 0; i < c->max; i++) {
		struct processor *p = &c->processors[i];

		*p = (struct processor){.in = p->in && p->waits != CPU_PLUG_LEAVES};
	}
	update_sci(c);
	pthread_mutex_unlock(&dev->lock);
}

/* Nothing moves but what the guest does. */
static void cpu_plug_quiesce(struct device *dev, unsigned int phase)
{
	(void)dev;
	(void)phase;
}

static void cpu_plug_resume(struct device *dev)
{
	(void)dev;
}

static void cpu_plug_destroy(struct device *dev)
{
	struct cpu_plug *c = of(dev);

	if (!dev)
		return;
	bus_del(c->pio, &c->region);
	bus_synchronize(c->pio);
	irq_line_put(&c->sci);
	device_done(dev);
	free(c);
}

static const struct state_field head_fields[] = {
	STATE_ONE(struct cpu_plug, max, .same = true),
	STATE_ONE(struct cpu_plug, enabled, .mask = GPE_BIT),
	STATE_ONE(struct cpu_plug, heard),
};
static const struct state_section head_section =
	STATE_SECTION("cpus", 1, struct cpu_plug, head_fields);
STATE_DERIVED(struct cpu_plug, "made by cpu_plug_create", dev, pio, region, changed, opaque);
STATE_DERIVED(struct cpu_plug, "follows from events and enable", sci);
STATE_DERIVED(struct cpu_plug, "in the section of each", processors);

static const struct state_field processor_fields[] = {
	STATE_ONE(struct processor, in),
	STATE_ONE(struct processor, event, .max = CPU_PLUG_LEAVES),
	STATE_ONE(struct processor, waits, .max = CPU_PLUG_LEAVES),
	STATE_ONE(struct processor, refusal),
};

static int check_processor(const void *record, const void *live, uint32_t i, struct err *err)
{
	const struct processor *p = record;

	(void)live;
	if (!i && (!p->in || p->event || p->waits))
		return err_set(err, -EPROTO, "in: the first processor cannot leave");
	if (!p->in && (p->event || p->waits))
		return err_set(err, -EPROTO, "event: processor %u is not in the machine", i);
	if (p->event == 2 || p->waits == 2)
		return err_set(err, -EPROTO, "event: processor %u has one that there is not", i);
	return 0;
}

static const struct state_section processor_section =
	STATE_SECTION("processor", 1, struct processor, processor_fields, .check = check_processor);

static int cpu_plug_save(struct device *dev, struct state_writer *w, struct err *err)
{
	struct cpu_plug *c = of(dev);

	(void)err;
	state_save(w, &head_section, c, 1);
	state_save(w, &processor_section, c->processors, c->max);
	return 0;
}

static int cpu_plug_load(struct device *dev, struct state_reader *r, struct err *err)
{
	struct cpu_plug *c = of(dev);
	int rc = state_load(r, &head_section, c, 1, err);

	if (!rc)
		rc = state_load(r, &processor_section, c->processors, c->max, err);
	if (!rc)
		rc = state_commit(r, err);
	if (rc)
		return rc;
	update_sci(c);
	c->changed(c->opaque);
	return 0;
}

static const struct device_ops cpu_plug_ops = {
	.type = "cpus",
	.reset = cpu_plug_reset,
	.quiesce = cpu_plug_quiesce,
	.resume = cpu_plug_resume,
	.destroy = cpu_plug_destroy,
	.save = cpu_plug_save,
	.load = cpu_plug_load,
};

int cpu_plug_create(struct device **ret, const struct device_env *env,
		    const struct cpu_plug_config *config, struct err *err)
{
	struct cpu_plug *c;
	int rc;

	assert(config->in && config->in <= config->max && config->max <= CPU_PLUG_MAX);
	if (!mem_new(c))
		return err_set(err, -ENOMEM, "cpus: no memory");
	device_init(&c->dev, &cpu_plug_ops, "cpus", env->log);
	c->pio = env->pio;
	c->changed = config->changed;
	c->opaque = config->opaque;
	c->max = config->max;
	for (unsigned int i = 0; i < config->in; i++)
		c->processors[i].in = true;
	c->region = (struct bus_region){
		.ops = &registers_ops,
		.opaque = c,
		.name = "cpus",
		.size_bytes = PLATFORM_CPUS_PORTS,
		.lock = &c->dev.lock,
	};
	rc = irq_line_get(&c->sci, env->irq, PLATFORM_SCI_GSI, err);
	if (!rc)
		rc = bus_add(env->pio, &c->region, PLATFORM_CPUS_PORT, err);
	if (rc) {
		cpu_plug_destroy(&c->dev);
		return rc;
	}
	*ret = &c->dev;
	return 0;
}
