/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-balloon (virtio 1.3, 5.5): memory that the guest gives up for a while, and statistics.
 *
 *   target    set by the host: what the balloon is to hold, taken from the guest
 *   actual    what the driver says that it holds
 *   given     the pages that the driver gave and did not take back; of them
 *   out       the host has back (core/reclaim.h says when)
 *
 * Offered: MUST_TELL_HOST always; STATS_VQ, DEFLATE_ON_OOM and PAGE_REPORTING by the setup. A
 * driver without MUST_TELL_HOST uses pages before it says so: its pages are discarded as reported
 * ones are. Not offered: FREE_PAGE_HINT, whose only use is a migration that leaves free pages out;
 * PAGE_POISON (Linux then reports nothing if it poisons free pages).
 *
 * A deflate is answered when the pages are back in the hardware. Where that fails it stays
 * unanswered, with the other requests of the queue, and is tried again each second. A reset gives
 * everything back before it is over, or, if that fails or no queue was on, before the next driver
 * is served.
 *
 * Queues behind the first two: the specification numbers them by what exists at all, drivers
 * (Linux) by what they negotiated. The device takes both: 2 is for statistics if they were
 * negotiated, all others for reports.
 *
 * virtio_balloon_create gives a device that virtio_pci_create takes over; until then its
 * ops->destroy ends it, which gives nothing back (virtio_balloon_deflate).
 *
 * Threads: the machine's, whose loop serves the queues, since memory and its hardware are that
 * thread's.
 */
#ifndef VIRTIO_BALLOON_H
#define VIRTIO_BALLOON_H

#include "core/gmem.h"
#include "virtio/virtio.h"

enum virtio_balloon_event {
	/* Actual is target, first since it was set or since a reset; text: its bytes. */
	VIRTIO_BALLOON_REACHED,
	VIRTIO_BALLOON_NOT_MAPPED, /* memory that the guest wants back; text: why */
};

struct virtio_balloon_setup {
	const char *name; /* copied */
	struct loop *loop;
	struct gmem *gmem; /* with a reclaim; both outlive the device */
	bool deflate_on_oom;
	bool reporting;
	unsigned int stats_s; /* statistics are asked for so often; 0: never */
	/* Any thread; must not wait. */
	void (*event)(void *opaque, enum virtio_balloon_event event, const char *text);
	void *opaque;
};

/* 0 or -ENOMEM. */
int virtio_balloon_create(struct virtio_device **ret, const struct virtio_balloon_setup *setup,
			  const struct log *log, struct err *err);

/* The target in bytes, a multiple of 4096. The device's lock is not held. */
void virtio_balloon_set(struct virtio_device *vdev, uint64_t target_bytes);

/* By the tags of the specification. */
enum { VIRTIO_BALLOON_STATS = 10 };
extern const char *const virtio_balloon_stat_names[VIRTIO_BALLOON_STATS];

struct virtio_balloon_status {
	uint64_t target_bytes, actual_bytes;
	uint64_t given_bytes, out_bytes;
	uint64_t reported_bytes; /* by free page reporting, and discarded: ever */
	uint64_t kept_bytes;     /* reported, and not discarded */
	bool waits;              /* the guest waits for memory that cannot be mapped */
	uint64_t stats_ns;       /* when the statistics came, monotonic; 0: never */
	uint32_t has_stats;      /* a bit for each that the driver gave */
	uint64_t stats[VIRTIO_BALLOON_STATS];
};
void virtio_balloon_status(struct virtio_device *vdev, struct virtio_balloon_status *ret);

/* After the device: the guest has all of gmem's memory again, whatever it gave. 0, or the error of
 * a part that could not be mapped. */
int virtio_balloon_deflate(struct gmem *gmem);

#endif
