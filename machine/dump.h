/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's memory in a file, with its registers as an ELF core, or beside its state, a snapshot
 * (snapshot.h); written by the machine's loop while the machine is paused: one write at a time, so
 * that the loop goes on with what else it has. What was never used, or is zero, is a hole.
 *
 * Threads: the machine's, outside callbacks of its loop.
 */
#ifndef MACHINE_DUMP_H
#define MACHINE_DUMP_H

#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"

struct hospes_vm;
struct vm_dump; /* one that is being written */

/* The files are the caller's. */
struct vm_dump_request {
	int fd;
	int state_fd;    /* of a snapshot, whose `fd` is for memory alone; -1: an ELF core */
	char **document; /* of a snapshot: what such a machine is made from, by malloc */
};

/* Pauses a running machine until it is written. arg: a struct vm_dump_request. */
int vm_do_dump(struct hospes_vm *vm, void *arg, struct err *err);
/* Whether the machine goes on when a dump is written, if there is one. False: there is none. */
bool vm_dump_then(struct hospes_vm *vm, bool resume);
/* After an iteration of the loop. */
void vm_dump_act(struct hospes_vm *vm);
/* The machine has stopped for good: it remains unfinished, which its event says. */
void vm_dump_ended(struct hospes_vm *vm);
/* Before the loop and memory are destroyed. */
void vm_dump_destroy(struct hospes_vm *vm);
/* For the status document; NULL: none is being written. */
json_t *vm_dump_status(const struct hospes_vm *vm);

#endif
