// SPDX-License-Identifier: Apache-2.0
// A ring of events, and how one looks as a line of JSON.
#include "control/events.h"

#include <jansson.h>
#include <stdio.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const names[] = {
	[HOSPES_EVENT_STATE] = "state",
	[HOSPES_EVENT_OUTCOME] = "outcome",
	[HOSPES_EVENT_RESET] = "reset",
	[HOSPES_EVENT_DEVICE_ERROR] = "device_error",
	[HOSPES_EVENT_DEVICE_REQUESTED] = "device_requested",
	[HOSPES_EVENT_DEVICE_GONE] = "device_gone",
	[HOSPES_EVENT_DEVICE_RESET] = "device_reset",
	[HOSPES_EVENT_DEVICE_RELEASED] = "device_released",
	[HOSPES_EVENT_DMA_FAULT] = "dma_fault",
	[HOSPES_EVENT_DEVICE_ADDED] = "device_added",
	[HOSPES_EVENT_DEVICE_REMOVED] = "device_removed",
	[HOSPES_EVENT_DEVICE_KEPT] = "device_kept",
	[HOSPES_EVENT_STRATEGY] = "strategy",
	[HOSPES_EVENT_BALLOON] = "balloon",
	[HOSPES_EVENT_DUMPED] = "dumped",
	[HOSPES_EVENT_CPUS] = "cpus",
	[HOSPES_EVENT_MEMORY] = "memory",
	[HOSPES_EVENT_SNAPSHOT] = "snapshot",
	[HOSPES_EVENT_MIGRATING] = "migrating",
	[HOSPES_EVENT_MIGRATED] = "migrated",
};

const char *events_state_name(enum hospes_state state)
{
	static const char *const states[] = {"created", "running", "paused", "stopped"};

	return (size_t)state < sizeof(states) / sizeof(states[0]) ? states[state] : "unknown";
}

static const char *outcome_name(int outcome)
{
	static const char *const outcomes[] = {"none",     "powered off", "reset", "killed",
					       "panicked", "crashed",     "error", "migrated"};

	return outcome >= 0 && (size_t)outcome < sizeof(outcomes) / sizeof(outcomes[0])
		       ? outcomes[outcome]
		       : "unknown";
}

void events_init(struct events *events)
{
	memset(events, 0, sizeof(*events));
	pthread_mutex_init(&events->lock, NULL);
	events->wake_fd = -1;
}

void events_done(struct events *events)
{
	pthread_mutex_destroy(&events->lock);
}

void events_wake(struct events *events, int fd)
{
	pthread_mutex_lock(&events->lock);
	events->wake_fd = fd;
	pthread_mutex_unlock(&events->lock);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Cut at the beginning of a character: half of one is no UTF-8. */
static void copy_text(char *to, size_t room, const char *from)
{
	size_t n = from ? strnlen(from, room) : 0;

	if (n == room) {
		n--;
		while (n && ((unsigned char)from[n] & 0xc0) == 0x80)
			n--;
	}
	if (n)
		memcpy(to, from, n);
	to[n] = '\0';
}

void events_add(struct events *events, const struct hospes_event *event)
{
	struct event_record *record;
	uint64_t one = 1;

	pthread_mutex_lock(&events->lock);
	record = &events->kept[++events->last % EVENTS_KEPT];
	record->time_ns = now_ns();
	record->type = event->type;
	record->value = event->value;
	copy_text(record->text, sizeof(record->text), event->text);
	copy_text(record->device, sizeof(record->device),
		  event->size >= sizeof(*event) ? event->device : NULL);
	/* The counter is non-blocking, and full only when it wakes anyway. */
	if (events->wake_fd >= 0 && write(events->wake_fd, &one, sizeof(one)) < 0)
		one = 0;
	pthread_mutex_unlock(&events->lock);
}

uint64_t events_last(struct events *events)
{
	uint64_t last;

	pthread_mutex_lock(&events->lock);
	last = events->last;
	pthread_mutex_unlock(&events->lock);
	return last;
}

static json_t *value_of(const struct event_record *record)
{
	switch (record->type) {
	case HOSPES_EVENT_STATE:
		return json_pack("{s:s}", "state",
				 events_state_name((enum hospes_state)record->value));
	case HOSPES_EVENT_OUTCOME:
		return json_pack("{s:s}", "outcome", outcome_name(record->value));
	case HOSPES_EVENT_DEVICE_REQUESTED:
	case HOSPES_EVENT_DEVICE_GONE:
	case HOSPES_EVENT_DEVICE_RESET:
	case HOSPES_EVENT_DEVICE_RELEASED:
		return json_pack("{s:i}", "index", record->value);
	case HOSPES_EVENT_CPUS:
		return json_pack("{s:i}", "count", record->value);
	case HOSPES_EVENT_MEMORY:
		return json_pack("{s:I}", "bytes", (json_int_t)record->value << 20);
	case HOSPES_EVENT_DEVICE_REMOVED:
		return json_pack("{s:b}", "forced", record->value);
	default:
		return json_object();
	}
}

static size_t format(const struct event_record *record, uint64_t number, char line[EVENTS_LINE])
{
	const char *name = (size_t)record->type < sizeof(names) / sizeof(names[0])
				   ? names[record->type]
				   : "unknown";
	json_t *event = json_pack("{s:I, s:I, s:s}", "seq", (json_int_t)number, "time_ns",
				  (json_int_t)record->time_ns, "event", name);
	json_t *value = value_of(record);
	size_t n;

	json_object_update(event, value);
	/* A text that is no UTF-8 is left out. */
	if (record->device[0])
		json_object_set_new(event, "device", json_string(record->device));
	if (record->text[0])
		json_object_set_new(event, "text", json_string(record->text));
	n = json_dumpb(event, line, EVENTS_LINE - 1, JSON_COMPACT);
	json_decref(value);
	json_decref(event);
	if (n == 0 || n > EVENTS_LINE - 1) /* no memory */
		n = (size_t)snprintf(line, EVENTS_LINE, "{\"seq\":%llu,\"event\":\"%s\"}",
				     (unsigned long long)number, name);
	line[n++] = '\n';
	return n;
}

size_t events_line(struct events *events, uint64_t *next, char line[EVENTS_LINE])
{
	struct event_record record;
	uint64_t number = *next;
	bool there;

	pthread_mutex_lock(&events->lock);
	if (number + EVENTS_KEPT <= events->last)
		number = events->last - EVENTS_KEPT + 1;
	if (number == 0)
		number = 1;
	there = number <= events->last;
	if (there)
		record = events->kept[number % EVENTS_KEPT];
	pthread_mutex_unlock(&events->lock);
	if (!there)
		return 0;
	*next = number + 1;
	return format(&record, number, line);
}
