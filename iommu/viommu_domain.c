// SPDX-License-Identifier: Apache-2.0
// A virtual IOMMU's domains: which endpoint is in which, what its hardware reaches by that, and what
// bypass, resets and other strategies make of it.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "iommu/viommu_impl.h"

/* --- domains --- */

struct viommu_domain *viommu_find_domain(struct viommu *viommu, uint32_t id)
{
	list_for_each (item, &viommu->domains) {
		struct viommu_domain *d = container_of(item, struct viommu_domain, link);

		if (d->id == id)
			return d;
	}
	return NULL;
}

static struct viommu_domain *domain_new(struct viommu *viommu, uint32_t id, bool bypass)
{
	struct err ignored = ERR_INIT;
	struct viommu_domain *domain;

	if (!mem_new(domain))
		return NULL;
	if (ledger_create(&domain->ledger, &ignored)) {
		free(domain);
		return NULL;
	}
	domain->id = id;
	domain->bypass = bypass;
	list_init(&domain->members);
	mappings_init(&domain->table);
	list_append(&viommu->domains, &domain->link);
	return domain;
}

/* Nobody is in it: it ceases to exist. */
static void domain_leave(struct viommu *viommu, struct viommu_domain *domain)
{
	if (!domain || !list_empty(&domain->members))
		return;
	list_remove(&domain->link);
	viommu_clear(viommu, domain);
	mappings_done(&domain->table);
	hw_domain_destroy(domain->hw);
	ledger_destroy(domain->ledger);
	free(domain);
}

void viommu_drain(struct viommu_domain *domain)
{
	list_for_each (item, &domain->members) {
		struct viommu_endpoint *e = container_of(item, struct viommu_endpoint, member);

		if (e->space)
			dma_space_drain(e->space);
	}
}

/* --- who is in which --- */

static int hardware_domain(struct viommu *viommu, struct viommu_domain *domain,
			   const struct viommu_endpoint *endpoint, struct err *err)
{
	char name[48];
	struct hw_domain_config config = {
		.name = name,
		.strategy = viommu->strategy,
		.iommu = ioas_iommu(hw_domain_ioas(endpoint->all)),
		.gmem = viommu->gmem,
		.log = viommu->log,
	};

	if (domain->hw)
		return 0;
	snprintf(name, sizeof(name), "guest domain %u", domain->id);
	return hw_domain_create(&domain->hw, &config, err);
}

/* The device's table becomes `to` (NULL: nothing is reached any more); when it cannot, the one that
 * it had stays. */
static int hardware_move(struct viommu_endpoint *endpoint, struct hw_domain *to, struct err *err)
{
	int rc = 0;

	if (endpoint->at == to)
		return 0;
	if (!to)
		hw_domain_detach(endpoint->at, endpoint->device);
	else if (endpoint->at)
		rc = hw_domain_move(endpoint->at, to, endpoint->device, err);
	else
		rc = hw_domain_attach(to, endpoint->device, err);
	if (!rc)
		endpoint->at = to;
	else if (!iommu_endpoint_ioas(endpoint->device))
		endpoint->at = NULL;
	return rc;
}

/* Back to where it was, with what is mapped there; nowhere if that cannot be. */
static void hardware_return(struct viommu_endpoint *endpoint, struct hw_domain *before)
{
	struct viommu_domain *domain = endpoint->domain;
	struct err err = ERR_INIT;
	int rc = hardware_move(endpoint, before, &err);

	if (!rc && domain && before && before == domain->hw && domain->n_hw == 1)
		rc = viommu_replay(domain);
	if (!rc)
		return;
	log_error(endpoint->viommu->log, "viommu", "%s: reaches nothing from now on: %s",
		  endpoint->name, err.text[0] ? err.text : err_name(rc));
	(void)hardware_move(endpoint, NULL, &err);
}

static int hardware_enter(struct viommu_endpoint *endpoint, struct viommu_domain *domain,
			  struct err *err)
{
	struct viommu *viommu = endpoint->viommu;
	struct hw_domain *before = endpoint->at;
	int rc;

	if (domain->bypass)
		return hardware_move(endpoint, endpoint->all, err);
	rc = hardware_domain(viommu, domain, endpoint, err);
	if (!rc)
		rc = hardware_move(endpoint, domain->hw, err);
	if (rc || domain->n_hw++)
		return rc;
	/* The first one: what was mapped for emulated devices is not in the hardware yet. */
	rc = viommu_replay(domain);
	if (!rc)
		return 0;
	err_set(err, rc, "%s: what is mapped in domain %u cannot be mapped for it: %s",
		endpoint->name, domain->id, err_name(rc));
	domain->n_hw--;
	hardware_return(endpoint, before);
	return rc;
}

/* In bypass an emulated device pays nothing for the IOMMU: no lock, no lookup. What changes this drains
 * the space next. */
static void update_space(const struct viommu_endpoint *endpoint)
{
	const struct viommu_domain *domain = endpoint->domain;

	if (endpoint->space)
		dma_space_set_identity(endpoint->space,
				       domain ? domain->bypass : endpoint->viommu->bypass);
}

static void set_domain(struct viommu_endpoint *endpoint, struct viommu_domain *domain)
{
	struct viommu *viommu = endpoint->viommu;
	struct viommu_domain *before = endpoint->domain;

	pthread_rwlock_wrlock(&viommu->lock);
	endpoint->domain = domain;
	list_remove(&endpoint->member);
	if (domain)
		list_append(&domain->members, &endpoint->member);
	if (endpoint->space && before)
		before->n_emulated--;
	if (endpoint->space && domain)
		domain->n_emulated++;
	update_space(endpoint);
	pthread_rwlock_unlock(&viommu->lock);
	if (endpoint->space)
		dma_space_drain(endpoint->space);
	else if (before && !before->bypass)
		before->n_hw--;
	domain_leave(viommu, before);
}

/* Out of its domain, to what bypass says; what cannot be given all memory gets none. */
static void leave(struct viommu_endpoint *endpoint)
{
	struct viommu *viommu = endpoint->viommu;
	struct err err = ERR_INIT;

	if (endpoint->device &&
	    hardware_move(endpoint, viommu->bypass ? endpoint->all : NULL, &err)) {
		log_error(viommu->log, "viommu", "%s: no bypass: %s", endpoint->name, err.text);
		(void)hardware_move(endpoint, NULL, &err);
	}
	if (endpoint->domain)
		set_domain(endpoint, NULL);
}

/* Something is mapped where this device has a reserved range. */
static bool conflicts(const struct viommu_endpoint *endpoint, const struct viommu_domain *domain)
{
	for (unsigned int i = 0; i < endpoint->n_reserved; i++) {
		if (mappings_find(&domain->table, endpoint->reserved[i].first,
				  endpoint->reserved[i].last))
			return true;
	}
	return false;
}

enum viommu_status viommu_attach(struct viommu *viommu, const struct viommu_request *r)
{
	struct viommu_endpoint *endpoint = viommu_find_endpoint(viommu, r->endpoint);
	struct viommu_domain *domain = viommu_find_domain(viommu, r->domain);
	bool bypass = r->flags & VIOMMU_F_BYPASS;
	struct err err = ERR_INIT;

	if (r->flags & ~(uint32_t)VIOMMU_F_BYPASS)
		return VIOMMU_INVAL;
	if (!endpoint)
		return VIOMMU_NOENT;
	if (r->domain < viommu->limits.domain_first || r->domain > viommu->limits.domain_last ||
	    (domain && domain->bypass != bypass))
		return VIOMMU_INVAL;
	if (domain && domain == endpoint->domain)
		return VIOMMU_OK;
	if (domain && conflicts(endpoint, domain))
		return VIOMMU_UNSUPP;
	if (!domain && !(domain = domain_new(viommu, r->domain, bypass)))
		return VIOMMU_NOMEM;
	if (endpoint->device && hardware_enter(endpoint, domain, &err)) {
		log_guest(viommu->log, &viommu->limit, "viommu", "%s", err.text);
		domain_leave(viommu, domain);
		return VIOMMU_UNSUPP;
	}
	set_domain(endpoint, domain);
	return VIOMMU_OK;
}

enum viommu_status viommu_detach(struct viommu *viommu, const struct viommu_request *r)
{
	struct viommu_endpoint *endpoint = viommu_find_endpoint(viommu, r->endpoint);

	if (!endpoint)
		return VIOMMU_NOENT;
	if (!endpoint->domain || endpoint->domain->id != r->domain)
		return VIOMMU_INVAL;
	leave(endpoint);
	return VIOMMU_OK;
}

void viommu_remove(struct viommu_endpoint *endpoint)
{
	struct viommu *viommu;
	struct err ignored = ERR_INIT;

	if (!endpoint)
		return;
	viommu = endpoint->viommu;
	pthread_mutex_lock(&viommu->serial);
	if (endpoint->device)
		(void)hardware_move(endpoint, NULL, &ignored);
	if (endpoint->domain)
		set_domain(endpoint, NULL);
	list_remove(&endpoint->link);
	pthread_mutex_unlock(&viommu->serial);
	dma_space_destroy(endpoint->space);
	free(endpoint);
}

void viommu_settle_locked(struct viommu *viommu, const struct viommu_endpoint *which)
{
	if (!viommu->abandoned)
		return;
	list_for_each (item, &viommu->endpoints) {
		struct viommu_endpoint *e = container_of(item, struct viommu_endpoint, link);

		if (e->domain && e->domain->kept && (!which || e == which))
			leave(e);
	}
	viommu->abandoned = which;
}

/* --- bypass, resets, strategies --- */

bool viommu_bypass(struct viommu *viommu)
{
	bool bypass;

	pthread_rwlock_rdlock(&viommu->lock);
	bypass = viommu->bypass;
	pthread_rwlock_unlock(&viommu->lock);
	return bypass;
}

void viommu_settle(struct viommu *viommu)
{
	pthread_mutex_lock(&viommu->serial);
	viommu_settle_locked(viommu, NULL);
	pthread_mutex_unlock(&viommu->serial);
}

void viommu_device_starts(struct viommu_endpoint *endpoint)
{
	pthread_mutex_lock(&endpoint->viommu->serial);
	viommu_settle_locked(endpoint->viommu, endpoint);
	pthread_mutex_unlock(&endpoint->viommu->serial);
}

void viommu_set_bypass(struct viommu *viommu, bool bypass)
{
	pthread_mutex_lock(&viommu->serial);
	viommu_settle_locked(viommu, NULL);
	pthread_rwlock_wrlock(&viommu->lock);
	viommu->bypass = bypass;
	pthread_rwlock_unlock(&viommu->lock);
	list_for_each (item, &viommu->endpoints) {
		struct viommu_endpoint *e = container_of(item, struct viommu_endpoint, link);

		if (e->domain)
			continue;
		update_space(e);
		if (e->space)
			dma_space_drain(e->space);
		else
			leave(e);
	}
	pthread_mutex_unlock(&viommu->serial);
}

void viommu_reset(struct viommu *viommu)
{
	pthread_mutex_lock(&viommu->serial);
	list_for_each (item, &viommu->endpoints) {
		struct viommu_endpoint *e = container_of(item, struct viommu_endpoint, link);

		if (e->domain)
			leave(e);
	}
	pthread_mutex_unlock(&viommu->serial);
}

/* All domains before `end` (NULL: all there are); returns the one that could not. */
static struct list *switch_domains(struct viommu *viommu, struct list *end, const char *strategy,
				   int *rc, struct err *err)
{
	list_for_each (item, &viommu->domains) {
		struct viommu_domain *d = container_of(item, struct viommu_domain, link);

		if (item == end)
			break;
		*rc = d->hw ? hw_domain_switch(d->hw, strategy, err) : 0;
		if (*rc)
			return item;
	}
	return NULL;
}

int viommu_switch(struct viommu *viommu, const char *strategy, struct err *err)
{
	const struct strategy_ops *ops;
	struct err ignored = ERR_INIT;
	struct list *failed;
	char *copy;
	int rc = strategy_find(strategy, &ops, err), back = 0;

	if (rc)
		return rc;
	copy = strdup(strategy);
	if (!copy)
		return err_set(err, -ENOMEM, "virtual IOMMU: out of memory");
	pthread_mutex_lock(&viommu->serial);
	failed = switch_domains(viommu, NULL, strategy, &rc, err);
	if (failed && switch_domains(viommu, failed, viommu->strategy, &back, &ignored))
		log_error(viommu->log, "viommu", "a domain stays with '%s': %s", strategy,
			  ignored.text);
	if (!failed) {
		free(viommu->strategy);
		viommu->strategy = copy;
		copy = NULL;
	}
	pthread_mutex_unlock(&viommu->serial);
	free(copy);
	return rc;
}

void viommu_abandon(struct viommu *viommu)
{
	struct list *item;

	pthread_mutex_lock(&viommu->serial);
	list_for_each (at, &viommu->endpoints) {
		struct viommu_endpoint *e = container_of(at, struct viommu_endpoint, link);

		if (e->domain && e->space)
			leave(e);
	}
	while ((item = list_pop(&viommu->domains)))
		container_of(item, struct viommu_domain, link)->kept = true;
	viommu->abandoned = true;
	pthread_mutex_unlock(&viommu->serial);
}
