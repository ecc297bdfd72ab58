/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines for the native suite: a KVM (the host's where that is usable, or the stub), a kernel
 * that is never run, files for the devices, and counts of what a process holds.
 *
 * Tests that start a machine ask for the stub, since the kernel is none.
 */
#ifndef TEST_NATIVE_RIG_H
#define TEST_NATIVE_RIG_H

#include <stdbool.h>

#include "core/kvm.h"
#include "hospes/hospes.h"

struct rig {
	const struct kvm_calls *calls;
	int kvm_fd;
	bool stub;
	int listen_fd; /* stands for passt */
	char dir[64];  /* kernel, disk, passt.sock */
};

/* Criterion's assertions end the test where something is missing. */
void rig_init(struct rig *rig, bool stub);
void rig_done(struct rig *rig);

/* The document may name the rig's files as {dir}/kernel, {dir}/disk and {dir}/disk2 (1 MiB each),
 * {dir}/passt.sock. */
int rig_try(struct rig *rig, struct hospes_vm **vm, const char *document, unsigned int flags,
	    struct hospes_error *error);
/* Must succeed. */
struct hospes_vm *rig_create(struct rig *rig, const char *document, unsigned int flags);

/* Every kind of device that the library emulates, some twice, three of them behind a virtual
 * IOMMU. */
extern const char rig_everything[];
/* The least: one vCPU, 32 MiB, the devices that every machine has. */
extern const char rig_least[];

/* What this process holds now; equal before and after. Threads that were joined may still be seen
 * for a moment: rig_threads() looks again until there are no more than `wanted`, or it gives up. */
unsigned int rig_fds(void);
unsigned int rig_threads(unsigned int wanted);

#endif
