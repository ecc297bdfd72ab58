/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's last events, numbered. Threads of the machine add, readers ask for the first one
 * from a number on: each reader has only that number, and one that is slower than the events sees
 * by a gap in the numbers how many it has lost. Nothing grows and nobody waits.
 */
#ifndef CONTROL_EVENTS_H
#define CONTROL_EVENTS_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "hospes/hospes.h"

enum {
	EVENTS_KEPT = 128,
	EVENTS_TEXT = 320, /* longer texts are cut */
	EVENTS_DEVICE = 64,
	EVENTS_LINE = 3072 /* an event as a line of JSON, whatever its text */
};

struct event_record {
	uint64_t time_ns; /* CLOCK_REALTIME */
	enum hospes_event_type type;
	int value;
	char text[EVENTS_TEXT];
	char device[EVENTS_DEVICE]; /* "": it is about none */
};

struct events {
	pthread_mutex_t lock;                  /* guards all of it */
	uint64_t last;                         /* number of the newest; the first one is 1 */
	int wake_fd;                           /* eventfd that each event signals; -1: not yet */
	struct event_record kept[EVENTS_KEPT]; /* number n is at n % EVENTS_KEPT */
};

void events_init(struct events *events);
void events_done(struct events *events);
/* From now on signal this eventfd, which stays the caller's. */
void events_wake(struct events *events, int fd);

/* Any thread. */
void events_add(struct events *events, const struct hospes_event *event);
uint64_t events_last(struct events *events);
/* The first event from number *next on that is kept, as a line of JSON with its end of line.
 * Returns its length, and *next is the number behind it; 0: there is none yet. */
size_t events_line(struct events *events, uint64_t *next, char line[EVENTS_LINE]);

/* Names, as in the status document. */
const char *events_state_name(enum hospes_state state);

#endif
