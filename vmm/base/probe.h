/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Static probes (USDT) of the provider "hospes": one instruction that does nothing each, until a
 * tracer puts a breakpoint there; so they are in every build and on every path.
 *
 *   readelf -n libhospes.so                         all of them, with their arguments
 *   perf buildid-cache --add libhospes.so; perf record -e sdt_hospes:map …
 *   bpftrace -e 'usdt:libhospes.so:hospes:ioctl { @[arg1] = count(); }'
 *
 * Any thread. Arguments are integers or pointers that exist anyway: nothing is computed for a
 * probe.
 */
#ifndef BASE_PROBE_H
#define BASE_PROBE_H

#include <stdint.h>
#include <sys/sdt.h>

/* A call of KVM, VFIO or IOMMUFD has returned; result as that of fd_ioctl. */
static inline void probe_ioctl(int fd, unsigned long request, int result)
{
	DTRACE_PROBE3(hospes, ioctl, fd, request, result);
}

/* An I/O address space maps or has unmapped [iova, iova + bytes); gpa UINT64_MAX: no guest
 * memory. */
static inline void probe_map(uint64_t iova, uint64_t bytes, uint64_t gpa, int result)
{
	DTRACE_PROBE4(hospes, map, iova, bytes, gpa, result);
}

static inline void probe_unmap(uint64_t iova, uint64_t bytes, int result)
{
	DTRACE_PROBE3(hospes, unmap, iova, bytes, result);
}

/* The driver has notified a queue that this process serves. */
static inline void probe_kick(const char *device, unsigned int queue)
{
	DTRACE_PROBE2(hospes, kick, device, queue);
}

/* This process raises a message-signalled interrupt (its eventfd), or sets a pin. */
static inline void probe_interrupt(int fd)
{
	DTRACE_PROBE1(hospes, interrupt, fd);
}

static inline void probe_pin(uint32_t gsi, int level)
{
	DTRACE_PROBE2(hospes, pin, gsi, level);
}

/* A vCPU has left the guest for this process; reason is KVM_EXIT_*, address the port or the guest
 * physical address of KVM_EXIT_IO and KVM_EXIT_MMIO. */
static inline void probe_exit(unsigned int vcpu, uint32_t reason, uint64_t address)
{
	DTRACE_PROBE3(hospes, exit, vcpu, reason, address);
}

#endif
