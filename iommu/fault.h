/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DMA faults: an access of a device that its address space does not permit, from wherever this
 * kernel tells of it: its log (rate-limited), which is read where it may be (/dev/kmsg: CAP_SYSLOG,
 * or dmesg_restrict=0); where it may not, fault_source() says so, and so does the status. The
 * drivers of VT-d and AMD-Vi write every fault of an ordinary device there. The tracepoint
 * iommu:io_page_fault has less: VT-d's does not fire it, AMD's fires it for what it then logs with
 * a reason (Linux 6.12: report_iommu_fault without a handler). iommufd's event queues have page
 * requests (PRI), which devices in guests do not make. A device's own error interrupt is
 * devices/passthrough's.
 *
 * Threads: created and destroyed by the machine's thread; callbacks run in the loop's.
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
	uint64_t when_ns; /* CLOCK_MONOTONIC, as the source says; else the time of reading */
};
/* Every fault that the source reports, of any device on this host: the caller picks its own. */
typedef void fault_fn(void *opaque, const struct iommu_fault *fault);

/* Always succeeds but for -ENOMEM: without a source it watches nothing. */
int fault_watch_create(struct fault_watch **ret, struct loop *loop, const struct log *log,
		       fault_fn *fn, void *opaque, struct err *err);
/* The loop is idle or the caller's. NULL is allowed. */
void fault_watch_destroy(struct fault_watch *watch);
/* "kernel log", or "none: /dev/kmsg: permission denied (kernel.dmesg_restrict=0 permits it)". */
const char *fault_source(const struct fault_watch *watch);

/* The parser, for its fuzzer: one record of /dev/kmsg (len bytes, not terminated). true: a
 * fault. */
bool fault_parse_kmsg(const char *record, unsigned int len, struct iommu_fault *ret);

#endif
