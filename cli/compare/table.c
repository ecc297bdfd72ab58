// SPDX-License-Identifier: Apache-2.0
// A comparison for people at a terminal: per case what it costs, then what it exposes.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "compare/compare.h"
#include "table.h"

enum { LABEL = 28, CELL = 7, WIDE = 10 };

static void cell(FILE *to, int width, const char *text)
{
	fprintf(to, " %*s", width, text);
}

static void number(FILE *to, double value)
{
	char text[COMPARE_TEXT];

	cell(to, CELL, compare_number(value, text));
}

static void bytes(FILE *to, double value)
{
	char text[COMPARE_TEXT];

	cell(to, WIDE, table_size(value, text));
}

/* "x1.25" */
static void times(FILE *to, int width, double value, bool about)
{
	char digits[COMPARE_TEXT], text[COMPARE_TEXT];

	if (isnan(value)) {
		cell(to, width, "-");
		return;
	}
	snprintf(text, sizeof(text), "%sx%.20s", about ? "~" : "", compare_number(value, digits));
	cell(to, width, text);
}

static void percent(FILE *to, double share)
{
	char text[COMPARE_TEXT];

	snprintf(text, sizeof(text), isnan(share) ? "-" : "%.0f%%", 100 * share);
	cell(to, CELL, text);
}

static int label_width(const struct compare *c)
{
	size_t width = LABEL;

	for (unsigned int i = 0; i < c->n_rows; i++) {
		if (strlen(c->rows[i].label) + 2 > width)
			width = strlen(c->rows[i].label) + 2;
	}
	return (int)width;
}

static void head(FILE *to, const struct compare *c, const char *title, int width,
		 const char *const *columns)
{
	fprintf(to, "\n%-*s", label_width(c), title);
	for (; *columns; columns++)
		cell(to, width, *columns);
	fputc('\n', to);
}

static double median(const struct compare *c, unsigned int row, unsigned int at,
		     enum compare_figure figure)
{
	return compare_value(c, row, at, figure).median;
}

static void cost_row(FILE *to, const struct compare *c, unsigned int row, unsigned int at)
{
	static const enum compare_figure parts[] = {COMPARE_GUEST, COMPARE_VMM, COMPARE_KERNEL,
						    COMPARE_MAPS, COMPARE_UNMAPS};

	fprintf(to, "%c %-*s", compare_is_on_front(c, row, at) ? '*' : ' ', label_width(c) - 2,
		c->rows[row].label);
	number(to, median(c, row, at, COMPARE_RATE));
	times(to, CELL, compare_relative(c, row, at, COMPARE_RATE), false);
	number(to, median(c, row, at, COMPARE_LATENCY));
	number(to, median(c, row, at, COMPARE_P99));
	number(to, median(c, row, at, COMPARE_CPU));
	times(to, CELL, compare_relative(c, row, at, COMPARE_CPU), false);
	for (unsigned int i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		number(to, median(c, row, at, parts[i]));
	percent(to, compare_hit_rate(c, row, at));
	number(to, compare_pair_us(c, row, at));
	fputc('\n', to);
}

static void costs(FILE *to, const struct compare *c, unsigned int at)
{
	static const char *const columns[] = {"per s",   "/direct", "mean us", "p99 us", "CPU us",
					      "/direct", "guest",   "hospes",  "kernel", "maps",
					      "unmaps",  "found",   "us/map",  NULL};

	head(to, c, c->cases[at].label, CELL, columns);
	for (unsigned int row = 0; row < c->n_rows; row++) {
		if (compare_cell(c, row, at)->n)
			cost_row(to, c, row, at);
	}
	for (unsigned int i = 0; i < n_compare_theirs; i++) {
		/* What holds for every case is said once, below. */
		if (compare_theirs[i].depth &&
		    compare_theirs_fits(&compare_theirs[i], &c->cases[at]))
			fprintf(to, "  theirs: %s [%s]\n", compare_theirs[i].what,
				compare_theirs[i].source);
	}
}

static void exposure_row(FILE *to, const struct compare *c, unsigned int row, unsigned int at)
{
	bool borrowed;
	double over = compare_over_exposure(c, row, at, &borrowed);

	fprintf(to, "  %-*s", label_width(c) - 2, c->rows[row].label);
	bytes(to, median(c, row, at, COMPARE_MAPPED));
	times(to, WIDE, compare_relative(c, row, at, COMPARE_MAPPED), false);
	bytes(to, median(c, row, at, COMPARE_REQUESTED));
	times(to, WIDE, over, borrowed);
	bytes(to, median(c, row, at, COMPARE_STALE));
	bytes(to, median(c, row, at, COMPARE_PINNED));
	times(to, WIDE, compare_relative(c, row, at, COMPARE_PINNED), false);
	fputc('\n', to);
}

static void exposures(FILE *to, const struct compare *c, unsigned int at)
{
	static const char *const columns[] = {"reachable", "/direct", "wanted",  "over-exp.",
					      "stale",     "pinned",  "/direct", NULL};

	head(to, c, c->cases[at].label, WIDE, columns);
	for (unsigned int row = 0; row < c->n_rows; row++) {
		if (compare_cell(c, row, at)->n)
			exposure_row(to, c, row, at);
	}
}

static bool fits_any(const struct compare *c, const struct compare_theirs *theirs)
{
	for (unsigned int at = 0; at < c->n_cases; at++) {
		if (compare_theirs_fits(theirs, &c->cases[at]))
			return true;
	}
	return false;
}

static void notes(FILE *to, const struct compare *c)
{
	fprintf(to,
		"\nper s: operations. CPU us: of guest, hospes and the host's kernel for it, per "
		"operation; so are maps and\nunmaps, calls in the host's IOMMU. found: requests to "
		"map what was still mapped, or was mapped with others\nin one call, of all. us/map: "
		"CPU beyond direct's per map that the guest asked for (its unmap included).\n*: no "
		"other row is both cheaper and less exposed. reachable, pinned: means over time; "
		"wanted: what the guest\nhad asked for; over-exp.: their ratio (~: to what a guest "
		"under strict wants). Medians of up to %u runs\nof %u s.\n",
		c->repeats, c->seconds);
	for (unsigned int i = 0; i < n_compare_theirs; i++) {
		if (!compare_theirs[i].depth && fits_any(c, &compare_theirs[i]))
			fprintf(to, "theirs: %s [%s]\n", compare_theirs[i].what,
				compare_theirs[i].source);
	}
	if (c->emulated)
		fputs("This host is itself a virtual machine: counts, bytes and CPU time are valid as "
		      "ratios; misses of a real\nIOMMU's cache, its invalidations and the device's "
		      "own speed are not seen.\n",
		      to);
	for (unsigned int i = 0; i < c->n_rows; i++) {
		if (c->rows[i].error[0])
			fprintf(to, "NOT ALL OF '%s': %s\n", c->rows[i].label, c->rows[i].error);
	}
}

void compare_print_table(FILE *to, const struct compare *c)
{
	fprintf(to, "%s, %s; host %s; guest: %s\n\nWHAT IT COSTS\n", c->device, c->date, c->host,
		c->guest);
	for (unsigned int at = 0; at < c->n_cases; at++)
		costs(to, c, at);
	fputs("\nWHAT IT EXPOSES\n", to);
	for (unsigned int at = 0; at < c->n_cases; at++)
		exposures(to, c, at);
	notes(to, c);
}
