/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI fixed hardware: PM1 status, enable and control, and the timer (ACPI 6.5, 4.8.3).
 *
 *   +0 PM1_STS (2)  +2 PM1_EN (2)  +4 PM1_CNT (2)  +6 nothing  +8 PM_TMR (4)
 *
 * PM1 is handled byte by byte, so that a guest may use any width and a write of one half of the
 * status register clears nothing in the other. The timer is a counter of 32 bits for guests without
 * kvmclock whose TSC cannot be trusted; it has no status bit and no interrupt, which whoever reads
 * it each ten minutes needs not.
 *
 * Where firmware was started, a byte written to +0 with SLP_EN and the type of S5 turns off: edk2's
 * CLOUDHV.fd, which reads no FADT, believes in ACPI's sleep control register there (4.8.3.7). It
 * would clear status bits that are never set.
 */
#include <errno.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/num.h"
#include "core/bus.h"
#include "core/irq.h"
#include "core/state.h"
#include "platform/platform.h"

enum {
	PM_BYTES = 12,
	TIMER = 8,
	TIMER_HZ = 3579545,

	STS_PWRBTN = 1 << 8,

	/* Enable bits exist for every fixed event but the timer's: a guest that sets one expects to
	 * read it back. */
	EN_MASK = 1 << 5 | 1 << 8 | 1 << 9 | 1 << 10,

	CNT_SCI_EN = 1 << 0, /* no SMI command: always in ACPI mode */
	CNT_BM_RLD = 1 << 1,
	CNT_SLP_TYP_SHIFT = 10,
	CNT_SLP_TYP = 7 << CNT_SLP_TYP_SHIFT,
	CNT_SLP_EN = 1 << 13,

	SLEEP_OFF = PLATFORM_S5_TYPE << 2 | 1 << 5, /* of the sleep control register */
};

struct pm {
	struct device dev;
	struct bus *pio;
	struct bus_region region;
	struct irq_line sci;
	struct platform_sink sink;
	bool sleep_control;
	uint16_t sts, en, cnt;
	uint32_t ticks;    /* of the timer, at start_ns */
	uint64_t start_ns; /* 0: it stands still, as a paused machine does */
};

static void update_sci(struct pm *pm)
{
	irq_line_set(&pm->sci, pm->sts & pm->en);
}

static uint32_t timer(const struct pm *pm)
{
	uint64_t ns = pm->start_ns ? clock_ns() - pm->start_ns : 0;

	return (uint32_t)(pm->ticks + ns / NS_PER_S * TIMER_HZ +
			  ns % NS_PER_S * TIMER_HZ / NS_PER_S);
}

static uint8_t read_byte(const struct pm *pm, uint64_t offset, uint32_t ticks)
{
	switch (offset) {
	case 0:
		return (uint8_t)pm->sts;
	case 1:
		return (uint8_t)(pm->sts >> 8);
	case 2:
		return (uint8_t)pm->en;
	case 3:
		return (uint8_t)(pm->en >> 8);
	case 4:
		return (uint8_t)(pm->cnt | CNT_SCI_EN);
	case 5:
		return (uint8_t)(pm->cnt >> 8);
	case TIMER:
	case TIMER + 1:
	case TIMER + 2:
	case TIMER + 3:
		return (uint8_t)(ticks >> 8 * (offset - TIMER));
	default:
		return 0;
	}
}

static void write_control_high(struct pm *pm, uint8_t v)
{
	uint16_t high = (uint16_t)(v << 8);

	pm->cnt = (uint16_t)((pm->cnt & 0xff) | (high & CNT_SLP_TYP)); /* SLP_EN reads 0 */
	if (!(high & CNT_SLP_EN))
		return;
	unsigned int type = (unsigned int)(high & CNT_SLP_TYP) >> CNT_SLP_TYP_SHIFT;
	if (type == PLATFORM_S5_TYPE)
		pm->sink.event(pm->sink.opaque, PLATFORM_POWER_OFF);
	else
		log_guest(pm->dev.log, &pm->dev.limit, pm->dev.name,
			  "the guest asks for sleep type %u, which no table offers: ignored", type);
}

static void write_byte(struct pm *pm, uint64_t offset, uint8_t v)
{
	switch (offset) {
	case 0:
		pm->sts = (uint16_t)(pm->sts & ~v);
		break;
	case 1:
		pm->sts = (uint16_t)(pm->sts & ~(v << 8));
		break;
	case 2:
		pm->en = (uint16_t)((pm->en & 0xff00) | (v & EN_MASK));
		break;
	case 3:
		pm->en = (uint16_t)((pm->en & 0xff) | ((v << 8) & EN_MASK));
		break;
	case 4:
		pm->cnt = (uint16_t)((pm->cnt & 0xff00) | (v & CNT_BM_RLD));
		break;
	case 5:
		write_control_high(pm, v);
		break;
	default:
		break;
	}
}

static uint64_t pm_read(void *opaque, uint64_t offset, unsigned int size)
{
	const struct pm *pm = opaque;
	uint32_t ticks = timer(pm);
	uint64_t v = 0;

	for (unsigned int i = 0; i < size; i++)
		v |= (uint64_t)read_byte(pm, offset + i, ticks) << 8 * i;
	return v;
}

static void pm_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct pm *pm = opaque;

	if (pm->sleep_control && !offset && size == 1 && value == SLEEP_OFF) {
		pm->sink.event(pm->sink.opaque, PLATFORM_POWER_OFF);
		return;
	}
	for (unsigned int i = 0; i < size; i++)
		write_byte(pm, offset + i, (uint8_t)(value >> 8 * i));
	update_sci(pm);
}

static const struct bus_ops pm_bus_ops = {
	.read = pm_read,
	.write = pm_write,
	.min = 1,
	.max = 4,
	.unaligned = true,
};

void pm_power_button(struct device *dev)
{
	struct pm *pm = container_of(dev, struct pm, dev);

	pthread_mutex_lock(&dev->lock);
	pm->sts |= STS_PWRBTN;
	update_sci(pm);
	pthread_mutex_unlock(&dev->lock);
}

static void pm_reset(struct device *dev)
{
	struct pm *pm = container_of(dev, struct pm, dev);

	pthread_mutex_lock(&dev->lock);
	pm->sts = pm->en = pm->cnt = 0;
	update_sci(pm);
	pthread_mutex_unlock(&dev->lock);
}

static void set_timer(struct device *dev, bool on)
{
	struct pm *pm = container_of(dev, struct pm, dev);

	pthread_mutex_lock(&dev->lock);
	pm->ticks = timer(pm);
	pm->start_ns = on ? clock_ns() : 0;
	pthread_mutex_unlock(&dev->lock);
}

static void pm_quiesce(struct device *dev, unsigned int phase)
{
	(void)phase;
	set_timer(dev, false);
}

static void pm_resume(struct device *dev)
{
	set_timer(dev, true);
}

static void pm_destroy(struct device *dev)
{
	struct pm *pm = container_of(dev, struct pm, dev);

	if (!dev)
		return;
	bus_del(pm->pio, &pm->region);
	bus_synchronize(pm->pio);
	irq_line_put(&pm->sci);
	device_done(dev);
	free(pm);
}

static const struct state_field pm_fields[] = {
	STATE_ONE(struct pm, sts, .mask = STS_PWRBTN),
	STATE_ONE(struct pm, en, .mask = EN_MASK),
	STATE_ONE(struct pm, cnt, .mask = CNT_BM_RLD | CNT_SLP_TYP),
	STATE_ONE(struct pm, ticks),
};
static const struct state_section pm_section = STATE_SECTION("pm", 1, struct pm, pm_fields);

STATE_DERIVED(struct pm, "made by pm_create", dev, pio, region, sink, sleep_control);
STATE_DERIVED(struct pm, "follows from status and enable", sci);
STATE_DERIVED(struct pm, "0: state is saved and loaded while the device is quiesced", start_ns);

static int pm_save(struct device *dev, struct state_writer *w, struct err *err)
{
	(void)err;
	state_save(w, &pm_section, container_of(dev, struct pm, dev), 1);
	return 0;
}

static int pm_load(struct device *dev, struct state_reader *r, struct err *err)
{
	struct pm *pm = container_of(dev, struct pm, dev);
	int ret = state_load(r, &pm_section, pm, 1, err);

	if (!ret)
		ret = state_commit(r, err);
	if (!ret)
		update_sci(pm);
	return ret;
}

static const struct device_ops pm_ops = {
	.type = "pm",
	.reset = pm_reset,
	.quiesce = pm_quiesce,
	.resume = pm_resume,
	.destroy = pm_destroy,
	.save = pm_save,
	.load = pm_load,
};

int pm_create(struct device **ret, const struct device_env *env, const struct platform_sink *sink,
	      bool sleep_control, struct err *err)
{
	struct pm *pm;
	int r;

	if (!mem_new(pm))
		return err_set(err, -ENOMEM, "pm: out of memory");
	device_init(&pm->dev, &pm_ops, "pm", env->log);
	pm->pio = env->pio;
	pm->sink = *sink;
	pm->sleep_control = sleep_control;
	pm->start_ns = clock_ns();
	pm->region = (struct bus_region){
		.ops = &pm_bus_ops,
		.opaque = pm,
		.name = "pm",
		.size_bytes = PM_BYTES,
		.lock = &pm->dev.lock,
	};
	r = irq_line_get(&pm->sci, env->irq, PLATFORM_SCI_GSI, err);
	if (!r)
		r = bus_add(env->pio, &pm->region, PLATFORM_PM_PORT, err);
	if (r) {
		pm_destroy(&pm->dev);
		return r;
	}
	*ret = &pm->dev;
	return 0;
}
