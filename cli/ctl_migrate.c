// SPDX-License-Identifier: Apache-2.0
// hospes ctl NAME migrate: connected here, with the rights of whoever asks, and handed over; the
// machine itself connects to nothing.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "address.h"
#include "answer.h"
#include "cli.h"
#include "ctl.h"
#include "output.h"

enum { DOWNTIME_MAX_MS = 600000 };

/* "50ms", "2s". */
static bool parse_time(const char *text, unsigned int *ms)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);
	bool seconds = strcmp(end, "s") == 0;

	if (*text < '0' || *text > '9' || (!seconds && strcmp(end, "ms") != 0) ||
	    n > DOWNTIME_MAX_MS || n * (seconds ? 1000 : 1) > DOWNTIME_MAX_MS || !n)
		return false;
	*ms = (unsigned int)(n * (seconds ? 1000 : 1));
	return true;
}

static int check(const char *what)
{
	const struct question question = {.verb = "GET", .target = "/v1/migration"};
	struct reply reply;
	int status = ctl_ask(what, &question, NULL, &reply);
	json_t *report = status == CLI_OK ? answer_load(reply.body) : NULL, *obstacles, *text;
	size_t i;

	if (status != CLI_OK)
		free(reply.body);
	if (!report)
		return CLI_FAILED;
	obstacles = json_object_get(report, "obstacles");
	json_array_foreach(obstacles, i, text)
	{
		printf("cannot be migrated: %s\n", json_string_value(text));
	}
	if (json_is_true(json_object_get(report, "possible")))
		printf("can be migrated\n");
	else
		status = CLI_FAILED;
	json_decref(report);
	return status;
}

static int cancel(const char *what)
{
	const struct question question = {.verb = "DELETE", .target = "/v1/migration"};
	struct reply reply;
	int status = ctl_ask(what, &question, NULL, &reply);

	free(reply.body);
	return status;
}

/* downtime_ms 0: the machine's default. */
static int move(const char *what, const char *address, unsigned int downtime_ms)
{
	int fd = address_connect(address), status;
	char body[80] = "{\"fd\": 0}";
	const struct question question = {
		.verb = "POST", .target = "/v1/migration", .body = body, .fds = &fd, .n_fds = 1};

	if (fd < 0)
		return CLI_FAILED;
	if (downtime_ms)
		snprintf(body, sizeof(body), "{\"fd\": 0, \"downtime_ms\": %u}", downtime_ms);
	status = ctl_await(
		what, &question,
		&(struct awaited){.event = "migrated", .progress = "migrating", .subject = address},
		NULL);
	close(fd);
	return status;
}

int ctl_migrate(const char *what, const char *address, const char *downtime, bool only_check)
{
	unsigned int ms = 0;

	if (only_check)
		return check(what);
	if (!address) {
		cli_error("migrate: takes unix:PATH, tcp:HOST:PORT or fd:N, where 'hospes run "
			  "--incoming' waits; 'cancel'; or --check");
		return CLI_USAGE;
	}
	if (strcmp(address, "cancel") == 0)
		return cancel(what);
	if (downtime && !parse_time(downtime, &ms)) {
		cli_error("--downtime %s: takes a time from 1ms to 600s, like 50ms", downtime);
		return CLI_USAGE;
	}
	return move(what, address, ms);
}
