/* SPDX-License-Identifier: Apache-2.0 */
/*
 * I/O address spaces: page tables of the host's IOMMU, which say what a device's DMA reaches.
 *
 *   struct iommu            one per machine: /dev/iommu, or VFIO containers
 *    └ struct ioas          one address space; its ledger counts its mappings and their cost
 *       └ struct iommu_endpoint   a device that is attached to it (any number)
 *
 * The interface is narrow on purpose: map, unmap, copy, attach, detach, usable ranges, dirty
 * tracking. *When* something is mapped is decided above, in strategy.h. Backends:
 *
 *   iommufd   /dev/iommu and VFIO character devices (Linux 6.2 and newer): spaces share pins by
 *             copy; a running device can move to another space
 *   type1     VFIO containers and groups: one container per space, with whole groups in it
 *
 * A device reaches only what is mapped, and nothing is mapped that a caller did not ask for.
 *
 * Units: bytes. iova is an address of the device, hva one of this process. Ranges are multiples of
 * the space's page size unless a call says otherwise, and never wrap.
 * Threads: ioas_map, _unmap, _copy, the dirty calls and the totals may be called by any threads at
 * the same time. All other calls on one space or device come from one thread at a time: the
 * machine's, or the one that holds the virtual IOMMU's lock; both make and destroy spaces. With
 * type1, nothing is mapped while a first device is attached or a last one detached.
 * Ownership: the caller destroys what it has created, endpoints before their iommu.
 * Errors: 0 or a negative errno; set-up calls explain it in `err`.
 */
#ifndef IOMMU_IOAS_H
#define IOMMU_IOAS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"

struct iommu;
struct ioas;
struct iommu_endpoint;
struct ledger_stale;
struct ledger_totals;

enum iommu_kind {
	IOMMU_AUTO, /* iommufd where kernel and devices have it, else type1; see iommu_reason */
	IOMMU_IOMMUFD,
	IOMMU_TYPE1,
};

/* How iommufd counts pinned memory against RLIMIT_MEMLOCK (without CAP_IPC_LOCK). */
enum iommu_accounting {
	IOMMU_ACCOUNT_DEFAULT, /* the kernel's choice: per user; type1 counts per process */
	IOMMU_ACCOUNT_USER,
	IOMMU_ACCOUNT_PROCESS, /* iommufd: needs CAP_SYS_RESOURCE */
};

struct iommu_config {
	const struct log *log;
	enum iommu_kind kind;
	int iommufd; /* an open /dev/iommu, which is duplicated; -1: opened when needed */
	const char
		*device; /* for IOMMU_AUTO: a device that will be attached, "0000:01:10.0"; NULL */
	bool no_huge_pages; /* base pages only, for comparison; iommufd */
	enum iommu_accounting accounting;
};

/* -ENOENT, -EACCES, with the remedy, when the host lacks the backend or denies it. */
int iommu_create(struct iommu **ret, const struct iommu_config *config, struct err *err);
/* All spaces and endpoints have been destroyed. NULL is allowed. */
void iommu_destroy(struct iommu *iommu);
enum iommu_kind iommu_kind_of(const struct iommu *iommu); /* never IOMMU_AUTO */
const char *iommu_kind_name(enum iommu_kind kind);        /* "iommufd" */
const char *iommu_reason(const struct iommu *iommu);      /* one line: the backend, and why */
int iommu_fd(const struct iommu *iommu);                  /* of /dev/iommu; -1 */
enum iommu_accounting iommu_accounting_of(const struct iommu *iommu); /* never DEFAULT */

/* --- devices --- */

struct iommu_endpoint_config {
	const char *name; /* "0000:01:10.0", for messages; copied */
	/* iommufd: an open /dev/vfio/devices/vfioN. type1: an open /dev/vfio/N, and name is the
	 * device's address in that group. The kernel opens a group only once, so pass a duplicate
	 * for a second device of the group. Owned by the endpoint on success. */
	int fd;
};
/* iommufd: binds the device to /dev/iommu. -EBUSY, -EPERM: the message names the holder, as far as
 * it is known, and the remedy. VFIO's no-IOMMU mode is refused, since nothing would translate. */
int iommu_endpoint_create(struct iommu_endpoint **ret, struct iommu *iommu,
			  const struct iommu_endpoint_config *config, struct err *err);
/* Detaches the endpoint and closes its fd, so that others can have the device. NULL is allowed. */
void iommu_endpoint_destroy(struct iommu_endpoint *endpoint);
/* The fd of the VFIO device, for its regions and interrupts; the endpoint owns it. type1: it exists
 * from attach to detach, else -1. (VFIO gives it out no earlier; a group leaves its container only
 * when its devices are closed and their regions unmapped.) */
int iommu_endpoint_device_fd(const struct iommu_endpoint *endpoint);
struct ioas *iommu_endpoint_ioas(const struct iommu_endpoint *endpoint); /* NULL: not attached */

/* --- address spaces --- */

struct ioas_range {
	uint64_t first, last; /* inclusive, as a space may end at 2^64 */
};

enum ioas_access {
	IOAS_READ = 1 << 0,  /* the device reads memory */
	IOAS_WRITE = 1 << 1, /* the device writes memory */
};

/* Memory to map: host memory of this process or, where fd is not -1 and the kernel can, the file
 * itself; such a mapping survives the process's own. gpa is for the ledger and for messages;
 * UINT64_MAX: the memory is not the guest's. */
struct ioas_memory {
	void *hva;
	int fd;
	uint64_t fd_offset;
	uint64_t gpa;
};

int ioas_create(struct ioas **ret, struct iommu *iommu, const char *name, struct err *err);
/* No endpoint is attached. What is still mapped is unmapped. NULL is allowed. */
void ioas_destroy(struct ioas *ioas);
const char *ioas_name(const struct ioas *ioas);
struct iommu *ioas_iommu(const struct ioas *ioas);
/* Counters and cost (ledger.h). */
void ioas_totals(struct ioas *ioas, struct ledger_totals *ret);
/* For the ledger: the guest has mapped (on) or unmapped bytes; a mapping that it has unmapped is
 * stale, or no longer. See ledger.h. */
void ioas_requested(struct ioas *ioas, uint64_t bytes, bool on);
uint64_t ioas_stale(struct ioas *ioas, uint64_t bytes);
void ioas_stale_end(struct ioas *ioas, const struct ledger_stale *stale);
/* n mappings of the guest were made as one area. */
void ioas_joined(struct ioas *ioas, unsigned int n);
/* The time by the ledger's clock. */
uint64_t ioas_now(const struct ioas *ioas);

/* Attach an endpoint, or move one that is attached to another space. A move is atomic (iommufd), or
 * -EOPNOTSUPP (type1). -EINVAL: something is mapped in a reserved range of this device, which the
 * message names. */
int ioas_attach(struct ioas *ioas, struct iommu_endpoint *endpoint, struct err *err);
/* Afterwards the device reaches nothing. Does nothing if it is not attached. type1: a space has a
 * table only while a device is attached; the last detach removes all mappings, and ioas_map is
 * -ENODEV. */
void ioas_detach(struct iommu_endpoint *endpoint);
struct iommu_endpoint *ioas_first_endpoint(const struct ioas *ioas); /* NULL: none is attached */

/* Page sizes that the table is known to support, a bit for each; the lowest is the granularity of
 * all calls. iommufd reports larger ones for VT-d only. */
uint64_t ioas_page_sizes(const struct ioas *ioas);
/* Where mappings are possible now: the aperture without reserved ranges, ascending. Returns the
 * number of ranges, of which up to max are stored. */
unsigned int ioas_usable(const struct ioas *ioas, struct ioas_range *ranges, unsigned int max);
/* Announce what will be mapped. -ENOSPC, with the conflict, when a part is not usable now.
 * Afterwards a device that would make a part unusable cannot be attached (iommufd; type1 notices
 * only once it is mapped). Replaces the previous list; n = 0 clears it. */
int ioas_allow(struct ioas *ioas, const struct ioas_range *ranges, unsigned int n, struct err *err);
/* How many more mappings the kernel accepts; UINT64_MAX: no limit. */
uint64_t ioas_mappings_left(const struct ioas *ioas);

/* Give the space a table though no device is attached, so that what is mapped from now on is
 * pinned. Copies of it then pin nothing. The table is one that `endpoint` could use. Call it before
 * anything is mapped; no device can be attached afterwards. -EOPNOTSUPP: the backend cannot. */
int ioas_pin(struct ioas *ioas, const struct iommu_endpoint *endpoint);

/* Make a system call on this space's file that does nothing, to measure what entering costs. */
void ioas_call_nothing(const struct ioas *ioas);

/* Hot path: 0 or a negative errno, without text (see ioas_explain).
 *   -EINVAL   not aligned, empty, past 2^64, or neither readable nor writable
 *   -EEXIST   something is mapped in [iova, iova + bytes)
 *   -EFAULT   not memory that can be pinned
 *   -ENOMEM   the limit of locked memory, or no memory
 *   -ENOSPC   too many mappings, or outside of what is usable
 *   -EBUSY    another call works on a part of the range
 * ioas_unmap removes every mapping that lies in the range; if one lies partly in it, none
 * (-ERANGE). When it returns 0 no device can reach the range. When the kernel refuses a part, the
 * table holds what the kernel still maps. *unmapped: bytes. */
int ioas_map(struct ioas *ioas, uint64_t iova, uint64_t bytes, const struct ioas_memory *memory,
	     unsigned int access);
int ioas_unmap(struct ioas *ioas, uint64_t iova, uint64_t bytes, uint64_t *unmapped);
/* The same, of what is stale: the history of its addresses says so. */
int ioas_unmap_stale(struct ioas *ioas, uint64_t iova, uint64_t bytes, uint64_t *unmapped);
/* Map several ranges, in order. Each is one call of the kernel with its own result; locks and clock
 * are shared. */
struct ioas_mapping {
	uint64_t iova, bytes;
	struct ioas_memory memory;
	unsigned int access;
	int result;
};
void ioas_map_all(struct ioas *ioas, struct ioas_mapping *mappings, unsigned int n);
/* Map what `from` maps at from_iova, and share its pins. Mappings of `from` may be cut; each
 * becomes one here. -ENOENT: `from` does not map all of it. -EPERM: `from` may not write there.
 * -EOPNOTSUPP: the backend cannot. */
int ioas_copy(struct ioas *ioas, uint64_t iova, uint64_t bytes, struct ioas *from,
	      uint64_t from_iova, unsigned int access);
/* ioas_map; but if another space of this iommu maps the same memory at the same place with the same
 * access, and the backend can copy, its pins are shared. No thread may create or destroy a space
 * meanwhile. */
int ioas_map_sharing(struct ioas *ioas, uint64_t iova, uint64_t bytes,
		     const struct ioas_memory *memory, unsigned int access);
/* Explain a failed map in `err`: the limit, its value and the remedy. Returns code. */
int ioas_explain(const struct ioas *ioas, int code, uint64_t iova, uint64_t bytes, struct err *err);

/* For a fault: how iova is mapped now, or else what was done to it last (ledger_history): "mapped
 * read-only (gpa 0x1c3000)", "unmapped 3.1 ms ago (request 8812, gpa 0x1c3000)", "never mapped". */
void ioas_history(struct ioas *ioas, uint64_t iova, char *text, unsigned int bytes);

/* Dirty tracking by the hardware; -EOPNOTSUPP where it has none. ioas_dirty_read sets one bit per
 * page_bytes that a device has written, and clears the hardware's. ioas_dirty_set: with devices
 * attached, by the machine's thread. */
int ioas_dirty_set(struct ioas *ioas, bool on);
int ioas_dirty_read(struct ioas *ioas, uint64_t iova, uint64_t bytes, uint64_t page_bytes,
		    uint64_t *bitmap);

#endif
