/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A serial port in two halves: the UART's registers (serial.c, vCPU threads) and the host's end of
 * the line (serial_host.c, the loop's thread). Between them are two rings.
 *
 *   THR ─► tx ring ─► write(out_fd)        read(in_fd) ─► rx ring ─► receive FIFO ─► RBR
 *
 * The device's lock guards everything here but what is marked as the loop's. A span of a ring that
 * is being written or read by the kernel is left alone by the other side: bytes are only added
 * behind or taken in front of it.
 */
#ifndef PLATFORM_SERIAL_IMPL_H
#define PLATFORM_SERIAL_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/bus.h"
#include "core/device.h"
#include "core/irq.h"
#include "core/loop.h"
#include "core/viewer.h"
#include "platform/serial.h"

enum {
	SERIAL_FIFO_BYTES = 16,
	SERIAL_TX_BYTES = 16384,
	SERIAL_RX_BYTES = 4096,
};

struct serial_ring {
	uint8_t *bytes;
	size_t size;
	size_t head; /* oldest byte */
	size_t count;
};

struct serial;

/* The UART's end of the rings. Lock held, any thread. */
struct serial_line {
	void (*in)(struct serial *s);  /* input came */
	void (*out)(struct serial *s); /* output went */
};

struct serial {
	struct device dev;
	struct bus *pio;
	struct bus_region region;
	struct irq_line irq;
	struct loop *loop;
	struct serial_config config;

	/* UART */
	uint8_t ier, fcr, lcr, mcr, scr, dll, dlm;
	uint8_t lsr_errors; /* OE, PE, FE, BI until LSR is read */
	uint8_t msr_delta;  /* until MSR is read */
	bool thre;          /* the transmitter takes a FIFO's worth */
	bool thre_pending;  /* its interrupt, until IIR is read or THR written */
	uint8_t fifo[SERIAL_FIFO_BYTES];
	unsigned int fifo_head, fifo_count;
	bool quiesced; /* nothing reaches the FIFO */
	bool frozen;   /* the rings were saved, or are being loaded: they stay as they are until
			  resume */

	struct serial_ring tx, rx;
	uint8_t tx_bytes[SERIAL_TX_BYTES];
	uint8_t rx_bytes[SERIAL_RX_BYTES];

	struct viewer viewer; /* types in the place of in_fd */
	const struct serial_line *line;
	bool kicked;   /* kick is posted */
	bool out_dead; /* nobody takes output any more: it is discarded */
	bool dropping; /* the reader takes nothing: what the guest writes is lost, until it does */
	bool full;     /* its file system is: likewise, but each write is tried */
	uint64_t dropped;      /* bytes, since one of these began */
	uint64_t output_bytes; /* that the guest wrote */
	/* The loop's. */
	struct loop_op kick, read_op, write_op, delay_op, stall_op;
	bool reading, writing, delaying, stalling;
	uint64_t written;             /* bytes */
	uint64_t at_stall;            /* of them, when stall_op began */
	bool stopping, in_end;        /* in_end: of in_fd */
	bool turning;                 /* to another reader: nothing is read */
	bool read_waits, write_waits; /* the op in flight is a poll for readiness */
};

/* Lock held, any thread. */
size_t serial_ring_room(const struct serial_ring *ring);
void serial_ring_put(struct serial_ring *ring, uint8_t byte);
uint8_t serial_ring_take(struct serial_ring *ring);

/* serial_host.c. kick: lock held, any thread: there may be something to do. */
void serial_host_init(struct serial *s, const struct serial_line *line);
void serial_host_kick(struct serial *s);
/* A byte joined the tx ring: kick when that is due. Lock held. */
void serial_host_wrote(struct serial *s);
/* End what is in flight and begin nothing until serial_host_thaw (lock held), so that no byte is
 * lost or sent twice when the rings go elsewhere. Machine's thread. */
void serial_host_freeze(struct serial *s);
void serial_host_thaw(struct serial *s);
/* Write out what is left (as long as it moves), end what is in flight. Machine's thread. */
void serial_host_stop(struct serial *s);

#endif
