/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio device that answers each chain with the length of its readable part, at once or when
 * told; and a guest that drives it: for tests of what all virtio devices have in common.
 */
#ifndef TESTS_VIRTIO_PROBE_H
#define TESTS_VIRTIO_PROBE_H

#include <stdatomic.h>

#include "base/num.h"
#include "driver.h"

enum {
	QUEUES = 3,
	SIZE = 16,
	CONFIG_BYTES = 24,
	PROBE_FEATURE = 3,
	PROBE_HIGH_FEATURE = 50,
	F_EVENT_IDX = 29,
	F_ACCESS_PLATFORM = 33,
	F_RING_RESET = 40,
};

struct probe {
	struct virtio_device vdev;
	_Atomic bool hold;      /* keep chains until probe_release */
	_Atomic bool hold_stop; /* do not finish stops until probe_release */
	bool refuse;            /* features_ok says no */
	bool work;              /* a request takes a while */
	/* What the driver does while the device is at work: before it enables kicks, and before it
	 * interrupts. */
	void (*meanwhile)(void *opaque);
	void *opaque;
	bool hand_over;
	struct virtio_queue_fds fds;
	uint8_t config[CONFIG_BYTES];
	unsigned int resets;
	struct probe_queue {
		struct probe *p;
		unsigned int index;
		_Atomic unsigned int starts, stops, kicks;
		bool abandoned; /* the last stop */
		bool running;
		bool ending; /* cancelled, and held until probe_release */
		unsigned int held;
		struct virtq_chain chain[SIZE];
		struct iovec iov[SIZE][4];
		struct loop_op release;
	} q[QUEUES];
};

/* Everything held is answered, and stops that wait are finished, in the queues' loops. */
void probe_release(struct probe *p);

struct rig {
	struct guest *g;
	struct probe *p;
	struct drv *d;
	uint64_t data;
};

struct rig rig_create(const struct guest_config *config);
void rig_destroy(struct rig *r);
/* Be busy for a moment. */
void spin(unsigned int n);
/* Some turns of all loops. */
void turns(struct rig *r);
/* A chain of 100 bytes to read and 8 to write, not told yet. */
void offer(struct rig *r, unsigned int queue);
/* The same, to its answer. */
void request(struct rig *r, unsigned int queue);

#endif
