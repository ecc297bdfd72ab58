/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of a comparison. The document is written after each case, as a whole or not at all, so
 * that a run that was interrupted can go on.
 *
 * Functions return an exit status of the command (cli.h), having printed what is wrong.
 */
#ifndef COMPARE_REPORT_H
#define COMPARE_REPORT_H

#include <stdio.h>

#include "compare/compare.h"

struct compare_report {
	const char *json, *svg; /* as the user named them; NULL: none; json "-": standard output */
	char *json_path;        /* a regular file, without links; NULL: it is none */
	FILE *svg_file;
};

/* Before guests start: can the files be written? */
int compare_report_open(struct compare_report *report);
/* Take over what the document has; nothing where it is empty. After compare_start. */
int compare_report_resume(const struct compare_report *report, struct compare *c);
int compare_report_save(const struct compare_report *report, const struct compare *c);
/* The document and the picture; and the table, unless the document went to standard output. */
int compare_report_all(const struct compare_report *report, const struct compare *c);
int compare_report_close(struct compare_report *report);

#endif
