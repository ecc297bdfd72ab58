// SPDX-License-Identifier: Apache-2.0
// The strategy 'direct': all guest memory is mapped at its own addresses, as long as it is guest
// memory. Mapping pins every page and faults in those that are missing, which takes nearly all of
// the time; so a region is cut into shards, which several threads map. Where parts of memory can
// leave (core/reclaim.h), each granule is one area, since the kernel unmaps whole areas only.
#include "iommu/strategy/direct.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/sysinfo.h>

#include "base/mem.h"
#include "base/num.h"
#include "base/thread.h"
#include "core/reclaim.h"
#include "iommu/guest_memory.h"
#include "iommu/hw_domain.h"

enum {
	SHARD_MIN_MIB = 64, /* a smaller shard does not pay for its system call */
	MAX_THREADS = 16,
	SHARDS_PER_THREAD = 4,
};
static_assert(MAX_THREADS * SHARDS_PER_THREAD <= 64, "a bit per shard");

struct direct {
	struct strategy *strategy;
	struct gmem_listener listener;
	bool listening;
	unsigned int threads;
};

/* A region that is being mapped. */
struct job {
	struct direct *direct;
	const struct gmem_region *region;
	uint64_t shard_bytes;
	_Atomic uint64_t next; /* offset of the next shard */
	_Atomic uint64_t done; /* a bit per shard */
	_Atomic int failed;    /* the first error, and the offset of its shard */
	_Atomic uint64_t failed_at;
};

static unsigned int access_of(const struct gmem_region *region)
{
	return region->flags & GMEM_READONLY ? IOAS_READ : IOAS_READ | IOAS_WRITE;
}

static int map_area(const struct direct *direct, const struct gmem_region *region, uint64_t offset,
		    uint64_t bytes)
{
	struct ioas_memory memory = {
		.hva = (char *)region->hva + offset,
		.fd = region->fd,
		.fd_offset = region->fd_offset + offset,
		.gpa = region->gpa + offset,
	};

	return ioas_map_sharing(direct->strategy->ioas, region->gpa + offset, bytes, &memory,
				access_of(region));
}

static void unmap_part(struct direct *direct, const struct gmem_region *region, uint64_t offset,
		       uint64_t bytes)
{
	uint64_t unmapped;
	int ret = ioas_unmap(direct->strategy->ioas, region->gpa + offset, bytes, &unmapped);

	/* A device may still reach this memory: it must not be reused. */
	if (ret)
		log_error(direct->strategy->config->log, "iommu", "%s: cannot unmap '%s': %s",
			  direct->strategy->config->name, region->name, err_name(ret));
}

/* Those granules that are not out, each as an area; or it all, as one. */
static int map_part(struct direct *direct, const struct gmem_region *region, uint64_t offset,
		    uint64_t bytes)
{
	const struct reclaim *reclaim = gmem_reclaim(direct->strategy->config->gmem);
	uint64_t granule = reclaim ? reclaim_granule_bytes(reclaim) : 0, done = 0, n;
	int ret = 0;

	for (; done < bytes && !ret; done += ret ? 0 : n) {
		uint64_t gpa = region->gpa + offset + done;

		n = bytes - done;
		if (reclaim)
			n = MIN(n, granule - gpa % granule);
		if (!reclaim_is_out(reclaim, gpa))
			ret = map_area(direct, region, offset + done, n);
	}
	if (ret && done)
		unmap_part(direct, region, offset, done);
	return ret;
}

static void map_shard(struct job *job, uint64_t offset)
{
	uint64_t bytes = MIN(job->shard_bytes, job->region->size_bytes - offset);
	int none = 0;
	int ret = map_part(job->direct, job->region, offset, bytes);

	if (!ret)
		atomic_fetch_or(&job->done, 1ull << offset / job->shard_bytes);
	else if (atomic_compare_exchange_strong(&job->failed, &none, ret))
		job->failed_at = offset;
}

static void *map_shards(void *opaque)
{
	struct job *job = opaque;
	uint64_t offset;

	while (!job->failed) {
		offset = atomic_fetch_add(&job->next, job->shard_bytes);
		if (offset >= job->region->size_bytes)
			break;
		map_shard(job, offset);
	}
	return NULL;
}

/* The calling thread works too, so it is no error if no helper can be started. */
static void run_job(struct job *job, unsigned int threads)
{
	pthread_t helpers[MAX_THREADS];
	unsigned int started = 0;

	while (started + 1 < threads &&
	       !thread_start(&helpers[started], THREAD_HELPER, started, NULL, map_shards, job))
		started++;
	map_shards(job);
	while (started)
		pthread_join(helpers[--started], NULL);
}

/* A few shards per thread, so that no thread waits long for the last one. Each begins and ends on a
 * boundary of the region's largest page, or of a transparent huge page. */
static uint64_t shard_bytes(const struct gmem_region *region, unsigned int threads)
{
	uint64_t page = MAX(region->page_bytes, 2 * MiB);
	uint64_t bytes = region->size_bytes / (threads > 1 ? SHARDS_PER_THREAD * threads : 1);

	bytes = MAX(bytes, SHARD_MIN_MIB * MiB);
	return align_up(bytes, page);
}

static bool is_for_devices(const struct gmem_region *region)
{
	return !(region->flags & GMEM_NO_DMA);
}

static int direct_map(void *opaque, const struct gmem_region *region, struct err *err)
{
	struct direct *direct = opaque;
	struct job job = {
		.direct = direct,
		.region = region,
	};
	uint64_t shards;

	if (!is_for_devices(region))
		return 0;
	job.shard_bytes = shard_bytes(region, direct->threads);
	shards = (region->size_bytes + job.shard_bytes - 1) / job.shard_bytes;
	run_job(&job, (unsigned int)MIN((uint64_t)direct->threads, shards));
	if (!job.failed)
		return 0;
	for (uint64_t i = 0; i < shards; i++) {
		uint64_t at = i * job.shard_bytes;

		if (job.done & 1ull << i)
			unmap_part(direct, region, at,
				   MIN(job.shard_bytes, region->size_bytes - at));
	}
	ioas_explain(direct->strategy->ioas, job.failed, region->gpa + job.failed_at,
		     MIN(job.shard_bytes, region->size_bytes - job.failed_at), err);
	return err_prefix(err, "%s: memory '%s'", direct->strategy->config->name, region->name);
}

static void direct_unmap(void *opaque, const struct gmem_region *region)
{
	if (is_for_devices(region))
		unmap_part(opaque, region, 0, region->size_bytes);
}

static int direct_leave(void *opaque, const struct gmem_region *region, uint64_t offset,
			uint64_t bytes)
{
	const struct direct *direct = opaque;
	uint64_t unmapped;

	if (!is_for_devices(region))
		return 0;
	return ioas_unmap(direct->strategy->ioas, region->gpa + offset, bytes, &unmapped);
}

static int direct_restore(void *opaque, const struct gmem_region *region, uint64_t offset,
			  uint64_t bytes)
{
	return is_for_devices(region) ? map_area(opaque, region, offset, bytes) : 0;
}

static const struct gmem_listener_ops listener_ops = {
	.name = "direct",
	.map = direct_map,
	.unmap = direct_unmap,
	.leave = direct_leave,
	.restore = direct_restore,
	.areas = true,
};

static unsigned int choose_threads(const struct strategy *strategy)
{
	enum iommu_kind kind = iommu_kind_of(ioas_iommu(strategy->ioas));
	int cpus = get_nprocs();

	/* A container serves one call at a time, and a table of our own needs no help. */
	if (kind != IOMMU_IOMMUFD && !strategy->config->map_threads)
		return 1;
	if (strategy->config->map_threads)
		return MIN(strategy->config->map_threads, (unsigned int)MAX_THREADS);
	return (unsigned int)MAX(1, MIN(cpus, (int)MAX_THREADS));
}

struct ranges {
	struct ioas_range *list; /* NULL: only count */
	unsigned int n;
};

static int add_range(void *opaque, const struct gmem_region *region)
{
	struct ranges *ranges = opaque;

	if (is_for_devices(region) && ranges->list)
		ranges->list[ranges->n] =
			(struct ioas_range){region->gpa, region->gpa + (region->size_bytes - 1)};
	ranges->n += is_for_devices(region);
	return 0;
}

/* Allow all ranges first, so that a conflict is reported before the slow pinning starts. */
static int allow_memory(const struct strategy *strategy, struct err *err)
{
	struct ranges ranges = {NULL, 0};
	int ret;

	gmem_walk(strategy->config->gmem, add_range, &ranges);
	ranges.list = calloc(ranges.n + 1, sizeof(*ranges.list));
	if (!ranges.list)
		return err_set(err, -ENOMEM, "%s: out of memory", strategy->config->name);
	ranges.n = 0;
	gmem_walk(strategy->config->gmem, add_range, &ranges);
	ret = ioas_allow(strategy->ioas, ranges.list, ranges.n, err);
	free(ranges.list);
	return ret ? err_prefix(err, "%s: guest memory", strategy->config->name) : 0;
}

int direct_create(struct strategy *strategy, struct err *err)
{
	struct direct *direct;
	int ret;

	if (!mem_new(direct))
		return err_set(err, -ENOMEM, "%s: out of memory", strategy->config->name);
	strategy->state = direct;
	direct->strategy = strategy;
	direct->threads = choose_threads(strategy);
	direct->listener.ops = &listener_ops;
	direct->listener.opaque = direct;
	ret = allow_memory(strategy, err);
	if (!ret)
		ret = gmem_listen(strategy->config->gmem, &direct->listener, err);
	direct->listening = ret == 0;
	return ret;
}

void direct_destroy(struct strategy *strategy)
{
	struct direct *direct = strategy->state;

	if (!direct)
		return;
	if (direct->listening)
		gmem_unlisten(strategy->config->gmem, &direct->listener);
	(void)ioas_allow(strategy->ioas, NULL, 0, NULL);
	free(direct);
}

/* --- under a virtual IOMMU --- */

/* Memory that the guest maps at its own address is mapped already, and stays mapped (the ledger
 * counts it as over-exposure). At another address it is mapped and unmapped; the guest is refused
 * where guest memory occupies that address. */
static void direct_map_requests(struct strategy *strategy, struct hw_request *requests,
				unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		const struct mapping *record = requests[i].record;

		if (record->iova != record->gpa)
			requests[i].result =
				guest_memory_map(strategy->ioas, strategy->config->gmem, record);
	}
}

/* Unmap the records that are not at their own address. */
static int unmap_elsewhere(const struct strategy *strategy, uint64_t iova, uint64_t last)
{
	const struct mapping *m = mappings_find(strategy->guest, iova, last);
	uint64_t unmapped;
	int ret = 0;

	for (; m && !ret; m = mappings_next(m, last)) {
		if (m->state == MAPPING_GOING && m->iova != m->gpa)
			ret = ioas_unmap(strategy->ioas, m->iova, m->last - m->iova + 1, &unmapped);
	}
	return ret;
}

static void direct_unmap_requests(struct strategy *strategy, struct hw_request *requests,
				  unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		requests[i].result = unmap_elsewhere(strategy, requests[i].iova, requests[i].last);
		if (requests[i].result)
			strategy_put_back(strategy, &requests[i]);
	}
}

const struct strategy_ops strategy_direct = {
	.name = "direct",
	.summary = "all guest memory, mapped while the device is there",
	.is_default = true,
	.keeps_mappings = true,
	.create = direct_create,
	.destroy = direct_destroy,
	.map = direct_map_requests,
	.unmap = direct_unmap_requests,
};
