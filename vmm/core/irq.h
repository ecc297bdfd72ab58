/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupts: a device asks for a line or an MSI; routes, GSIs, irqfds and resampling are ours.
 *
 *      device ── struct irq_msi ──► eventfd ─► KVM_IRQFD ─► GSI route {address, data} ─► vCPU
 *      device ── struct irq_line ─► pin of the I/O APIC (level or edge, shared) ───────► vCPU
 *
 * An MSI source can be raised by a call or by anybody who signals its eventfd (a loop, vhost,
 * VFIO). GSIs below the number of pins are I/O APIC pins; MSI sources take GSIs above, from
 * irq_msi_enable to irq_msi_disable, so that an unused vector costs nothing. A masked source keeps
 * its GSI and its eventfd's owner: what is signalled meanwhile is pending, not lost (irq_msi_mask).
 *
 * An MSI carries its requester id, which arm64's ITS needs and x86 ignores.
 *
 * Threads: raising from any thread; everything else under the owner's device lock or by the
 * machine's thread. The route table has a lock of its own inside.
 */
#ifndef CORE_IRQ_H
#define CORE_IRQ_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/list.h"

struct irq_chip; /* the machine's interrupt framework */

struct irq_route {
	uint32_t gsi;
	bool msi;
	uint32_t pin;     /* line */
	uint64_t address; /* msi */
	uint32_t data;
	uint32_t devid; /* requester id: bus << 8 | devfn */
};

/* What the architecture provides; tests bring their own. All return 0 or a negative errno. */
struct irq_chip_ops {
	int (*set_routes)(void *opaque, const struct irq_route *routes, unsigned int n);
	/* Signals of fd raise gsi; resample_fd (or -1) is signalled at EOI of a level interrupt. */
	int (*set_irqfd)(void *opaque, uint32_t gsi, int fd, int resample_fd, bool on);
	int (*set_line)(void *opaque, uint32_t gsi, bool level);
	int (*send_msi)(void *opaque, uint64_t address, uint32_t data, uint32_t devid);
	unsigned int pins;    /* I/O APIC pins: GSIs 0 to pins - 1 */
	unsigned int max_gsi; /* exclusive limit of all GSIs (KVM_CAP_IRQ_ROUTING) */
};

int irq_chip_create(struct irq_chip **ret, const struct irq_chip_ops *ops, void *opaque,
		    struct err *err);
void irq_chip_destroy(struct irq_chip *chip);

/* Install the fixed routes of the pins; called once by the machine after the in-kernel irqchip
 * exists. */
int irq_chip_start(struct irq_chip *chip, struct err *err);

/* A pin, which may be shared: its level is the OR of its holders. Embedded in the device. */
struct irq_line {
	struct irq_chip *chip; /* this and gsi are constant */
	uint32_t gsi;
	bool level;       /* under the chip's lock */
	int fd;           /* connected eventfd, or -1 */
	struct list link; /* private */
};
int irq_line_get(struct irq_line *line, struct irq_chip *chip, uint32_t gsi, struct err *err);
void irq_line_put(struct irq_line *line);
void irq_line_set(struct irq_line *line, bool level);
/* An edge: up and down. */
void irq_line_pulse(struct irq_line *line);
/* Let an eventfd drive a level-triggered pin, which others may share: a signal of fd raises it; at
 * the guest's end of interrupt the chip lowers it and signals resample_fd, whereupon the owner
 * unmasks its source, which signals fd again if it still asks (VFIO's INTx). One pair per line;
 * -EBUSY otherwise. disconnect lowers what fd raised once no other pair holds the pin. Neither
 * closes anything; put disconnects. */
int irq_line_connect(struct irq_line *line, int fd, int resample_fd);
void irq_line_disconnect(struct irq_line *line);

/* A message-signalled source. Embedded in the device; irq_msi_init gives it its eventfd, enable
 * gives it a GSI with that message and connects the eventfd, update replaces the message of an
 * enabled one. mask disconnects the eventfd from the GSI: signals stay in its counter; pending
 * tells (without clearing) whether there are some; unmask connects it again and delivers what was
 * pending. -ENOSPC when the host has no GSI left. */
struct irq_msi {
	struct irq_chip *chip; /* this and fd are constant; the rest is under the device's lock */
	int fd;                /* signal it to raise: fd_event_signal() or hand it to the kernel */
	uint32_t gsi;          /* valid while enabled */
	uint64_t address;
	uint32_t data;
	uint32_t devid;
	bool enabled;
	bool masked;
};
int irq_msi_init(struct irq_msi *msi, struct irq_chip *chip, uint32_t devid, struct err *err);
void irq_msi_done(struct irq_msi *msi);
int irq_msi_enable(struct irq_msi *msi, uint64_t address, uint32_t data);
int irq_msi_update(struct irq_msi *msi, uint64_t address, uint32_t data);
void irq_msi_mask(struct irq_msi *msi);
int irq_msi_unmask(struct irq_msi *msi);
bool irq_msi_pending(const struct irq_msi *msi);
/* Is a signal on the eventfd that nobody has taken yet? Pending, or about to be delivered. */
bool irq_msi_signalled(const struct irq_msi *msi);
void irq_msi_disable(struct irq_msi *msi);
/* Raise: one eventfd write, any thread, also while masked (then pending) or disabled (no effect
 * beyond the pending bit). */
void irq_msi_raise(struct irq_msi *msi);

/* Many sources at once: the kernel takes all routes as a whole, so that enabling or disabling n of
 * them one by one costs n times the table. Between begin and end no routes are set; end sets them
 * and returns the kernel's verdict: on an error the previous table stays in force, and the caller
 * disables what it enabled. What is enabled in between must be masked until then, since a signal
 * without a route is lost. begin keeps other threads out until end: brief, by one thread, nested is
 * allowed. */
void irq_batch_begin(struct irq_chip *chip);
int irq_batch_end(struct irq_chip *chip);

/* GSIs in use by MSI sources, for statistics and tests. */
unsigned int irq_chip_msi_in_use(struct irq_chip *chip);

#endif
