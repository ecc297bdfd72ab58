// SPDX-License-Identifier: Apache-2.0
// hospes iommu compare: the same workload under every strategy, one guest each,
// reported as table, JSON and SVG.
#include "compare/compare.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "answer.h"
#include "cli.h"
#include "compare/arguments.h"
#include "compare/guest.h"
#include "compare/report.h"
#include "hospes/hospes.h"
#include "output.h"
#include "table.h"

struct run {
	struct compare_arguments arguments;
	struct compare_guest_config guest;
	struct compare compare;
	struct output output;
	json_t *host; /* of hospes_iommu_list */
	struct compare_report report;
	unsigned int done, total; /* runs */
	double start_s;
};

/* --- arguments --- */

static int bad(const char *option, const char *value, const char *wanted)
{
	cli_error("%s '%s': not %s; 'hospes iommu compare --help' shows the options", option, value,
		  wanted);
	return CLI_USAGE;
}

static bool read_number(const char *text, unsigned int max, unsigned int *ret)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	*ret = (unsigned int)value;
	return *text >= '0' && *text <= '9' && !*end && value >= 1 && value <= max;
}

/* The next word of a list with commas: false at its end. */
static bool next_of(const char **list, char *word, size_t bytes)
{
	size_t n = strcspn(*list, ",");

	if (!**list)
		return false;
	snprintf(word, bytes, "%.*s", (int)n, *list);
	*list += n + ((*list)[n] == ',');
	return true;
}

/* It stands between quotes in the guest's script. */
static bool harmless(const char *text)
{
	return !text ||
	       (*text && strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789./:_-@") == strlen(text));
}

static int read_simple(struct run *run)
{
	const struct compare_arguments *a = &run->arguments;

	if (!harmless(a->target))
		return bad("--target", a->target, "the name of a device");
	if (!harmless(a->peer) || !harmless(a->address))
		return bad("--peer, --address", a->peer ? a->peer : "", "an address");
	if (a->workload && strcmp(a->workload, "net") == 0 && (!a->peer || !a->address)) {
		cli_error("--workload net: needs --peer, where 'iperf3 -s' listens, and --address, "
			  "the guest's own with its length");
		return CLI_USAGE;
	}
	run->compare.seconds = a->seconds;
	run->compare.repeats = a->repeat;
	run->guest.timeout_s = a->timeout_s;
	run->guest.target = a->target;
	run->guest.peer = a->peer;
	run->guest.address = a->address;
	return CLI_OK;
}

/* --- cases and rows --- */

static int add_case(struct run *run, uint64_t bytes, unsigned int depth)
{
	bool net = run->arguments.peer;
	bool room =
		compare_add_case(&run->compare, net ? COMPARE_STREAM : COMPARE_BLOCK, bytes, depth);

	if (room && net && bytes <= 65000) /* what one ping carries */
		room = compare_add_case(&run->compare, COMPARE_RESPONSE, bytes, 1);
	if (room)
		return CLI_OK;
	cli_error("--sizes, --depths: more than %d cases; name fewer", COMPARE_CASES);
	return CLI_USAGE;
}

static int add_cases(struct run *run)
{
	const struct compare_arguments *a = &run->arguments;
	const char *net_sizes = a->peer ? "64,1K,16K,64K" : "4K,16K,64K,128K,512K";
	const char *depths = a->peer ? "1" : a->depths ? a->depths : "1,64";
	char word[32], deep[32];
	unsigned int depth;
	uint64_t bytes;

	while (next_of(&depths, deep, sizeof(deep))) {
		const char *sizes = a->sizes ? a->sizes : net_sizes;

		if (!read_number(deep, 1024, &depth))
			return bad("--depths", deep, "a number from 1 to 1024");
		while (next_of(&sizes, word, sizeof(word))) {
			int status;

			if (!table_size_parse(word, &bytes) || bytes > 1 << 30)
				return bad("--sizes", word, "a size such as 4K");
			if (!a->peer && bytes % 512)
				return bad("--sizes", word, "a multiple of 512");
			status = add_case(run, bytes, depth);
			if (status != CLI_OK)
				return status;
		}
	}
	return CLI_OK;
}

/* Is the name in the list? No list has all. */
static bool listed(const char *list, const char *name)
{
	char word[32];

	if (!list)
		return true;
	while (next_of(&list, word, sizeof(word))) {
		if (strcmp(word, name) == 0)
			return true;
	}
	return false;
}

static const json_t *find_strategy(const json_t *host, const char *name)
{
	json_t *strategy;
	size_t i;

	json_array_foreach(json_object_get(host, "strategies"), i, strategy)
	{
		if (strcmp(text_of(strategy, "name", ""), name) == 0)
			return strategy;
	}
	return NULL;
}

/* The next strategy of a list: a word with "=" is a parameter of the one before it. */
static bool next_strategy(const char **list, char *text, size_t bytes)
{
	char word[64];
	const char *rest;
	size_t n;

	if (!next_of(list, text, bytes))
		return false;
	for (rest = *list; next_of(&rest, word, sizeof(word)) && strchr(word, '='); *list = rest) {
		n = strlen(text);
		snprintf(text + n, bytes - n, ",%s", word);
	}
	return true;
}

/* One strategy, by its name with parameters: without a virtual IOMMU where it can be, and with it
 * for each kind of guest and transport. */
static bool add_strategy(struct run *run, const json_t *strategy, const char *name)
{
	static const char *const guests[] = {"strict", "lazy"};
	const char *promise = text_of(strategy, "summary", "");
	bool room = true;

	if (!json_is_true(json_object_get(strategy, "viommu")))
		room = compare_add_row(&run->compare, name, "", "", promise);
	for (unsigned int i = 0; i < sizeof(guests) / sizeof(guests[0]); i++) {
		const char *transports = run->arguments.transports;
		char transport[24] = "";

		if (!listed(run->arguments.guest, guests[i]))
			continue;
		if (!transports)
			room &= compare_add_row(&run->compare, name, guests[i], "", promise);
		while (transports && next_of(&transports, transport, sizeof(transport)))
			room &= compare_add_row(&run->compare, name, guests[i], transport, promise);
	}
	if (!room)
		cli_error("--strategies, --transports: more than %d guests; name fewer",
			  COMPARE_ROWS);
	return room;
}

static bool add_all(struct run *run)
{
	json_t *item;
	size_t i;

	json_array_foreach(json_object_get(run->host, "strategies"), i, item)
	{
		if (!add_strategy(run, item, text_of(item, "name", "")))
			return false;
	}
	return true;
}

static int add_rows(struct run *run)
{
	const char *wanted = run->arguments.strategies, *modes = run->arguments.guest;
	char word[32], text[sizeof(run->compare.rows[0].strategy)], names[256] = "";
	const json_t *all = json_object_get(run->host, "strategies"), *strategy;
	json_t *item;
	size_t i;

	while (modes && next_of(&modes, word, sizeof(word))) {
		if (strcmp(word, "strict") != 0 && strcmp(word, "lazy") != 0 &&
		    strcmp(word, "none") != 0)
			return bad("--guest", word, "strict, lazy or none");
	}
	json_array_foreach(all, i, item)
	{
		const char *name = text_of(item, "name", "");

		snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%s",
			 i ? ", " : "", name);
	}
	for (const char *rest = wanted; rest && next_strategy(&rest, text, sizeof(text));) {
		if (strcmp(text, "all") == 0 && !add_all(run))
			return CLI_USAGE;
		if (strcmp(text, "all") == 0)
			continue;
		snprintf(word, sizeof(word), "%.*s", (int)strcspn(text, ","), text);
		strategy = find_strategy(run->host, word);
		if (!strategy)
			return bad("--strategies", word, names);
		if (strlen(text) == sizeof(text) - 1)
			return bad("--strategies", text, "so long");
		if (!add_strategy(run, strategy, text))
			return CLI_USAGE;
	}
	if (!wanted && !add_all(run))
		return CLI_USAGE;
	if (run->compare.n_rows)
		return CLI_OK;
	cli_error("--guest none: leaves nothing to compare; add the strategy direct");
	return CLI_USAGE;
}

/* --- before anything starts --- */

static int take_device(struct run *run)
{
	json_t *list = json_object_get(run->arguments.document, "passthrough");
	const char *device = json_string_value(json_object_get(json_array_get(list, 0), "device"));

	if (json_array_size(list) != 1 || !device) {
		cli_error("--passthrough: name the one device to compare with; 'hospes iommu list' "
			  "shows those of this host, 'hospes vf bind BDF' binds one to vfio-pci");
		return CLI_USAGE;
	}
	run->guest.device = device;
	run->guest.document = run->arguments.document;
	snprintf(run->compare.device, sizeof(run->compare.device), "%s", device);
	compare_clean(run->compare.device);
	return CLI_OK;
}

/* Each guest's document, so that what is wrong is said now and not after half of the guests. */
static int check_documents(struct run *run)
{
	struct hospes_error error;

	for (unsigned int i = 0; i < run->compare.n_rows; i++) {
		json_t *document = compare_guest_document(&run->guest, &run->compare.rows[i], -1,
							  -1, STDIN_FILENO);
		char *text = json_dumps(document, JSON_COMPACT);
		int rc = text ? hospes_config_check(text, strlen(text), NULL, &error) : -ENOMEM;

		json_decref(document);
		free(text);
		if (!rc)
			continue;
		cli_error("%s: %s", run->compare.rows[i].label,
			  rc == -ENOMEM ? "no memory" : error.text);
		return CLI_FAILED;
	}
	return CLI_OK;
}

static bool in_virtual_machine(void)
{
	FILE *f = fopen("/proc/cpuinfo", "re");
	char line[4096];
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f))
		found = strncmp(line, "flags", 5) == 0 && strstr(line, " hypervisor");
	if (f)
		fclose(f);
	return found;
}

static void describe_host(struct compare *c)
{
	time_t now = time(NULL);
	struct utsname name;
	struct tm utc;

	gmtime_r(&now, &utc);
	strftime(c->date, sizeof(c->date), "%Y-%m-%d", &utc);
	if (uname(&name) == 0)
		snprintf(c->host, sizeof(c->host), "Linux %.64s", name.release);
	compare_clean(c->host);
	c->emulated = in_virtual_machine();
}

static int read_host(struct run *run)
{
	struct hospes_error error;
	char *text;

	if (hospes_iommu_list(&text, &error) < 0) {
		cli_error("%s", error.text);
		return CLI_FAILED;
	}
	run->host = answer_load(text);
	return run->host ? CLI_OK : CLI_FAILED;
}

/* --- the runs --- */

static double clock_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void progress(const struct run *run, unsigned int row, const char *what)
{
	bool terminal = isatty(STDERR_FILENO);
	double left =
		run->done ? (clock_s() - run->start_s) / run->done * (run->total - run->done) : 0;
	char rest[48] = "";

	if (left > 0)
		snprintf(rest, sizeof(rest), "; about %.0f min left", ceil(left / 60));
	fprintf(stderr, "%s%3u %% %s: %s%s%s", terminal ? "\r\033[K" : "",
		run->done * 100 / run->total, run->compare.rows[row].label, what, rest,
		terminal ? "" : "\n");
}

/* Runs that the row lacks. */
static unsigned int missing(const struct compare *c, unsigned int row)
{
	unsigned int n = 0;

	for (unsigned int at = 0; at < c->n_cases; at++)
		n += c->repeats - compare_cell(c, row, at)->n;
	return n;
}

/* All runs of a case in a guest: 0 or a negative errno with the row's error set. */
static int run_case(struct run *run, struct compare_guest *guest, unsigned int row, unsigned int at)
{
	struct compare_cell *cell = compare_cell(&run->compare, row, at);
	char *why = run->compare.rows[row].error;
	unsigned int tries = 0;

	if (cell->n == run->compare.repeats)
		return 0;
	progress(run, row, run->compare.cases[at].label);
	while (cell->n < run->compare.repeats) {
		int rc = compare_guest_run(guest, &run->compare.cases[at], run->compare.seconds,
					   cell->samples[cell->n], why,
					   sizeof(run->compare.rows[row].error));

		/* A line that the guest's kernel spoke into. */
		if (rc == -EAGAIN && tries++ < 3)
			continue;
		if (rc)
			return rc;
		why[0] = '\0';
		cell->n++;
		run->done++;
	}
	return compare_report_save(&run->report, &run->compare) == CLI_OK ? 0 : -EIO;
}

static void run_row(struct run *run, unsigned int row)
{
	struct compare_row *r = &run->compare.rows[row];
	unsigned int after = run->done + missing(&run->compare, row);
	struct compare_guest *guest;
	int rc;

	progress(run, row, "its guest starts");
	rc = compare_guest_start(&guest, &run->guest, r, &run->compare, r->error, sizeof(r->error));
	if (!rc) {
		for (unsigned int at = 0; at < run->compare.n_cases && !rc; at++)
			rc = run_case(run, guest, row, at);
		compare_guest_end(guest);
	}
	run->done = after;
	if (isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
	if (rc && r->error[0])
		cli_error("%s: %s", r->label, compare_clean(r->error));
}

static int report(struct run *run)
{
	int status = compare_report_all(&run->report, &run->compare);

	for (unsigned int i = 0; i < run->compare.n_rows; i++) {
		if (run->compare.rows[i].error[0])
			status = CLI_FAILED;
	}
	return status;
}

static int compare(struct run *run)
{
	int status = read_simple(run);

	if (status == CLI_OK)
		status = take_device(run);
	if (status == CLI_OK)
		status = add_cases(run);
	if (status == CLI_OK)
		status = read_host(run);
	if (status == CLI_OK)
		status = add_rows(run);
	if (status == CLI_OK)
		status = check_documents(run);
	if (status == CLI_OK)
		status = compare_report_open(&run->report);
	if (status == CLI_OK && compare_start(&run->compare))
		status = CLI_FAILED;
	describe_host(&run->compare);
	if (status == CLI_OK && run->arguments.resume)
		status = compare_report_resume(&run->report, &run->compare);
	if (status != CLI_OK)
		return status;
	for (unsigned int row = 0; row < run->compare.n_rows; row++)
		run->total += missing(&run->compare, row);
	run->start_s = clock_s();
	for (unsigned int row = 0; row < run->compare.n_rows; row++) {
		if (missing(&run->compare, row))
			run_row(run, row);
	}
	return report(run);
}

static int compare_and_close(struct run *run)
{
	int status;

	signal(SIGPIPE, SIG_IGN);
	run->output.to = stderr;
	run->guest.output = &run->output;
	run->report =
		(struct compare_report){.json = run->arguments.json, .svg = run->arguments.svg};
	status = compare(run);
	if (compare_report_close(&run->report) != CLI_OK)
		status = CLI_FAILED;
	compare_done(&run->compare);
	return status;
}

int compare_main(int argc, char **argv)
{
	struct run *run = calloc(1, sizeof(*run));
	int status = CLI_FAILED;

	if (!run) {
		cli_error("no memory");
		return status;
	}
	run->arguments = (struct compare_arguments){.seconds = 2, .repeat = 5, .timeout_s = 120};
	if (options_parse(&compare_command, argc, argv, &run->arguments, &status))
		status = compare_and_close(run);
	json_decref(run->host);
	json_decref(run->arguments.document);
	free(run);
	return status;
}
