// SPDX-License-Identifier: Apache-2.0
// The registers of a virtio PCI device against a driver that accesses them in any order and size,
// while its queues run. Oracle: a model of the common configuration predicts every read; a reset
// always completes; and after it, by the driver or by the machine, the device works.
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "driver.h"
#include "fuzz.h"
#include "base/num.h"
#include "virtio/console.h"

enum {
	QUEUES = 2,
	QUEUE_SIZE = 64,
	VECTORS = QUEUES + 1,
	NO_VECTOR = 0xffff,
	MAX_STEPS = 200,
	MAX_TURNS = 1000,
	RING_BYTES = 0x4000,
	CONFIG_BYTES = 12,

	S_DRIVER_OK = 4,
	S_FEATURES_OK = 8,
	S_NEEDS_RESET = 64,
	S_WRITABLE = 0x8f,
};

/* What the console offers, with the transport's bits (virtio 1.3, 6). */
#define OFFERED (1ull << 0 | 1ull << 28 | 1ull << 29 | 1ull << 32 | 1ull << 40)

static struct guest *g;
static struct drv *d;
static uint64_t rings; /* where good rings can be */

struct model_queue {
	uint16_t size;
	uint16_t vector;
	bool enable;
	uint64_t addr[3];
};

struct model {
	uint32_t device_select, driver_select;
	uint64_t accepted, features;
	uint16_t config_vector, queue_select;
	uint8_t status;
	struct model_queue q[QUEUES];
};

struct run {
	const uint8_t *data;
	size_t left;
	struct model m;
};

static uint64_t take(struct run *r, unsigned int n)
{
	uint64_t v = 0;

	for (unsigned int i = 0; i < n && r->left; i++, r->left--)
		v |= (uint64_t)*r->data++ << 8 * i;
	return v;
}

static void model_reset(struct model *m)
{
	*m = (struct model){.config_vector = NO_VECTOR};
	for (unsigned int i = 0; i < QUEUES; i++)
		m->q[i] = (struct model_queue){.size = QUEUE_SIZE, .vector = NO_VECTOR};
}

static void set_up(void)
{
	struct guest_config config = {.backend = LOOP_EPOLL};
	struct virtio_console_setup console = {.name = "console0", .in_fd = -1, .out_fd = -1};
	struct virtio_device *vdev;
	struct err err = ERR_INIT;
	int ends[2]; /* of a viewer who never reads, and who types a little */

	if (g)
		return;
	g = guest_create(&config);
	console.loop = guest_loop(g, 0);
	check(!virtio_console_create(&vdev, &console, guest_log(g), &err));
	virtio_console_resize(vdev, 80, 25);
	check(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
	check(write(ends[1], "typed", 5) == 5);
	d = drv_create(g, vdev);
	check(!virtio_console_view(vdev, ends[0], false, &err));
	rings = guest_alloc(g, RING_BYTES, 4096);
}

/* Turn until the register reads as wanted: what was asked for must come to an end. */
static void turn_until(uint64_t offset, unsigned int size, uint64_t value)
{
	for (unsigned int i = 0; drv_bar_read(d, d->common + offset, size) != value; i++) {
		check(i < MAX_TURNS);
		guest_turn(g);
	}
}

/* Writes, as the specification has them */

static bool queue_open(const struct model *m)
{
	return m->queue_select < QUEUES && !m->q[m->queue_select].enable;
}

static void model_status(struct model *m, uint8_t value)
{
	uint8_t set = value & S_WRITABLE;

	if (!value) {
		turn_until(DRV_STATUS, 1, 0);
		model_reset(m);
		return;
	}
	if (set & S_FEATURES_OK && !(m->status & S_FEATURES_OK)) {
		if (m->status & S_DRIVER_OK || m->accepted & ~OFFERED || !(m->accepted >> 32 & 1))
			set &= (uint8_t)~S_FEATURES_OK;
		else
			m->features = m->accepted;
	}
	if (!((m->status | set) & S_FEATURES_OK))
		set &= (uint8_t)~S_DRIVER_OK;
	m->status |= set;
}

static uint16_t model_vector(uint64_t value)
{
	return value < VECTORS ? (uint16_t)value : (uint16_t)NO_VECTOR;
}

static void model_address(struct model *m, uint32_t offset, uint64_t value, unsigned int size)
{
	uint64_t *a = &m->q[m->queue_select].addr[(offset - DRV_QUEUE_DESC) / 8];
	uint8_t bytes[8];

	memcpy(bytes, a, 8);
	if (size == 4 || size == 8)
		memcpy(bytes + offset % 8, &value, size);
	memcpy(a, bytes, 8);
}

static void model_write(struct model *m, uint32_t offset, uint64_t value, unsigned int size)
{
	struct model_queue *q = m->queue_select < QUEUES ? &m->q[m->queue_select] : NULL;
	bool two = offset == DRV_CONFIG_VECTOR || offset == DRV_QUEUE_SIZE ||
		   offset == DRV_QUEUE_ENABLE;

	if (two && size == 4) {
		size = 2;
		value = (uint16_t)value;
	} else if (offset == DRV_STATUS && size <= 4) {
		size = 1;
		value = (uint8_t)value;
	}
	switch (offset << 4 | size) {
	case DRV_DEVICE_FEATURE_SELECT << 4 | 4:
		m->device_select = (uint32_t)value;
		break;
	case DRV_DRIVER_FEATURE_SELECT << 4 | 4:
		m->driver_select = (uint32_t)value;
		break;
	case DRV_DRIVER_FEATURE << 4 | 4:
		if (m->status & S_FEATURES_OK || m->driver_select > 1)
			break;
		m->accepted &= ~(0xffffffffull << 32 * m->driver_select);
		m->accepted |= value << 32 * m->driver_select;
		break;
	case DRV_CONFIG_VECTOR << 4 | 2:
		m->config_vector = model_vector(value);
		break;
	case DRV_STATUS << 4 | 1:
		model_status(m, (uint8_t)value);
		break;
	case DRV_QUEUE_SELECT << 4 | 2:
		m->queue_select = (uint16_t)value;
		break;
	case DRV_QUEUE_SIZE << 4 | 2:
		if (queue_open(m) && is_power_of_two(value) && value <= QUEUE_SIZE)
			q->size = (uint16_t)value;
		break;
	case DRV_QUEUE_VECTOR << 4 | 2:
		if (q)
			q->vector = model_vector(value);
		break;
	case DRV_QUEUE_ENABLE << 4 | 2:
		if (q && value == 1)
			q->enable = true;
		break;
	case DRV_QUEUE_RESET << 4 | 2:
		if (!q || !q->enable || value != 1 || !(m->features >> 40 & 1))
			break;
		turn_until(DRV_QUEUE_RESET, 2, 0);
		*q = (struct model_queue){.size = QUEUE_SIZE, .vector = q->vector};
		break;
	default:
		if (queue_open(m) && offset >= DRV_QUEUE_DESC && offset < DRV_QUEUE_DEVICE + 8)
			model_address(m, offset, value, size);
		break;
	}
}

/* The 64 bytes as they must read now. Queue registers of a queue that is not there are zero. */
static void model_image(const struct model *m, uint8_t image[64])
{
	uint32_t offered = m->device_select < 2 ? (uint32_t)(OFFERED >> 32 * m->device_select) : 0;
	uint32_t accepted =
		m->driver_select < 2 ? (uint32_t)(m->accepted >> 32 * m->driver_select) : 0;
	uint16_t queues = QUEUES, vector = NO_VECTOR, enable;

	memset(image, 0, 64);
	memcpy(image + DRV_DEVICE_FEATURE_SELECT, &m->device_select, 4);
	memcpy(image + DRV_DEVICE_FEATURE, &offered, 4);
	memcpy(image + DRV_DRIVER_FEATURE_SELECT, &m->driver_select, 4);
	memcpy(image + DRV_DRIVER_FEATURE, &accepted, 4);
	memcpy(image + DRV_CONFIG_VECTOR, &m->config_vector, 2);
	memcpy(image + DRV_NUM_QUEUES, &queues, 2);
	image[DRV_STATUS] = m->status;
	memcpy(image + DRV_QUEUE_SELECT, &m->queue_select, 2);
	if (m->queue_select < QUEUES) {
		const struct model_queue *q = &m->q[m->queue_select];

		vector = q->vector;
		enable = q->enable;
		memcpy(image + DRV_QUEUE_SIZE, &q->size, 2);
		memcpy(image + DRV_QUEUE_ENABLE, &enable, 2);
		memcpy(image + DRV_QUEUE_NOTIFY_OFF, &m->queue_select, 2);
		memcpy(image + DRV_QUEUE_DESC, q->addr, 24);
	}
	memcpy(image + DRV_QUEUE_VECTOR, &vector, 2);
}

static void compare(struct run *r)
{
	uint8_t want[64], got[64];
	uint8_t status;

	for (unsigned int i = 0; i < 64; i += 8) {
		uint64_t v = drv_bar_read(d, d->common + i, 8);

		memcpy(got + i, &v, 8);
	}
	/* Only a running device can find out that it needs a reset; and nothing takes that back. */
	status = got[DRV_STATUS];
	check(!(status & S_NEEDS_RESET) || r->m.status & S_DRIVER_OK);
	check(status & S_NEEDS_RESET || !(r->m.status & S_NEEDS_RESET));
	r->m.status |= status & S_NEEDS_RESET;
	model_image(&r->m, want);
	got[DRV_GENERATION] = 0;
	check(!memcmp(want, got, 64));
}

/* Steps */

static void step_common(struct run *r)
{
	unsigned int size = 1u << take(r, 1) % 4;
	uint32_t offset = (uint32_t)align_down(take(r, 1) % 64, size);
	uint64_t value = take(r, size);

	drv_bar_write(d, d->common + (uint64_t)offset, value, size);
	model_write(&r->m, offset, value, size);
}

/* The usual order of things, so that queues run at all. */
static void step_start(struct run *r)
{
	uint64_t features = take(r, 1) & 1 ? OFFERED : OFFERED & ~(1ull << 29);
	static const struct {
		uint32_t offset;
		unsigned int size;
	} w[] = {{DRV_STATUS, 1},         {DRV_DRIVER_FEATURE_SELECT, 4},
		 {DRV_DRIVER_FEATURE, 4}, {DRV_DRIVER_FEATURE_SELECT, 4},
		 {DRV_DRIVER_FEATURE, 4}, {DRV_STATUS, 1},
		 {DRV_QUEUE_SELECT, 2},   {DRV_QUEUE_DESC, 8},
		 {DRV_QUEUE_DRIVER, 8},   {DRV_QUEUE_DEVICE, 8},
		 {DRV_QUEUE_ENABLE, 2},   {DRV_STATUS, 1}};
	const uint64_t v[ARRAY_SIZE(w)] = {3,
					   0,
					   (uint32_t)features,
					   1,
					   features >> 32,
					   11,
					   1,
					   rings,
					   rings + 0x1000,
					   rings + 0x2000,
					   1,
					   15};

	for (unsigned int i = 0; i < ARRAY_SIZE(w); i++) {
		drv_bar_write(d, d->common + (uint64_t)w[i].offset, v[i], w[i].size);
		model_write(&r->m, w[i].offset, v[i], w[i].size);
	}
}

static void step_bar(struct run *r)
{
	unsigned int size = 1u << take(r, 1) % 4;
	uint64_t offset = align_down(take(r, 2) % 0x8000, size);
	uint64_t value = take(r, size);

	if (offset < d->common + 64u && offset + size > d->common)
		return;
	drv_bar_write(d, offset, value, size);
	(void)drv_bar_read(d, offset, size);
}

static void step_config_space(struct run *r)
{
	unsigned int size = 1u << take(r, 1) % 3;
	unsigned int reg = 0x40 + (unsigned int)align_down(take(r, 1) % 0xc0, size);
	unsigned int data = d->pci_cap + 16;
	uint32_t value = (uint32_t)take(r, size);

	/* A write through the window is one the model does not see: only reads go through. */
	if (!ranges_overlap(reg, size, data, 4))
		drv_cfg_write(d, reg, value, size);
	(void)drv_cfg_read(d, reg, size);
}

static void step_ring(struct run *r)
{
	uint64_t at = rings + take(r, 2) % (RING_BYTES - 8);
	uint64_t value = take(r, 8);

	memcpy(guest_ptr(g, at, 8), &value, 8);
}

static void step_offer(struct run *r)
{
	uint64_t desc[2] = {rings + 0x3000, 64 | take(r, 1) << 32};
	uint16_t *avail = guest_ptr(g, rings + 0x1000, 4);

	memcpy(guest_ptr(g, rings, 16), desc, 16);
	avail[1]++;
	drv_notify(d, 1);
}

static void machine_reset(struct run *r)
{
	d->dev->ops->reset(d->dev);
	drv_cfg_write(d, 4, 6, 2);
	model_reset(&r->m);
}

static void step(struct run *r)
{
	uint8_t op = (uint8_t)take(r, 1);

	switch (op % 16) {
	case 8:
		step_start(r);
		break;
	case 9:
		step_bar(r);
		break;
	case 10:
		step_config_space(r);
		break;
	case 11:
		step_ring(r);
		break;
	case 12:
		step_offer(r);
		break;
	case 13:
		if (op & 16)
			machine_reset(r);
		guest_turn(g);
		break;
	case 14:
		d->dev->ops->quiesce(d->dev, 0);
		d->dev->ops->quiesce(d->dev, 1);
		d->dev->ops->resume(d->dev);
		break;
	case 15:
		drv_cfg_write(d, 4, op & 16 ? 6 : 2, 2); /* bus mastering */
		break;
	default:
		step_common(r);
		break;
	}
}

/* After whatever went before: a console that takes what it is given. */
static void check_works(void)
{
	struct drv_sg out = {rings + 0x3000, 5};

	guest_free_from(g, rings + RING_BYTES);
	drv_cfg_write(d, 4, 6, 2);
	drv_start(d, 1ull << 29, 8);
	/* What the reset queue had raised while its vector was masked comes now. */
	(void)drv_interrupts(d, 1);
	drv_add(d, 1, &out, 1, NULL, 0);
	drv_kick(d, 1);
	check(drv_wait(d, 1, NULL, NULL));
	check(drv_status(d) == 15);
	check(drv_interrupts(d, 1) == 1);
	check(drv_bar_read(d, d->config, 4) == (80 | 25 << 16));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct run r = {.data = data, .left = size};

	set_up();
	machine_reset(&r);
	memset(guest_ptr(g, rings, RING_BYTES), 0, RING_BYTES);
	for (unsigned int i = 0; i < MAX_STEPS && r.left; i++) {
		step(&r);
		compare(&r);
	}
	/* By the driver, with whatever is going on still going on. */
	drv_cfg_write(d, 4, 6, 2);
	check_works();
	machine_reset(&r);
	compare(&r);
	return 0;
}
