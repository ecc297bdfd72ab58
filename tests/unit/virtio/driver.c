// SPDX-License-Identifier: Apache-2.0
// A small guest in the test's own process. See driver.h.
#include "driver.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/fd.h"
#include "base/le.h"
#include "base/mem.h"
#include "base/num.h"
#include "core/bus.h"
#include "core/irq.h"
#include "platform/platform.h"

#define must(what)                                                                              \
	do {                                                                                    \
		if (!(what)) {                                                                  \
			fprintf(stderr, "driver.c:%d: %s (%s)\n", __LINE__, #what, g_err.text); \
			abort();                                                                \
		}                                                                               \
	} while (0)

static struct err g_err;

enum {
	LOW_BYTES = 64 << 20,
	HIGH_BYTES = 16 << 20,
	ALLOC_START = 1 << 20,
	PINS = 24,
	MAX_GSI = 1024,
	WAIT_S = 10,
	PORT_SLOT = 1,

	F_INDIRECT = 28,
	F_EVENT_IDX = 29,
	F_VERSION_1 = 32,
};

static const struct pci_windows windows = {
	.ecam_gpa = 0xb0000000,
	.mmio32_gpa = 0xc0000000,
	.mmio32_bytes = 0x30000000,
	.mmio64_gpa = 0x4000000000,
	.mmio64_bytes = 0x1000000000,
	.io_base = 0xc000,
	.io_bytes = 0x4000,
	.top = 0x5000000000,
	.kept = {{0, 0x80000000}, {0xfec00000, 0x1400000}},
};

struct guest {
	struct log log;
	pthread_mutex_t lock; /* guards what follows up to irqs */
	unsigned int log_lines;
	char last_line[256];
	struct irq_route routes[MAX_GSI];
	unsigned int n_routes;
	int irqfd[MAX_GSI];
	unsigned int direct[MAX_GSI]; /* by data: send_msi */
	bool line[PINS];

	struct gmem *gmem;
	struct bus *mmio, *pio;
	struct irq_chip *irq;
	struct pci_root *root;
	struct dma_space *dma;
	bool platform_dma;
	struct device *port;
	unsigned int n_loops;
	struct loop *loops[GUEST_LOOPS_MAX];
	pthread_t threads[GUEST_LOOPS_MAX];
	bool threaded;
	uint64_t next_gpa;
};

static void log_line(void *opaque, enum log_level level, const char *component, const char *text)
{
	struct guest *g = opaque;

	(void)level;
	pthread_mutex_lock(&g->lock);
	g->log_lines++;
	snprintf(g->last_line, sizeof(g->last_line), "%s: %s", component, text);
	pthread_mutex_unlock(&g->lock);
}

/* The interrupt chip: remembers, and counts when asked. */

static int set_routes(void *opaque, const struct irq_route *routes, unsigned int n)
{
	struct guest *g = opaque;

	pthread_mutex_lock(&g->lock);
	memcpy(g->routes, routes, n * sizeof(*routes));
	g->n_routes = n;
	pthread_mutex_unlock(&g->lock);
	return 0;
}

static int set_irqfd(void *opaque, uint32_t gsi, int fd, int resample_fd, bool on)
{
	struct guest *g = opaque;

	(void)resample_fd;
	pthread_mutex_lock(&g->lock);
	g->irqfd[gsi] = on ? fd : -1;
	pthread_mutex_unlock(&g->lock);
	return 0;
}

static int set_line(void *opaque, uint32_t gsi, bool level)
{
	struct guest *g = opaque;

	pthread_mutex_lock(&g->lock);
	g->line[gsi] = level;
	pthread_mutex_unlock(&g->lock);
	return 0;
}

static int send_msi(void *opaque, uint64_t address, uint32_t data, uint32_t devid)
{
	struct guest *g = opaque;

	(void)address;
	(void)devid;
	pthread_mutex_lock(&g->lock);
	g->direct[data % MAX_GSI]++;
	pthread_mutex_unlock(&g->lock);
	return 0;
}

static const struct irq_chip_ops irq_ops = {
	.set_routes = set_routes,
	.set_irqfd = set_irqfd,
	.set_line = set_line,
	.send_msi = send_msi,
	.pins = PINS,
	.max_gsi = MAX_GSI,
};

static void add_memory(struct guest *g)
{
	struct gmem_region_config low = {
		.name = "low", .size_bytes = LOW_BYTES, .numa_node = -1, .fd = -1};
	struct gmem_region_config high = {.name = "high",
					  .gpa = 4 * GiB,
					  .size_bytes = HIGH_BYTES,
					  .numa_node = -1,
					  .fd = -1};

	must(!gmem_create(&g->gmem, &g->log, &g_err));
	must(!gmem_begin(g->gmem, &g_err));
	must(!gmem_add(g->gmem, &low, &g_err));
	must(!gmem_add(g->gmem, &high, &g_err));
	must(!gmem_commit(g->gmem, &g_err));
	g->next_gpa = ALLOC_START;
}

static void add_port(struct guest *g)
{
	struct device_env env = {.log = &g->log, .mmio = g->mmio, .pio = g->pio, .irq = g->irq};
	struct root_port_config config = {.name = "port0", .slot_number = 1};

	must(!root_port_create(&g->port, &env, g->root, &config, &g_err));
}

struct guest *guest_create(const struct guest_config *config)
{
	static const struct guest_config defaults;
	struct pci_root_config root = {.windows = windows, .intx_gsi = 16};
	struct guest *g;

	if (!config)
		config = &defaults;
	must(mem_new(g));
	pthread_mutex_init(&g->lock, NULL);
	g->log = (struct log){.fn = log_line, .opaque = g, .level = LOG_INFO};
	for (unsigned int i = 0; i < MAX_GSI; i++)
		g->irqfd[i] = -1;
	add_memory(g);
	must(!bus_create(&g->mmio, BUS_MMIO, &g_err));
	must(!bus_create(&g->pio, BUS_PIO, &g_err));
	must(!irq_chip_create(&g->irq, &irq_ops, g, &g_err));
	must(!irq_chip_start(g->irq, &g_err));
	root.log = &g->log;
	root.mmio = g->mmio;
	root.pio = g->pio;
	root.irq = g->irq;
	must(!pci_root_create(&g->root, &root, &g_err));
	must(!dma_space_create(&g->dma, g->gmem, config->dma_ops, config->dma_opaque, &g_err));
	g->platform_dma = config->platform_dma;
	if (config->behind_port)
		add_port(g);
	g->n_loops = config->loops ? config->loops : 1;
	must(g->n_loops <= GUEST_LOOPS_MAX);
	for (unsigned int i = 0; i < g->n_loops; i++) {
		struct loop_config loop = {
			.log = &g->log, .name = "test", .backend = config->backend};

		must(!loop_create(&g->loops[i], &loop, &g_err));
	}
	return g;
}

void guest_destroy(struct guest *g)
{
	guest_join_loops(g);
	for (unsigned int i = 0; i < g->n_loops; i++)
		loop_destroy(g->loops[i]);
	if (g->port)
		g->port->ops->destroy(g->port);
	pci_root_destroy(g->root);
	irq_chip_destroy(g->irq);
	bus_destroy(g->pio);
	bus_destroy(g->mmio);
	dma_space_destroy(g->dma);
	gmem_destroy(g->gmem);
	pthread_mutex_destroy(&g->lock);
	free(g);
}

struct loop *guest_loop(struct guest *g, unsigned int i)
{
	return g->loops[i];
}

struct gmem *guest_memory(struct guest *g)
{
	return g->gmem;
}

struct dma_space *guest_dma(struct guest *g)
{
	return g->dma;
}

const struct log *guest_log(struct guest *g)
{
	return &g->log;
}

struct device_env guest_env(struct guest *g)
{
	return (struct device_env){
		.log = &g->log,
		.mmio = g->mmio,
		.pio = g->pio,
		.irq = g->irq,
		.loop = g->loops[0],
		.dma = g->dma,
	};
}

struct pci_bus *guest_bus(struct guest *g)
{
	return g->port ? root_port_bus(g->port) : pci_root_bus(g->root);
}

unsigned int guest_log_lines(struct guest *g)
{
	unsigned int n;

	pthread_mutex_lock(&g->lock);
	n = g->log_lines;
	pthread_mutex_unlock(&g->lock);
	return n;
}

const char *guest_last_line(struct guest *g)
{
	return g->last_line;
}

uint64_t guest_alloc(struct guest *g, uint64_t bytes, uint64_t align)
{
	uint64_t gpa = align_up(g->next_gpa, align);

	g->next_gpa = gpa + bytes;
	must(g->next_gpa <= LOW_BYTES);
	memset(guest_ptr(g, gpa, bytes), 0, bytes);
	return gpa;
}

void guest_free_from(struct guest *g, uint64_t gpa)
{
	g->next_gpa = gpa;
}

void *guest_ptr(struct guest *g, uint64_t gpa, size_t len)
{
	void *p = gmem_host(g->gmem, gpa, len, true);

	must(p);
	return p;
}

void guest_turn(struct guest *g)
{
	for (unsigned int i = 0; i < g->n_loops && !g->threaded; i++)
		must(!loop_iterate(g->loops[i], false));
	if (g->threaded)
		sched_yield();
}

bool guest_until(struct guest *g, bool (*cond)(void *opaque), void *opaque)
{
	struct timespec start, now;

	clock_gettime(CLOCK_MONOTONIC, &start);
	while (!cond(opaque)) {
		guest_turn(g);
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec - start.tv_sec > WAIT_S)
			return false;
	}
	return true;
}

static void *loop_main(void *opaque)
{
	must(!loop_run(opaque));
	return NULL;
}

void guest_run_loops(struct guest *g)
{
	g->threaded = true;
	for (unsigned int i = 0; i < g->n_loops; i++)
		must(!pthread_create(&g->threads[i], NULL, loop_main, g->loops[i]));
}

void guest_join_loops(struct guest *g)
{
	for (unsigned int i = 0; i < g->n_loops && g->threaded; i++) {
		loop_stop(g->loops[i]);
		must(!pthread_join(g->threads[i], NULL));
	}
	g->threaded = false;
}

/* The driver. */

static uint64_t ecam(struct drv *d, unsigned int reg)
{
	return windows.ecam_gpa + ((uint64_t)d->addr.bus << 20) + ((uint64_t)d->addr.slot << 15) +
	       ((uint64_t)d->addr.function << 12) + reg;
}

uint32_t drv_cfg_read(struct drv *d, unsigned int reg, unsigned int size)
{
	uint8_t bytes[4] = {0};

	must(bus_read(d->guest->mmio, ecam(d, reg), bytes, size));
	return load_le32(bytes);
}

void drv_cfg_write(struct drv *d, unsigned int reg, uint32_t value, unsigned int size)
{
	uint8_t bytes[4];

	store_le32(bytes, value);
	must(bus_write(d->guest->mmio, ecam(d, reg), bytes, size));
}

/* The port is alone on bus 0, in its lowest slot. */
static void port_write(struct drv *d, unsigned int reg, uint32_t value, unsigned int size)
{
	struct drv port = {.guest = d->guest, .addr = {.slot = PORT_SLOT}};

	if (d->guest->port)
		drv_cfg_write(&port, reg, value, size);
}

void drv_bus_reset(struct drv *d)
{
	/* Bridge control: secondary bus reset, on and off (PCI Express Base 6.0, 7.5.1.3.13). */
	port_write(d, 0x3e, 0x40, 2);
	port_write(d, 0x3e, 0, 2);
}

uint64_t drv_bar_read(struct drv *d, uint64_t offset, unsigned int size)
{
	uint8_t bytes[8] = {0};

	must(bus_read(d->guest->mmio, d->bar + offset, bytes, size));
	return load_le64(bytes);
}

void drv_bar_write(struct drv *d, uint64_t offset, uint64_t value, unsigned int size)
{
	uint8_t bytes[8];

	store_le64(bytes, value);
	must(bus_write(d->guest->mmio, d->bar + offset, bytes, size));
}

static void find_caps(struct drv *d)
{
	unsigned int at = drv_cfg_read(d, 0x34, 1);

	for (unsigned int n = 0; at && n < 48; n++, at = drv_cfg_read(d, at + 1, 1)) {
		uint32_t offset;

		if (drv_cfg_read(d, at, 1) != 9)
			continue;
		offset = drv_cfg_read(d, at + 8, 4);
		switch (drv_cfg_read(d, at + 3, 1)) {
		case 1:
			d->common = offset;
			break;
		case 2:
			/* The one by port comes first, so that drivers take it. */
			if (drv_cfg_read(d, at + 4, 1) == 2) {
				must(!d->notify && !offset);
				d->ports = drv_cfg_read(d, 0x18, 4) & ~3u;
			} else {
				d->notify = offset;
			}
			d->notify_multiplier = drv_cfg_read(d, at + 16, 4);
			break;
		case 3:
			d->isr = offset;
			break;
		case 4:
			d->config = offset;
			break;
		case 5:
			d->pci_cap = at;
			break;
		default:
			break;
		}
	}
	must(d->notify && d->ports && d->isr && d->pci_cap);
}

struct drv *drv_create(struct guest *g, struct virtio_device *vdev)
{
	struct device_env env = guest_env(g);
	struct virtio_pci_config config = {
		.bus = guest_bus(g),
		.platform_dma = g->platform_dma,
	};
	struct drv *d;

	must(mem_new(d));
	d->guest = g;
	d->vdev = vdev;
	must(!virtio_pci_create(&d->dev, &env, &config, vdev, &g_err));
	if (g->port) { /* power-on: what is in the slot has power */
		root_port_set_present(g->port, true);
		g->port->ops->reset(g->port);
	}
	must(!pci_root_assign(g->root, &g_err));
	d->addr = *virtio_pci_addr(d->dev);
	d->bar = drv_cfg_read(d, 0x10 + 4 * DRV_BAR, 4) & ~0xfu;
	d->bar |= (uint64_t)drv_cfg_read(d, 0x14 + 4 * DRV_BAR, 4) << 32;
	port_write(d, 4, 7, 2);
	drv_cfg_write(d, 4, 7, 2); /* ports, memory, bus master */
	find_caps(d);
	d->n_queues = (unsigned int)drv_common_read(d, NUM_QUEUES, 2);
	return d;
}

void drv_destroy(struct drv *d)
{
	d->dev->ops->quiesce(d->dev, 0);
	d->dev->ops->quiesce(d->dev, 1);
	d->dev->ops->destroy(d->dev);
	free(d);
}

uint8_t drv_status(struct drv *d)
{
	return (uint8_t)drv_common_read(d, STATUS, 1);
}

void drv_set_status(struct drv *d, uint8_t bits)
{
	drv_common_write(d, STATUS, drv_status(d) | bits, 1);
}

static bool is_reset(void *opaque)
{
	return drv_status(opaque) == 0;
}

void drv_reset(struct drv *d)
{
	drv_common_write(d, STATUS, 0, 1);
	must(guest_until(d->guest, is_reset, d));
}

uint64_t drv_offered(struct drv *d)
{
	uint64_t offered;

	drv_common_write(d, DEVICE_FEATURE_SELECT, 1, 4);
	offered = drv_common_read(d, DEVICE_FEATURE, 4) << 32;
	drv_common_write(d, DEVICE_FEATURE_SELECT, 0, 4);
	return offered | drv_common_read(d, DEVICE_FEATURE, 4);
}

bool drv_negotiate(struct drv *d, uint64_t features)
{
	d->features = features | 1ull << F_VERSION_1;
	drv_set_status(d, 1);
	drv_set_status(d, 2);
	drv_common_write(d, DRIVER_FEATURE_SELECT, 0, 4);
	drv_common_write(d, DRIVER_FEATURE, (uint32_t)d->features, 4);
	drv_common_write(d, DRIVER_FEATURE_SELECT, 1, 4);
	drv_common_write(d, DRIVER_FEATURE, d->features >> 32, 4);
	drv_set_status(d, 8);
	return drv_status(d) & 8;
}

void drv_setup_queue(struct drv *d, unsigned int i, uint16_t size)
{
	struct drv_queue *q = &d->queues[i];
	bool indirect = d->features >> F_INDIRECT & 1;

	drv_common_write(d, QUEUE_SELECT, i, 2);
	if (!size)
		size = (uint16_t)drv_common_read(d, QUEUE_SIZE, 2);
	*q = (struct drv_queue){
		.size = size,
		.desc = guest_alloc(d->guest, 16u * size, 16),
		.avail = guest_alloc(d->guest, 6u + 2u * size, 2),
		.used = guest_alloc(d->guest, 6u + 8u * size, 4),
		.table = d->indirect && indirect ? guest_alloc(d->guest, 4096ull * size, 4096) : 0,
	};
	drv_common_write(d, QUEUE_SIZE, size, 2);
	must(drv_common_read(d, QUEUE_SIZE, 2) == size);
	drv_common_write(d, QUEUE_DESC, q->desc, 8);
	/* The other two by halves, as some drivers do. */
	drv_common_write(d, QUEUE_DRIVER, (uint32_t)q->avail, 4);
	drv_bar_write(d, d->common + (uint64_t)DRV_QUEUE_DRIVER + 4, q->avail >> 32, 4);
	drv_common_write(d, QUEUE_DEVICE, (uint32_t)q->used, 4);
	drv_bar_write(d, d->common + (uint64_t)DRV_QUEUE_DEVICE + 4, q->used >> 32, 4);
	drv_common_write(d, QUEUE_ENABLE, 1, 2);
}

static unsigned int find_cap(struct drv *d, uint8_t id)
{
	unsigned int at = drv_cfg_read(d, 0x34, 1);

	while (at && drv_cfg_read(d, at, 1) != id)
		at = drv_cfg_read(d, at + 1, 1);
	must(at);
	return at;
}

void drv_enable_msix(struct drv *d)
{
	unsigned int at = find_cap(d, 0x11);
	unsigned int vectors = (drv_cfg_read(d, at + 2, 2) & 0x7ff) + 1;
	uint64_t table = drv_cfg_read(d, at + 4, 4) & ~7u;

	must((drv_cfg_read(d, at + 4, 4) & 7) == DRV_BAR && vectors <= DRV_VECTORS_MAX);
	drv_cfg_write(d, at + 2, (drv_cfg_read(d, at + 2, 2) & ~0x4000u) | 0x8000, 2);
	for (unsigned int v = 0; v < vectors; v++) {
		drv_bar_write(d, table + 16u * v, 0xfee00000, 4);
		drv_bar_write(d, table + 16u * v + 4, 0, 4);
		/* The data tells device and vector apart in the interrupt chip. */
		drv_bar_write(d, table + 16u * v + 8, (uint64_t)d->addr.slot << 8 | v, 4);
		drv_bar_write(d, table + 16u * v + 12, 0, 4);
	}
	for (unsigned int i = 0; i < d->n_queues; i++) {
		drv_common_write(d, QUEUE_SELECT, i, 2);
		drv_common_write(d, QUEUE_VECTOR, i, 2);
		must(drv_common_read(d, QUEUE_VECTOR, 2) == i);
	}
	drv_common_write(d, CONFIG_VECTOR, d->n_queues, 2);
	must(drv_common_read(d, CONFIG_VECTOR, 2) == d->n_queues);
}

void drv_start(struct drv *d, uint64_t features, uint16_t queue_size)
{
	drv_reset(d);
	must(drv_negotiate(d, features));
	drv_enable_msix(d);
	for (unsigned int i = 0; i < d->n_queues; i++)
		drv_setup_queue(d, i, queue_size);
	drv_set_status(d, 4);
	must(drv_status(d) == 15);
}

unsigned int drv_interrupts(struct drv *d, unsigned int v)
{
	struct guest *g = d->guest;
	uint32_t data = (uint32_t)d->addr.slot << 8 | v;
	unsigned int n = 0;

	pthread_mutex_lock(&g->lock);
	for (unsigned int i = 0; i < g->n_routes; i++) {
		const struct irq_route *r = &g->routes[i];

		if (r->msi && r->data == data && g->irqfd[r->gsi] >= 0)
			n += (unsigned int)fd_event_drain(g->irqfd[r->gsi]);
	}
	n += g->direct[data % MAX_GSI];
	g->direct[data % MAX_GSI] = 0;
	pthread_mutex_unlock(&g->lock);
	return n;
}

unsigned int drv_sleep(struct drv *d, unsigned int v)
{
	struct guest *g = d->guest;
	uint32_t data = (uint32_t)d->addr.slot << 8 | v;
	struct pollfd p = {.fd = -1, .events = POLLIN};

	pthread_mutex_lock(&g->lock);
	for (unsigned int i = 0; i < g->n_routes; i++) {
		const struct irq_route *r = &g->routes[i];

		if (r->msi && r->data == data)
			p.fd = g->irqfd[r->gsi];
	}
	pthread_mutex_unlock(&g->lock);
	must(p.fd >= 0);
	(void)poll(&p, 1, WAIT_S * 1000);
	return drv_interrupts(d, v);
}

bool drv_intx(struct drv *d)
{
	struct guest *g = d->guest;
	unsigned int pin = drv_cfg_read(d, 0x3d, 1) - 1;
	bool level;

	pthread_mutex_lock(&g->lock);
	level = g->line[16 + (d->addr.slot + pin) % 4];
	pthread_mutex_unlock(&g->lock);
	return level;
}

/* Rings */

static void put_desc(struct drv *d, uint64_t gpa, uint64_t addr, uint32_t len, uint16_t flags,
		     uint16_t next)
{
	uint64_t *words = guest_ptr(d->guest, gpa, 16);

	/* The device may look at any time, if the test is of that kind. */
	__atomic_store_n(&words[0], addr, __ATOMIC_RELAXED);
	__atomic_store_n(&words[1], len | (uint64_t)flags << 32 | (uint64_t)next << 48,
			 __ATOMIC_RELAXED);
}

void drv_write_desc(struct drv *d, unsigned int queue, uint16_t i, uint64_t addr, uint32_t len,
		    uint16_t flags, uint16_t next)
{
	put_desc(d, d->queues[queue].desc + 16u * i, addr, len, flags, next);
}

static uint16_t *avail_at(struct drv *d, unsigned int queue, uint64_t offset)
{
	return guest_ptr(d->guest, d->queues[queue].avail + offset, 2);
}

static void *used_at(struct drv *d, unsigned int queue, uint64_t offset, size_t len)
{
	return guest_ptr(d->guest, d->queues[queue].used + offset, len);
}

uint16_t drv_add(struct drv *d, unsigned int queue, const struct drv_sg *out, unsigned int n_out,
		 const struct drv_sg *in, unsigned int n_in)
{
	struct drv_queue *q = &d->queues[queue];
	unsigned int n = n_out + n_in;
	uint16_t head = q->next_desc;
	uint64_t table = q->desc;

	must(n);
	if (q->table) {
		must(n <= 256);
		table = q->table + 4096ull * head;
		put_desc(d, q->desc + 16ull * head, table, 16 * n, 4, 0);
	} else if (head + n > q->size) {
		head = 0;
	}
	for (unsigned int i = 0; i < n; i++) {
		const struct drv_sg *sg = i < n_out ? &out[i] : &in[i - n_out];
		unsigned int at = q->table ? i : head + i;

		put_desc(d, table + 16ull * at, sg->gpa, sg->len,
			 (uint16_t)((i + 1 < n ? 1 : 0) | (i >= n_out ? 2 : 0)),
			 (uint16_t)(i + 1 < n ? at + 1 : 0));
	}
	q->next_desc = (uint16_t)((head + (q->table ? 1 : n)) % q->size);
	__atomic_store_n(avail_at(d, queue, 4 + 2ull * (q->avail_idx % q->size)), head,
			 __ATOMIC_RELAXED);
	q->avail_idx++;
	q->outstanding++;
	return head;
}

void drv_publish(struct drv *d, unsigned int queue)
{
	__atomic_store_n(avail_at(d, queue, 2), d->queues[queue].avail_idx, __ATOMIC_RELEASE);
}

void drv_notify(struct drv *d, unsigned int queue)
{
	uint64_t at = (uint64_t)queue * d->notify_multiplier;
	uint8_t bytes[2];

	store_le16(bytes, (uint16_t)queue);
	/* (Some tests leave only memory decoded.) */
	if (d->notified++ & 1 || !(drv_cfg_read(d, 4, 2) & 1))
		drv_bar_write(d, d->notify + at, queue, 2);
	else
		must(bus_write(d->guest->pio, d->ports + at, bytes, 2));
}

bool drv_kick(struct drv *d, unsigned int queue)
{
	struct drv_queue *q = &d->queues[queue];
	uint16_t *idx = avail_at(d, queue, 2);
	uint16_t old = __atomic_exchange_n(idx, q->avail_idx, __ATOMIC_SEQ_CST);
	uint16_t event;
	bool wanted;

	if (d->features >> F_EVENT_IDX & 1) {
		event = __atomic_load_n((uint16_t *)used_at(d, queue, 4 + 8ull * q->size, 2),
					__ATOMIC_SEQ_CST);
		wanted = (uint16_t)(q->avail_idx - event - 1) < (uint16_t)(q->avail_idx - old);
	} else {
		wanted = !(__atomic_load_n((uint16_t *)used_at(d, queue, 0, 2), __ATOMIC_SEQ_CST) &
			   1);
	}
	if (wanted)
		drv_notify(d, queue);
	return wanted;
}

uint16_t drv_used_idx(struct drv *d, unsigned int queue)
{
	return __atomic_load_n((uint16_t *)used_at(d, queue, 2, 2), __ATOMIC_ACQUIRE);
}

bool drv_used(struct drv *d, unsigned int queue, uint16_t *head, uint32_t *len)
{
	struct drv_queue *q = &d->queues[queue];
	uint32_t *elem;

	if (drv_used_idx(d, queue) == q->used_seen)
		return false;
	elem = used_at(d, queue, 4 + 8ull * (q->used_seen % q->size), 8);
	if (head)
		*head = (uint16_t)__atomic_load_n(&elem[0], __ATOMIC_RELAXED);
	if (len)
		*len = __atomic_load_n(&elem[1], __ATOMIC_RELAXED);
	q->used_seen++;
	q->outstanding--;
	if (d->features >> F_EVENT_IDX & 1) {
		/* Interrupt for the next one. */
		__atomic_exchange_n(avail_at(d, queue, 4 + 2ull * q->size), q->used_seen,
				    __ATOMIC_SEQ_CST);
	}
	return true;
}

struct used_wait {
	struct drv *d;
	unsigned int queue;
};

static bool has_used(void *opaque)
{
	struct used_wait *w = opaque;

	return drv_used_idx(w->d, w->queue) != w->d->queues[w->queue].used_seen;
}

bool drv_wait(struct drv *d, unsigned int queue, uint16_t *head, uint32_t *len)
{
	struct used_wait w = {d, queue};

	return guest_until(d->guest, has_used, &w) && drv_used(d, queue, head, len);
}
