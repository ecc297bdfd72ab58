// SPDX-License-Identifier: Apache-2.0
// A comparison as a picture: a panel per case; across, the memory that the device could reach (by
// powers of two); up, CPU time per operation, of direct's (likewise); the area of a mark, pinned
// memory; as steps, the rows that no other betters in both. Plain SVG 1.1 with one style sheet for
// light and dark, no script. Marks bear letters, placed so that nothing overlaps.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compare/compare.h"
#include "table.h"

enum {
	MAX_COLUMNS = 5,
	COLOURS = 8,
	OBSTACLES = 2 * COMPARE_ROWS,
};

/* Pixels. LEFT and so on are what a panel keeps for its axes. */
static const double PANEL_W = 250, PANEL_H = 190;
static const double LEFT = 46, TOP = 26, BOTTOM = 30, RIGHT = 14;
static const double GAP = 8, HEAD = 88, LEGEND_LINE = 18;
static const double LETTER_W = 9, LETTER_H = 11;
static const double R_MIN = 3, R_MAX = 11;

static const char style[] =
	"<style>\n"
	".bg{fill:#fff}.panel{fill:#f6f7f9;stroke:#c9ced6}text{fill:#1d2430;font:11px sans-serif}\n"
	".title{font-size:15px;font-weight:bold}.case{font-weight:bold}.dim,.across,.up{fill:#5c6675}\n"
	".across{text-anchor:middle}.up{text-anchor:end}\n"
	".grid{stroke:#dfe3e9}.one{stroke:#8b95a5;stroke-dasharray:4 3}.lead{stroke:#8b95a5}\n"
	".front{fill:none;stroke:#1d2430;stroke-width:1.5;stroke-opacity:.6}\n"
	".letter{font-weight:bold;text-anchor:middle}.mark{fill-opacity:.55;stroke-width:1.5}\n"
	".c0{fill:#3b6fb6;stroke:#3b6fb6}.c1{fill:#c0504d;stroke:#c0504d}.c2{fill:#4f9d69;stroke:#4f9d69}\n"
	".c3{fill:#8064a2;stroke:#8064a2}.c4{fill:#c77d0a;stroke:#c77d0a}.c5{fill:#2a93a5;stroke:#2a93a5}\n"
	".c6{fill:#a0527c;stroke:#a0527c}.c7{fill:#6b7280;stroke:#6b7280}\n"
	"@media (prefers-color-scheme:dark){\n"
	".bg{fill:#14181f}.panel{fill:#1b212b;stroke:#3a4352}text{fill:#e4e8ee}.dim,.across,.up{fill:#9aa5b5}\n"
	".grid{stroke:#2a3240}.one,.lead{stroke:#7a869a}.front{stroke:#e4e8ee}\n"
	".c0{fill:#6fa3ea;stroke:#6fa3ea}.c1{fill:#ec8480;stroke:#ec8480}.c2{fill:#7fce9a;stroke:#7fce9a}\n"
	".c3{fill:#b79ade;stroke:#b79ade}.c4{fill:#f0b04f;stroke:#f0b04f}.c5{fill:#62c8da;stroke:#62c8da}\n"
	".c6{fill:#d98bb4;stroke:#d98bb4}.c7{fill:#a3acba;stroke:#a3acba}\n"
	"}\n"
	"</style>\n";

struct box {
	double x0, y0, x1, y1;
};

struct scale {
	double low, high; /* of the logarithms (of two) of the values */
};

struct mark {
	double x, y, r;
	unsigned int row;
};

/* Text in an XML document: markup is escaped, characters that XML forbids become '?'. */
static void escaped(FILE *to, const char *text)
{
	for (; *text; text++) {
		switch (*text) {
		case '&':
			fputs("&amp;", to);
			break;
		case '<':
			fputs("&lt;", to);
			break;
		case '>':
			fputs("&gt;", to);
			break;
		case '"':
			fputs("&quot;", to);
			break;
		case '\'':
			fputs("&#39;", to);
			break;
		default:
			fputc(*text >= ' ' && *text <= '~' ? *text : '?', to);
		}
	}
}

static void words(FILE *to, double x, double y, const char *class, const char *text)
{
	fprintf(to, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">", x, y, class);
	escaped(to, text);
	fputs("</text>\n", to);
}

/* --- scales --- */

static double reachable(const struct compare *c, unsigned int row, unsigned int at)
{
	return compare_value(c, row, at, COMPARE_MAPPED).median;
}

/* CPU of direct's; without direct, microseconds. */
static double cost(const struct compare *c, unsigned int row, unsigned int at)
{
	double relative = compare_relative(c, row, at, COMPARE_CPU);

	return isnan(relative) ? compare_value(c, row, at, COMPARE_CPU).median : relative;
}

static bool drawable(double x, double y)
{
	return isfinite(x) && isfinite(y) && y > 0;
}

/* Over all panels, so that they compare. */
static void scales(const struct compare *c, struct scale *across, struct scale *up, double *pinned)
{
	*across = (struct scale){HUGE_VAL, -HUGE_VAL};
	*up = (struct scale){0, 0};
	*pinned = 0;
	for (unsigned int i = 0; i < c->n_rows * c->n_cases; i++) {
		unsigned int row = i / c->n_cases, at = i % c->n_cases;
		double x = reachable(c, row, at), y = cost(c, row, at);

		if (!drawable(x, y))
			continue;
		across->low = fmin(across->low, log2(fmax(x, 1)));
		across->high = fmax(across->high, log2(fmax(x, 1)));
		up->low = fmin(up->low, log2(y));
		up->high = fmax(up->high, log2(y));
		*pinned = fmax(*pinned, compare_value(c, row, at, COMPARE_PINNED).median);
	}
	if (across->low > across->high)
		*across = (struct scale){12, 30};
	across->low = floor(across->low - 1);
	across->high = ceil(across->high + 1);
	up->low -= 0.4;
	up->high += 0.4;
}

static double place(double value, struct scale s, double from, double to)
{
	return from + (value - s.low) / (s.high - s.low) * (to - from);
}

/* --- a panel --- */

static void grid(FILE *to, struct scale across, struct scale up, const struct box *in)
{
	double every = fmax(1, ceil((across.high - across.low) / 4));
	static const double digits[] = {1, 2, 5};
	char text[COMPARE_TEXT];

	for (unsigned int i = 0; across.low + i * every <= across.high - every / 2; i++) {
		double v = across.low + i * every, x = place(v, across, in->x0, in->x1);

		fprintf(to,
			"<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n",
			x, in->y0, x, in->y1);
		words(to, x, in->y1 + 14, "across", table_size(exp2(v), text));
	}
	for (int decade = -3; decade < 9; decade++) {
		double power = pow(10, decade);

		for (unsigned int k = 0; k < sizeof(digits) / sizeof(digits[0]); k++) {
			double v = log2(power * digits[k]), y = place(v, up, in->y1, in->y0);

			if (v < up.low || v > up.high || (k && up.high - up.low > 12))
				continue;
			fprintf(to,
				"<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" "
				"y2=\"%.1f\"/>\n",
				in->x0, y, in->x1, y);
			snprintf(text, sizeof(text), "%g", power * digits[k]);
			words(to, in->x0 - 6, y + 4, "up", text);
		}
	}
}

static bool apart(const struct box *a, const struct box *b)
{
	return a->x1 <= b->x0 || b->x1 <= a->x0 || a->y1 <= b->y0 || b->y1 <= a->y0;
}

static bool is_free(const struct box *box, const struct box *in, const struct box *taken,
		    unsigned int n)
{
	if (box->x0 < in->x0 || box->x1 > in->x1 || box->y0 < in->y0 || box->y1 > in->y1)
		return false;
	for (unsigned int i = 0; i < n; i++) {
		if (!apart(box, &taken[i]))
			return false;
	}
	return true;
}

/* The nearest place around the mark, in rings, where a letter overlaps nothing. */
static struct box letter_box(const struct mark *mark, const struct box *in, const struct box *taken,
			     unsigned int n)
{
	struct box box = {0};

	for (unsigned int ring = 0; mark->r + 8 + ring * 3 < PANEL_W; ring++) {
		double away = mark->r + 8 + ring * 3;

		for (unsigned int turn = 0; turn < 24; turn++) {
			double angle = -0.8 + turn * 2 * 3.14159265358979 / 24;
			double x = mark->x + cos(angle) * away, y = mark->y + sin(angle) * away;

			box = (struct box){x - LETTER_W / 2, y - LETTER_H / 2, x + LETTER_W / 2,
					   y + LETTER_H / 2};
			if (is_free(&box, in, taken, n))
				return box;
		}
	}
	return box;
}

static unsigned int collect(const struct compare *c, unsigned int at, struct scale across,
			    struct scale up, double pinned, const struct box *in,
			    struct mark *marks)
{
	unsigned int n = 0;

	for (unsigned int row = 0; row < c->n_rows; row++) {
		double x = reachable(c, row, at), y = cost(c, row, at);
		double held = compare_value(c, row, at, COMPARE_PINNED).median;

		if (!drawable(x, y))
			continue;
		marks[n++] = (struct mark){
			.x = place(log2(fmax(x, 1)), across, in->x0, in->x1),
			.y = place(log2(y), up, in->y1, in->y0),
			.r = R_MIN +
			     (pinned > 0 && held > 0 ? sqrt(held / pinned) : 0) * (R_MAX - R_MIN),
			.row = row,
		};
	}
	return n;
}

/* Strategies have colours, in the order in which they come. */
static unsigned int colour(const struct compare *c, unsigned int row)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i <= row; i++) {
		unsigned int k = 0;

		while (strcmp(c->rows[k].strategy, c->rows[i].strategy) != 0)
			k++;
		if (strcmp(c->rows[i].strategy, c->rows[row].strategy) == 0)
			return n % COLOURS;
		n += k == i;
	}
	return 0;
}

/* Its letters: A, B, … Z, a, b, … */
static char letter(unsigned int row)
{
	return (char)(row < 26 ? 'A' + (int)row : 'a' + (int)row - 26);
}

static void draw_marks(FILE *to, const struct compare *c, const struct mark *marks, unsigned int n,
		       const struct box *in)
{
	struct box taken[OBSTACLES];
	unsigned int used = 0;

	for (unsigned int i = 0; i < n; i++) {
		const struct mark *m = &marks[i];

		fprintf(to, "<circle class=\"mark c%u\" cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\"/>\n",
			colour(c, m->row), m->x, m->y, m->r);
		taken[used++] = (struct box){m->x - m->r, m->y - m->r, m->x + m->r, m->y + m->r};
	}
	for (unsigned int i = 0; i < n; i++) {
		const struct mark *m = &marks[i];
		struct box box = letter_box(m, in, taken, used);
		double x = (box.x0 + box.x1) / 2, y = (box.y0 + box.y1) / 2;

		if (hypot(x - m->x, y - m->y) > m->r + 14)
			fprintf(to,
				"<line class=\"lead\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" "
				"y2=\"%.1f\"/>\n",
				m->x, m->y, x, y);
		fprintf(to, "<text class=\"letter\" x=\"%.1f\" y=\"%.1f\">%c</text>\n", x, y + 4,
			letter(m->row));
		taken[used++] = box;
	}
}

static int by_place(const void *a, const void *b)
{
	const struct mark *one = a, *two = b;

	return one->x != two->x ? (one->x > two->x) - (one->x < two->x)
				: (one->y > two->y) - (one->y < two->y);
}

/* The Pareto front as steps, from edge to edge of the panel: some row betters all that is above and
 * right of it. */
static void draw_front(FILE *to, const struct compare *c, unsigned int at, const struct mark *marks,
		       unsigned int n, const struct box *in)
{
	struct mark front[COMPARE_ROWS];
	unsigned int n_front = 0;

	for (unsigned int i = 0; i < n; i++) {
		if (compare_is_on_front(c, marks[i].row, at))
			front[n_front++] = marks[i];
	}
	if (!n_front)
		return;
	qsort(front, n_front, sizeof(front[0]), by_place);
	fprintf(to, "<path class=\"front\" d=\"M%.1f %.1f", front[0].x, in->y0);
	for (unsigned int i = 0; i < n_front; i++)
		fprintf(to, "H%.1fV%.1f", front[i].x, front[i].y);
	fprintf(to, "H%.1f\"/>\n", in->x1);
}

static void panel(FILE *to, const struct compare *c, unsigned int at, double x, double y)
{
	const struct box in = {x + LEFT, y + TOP, x + PANEL_W - RIGHT, y + PANEL_H - BOTTOM};
	struct mark marks[COMPARE_ROWS];
	struct scale across, up;
	double pinned, one;
	unsigned int n;

	scales(c, &across, &up, &pinned);
	words(to, in.x0, y + 16, "case", c->cases[at].label);
	fprintf(to,
		"<rect class=\"panel\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n",
		in.x0, in.y0, in.x1 - in.x0, in.y1 - in.y0);
	grid(to, across, up, &in);
	one = place(0, up, in.y1, in.y0);
	fprintf(to, "<line class=\"one\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n",
		in.x0, one, in.x1, one);
	n = collect(c, at, across, up, pinned, &in, marks);
	draw_front(to, c, at, marks, n, &in);
	draw_marks(to, c, marks, n, &in);
}

static void legend(FILE *to, const struct compare *c, double y)
{
	for (unsigned int row = 0; row < c->n_rows; row++) {
		char text[3 * COMPARE_TEXT];

		fprintf(to, "<circle class=\"mark c%u\" cx=\"20\" cy=\"%.1f\" r=\"5\"/>\n",
			colour(c, row), y - 4);
		snprintf(text, sizeof(text), "%c  %s%s%.150s", letter(row), c->rows[row].label,
			 c->rows[row].promise ? ": " : "",
			 c->rows[row].promise ? c->rows[row].promise : "");
		words(to, 32, y, "", text);
		y += LEGEND_LINE;
	}
}

void compare_print_svg(FILE *to, const struct compare *c)
{
	unsigned int columns =
		c->n_cases < MAX_COLUMNS ? (c->n_cases ? c->n_cases : 1) : MAX_COLUMNS;
	unsigned int lines = (c->n_cases + columns - 1) / columns;
	double width = fmax(columns * (PANEL_W + GAP) + GAP, 3 * PANEL_W);
	double below = HEAD + lines * (PANEL_H + GAP) + 24;
	double height = below + c->n_rows * LEGEND_LINE;
	char text[3 * COMPARE_TEXT];

	fprintf(to,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" role=\"img\">\n",
		width, height);
	fputs("<title>Cost of DMA mapping strategies against what they expose</title>\n", to);
	fputs(style, to);
	fprintf(to, "<rect class=\"bg\" width=\"%.0f\" height=\"%.0f\"/>\n", width, height);
	words(to, 14, 24, "title", "Cost against exposure");
	snprintf(text, sizeof(text), "%s, %s; host %s", c->device, c->date, c->host);
	words(to, 14, 42, "dim", text);
	words(to, 14, 60, "dim",
	      "Up: CPU time of guest and host per operation, direct's is 1 (dashed); across: memory that the "
	      "device could reach, mean over time.");
	words(to, 14, 76, "dim",
	      "The area of a mark: memory pinned on the host. On the stepped line are the rows that no other betters in both.");
	for (unsigned int at = 0; at < c->n_cases; at++) {
		unsigned int column = at % columns, line = at / columns;

		panel(to, c, at, GAP + column * (PANEL_W + GAP), HEAD + line * (PANEL_H + GAP));
	}
	legend(to, c, below);
	fputs("</svg>\n", to);
}
