/* SPDX-License-Identifier: Apache-2.0 */
/* What every platform device needs around it: a port bus, an interrupt chip that remembers levels
 * and counts edges, a loop (optionally in a thread of its own), and a sink that counts events. */
#ifndef TESTS_PLATFORM_HARNESS_H
#define TESTS_PLATFORM_HARNESS_H

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/num.h"
#include "core/bus.h"
#include "core/device.h"
#include "core/irq.h"
#include "core/loop.h"
#include "core/pci.h"
#include "platform/platform.h"

#define ECAM 0xb0000000ull

enum { HARNESS_PINS = 24 };

struct harness {
	struct bus *pio, *mmio;
	struct irq_chip *irq;
	struct loop *loop;
	struct log log;
	struct device_env env;
	_Atomic bool level[HARNESS_PINS];
	_Atomic unsigned int edges[HARNESS_PINS];
	int irqfd;              /* of the message source that was connected last, or -1 */
	unsigned int events[4]; /* by enum platform_event */
	struct platform_sink sink;
	pthread_t thread;
	bool threaded;
};

static inline int harness_routes(void *opaque, const struct irq_route *routes, unsigned int n)
{
	(void)opaque;
	(void)routes;
	(void)n;
	return 0;
}

static inline int harness_irqfd(void *opaque, uint32_t gsi, int fd, int resample_fd, bool on)
{
	struct harness *h = opaque;

	(void)gsi;
	(void)resample_fd;
	h->irqfd = on ? fd : -1;
	return 0;
}

static inline int harness_line(void *opaque, uint32_t gsi, bool level)
{
	struct harness *h = opaque;

	h->level[gsi] = level;
	if (level)
		h->edges[gsi]++;
	return 0;
}

static inline int harness_msi(void *opaque, uint64_t address, uint32_t data, uint32_t devid)
{
	(void)opaque;
	(void)address;
	(void)data;
	(void)devid;
	return 0;
}

static const struct irq_chip_ops harness_irq_ops = {
	.set_routes = harness_routes,
	.set_irqfd = harness_irqfd,
	.set_line = harness_line,
	.send_msi = harness_msi,
	.pins = HARNESS_PINS,
	.max_gsi = 1024,
};

static inline void harness_event(void *opaque, enum platform_event event)
{
	struct harness *h = opaque;

	h->events[event]++;
}

static inline void harness_init(struct harness *h)
{
	struct loop_config loop = {.log = &h->log, .name = "test"};
	struct err err = ERR_INIT;

	*h = (struct harness){.irqfd = -1};
	cr_assert_eq(bus_create(&h->pio, BUS_PIO, &err), 0);
	cr_assert_eq(bus_create(&h->mmio, BUS_MMIO, &err), 0);
	cr_assert_eq(irq_chip_create(&h->irq, &harness_irq_ops, h, &err), 0);
	cr_assert_eq(loop_create(&h->loop, &loop, &err), 0, "%s", err.text);
	h->env = (struct device_env){
		.log = &h->log,
		.mmio = h->mmio,
		.pio = h->pio,
		.irq = h->irq,
		.loop = h->loop,
	};
	h->sink = (struct platform_sink){harness_event, h};
}

static inline struct pci_root *harness_root_of(struct harness *h, bool ecam_only)
{
	const struct pci_root_config config = {
		.log = &h->log,
		.mmio = h->mmio,
		.pio = h->pio,
		.irq = h->irq,
		.windows = {.ecam_gpa = ECAM,
			    .mmio32_gpa = 0xc0000000,
			    .mmio32_bytes = 0x3c000000,
			    .mmio64_gpa = 64 * GiB,
			    .mmio64_bytes = 64 * GiB,
			    .io_base = 0x1000,
			    .io_bytes = 0xf000,
			    .top = 128 * GiB},
		.ecam_only = ecam_only,
		.intx_gsi = 16,
	};
	struct err err = ERR_INIT;
	struct pci_root *root;

	cr_assert_eq(pci_root_create(&root, &config, &err), 0, "%s", err.text);
	return root;
}

static inline struct pci_root *harness_root(struct harness *h)
{
	return harness_root_of(h, false);
}

static inline void *harness_thread(void *opaque)
{
	struct harness *h = opaque;

	loop_run(h->loop);
	return NULL;
}

static inline void harness_run(struct harness *h)
{
	cr_assert_eq(pthread_create(&h->thread, NULL, harness_thread, h), 0);
	h->threaded = true;
}

static inline void harness_stop(struct harness *h)
{
	if (!h->threaded)
		return;
	loop_stop(h->loop);
	pthread_join(h->thread, NULL);
	h->threaded = false;
}

/* Devices are gone. */
static inline void harness_done(struct harness *h)
{
	harness_stop(h);
	loop_destroy(h->loop);
	irq_chip_destroy(h->irq);
	bus_destroy(h->mmio);
	bus_destroy(h->pio);
}

static inline uint8_t in8(struct harness *h, uint16_t port)
{
	uint8_t v = 0;

	bus_read(h->pio, port, &v, 1);
	return v;
}

static inline void out8(struct harness *h, uint16_t port, uint8_t v)
{
	bus_write(h->pio, port, &v, 1);
}

static inline uint16_t in16(struct harness *h, uint16_t port)
{
	uint16_t v = 0;

	bus_read(h->pio, port, &v, 2);
	return v;
}

static inline void out16(struct harness *h, uint16_t port, uint16_t v)
{
	bus_write(h->pio, port, &v, 2);
}

#endif
