/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preflight: will passthrough of this device work here, and if not, what to do?
 *
 * Each finding is a fact, its severity and its remedy. A blocker predicts how an attempt would
 * fail; a device without blockers works. Each call reads the host anew and changes nothing.
 *
 * Threads: no state; any thread.
 */
#ifndef HOST_EXPLAIN_H
#define HOST_EXPLAIN_H

#include <stdint.h>

#include "base/err.h"
#include "core/gmem.h"
#include "iommu/ioas.h"
#include "host/device.h"

enum explain_level {
	EXPLAIN_OK,
	EXPLAIN_WARNING,
	EXPLAIN_BLOCKER,
};

struct explain_finding {
	enum explain_level level;
	const char *topic; /* "driver", "group", "iommu", "msi", "memory", "memlock", "reset", … */
	char fact[256];
	char remedy[256]; /* the line to type, or ""; never for EXPLAIN_OK */
};

/* The properties of the future machine that matter here. */
struct explain_request {
	uint64_t memory_bytes; /* 0: not known */
	/* GMEM_AUTO: no device shares the memory, so that it is anonymous. */
	enum gmem_backing backing;
	enum iommu_kind kind;
	int cdev_fd, iommufd;       /* handed in, then paths need no permission; -1: not */
	int kvm_fd;                 /* likewise; 0 or less: /dev/kvm */
	unsigned int other_vectors; /* MSI-X vectors of the machine's other devices */
};

struct explain {
	struct explain_finding *findings;
	unsigned int n;
	enum explain_level worst;
};

/* bdf: canonical (host_find). Findings are in the order in which passthrough would meet them; *ret
 * is the caller's, freed by explain_done. -ENODEV: no such device. */
int explain_device(struct explain *ret, const char *bdf, const struct explain_request *request,
		   struct err *err);
void explain_done(struct explain *explain);

#endif
