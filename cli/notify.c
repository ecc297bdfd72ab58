// SPDX-License-Identifier: Apache-2.0
// What a service manager hears: datagrams of lines KEY=value.
#include "notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include "output.h"

/* A path, or with '@' before it an abstract name. */
static int connect_to(const char *name)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	size_t length = strlen(name);
	int fd;

	if ((*name != '/' && *name != '@') || length >= sizeof(to.sun_path)) {
		errno = EAFNOSUPPORT;
		return -1;
	}
	memcpy(to.sun_path, name, length);
	if (*name == '@')
		to.sun_path[0] = '\0';
	else
		length++;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&to,
			       (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)) != 0) {
		int why = errno;

		close(fd);
		errno = why;
		return -1;
	}
	return fd;
}

/* Twice in the time that the manager waits; -1: it waits for none of this process. */
static int watchdog(void)
{
	const char *time = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
	unsigned long long us = time ? strtoull(time, NULL, 10) / 2 : 0;
	struct itimerspec each = {
		.it_interval = {.tv_sec = (time_t)(us / 1000000),
				.tv_nsec = (long)(us % 1000000) * 1000},
	};
	int fd;

	if (!us || (pid && strtol(pid, NULL, 10) != getpid()))
		return -1;
	each.it_value = each.it_interval;
	fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (fd < 0 || timerfd_settime(fd, 0, &each, NULL) != 0)
		cli_error("no timer for the watchdog of the service manager: %s", strerror(errno));
	return fd;
}

void notify_open(struct notify *n)
{
	const char *name = getenv("NOTIFY_SOCKET");

	*n = (struct notify){.fd = -1, .watchdog_fd = -1};
	if (!name || !*name)
		return;
	n->fd = connect_to(name);
	if (n->fd < 0)
		cli_error("NOTIFY_SOCKET %s: %s: the service manager is not told that the guest "
			  "runs",
			  name, strerror(errno));
	else
		n->watchdog_fd = watchdog();
}

void notify_close(struct notify *n)
{
	if (n->fd >= 0)
		close(n->fd);
	if (n->watchdog_fd >= 0)
		close(n->watchdog_fd);
	n->fd = n->watchdog_fd = -1;
}

/* A manager that does not read loses it: the machine waits for nobody. */
static void say(const struct notify *n, const char *lines)
{
	if (n->fd >= 0)
		(void)!send(n->fd, lines, strlen(lines), MSG_DONTWAIT | MSG_NOSIGNAL);
}

void notify_ready(const struct notify *n)
{
	say(n, "READY=1\nSTATUS=the guest runs");
}

void notify_stopping(const struct notify *n)
{
	say(n, "STOPPING=1\nSTATUS=the guest was asked to power off");
}

static const char *state_lines(int64_t state)
{
	return state == HOSPES_PAUSED    ? "STATUS=the guest is paused"
	       : state == HOSPES_RUNNING ? "STATUS=the guest runs"
					 : NULL;
}

static const char *outcome_lines(int64_t outcome)
{
	switch (outcome) {
	case HOSPES_OUTCOME_POWERED_OFF:
		return "STOPPING=1\nSTATUS=the guest powered off";
	case HOSPES_OUTCOME_RESET:
		return "STOPPING=1\nSTATUS=the guest asked for a reset, which ends it here";
	case HOSPES_OUTCOME_PANICKED:
		return "STOPPING=1\nSTATUS=the guest's kernel panicked";
	case HOSPES_OUTCOME_CRASHED:
		return "STOPPING=1\nSTATUS=the guest crashed";
	case HOSPES_OUTCOME_MIGRATED:
		return "STOPPING=1\nSTATUS=the machine was migrated";
	default:
		return "STOPPING=1\nSTATUS=the machine was ended";
	}
}

void notify_event(const struct notify *n, const struct hospes_event *event)
{
	const char *lines = event->type == HOSPES_EVENT_STATE     ? state_lines(event->value)
			    : event->type == HOSPES_EVENT_OUTCOME ? outcome_lines(event->value)
								  : NULL;

	if (lines)
		say(n, lines);
}

void notify_watchdog(const struct notify *n, struct hospes_vm *vm)
{
	struct hospes_error error;
	uint64_t ticks;
	char *status;

	if (read(n->watchdog_fd, &ticks, sizeof(ticks)) != sizeof(ticks))
		return;
	/* Its thread answers, or this waits as long as the manager does. */
	if (hospes_vm_status(vm, &status, &error) < 0)
		return;
	hospes_free(status);
	say(n, "WATCHDOG=1");
}
