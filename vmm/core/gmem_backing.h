/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the host memory of a region comes from: mapping, binding, populating, discarding. Used by
 * gmem.c only; knows nothing of maps, transactions or listeners.
 */
#ifndef CORE_GMEM_BACKING_H
#define CORE_GMEM_BACKING_H

#include "core/gmem.h"

/* Map what config asks for and describe it in ret (all but the name). other_bytes: RAM that the
 * same guest has already. -EINVAL for bad alignment or an unfit fd, -ENOMEM when the host cannot
 * give it; the message says how much is missing and what to do. */
int gmem_backing_map(struct gmem_region *ret, const struct gmem_region_config *config,
		     uint64_t other_bytes, struct err *err);
void gmem_backing_unmap(struct gmem_region *region);

/* Touch [hva, hva + len) of region for writing without changing it: 0 or a negative errno. */
int gmem_backing_populate(const struct gmem_region *region, void *hva, size_t len);
int gmem_backing_fill(const struct gmem_region *region, int fd, uint64_t offset, struct err *err);
int gmem_backing_discard(const struct gmem_region *region, uint64_t offset, uint64_t len);

/* "KEY:" of /proc/meminfo in bytes, 0 when it is not there. */
uint64_t gmem_host_meminfo(const char *key);

#endif
