/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a device is to the machine.
 *
 *   create ──► (realised: on its bus) ──► running ⇄ quiesced ──► destroy
 *                                           └ reset ┘
 *
 * A device is created from a typed config, declares its regions and interrupts, and never sees KVM,
 * JSON, or files: the machine opens things and gives it fds. It embeds struct device first.
 *
 *   reset     to power-on state, from any state, at any moment under load; afterwards no DMA and no
 *             interrupt from before the reset is delivered.
 *   quiesce   phase 0: start no new DMA; phase 1: return when what was started is finished and the
 *             device is still. The machine runs phase 0 on all devices before phase 1 on any.
 *   resume    go on after quiesce.
 *   destroy   quiesced before; frees everything, NULL and half-built included.
 *   save      quiesced (phase 1 done): write the state, field by field (state.h). Until resume
 *             nothing leaves the device: pending output is in the stream, so that a
 *             destroy does not send it either. It may be resumed and saved again.
 *   load      take this state, so that resume continues where the saved device stood. The device
 *             was created anew from the same configuration, is on its bus, quiesced, and its loop
 *             has not run since. All is checked first: a refusal leaves the device as it was. Pins
 *             are raised anew from the state, so interrupt controllers are loaded after all
 * devices.
 *
 * Threads: these ops are called by the machine's thread, outside any loop callback, with vCPUs out
 * of the guest for reset, quiesce phase 1, resume, save and load. Where an op has to wait for a
 * queue: if the queue belongs to the machine's own loop (loop_is_mine) the device runs that loop
 * until it is done, otherwise it waits for the other thread. Register handlers run in vCPU threads
 * under the device's lock. A queue belongs to its loop's thread from activation to quiescence.
 */
#ifndef CORE_DEVICE_H
#define CORE_DEVICE_H

#include <pthread.h>
#include <stdint.h>

#include "base/err.h"
#include "base/list.h"
#include "base/log.h"

struct device;
struct loop;
struct dma_space;
struct irq_chip;
struct pci_bus;
struct bus;
struct state_writer;
struct state_reader;

struct device_ops {
	const char *type; /* "virtio-blk", "serial" */
	void (*reset)(struct device *dev);
	void (*quiesce)(struct device *dev, unsigned int phase);
	void (*resume)(struct device *dev);
	void (*destroy)(struct device *dev);
	/* -EOPNOTSUPP and the reason for one whose state cannot be had. NULL: likewise. */
	int (*save)(struct device *dev, struct state_writer *w, struct err *err);
	int (*load)(struct device *dev, struct state_reader *r, struct err *err);
};

struct device {
	/* Constant. */
	const struct device_ops *ops;
	char name[32]; /* the user's id, or one made from the type: "disk0" */
	const struct log *log;
	/* --- */
	struct log_limit limit; /* any thread */
	pthread_mutex_t lock;   /* guards registers and everything that vCPU threads change */
	struct list link;       /* the machine's thread's */
};

/* What the machine gives every device it creates. */
struct device_env {
	const struct log *log;
	struct bus *mmio;
	struct bus *pio;
	struct irq_chip *irq;
	struct loop *loop;     /* the loop this device belongs to */
	struct dma_space *dma; /* what its iovas mean */
};

static inline void device_init(struct device *dev, const struct device_ops *ops, const char *name,
			       const struct log *log)
{
	dev->ops = ops;
	dev->log = log;
	dev->limit = (struct log_limit){0};
	size_t i = 0;
	for (; i < sizeof(dev->name) - 1 && name[i]; i++)
		dev->name[i] = name[i];
	dev->name[i] = '\0';
	pthread_mutex_init(&dev->lock, NULL);
	list_init(&dev->link);
}

static inline void device_done(struct device *dev)
{
	list_remove(&dev->link);
	pthread_mutex_destroy(&dev->lock);
}

#endif
