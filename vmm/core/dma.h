/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DMA of emulated devices: every access goes through an I/O address space, in brackets.
 *
 *     dma_open(port, &bracket)
 *         dma_map(port, iova, len, dir, iov, max)   permission and bounds checked; host pointers
 *         dma_map(...)                              as many as the request has segments
 *         ... the device reads or writes through the pointers ...
 *     dma_close(port, &bracket)
 *
 * A space says what iovas mean: identity (guest-physical, when no virtual IOMMU is in front), or a
 * translation (iommu/ implements it by the ops below). Whoever takes memory away (a virtual IOMMU's
 * UNMAP, a discard, an unplug) first makes the translation fail for new requests and then waits
 * until the brackets that were open are closed (dma_space_drain).
 *
 * A port is one user of a space: a queue, a loop. It belongs to one thread, so opening and closing
 * a bracket costs two stores and no lock.
 *
 * Threads: port functions by the port's owner; space functions by the machine's thread or a vCPU
 * thread that holds no device lock.
 */
#ifndef CORE_DMA_H
#define CORE_DMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "base/list.h"
#include "core/gmem.h"

enum dma_dir {
	DMA_TO_DEVICE = 1,   /* the device reads memory */
	DMA_FROM_DEVICE = 2, /* the device writes memory */
};

struct dma_space;

/* A translation. translate: the segment that starts at iova: its gpa and how many bytes of it are
 * contiguous in gpa (at most len); -EFAULT when nothing is mapped there or dir is not permitted.
 * Any port's thread, with a bracket open: it takes no lock that is held over a wait. */
struct dma_space_ops {
	int (*translate)(void *opaque, uint64_t iova, uint64_t len, enum dma_dir dir, uint64_t *gpa,
			 uint64_t *contiguous);
	/* A device's access failed; for fault reports. May be NULL. */
	void (*fault)(void *opaque, uint32_t requester, uint64_t iova, uint64_t len,
		      enum dma_dir dir);
};

/* ops NULL: identity. */
int dma_space_create(struct dma_space **ret, struct gmem *gmem, const struct dma_space_ops *ops,
		     void *opaque, struct err *err);
void dma_space_destroy(struct dma_space *space);
/* For a while iovas are gpas, and the translation is not asked (true), or it is again. Before
 * dma_space_drain, as any change of the translation; until that has returned either may be seen. */
void dma_space_set_identity(struct dma_space *space, bool identity);

/* The owner's thread's, but for what drains read (atomic) and what is under the space's lock. */
struct dma_port {
	struct dma_space *space;
	uint32_t requester;
	/* private */
	struct list link; /* under the space's lock */
	_Atomic uint64_t opened;
	_Atomic uint64_t closed;
	struct list open;
	_Atomic uint64_t oldest; /* serial number of the oldest open bracket: see dma.c */
	unsigned int drains;     /* waiting for this port, under the space's lock */
	/* The region that was used last, where iovas are gpas: most accesses are to the same one.
	 * Good as long as the generation is. */
	struct {
		uint64_t gpa, bytes, generation;
		char *hva;
		unsigned int dirs; /* enum dma_dir, permitted */
	} last;
};

struct dma_bracket {
	struct list link;
	uint64_t serial;
};

void dma_port_init(struct dma_port *port, struct dma_space *space, uint32_t requester);
/* All brackets closed. */
void dma_port_done(struct dma_port *port);

void dma_open(struct dma_port *port, struct dma_bracket *bracket);
/* Append the host segments of [iova, iova + len) to iov: their number (at least 1), -EFAULT when
 * any byte is not permitted (nothing is accessed; reported by the space), -E2BIG when more than max
 * segments are needed, -EINVAL for len 0 or a range that wraps. */
int dma_map(struct dma_port *port, uint64_t iova, uint64_t len, enum dma_dir dir, struct iovec *iov,
	    unsigned int max);
/* Record that the first `written` bytes of these segments (from dma_map, FROM_DEVICE) were
 * written. */
void dma_written(struct dma_port *port, const struct iovec *iov, unsigned int n, uint64_t written);
void dma_close(struct dma_port *port, struct dma_bracket *bracket);

/* For memory that is used over and over (rings): host segments found in an earlier bracket may be
 * used in a later one as long as this number, read inside the later one, has not changed.
 * dma_space_drain changes it before it looks for open brackets. */
uint64_t dma_generation(const struct dma_port *port);

/* Does the space translate (a virtual IOMMU is in front)? Then an access that is not permitted is
 * reported to whoever gave the permissions, and says nothing about the rest of the driver. */
bool dma_translates(const struct dma_port *port);

/* Copy through a bracket of its own; 0 or -EFAULT. */
int dma_read(struct dma_port *port, uint64_t iova, void *buf, size_t len);
int dma_write(struct dma_port *port, uint64_t iova, const void *buf, size_t len);

/* Return when every bracket that was open on any port of the space at the call has been closed. Not
 * from a port's own thread with a bracket open. */
void dma_space_drain(struct dma_space *space);

/* Memory has been removed, and stays mapped in hospes (gmem.h): brackets that are open may still
 * use it, later ones do not find it. Any thread; does not wait. */
void dma_space_forget(struct dma_space *space);

#endif
