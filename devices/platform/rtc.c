/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The clock at ports 0x70 and 0x71: mc146818.c's registers, the host's time, and a timer that runs
 * only while an interrupt is enabled and not yet raised. A guest that wants 8192 interrupts a
 * second gets one for each that it takes.
 */
#include <errno.h>
#include <time.h>

#include "base/mem.h"
#include "base/num.h"
#include "core/bus.h"
#include "core/irq.h"
#include "core/loop.h"
#include "core/state.h"
#include "platform/mc146818.h"
#include "platform/platform.h"

enum { PORT_INDEX = 0, PORT_DATA = 1, PORTS = 2 };

/* The host's clock may be set while a timer runs: look again after this long at the latest. */
static const uint64_t longest_ns = 10000000000;

struct rtc {
	struct device dev;
	struct bus *pio;
	struct bus_region region;
	struct irq_line irq;
	struct loop *loop;
	struct mc146818 regs;
	uint8_t index;
	bool quiesced;
	bool kicked; /* kick is posted */
	/* The loop's. */
	struct loop_op kick, timer;
	bool timing, stopping;
	uint64_t timer_ns; /* host time for which the timer is set */
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Lock held. */
static void update(struct rtc *rtc)
{
	irq_line_set(&rtc->irq, mc146818_irq(&rtc->regs));
}

/* Have a timer for what comes next; one that is set for later is replaced when it has ended. */
static void arm(struct rtc *rtc)
{
	uint64_t now = now_ns(), next = MC146818_NEVER;

	pthread_mutex_lock(&rtc->dev.lock);
	rtc->kicked = false;
	if (!rtc->quiesced && !rtc->stopping) {
		mc146818_advance(&rtc->regs, now);
		update(rtc);
		next = mc146818_next(&rtc->regs, now);
	}
	pthread_mutex_unlock(&rtc->dev.lock);

	if (next == MC146818_NEVER)
		return;
	next = MIN(MAX(next, now), now + longest_ns);
	if (!rtc->timing) {
		rtc->timing = true;
		rtc->timer_ns = next;
		loop_timer(rtc->loop, &rtc->timer, next - now);
	} else if (next < rtc->timer_ns) {
		loop_cancel(rtc->loop, &rtc->timer);
	}
}

static void timer_done(struct loop_op *op, int result)
{
	struct rtc *rtc = container_of(op, struct rtc, timer);

	(void)result;
	rtc->timing = false;
	arm(rtc);
}

static void kick_done(struct loop_op *op, int result)
{
	(void)result;
	arm(container_of(op, struct rtc, kick));
}

/* Lock held. */
static void kick(struct rtc *rtc)
{
	if (rtc->kicked)
		return;
	rtc->kicked = true;
	loop_post(rtc->loop, &rtc->kick);
}

static uint64_t rtc_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct rtc *rtc = opaque;
	uint64_t now = now_ns();

	(void)size;
	if (offset == PORT_INDEX)
		return 0xff; /* write only */
	bool raised = mc146818_irq(&rtc->regs);
	uint8_t v = mc146818_read(&rtc->regs, rtc->index, now);
	update(rtc);
	/* Reading register C makes room for the next one. */
	if (raised && mc146818_next(&rtc->regs, now) != MC146818_NEVER)
		kick(rtc);
	return v;
}

static void rtc_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct rtc *rtc = opaque;
	uint64_t now = now_ns();

	(void)size;
	if (offset == PORT_INDEX) {
		rtc->index = value & 0x7f; /* bit 7 masks NMI on a PC */
		return;
	}
	mc146818_write(&rtc->regs, rtc->index, (uint8_t)value, now);
	update(rtc);
	if (mc146818_next(&rtc->regs, now) != MC146818_NEVER)
		kick(rtc);
}

static const struct bus_ops rtc_bus_ops = {
	.read = rtc_read,
	.write = rtc_write,
	.min = 1,
	.max = 1,
};

static void rtc_reset(struct device *dev)
{
	struct rtc *rtc = container_of(dev, struct rtc, dev);

	pthread_mutex_lock(&dev->lock);
	mc146818_reset(&rtc->regs, now_ns());
	rtc->index = 0;
	update(rtc);
	pthread_mutex_unlock(&dev->lock);
}

static void rtc_quiesce(struct device *dev, unsigned int phase)
{
	struct rtc *rtc = container_of(dev, struct rtc, dev);

	(void)phase;
	pthread_mutex_lock(&dev->lock);
	rtc->quiesced = true; /* a timer that ends meanwhile does nothing */
	pthread_mutex_unlock(&dev->lock);
}

static void rtc_resume(struct device *dev)
{
	struct rtc *rtc = container_of(dev, struct rtc, dev);

	pthread_mutex_lock(&dev->lock);
	rtc->quiesced = false;
	kick(rtc);
	pthread_mutex_unlock(&dev->lock);
}

static void rtc_destroy(struct device *dev)
{
	struct rtc *rtc = container_of(dev, struct rtc, dev);

	if (!dev)
		return;
	bus_del(rtc->pio, &rtc->region);
	bus_synchronize(rtc->pio);
	rtc->stopping = true;
	loop_cancel(rtc->loop, &rtc->timer);
	while (rtc->timing || rtc->kicked)
		if (loop_iterate(rtc->loop, true))
			break;
	irq_line_put(&rtc->irq);
	device_done(dev);
	free(rtc);
}

static const struct state_field rtc_fields[] = {
	STATE_ONE(struct rtc, index, .max = 0x7f),
};
static const struct state_section rtc_section = STATE_SECTION("rtc", 1, struct rtc, rtc_fields);

STATE_DERIVED(struct rtc, "made by rtc_create", dev, pio, region, loop);
STATE_DERIVED(struct rtc, "a section of its own", regs);
STATE_DERIVED(struct rtc, "follows from register C", irq);
STATE_DERIVED(struct rtc, "where the machine stands", quiesced, stopping);
STATE_DERIVED(struct rtc, "resume sets the timer", kick, kicked, timer, timing, timer_ns);

static int rtc_save(struct device *dev, struct state_writer *w, struct err *err)
{
	struct rtc *rtc = container_of(dev, struct rtc, dev);

	(void)err;
	pthread_mutex_lock(&dev->lock);
	state_save(w, &rtc_section, rtc, 1);
	state_save(w, &mc146818_section, &rtc->regs, 1);
	pthread_mutex_unlock(&dev->lock);
	return 0;
}

static int rtc_load(struct device *dev, struct state_reader *r, struct err *err)
{
	struct rtc *rtc = container_of(dev, struct rtc, dev);
	int ret;

	pthread_mutex_lock(&dev->lock);
	ret = state_load(r, &rtc_section, rtc, 1, err);
	if (!ret)
		ret = state_load(r, &mc146818_section, &rtc->regs, 1, err);
	if (!ret)
		ret = state_commit(r, err);
	if (!ret)
		update(rtc);
	pthread_mutex_unlock(&dev->lock);
	return ret;
}

static const struct device_ops rtc_ops = {
	.type = "rtc",
	.reset = rtc_reset,
	.quiesce = rtc_quiesce,
	.resume = rtc_resume,
	.destroy = rtc_destroy,
	.save = rtc_save,
	.load = rtc_load,
};

int rtc_create(struct device **ret, const struct device_env *env, struct err *err)
{
	struct rtc *rtc;
	int r;

	if (!mem_new(rtc))
		return err_set(err, -ENOMEM, "rtc: out of memory");
	device_init(&rtc->dev, &rtc_ops, "rtc", env->log);
	rtc->pio = env->pio;
	rtc->loop = env->loop;
	rtc->kick.done = kick_done;
	rtc->timer.done = timer_done;
	rtc->region = (struct bus_region){
		.ops = &rtc_bus_ops,
		.opaque = rtc,
		.name = "rtc",
		.size_bytes = PORTS,
		.lock = &rtc->dev.lock,
	};
	mc146818_init(&rtc->regs, now_ns());
	r = irq_line_get(&rtc->irq, env->irq, PLATFORM_RTC_GSI, err);
	if (!r)
		r = bus_add(env->pio, &rtc->region, PLATFORM_RTC_PORT, err);
	if (r) {
		rtc_destroy(&rtc->dev);
		return r;
	}
	*ret = &rtc->dev;
	return 0;
}
