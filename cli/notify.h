/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a service manager hears of a machine (sd_notify(3)), where it has asked for it by
 * NOTIFY_SOCKET and WATCHDOG_USEC in the environment: that the guest runs, what became of it, and
 * signs of life.
 */
#ifndef CLI_NOTIFY_H
#define CLI_NOTIFY_H

#include "hospes/hospes.h"

struct notify {
	int fd;          /* the manager's socket; -1: nobody asked */
	int watchdog_fd; /* timerfd: a sign of life is due; -1: nobody waits for one */
};

/* Before the thread is confined. What cannot be reached is said, and not told. */
void notify_open(struct notify *n);
void notify_close(struct notify *n);

/* The guest runs. */
void notify_ready(const struct notify *n);
/* A hospes_event_fn's event. Any thread: nothing is waited for. */
void notify_event(const struct notify *n, const struct hospes_event *event);
/* It was asked to end. */
void notify_stopping(const struct notify *n);
/* When watchdog_fd can be read: a sign of life, if the machine's own thread gives one. */
void notify_watchdog(const struct notify *n, struct hospes_vm *vm);

#endif
