// SPDX-License-Identifier: Apache-2.0
// Domains: an address space, the strategy in front of it, the devices behind it; and the table of
// strategies.
#include "iommu/strategy.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "iommu/ioas_impl.h"
#include "iommu/ledger.h"
#include "iommu/requests.h"
#include "iommu/strategy/strategy_impl.h"

const struct strategy_ops *const strategies[] = {
	&strategy_direct,
	&strategy_strict,
	NULL,
};

struct hw_domain {
	char *name;
	struct iommu *iommu;
	struct gmem *gmem;
	const struct log *log;
	unsigned int map_threads;
	const struct strategy_ops *ops;
	struct gmem_listener listener;
	bool listening;
	/* The requests of the guest, one drain at a time, and what replaces the two below. */
	pthread_mutex_t lock;
	struct mappings requests;
	struct ioas *ioas;
	struct strategy *strategy; /* NULL: no device is attached */
	unsigned int endpoint_count;
};

int strategy_find(const char *name, const struct strategy_ops **ret, struct err *err)
{
	char names[200] = "";
	size_t n = 0;

	for (unsigned int i = 0; strategies[i]; i++) {
		if (!strcmp(strategies[i]->name, name)) {
			*ret = strategies[i];
			return 0;
		}
		n += (size_t)snprintf(names + n, sizeof(names) - n, "%s%s", i ? ", " : "",
				      strategies[i]->name);
		n = MIN(n, sizeof(names) - 1);
	}
	return err_set(err, -EINVAL, "there is no strategy '%s'; there is: %s", name, names);
}

/* --- memory that leaves the guest --- */

static int on_memory(void *opaque, const struct gmem_region *region, struct err *err)
{
	(void)opaque;
	(void)region;
	(void)err;
	return 0; /* a guest asks for it first */
}

static void on_memory_gone(void *opaque, const struct gmem_region *region)
{
	struct hw_domain *domain = opaque;
	struct iommu_request r;

	pthread_mutex_lock(&domain->lock);
	while (requests_find_memory(&domain->requests, region->gpa, region->size_bytes, &r)) {
		if (domain->strategy && domain->strategy->ops->unmap)
			domain->strategy->ops->unmap(domain->strategy, &r, 1);
		/* Memory that a device may still reach must not be used for anything else, ever. */
		if (r.result)
			log_error(domain->log, "iommu", "%s: cannot unmap '%s': %s", domain->name,
				  region->name, err_name(r.result));
		ledger_request(ioas_ledger(domain->ioas), requests_remove(&domain->requests, &r),
			       false);
	}
	pthread_mutex_unlock(&domain->lock);
}

static const struct gmem_listener_ops listener_ops = {
	.name = "domain",
	.map = on_memory,
	.unmap = on_memory_gone,
};

/* --- life --- */

int hw_domain_create(struct hw_domain **ret, const struct hw_domain_config *config, struct err *err)
{
	const struct strategy_ops *ops;
	struct hw_domain *domain;
	int code = strategy_find(config->strategy, &ops, err);

	if (code)
		return code;
	if (!mem_new(domain) || !(domain->name = strdup(config->name))) {
		free(domain);
		return err_set(err, -ENOMEM, "%s: out of memory", config->name);
	}
	domain->iommu = config->iommu;
	domain->gmem = config->gmem;
	domain->log = config->log;
	domain->map_threads = config->map_threads;
	domain->ops = ops;
	pthread_mutex_init(&domain->lock, NULL);
	mappings_init(&domain->requests);
	domain->listener.ops = &listener_ops;
	domain->listener.opaque = domain;
	code = ioas_create(&domain->ioas, config->iommu, config->name, err);
	if (!code) {
		code = gmem_listen(domain->gmem, &domain->listener, err);
		domain->listening = code == 0;
	}
	if (code) {
		hw_domain_destroy(domain);
		return code;
	}
	*ret = domain;
	return 0;
}

void hw_domain_destroy(struct hw_domain *domain)
{
	if (!domain)
		return;
	assert(!domain->endpoint_count && !domain->strategy);
	if (domain->listening)
		gmem_unlisten(domain->gmem, &domain->listener);
	ioas_destroy(domain->ioas);
	mappings_done(&domain->requests);
	pthread_mutex_destroy(&domain->lock);
	free(domain->name);
	free(domain);
}

static void strategy_stop(struct strategy *strategy)
{
	if (!strategy)
		return;
	if (strategy->ops->destroy)
		strategy->ops->destroy(strategy);
	free(strategy);
}

static int strategy_start(struct strategy **ret, const struct hw_domain *domain,
			  const struct strategy_ops *ops, struct ioas *ioas, struct err *err)
{
	struct strategy *strategy;
	int code;

	if (!mem_new(strategy))
		return err_set(err, -ENOMEM, "%s: out of memory", domain->name);
	strategy->ops = ops;
	strategy->ioas = ioas;
	strategy->gmem = domain->gmem;
	strategy->log = domain->log;
	strategy->name = domain->name;
	strategy->map_threads = domain->map_threads;
	strategy->requests = &domain->requests;
	code = ops->create(strategy, err);
	if (code) {
		strategy_stop(strategy);
		return code;
	}
	*ret = strategy;
	return 0;
}

/* --- devices --- */

/* The first device is in. */
static int start(struct hw_domain *domain, struct err *err)
{
	struct strategy *strategy = NULL;
	int code = strategy_start(&strategy, domain, domain->ops, domain->ioas, err);

	if (code)
		return code;
	pthread_mutex_lock(&domain->lock);
	domain->strategy = strategy;
	pthread_mutex_unlock(&domain->lock);
	return 0;
}

/* A device is out: with the last one everything is unmapped, and forgotten. */
static void leave(struct hw_domain *domain)
{
	struct strategy *strategy;

	if (--domain->endpoint_count)
		return;
	pthread_mutex_lock(&domain->lock);
	strategy = domain->strategy;
	domain->strategy = NULL;
	if (domain->requests.bytes)
		ledger_request(ioas_ledger(domain->ioas), domain->requests.bytes, false);
	mappings_clear(&domain->requests);
	pthread_mutex_unlock(&domain->lock);
	strategy_stop(strategy);
	ioas_unmap_all(domain->ioas);
}

int hw_domain_attach(struct hw_domain *domain, struct iommu_endpoint *endpoint, struct err *err)
{
	int code;

	assert(iommu_endpoint_ioas(endpoint) != domain->ioas);
	code = ioas_attach(domain->ioas, endpoint, err);
	if (code)
		return code;
	if (!domain->strategy) {
		code = start(domain, err);
		if (code) {
			ioas_detach(endpoint);
			return code;
		}
	}
	domain->endpoint_count++;
	return 0;
}

void hw_domain_detach(struct hw_domain *domain, struct iommu_endpoint *endpoint)
{
	if (iommu_endpoint_ioas(endpoint) != domain->ioas)
		return;
	/* First the device, so that it never sees a half-empty space. */
	ioas_detach(endpoint);
	leave(domain);
}

int hw_domain_move(struct hw_domain *from, struct hw_domain *to, struct iommu_endpoint *endpoint,
		   struct err *err)
{
	struct err ignored = ERR_INIT;
	int code;

	assert(iommu_endpoint_ioas(endpoint) == from->ioas && from != to);
	code = ioas_attach(to->ioas, endpoint, err);
	if (!code && !to->strategy) {
		code = start(to, err);
		if (code && ioas_attach(from->ioas, endpoint, &ignored)) {
			ioas_detach(endpoint);
			leave(from);
		}
	}
	if (code)
		return code;
	to->endpoint_count++;
	leave(from);
	return 0;
}

/* --- requests --- */

int strategy_map_one(const struct strategy *strategy, const struct iommu_request *request)
{
	uint64_t done = 0, bytes, unmapped;
	struct ioas_memory memory;
	int ret = 0;

	while (!ret && done < request->bytes) {
		if (!request_extent(strategy->gmem, request, done, &memory, &bytes)) {
			ret = -EFAULT;
			break;
		}
		ret = ioas_map(strategy->ioas, request->iova + done, bytes, &memory,
			       request->access);
		done += ret ? 0 : bytes;
	}
	if (ret && done)
		ioas_unmap(strategy->ioas, request->iova, done, &unmapped);
	return ret;
}

static unsigned int refuse(struct iommu_request *requests, unsigned int n, int code)
{
	for (unsigned int i = 0; i < n; i++)
		requests[i].result = code;
	return n;
}

static uint64_t smallest_page(const struct ioas *ioas)
{
	uint64_t sizes = ioas_page_sizes(ioas);

	return sizes & -sizes;
}

static unsigned int map_locked(struct hw_domain *domain, struct iommu_request *requests,
			       unsigned int n)
{
	uint64_t before = domain->requests.bytes;
	unsigned int failed = 0;

	requests_add(&domain->requests, domain->gmem, smallest_page(domain->ioas), requests, n);
	domain->strategy->ops->map(domain->strategy, requests, n);
	requests_take_back(&domain->requests, requests, n);
	ledger_request(ioas_ledger(domain->ioas), domain->requests.bytes - before, true);
	for (unsigned int i = 0; i < n; i++)
		failed += requests[i].result != 0;
	return failed;
}

static unsigned int unmap_locked(struct hw_domain *domain, struct iommu_request *requests,
				 unsigned int n)
{
	unsigned int failed = 0;
	uint64_t bytes;

	requests_check_unmap(&domain->requests, smallest_page(domain->ioas), requests, n);
	domain->strategy->ops->unmap(domain->strategy, requests, n);
	bytes = requests_finish_unmap(&domain->requests, requests, n);
	ledger_request(ioas_ledger(domain->ioas), bytes, false);
	for (unsigned int i = 0; i < n; i++)
		failed += requests[i].result != 0;
	return failed;
}

unsigned int hw_domain_map(struct hw_domain *domain, struct iommu_request *requests, unsigned int n)
{
	unsigned int failed;

	pthread_mutex_lock(&domain->lock);
	failed = domain->strategy ? map_locked(domain, requests, n) : refuse(requests, n, -ENODEV);
	pthread_mutex_unlock(&domain->lock);
	return failed;
}

unsigned int hw_domain_unmap(struct hw_domain *domain, struct iommu_request *requests,
			     unsigned int n)
{
	unsigned int failed;

	pthread_mutex_lock(&domain->lock);
	failed =
		domain->strategy ? unmap_locked(domain, requests, n) : refuse(requests, n, -ENODEV);
	pthread_mutex_unlock(&domain->lock);
	return failed;
}

/* --- replacing a strategy --- */

/* Each device of `from` to `to`; those that moved go back when one cannot. */
static int move_endpoints(struct ioas *from, struct ioas *to, struct err *err)
{
	struct iommu_endpoint *endpoint;
	struct err ignored = ERR_INIT;
	unsigned int moved = 0;
	int code;

	while ((endpoint = ioas_first_endpoint(from))) {
		code = ioas_attach(to, endpoint, err);
		if (code) {
			while (moved-- && (endpoint = ioas_first_endpoint(to))) {
				if (ioas_attach(from, endpoint, &ignored))
					ioas_detach(endpoint);
			}
			return code;
		}
		moved++;
	}
	return 0;
}

/* What the guest has asked for so far, into the strategy that is to take over. */
static int replay(const struct hw_domain *domain, struct strategy *next, struct err *err)
{
	struct iommu_request batch[64];
	uint64_t iova = 0;
	unsigned int n;

	while ((n = requests_list(&domain->requests, &iova, batch, ARRAY_SIZE(batch)))) {
		next->ops->map(next, batch, n);
		for (unsigned int i = 0; i < n; i++) {
			if (!batch[i].result)
				continue;
			ioas_explain(next->ioas, batch[i].result, batch[i].iova, batch[i].bytes,
				     err);
			return err_prefix(err,
					  "%s: %s cannot take over what the guest has mapped at "
					  "iova 0x%llx",
					  domain->name, next->ops->name,
					  (unsigned long long)batch[i].iova);
		}
	}
	if (domain->requests.bytes)
		ledger_request(ioas_ledger(next->ioas), domain->requests.bytes, true);
	return 0;
}

/* Can the new strategy work in the space that is there, so that no table is replaced? What the guest has
 * at its own address is a mapping with one strategy and a part of one with another. */
static bool can_stay(const struct hw_domain *domain, const struct strategy_ops *ops)
{
	struct iommu_request r;
	uint64_t iova = 0;

	if (iommu_kind_of(domain->iommu) != IOMMU_IOMMUFD || !ops->keeps_requests ||
	    !domain->ops->keeps_requests)
		return false;
	while (requests_list(&domain->requests, &iova, &r, 1)) {
		if (r.iova == r.gpa)
			return false;
	}
	return true;
}

/* -EAGAIN: cannot stay. */
static int switch_in_place(struct hw_domain *domain, const struct strategy_ops *ops,
			   struct err *err)
{
	struct strategy *next = NULL;
	int code = -EAGAIN;

	pthread_mutex_lock(&domain->lock);
	if (can_stay(domain, ops)) {
		code = strategy_start(&next, domain, ops, domain->ioas, err);
		if (!code) {
			strategy_stop(domain->strategy);
			domain->strategy = next;
			domain->ops = ops;
		}
	}
	pthread_mutex_unlock(&domain->lock);
	return code;
}

int hw_domain_switch(struct hw_domain *domain, const char *strategy, struct err *err)
{
	const struct strategy_ops *ops;
	struct strategy *next = NULL, *before = domain->strategy;
	struct ioas *ioas = NULL, *old = domain->ioas;
	int code = strategy_find(strategy, &ops, err);

	if (code)
		return err_prefix(err, "%s", domain->name);
	if (ops == domain->ops)
		return 0;
	if (!before) { /* nothing is mapped yet */
		domain->ops = ops;
		return 0;
	}
	if (iommu_kind_of(domain->iommu) == IOMMU_TYPE1)
		return err_set(err, -EOPNOTSUPP,
			       "%s: type1 cannot replace the table of a running device, so its "
			       "strategy stays '%s'; use iommu=iommufd",
			       domain->name, domain->ops->name);
	code = switch_in_place(domain, ops, err);
	if (code != -EAGAIN)
		return code;
	code = ioas_create(&ioas, domain->iommu, domain->name, err);
	if (code)
		return code;
	code = strategy_start(&next, domain, ops, ioas, err);
	if (!code) {
		/* Requests wait while the devices change over, so that none is lost between two. */
		pthread_mutex_lock(&domain->lock);
		code = replay(domain, next, err);
		if (!code)
			code = move_endpoints(old, ioas, err);
		if (!code) {
			domain->strategy = next;
			domain->ioas = ioas;
			domain->ops = ops;
		}
		pthread_mutex_unlock(&domain->lock);
	}
	if (code) {
		strategy_stop(next);
		ioas_destroy(ioas);
		return code;
	}
	strategy_stop(before);
	ioas_destroy(old);
	return 0;
}

const char *hw_domain_name(const struct hw_domain *domain)
{
	return domain->name;
}

const char *hw_domain_strategy(const struct hw_domain *domain)
{
	return domain->ops->name;
}

struct ioas *hw_domain_ioas(const struct hw_domain *domain)
{
	return domain->ioas;
}
