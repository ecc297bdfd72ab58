// SPDX-License-Identifier: Apache-2.0
// hw_domains: an ioas, its strategy and its devices.
#include "iommu/hw_domain.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/num.h"
#include "iommu/hw_domain_impl.h"

/* --- life --- */

int hw_domain_create(struct hw_domain **ret, const struct hw_domain_config *config, struct err *err)
{
	struct strategy_choice choice;
	struct hw_domain *domain;
	int code = strategy_choose(&choice, config->strategy, config->gmem, err);

	if (code)
		return err_prefix(err, "%s", config->name);
	if (!mem_new(domain))
		return err_set(err, -ENOMEM, "%s: out of memory", config->name);
	domain->name = strdup(config->name);
	domain->text = strategy_text(&choice);
	if (!domain->name || !domain->text) {
		hw_domain_destroy(domain);
		return err_set(err, -ENOMEM, "%s: out of memory", config->name);
	}
	domain->config = *config;
	domain->config.name = domain->name;
	domain->config.strategy = choice.ops->name;
	domain->choice = choice;
	code = hw_policy_create(&domain->policy, &domain->running, &choice, &domain->config, err);
	if (!code)
		code = ioas_create(&domain->ioas, config->iommu, config->name, err);
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
	assert(!domain->strategy);
	ioas_destroy(domain->ioas);
	policy_destroy(domain->policy);
	free(domain->text);
	free(domain->name);
	free(domain);
}

int hw_policy_create(struct policy **policy, struct strategy_choice *running,
		     const struct strategy_choice *choice, const struct hw_domain_config *config,
		     struct err *err)
{
	int code = 0;

	*policy = NULL;
	*running = *choice;
	if (choice->ops->is_policy)
		code = policy_create(policy, choice, config, err);
	if (*policy)
		*running = *policy_wanted(*policy);
	return code;
}

void hw_strategy_stop(struct strategy *strategy)
{
	if (!strategy)
		return;
	assert(list_empty(&strategy->retained));
	if (strategy->ops->destroy)
		strategy->ops->destroy(strategy);
	free(strategy);
}

int hw_strategy_start(struct strategy **ret, const struct hw_domain *domain,
		      const struct strategy_choice *choice, struct ioas *ioas, struct err *err)
{
	struct strategy *strategy;
	int code;

	if ((choice->ops->tick && !domain->config.wake) ||
	    (choice->ops->flush && !domain->config.gone))
		return err_set(err, -EOPNOTSUPP,
			       "%s: strategy '%s' needs a timer, which only a virtual IOMMU has",
			       domain->name, choice->ops->name);
	if (!mem_new(strategy))
		return err_set(err, -ENOMEM, "%s: out of memory", domain->name);
	strategy->ops = choice->ops;
	strategy->config = &domain->config;
	memcpy(strategy->values, choice->values, sizeof(strategy->values));
	strategy->ceiling_bytes = choice->ceiling_bytes ? choice->ceiling_bytes : UINT64_MAX;
	strategy->ioas = ioas;
	strategy->device = ioas_first_endpoint(domain->ioas);
	strategy->guest = domain->config.guest;
	strategy->promised_ns = STRATEGY_NEVER;
	list_init(&strategy->retained);
	code = choice->ops->create(strategy, err);
	if (code) {
		hw_strategy_stop(strategy);
		return code;
	}
	*ret = strategy;
	return 0;
}

/* --- guest mappings, for a strategy that starts --- */

/* The next WANTED records, from *m on. */
static unsigned int next_records(struct mapping **m, struct hw_request *batch, unsigned int max)
{
	unsigned int n = 0;

	for (; *m && n < max; *m = (*m)->next) {
		if ((*m)->state != MAPPING_WANTED)
			continue;
		(*m)->word = 0;
		batch[n++] = (struct hw_request){
			.iova = (*m)->iova,
			.last = (*m)->last,
			.bytes = (*m)->last - (*m)->iova + 1,
			.record = *m,
		};
	}
	return n;
}

int hw_replay(const struct hw_domain *domain, struct strategy *strategy, uint64_t *bytes,
	      struct err *err)
{
	struct mapping *m = NULL;
	struct hw_request batch[64];
	unsigned int n;

	*bytes = 0;
	if (domain->config.guest)
		m = mappings_find(domain->config.guest, 0, UINT64_MAX);
	while ((n = next_records(&m, batch, ARRAY_SIZE(batch)))) {
		strategy->ops->map(strategy, batch, n);
		for (unsigned int i = 0; i < n; i++) {
			const struct hw_request *r = &batch[i];

			*bytes += r->bytes;
			if (!r->result)
				continue;
			ioas_explain(strategy->ioas, r->result, r->iova, r->bytes, err);
			return err_prefix(err,
					  "%s: %s cannot take over what the guest has mapped at "
					  "iova 0x%llx",
					  domain->name, strategy->ops->name,
					  (unsigned long long)r->iova);
		}
	}
	if (*bytes)
		ioas_requested(strategy->ioas, *bytes, true);
	return 0;
}

/* --- devices --- */

/* The first device is attached. */
static int start(struct hw_domain *domain, struct err *err)
{
	struct strategy *strategy = NULL;
	int code = hw_strategy_start(&strategy, domain, &domain->running, domain->ioas, err);

	if (!code)
		code = hw_replay(domain, strategy, &domain->requested_bytes, err);
	if (!code) {
		domain->strategy = strategy;
		return 0;
	}
	domain->requested_bytes = 0;
	hw_strategy_stop(strategy);
	ioas_unmap_all(domain->ioas);
	return code;
}

/* A device is detached; after the last one everything is unmapped, and nothing reaches what could
 * not be. */
static void leave(struct hw_domain *domain)
{
	struct mapping *record;

	(void)hw_domain_flush(domain, 0, UINT64_MAX);
	if (ioas_first_endpoint(domain->ioas) || !domain->strategy)
		return;
	while ((record = strategy_oldest(domain->strategy)))
		strategy_release(domain->strategy, record);
	hw_strategy_stop(domain->strategy);
	domain->strategy = NULL;
	ioas_unmap_all(domain->ioas);
	if (domain->requested_bytes)
		ioas_requested(domain->ioas, domain->requested_bytes, false);
	domain->requested_bytes = 0;
}

int hw_domain_attach(struct hw_domain *domain, struct iommu_endpoint *endpoint, struct err *err)
{
	int code;

	assert(iommu_endpoint_ioas(endpoint) != domain->ioas);
	code = ioas_attach(domain->ioas, endpoint, err);
	if (!code && !domain->strategy) {
		code = start(domain, err);
		if (code)
			ioas_detach(endpoint);
	}
	return code;
}

void hw_domain_detach(struct hw_domain *domain, struct iommu_endpoint *endpoint)
{
	if (iommu_endpoint_ioas(endpoint) != domain->ioas)
		return;
	/* Detach first, so that the device never sees a half-empty space. */
	ioas_detach(endpoint);
	leave(domain);
}

void hw_go_back(struct hw_domain *domain, struct iommu_endpoint *endpoint)
{
	struct err err = ERR_INIT;

	if (!ioas_attach(domain->ioas, endpoint, &err))
		return;
	log_error(domain->config.log, "iommu", "%s: a device reaches nothing from now on: %s",
		  domain->name, err.text);
	ioas_detach(endpoint);
	leave(domain);
}

int hw_domain_move(struct hw_domain *from, struct hw_domain *to, struct iommu_endpoint *endpoint,
		   struct err *err)
{
	int code;

	assert(iommu_endpoint_ioas(endpoint) == from->ioas && from != to);
	code = ioas_attach(to->ioas, endpoint, err);
	if (!code && !to->strategy) {
		code = start(to, err);
		if (code)
			hw_go_back(from, endpoint);
	}
	if (!code)
		leave(from);
	return code;
}

/* --- requests --- */

static unsigned int count(struct hw_domain *domain, const struct hw_request *requests,
			  unsigned int n, bool on)
{
	unsigned int failed = 0;
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < n; i++) {
		failed += requests[i].result != 0;
		bytes += requests[i].result ? 0 : requests[i].bytes;
	}
	domain->requested_bytes += on ? bytes : -bytes;
	if (bytes)
		ioas_requested(domain->ioas, bytes, on);
	return failed;
}

unsigned int hw_domain_map(struct hw_domain *domain, struct hw_request *requests, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		requests[i].result = domain->strategy ? 0 : -ENODEV;
	if (!domain->strategy)
		return n;
	if (domain->policy)
		policy_map(domain->policy, domain->strategy, requests, n);
	domain->strategy->ops->map(domain->strategy, requests, n);
	return count(domain, requests, n, true);
}

unsigned int hw_domain_unmap(struct hw_domain *domain, struct hw_request *requests, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		requests[i].result = 0;
	if (!domain->strategy)
		return 0;
	if (domain->policy)
		policy_unmap(domain->policy, domain->strategy, requests, n);
	domain->strategy->ops->unmap(domain->strategy, requests, n);
	return count(domain, requests, n, false);
}

int hw_domain_flush(struct hw_domain *domain, uint64_t first, uint64_t last)
{
	if (!domain->strategy || !domain->strategy->n_retained)
		return 0;
	return domain->strategy->ops->flush(domain->strategy, first, last);
}

void hw_domain_forget(struct hw_domain *domain, uint64_t gpa, uint64_t bytes)
{
	if (domain->strategy && domain->strategy->ops->forget)
		domain->strategy->ops->forget(domain->strategy, gpa, bytes);
}

struct hw_domain_retained hw_domain_retained(const struct hw_domain *domain)
{
	const struct strategy *strategy = domain ? domain->strategy : NULL;
	const struct mapping *oldest = strategy ? strategy_oldest(strategy) : NULL;
	uint64_t now_ns;

	if (!oldest)
		return (struct hw_domain_retained){0};
	now_ns = ioas_now(domain->ioas);
	return (struct hw_domain_retained){
		.mappings = strategy->n_retained,
		.bytes = strategy->retained_bytes,
		.oldest_ns = now_ns - MIN(now_ns, oldest->word),
	};
}

void hw_domain_totals(const struct hw_domain *domain, struct ledger_totals *ret)
{
	struct ioas *stage = domain->strategy ? domain->strategy->stage : NULL;
	struct ledger_totals of_stage;

	ioas_totals(domain->ioas, ret);
	if (!stage)
		return;
	ioas_totals(stage, &of_stage);
	ret->pinned_bytes += of_stage.mapped_bytes;
	ret->pinned_byte_seconds += of_stage.mapped_byte_seconds;
}

void hw_domain_tick(struct hw_domain *domain)
{
	if (!domain->strategy)
		return;
	if (domain->strategy->ops->tick)
		domain->strategy->ops->tick(domain->strategy);
	if (domain->policy)
		hw_follow_policy(domain);
}

bool hw_domain_policy(const struct hw_domain *domain, struct policy_view *ret)
{
	if (domain->policy)
		policy_view(domain->policy, ret);
	return domain->policy;
}

const char *hw_domain_name(const struct hw_domain *domain)
{
	return domain->name;
}

const char *hw_domain_strategy(const struct hw_domain *domain)
{
	return domain->text;
}

bool hw_domain_has(const struct hw_domain *domain, const char *strategy)
{
	struct strategy_choice choice;
	struct err ignored = ERR_INIT;

	return !strategy_parse(&choice, strategy, &ignored) &&
	       !memcmp(&choice, &domain->choice, sizeof(choice));
}

struct ioas *hw_domain_ioas(const struct hw_domain *domain)
{
	return domain->ioas;
}
