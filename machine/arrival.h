/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Live migration, the side to which a machine comes (migrate.h is the other).
 *
 *   COMING ─► LOADED ── GO ──► ARRIVED: it runs
 *     │          └─ the source is gone: STRANDED, it stands still until somebody decides
 *     └─ failed: it ends, and the source has never stopped having it
 *
 * The machine is made as for a start, but nothing is put into its memory; its devices are quiet
 * until it has arrived, and it is paused to whoever asks. What comes is hostile: receive.h bounds
 * memory, state.h the state.
 *
 * Threads: the machine's, outside callbacks of its loop.
 */
#ifndef MACHINE_ARRIVAL_H
#define MACHINE_ARRIVAL_H

#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"

struct hospes_vm;
struct vm_arrival;

/* A document's wish: the stream, behind the source's document. */
struct config_incoming {
	int fd; /* -1: none */
};

/* While the machine is made: duplicates the fd. Nothing is read before the start. */
int vm_arrival_create(struct hospes_vm *vm, struct err *err);
/* The machine is started: tell the source. */
void vm_arrival_begin(struct hospes_vm *vm);
/* After an iteration of the loop. */
void vm_arrival_act(struct hospes_vm *vm);
/* The machine has stopped for good. */
void vm_arrival_ended(struct hospes_vm *vm);
/* Before the loop and memory are destroyed. */
void vm_arrival_destroy(struct hospes_vm *vm);
/* Is it still to arrive? */
bool vm_arrival_waits(const struct hospes_vm *vm);
/* -EBUSY while it comes; where nobody said who goes on, this decides. */
int vm_arrival_may_resume(struct hospes_vm *vm, struct err *err);
json_t *vm_arrival_status(const struct hospes_vm *vm);

#endif
