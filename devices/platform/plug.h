/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parts of the machine that come and go while the guest runs, processors or units of memory, by
 * number: the registers behind the methods of the ACPI tables (firmware/asl/), and a
 * general-purpose event by which the guest hears of them (ACPI 6.5, 4.8.4.1). Each kind of part has
 * a device of its own.
 *
 *   +0x00 GPEx_STS (1)  bit 0: EVENT is not 0. It follows EVENT, so writes change nothing
 *   +0x01 GPEx_EN (1)   bit 0: the SCI is raised while GPEx_STS has it
 *   +0x04 EVENT (4)     read: the first part that the guest is to hear of, as number | code << 16;
 *                       the code is what Notify takes: 1, it has come; 3, it is asked for. 0: none.
 *                       write what was read: the guest has heard it
 *   +0x08 EJECT (4)     write a number: the guest gives that part up (_EJ0)
 *   +0x0c ANSWER (4)    write number | status << 8 | event << 16: what _OST is given
 *   +0x20 IN (32)       bit by number, read only: the part is in the machine (_STA)
 *
 * Those of 4 bytes take accesses of 4 bytes; any other reads 0 and changes nothing, nor does a
 * number that no part has.
 *
 *                plug_add: it has come                      plug_ask
 *      out ──────────────────────────► in, told ─► answered ─────────► asked for
 *       ▲                                                                  │
 *       └───────────── EJECT (from any state), reset ◄─────────────────────┘
 *
 * The guest may give up any part, asked or not, but the first processor; what becomes of a part is
 * the machine's to follow (machine/cpus.h, machine/memory.h). Reset: those that were asked for
 * leave, and no event is left.
 *
 * Threads: as platform.h has it; plug_* by the machine's thread.
 */
#ifndef PLATFORM_PLUG_H
#define PLATFORM_PLUG_H

#include "platform/platform.h"

enum { PLUG_MAX = 255 };

/* What the guest is to hear, or has not answered: the codes of Notify and _OST (5.6.6, 6.3.5). */
enum plug_event {
	PLUG_NONE = 0,
	PLUG_COMES = 1,
	PLUG_LEAVES = 3,
};

struct plug_config {
	const char *name; /* constant */
	uint16_t port;    /* PLATFORM_PLUG_PORTS from here on */
	bool first_stays; /* number 0 cannot leave */
	unsigned int max; /* parts that there can be, to PLUG_MAX */
	unsigned int in;  /* those before this number are in the machine at first */
	/* The guest has given one up, or answered. In a vCPU thread under the device's lock: record
	 * and post. */
	void (*changed)(void *opaque);
	void *opaque;
};
int plug_create(struct device **ret, const struct device_env *env, const struct plug_config *config,
		struct err *err);

struct plug_view {
	bool in;
	enum plug_event waits; /* for the guest's answer to this */
	uint8_t refusal;       /* its last answer: a status of _OST; 0: it has refused nothing */
};
struct plug_view plug_look(struct device *dev, unsigned int number);
/* Has the guest's ACPI driver listened for these events since the last reset? */
bool plug_is_heard(struct device *dev);
/* The part, which is out, is in the machine from now on, and the guest hears it. */
void plug_add(struct device *dev, unsigned int number);
/* Ask the guest for it. */
void plug_ask(struct device *dev, unsigned int number);
/* No answer is waited for any more, and none that came is kept. A part that is asked for, and
 * of which the guest has not heard, is not asked for; what it has heard it may still do. */
void plug_forget(struct device *dev);

#endif
