/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's memory: what it has from the start, and units that come and go while it runs. They
 * have places of their own above it (memory.max says how many there can be), each is a region of
 * guest memory, and the guest hears of them by ACPI (platform/plug.h).
 *
 *   memory_set ─┬─► more: mapped, for devices too ─► the guest hears it ─► it answers ─┐
 *               └─► less: the guest is asked ─► it gives units up ─► unmapped ─────────┼─► event
 *                            └─► it refuses, or its time is over ──────────────────────┘
 *
 * All units of a call are mapped for every device before the guest hears of one; where one cannot
 * be, there is none. A unit that the guest gives up leaves the vCPUs and the devices first, then
 * the host has its pages again; its addresses in hospes stay mapped, so that whoever still looks
 * there (a request in flight, a ring in the wrong place) finds memory of the guest.
 *
 * The guest has 30 s for all of it. After a reset it starts with what is in, of which
 * it hears by ACPI, not from its memory map; units that it was asked for have left.
 *
 * Threads: the machine's. Not inside a callback of a loop.
 */
#ifndef MACHINE_MEMORY_H
#define MACHINE_MEMORY_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "machine/parts.h"

struct acpi_config;
struct arch_layout;
struct hospes_vm;

struct vm_memory {
	struct vm_parts parts;   /* none where it stays as it is */
	uint64_t unit_bytes;     /* constant, as are: */
	unsigned int n_units;    /* of them there can be */
	bool share, small_pages; /* as gmem_region_config has them */
	uint32_t mapped;         /* bit by number: the unit is a region of guest memory */
	uint64_t reported_bytes; /* how much the last event said there is */
	uint64_t wanted_bytes;   /* how much there is to be */
};

/* What the document says, for the layout. */
void memory_layout(struct hospes_vm *vm, struct arch_layout *layout);
/* Guest memory, as it is at the start. */
int memory_build(struct hospes_vm *vm, struct err *err);
/* Among the devices that every machine has. */
int memory_create(struct hospes_vm *vm, struct err *err);
/* While vCPUs are paused, before the guest starts: what it was asked for has left, and what
 * firmware says of the rest. */
void memory_describe(struct hospes_vm *vm, struct acpi_config *acpi);
/* So much from now on, as far as the guest agrees. */
int memory_set(struct hospes_vm *vm, uint64_t bytes, struct err *err);
/* A new reference; NULL: no memory. */
json_t *memory_status(struct hospes_vm *vm);

#endif
