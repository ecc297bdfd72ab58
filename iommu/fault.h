/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DMA faults: accesses of a device that its address space does not permit.
 *
 * Their source is the kernel's log (/dev/kmsg), which the kernel limits in rate. Reading it needs
 * CAP_SYSLOG or dmesg_restrict=0; otherwise fault_source and the status say that faults are not
 * seen. The drivers of VT-d and AMD-Vi log every fault of an ordinary device. Other sources have
 * less: the tracepoint iommu:io_page_fault is not fired by VT-d's driver (Linux 6.12), and
 * iommufd's event queues report page requests (PRI), which these devices do not make. The error
 * interrupt of a device belongs to devices/passthrough.
 *
 * Threads: the machine's thread creates and destroys; callbacks run in the loop's thread.
 * Ownership: the caller's; the loop and the log outlive the watch.
 */
#ifndef IOMMU_FAULT_H
#define IOMMU_FAULT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"

struct fault_watch;
struct loop;

struct iommu_fault {
	char device[16]; /* "0000:01:10.0" */
	uint64_t iova;
	bool write;
	char reason[80];
	uint64_t when_ns; /* CLOCK_MONOTONIC: the log's time, or that of reading */
};
/* Called for faults of any device of this host: the caller picks its own. */
typedef void fault_fn(void *opaque, const struct iommu_fault *fault);

/* -ENOMEM is the only error: without a source it watches nothing. */
int fault_watch_create(struct fault_watch **ret, struct loop *loop, const struct log *log,
		       fault_fn *fn, void *opaque, struct err *err);
/* The loop is idle, or this is its thread. NULL is allowed. */
void fault_watch_destroy(struct fault_watch *watch);
/* "kernel log", or "none: /dev/kmsg: permission denied (kernel.dmesg_restrict=0 permits it)". */
const char *fault_source(const struct fault_watch *watch);

/* Parse a record of /dev/kmsg (len bytes, not terminated). True: it reports a fault. */
bool fault_parse_kmsg(const char *record, unsigned int len, struct iommu_fault *ret);

#endif
