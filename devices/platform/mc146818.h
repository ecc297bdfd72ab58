/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The MC146818 clock's registers as a pure model: every function gets the time (host's UTC in
 * nanoseconds) from its caller, so nothing here waits, and tests own the clock.
 *
 * The clock is an offset to the host's. While the guest holds it (SET, or the divider in reset) the
 * time registers are storage; when it is released, their value becomes the offset. Flags are
 * computed on access, from the time since the last access.
 *
 * Threads: the caller's lock.
 */
#ifndef PLATFORM_MC146818_H
#define PLATFORM_MC146818_H

#include <stdbool.h>
#include <stdint.h>

#include "core/state.h"

enum {
	MC146818_REGISTERS = 128,
	MC146818_CENTURY = 0x32, /* as the FADT says */
};

#define MC146818_NEVER UINT64_MAX

struct mc146818 {
	uint8_t reg[MC146818_REGISTERS];
	int64_t offset_s;   /* of the guest's clock to the host's */
	uint32_t phase_ns;  /* added to the host's nanoseconds first */
	uint64_t seen_ns;   /* host time up to which flags are computed */
	bool divider_reset; /* the divider was held in reset since the registers were frozen */
};

void mc146818_init(struct mc146818 *m, uint64_t now_ns);
/* A machine reset: interrupts off, time, alarm and memory stay (data sheet, RESET pin). */
void mc146818_reset(struct mc146818 *m, uint64_t now_ns);
uint8_t mc146818_read(struct mc146818 *m, uint8_t index, uint64_t now_ns);
void mc146818_write(struct mc146818 *m, uint8_t index, uint8_t value, uint64_t now_ns);
/* Compute the flags up to now. */
void mc146818_advance(struct mc146818 *m, uint64_t now_ns);
/* The level of the interrupt pin, after advance. */
bool mc146818_irq(const struct mc146818 *m);
/* The host time at which an enabled interrupt comes next; NEVER when there is none, or while its
 * flag is up already (only reading register C makes room for another). */
uint64_t mc146818_next(const struct mc146818 *m, uint64_t now_ns);

/* State of a struct mc146818. It holds host time: the clock goes on by the wall, whatever the time
 * between save and load; an alarm that came due meanwhile is seen by the next mc146818_advance. */
extern const struct state_section mc146818_section;

#endif
