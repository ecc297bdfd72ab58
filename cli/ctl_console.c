// SPDX-License-Identifier: Apache-2.0
// hospes ctl NAME console: this terminal on a console of a machine that runs. One end of a
// socketpair goes to the machine; what comes from it is printed, and what is typed goes to it.
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "answer.h"
#include "cli.h"
#include "ctl.h"
#include "output.h"
#include "terminal.h"

enum { BEHIND_MS = 1000 /* in the background, how often to look whether that has changed */ };

struct view {
	const char *what;
	int fd; /* the machine's other end is the console's */
	bool is_terminal, in_front;
	bool input_ended; /* of a file or pipe */
	bool ended;
	struct terminal_filter filter;
	uint8_t typed[512];
	size_t n_typed; /* that the socket has not taken yet */
};

static const char help[] = "\n"
			   "Ctrl-A x       leave the console; the machine goes on\n"
			   "Ctrl-A p       press the power button\n"
			   "Ctrl-A r       reset\n"
			   "Ctrl-A s       show exits and state\n"
			   "Ctrl-A i       show the registers of the vCPUs\n"
			   "Ctrl-A h       this help\n"
			   "Ctrl-A Ctrl-A  send Ctrl-A to the guest\n";

/* --- which console --- */

/* The id of the first, from malloc; NULL: the message was printed. */
static char *first_console(const char *what)
{
	const struct question question = {.verb = "GET", .target = "/v1/status"};
	struct reply reply;
	json_t *status, *device;
	char *id = NULL;
	size_t i;

	if (ctl_ask(what, &question, NULL, &reply) != CLI_OK)
		return NULL;
	status = reply.body ? json_loads(reply.body, 0, NULL) : NULL;
	free(reply.body);
	json_array_foreach(json_object_get(status, "devices"), i, device)
	{
		if (!id && strcmp(text_of(device, "kind", ""), "console") == 0)
			id = strdup(text_of(device, "id", ""));
	}
	json_decref(status);
	if (!id)
		cli_error("%s: it has no console; 'hospes ctl %s add --console virtio' adds one",
			  what, what);
	return id;
}

/* Hand this end over. */
static int ask_for_view(const char *what, const char *id, bool take, int end)
{
	struct question question = {
		.verb = "POST",
		.body = take ? "{\"fd\": 0, \"take\": true}" : "{\"fd\": 0}",
		.fds = &end,
		.n_fds = 1,
	};
	char target[CTL_TARGET_BYTES];
	struct reply reply;
	int status;

	if (!ctl_target(target, "consoles", id, strlen(id), "view")) {
		cli_error("console %s: no device has so long an id", id);
		return CLI_USAGE;
	}
	question.target = target;
	status = ctl_ask(what, &question, NULL, &reply);
	free(reply.body);
	return status;
}

/* --- while it lasts --- */

static void show(const struct view *v, const char *target)
{
	const struct question question = {.verb = "GET", .target = target};
	struct reply reply;

	if (ctl_ask(v->what, &question, NULL, &reply) == CLI_OK && reply.body) {
		cli_show("\n");
		cli_show(reply.body);
		cli_show("\n");
	}
	free(reply.body);
}

static void press(const struct view *v, const char *target)
{
	const struct question question = {.verb = "POST", .target = target};
	struct reply reply;

	(void)ctl_ask(v->what, &question, NULL, &reply);
	free(reply.body);
}

static void obey(struct view *v, enum terminal_command command)
{
	switch (command) {
	case TERMINAL_NONE:
		break;
	case TERMINAL_END:
		v->ended = true;
		break;
	case TERMINAL_POWER:
		press(v, "/v1/shutdown");
		break;
	case TERMINAL_RESET:
		press(v, "/v1/reset");
		break;
	case TERMINAL_STATUS:
		show(v, "/v1/status");
		break;
	case TERMINAL_REGISTERS:
		show(v, "/v1/registers");
		break;
	case TERMINAL_STRATEGY:
		cli_error("not from here: 'hospes ctl %s set strategy=NAME'", v->what);
		break;
	case TERMINAL_HELP:
		fputs(help, stderr);
		break;
	}
}

static void send_typed(struct view *v)
{
	ssize_t n = send(v->fd, v->typed, v->n_typed, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n <= 0)
		return; /* of an end that is gone the next read says so */
	v->n_typed -= (size_t)n;
	memmove(v->typed, v->typed + n, v->n_typed);
}

static void on_input(struct view *v)
{
	uint8_t bytes[sizeof(v->typed)];
	ssize_t got = read(STDIN_FILENO, bytes, sizeof(bytes));
	size_t at = 0;

	if (got < 0 &&
	    (errno == EAGAIN || errno == EINTR || (v->is_terminal && !terminal_is_ours())))
		return;
	if (got <= 0 && v->is_terminal)
		v->ended = true; /* it is gone */
	v->input_ended = got <= 0;
	if (!v->is_terminal && got > 0) {
		memcpy(v->typed, bytes, (size_t)got);
		v->n_typed = (size_t)got;
	}
	while (v->is_terminal && got > 0 && at < (size_t)got && !v->ended) {
		enum terminal_command command;
		size_t used, kept = terminal_filter(&v->filter, bytes + at, (size_t)got - at, &used,
						    &command);

		memcpy(v->typed + v->n_typed, bytes + at, kept);
		v->n_typed += kept;
		at += used;
		obey(v, command);
	}
	send_typed(v);
}

/* False: nobody takes it any more. */
static bool print(const uint8_t *bytes, size_t n)
{
	while (n) {
		ssize_t done = write(STDOUT_FILENO, bytes, n);
		struct pollfd room = {.fd = STDOUT_FILENO, .events = POLLOUT};

		if (done < 0 && errno == EAGAIN)
			poll(&room, 1, -1);
		else if (done < 0 && errno != EINTR)
			return false;
		bytes += done > 0 ? done : 0;
		n -= done > 0 ? (size_t)done : 0;
	}
	return true;
}

static void on_output(struct view *v)
{
	uint8_t bytes[4096];
	ssize_t n = recv(v->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	v->ended = n <= 0 || !print(bytes, (size_t)n);
}

static volatile sig_atomic_t continued;

static void on_continue(int signal)
{
	(void)signal;
	continued = 1;
}

/* A job comes to the front as its shell wants, which need not say so. */
static void look_at_terminal(struct view *v)
{
	bool in_front = v->is_terminal && terminal_is_ours();

	if (in_front && (!v->in_front || continued))
		terminal_raw();
	continued = 0;
	v->in_front = in_front;
}

/* Until one of the ends has had enough. */
static void attend(struct view *v, const sigset_t *waiting)
{
	const struct timespec behind = {.tv_sec = BEHIND_MS / 1000};

	while (!v->ended) {
		bool reads;

		look_at_terminal(v);
		reads = !v->n_typed && !v->input_ended && (v->in_front || !v->is_terminal);
		struct pollfd fds[] = {
			{.fd = v->fd, .events = (short)(POLLIN | (v->n_typed ? POLLOUT : 0))},
			/* No more than the guest takes. */
			{.fd = reads ? STDIN_FILENO : -1, .events = POLLIN},
		};

		if (ppoll(fds, 2, v->is_terminal && !v->in_front ? &behind : NULL, waiting) < 0) {
			if (errno != EINTR)
				return;
			continue;
		}
		if (fds[0].revents & POLLOUT)
			send_typed(v);
		if (fds[0].revents & ~POLLOUT)
			on_output(v);
		if (fds[1].revents && !v->ended)
			on_input(v);
	}
}

/* *waiting: what is let through while this waits. */
static void take_signals(sigset_t *waiting)
{
	const struct sigaction action = {.sa_handler = on_continue};
	sigset_t set;

	sigaction(SIGCONT, &action, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGCONT);
	pthread_sigmask(SIG_BLOCK, &set, waiting);
	sigdelset(waiting, SIGCONT);
	terminal_restore_at(SIGTERM);
	terminal_restore_at(SIGINT);
	terminal_restore_at(SIGHUP);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGTTOU, SIG_IGN);
	signal(SIGTTIN, SIG_IGN);
}

static void view(struct view *v, const char *id)
{
	sigset_t waiting;

	take_signals(&waiting);
	if (v->is_terminal)
		cli_error("console '%s' of %s; Ctrl-A x leaves it, Ctrl-A h lists more", id,
			  v->what);
	attend(v, &waiting);
	terminal_restore();
	if (v->is_terminal)
		cli_error("console '%s' of %s: left", id, v->what);
}

int ctl_console(const char *what, const char *id, bool take)
{
	struct view v = {.what = what, .is_terminal = isatty(STDIN_FILENO)};
	char *found = id ? strdup(id) : first_console(what);
	int ends[2], status;

	if (!found)
		return CLI_FAILED;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
		cli_error("cannot make a socketpair: %s", strerror(errno));
		free(found);
		return CLI_FAILED;
	}
	status = ask_for_view(what, found, take, ends[1]);
	close(ends[1]);
	v.fd = ends[0];
	if (status == CLI_OK)
		view(&v, found);
	close(ends[0]);
	free(found);
	return status;
}
