// SPDX-License-Identifier: Apache-2.0
// hospes ctl NAME dump FILE: the file is made here, with the rights of whoever asks; the machine
// writes it. The stream of events says how that ends, so it is read from before the beginning.
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "answer.h"
#include "cli.h"
#include "ctl.h"
#include "output.h"

struct dump {
	const char *what, *path;
	int fd;
	bool asked, ended;
	int status;
	char line[4096]; /* of the stream, as far as it has come */
	size_t n;
};

static void ask_for_it(struct dump *d)
{
	const struct question question = {.verb = "POST",
					  .target = "/v1/dump",
					  .body = "{\"fd\": 0}",
					  .fds = &d->fd,
					  .n_fds = 1};
	struct reply reply;

	d->asked = true;
	d->status = ctl_ask(d->what, &question, NULL, &reply);
	d->ended = d->status != CLI_OK;
	free(reply.body);
}

/* The first event says that the stream has begun. */
static void take_event(struct dump *d)
{
	json_t *event = json_loads(d->line, 0, NULL);
	const char *text = text_of(event, "text", "");

	if (!d->asked) {
		ask_for_it(d);
	} else if (strcmp(text_of(event, "event", ""), "dumped") == 0) {
		d->ended = true;
		if (*text) {
			cli_error("%s: %s: %s", d->what, d->path, text);
			d->status = CLI_FAILED;
		}
	}
	json_decref(event);
}

/* A stream's write: with an error it ends. */
static ssize_t take_bytes(void *cookie, const char *bytes, size_t n)
{
	struct dump *d = cookie;

	for (size_t i = 0; i < n && !d->ended; i++) {
		if (bytes[i] == '\n') {
			d->line[d->n] = '\0';
			d->n = 0;
			take_event(d);
		} else if (d->n < sizeof(d->line) - 1) {
			d->line[d->n++] = bytes[i];
		}
	}
	if (!d->ended)
		return (ssize_t)n;
	errno = EPIPE;
	return 0;
}

int ctl_dump(const char *what, const char *path)
{
	const struct question question = {.verb = "GET", .target = "/v1/events"};
	struct dump d = {.what = what, .path = path, .status = CLI_FAILED};
	struct reply reply = {0};
	FILE *events;
	int status;

	d.fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (d.fd < 0) {
		cli_error("%s: cannot be made for the dump: %s", path, strerror(errno));
		return CLI_FAILED;
	}
	events = fopencookie(&d, "w", (cookie_io_functions_t){.write = take_bytes});
	status = events ? ctl_ask(what, &question, events, &reply) : CLI_FAILED;
	if (status == CLI_OK && !d.ended)
		cli_error("%s: %s: the machine has ended before it was written", what, path);
	if (events)
		fclose(events);
	free(reply.body);
	close(d.fd);
	status = status == CLI_OK && d.ended ? d.status : CLI_FAILED;
	if (status != CLI_OK)
		unlink(path);
	return status;
}
