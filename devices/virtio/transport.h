/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every transport of a virtio device has in common: status, feature negotiation, and what the
 * registers say about the queues. Private to transports (pci.c); devices see virtio.h.
 *
 * A queue runs while it is wanted:
 *
 *     enabled and DRIVER_OK, and the device is not paused, not being reset, and may do DMA
 *
 * Whatever changes one of these calls transport_update; the queue server moves the queues to that.
 * So a register write never waits: reset is over when the last queue is off, and until then status
 * reads non-zero (virtio 1.3, 4.1.4.3.2), queue_reset reads 1, and the registers are not writable.
 *
 * DMA not allowed (PCI bus mastering off) is treated like a pause: requests in flight finish, new
 * ones wait. Drivers turn it off when they are done with a device or before another kernel takes
 * over; neither wants the device broken.
 *
 * Threads: everything under the device's lock unless it says otherwise.
 */
#ifndef VIRTIO_TRANSPORT_H
#define VIRTIO_TRANSPORT_H

#include <pthread.h>
#include <stdatomic.h>

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "virtio/virtio.h"

/* The bits of the status register (virtio 1.3, 2.1). */
enum {
	VIRTIO_CONFIG_S_ALL = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
			      VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FEATURES_OK |
			      VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED,
};

struct virtio_transport;
struct state_writer;
struct state_reader;

struct virtio_transport_ops {
	/* Interrupt for a queue that has no fd for it. Any thread, lock not held. */
	void (*queue_interrupt)(struct virtio_transport *t, unsigned int index);
	/* Interrupt for a change of configuration or status. */
	void (*config_interrupt)(struct virtio_transport *t);
	/* An eventfd that raises the queue's interrupt and stays the transport's, or -1. */
	int (*queue_interrupt_fd)(struct virtio_transport *t, unsigned int index);
	bool (*dma_allowed)(struct virtio_transport *t);
	uint32_t (*requester)(struct virtio_transport *t);
	/* Back to the state after power-on: registers that the transport keeps. */
	void (*reset)(struct virtio_transport *t);
};

/* Registers of a queue, under the device's lock: the driver writes them while it is not enabled. */
struct transport_queue {
	uint16_t size;
	uint64_t desc, driver, device;
	bool enable;
	bool resetting;      /* queue_reset */
	uint16_t next_avail; /* where it was when it last stopped */
};

struct virtio_transport {
	const struct virtio_transport_ops *ops; /* this and vdev are constant */
	struct virtio_device *vdev;
	struct virtio_queue_owner owner; /* with the lock, which guards the rest */
	uint8_t status;
	uint8_t generation;
	bool paused;
	bool resetting;
	uint64_t offered;
	uint64_t accepted;              /* as the driver writes it, before FEATURES_OK */
	struct transport_queue *queues; /* vdev->n_queues */
};

/* Creates the virtqueues and kick fds. offered: the transport's own bits beside the device's. Takes
 * nothing over on failure. */
int transport_init(struct virtio_transport *t, const struct virtio_transport_ops *ops,
		   struct virtio_device *vdev, pthread_mutex_t *lock, struct dma_space *dma,
		   uint64_t offered, struct err *err);
/* Everything is still (transport_stop). */
void transport_done(struct virtio_transport *t);

/* Registers. */
uint8_t transport_status(const struct virtio_transport *t);
void transport_write_status(struct virtio_transport *t, uint8_t value);
void transport_write_features(struct virtio_transport *t, unsigned int word, uint32_t value);
void transport_queue_set_size(struct virtio_transport *t, unsigned int index, uint16_t size);
void transport_queue_enable(struct virtio_transport *t, unsigned int index);
void transport_queue_reset(struct virtio_transport *t, unsigned int index);
/* May the driver write this queue's registers now? */
bool transport_queue_writable(const struct virtio_transport *t, unsigned int index);
void transport_config_read(struct virtio_transport *t, uint32_t offset, void *buf,
			   unsigned int len);
void transport_config_write(struct virtio_transport *t, uint32_t offset, const void *buf,
			    unsigned int len);

/* As a write of 0 to status does: it is over when the last queue has stopped. */
void transport_reset_begin(struct virtio_transport *t);

/* A condition of "wanted" changed. */
void transport_update(struct virtio_transport *t);
/* What queue_interrupt_fd answers changed. */
void transport_interrupts_changed(struct virtio_transport *t);

/* Would the device take what was accepted? Changes nothing. */
bool transport_features_acceptable(const struct virtio_transport *t);
/* Sections of a quiesced device, behind those of the transport (device.h, core/state.h). */
int transport_save(struct virtio_transport *t, struct state_writer *w, struct err *err);
int transport_load(struct virtio_transport *t, struct state_reader *r, struct err *err);

/* The machine's thread, lock not held, outside any loop callback. */
void transport_quiesce(struct virtio_transport *t, unsigned int phase);
void transport_resume(struct virtio_transport *t);
/* Reset and wait until it is over and nothing is posted. */
void transport_reset(struct virtio_transport *t);

#endif
