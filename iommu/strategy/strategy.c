// SPDX-License-Identifier: Apache-2.0
// The choice of a strategy by its name and parameters.
#include "iommu/strategy/strategy.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "iommu/ioas_impl.h"

const char *strategy_default(bool with_viommu)
{
	const struct strategy_ops *const *s = strategies;

	while (*s && !(with_viommu ? (*s)->is_default_with_viommu : (*s)->is_default))
		s++;
	assert(*s);
	return (*s)->name;
}

/* Is [text, end) this name? */
static bool is_word(const char *text, const char *end, const char *name)
{
	return strlen(name) == (size_t)(end - text) && !strncmp(text, name, (size_t)(end - text));
}

static int find(struct strategy_choice *ret, const char *text, const char *end, struct err *err)
{
	char names[200] = "";
	size_t n = 0;

	for (unsigned int i = 0; strategies[i]; i++) {
		if (is_word(text, end, strategies[i]->name)) {
			ret->ops = strategies[i];
			return 0;
		}
		n += (size_t)snprintf(names + n, sizeof(names) - n, "%s%s", i ? ", " : "",
				      strategies[i]->name);
		n = MIN(n, sizeof(names) - 1);
	}
	return err_set(err, -EINVAL, "there is no strategy '%.*s'; there is: %s", (int)(end - text),
		       text, names);
}

static int unknown_key(const struct strategy_choice *choice, const char *text, const char *end,
		       struct err *err)
{
	char keys[200] = "";
	size_t n = 0;

	for (const struct strategy_param *p = choice->ops->params; p && p->name; p++) {
		n += (size_t)snprintf(keys + n, sizeof(keys) - n, " %s", p->name);
		n = MIN(n, sizeof(keys) - 1);
	}
	return err_set(err, -EINVAL, "strategy '%s' has no parameter '%.*s'; it has:%s",
		       choice->ops->name, (int)(end - text), text, n ? keys : " none");
}

/* [text, end) is one "key=value". */
static int set_param(struct strategy_choice *choice, const char *text, const char *end,
		     struct err *err)
{
	const struct strategy_param *params = choice->ops->params;
	const char *equals = memchr(text, '=', (size_t)(end - text));
	const char *key_end = equals ? equals : end;
	char *number_end = NULL;
	uint64_t value;

	for (unsigned int i = 0; params && params[i].name; i++) {
		if (!is_word(text, key_end, params[i].name))
			continue;
		errno = 0;
		value = equals ? strtoull(equals + 1, &number_end, 10) : 0;
		if (!equals || equals + 1 == end || number_end != end || errno || equals[1] < '0' ||
		    equals[1] > '9' || value < params[i].min || value > params[i].max)
			return err_set(err, -EINVAL, "strategy '%s': '%.*s' is not %s=%llu to %llu",
				       choice->ops->name, (int)(end - text), text, params[i].name,
				       (unsigned long long)params[i].min,
				       (unsigned long long)params[i].max);
		choice->values[i] = value;
		return 0;
	}
	return unknown_key(choice, text, key_end, err);
}

int strategy_parse(struct strategy_choice *ret, const char *text, struct err *err)
{
	const char *end = strchrnul(text, ',');
	int code;

	*ret = (struct strategy_choice){0};
	code = find(ret, text, end, err);
	for (unsigned int i = 0; !code && ret->ops->params && ret->ops->params[i].name; i++)
		ret->values[i] = ret->ops->params[i].value;
	while (!code && *end) {
		text = end + 1;
		end = strchrnul(text, ',');
		code = set_param(ret, text, end, err);
	}
	return code;
}

void strategy_put_back(const struct strategy *strategy, const struct hw_request *request)
{
	struct mapping *m = mappings_find(strategy->guest, request->iova, request->last);
	uint64_t at;

	for (; m; m = mappings_next(m, request->last)) {
		if (m->state == MAPPING_GOING &&
		    ioas_mapped_in(strategy->ioas, m->iova, m->last, &at))
			m->state = MAPPING_WANTED;
	}
}
