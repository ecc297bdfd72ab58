/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A 16550A serial port at the PC's addresses, interrupt-driven, with FIFOs and real flow control
 * towards the host: while the output cannot take more, THRE stays clear (patience_ns), so nothing
 * is lost in a flood; input waits in the host until the receive FIFO has room.
 *
 * Threads, errors: as platform.h says. The file descriptors stay the caller's.
 */
#ifndef PLATFORM_SERIAL_H
#define PLATFORM_SERIAL_H

#include "core/device.h"
#include "core/irq.h"

struct serial_config {
	const char *name;
	uint16_t port; /* 0x3f8 … */
	uint32_t gsi;  /* 4 … */
	int in_fd;     /* -1: none; not owned; non-blocking not required */
	int out_fd;    /* -1: discard; not owned */
	/* How long the guest waits for whoever reads the output and takes nothing; after that it is
	 * dropped until something is taken. 0: for ever. */
	uint64_t patience_ns;
};

/* Bytes that the guest has written since it was created, read by anybody or not. Any thread. */
uint64_t serial_output_bytes(struct device *dev);

/* This socket looks on and types from now on (core/viewer.h): what in_fd has waits meanwhile.
 * -EBUSY: another one does already; take: in its place. -EINVAL: no stream socket. On failure
 * nothing has changed. Machine's thread; turns the loop. */
int serial_view(struct device *dev, int fd, bool take, struct err *err);
/* Is there a viewer? Machine's thread. */
bool serial_is_viewed(struct device *dev);

int serial_create(struct device **ret, const struct device_env *env,
		  const struct serial_config *config, struct err *err);

#endif
