// SPDX-License-Identifier: Apache-2.0
// A comparison as a document: its schema is in hospes-iommu(1).
#include <math.h>

#include "compare/compare.h"

static json_t *real(double value)
{
	return isfinite(value) ? json_real(value) : json_null();
}

/* What came from outside is ASCII already; the user's own words may not be UTF-8. */
static json_t *text(const char *words)
{
	json_t *ret = json_string(words);

	return ret ? ret : json_string("?");
}

static json_t *rows(const struct compare *c)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < c->n_rows; i++) {
		const struct compare_row *row = &c->rows[i];
		json_t *item = json_pack(
			"{s:o, s:o, s:b, s:o, s:o}", "label", text(row->label), "strategy",
			text(row->strategy), "viommu", row->guest[0] != 0, "guest",
			row->guest[0] ? text(row->guest) : json_null(), "transport",
			row->transport[0] ? text(row->transport) : json_null());

		if (row->promise)
			json_object_set_new(item, "promise", text(row->promise));
		if (row->error[0])
			json_object_set_new(item, "error", text(row->error));
		json_array_append_new(list, item);
	}
	return list;
}

static json_t *cases(const struct compare *c)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < c->n_cases; i++)
		json_array_append_new(list, json_pack("{s:o, s:s, s:I, s:i}", "label",
						      text(c->cases[i].label), "kind",
						      compare_kind_name(c->cases[i].kind), "bytes",
						      (json_int_t)c->cases[i].bytes, "depth",
						      (int)c->cases[i].depth));
	return list;
}

static json_t *samples(const struct compare_cell *cell, unsigned int figure)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < cell->n; i++)
		json_array_append_new(list, real(cell->samples[i][figure]));
	return list;
}

static json_t *values(const struct compare *c, unsigned int row, unsigned int at)
{
	json_t *object = json_object();

	for (unsigned int f = 0; f < COMPARE_FIGURES; f++) {
		struct compare_value v = compare_value(c, row, at, (enum compare_figure)f);
		json_t *item = json_pack("{s:o, s:o, s:o, s:o, s:o}", "median", real(v.median),
					 "low", real(v.low), "high", real(v.high), "of_direct",
					 real(compare_relative(c, row, at, (enum compare_figure)f)),
					 "samples", samples(compare_cell(c, row, at), f));

		json_object_set_new(object, compare_figures[f].key, item);
	}
	return object;
}

static json_t *results(const struct compare *c)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < c->n_rows * c->n_cases; i++) {
		unsigned int row = i / c->n_cases, at = i % c->n_cases;
		bool borrowed;
		double over = compare_over_exposure(c, row, at, &borrowed);

		if (!compare_cell(c, row, at)->n)
			continue;
		json_array_append_new(list,
				      json_pack("{s:i, s:i, s:i, s:o, s:o, s:b, s:o, s:o, s:b}",
						"row", (int)row, "case", (int)at, "samples",
						(int)compare_cell(c, row, at)->n, "values",
						values(c, row, at), "over_exposure", real(over),
						"over_exposure_of_strict", borrowed,
						"cpu_per_map_us", real(compare_pair_us(c, row, at)),
						"hit_rate", real(compare_hit_rate(c, row, at)),
						"on_front", compare_is_on_front(c, row, at)));
	}
	return list;
}

static json_t *theirs(const struct compare *c)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < n_compare_theirs; i++) {
		json_t *fits = json_array();

		for (unsigned int at = 0; at < c->n_cases; at++) {
			if (compare_theirs_fits(&compare_theirs[i], &c->cases[at]))
				json_array_append_new(fits, json_integer(at));
		}
		if (json_array_size(fits))
			json_array_append_new(list,
					      json_pack("{s:s, s:s, s:o}", "source",
							compare_theirs[i].source, "what",
							compare_theirs[i].what, "cases", fits));
		else
			json_decref(fits);
	}
	return list;
}

json_t *compare_json(const struct compare *c)
{
	json_t *figures = json_object();

	for (unsigned int f = 0; f < COMPARE_FIGURES; f++)
		json_object_set_new(figures, compare_figures[f].key,
				    json_string(compare_figures[f].what));
	return json_pack("{s:i, s:o, s:o, s:o, s:o, s:b, s:i, s:i, s:o, s:o, s:o, s:o, s:o}",
			 "format", 1, "device", text(c->device), "date", text(c->date), "host",
			 text(c->host), "guest", text(c->guest), "emulated_host", c->emulated,
			 "seconds", (int)c->seconds, "repeats", (int)c->repeats, "figures", figures,
			 "rows", rows(c), "cases", cases(c), "results", results(c), "theirs",
			 theirs(c));
}
