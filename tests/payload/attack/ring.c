/* SPDX-License-Identifier: Apache-2.0 */
/* virtio: a device set up half properly, and rings of half plausible garbage. */
#include "attack.h"

/* Offsets in the common configuration (virtio 1.3, 4.1.4.3). */
enum {
	DEVICE_FEATURE_SELECT = 0x00,
	DEVICE_FEATURE = 0x04,
	DRIVER_FEATURE_SELECT = 0x08,
	DRIVER_FEATURE = 0x0c,
	MSIX_CONFIG = 0x10,
	NUM_QUEUES = 0x12,
	STATUS = 0x14,
	QUEUE_SELECT = 0x16,
	QUEUE_SIZE = 0x18,
	QUEUE_VECTOR = 0x1a,
	QUEUE_ENABLE = 0x1c,
	QUEUE_NOTIFY_OFF = 0x1e,
	QUEUE_DESC = 0x20,
	QUEUE_DRIVER = 0x28,
	QUEUE_DEVICE = 0x30,

	RING_BYTES = 64 << 10,
};

static const struct function *target;

static void set(unsigned int reg, uint64_t v, unsigned int size)
{
	bar_write(target, (unsigned int)target->common.bar, target->common.offset + reg, v, size);
}

static uint64_t get(unsigned int reg, unsigned int size)
{
	return bar_read(target, (unsigned int)target->common.bar, target->common.offset + reg,
			size);
}

static uint64_t ram(uint32_t align)
{
	return (GARBAGE_GPA + below((uint32_t)(ram_end - GARBAGE_GPA))) & ~(uint64_t)(align - 1);
}

/* An address for a buffer: usually RAM that may be spoilt, else none. */
static uint64_t address(void)
{
	switch (below(8)) {
	case 0:
		return ram_end - below(4096);
	case 1:
		return ram_end + rnd() % (1ull << 40);
	case 2:
		return ~0ull - below(65536);
	case 3:
		return ecam_gpa + below(1 << 20);
	default:
		return ram(1);
	}
}

static uint32_t length(void)
{
	switch (below(4)) {
	case 0:
		return (uint32_t)nasty();
	case 1:
		return below(32);
	default:
		return below(8192);
	}
}

/* What the first bytes of a request often are: small numbers. */
static void fill_buffer(uint64_t gpa)
{
	for (unsigned int i = 0; i < 8; i++)
		mem_write(gpa + 4 * i, below(2) ? below(16) : rnd(), 4);
}

static void descriptor(uint64_t table, unsigned int i, unsigned int size)
{
	uint64_t at = table + 16ull * i, gpa = address();

	if (gpa >= GARBAGE_GPA && gpa <= ram_end - 32 && below(2))
		fill_buffer(gpa);
	mem_write(at, gpa, 8);
	mem_write(at + 8, length(), 4);
	mem_write(at + 12, below(16) ? below(8) : (uint32_t)rnd(), 2);
	mem_write(at + 14, below(16) ? below(size) : (uint32_t)rnd(), 2);
}

/* A table of descriptors somewhere, for an indirect one to name. */
static void indirect(uint64_t table, unsigned int i, unsigned int size)
{
	uint64_t at = table + 16ull * i, inner = ram(16);
	unsigned int n = 1 + below(8);

	if (inner + 16ull * n > ram_end)
		return;
	for (unsigned int k = 0; k < n; k++)
		descriptor(inner, k, n);
	mem_write(at, inner, 8);
	mem_write(at + 8, below(4) ? 16 * n : below(256), 4);
	mem_write(at + 12, 4 | (below(4) ? 0 : below(8)), 2);
	mem_write(at + 14, below(size), 2);
}

static void queue(unsigned int index)
{
	unsigned int size;
	uint64_t ring = ram(4096);

	if (ring + RING_BYTES > ram_end)
		return;
	set(QUEUE_SELECT, index, 2);
	size = (unsigned int)get(QUEUE_SIZE, 2);
	if (below(2))
		size = below(4) ? 1u << below(9) : (unsigned int)nasty() & 0xffff;
	set(QUEUE_SIZE, size, 2);
	size = size && size <= 1024 ? size : 16;

	for (unsigned int n = 1 + below(24); n; n--) {
		if (below(4))
			descriptor(ring, below(size), size);
		else
			indirect(ring, below(size), size);
	}
	uint64_t avail = ring + 16ull * size, used = ring + 32ull * size + 4096;
	for (unsigned int n = 1 + below(16); n; n--)
		mem_write(avail + 4 + 2ull * below(size), below(16) ? below(size) : rnd(), 2);
	mem_write(avail, below(2), 2);
	mem_write(avail + 2, below(8) ? below(size + 1) : rnd(), 2);

	if (!below(8))
		ring = address();
	if (!below(8))
		avail = address();
	if (!below(8))
		used = address() | GARBAGE_GPA;
	set(QUEUE_DESC, ring, 4);
	set(QUEUE_DESC + 4, ring >> 32, 4);
	set(QUEUE_DRIVER, avail, 4);
	set(QUEUE_DRIVER + 4, avail >> 32, 4);
	set(QUEUE_DEVICE, used, 4);
	set(QUEUE_DEVICE + 4, used >> 32, 4);
	set(QUEUE_VECTOR, below(4) ? below(4) : rnd(), 2);
	set(QUEUE_ENABLE, below(8) ? 1 : rnd(), 2);
}

static void notify(unsigned int index)
{
	uint64_t offset;

	set(QUEUE_SELECT, index, 2);
	offset = get(QUEUE_NOTIFY_OFF, 2) * target->notify_multiplier;
	if (!below(8))
		offset = below(target->notify.length);
	if (offset + 4 <= target->notify.length)
		bar_write(target, (unsigned int)target->notify.bar, target->notify.offset + offset,
			  below(8) ? index : rnd(), below(8) ? 2 : 4);
}

static const struct function *pick(void)
{
	for (unsigned int tries = 0; tries < 64; tries++) {
		const struct function *f = &functions[below(n_functions)];

		if (f->virtio && f->bar[f->common.bar].present && f->bar[f->notify.bar].present)
			return f;
	}
	return NULL;
}

void attack_ring(void)
{
	target = pick();
	if (!target)
		return;
	unsigned int queues = (unsigned int)get(NUM_QUEUES, 2);

	queues = queues > 16 ? 16 : queues;
	if (below(8)) {
		set(STATUS, 0, 1);
		set(STATUS, 1, 1);
		set(STATUS, 3, 1);
	}
	for (unsigned int half = 0; half < 2; half++) {
		set(DEVICE_FEATURE_SELECT, half, 4);
		uint64_t offered = get(DEVICE_FEATURE, 4);
		/* A subset, with VERSION_1, or nonsense. */
		set(DRIVER_FEATURE_SELECT, half, 4);
		set(DRIVER_FEATURE, below(8) ? offered & (rnd() | half) : rnd(), 4);
	}
	set(MSIX_CONFIG, below(2) ? 0 : rnd(), 2);
	set(STATUS, below(16) ? 11 : nasty(), 1);
	for (unsigned int i = 0; i < queues; i++)
		if (below(8))
			queue(i);
	set(STATUS, below(16) ? 15 : nasty(), 1);
	for (unsigned int n = 1 + below(8); n && queues; n--)
		notify(below(queues));
	if (!below(4))
		set(STATUS, 0, 1); /* in the middle of it */
}
