/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine whose parts come and go (platform/plug.h), in the embedder's loop, so that all is done
 * in this thread; the test plays the guest, by the registers that the ACPI methods use.
 */
#ifndef TEST_NATIVE_PLUG_RIG_H
#define TEST_NATIVE_PLUG_RIG_H

#include <stdint.h>

#include "hospes/hospes.h"
#include "rig.h"

/* Registers, from the parts' first port on. */
enum { GPE_EN = 1, EVENT = 4, EJECT = 8, ANSWER = 0xc, IN = 0x20, BUSY = 0x82 };

extern struct rig rig;
extern struct hospes_error error;

/* The last event of this type, and how many there were. */
extern struct seen {
	unsigned int n;
	int value;
	char text[400];
} seen;

/* For parts that have their registers from `port` on, and whose events are of this type. */
void plug_rig_init(uint16_t port, enum hospes_event_type type);
void plug_rig_done(void);

struct hospes_vm *started(const char *document);
void iterate(struct hospes_vm *vm);
/* Each event is answered, a request to leave with this status; 0: it leaves. How many there
 * were. */
unsigned int act(struct hospes_vm *vm, uint8_t status);
/* Of a part of the status document. */
uint64_t number_of(struct hospes_vm *vm, const char *part, const char *key);

void out8(struct hospes_vm *vm, uint16_t offset, uint8_t v);
void out32(struct hospes_vm *vm, uint16_t offset, uint32_t v);
uint32_t in32(struct hospes_vm *vm, uint16_t offset);

#endif
