// SPDX-License-Identifier: Apache-2.0
// hw_domains: another strategy while devices work.
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "iommu/hw_domain_impl.h"

/* Move each device to `to`. If one cannot move, those that have moved go back. */
static int move_endpoints(struct hw_domain *domain, struct ioas *to, struct err *err)
{
	struct iommu_endpoint *endpoint;
	unsigned int moved = 0;
	int code;

	while ((endpoint = ioas_first_endpoint(domain->ioas))) {
		code = ioas_attach(to, endpoint, err);
		if (code) {
			while (moved-- && (endpoint = ioas_first_endpoint(to)))
				hw_go_back(domain, endpoint);
			return code;
		}
		moved++;
	}
	return 0;
}

/* Is each of its mappings one that another strategy can take over? */
static bool is_plain(const struct strategy *strategy)
{
	if (strategy->n_retained)
		return false;
	return strategy->ops->is_plain ? strategy->ops->is_plain(strategy)
				       : !strategy->ops->ends_with_table;
}

/* Can the new strategy keep the table? What the guest has mapped at its own address is a mapping of
 * its own in most strategies, and a part of a larger one in a strategy that maps all of memory. */
static bool can_stay(const struct hw_domain *domain, const struct strategy_ops *ops)
{
	const struct strategy_ops *old = domain->running.ops;
	const struct mapping *m = NULL;

	if (!ops->keeps_mappings || !old->keeps_mappings || !is_plain(domain->strategy))
		return false;
	if (ops->needs_viommu && old->needs_viommu)
		return true;
	if (domain->config.guest)
		m = mappings_find(domain->config.guest, 0, UINT64_MAX);
	while (m && m->iova != m->gpa)
		m = m->next;
	return !m;
}

/* Words belong to the new strategy from its first map on. If it cannot start, the old one needs its
 * words again. */
static uint64_t *save_words(const struct mappings *guest)
{
	uint64_t *words = calloc(guest->count + 1, sizeof(*words)), *at = words;

	for (const struct mapping *m = mappings_find(guest, 0, UINT64_MAX); words && m; m = m->next)
		*at++ = m->word;
	return words;
}

static void restore_words(const struct mappings *guest, const uint64_t *words)
{
	for (struct mapping *m = mappings_find(guest, 0, UINT64_MAX); m; m = m->next)
		m->word = *words++;
}

/* Start the new strategy in a new ioas; when everything is mapped there, the devices move to it. */
static int replace_ioas(struct hw_domain *domain, const struct strategy_choice *choice,
			struct err *err)
{
	struct strategy *next = NULL;
	struct ioas *ioas = NULL, *old = domain->ioas;
	uint64_t bytes = 0;
	int code = ioas_create(&ioas, domain->config.iommu, domain->name, err);

	if (code)
		return code;
	code = hw_strategy_start(&next, domain, choice, ioas, err);
	if (!code)
		code = hw_replay(domain, next, &bytes, err);
	if (!code)
		code = move_endpoints(domain, ioas, err);
	if (code) {
		hw_strategy_stop(next);
		ioas_destroy(ioas);
		return code;
	}
	hw_strategy_stop(domain->strategy);
	domain->strategy = next;
	domain->ioas = ioas;
	domain->requested_bytes = bytes;
	ioas_destroy(old);
	return 0;
}

static int stay(struct hw_domain *domain, const struct strategy_choice *choice, struct err *err)
{
	struct strategy *next;
	int code = hw_strategy_start(&next, domain, choice, domain->ioas, err);

	if (code)
		return code;
	hw_strategy_stop(domain->strategy);
	domain->strategy = next;
	return 0;
}

static int replace(struct hw_domain *domain, const struct strategy_choice *choice, struct err *err)
{
	const struct mappings *guest = domain->config.guest;
	uint64_t *words = NULL;
	int code;

	if (can_stay(domain, choice->ops))
		return stay(domain, choice, err);
	if (guest && !(words = save_words(guest)))
		return err_set(err, -ENOMEM, "%s: out of memory", domain->name);
	code = replace_ioas(domain, choice, err);
	if (code && guest)
		restore_words(guest, words);
	free(words);
	return code;
}

int hw_domain_switch(struct hw_domain *domain, const char *strategy, struct err *err)
{
	struct strategy_choice choice, running;
	int code = strategy_choose(&choice, strategy, domain->config.gmem, err);
	struct policy *policy;
	char *text;

	if (code)
		return err_prefix(err, "%s", domain->name);
	if (!memcmp(&choice, &domain->choice, sizeof(choice)))
		return 0;
	if (domain->strategy && iommu_kind_of(domain->config.iommu) == IOMMU_TYPE1)
		return err_set(err, -EOPNOTSUPP,
			       "%s: type1 cannot replace the table of a running device, so its "
			       "strategy stays '%s'; use iommu=iommufd",
			       domain->name, domain->choice.ops->name);
	code = hw_domain_flush(domain, 0, UINT64_MAX);
	if (code)
		return err_set(err, code, "%s: what '%s' retains cannot be unmapped: %s",
			       domain->name, domain->choice.ops->name, err_name(code));
	text = strategy_text(&choice);
	if (!text)
		return err_set(err, -ENOMEM, "%s: out of memory", domain->name);
	code = hw_policy_create(&policy, &running, &choice, &domain->config, err);
	if (!code && domain->strategy)
		code = replace(domain, &running, err);
	if (code) {
		policy_destroy(policy);
		free(text);
		return code;
	}
	free(domain->text);
	policy_destroy(domain->policy);
	domain->text = text;
	domain->choice = choice;
	domain->policy = policy;
	domain->running = running;
	domain->config.strategy = choice.ops->name;
	return 0;
}

/* Start the strategy that the policy wants; the table stays. */
static void change(struct hw_domain *domain)
{
	struct strategy_choice running = *policy_wanted(domain->policy);
	struct err err = ERR_INIT;
	int code = stay(domain, &running, &err);

	if (code)
		log_error(domain->config.log, "iommu", "%s: auto: %s", domain->name, err.text);
	else
		domain->running = running;
	policy_started(domain->policy, code);
}

void hw_follow_policy(struct hw_domain *domain)
{
	struct strategy *strategy = domain->strategy;
	bool was_leaving = strategy->leaving;

	policy_tick(domain->policy, strategy);
	strategy->leaving = memcmp(policy_wanted(domain->policy), &domain->running,
				   sizeof(domain->running)) != 0;
	if (strategy->leaving && is_plain(strategy))
		change(domain);
	else if (strategy->leaving != was_leaving)
		strategy_wake(strategy, 0);
}
