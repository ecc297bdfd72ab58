// SPDX-License-Identifier: Apache-2.0
// The ring of events: numbers, what a slow reader sees, and lines of JSON.
#include <criterion/criterion.h>
#include <jansson.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "control/events.h"

static struct events events;

static void set_up(void)
{
	events_init(&events);
}

static void tear_down(void)
{
	events_done(&events);
}

TestSuite(events, .init = set_up, .fini = tear_down);

static void add(enum hospes_event_type type, int value, const char *text)
{
	const struct hospes_event event = {
		.size = sizeof(event), .type = type, .value = value, .text = text};

	events_add(&events, &event);
}

/* The line at *next as an object; NULL: there is none. */
static json_t *line(uint64_t *next)
{
	char text[EVENTS_LINE];
	size_t n = events_line(&events, next, text);
	json_t *object;

	if (!n)
		return NULL;
	cr_assert_eq(text[n - 1], '\n');
	cr_assert_eq(memchr(text, '\n', n), text + n - 1, "one line");
	object = json_loadb(text, n, 0, NULL);
	cr_assert_not_null(object, "%.*s", (int)n, text);
	return object;
}

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "(none)";
}

static json_int_t number_of(const json_t *object)
{
	return json_integer_value(json_object_get(object, "seq"));
}

Test(events, are_numbered_from_one)
{
	uint64_t next = 0;
	json_t *object;

	cr_assert_null(line(&next));
	add(HOSPES_EVENT_STATE, HOSPES_PAUSED, "");
	add(HOSPES_EVENT_OUTCOME, HOSPES_OUTCOME_POWERED_OFF, "bye");
	object = line(&next);
	cr_assert_eq(number_of(object), 1);
	cr_assert_str_eq(text_of(object, "event"), "state");
	cr_assert_str_eq(text_of(object, "state"), "paused");
	json_decref(object);
	object = line(&next);
	cr_assert_eq(number_of(object), 2);
	cr_assert_str_eq(text_of(object, "outcome"), "powered off");
	cr_assert_str_eq(text_of(object, "text"), "bye");
	json_decref(object);
	cr_assert_null(line(&next));
	cr_assert_eq(events_last(&events), 2u);
	add(HOSPES_EVENT_CPUS, 3, "");
	object = line(&next);
	cr_assert_str_eq(text_of(object, "event"), "cpus");
	cr_assert_eq(json_integer_value(json_object_get(object, "count")), 3);
	json_decref(object);
	add(HOSPES_EVENT_MEMORY, 3072, "");
	object = line(&next);
	cr_assert_str_eq(text_of(object, "event"), "memory");
	cr_assert_eq(json_integer_value(json_object_get(object, "bytes")), 3221225472);
	json_decref(object);
}

Test(events, a_slow_reader_sees_a_gap_of_what_it_lost)
{
	uint64_t next = 1;
	json_t *object;

	for (unsigned int i = 0; i < EVENTS_KEPT + 10; i++)
		add(HOSPES_EVENT_RESET, 0, "");
	object = line(&next);
	cr_assert_eq(number_of(object), 11);
	json_decref(object);
	for (unsigned int i = 1; i < EVENTS_KEPT; i++) {
		object = line(&next);
		cr_assert_eq(number_of(object), 11 + (json_int_t)i);
		json_decref(object);
	}
	cr_assert_null(line(&next));
}

Test(events, a_long_text_is_cut_between_characters)
{
	char text[2 * EVENTS_TEXT] = "";
	uint64_t next = 1;
	json_t *object;

	while (strlen(text) < EVENTS_TEXT + 4)
		strcat(text, "\xe2\x82\xac"); /* three bytes, which do not divide the room */
	add(HOSPES_EVENT_DEVICE_ERROR, 0, text);
	object = line(&next);
	cr_assert_gt(strlen(text_of(object, "text")), (size_t)EVENTS_TEXT - 8);
	json_decref(object);
}

Test(events, whatever_a_text_is_the_line_fits)
{
	char text[EVENTS_TEXT];
	uint64_t next = 1;
	json_t *object;

	memset(text, 1, sizeof(text)); /* \u0001 */
	text[sizeof(text) - 1] = '\0';
	add(HOSPES_EVENT_DMA_FAULT, 0, text);
	add(HOSPES_EVENT_DMA_FAULT, 0, "\xff no UTF-8");
	add((enum hospes_event_type)1000, 0, NULL);
	object = line(&next);
	cr_assert_str_eq(text_of(object, "text"), text);
	json_decref(object);
	object = line(&next);
	cr_assert_str_eq(text_of(object, "event"), "dma_fault");
	json_decref(object);
	object = line(&next);
	cr_assert_str_eq(text_of(object, "event"), "unknown");
	json_decref(object);
}

Test(events, an_event_wakes_who_reads)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	uint64_t count;

	add(HOSPES_EVENT_RESET, 0, "");
	events_wake(&events, fd);
	cr_assert_eq(read(fd, &count, sizeof(count)), -1);
	add(HOSPES_EVENT_RESET, 0, "");
	cr_assert_eq(read(fd, &count, sizeof(count)), (ssize_t)sizeof(count));
	close(fd);
}

Test(events, about_a_device_say_which)
{
	const struct hospes_event event = {.size = sizeof(event),
					   .type = HOSPES_EVENT_DEVICE_REMOVED,
					   .value = 1,
					   .text = "",
					   .device = "data"};
	uint64_t next = 1;
	json_t *object;

	events_add(&events, &event);
	object = line(&next);
	cr_assert_str_eq(text_of(object, "event"), "device_removed");
	cr_assert_str_eq(text_of(object, "device"), "data");
	cr_assert(json_is_true(json_object_get(object, "forced")));
	json_decref(object);
}
