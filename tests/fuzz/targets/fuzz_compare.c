// SPDX-License-Identifier: Apache-2.0
// What a guest's programs answer to 'hospes iommu compare', and the machine's status. Oracle: an
// answer that is taken has numbers that can be computed with, those of fio are the fields that
// fio(1) says they are, and what is made of them is a document and a picture without an infinity.
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compare/compare.h"
#include "fuzz.h"

enum { FIELDS = 64, BLOCK = 4096, MESSAGE = 64 };

static bool number(double value)
{
	return isfinite(value) && value >= 0;
}

static void check_answer(const struct compare_answer *a)
{
	check(number(a->operations) && a->operations > 0);
	check(number(a->seconds) && a->seconds > 0);
	check(isnan(a->latency_us) || number(a->latency_us));
	check(isnan(a->p99_us) || number(a->p99_us));
}

/* fio's line once more, cut into fields in place. */
static void check_fio(char *line, const struct compare_answer *a)
{
	char *fields[FIELDS], *rest = line;
	unsigned int n = 0;

	while (rest && n < FIELDS)
		fields[n++] = strsep(&rest, ";");
	check(n >= 41 && strtod(fields[0], NULL) == 3 && strtod(fields[4], NULL) == 0);
	check(a->operations == strtod(fields[5], NULL) * 1024 / (double)BLOCK);
	check(a->seconds == strtod(fields[8], NULL) / 1e3);
	check(isnan(a->latency_us) || a->latency_us == strtod(fields[39], NULL));
}

/* Two rows of the answer, as a run would make them. */
static void check_told(const struct compare_answer *answer)
{
	struct compare_snapshot from = {0}, to = {.time_s = answer->seconds,
						  .user_s = answer->seconds,
						  .returns = answer->operations};
	double figures[COMPARE_FIGURES];

	compare_figures_of(&from, &to, answer, BLOCK, true, figures);
	check(number(figures[COMPARE_RETURNS]) && !isnan(figures[COMPARE_CPU]));
	for (unsigned int i = 0; i < COMPARE_FIGURES; i++)
		check(isnan(figures[i]) || figures[i] >= 0);
}

static void check_status(const char *text)
{
	json_t *status = json_loads(text, 0, NULL);
	struct compare_snapshot snapshot;

	for (unsigned int behind = 0; behind < 2; behind++) {
		int rc = compare_parse_status(status, "d", behind, &snapshot);

		check(rc == 0 || rc == -ENOENT);
		check(status || rc);
		check(rc || isnan(snapshot.maps) || isfinite(snapshot.maps));
	}
	json_decref(status);
}

/* A document of an earlier run: what is taken of it are numbers, or known to be missing. */
static void check_document(const char *text)
{
	static struct compare c;
	json_t *document = json_loads(text, 0, NULL);
	char why[256];

	c = (struct compare){.device = "d", .host = "h", .seconds = 1, .repeats = 3};
	compare_add_row(&c, "strict", "strict", "", NULL);
	compare_add_case(&c, COMPARE_BLOCK, BLOCK, 1);
	check(!compare_start(&c));
	if (document && compare_resume(&c, document, why, sizeof(why))) {
		check(c.cells[0].n <= c.repeats);
		for (unsigned int i = 0; i < c.cells[0].n * COMPARE_FIGURES; i++)
			check(!isinf(c.cells[0].samples[i / COMPARE_FIGURES][i % COMPARE_FIGURES]));
	}
	compare_done(&c);
	json_decref(document);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Its end is the end of its memory, for sanitizers. */
	char *text = malloc(size + 1);
	struct compare_answer a;

	check(text != NULL);
	memcpy(text, data, size);
	text[size] = '\0';
	check_status(text);
	check_document(text);
	if (!compare_parse_iperf(text, MESSAGE, &a)) {
		check_answer(&a);
		check_told(&a);
	}
	if (!compare_parse_ping(text, 1, &a)) {
		check_answer(&a);
		check_told(&a);
	}
	if (!compare_parse_fio(text, BLOCK, &a)) {
		check_answer(&a);
		check_told(&a);
		check_fio(text, &a);
	}
	free(text);
	return 0;
}
