// SPDX-License-Identifier: Apache-2.0
#include "iommu/strategy/alias.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/num.h"

enum { BASE_PAGE = 4096, USUAL_MAX_MAP_COUNT = 65530 };

/* Of all aliases of this process. */
static _Atomic uint64_t used_mappings;

static bool can_have_aliases(const struct gmem_region *region)
{
	return region->fd >= 0 && region->page_bytes == BASE_PAGE;
}

/* --- may it be? --- */

static int check_region(void *opaque, const struct gmem_region *region)
{
	struct err *err = opaque;

	if (region->flags & (GMEM_NO_DMA | GMEM_READONLY) || can_have_aliases(region))
		return 0;
	return err_set(err, -EOPNOTSUPP,
		       "memory '%s' is %s, of which no alias can be made: use memory.backing=memfd",
		       region->name, region->fd < 0 ? "anonymous" : "in huge pages");
}

int alias_check(const struct gmem *gmem, struct err *err)
{
	return gmem_walk(gmem, check_region, err);
}

/* A process that is confined cannot read the file. */
static uint64_t max_mappings(void)
{
	FILE *file = fopen("/proc/sys/vm/max_map_count", "re");
	unsigned long count = USUAL_MAX_MAP_COUNT;

	if (file && fscanf(file, "%lu", &count) != 1)
		count = USUAL_MAX_MAP_COUNT;
	if (file)
		fclose(file);
	return count / 4;
}

static bool take_mappings(unsigned int n)
{
	static _Atomic uint64_t max;

	if (!max)
		max = max_mappings();
	if (atomic_fetch_add(&used_mappings, n) + n <= max)
		return true;
	atomic_fetch_sub(&used_mappings, n);
	return false;
}

/* --- making one --- */

struct making {
	struct alias *alias;
	uint64_t mapped; /* bytes */
};

/* Map the extents that lie in this region at their places in the alias. */
static int map_region(void *opaque, const struct gmem_region *region)
{
	struct making *making = opaque;
	char *to = making->alias->hva, *base = region->hva;

	for (unsigned int i = 0; i < making->alias->n; i++) {
		const struct alias_extent *e = &making->alias->extents[i];

		if (e->hva >= base && e->hva < base + region->size_bytes) {
			off_t offset = (off_t)(region->fd_offset + (uint64_t)(e->hva - base));

			if (!can_have_aliases(region))
				return -EOPNOTSUPP;
			if (mmap(to, e->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
				 region->fd, offset) == MAP_FAILED)
				return -errno;
			making->mapped += e->bytes;
		}
		to += e->bytes;
	}
	return 0;
}

static int map_extents(struct alias *alias, const struct gmem *gmem)
{
	struct making making = {.alias = alias};
	void *place = mmap(NULL, alias->bytes, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int ret;

	if (place == MAP_FAILED)
		return -errno;
	alias->hva = place;
	ret = gmem_walk(gmem, map_region, &making);
	if (!ret && making.mapped != alias->bytes)
		ret = -EFAULT;
	if (ret)
		munmap(place, alias->bytes);
	return ret;
}

int alias_create(struct alias **ret, const struct gmem *gmem, const struct alias_extent *extents,
		 unsigned int n)
{
	struct alias *alias;
	int code;

	if (!take_mappings(n))
		return -ENOSPC;
	alias = calloc(1, sizeof(*alias) + n * sizeof(*extents));
	if (!alias) {
		atomic_fetch_sub(&used_mappings, n);
		return -ENOMEM;
	}
	list_init(&alias->link);
	alias->n = n;
	memcpy(alias->extents, extents, n * sizeof(*extents));
	for (unsigned int i = 0; i < n; i++)
		alias->bytes += extents[i].bytes;
	code = map_extents(alias, gmem);
	if (code) {
		atomic_fetch_sub(&used_mappings, n);
		free(alias);
		return code;
	}
	*ret = alias;
	return 0;
}

void alias_destroy(struct alias *alias)
{
	munmap(alias->hva, alias->bytes);
	atomic_fetch_sub(&used_mappings, alias->n);
	free(alias);
}
