// SPDX-License-Identifier: Apache-2.0
// Domains of the virtual IOMMU: which endpoint is in which, what its hardware reaches, and how
// bypass, resets and a switch of strategy change that.
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
	domain->viommu = viommu;
	domain->id = id;
	domain->bypass = bypass;
	list_init(&domain->members);
	mappings_init(&domain->table);
	list_append(&viommu->domains, &domain->link);
	return domain;
}

/* Destroy the hw_domain with its last device. */
static void drop_hardware(struct viommu_domain *domain)
{
	if (domain->n_hw)
		return;
	hw_domain_destroy(domain->hw);
	domain->hw = NULL;
}

/* Destroy a domain without members. */
static void domain_leave(struct viommu *viommu, struct viommu_domain *domain)
{
	if (!domain || !list_empty(&domain->members))
		return;
	list_remove(&domain->link);
	viommu_clear(viommu, domain);
	mappings_done(&domain->table);
	drop_hardware(domain);
	ledger_destroy(domain->ledger);
	free(domain);
}

/* --- members --- */

struct hw_domain *viommu_hardware_at(const struct viommu_endpoint *endpoint)
{
	return endpoint->device && iommu_endpoint_ioas(endpoint->device) ? endpoint->at : NULL;
}

/* hw_domain_config.decided: its devices have one strategy together. */
static void decided(void *opaque, const char *why)
{
	const struct viommu_domain *domain = opaque;
	const struct viommu *viommu = domain->viommu;

	list_for_each (item, &domain->members) {
		const struct viommu_endpoint *e =
			container_of(item, struct viommu_endpoint, member);

		if (e->device && viommu->decided)
			viommu->decided(viommu->decided_opaque, e->name, why);
	}
}

/* Make domain->hw, with the strategy of its first device; later devices must have the same one. */
static int hardware_domain(struct viommu *viommu, struct viommu_domain *domain,
			   const struct viommu_endpoint *endpoint, struct err *err)
{
	char name[48];
	struct hw_domain_config config = {
		.name = name,
		.strategy = endpoint->strategy,
		.iommu = ioas_iommu(hw_domain_ioas(endpoint->all)),
		.gmem = viommu->gmem,
		.log = viommu->log,
		.guest = &domain->table,
		.wake = viommu->loop ? viommu_wake : NULL,
		.gone = viommu_gone,
		.decided = decided,
		.opaque = domain,
	};

	snprintf(name, sizeof(name), "guest domain %u", domain->id);
	if (!domain->hw)
		return hw_domain_create(&domain->hw, &config, err);
	if (hw_domain_has(domain->hw, endpoint->strategy))
		return 0;
	return err_set(err, -EINVAL,
		       "%s: its strategy is '%s', and '%s' that of domain %u, which it is to join; "
		       "give both devices the same",
		       endpoint->name, endpoint->strategy, hw_domain_strategy(domain->hw),
		       domain->id);
}

/* Move the device to `to` (NULL: detach it). On failure it stays where it is. */
static int hardware_move(struct viommu_endpoint *endpoint, struct hw_domain *to, struct err *err)
{
	struct hw_domain *at = viommu_hardware_at(endpoint);
	int rc = 0;

	if (at == to)
		return 0;
	if (!to)
		hw_domain_detach(at, endpoint->device);
	else if (at)
		rc = hw_domain_move(at, to, endpoint->device, err);
	else
		rc = hw_domain_attach(to, endpoint->device, err);
	if (!rc)
		endpoint->at = to;
	return rc;
}

static int hardware_enter(struct viommu_endpoint *endpoint, struct viommu_domain *domain,
			  struct err *err)
{
	int rc;

	if (domain->bypass)
		return hardware_move(endpoint, endpoint->all, err);
	rc = hardware_domain(endpoint->viommu, domain, endpoint, err);
	if (!rc)
		rc = hardware_move(endpoint, domain->hw, err);
	domain->n_hw += !rc;
	drop_hardware(domain);
	return rc;
}

/* Detach the hardware in this domain. */
static void cut_off(struct viommu_domain *domain)
{
	struct err ignored = ERR_INIT;

	list_for_each (item, &domain->members) {
		struct viommu_endpoint *e = container_of(item, struct viommu_endpoint, member);

		if (e->device)
			(void)hardware_move(e, NULL, &ignored);
	}
}

void viommu_forget_memory(struct viommu_domain *domain, uint64_t gpa, uint64_t bytes)
{
	struct viommu *viommu = domain->viommu;
	bool any, ignored;

	if (!viommu_unmap_memory(viommu, domain, gpa, bytes, &any)) {
		log_error(viommu->log, "viommu",
			  "domain %u: the hardware refuses to unmap memory that leaves the guest; "
			  "its devices reach nothing from now on",
			  domain->id);
		cut_off(domain);
		(void)viommu_unmap_memory(viommu, domain, gpa, bytes, &ignored);
	}
	/* What is not mapped an emulated device has no bracket on. */
	if (any || domain->bypass)
		viommu_drain(domain);
}

/* In bypass an emulated device pays nothing for the virtual IOMMU: no lock, no look-up. The caller
 * drains the space next. */
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
	if (before) {
		(void)viommu_flush(before, 0, UINT64_MAX);
		drop_hardware(before);
	}
	domain_leave(viommu, before);
}

/* Leave the domain, for what bypass says. A device that cannot be given all memory gets none. */
static void leave(struct viommu_endpoint *endpoint)
{
	struct viommu *viommu = endpoint->viommu;
	struct err err = ERR_INIT;

	if (endpoint->device &&
	    hardware_move(endpoint, viommu->bypass ? endpoint->all : NULL, &err)) {
		log_guest(viommu->log, &viommu->limit, "viommu", "%s: no bypass: %s",
			  endpoint->name, err.text);
		(void)hardware_move(endpoint, NULL, &err);
	}
	if (endpoint->domain)
		set_domain(endpoint, NULL);
}

/* Does the domain have a mapping in a reserved range of this device? */
static bool conflicts(const struct viommu_endpoint *endpoint, const struct viommu_domain *domain)
{
	for (unsigned int i = 0; i < endpoint->n_reserved; i++) {
		if (mappings_find(&domain->table, endpoint->reserved[i].first,
				  endpoint->reserved[i].last))
			return true;
	}
	return false;
}

enum viommu_status viommu_attach(struct viommu *viommu, struct viommu_endpoint *endpoint,
				 const struct viommu_request *r)
{
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
	/* It is to reach only what the guest wants; and what is retained is not in its way. */
	if (domain)
		(void)viommu_flush(domain, 0, UINT64_MAX);
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

enum viommu_status viommu_detach(struct viommu_endpoint *endpoint, const struct viommu_request *r)
{
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
	viommu_hold(viommu);
	if (endpoint->device)
		(void)hardware_move(endpoint, NULL, &ignored);
	if (endpoint->domain)
		set_domain(endpoint, NULL);
	list_remove(&endpoint->link);
	endpoint->id = NULL;
	viommu_count_endpoint(viommu, -1);
	viommu_release(viommu);
	dma_space_destroy(endpoint->space);
	free(endpoint->strategy);
	free(endpoint->next_strategy); /* of a switch that failed */
	free(endpoint);
}

void viommu_settle_locked(struct viommu *viommu, const struct viommu_endpoint *which)
{
	if (!viommu->abandoned)
		return;
	list_for_each (item, &viommu->endpoints) {
		struct viommu_endpoint *e = container_of(item, struct viommu_endpoint, link);

		if (e->domain && e->domain->orphaned && (!which || e == which))
			leave(e);
	}
	viommu->abandoned = which;
}

/* --- bypass, resets --- */

bool viommu_bypass(struct viommu *viommu)
{
	bool bypass;

	pthread_rwlock_rdlock(&viommu->lock);
	bypass = viommu->bypass;
	pthread_rwlock_unlock(&viommu->lock);
	return bypass;
}

/* Both are a vCPU's, which does not wait for requests of others where there is nothing to do. */
void viommu_settle(struct viommu *viommu)
{
	if (!viommu->abandoned)
		return;
	viommu_hold(viommu);
	viommu_settle_locked(viommu, NULL);
	viommu_release(viommu);
}

void viommu_device_starts(struct viommu_endpoint *endpoint)
{
	if (!endpoint->viommu->abandoned)
		return;
	viommu_hold(endpoint->viommu);
	viommu_settle_locked(endpoint->viommu, endpoint);
	viommu_release(endpoint->viommu);
}

void viommu_set_bypass(struct viommu *viommu, bool bypass)
{
	viommu_hold(viommu);
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
	viommu_release(viommu);
}

void viommu_reset(struct viommu *viommu)
{
	viommu_hold(viommu);
	list_for_each (item, &viommu->endpoints) {
		struct viommu_endpoint *e = container_of(item, struct viommu_endpoint, link);

		if (e->domain)
			leave(e);
	}
	viommu_release(viommu);
}

/* --- switch of strategy --- */

/* Does a switch of `which` (NULL: of all) change e too? Devices of one domain change together. */
static bool changes(const struct viommu_endpoint *e, const struct viommu_endpoint *which)
{
	return e->device && (!which || e == which || (e->domain && e->domain == which->domain));
}

static int switch_hardware(const struct viommu_endpoint *e, const char *strategy, struct err *err)
{
	const struct viommu_domain *d = e->domain;

	return d && d->hw && d->n_hw ? hw_domain_switch(d->hw, strategy, err) : 0;
}

/* Give the endpoints before `end` their old strategy again. */
static void switch_back(struct viommu *viommu, const struct list *end,
			const struct viommu_endpoint *which)
{
	struct err err = ERR_INIT;

	list_for_each (item, &viommu->endpoints) {
		const struct viommu_endpoint *e = container_of(item, struct viommu_endpoint, link);

		if (item == end)
			return;
		if (changes(e, which) && switch_hardware(e, e->strategy, &err))
			log_error(viommu->log, "viommu", "%s: its strategy stays changed: %s",
				  e->name, err.text);
	}
}

/* Allocate the names first, so that nothing fails after a domain has changed. */
static int make_names(struct viommu *viommu, const struct viommu_endpoint *which,
		      const char *strategy, struct err *err)
{
	list_for_each (item, &viommu->endpoints) {
		struct viommu_endpoint *e = container_of(item, struct viommu_endpoint, link);

		if (!changes(e, which))
			continue;
		free(e->next_strategy);
		e->next_strategy = strdup(strategy);
		if (!e->next_strategy)
			return err_set(err, -ENOMEM, "%s: out of memory", e->name);
	}
	return 0;
}

static int switch_locked(struct viommu *viommu, const struct viommu_endpoint *which,
			 const char *strategy, struct err *err)
{
	int rc = make_names(viommu, which, strategy, err);

	list_for_each (item, &viommu->endpoints) {
		const struct viommu_endpoint *e = container_of(item, struct viommu_endpoint, link);

		if (!rc && changes(e, which))
			rc = switch_hardware(e, strategy, err);
		if (rc) {
			switch_back(viommu, item, which);
			return rc;
		}
	}
	list_for_each (item, &viommu->endpoints) {
		struct viommu_endpoint *e = container_of(item, struct viommu_endpoint, link);

		if (!changes(e, which))
			continue;
		free(e->strategy);
		e->strategy = e->next_strategy;
		e->next_strategy = NULL;
	}
	return 0;
}

int viommu_switch(struct viommu *viommu, struct viommu_endpoint *endpoint, const char *strategy,
		  struct err *err)
{
	struct strategy_choice ignored;
	int rc = strategy_choose(&ignored, strategy, viommu->gmem, err);

	if (rc)
		return rc;
	viommu_hold(viommu);
	rc = switch_locked(viommu, endpoint, strategy, err);
	viommu_release(viommu);
	return rc;
}

void viommu_abandon(struct viommu *viommu)
{
	struct list *item;

	viommu_hold(viommu);
	list_for_each (at, &viommu->endpoints) {
		struct viommu_endpoint *e = container_of(at, struct viommu_endpoint, link);

		if (e->domain && e->space)
			leave(e);
	}
	while ((item = list_pop(&viommu->domains))) {
		struct viommu_domain *d = container_of(item, struct viommu_domain, link);

		(void)viommu_flush(d, 0, UINT64_MAX);
		d->orphaned = true;
		list_append(&viommu->orphans, item);
	}
	viommu->abandoned = true;
	viommu_release(viommu);
}
