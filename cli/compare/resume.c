// SPDX-License-Identifier: Apache-2.0
// The samples of a comparison that was interrupted, from the document that it has left.
#include <math.h>
#include <string.h>

#include "compare/compare.h"

static const char *text_at(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

/* The labels of rows and cases say all that makes them what they are. */
static unsigned int find_row(const struct compare *c, const json_t *row)
{
	unsigned int i = 0;

	while (i < c->n_rows && strcmp(c->rows[i].label, text_at(row, "label")) != 0)
		i++;
	return i;
}

static unsigned int find_case(const struct compare *c, const json_t *at)
{
	unsigned int i = 0;

	while (i < c->n_cases && strcmp(c->cases[i].label, text_at(at, "label")) != 0)
		i++;
	return i;
}

static json_t *item_of(const json_t *document, const char *list, const json_t *index)
{
	json_int_t i = json_is_integer(index) ? json_integer_value(index) : -1;

	return i < 0 ? NULL : json_array_get(json_object_get(document, list), (size_t)i);
}

/* One sample: all of its figures, or false. */
static bool take(const json_t *values, size_t sample, double figures[COMPARE_FIGURES])
{
	for (unsigned int f = 0; f < COMPARE_FIGURES; f++) {
		const json_t *value = json_object_get(values, compare_figures[f].key);
		const json_t *it = json_array_get(json_object_get(value, "samples"), sample);

		if (!json_is_number(it) && !json_is_null(it))
			return false;
		figures[f] = json_is_null(it) ? (double)NAN : json_number_value(it);
	}
	return true;
}

static void take_result(struct compare *c, const json_t *document, const json_t *result)
{
	const json_t *values = json_object_get(result, "values");
	unsigned int row = find_row(c, item_of(document, "rows", json_object_get(result, "row")));
	unsigned int at = find_case(c, item_of(document, "cases", json_object_get(result, "case")));
	struct compare_cell *cell;

	if (row == c->n_rows || at == c->n_cases)
		return;
	cell = compare_cell(c, row, at);
	cell->n = 0;
	while (cell->n < c->repeats && take(values, cell->n, cell->samples[cell->n]))
		cell->n++;
}

static bool fits(const struct compare *c, const json_t *document, char *why, size_t bytes)
{
	const struct {
		const char *what, *key, *now;
	} texts[] = {{"device", "device", c->device}, {"host", "host", c->host}};
	json_int_t seconds = json_integer_value(json_object_get(document, "seconds"));

	if (json_integer_value(json_object_get(document, "format")) != 1) {
		snprintf(why, bytes, "it is no comparison");
		return false;
	}
	for (unsigned int i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		if (strcmp(text_at(document, texts[i].key), texts[i].now) == 0)
			continue;
		snprintf(why, bytes, "its %s is '%.80s', and now '%.80s'", texts[i].what,
			 text_at(document, texts[i].key), texts[i].now);
		return false;
	}
	if (seconds == (json_int_t)c->seconds)
		return true;
	snprintf(why, bytes, "its runs are of %lld s, and now of %u s", (long long)seconds,
		 c->seconds);
	return false;
}

bool compare_resume(struct compare *c, const json_t *document, char *why, size_t bytes)
{
	json_t *result;
	size_t i;

	if (!fits(c, document, why, bytes))
		return false;
	snprintf(c->guest, sizeof(c->guest), "%s", text_at(document, "guest"));
	snprintf(c->date, sizeof(c->date), "%s", text_at(document, "date"));
	compare_clean(c->guest);
	compare_clean(c->date);
	json_array_foreach(json_object_get(document, "results"), i, result)
	{
		take_result(c, document, result);
	}
	return true;
}
