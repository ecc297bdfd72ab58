// SPDX-License-Identifier: Apache-2.0
// Rows, cases and figures of a comparison; medians, and what follows from them.
#include "compare/compare.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "table.h"

const struct compare_figure_info compare_figures[COMPARE_FIGURES] = {
	[COMPARE_RATE] = {"operations_per_second", "throughput"},
	[COMPARE_BYTES] = {"bytes_per_second", "throughput"},
	[COMPARE_LATENCY] = {"latency_us", "mean latency as the guest's program saw it"},
	[COMPARE_P99] = {"latency_p99_us", "99th percentile of it"},
	[COMPARE_CPU] = {"cpu_us", "CPU time per operation, of guest and hospes"},
	[COMPARE_GUEST] = {"cpu_guest_us", "of it, in the guest"},
	[COMPARE_VMM] = {"cpu_vmm_us", "of it, in hospes"},
	[COMPARE_KERNEL] = {"cpu_kernel_us", "of it, in the host's kernel on behalf of hospes"},
	[COMPARE_RETURNS] = {"returns", "returns of KVM_RUN to hospes per operation"},
	[COMPARE_MAP_REQUESTS] = {"map_requests", "the guest's requests to map, per operation"},
	[COMPARE_UNMAP_REQUESTS] = {"unmap_requests", "and to unmap"},
	[COMPARE_MAPS] = {"maps", "calls that map in the host's IOMMU, per operation"},
	[COMPARE_UNMAPS] = {"unmaps", "and that unmap"},
	[COMPARE_HITS] =
		{"hits",
		 "requests to map what was still mapped or was mapped with others, per operation"},
	[COMPARE_MAP_TIME] = {"map_us", "time of one such call to map"},
	[COMPARE_UNMAP_TIME] = {"unmap_us", "and to unmap"},
	[COMPARE_MAPPED] = {"mapped_bytes", "memory that the device could reach, mean over time"},
	[COMPARE_REQUESTED] = {"requested_bytes", "memory that the guest wanted reachable, mean"},
	[COMPARE_STALE] = {"stale_bytes", "reachable though the guest took it back, mean"},
	[COMPARE_PINNED] = {"pinned_bytes", "memory that the host cannot take elsewhere, mean"},
};

const char *compare_kind_name(enum compare_kind kind)
{
	static const char *const names[] = {
		[COMPARE_BLOCK] = "block",
		[COMPARE_STREAM] = "stream",
		[COMPARE_RESPONSE] = "response",
	};

	return names[kind];
}

char *compare_clean(char *text)
{
	for (char *p = text; *p; p++) {
		if (*p < ' ' || *p > '~')
			*p = '?';
	}
	return text;
}

int compare_start(struct compare *c)
{
	c->cells = calloc((size_t)c->n_rows * c->n_cases, sizeof(*c->cells));
	return c->cells ? 0 : -ENOMEM;
}

void compare_done(struct compare *c)
{
	free(c->cells);
	c->cells = NULL;
}

bool compare_add_row(struct compare *c, const char *strategy, const char *guest,
		     const char *transport, const char *promise)
{
	struct compare_row *row = &c->rows[c->n_rows];

	if (c->n_rows == COMPARE_ROWS)
		return false;
	*row = (struct compare_row){.promise = promise};
	snprintf(row->strategy, sizeof(row->strategy), "%s", strategy);
	snprintf(row->guest, sizeof(row->guest), "%s", guest);
	snprintf(row->transport, sizeof(row->transport), "%s", transport);
	compare_clean(row->strategy);
	compare_clean(row->transport);
	snprintf(row->label, sizeof(row->label), "%s%s%s%s%s", strategy, *guest ? ", guest " : "",
		 guest, *transport ? ", " : "", transport);
	compare_clean(row->label);
	c->n_rows++;
	return true;
}

bool compare_add_case(struct compare *c, enum compare_kind kind, uint64_t bytes, unsigned int depth)
{
	static const char *const what[] = {
		[COMPARE_BLOCK] = "reads",
		[COMPARE_STREAM] = "stream",
		[COMPARE_RESPONSE] = "request/response",
	};
	struct compare_case *at = &c->cases[c->n_cases];
	char size[TABLE_SIZE_TEXT];

	if (c->n_cases == COMPARE_CASES)
		return false;
	*at = (struct compare_case){.kind = kind, .bytes = bytes, .depth = depth};
	table_size((double)bytes, size);
	if (kind == COMPARE_BLOCK)
		snprintf(at->label, sizeof(at->label), "%.24s %s, depth %u", size, what[kind],
			 depth);
	else
		snprintf(at->label, sizeof(at->label), "%.24s %s", size, what[kind]);
	c->n_cases++;
	return true;
}

struct compare_cell *compare_cell(const struct compare *c, unsigned int row, unsigned int at)
{
	return &c->cells[(size_t)row * c->n_cases + at];
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

struct compare_value compare_value(const struct compare *c, unsigned int row, unsigned int at,
				   enum compare_figure figure)
{
	const struct compare_cell *cell = compare_cell(c, row, at);
	double sorted[COMPARE_REPEATS];
	unsigned int n = 0;

	for (unsigned int i = 0; i < cell->n; i++) {
		if (!isnan(cell->samples[i][figure]))
			sorted[n++] = cell->samples[i][figure];
	}
	if (!n)
		return (struct compare_value){(double)NAN, (double)NAN, (double)NAN};
	qsort(sorted, n, sizeof(sorted[0]), ascending);
	return (struct compare_value){
		.median = n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2,
		.low = sorted[0],
		.high = sorted[n - 1],
	};
}

/* The first row of that kind; n_rows: none. */
static unsigned int find_row(const struct compare *c, const char *strategy, const char *guest)
{
	unsigned int i = 0;

	while (i < c->n_rows &&
	       (strcmp(c->rows[i].strategy, strategy) != 0 || strcmp(c->rows[i].guest, guest) != 0))
		i++;
	return i;
}

static double quotient(double a, double b)
{
	return b > 0 ? a / b : (double)NAN;
}

double compare_relative(const struct compare *c, unsigned int row, unsigned int at,
			enum compare_figure figure)
{
	unsigned int base = find_row(c, "direct", "");

	if (base == c->n_rows)
		return (double)NAN;
	return quotient(compare_value(c, row, at, figure).median,
			compare_value(c, base, at, figure).median);
}

double compare_over_exposure(const struct compare *c, unsigned int row, unsigned int at,
			     bool *borrowed)
{
	unsigned int asks = row;

	*borrowed = !c->rows[row].guest[0];
	if (*borrowed)
		asks = find_row(c, "strict", "strict");
	if (asks == c->n_rows)
		return (double)NAN;
	return quotient(compare_value(c, row, at, COMPARE_MAPPED).median,
			compare_value(c, asks, at, COMPARE_REQUESTED).median);
}

double compare_hit_rate(const struct compare *c, unsigned int row, unsigned int at)
{
	return quotient(compare_value(c, row, at, COMPARE_HITS).median,
			compare_value(c, row, at, COMPARE_MAP_REQUESTS).median);
}

bool compare_is_on_front(const struct compare *c, unsigned int row, unsigned int at)
{
	double cost = compare_value(c, row, at, COMPARE_CPU).median;
	double exposed = compare_value(c, row, at, COMPARE_MAPPED).median;

	for (unsigned int i = 0; i < c->n_rows; i++) {
		double other_cost = compare_value(c, i, at, COMPARE_CPU).median;
		double other_exposed = compare_value(c, i, at, COMPARE_MAPPED).median;

		if (other_cost <= cost && other_exposed <= exposed &&
		    (other_cost < cost || other_exposed < exposed))
			return false;
	}
	return !isnan(cost) && !isnan(exposed);
}

double compare_pair_us(const struct compare *c, unsigned int row, unsigned int at)
{
	unsigned int base = find_row(c, "direct", "");

	if (base == c->n_rows || !c->rows[row].guest[0])
		return (double)NAN;
	return quotient(compare_value(c, row, at, COMPARE_CPU).median -
				compare_value(c, base, at, COMPARE_CPU).median,
			compare_value(c, row, at, COMPARE_MAP_REQUESTS).median);
}

const char *compare_number(double value, char text[COMPARE_TEXT])
{
	double size = fabs(value);
	int decimals = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;

	if (isnan(value))
		return "-";
	if (value == 0)
		return "0";
	snprintf(text, COMPARE_TEXT, "%.*f", decimals, value);
	return text;
}
