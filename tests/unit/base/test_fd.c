/* SPDX-License-Identifier: Apache-2.0 */
/* File descriptors: close once, never inherit, all bytes or an error. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"

static int memory_file(size_t size)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	cr_assert_geq(fd, 0);
	cr_assert_eq(ftruncate(fd, (off_t)size), 0);
	return fd;
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

Test(fd, close_forgets_the_number)
{
	int fd = memory_file(0);
	int number = fd;

	fd_close(&fd);
	cr_assert_eq(fd, -1);
	cr_assert_not(is_open(number));
	fd_close(&fd);
	cr_assert_eq(fd, -1);
}

Test(fd, cleanup_closes_at_the_end_of_the_scope)
{
	int number;

	{
		cleanup_fd int fd = memory_file(0);

		number = fd;
		cr_assert(is_open(number));
	}
	cr_assert_not(is_open(number));
}

Test(fd, duplicates_and_eventfds_are_not_inherited)
{
	int fd = memory_file(0);
	int copy = fd_dup(fd);
	int event = fd_eventfd();

	cr_assert_geq(copy, 3);
	cr_assert(fcntl(copy, F_GETFD) & FD_CLOEXEC);
	cr_assert_geq(event, 0);
	cr_assert(fcntl(event, F_GETFD) & FD_CLOEXEC);
	cr_assert(fcntl(event, F_GETFL) & O_NONBLOCK);
	cr_assert_eq(fd_dup(-1), -EBADF);
}

Test(fd, an_event_counts_signals_and_drains_to_zero)
{
	int event = fd_eventfd();

	cr_assert_eq(fd_event_drain(event), 0);
	fd_event_signal(event);
	fd_event_signal(event);
	cr_assert_eq(fd_event_drain(event), 2);
	cr_assert_eq(fd_event_drain(event), 0);
}

Test(fd, a_full_event_counter_does_not_block)
{
	int event = fd_eventfd();
	uint64_t most = UINT64_MAX - 1;

	cr_assert_eq(write(event, &most, sizeof(most)), (ssize_t)sizeof(most));
	fd_event_signal(event);
	cr_assert_eq(fd_event_drain(event), most);
}

Test(fd, positioned_reads_and_writes_leave_the_offset_alone)
{
	int fd = memory_file(64);
	char buf[8] = "";

	cr_assert_eq(fd_write_full(fd, "abcdefg", 8, 40), 0);
	cr_assert_eq(fd_read_full(fd, buf, 8, 40), 0);
	cr_assert_str_eq(buf, "abcdefg");
	cr_assert_eq(lseek(fd, 0, SEEK_CUR), 0);
}

Test(fd, a_file_that_ends_early_is_an_error)
{
	int fd = memory_file(10);
	char buf[16];

	cr_assert_eq(fd_read_full(fd, buf, 16, 0), -ENODATA);
	cr_assert_eq(fd_read_full(fd, buf, 1, 10), -ENODATA);
	cr_assert_eq(fd_read_full(fd, buf, 0, 10), 0);
}

Test(fd, errors_come_back_as_errno)
{
	char buf[1] = {0};

	cr_assert_eq(fd_read_full(-1, buf, 1, -1), -EBADF);
	cr_assert_eq(fd_write_full(-1, buf, 1, 0), -EBADF);
}

static void *drip(void *arg)
{
	const char *text = "0123456789";
	int fd = *(int *)arg;

	for (int i = 0; i < 10; i++)
		cr_assert_eq(write(fd, text + i, 1), 1);
	return NULL;
}

Test(fd, short_transfers_are_gathered)
{
	int ends[2];
	pthread_t t;
	char buf[11] = "";

	cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
	cr_assert_eq(pthread_create(&t, NULL, drip, &ends[1]), 0);
	cr_assert_eq(fd_read_full(ends[0], buf, 10, -1), 0);
	cr_assert_str_eq(buf, "0123456789");
	pthread_join(t, NULL);
	close(ends[1]);
	cr_assert_eq(fd_read_full(ends[0], buf, 1, -1), -ENODATA);
}

/* More than a pipe holds, so that the writer meets short writes. */
enum {
	FLOOD_BYTES = 1 << 20,
};

static void *swallow(void *arg)
{
	char *buf = malloc(FLOOD_BYTES);

	cr_assert_eq(fd_read_full(*(int *)arg, buf, FLOOD_BYTES, -1), 0);
	return buf;
}

Test(fd, long_writes_go_out_whole)
{
	char *out = malloc(FLOOD_BYTES);
	void *in;
	int ends[2];
	pthread_t t;

	for (int i = 0; i < FLOOD_BYTES; i++)
		out[i] = (char)(i * 7 + (i >> 9));
	cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
	cr_assert_eq(pthread_create(&t, NULL, swallow, &ends[0]), 0);
	cr_assert_eq(fd_write_full(ends[1], out, FLOOD_BYTES, -1), 0);
	pthread_join(t, &in);
	cr_assert_eq(memcmp(in, out, FLOOD_BYTES), 0);
	free(in);
	free(out);
}
