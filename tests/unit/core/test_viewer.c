// SPDX-License-Identifier: Apache-2.0
// The viewer of a console: he reads what is put, in order; what he does not take in time is lost to
// him and counted, and nobody waits for him. On both backends of the loop.
#include "core/viewer.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/num.h"

static const enum loop_backend backends[] = {LOOP_IO_URING, LOOP_EPOLL};

#define BOTH(name)                                                                         \
	ParameterizedTestParameters(viewer, name)                                          \
	{                                                                                  \
		return cr_make_param_array(enum loop_backend, (void *)(uintptr_t)backends, \
					   ARRAY_SIZE(backends));                          \
	}                                                                                  \
	ParameterizedTest(enum loop_backend *backend, viewer, name, .timeout = 60)

static struct loop *loop;
static struct viewer viewer;
static struct err err;
static int ends[2]; /* 1: the viewer's program */

static void begin(void)
{
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	cr_assert_eq(viewer_begin(&viewer, ends[0], &err), 0, "%s", err.text);
	fd_close(&ends[0]);
}

static void start(enum loop_backend backend)
{
	const struct loop_config config = {.name = "test", .backend = backend};

	if (loop_create(&loop, &config, &err))
		cr_skip("%s", err.text);
	viewer_init(&viewer, loop);
	begin();
}

static void stop(void)
{
	viewer_done(&viewer);
	cr_assert_eq(loop_in_flight(loop), 0u);
	loop_destroy(loop);
	fd_close(&ends[1]);
}

/* What has come until `n` bytes have, or the end. */
static size_t receive(int fd, char *text, size_t n)
{
	uint64_t end_ns = clock_ns() + 20000000000;
	size_t at = 0;
	ssize_t got = 1;

	while (at < n && got && clock_ns() < end_ns) {
		cr_assert_eq(loop_iterate(loop, false), 0);
		got = recv(fd, text + at, n - at, MSG_DONTWAIT);
		at += got > 0 ? (size_t)got : 0;
	}
	return at;
}

static void turn(unsigned int n)
{
	while (n--)
		cr_assert_eq(loop_iterate(loop, false), 0);
}

BOTH(reads_all_that_is_put_in_order)
{
	static char text[300000], got[sizeof(text)];
	size_t at = 0, have = 0;

	start(*backend);
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)(i * 7 % 251);
	while (at < sizeof(text)) {
		size_t n = MIN((size_t)1 + at % 5000, sizeof(text) - at);

		viewer_put(&viewer, text + at, n);
		at += n;
		have += receive(ends[1], got + have, at - have);
	}
	cr_assert_eq(have, sizeof(text));
	cr_assert_arr_eq(got, text, sizeof(text));
	stop();
}

/* The x that this byte is, or what the line that it ends says is missing. */
static uint64_t accounted_for(const char *got, size_t n)
{
	static const char start[] = "[hospes: ", end[] = " bytes are missing here]\r\n";
	const char *line;

	if (got[n - 1] == 'x')
		return 1;
	if (n < sizeof(end) || memcmp(got + n - sizeof(end) + 1, end, sizeof(end) - 1) != 0)
		return 0;
	line = memrchr(got, '[', n);
	cr_assert(line && memcmp(line, start, sizeof(start) - 1) == 0);
	return strtoull(line + sizeof(start) - 1, NULL, 10);
}

/* He reads nothing while they are sent; there may be several such lines. */
BOTH(who_takes_nothing_loses_what_has_no_room_and_reads_how_much)
{
	static char block[4096], got[4 << 20];
	uint64_t put = 0, have = 0;
	size_t n = 0;

	start(*backend);
	memset(block, 'x', sizeof(block));
	for (; put < 2 << 20; put += sizeof(block)) {
		viewer_put(&viewer, block, sizeof(block));
		turn(3);
	}
	while (have < put) {
		cr_assert_eq(receive(ends[1], got + n, 1), 1);
		have += accounted_for(got, ++n);
	}
	cr_assert_eq(have, put);
	cr_assert_lt(n, put);
	viewer_put(&viewer, "again", 5);
	cr_assert_eq(receive(ends[1], got, 5), 5);
	cr_assert_arr_eq(got, "again", 5);
	stop();
}

BOTH(who_hangs_up_is_there_no_more_and_another_can_come)
{
	char text[16];

	start(*backend);
	cr_assert(viewer_is_there(&viewer));
	fd_close(&ends[1]);
	cr_assert_not(viewer_is_there(&viewer));
	viewer_put(&viewer, "nobody", 6);
	for (uint64_t end_ns = clock_ns() + 20000000; clock_ns() < end_ns;)
		turn(1);
	begin();
	cr_assert(viewer_is_there(&viewer));
	viewer_put(&viewer, "hello", 5);
	cr_assert_eq(receive(ends[1], text, 5), 5u);
	cr_assert_arr_eq(text, "hello", 5);
	stop();
}

BOTH(one_whose_place_is_taken_reads_what_was_his_and_a_line_that_says_so)
{
	static char block[VIEWER_BYTES], got[2 * VIEWER_BYTES + 256];
	int first;
	size_t n;

	start(*backend);
	memset(block, 'x', sizeof(block));
	viewer_put(&viewer, "mine", 4);
	first = ends[1];
	begin();
	n = receive(first, got, sizeof(got));
	got[n] = '\0';
	cr_assert_str_eq(got, "mine\r\n[hospes: somebody else has taken this console]\r\n");
	close(first);
	viewer_put(&viewer, "yours", 5);
	cr_assert_eq(receive(ends[1], got, 5), 5u);
	cr_assert_arr_eq(got, "yours", 5);
	/* Also in the middle of a wait for somebody who takes nothing. */
	for (unsigned int i = 0; i < 20; i++) {
		viewer_put(&viewer, block, sizeof(block));
		for (uint64_t end_ns = clock_ns() + 3000000; clock_ns() < end_ns;)
			turn(1);
	}
	close(ends[1]);
	begin();
	viewer_put(&viewer, "third", 5);
	cr_assert_eq(receive(ends[1], got, 5), 5u);
	cr_assert_arr_eq(got, "third", 5);
	stop();
}

BOTH(the_end_of_the_machine_sends_the_last_words_and_closes)
{
	char text[64];

	start(*backend);
	viewer_put(&viewer, "bye", 3);
	viewer_done(&viewer);
	cr_assert_eq(recv(ends[1], text, sizeof(text), 0), 3);
	cr_assert_arr_eq(text, "bye", 3);
	cr_assert_eq(recv(ends[1], text, sizeof(text), 0), 0);
	viewer_init(&viewer, loop);
	stop();
}

BOTH(what_is_no_stream_socket_is_refused_and_nothing_has_changed)
{
	int file = memfd_create("file", MFD_CLOEXEC), datagrams[2];
	char text[8];

	start(*backend);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, datagrams), 0);
	cr_assert_eq(viewer_begin(&viewer, file, &err), -EINVAL);
	cr_assert_eq(viewer_begin(&viewer, datagrams[0], &err), -EINVAL);
	cr_assert(strstr(err.text, "socketpair"), "%s", err.text);
	cr_assert_eq(viewer_begin(&viewer, -1, &err), -EINVAL);
	viewer_put(&viewer, "still", 5);
	cr_assert_eq(receive(ends[1], text, 5), 5u);
	close(file);
	close(datagrams[0]);
	close(datagrams[1]);
	stop();
}
