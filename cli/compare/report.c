// SPDX-License-Identifier: Apache-2.0
// The files of a comparison.
#include "compare/report.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "output.h"

static int cannot_write(const char *path)
{
	cli_error("'%s': cannot be written: %s", path, strerror(errno));
	return CLI_FAILED;
}

static bool to_stdout(const struct compare_report *report)
{
	return report->json && strcmp(report->json, "-") == 0;
}

static int open_json(struct compare_report *report)
{
	struct stat st;
	int fd = open(report->json, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);

	if (fd < 0)
		return cannot_write(report->json);
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		report->json_path = realpath(report->json, NULL);
	close(fd);
	return CLI_OK;
}

int compare_report_open(struct compare_report *report)
{
	int status = report->json && !to_stdout(report) ? open_json(report) : CLI_OK;

	if (status != CLI_OK || !report->svg)
		return status;
	report->svg_file = fopen(report->svg, "we");
	return report->svg_file ? CLI_OK : cannot_write(report->svg);
}

int compare_report_resume(const struct compare_report *report, struct compare *c)
{
	json_error_t error;
	char why[256] = "";
	json_t *document;
	struct stat st;
	bool good;

	if (!report->json_path) {
		cli_error("--resume: goes on with the file of --json; name one");
		return CLI_USAGE;
	}
	if (stat(report->json_path, &st) == 0 && !st.st_size)
		return CLI_OK;
	document = json_load_file(report->json_path, 0, &error);
	good = document && compare_resume(c, document, why, sizeof(why));
	if (!good)
		cli_error("--resume '%s': %s; name another file, or leave --resume out",
			  report->json, document ? why : error.text);
	json_decref(document);
	return good ? CLI_OK : CLI_FAILED;
}

static bool dump(FILE *to, const struct compare *c)
{
	json_t *document = compare_json(c);
	bool good = document &&
		    json_dumpf(document, to, JSON_INDENT(1) | JSON_REAL_PRECISION(6)) == 0 &&
		    fputc('\n', to) != EOF;

	json_decref(document);
	return good;
}

/* Into a new file (`path`), which then is at `name` (NULL: it is there). */
static int write_file(const char *path, const char *name, const struct compare *c)
{
	FILE *f = fopen(path, "we");
	bool good = f && dump(f, c);

	/* What did not fit shows here at the latest. */
	good = f && fclose(f) == 0 && good;
	if (good && name)
		good = rename(path, name) == 0;
	return good ? CLI_OK : cannot_write(path);
}

int compare_report_save(const struct compare_report *report, const struct compare *c)
{
	char *path;
	int status;

	if (!report->json_path)
		return CLI_OK;
	if (asprintf(&path, "%s.new", report->json_path) < 0) {
		cli_error("no memory");
		return CLI_FAILED;
	}
	status = write_file(path, report->json_path, c);
	free(path);
	return status;
}

int compare_report_all(const struct compare_report *report, const struct compare *c)
{
	int status = CLI_OK;

	if (to_stdout(report))
		status = dump(stdout, c) ? CLI_OK : cannot_write("-");
	else if (report->json_path)
		status = compare_report_save(report, c);
	else if (report->json)
		status = write_file(report->json, NULL, c);
	if (report->svg_file)
		compare_print_svg(report->svg_file, c);
	if (!to_stdout(report))
		compare_print_table(stdout, c);
	return status;
}

int compare_report_close(struct compare_report *report)
{
	FILE *f = report->svg_file;
	int status = CLI_OK;

	if (f && (ferror(f) | fclose(f))) {
		cli_error("'%s': not written completely: %s", report->svg, strerror(errno));
		status = CLI_FAILED;
	}
	free(report->json_path);
	return status;
}
