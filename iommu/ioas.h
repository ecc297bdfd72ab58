/* SPDX-License-Identifier: Apache-2.0 */
/*
 * I/O address spaces: what the addresses in a device's DMA mean, in a table that the hardware walks.
 *
 *   struct iommu            one per machine: /dev/iommu, or VFIO containers, or nothing but tables
 *    └ struct ioas          one address space; its ledger counts what is done to it
 *       └ struct iommu_endpoint   a device that is attached to it (any number)
 *
 * The seam is narrow on purpose: map, unmap, copy, attach, detach, usable ranges, dirty on/off/read.
 * *When* something is mapped is decided above, in strategy.h. Backends:
 *
 *   iommufd   /dev/iommu and VFIO character devices (Linux 6.2 and newer): pins shared between
 *             spaces by copy, replacement of a device's space while it runs
 *   type1     VFIO containers and groups: one container per space, every member of a group in it
 *
 * What is not mapped cannot be reached. Nothing is ever mapped that a caller did not ask for.
 *
 * Addresses: iova is the device's, hva is ours. All ranges are multiples of the space's page size
 * unless said otherwise, and never wrap.
 *
 * Threads: ioas_map, _unmap, _copy, the dirty calls and what is counted may be called by any thread,
 * also at the same time. Everything else comes from one thread at a time (the machine's, or whoever
 * holds the virtual IOMMU's lock); with type1 nothing is mapped while the first device comes or the
 * last one goes.
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
struct ledger_totals;

enum iommu_kind {
	IOMMU_AUTO, /* iommufd where kernel and devices have it, else type1: iommu_reason() says why */
	IOMMU_IOMMUFD,
	IOMMU_TYPE1,
};

/* Against which limit iommufd counts pinned memory when the process may not lock at will. */
enum iommu_accounting {
	IOMMU_ACCOUNT_DEFAULT, /* what the kernel does: per user; type1 counts per process */
	IOMMU_ACCOUNT_USER,
	IOMMU_ACCOUNT_PROCESS, /* iommufd: needs CAP_SYS_RESOURCE to ask for */
};

struct iommu_config {
	const struct log *log;
	enum iommu_kind kind;
	int iommufd;        /* an open /dev/iommu, duplicated; -1: opened here when it is needed */
	const char *device; /* for IOMMU_AUTO: "0000:01:10.0", one that is to be attached; NULL */
	bool no_huge_pages; /* map with base pages only, for comparison; iommufd */
	enum iommu_accounting accounting;
};

/* -ENOENT, -EACCES with the way out when the host has not what was asked for. */
int iommu_create(struct iommu **ret, const struct iommu_config *config, struct err *err);
/* All spaces and endpoints gone. NULL is allowed. */
void iommu_destroy(struct iommu *iommu);
enum iommu_kind iommu_kind_of(const struct iommu *iommu); /* never IOMMU_AUTO */
const char *iommu_kind_name(enum iommu_kind kind);        /* "iommufd" */
const char *iommu_reason(const struct iommu *iommu);      /* one line: what was chosen and why */
int iommu_fd(const struct iommu *iommu);                  /* of /dev/iommu; -1 */
enum iommu_accounting iommu_accounting_of(const struct iommu *iommu); /* never DEFAULT */

/* --- devices --- */

struct iommu_endpoint_config {
	const char *name; /* "0000:01:10.0", for messages; copied */
	/* iommufd: an open /dev/vfio/devices/vfioN. type1: an open /dev/vfio/N, and name is the
	 * device's address in it. The kernel opens a group only once: for a second device of the group
	 * give a duplicate. Taken over on success. */
	int fd;
};
/* iommufd: bound here. -EBUSY, -EPERM with whoever holds it and the way out; VFIO's no-IOMMU mode is
 * refused, since nothing would translate. */
int iommu_endpoint_create(struct iommu_endpoint **ret, struct iommu *iommu,
			  const struct iommu_endpoint_config *config, struct err *err);
/* Detaches it, and closes what was taken over: the device is free for others. NULL is allowed. */
void iommu_endpoint_destroy(struct iommu_endpoint *endpoint);
/* The VFIO device, for regions and interrupts; the endpoint's. With type1 it exists from attach to
 * detach (VFIO gives it out no earlier, and a group leaves its container only when its devices are
 * closed and their regions unmapped); -1 otherwise. */
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

/* What is mapped: host memory of this process, or, where fd is not -1 and the kernel can, the file
 * itself (so that the mapping survives this process's). gpa is for the ledger and for reports:
 * UINT64_MAX when it means nothing to a guest. */
struct ioas_memory {
	void *hva;
	int fd;
	uint64_t fd_offset;
	uint64_t gpa;
};

int ioas_create(struct ioas **ret, struct iommu *iommu, const char *name, struct err *err);
/* No endpoint attached. Unmaps what is left. NULL is allowed. */
void ioas_destroy(struct ioas *ioas);
const char *ioas_name(const struct ioas *ioas);
struct iommu *ioas_iommu(const struct ioas *ioas);
/* What was done to it, what it cost and exposed (ledger.h). */
void ioas_totals(struct ioas *ioas, struct ledger_totals *ret);
/* The guest asked for (on) or took back `bytes` in it; and: what it took back is still mapped. */
void ioas_requested(struct ioas *ioas, uint64_t bytes, bool on);
void ioas_stale(struct ioas *ioas, uint64_t bytes, bool on);

/* An endpoint that is attached elsewhere moves: at once, with no moment in between at which it
 * reaches neither (iommufd), or -EOPNOTSUPP (type1). -EINVAL with the conflict when something is
 * mapped where this device has a reserved range. */
int ioas_attach(struct ioas *ioas, struct iommu_endpoint *endpoint, struct err *err);
/* Afterwards the device reaches nothing. Harmless when it is not attached. type1: a space has a table
 * only while a device is in it, so the last one that leaves takes all mappings with it, and mapping
 * without one is -ENODEV. */
void ioas_detach(struct iommu_endpoint *endpoint);
struct iommu_endpoint *ioas_first_endpoint(const struct ioas *ioas); /* NULL: none is attached */

/* Page sizes that the table is known to hold (iommufd tells larger ones of VT-d only); the lowest is
 * the granularity of every call here. */
uint64_t ioas_page_sizes(const struct ioas *ioas);
/* Where mappings are possible with what is attached now: aperture less reserved ranges, ascending.
 * Returns how many there are, of which up to max were stored. */
unsigned int ioas_usable(const struct ioas *ioas, struct ioas_range *ranges, unsigned int max);
/* What is going to be mapped: -ENOSPC with the conflict when not all of it is usable now. From then on a
 * device that would make a part unusable does not come in, though nothing is mapped there yet (iommufd;
 * with type1 that is noticed once it is). Replaces what was said before; n = 0 takes it back. */
int ioas_allow(struct ioas *ioas, const struct ioas_range *ranges, unsigned int n, struct err *err);
/* How many more mappings the kernel will take: UINT64_MAX when there is no limit. */
uint64_t ioas_mappings_left(const struct ioas *ioas);

/* Give a space a table though no device is in it, so that what is mapped from here on is pinned: to copy
 * from (copies of it pin nothing). The table is such as `endpoint` could use. -EOPNOTSUPP: the backend
 * cannot. Before anything is mapped; the space takes no devices. */
int ioas_pin(struct ioas *ioas, const struct iommu_endpoint *endpoint);

/* A system call on this space's file that does nothing, for what the crossing alone costs. */
void ioas_call_nothing(const struct ioas *ioas);

/* Hot path: 0 or a negative errno, no text (ioas_explain has one).
 *   -EINVAL   not aligned, empty, past 2^64, or neither readable nor writable
 *   -EEXIST   something is mapped in [iova, iova + bytes)
 *   -EFAULT   not memory that can be pinned
 *   -ENOMEM   limit of locked memory, or no memory
 *   -ENOSPC   too many mappings, or outside of what is usable
 *   -EBUSY    another call is at work on a part of the range
 * ioas_unmap removes every mapping that lies wholly in the range, and none when one lies partly in it
 * (-ERANGE). When it returns 0 no device can reach the range any more. When the kernel refuses a part,
 * what it did unmap is unmapped here too, and the rest stays. *unmapped: bytes. */
int ioas_map(struct ioas *ioas, uint64_t iova, uint64_t bytes, const struct ioas_memory *memory,
	     unsigned int access);
int ioas_unmap(struct ioas *ioas, uint64_t iova, uint64_t bytes, uint64_t *unmapped);
/* ioas_map of several, each a call of its own and with a result of its own, as if one after the other; locks and
 * clock are shared. */
struct ioas_mapping {
	uint64_t iova, bytes;
	struct ioas_memory memory;
	unsigned int access;
	int result;
};
void ioas_map_all(struct ioas *ioas, struct ioas_mapping *mappings, unsigned int n);
/* Map what `from` has at from_iova, sharing its pins: mappings there may be cut, and each becomes one
 * here. -ENOENT when it has not all of it, -EPERM when it must not be written there, -EOPNOTSUPP when
 * the backend cannot. */
int ioas_copy(struct ioas *ioas, uint64_t iova, uint64_t bytes, struct ioas *from,
	      uint64_t from_iova, unsigned int access);
/* ioas_map, sharing the pins of another space of this iommu that maps the same memory at the same
 * place with the same access, where there is one and the backend can copy. Not while another thread
 * creates or destroys a space. */
int ioas_map_sharing(struct ioas *ioas, uint64_t iova, uint64_t bytes,
		     const struct ioas_memory *memory, unsigned int access);
/* A sentence for a failed map: which limit, its value and the way out. Returns code. */
int ioas_explain(const struct ioas *ioas, int code, uint64_t iova, uint64_t bytes, struct err *err);

/* For a fault: what iova means now, else what it was last (ledger_history): "mapped read-only (gpa
 * 0x1c3000)", "unmapped 3.1 ms ago (request 8812, gpa 0x1c3000)", "never mapped". */
void ioas_history(struct ioas *ioas, uint64_t iova, char *text, unsigned int bytes);

/* Dirty tracking by the hardware: -EOPNOTSUPP where it has none. One bit per page_bytes, set by
 * ioas_dirty_read, which clears it in the hardware. Set is the machine's thread's; with devices
 * attached. */
int ioas_dirty_set(struct ioas *ioas, bool on);
int ioas_dirty_read(struct ioas *ioas, uint64_t iova, uint64_t bytes, uint64_t page_bytes,
		    uint64_t *bitmap);

#endif
