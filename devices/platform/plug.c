/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of the machine that come and go. See plug.h. */
#include "platform/plug.h"

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

struct part {
	bool stays; /* constant: it cannot leave */
	bool in;
	uint8_t event; /* enum plug_event, that the guest is to hear */
	uint8_t waits; /* likewise, that it has not answered */
	uint8_t refusal;
};

struct plug {
	struct device dev;
	struct bus *pio;
	struct bus_region region;
	struct irq_line sci;
	void (*changed)(void *opaque);
	void *opaque;
	unsigned int max;
	uint8_t enabled; /* GPE0_EN */
	bool heard;
	struct part parts[PLUG_MAX];
};

static struct plug *of(struct device *dev)
{
	return container_of(dev, struct plug, dev);
}

/* --- registers, under the lock --- */

static uint32_t event(const struct plug *c)
{
	for (unsigned int i = 0; i < c->max; i++) {
		if (c->parts[i].event)
			return i | (uint32_t)c->parts[i].event << 16;
	}
	return 0;
}

static void update_sci(struct plug *c)
{
	irq_line_set(&c->sci, (c->enabled & GPE_BIT) && event(c));
}

static uint8_t read_byte(const struct plug *c, uint64_t offset)
{
	uint8_t v = 0;

	if (offset == GPE_STS)
		return event(c) ? GPE_BIT : 0;
	if (offset == GPE_EN)
		return c->enabled;
	for (unsigned int i = 0; i < 8 && offset >= IN; i++) {
		uint64_t number = 8 * (offset - IN) + i;

		v |= (uint8_t)((number < c->max && c->parts[number].in) << i);
	}
	return v;
}

static uint64_t read_register(void *opaque, uint64_t offset, unsigned int size)
{
	const struct plug *c = opaque;
	uint64_t v = 0;

	if (offset == EVENT && size == 4)
		return event(c);
	for (unsigned int i = 0; i < size; i++)
		v |= (uint64_t)read_byte(c, offset + i) << 8 * i;
	return v;
}

static void hear(struct plug *c, uint32_t value)
{
	uint32_t number = value & 0xffff;

	/* Another may have taken its place meanwhile, which the guest has not heard. */
	if (number < c->max && c->parts[number].event == value >> 16)
		c->parts[number].event = PLUG_NONE;
}

static void eject(struct plug *c, uint32_t number)
{
	if (number >= c->max || !c->parts[number].in)
		return;
	if (c->parts[number].stays) {
		log_guest(c->dev.log, &c->dev.limit, c->dev.name,
			  "the guest gives up number %u, with which it starts: ignored", number);
		return;
	}
	c->parts[number] = (struct part){.stays = false};
	c->changed(c->opaque);
}

static void answer(struct plug *c, uint32_t value)
{
	uint32_t number = value & 0xff;
	uint8_t status = (uint8_t)(value >> 8);
	uint32_t what = value >> 16;
	struct part *p;

	if (number >= c->max)
		return;
	p = &c->parts[number];
	if (!p->waits || what != p->waits || status == (what == PLUG_COMES ? COMING : LEAVING))
		return;
	/* Success of an ejection is EJECT alone. */
	if (what == PLUG_LEAVES && !status)
		return;
	p->waits = PLUG_NONE;
	p->refusal = status;
	c->changed(c->opaque);
}

static void write_register(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct plug *c = opaque;

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

struct plug_view plug_look(struct device *dev, unsigned int number)
{
	const struct part *p = &of(dev)->parts[number];
	struct plug_view ret;

	assert(number < PLUG_MAX);
	pthread_mutex_lock(&dev->lock);
	ret = (struct plug_view){p->in, (enum plug_event)p->waits, p->refusal};
	pthread_mutex_unlock(&dev->lock);
	return ret;
}

bool plug_is_heard(struct device *dev)
{
	bool heard;

	pthread_mutex_lock(&dev->lock);
	heard = of(dev)->heard;
	pthread_mutex_unlock(&dev->lock);
	return heard;
}

static void tell(struct device *dev, unsigned int number, enum plug_event what)
{
	struct plug *c = of(dev);

	assert(number < c->max && !c->parts[number].stays);
	pthread_mutex_lock(&dev->lock);
	/* One that the guest has given up meanwhile is not asked for. */
	if (what == PLUG_COMES || c->parts[number].in)
		c->parts[number] =
			(struct part){.in = true, .event = (uint8_t)what, .waits = (uint8_t)what};
	update_sci(c);
	pthread_mutex_unlock(&dev->lock);
}

void plug_add(struct device *dev, unsigned int number)
{
	tell(dev, number, PLUG_COMES);
}

void plug_ask(struct device *dev, unsigned int number)
{
	tell(dev, number, PLUG_LEAVES);
}

void plug_forget(struct device *dev)
{
	struct plug *c = of(dev);

	pthread_mutex_lock(&dev->lock);
	for (unsigned int i = 0; i < c->max; i++) {
		struct part *p = &c->parts[i];

		p->waits = PLUG_NONE;
		p->refusal = 0;
		if (p->event == PLUG_LEAVES)
			p->event = PLUG_NONE;
	}
	update_sci(c);
	pthread_mutex_unlock(&dev->lock);
}

/* --- the device --- */

static void plug_reset(struct device *dev)
{
	struct plug *c = of(dev);

	pthread_mutex_lock(&dev->lock);
	c->enabled = 0;
	c->heard = false;
	for (unsigned int i = 0; i < c->max; i++) {
		struct part *p = &c->parts[i];

		*p = (struct part){.stays = p->stays, .in = p->in && p->waits != PLUG_LEAVES};
	}
	update_sci(c);
	pthread_mutex_unlock(&dev->lock);
}

/* Nothing moves but what the guest does. */
static void plug_quiesce(struct device *dev, unsigned int phase)
{
	(void)dev;
	(void)phase;
}

static void plug_resume(struct device *dev)
{
	(void)dev;
}

static void plug_destroy(struct device *dev)
{
	struct plug *c = of(dev);

	if (!dev)
		return;
	bus_del(c->pio, &c->region);
	bus_synchronize(c->pio);
	irq_line_put(&c->sci);
	device_done(dev);
	free(c);
}

static const struct state_field head_fields[] = {
	STATE_ONE(struct plug, max, .same = true),
	STATE_ONE(struct plug, enabled, .mask = GPE_BIT),
	STATE_ONE(struct plug, heard),
};
static const struct state_section head_section = STATE_SECTION("plug", 1, struct plug, head_fields);
STATE_DERIVED(struct plug, "made by plug_create", dev, pio, region, changed, opaque);
STATE_DERIVED(struct plug, "follows from events and enable", sci);
STATE_DERIVED(struct plug, "in the section of each", parts);

static const struct state_field part_fields[] = {
	STATE_ONE(struct part, in),
	STATE_ONE(struct part, event, .max = PLUG_LEAVES),
	STATE_ONE(struct part, waits, .max = PLUG_LEAVES),
	STATE_ONE(struct part, refusal),
};
STATE_DERIVED(struct part, "made by plug_create", stays);

static int check_part(const void *record, const void *live, uint32_t i, struct err *err)
{
	const struct part *p = record;

	(void)live;
	if (p->stays && (!p->in || p->event || p->waits))
		return err_set(err, -EPROTO, "in: number %u cannot leave", i);
	if (!p->in && (p->event || p->waits))
		return err_set(err, -EPROTO, "event: number %u is not in the machine", i);
	if (p->event == 2 || p->waits == 2)
		return err_set(err, -EPROTO, "event: number %u has one that there is not", i);
	return 0;
}

static const struct state_section part_section =
	STATE_SECTION("part", 1, struct part, part_fields, .check = check_part);

static int plug_save(struct device *dev, struct state_writer *w, struct err *err)
{
	struct plug *c = of(dev);

	(void)err;
	state_save(w, &head_section, c, 1);
	state_save(w, &part_section, c->parts, c->max);
	return 0;
}

static int plug_load(struct device *dev, struct state_reader *r, struct err *err)
{
	struct plug *c = of(dev);
	int rc = state_load(r, &head_section, c, 1, err);

	if (!rc)
		rc = state_load(r, &part_section, c->parts, c->max, err);
	if (!rc)
		rc = state_commit(r, err);
	if (rc)
		return rc;
	update_sci(c);
	c->changed(c->opaque);
	return 0;
}

static const struct device_ops plug_ops = {
	.type = "plug",
	.reset = plug_reset,
	.quiesce = plug_quiesce,
	.resume = plug_resume,
	.destroy = plug_destroy,
	.save = plug_save,
	.load = plug_load,
};

int plug_create(struct device **ret, const struct device_env *env, const struct plug_config *config,
		struct err *err)
{
	struct plug *c;
	int rc;

	assert(config->in >= config->first_stays && config->in <= config->max &&
	       config->max <= PLUG_MAX);
	if (!mem_new(c))
		return err_set(err, -ENOMEM, "%s: no memory", config->name);
	device_init(&c->dev, &plug_ops, config->name, env->log);
	c->pio = env->pio;
	c->changed = config->changed;
	c->opaque = config->opaque;
	c->max = config->max;
	c->parts[0].stays = config->first_stays;
	for (unsigned int i = 0; i < config->in; i++)
		c->parts[i].in = true;
	c->region = (struct bus_region){
		.ops = &registers_ops,
		.opaque = c,
		.name = config->name,
		.size_bytes = PLATFORM_PLUG_PORTS,
		.lock = &c->dev.lock,
	};
	rc = irq_line_get(&c->sci, env->irq, PLATFORM_SCI_GSI, err);
	if (!rc)
		rc = bus_add(env->pio, &c->region, config->port, err);
	if (rc) {
		plug_destroy(&c->dev);
		return rc;
	}
	*ret = &c->dev;
	return 0;
}
