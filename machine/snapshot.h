/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine's state: vCPUs, the VM and devices as sections of one stream (core/state.h), and its
 * memory as a file; written by dump.c, and a machine that is made from them.
 *
 *   stream   machine: what it is, and where its memory is · vcpu0 … · vm · the devices, by name, in
 *            the order of their creation
 *   memory   all RAM, region after region in order of gpa; what is zero is a hole
 *
 * Made from: the document says what the machine is, as for any other; then, in place of a kernel,
 * memory is mapped from the file, copy-on-write, and the stream is loaded. The files are
 * hostile: what a section may hold is checked by its table, what KVM takes by KVM.
 *
 * Threads: the machine's.
 */
#ifndef MACHINE_SNAPSHOT_H
#define MACHINE_SNAPSHOT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "core/state.h"

struct hospes_vm;

enum snapshot_clock {
	SNAPSHOT_CONTINUE, /* all clocks go on where they stood */
	SNAPSHOT_REAL,     /* they go on as if the guest had slept meanwhile */
};

/* A document's wish to be made from one: `path` is a directory, or the two files are given. */
struct config_restore {
	char *path;
	int state_fd, memory_fd; /* -1 */
	int clock;               /* enum snapshot_clock */
};

/* What has been opened, until the machine is made; memory_fd as long as it is mapped. */
struct vm_snapshot {
	bool present;
	bool loaded; /* devices are quiet until the start */
	/* It comes from another host, in the place of files (arrival.h), and is no copy; at least
	 * so long ago it stood still. */
	bool arrives;
	uint64_t least_ns;
	int memory_fd;
	uint8_t *bytes; /* of the stream */
	size_t len;
};

/* Open what the document names, if it does. */
int snapshot_open(struct hospes_vm *vm, struct err *err);
/* When there is guest memory. */
int snapshot_map(struct hospes_vm *vm, struct err *err);
/* When there is all of the machine. */
int snapshot_load(struct hospes_vm *vm, struct err *err);
void snapshot_done(struct hospes_vm *vm);

/* Can its state be had? -EOPNOTSUPP names what cannot be saved. */
int snapshot_check(struct hospes_vm *vm, struct err *err);
/* The stream of a paused machine, into `buffer`, which the caller frees. -EOPNOTSUPP names what
 * cannot be saved. */
int snapshot_save(struct hospes_vm *vm, struct state_buffer *buffer, struct err *err);
/* The document from which such a machine is made, without file descriptors: free() it. */
char *snapshot_document(struct hospes_vm *vm);

#endif
