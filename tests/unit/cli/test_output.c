// SPDX-License-Identifier: Apache-2.0
// Messages and the log, whose reader may take nothing.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "output.h"

/* A full pipe: the end that is read. Who writes to the other one waits. */
static int make_full(int *full)
{
	static const char page[4096];
	int ends[2];

	cr_assert_eq(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
	while (write(ends[1], page, sizeof(page)) > 0)
		;
	cr_assert_eq(fcntl(ends[1], F_SETFL, 0), 0);
	*full = ends[1];
	return ends[0];
}

/* What comes next; room for it is made first. */
static const char *drain(int fd)
{
	static char buf[1 << 17];
	ssize_t n, all = 0;

	while ((n = read(fd, buf + all, sizeof(buf) - 1 - (size_t)all)) > 0)
		all += n;
	buf[all] = '\0';
	return buf;
}

Test(output, a_log_that_nobody_reads_stops_no_thread_and_says_what_is_missing, .timeout = 20)
{
	static const bool json[] = {false, true};

	for (size_t i = 0; i < sizeof(json) / sizeof(json[0]); i++) {
		struct output output = {.json = json[i]};
		int full, reader = make_full(&full);
		const char *text;

		output.to = fdopen(full, "w");
		setvbuf(output.to, NULL, _IOLBF, 0);
		for (int n = 0; n < 3; n++)
			output_log(&output, HOSPES_LOG_WARNING, "disk0", "lost");
		drain(reader);
		output_log(&output, HOSPES_LOG_WARNING, "disk0", "taken");
		text = drain(reader);
		cr_expect(strstr(text, "3 lines are left out"), "%s", text);
		cr_expect(strstr(text, "taken"), "%s", text);
		cr_expect_not(strstr(text, "lost"), "%s", text);
		output_close(&output);
		close(reader);
	}
}

static void nothing(int signal)
{
	(void)signal;
}

Test(output, a_thread_that_waits_for_a_reader_can_be_called_away, .timeout = 20)
{
	struct output output = {.json = false};
	struct sigaction action = {.sa_handler = nothing};
	int full, reader = make_full(&full);

	output.to = fdopen(full, "w");
	setvbuf(output.to, NULL, _IOLBF, 0);
	sigaction(SIGALRM, &action, NULL);
	ualarm(100000, 0);
	output_log(&output, HOSPES_LOG_WARNING, "disk0", "lost");
	cr_expect_eq(atomic_load(&output.left_out), 1u);
	drain(reader);
	output_close(&output);
	close(reader);
}

Test(output, a_message_that_nobody_reads_does_not_stop_the_command, .timeout = 20)
{
	static char status[20000];
	int full, reader = make_full(&full), saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	const char *text;

	memset(status, 's', sizeof(status) - 1);
	dup2(full, STDERR_FILENO);
	cli_error("lost");
	cli_show(status);
	drain(reader);
	cli_error("taken");
	dup2(saved, STDERR_FILENO);
	text = drain(reader);
	cr_expect_str_eq(text, "hospes: 2 messages are left out here: nobody took them\n"
			       "hospes: taken\n");
}

Test(output, a_line_that_is_not_utf8_is_in_the_json_log_too)
{
	struct output output = {.to = tmpfile(), .json = true};
	char text[256] = "";

	output_log(&output, HOSPES_LOG_WARNING, "disk0", "mounted at caf\xe9");
	cr_assert_eq(fseek(output.to, 0, SEEK_SET), 0);
	cr_expect(fgets(text, sizeof(text), output.to), "there is a line");
	cr_expect(strstr(text, "mounted at caf?"), "%s", text);
	output_close(&output);
}
