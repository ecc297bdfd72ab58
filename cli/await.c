// SPDX-License-Identifier: Apache-2.0
// A request whose end an event tells. See ctl.h.
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "cli.h"
#include "ctl.h"
#include "output.h"

struct await {
	const char *what;
	const struct awaited *awaited;
	const struct question *question;
	char *body; /* of the answer */
	bool asked, ended;
	int status;
	char line[4096]; /* of the stream, as far as it has come */
	size_t n;
};

static void ask_for_it(struct await *a)
{
	struct reply reply;

	a->asked = true;
	a->status = ctl_ask(a->what, a->question, NULL, &reply);
	a->ended = a->status != CLI_OK;
	a->body = reply.body;
}

/* The first event says that the stream has begun. */
static void take_event(struct await *a)
{
	json_t *event = json_loads(a->line, 0, NULL);
	const char *text = text_of(event, "text", "");
	const struct awaited *w = a->awaited;

	if (!a->asked) {
		ask_for_it(a);
	} else if (w->progress && strcmp(text_of(event, "event", ""), w->progress) == 0) {
		cli_error("%s: %s", a->what, text);
	} else if (strcmp(text_of(event, "event", ""), w->event) == 0) {
		a->ended = true;
		if (*text) {
			cli_error("%s: %s: %s", a->what, w->subject, text);
			a->status = CLI_FAILED;
		}
	}
	json_decref(event);
}

/* A stream's write: with an error it ends. */
static ssize_t take_bytes(void *cookie, const char *bytes, size_t n)
{
	struct await *a = cookie;

	for (size_t i = 0; i < n && !a->ended; i++) {
		if (bytes[i] == '\n') {
			a->line[a->n] = '\0';
			a->n = 0;
			take_event(a);
		} else if (a->n < sizeof(a->line) - 1) {
			a->line[a->n++] = bytes[i];
		}
	}
	if (!a->ended)
		return (ssize_t)n;
	errno = EPIPE;
	return 0;
}

int ctl_await(const char *what, const struct question *question, const struct awaited *awaited,
	      char **body)
{
	const struct question stream = {.verb = "GET", .target = "/v1/events"};
	struct await a = {
		.what = what, .awaited = awaited, .question = question, .status = CLI_FAILED};
	struct reply reply = {0};
	FILE *events = fopencookie(&a, "w", (cookie_io_functions_t){.write = take_bytes});
	int status = events ? ctl_ask(what, &stream, events, &reply) : CLI_FAILED;

	if (status == CLI_OK && !a.ended)
		cli_error("%s: %s: the machine has ended before that", what, awaited->subject);
	if (events)
		fclose(events);
	free(reply.body);
	status = status == CLI_OK && a.ended ? a.status : CLI_FAILED;
	if (body && status == CLI_OK)
		*body = a.body;
	else
		free(a.body);
	return status;
}
