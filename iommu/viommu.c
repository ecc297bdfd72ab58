// SPDX-License-Identifier: Apache-2.0
// The virtual IOMMU: endpoints, and the dispatch of requests.
#include "iommu/viommu.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "iommu/viommu_impl.h"

/* Writes to this window are MSIs on x86, never memory accesses. */
#define MSI_FIRST 0xfee00000ull
#define MSI_LAST  0xfeefffffull

static const struct viommu_limits default_limits = {
	.page_sizes = 4 * KiB | 2 * MiB | 1 * GiB,
	.last = (1ull << 48) - 1,
	.domain_last = UINT32_MAX - 1,
	.mappings = 1 << 20,
};

/* --- life --- */

static void init_locks(struct viommu *viommu)
{
	pthread_rwlockattr_t attr;

	pthread_mutex_init(&viommu->serial, NULL);
	pthread_mutex_init(&viommu->fault_lock, NULL);
	/* Loops that translate without pause must not starve a request. */
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&viommu->lock, &attr);
	pthread_rwlockattr_destroy(&attr);
}

static void destroy_locks(struct viommu *viommu)
{
	pthread_rwlock_destroy(&viommu->lock);
	pthread_mutex_destroy(&viommu->fault_lock);
	pthread_mutex_destroy(&viommu->serial);
}

/* --- guest memory --- */

void viommu_memory_leaves(struct viommu *viommu, uint64_t gpa, uint64_t bytes)
{
	pthread_mutex_lock(&viommu->serial);
	list_for_each (item, &viommu->domains)
		viommu_forget_memory(container_of(item, struct viommu_domain, link), gpa, bytes);
	list_for_each (item, &viommu->orphans)
		viommu_forget_memory(container_of(item, struct viommu_domain, link), gpa, bytes);
	pthread_mutex_unlock(&viommu->serial);
}

static int on_memory(void *opaque, const struct gmem_region *region, struct err *err)
{
	(void)opaque;
	(void)region;
	(void)err;
	return 0; /* the guest has to map it first */
}

static void on_memory_gone(void *opaque, const struct gmem_region *region)
{
	viommu_memory_leaves(opaque, region->gpa, region->size_bytes);
}

static int on_pages_leave(void *opaque, const struct gmem_region *region, uint64_t offset,
			  uint64_t len)
{
	viommu_memory_leaves(opaque, region->gpa + offset, len);
	return 0;
}

static const struct gmem_listener_ops listener_ops = {
	.name = "virtual IOMMU",
	.map = on_memory,
	.unmap = on_memory_gone,
	.leave = on_pages_leave, /* and the guest maps them again, if it wants */
};

int viommu_create(struct viommu **ret, const struct viommu_config *config, struct err *err)
{
	struct viommu *viommu;
	int rc;

	if (!mem_new(viommu))
		return err_set(err, -ENOMEM, "virtual IOMMU: out of memory");
	viommu->log = config->log;
	viommu->gmem = config->gmem;
	viommu->limits = config->limits.page_sizes ? config->limits : default_limits;
	/* The address after a mapping must not wrap. */
	viommu->limits.last = MIN(viommu->limits.last, UINT64_MAX / 2);
	viommu->bypass = config->bypass;
	viommu->loop = config->loop;
	viommu->fault = config->fault;
	viommu->opaque = config->opaque;
	viommu->decided = config->decided;
	viommu->decided_opaque = config->decided_opaque;
	list_init(&viommu->endpoints);
	list_init(&viommu->domains);
	list_init(&viommu->orphans);
	init_locks(viommu);
	viommu_timer_init(viommu);
	viommu->listener.ops = &listener_ops;
	viommu->listener.opaque = viommu;
	rc = gmem_listen(viommu->gmem, &viommu->listener, err);
	if (rc) {
		destroy_locks(viommu);
		free(viommu);
		return rc;
	}
	*ret = viommu;
	return 0;
}

void viommu_destroy(struct viommu *viommu)
{
	if (!viommu)
		return;
	assert(list_empty(&viommu->endpoints) && list_empty(&viommu->domains));
	gmem_unlisten(viommu->gmem, &viommu->listener);
	viommu_timer_finish(viommu);
	destroy_locks(viommu);
	free(viommu);
}

/* --- endpoints --- */

static int endpoint_new(struct viommu_endpoint **ret, struct viommu *viommu, const char *name,
			struct err *err)
{
	struct viommu_endpoint *endpoint;

	if (!mem_new(endpoint))
		return err_set(err, -ENOMEM, "%s: out of memory", name);
	endpoint->viommu = viommu;
	snprintf(endpoint->name, sizeof(endpoint->name), "%s", name);
	endpoint->reserved[0] =
		(struct iommu_reserved){.first = MSI_FIRST, .last = MSI_LAST, .type = "msi"};
	endpoint->n_reserved = 1;
	list_init(&endpoint->member);
	*ret = endpoint;
	return 0;
}

static void list_endpoint(struct viommu *viommu, struct viommu_endpoint *endpoint)
{
	pthread_mutex_lock(&viommu->serial);
	list_append(&viommu->endpoints, &endpoint->link);
	viommu_count_endpoint(viommu, 1);
	pthread_mutex_unlock(&viommu->serial);
}

int viommu_add_emulated(struct viommu_endpoint **ret, struct viommu *viommu, const char *name,
			struct dma_space **space, struct err *err)
{
	struct viommu_endpoint *endpoint;
	int rc = endpoint_new(&endpoint, viommu, name, err);

	if (rc)
		return rc;
	rc = dma_space_create(&endpoint->space, viommu->gmem, &viommu_emulated_ops, endpoint, err);
	if (rc) {
		free(endpoint);
		return rc;
	}
	list_endpoint(viommu, endpoint);
	*space = endpoint->space;
	*ret = endpoint;
	return 0;
}

/* Narrow the limits to the page sizes and addresses of this hardware. */
static int narrow(struct viommu *viommu, const char *name, const struct ioas *ioas, struct err *err)
{
	enum { RANGES = 64 };
	struct ioas_range ranges[RANGES];
	uint64_t sizes = viommu->limits.page_sizes & ioas_page_sizes(ioas);
	unsigned int n = ioas_usable(ioas, ranges, RANGES);

	if (!sizes)
		return err_set(err, -EOPNOTSUPP,
			       "%s: its IOMMU has none of the page sizes of the others behind the "
			       "virtual IOMMU",
			       name);
	pthread_rwlock_wrlock(&viommu->lock);
	viommu->limits.page_sizes = sizes;
	if (n && n <= RANGES)
		viommu->limits.last = MIN(viommu->limits.last, ranges[n - 1].last);
	pthread_rwlock_unlock(&viommu->lock);
	return 0;
}

static void reserve(struct viommu_endpoint *endpoint, const struct iommu_reserved *ranges,
		    unsigned int n)
{
	for (unsigned int i = 0; i < n && endpoint->n_reserved < VIOMMU_RESERVED_MAX; i++) {
		/* The MSI window of the architecture is in the list already. */
		if (iommu_reserved_blocks(&ranges[i]) &&
		    (ranges[i].last < MSI_FIRST || ranges[i].first > MSI_LAST))
			endpoint->reserved[endpoint->n_reserved++] = ranges[i];
	}
}

/* The caller may have attached it, to learn what its IOMMU can. It stays so only in bypass. */
static int take_hardware(struct viommu *viommu, struct viommu_endpoint *endpoint, struct err *err)
{
	struct hw_domain *all = endpoint->all;
	bool attached = iommu_endpoint_ioas(endpoint->device) == hw_domain_ioas(all);
	int rc = narrow(viommu, endpoint->name, hw_domain_ioas(all), err);

	if (!rc && viommu->bypass && !attached)
		rc = hw_domain_attach(all, endpoint->device, err);
	if (!rc && !viommu->bypass && attached)
		hw_domain_detach(all, endpoint->device);
	endpoint->at = all;
	return rc;
}

int viommu_add_hardware(struct viommu_endpoint **ret, struct viommu *viommu,
			const struct viommu_hardware *hardware, struct err *err)
{
	struct iommu *iommu = ioas_iommu(hw_domain_ioas(hardware->all));
	struct viommu_endpoint *endpoint;
	struct strategy_choice ignored;
	int rc;

	if (iommu_kind_of(iommu) == IOMMU_TYPE1)
		return err_set(err, -EOPNOTSUPP,
			       "%s: type1 cannot move a device between the guest's domains; use "
			       "iommu=iommufd, or viommu=off for this device",
			       hardware->name);
	rc = strategy_choose(&ignored, hardware->strategy, viommu->gmem, err);
	if (rc)
		return err_prefix(err, "%s", hardware->name);
	rc = endpoint_new(&endpoint, viommu, hardware->name, err);
	if (rc)
		return rc;
	endpoint->device = hardware->device;
	endpoint->all = hardware->all;
	endpoint->strategy = strdup(hardware->strategy);
	reserve(endpoint, hardware->reserved, hardware->n_reserved);
	if (!endpoint->strategy)
		rc = err_set(err, -ENOMEM, "%s: out of memory", hardware->name);
	viommu_hold(viommu);
	if (!rc)
		rc = take_hardware(viommu, endpoint, err);
	if (!rc) {
		list_append(&viommu->endpoints, &endpoint->link);
		viommu_count_endpoint(viommu, 1);
	}
	viommu_release(viommu);
	if (rc) {
		free(endpoint->strategy);
		free(endpoint);
		return rc;
	}
	*ret = endpoint;
	return 0;
}

void viommu_set_id(struct viommu_endpoint *endpoint, viommu_id_fn *id, void *opaque)
{
	pthread_mutex_lock(&endpoint->viommu->serial);
	endpoint->id = id;
	endpoint->id_opaque = opaque;
	pthread_mutex_unlock(&endpoint->viommu->serial);
}

const char *viommu_endpoint_name(const struct viommu_endpoint *endpoint)
{
	return endpoint->name;
}

static struct viommu_endpoint *find_endpoint(struct viommu *viommu, uint32_t id)
{
	list_for_each (item, &viommu->endpoints) {
		struct viommu_endpoint *e = container_of(item, struct viommu_endpoint, link);

		if (e->id && viommu_id_of(e) == id)
			return e;
	}
	return NULL;
}

/* --- requests --- */

static void count(struct viommu *viommu, const struct viommu_request *requests, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		viommu->totals.requests[requests[i].op]++;
		viommu->totals.failed[requests[i].op] += requests[i].status != VIOMMU_OK;
	}
}

/* How many of the first requests have one kind and one domain, and so can be one call. */
static unsigned int run_length(const struct viommu_request *requests, unsigned int n)
{
	unsigned int i = 1;

	if (requests->op != VIOMMU_MAP && requests->op != VIOMMU_UNMAP)
		return 1;
	while (i < n && requests[i].op == requests->op && requests[i].domain == requests->domain)
		i++;
	return i;
}

static bool moves_endpoints(const struct viommu_request *requests, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		if (requests[i].op == VIOMMU_ATTACH || requests[i].op == VIOMMU_DETACH)
			return true;
	}
	return false;
}

static void run(struct viommu *viommu, struct viommu_request *requests, unsigned int n)
{
	for (unsigned int i = 0; i < n;) {
		struct viommu_request *r = &requests[i];
		unsigned int length = run_length(r, n - i);

		switch (r->op) {
		case VIOMMU_ATTACH:
			r->status = viommu_attach(viommu, find_endpoint(viommu, r->endpoint), r);
			break;
		case VIOMMU_DETACH:
			r->status = viommu_detach(find_endpoint(viommu, r->endpoint), r);
			break;
		case VIOMMU_MAP:
			viommu_map_run(viommu, viommu_find_domain(viommu, r->domain), r, length);
			break;
		case VIOMMU_UNMAP:
			viommu_unmap_run(viommu, viommu_find_domain(viommu, r->domain), r, length);
			break;
		}
		count(viommu, r, length);
		i += length;
	}
}

void viommu_run(struct viommu *viommu, struct viommu_request *requests, unsigned int n)
{
	bool hold = moves_endpoints(requests, n);

	if (!hold) {
		pthread_mutex_lock(&viommu->serial);
		if (!viommu->abandoned)
			run(viommu, requests, n);
		else
			hold = true;
		pthread_mutex_unlock(&viommu->serial);
	}
	if (!hold)
		return;
	viommu_hold(viommu);
	viommu_settle_locked(viommu, NULL);
	run(viommu, requests, n);
	viommu_release(viommu);
}

int viommu_probe(struct viommu *viommu, uint32_t endpoint, struct iommu_reserved *ranges,
		 unsigned int max)
{
	const struct viommu_endpoint *e;
	int ret = -ENOENT;

	pthread_mutex_lock(&viommu->serial);
	e = find_endpoint(viommu, endpoint);
	if (e) {
		if (max)
			memcpy(ranges, e->reserved, MIN(e->n_reserved, max) * sizeof(*ranges));
		ret = (int)e->n_reserved;
	}
	pthread_mutex_unlock(&viommu->serial);
	return ret;
}

/* --- status --- */

void viommu_limits(struct viommu *viommu, struct viommu_limits *ret)
{
	pthread_rwlock_rdlock(&viommu->lock);
	viommu_limits_locked(viommu, ret);
	pthread_rwlock_unlock(&viommu->lock);
}

void viommu_totals(struct viommu *viommu, struct viommu_totals *ret)
{
	pthread_mutex_lock(&viommu->serial);
	*ret = viommu->totals;
	ret->mappings = viommu->mappings;
	ret->tables = viommu->tables;
	ret->mapped_bytes = viommu->mapped_bytes;
	ret->faults = atomic_load(&viommu->faults);
	list_for_each (item, &viommu->domains)
		ret->domains++;
	ret->endpoints = viommu->n_endpoints;
	pthread_mutex_unlock(&viommu->serial);
}

void viommu_walk(struct viommu *viommu, viommu_walk_fn *fn, void *opaque)
{
	pthread_mutex_lock(&viommu->serial);
	list_for_each (item, &viommu->endpoints) {
		const struct viommu_endpoint *e = container_of(item, struct viommu_endpoint, link);
		const struct viommu_domain *d = e->domain;
		struct viommu_view view = {.endpoint = e, .bypass = viommu->bypass};
		struct hw_domain_retained retained;

		if (d) {
			view.attached = true;
			view.domain = d->id;
			view.bypass = d->bypass;
			retained = hw_domain_retained(d->hw);
			view.mappings = d->table.count - retained.mappings;
			view.mapped_bytes = d->table.bytes - retained.bytes;
			view.hw = d->hw;
		}
		fn(opaque, &view);
	}
	pthread_mutex_unlock(&viommu->serial);
}
