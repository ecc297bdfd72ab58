// SPDX-License-Identifier: Apache-2.0
// The choice of a strategy by its name and parameters.
#include "iommu/strategy/strategy.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "iommu/hw_domain.h"
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

const char *strategy_value_text(const struct strategy_param *param, uint64_t value,
				char text[UNITS_TEXT])
{
	if (param->never && value == STRATEGY_NEVER)
		snprintf(text, UNITS_TEXT, "never");
	else if (param->unit == STRATEGY_BYTES)
		units_bytes_text(value, text);
	else if (param->unit == STRATEGY_NS)
		units_ns_text(value, text);
	else if (param->unit == STRATEGY_PERCENT)
		snprintf(text, UNITS_TEXT, "%" PRIu64 "%%", value);
	else
		snprintf(text, UNITS_TEXT, "%" PRIu64, value);
	return text;
}

const char *strategy_range_text(const struct strategy_param *param, char text[STRATEGY_RANGE_TEXT])
{
	char min[UNITS_TEXT], max[UNITS_TEXT];

	snprintf(text, STRATEGY_RANGE_TEXT, "%s to %s%s",
		 strategy_value_text(param, param->min, min),
		 strategy_value_text(param, param->max, max), param->never ? " or never" : "");
	return text;
}

/* The strategy does not take [text, end). */
static int refuse(const struct strategy_ops *ops, const char *text, const char *end,
		  struct err *err)
{
	char takes[400] = "no parameters", range[STRATEGY_RANGE_TEXT];
	size_t n = 0;

	for (const struct strategy_param *p = ops->params; p && p->name && n < sizeof(takes); p++)
		n += (size_t)snprintf(takes + n, sizeof(takes) - n, "%s%s=%s", n ? ", " : "",
				      p->name, strategy_range_text(p, range));
	return err_set(err, -EINVAL, "strategy '%s': '%.*s' is none of its parameters; it takes %s",
		       ops->name, (int)(end - text), text, takes);
}

static int parse_number(const char *text, uint64_t *ret)
{
	char *end;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	*ret = strtoull(text, &end, 10);
	return *end ? -EINVAL : -errno;
}

/* The sign may be left out. */
static int parse_percent(const char *text, uint64_t *ret)
{
	char number[UNITS_TEXT];
	size_t n = strlen(text);

	if (n && text[n - 1] == '%')
		n--;
	snprintf(number, sizeof(number), "%.*s", (int)n, text);
	return parse_number(number, ret);
}

/* [text, end) is a value of this parameter within its bounds. */
static bool read_value(const char *text, const char *end, const struct strategy_param *param,
		       uint64_t *ret)
{
	static int (*const parse[])(const char *text, uint64_t *ret) = {
		[STRATEGY_NUMBER] = parse_number,
		[STRATEGY_BYTES] = units_parse_bytes,
		[STRATEGY_NS] = units_parse_ns,
		[STRATEGY_PERCENT] = parse_percent,
	};
	char value[UNITS_TEXT];

	if ((size_t)(end - text) >= sizeof(value))
		return false;
	snprintf(value, sizeof(value), "%.*s", (int)(end - text), text);
	if (param->never && strcmp(value, "never") == 0) {
		*ret = STRATEGY_NEVER;
		return true;
	}
	return !parse[param->unit](value, ret) && *ret >= param->min && *ret <= param->max;
}

/* [text, end) is one "key=value"; set: a bit per parameter that was given. */
static int set_param(struct strategy_choice *choice, unsigned int *set, const char *text,
		     const char *end, struct err *err)
{
	const struct strategy_param *params = choice->ops->params;
	const char *equals = memchr(text, '=', (size_t)(end - text));

	for (unsigned int i = 0; equals && params && params[i].name; i++) {
		if (!is_word(text, equals, params[i].name))
			continue;
		if (*set & 1u << i)
			return err_set(err, -EINVAL, "strategy '%s': '%.*s': %s is given twice",
				       choice->ops->name, (int)(end - text), text, params[i].name);
		*set |= 1u << i;
		if (read_value(equals + 1, end, &params[i], &choice->values[i]))
			return 0;
	}
	return refuse(choice->ops, text, end, err);
}

int strategy_parse(struct strategy_choice *ret, const char *text, struct err *err)
{
	const char *end = strchrnul(text, ',');
	unsigned int set = 0;
	int code;

	*ret = (struct strategy_choice){0};
	code = find(ret, text, end, err);
	for (unsigned int i = 0; !code && ret->ops->params && ret->ops->params[i].name; i++)
		ret->values[i] = ret->ops->params[i].value;
	while (!code && *end) {
		text = end + 1;
		end = strchrnul(text, ',');
		code = set_param(ret, &set, text, end, err);
	}
	return code;
}

int strategy_choose(struct strategy_choice *ret, const char *text, const struct gmem *gmem,
		    struct err *err)
{
	int code = strategy_parse(ret, text, err);

	if (!code && ret->ops->check)
		code = ret->ops->check(gmem, err);
	return code;
}

char *strategy_text(const struct strategy_choice *choice)
{
	const struct strategy_param *params = choice->ops->params;
	char *ret = strdup(choice->ops->name), *longer, value[UNITS_TEXT];

	for (unsigned int i = 0; ret && params && params[i].name; i++) {
		if (asprintf(&longer, "%s,%s=%s", ret, params[i].name,
			     strategy_value_text(&params[i], choice->values[i], value)) < 0)
			longer = NULL;
		free(ret);
		ret = longer;
	}
	return ret;
}

void strategy_wake(const struct strategy *strategy, uint64_t ns)
{
	strategy->config->wake(strategy->config->opaque, ns);
}

/* --- what is retained --- */

static uint64_t bytes_of(const struct mapping *m)
{
	return m->last - m->iova + 1;
}

static void make_newest(struct strategy *strategy, struct mapping *record, uint64_t now_ns)
{
	strategy->last_word = MAX(now_ns, strategy->last_word + 1);
	record->word = strategy->last_word;
	list_append(&strategy->retained, &record->link);
}

void strategy_retain(struct strategy *strategy, struct mapping *record)
{
	record->state = MAPPING_RETAINED;
	make_newest(strategy, record, ioas_stale(strategy->ioas, bytes_of(record)));
	strategy->n_retained++;
	strategy->retained_bytes += bytes_of(record);
}

static void end_stale(struct strategy *strategy, struct mapping *record, bool hit)
{
	const struct ledger_stale stale = {
		.bytes = bytes_of(record),
		.since_ns = record->word,
		.promised_ns = strategy->promised_ns,
		.hit = hit,
	};

	ioas_stale_end(strategy->ioas, &stale);
	list_remove(&record->link);
	record->word = 0;
	strategy->n_retained--;
	strategy->retained_bytes -= bytes_of(record);
}

void strategy_reuse(struct strategy *strategy, struct mapping *record)
{
	end_stale(strategy, record, true);
}

void strategy_release(struct strategy *strategy, struct mapping *record)
{
	end_stale(strategy, record, false);
	record->state = MAPPING_GOING;
	strategy->config->gone(strategy->config->opaque, record);
}

void strategy_refused(struct strategy *strategy, struct mapping *record)
{
	list_remove(&record->link);
	record->access = 0;
	make_newest(strategy, record, ioas_now(strategy->ioas));
}

struct mapping *strategy_oldest(const struct strategy *strategy)
{
	list_for_each (item, &strategy->retained) {
		struct mapping *m = container_of(item, struct mapping, link);

		if (m->state == MAPPING_RETAINED)
			return m;
	}
	return NULL;
}

/* --- */

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
