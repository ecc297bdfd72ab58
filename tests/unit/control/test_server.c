// SPDX-License-Identifier: Apache-2.0
// Clients as they come: in parts, silent, too many, too slow, gone, with file descriptors; and what
// they leave behind, which is nothing.
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/server.h"
#include "deny.h"
#include "fake_hospes.h"

static struct hospes_control *control;
static struct hospes_vm *vm;
static char directory[] = "/tmp/hospes-control-XXXXXX";
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static int listener;
static char got[300 * 1024];

static void set_up(void)
{
	const struct hospes_vm_options options = {.size = sizeof(options)};
	struct hospes_error error;

	cr_assert(mkdtemp(directory));
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/socket", directory);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert_eq(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	cr_assert_eq(listen(listener, 256), 0);
	hospes_vm_create(&vm, "", 0, &options, &error);
	fake = (struct fake){.state = HOSPES_RUNNING, .status = "{\"state\": \"running\"}"};
	cr_assert_eq(hospes_control_create(&control, &error), 0);
	cr_assert_eq(hospes_control_serve(control, vm, listener, &error), 0, "%s", error.text);
}

static void tear_down(void)
{
	hospes_control_destroy(control);
	close(listener);
	unlink(address.sun_path);
	rmdir(directory);
}

TestSuite(server, .init = set_up, .fini = tear_down);

static unsigned int open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* All work that is there. */
static void turn(void)
{
	struct pollfd fd = {.fd = hospes_control_fd(control), .events = POLLIN};

	while (poll(&fd, 1, 0) == 1)
		cr_assert_eq(hospes_control_iterate(control), 0);
	fake.calls[0] = '\0';
}

static int client(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0, "%d", errno);
	return fd;
}

static void say(int fd, const char *text)
{
	cr_assert_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* What has come is in `got`. True: the other side has closed. */
static bool hear(int fd)
{
	size_t at = 0;
	ssize_t n;

	do {
		n = recv(fd, got + at, sizeof(got) - 1 - at, 0);
		at += n > 0 ? (size_t)n : 0;
	} while (n > 0);
	got[at] = '\0';
	return n == 0 || errno == ECONNRESET;
}

static const char status_request[] = "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n";

/* A new client is answered. */
static void works(void)
{
	int fd = client();

	say(fd, status_request);
	turn();
	cr_assert_not(hear(fd));
	cr_assert(strncmp(got, "HTTP/1.1 200 OK\r\n", 17) == 0, "%s", got);
	cr_assert(strstr(got, "\r\n\r\n{\"state\": \"running\"}"), "%s", got);
	close(fd);
	turn();
}

Test(server, a_request_in_two_parts_is_answered_wherever_it_is_divided)
{
	for (size_t at = 1; at < strlen(status_request); at++) {
		int fd = client();

		cr_assert_eq(send(fd, status_request, at, 0), (ssize_t)at);
		turn();
		cr_assert_not(hear(fd));
		cr_assert_str_eq(got, "");
		say(fd, status_request + at);
		turn();
		hear(fd);
		cr_assert(strstr(got, "200 OK"), "%zu: %s", at, got);
		close(fd);
	}
}

Test(server, a_connection_that_a_child_has_a_copy_of_is_gone_when_it_is_closed)
{
	struct pollfd work = {.fd = hospes_control_fd(control), .events = POLLIN};
	int fd = client();
	pid_t child;

	turn();
	child = fork();
	if (child == 0) {
		while (true)
			pause();
	}
	shutdown(fd, SHUT_RDWR);
	cr_assert_eq(poll(&work, 1, 0), 1);
	cr_assert_eq(hospes_control_iterate(control), 0);
	cr_assert_eq(poll(&work, 1, 0), 0, "nothing is reported of what is closed");
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	close(fd);
	works();
}

static unsigned int answers(void)
{
	unsigned int n = 0;

	for (const char *at = got; (at = strstr(at, "HTTP/1.1 ")); at++)
		n++;
	return n;
}

Test(server, requests_on_one_connection_are_answered_in_order)
{
	int fd = client();

	say(fd,
	    "POST /v1/pause HTTP/1.1\r\n\r\nGET /none HTTP/1.1\r\n\r\n"
	    "POST /v1/resume HTTP/1.1\r\nConnection: close\r\n\r\nGET /v1/status HTTP/1.1\r\n\r\n");
	turn();
	cr_assert(hear(fd));
	cr_assert_eq(answers(), 3u, "%s", got);
	cr_assert_lt(strstr(got, "paused"), strstr(got, "unknown_path"));
	cr_assert_lt(strstr(got, "unknown_path"), strstr(got, "running"));
	cr_assert(strstr(got, "Connection: close\r\n"));
	close(fd);
}

Test(server, a_client_that_waits_for_continue_gets_it_once)
{
	int fd = client();

	say(fd, "POST /v1/pause HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
	turn();
	hear(fd);
	cr_assert_str_eq(got, "HTTP/1.1 100 Continue\r\n\r\n");
	say(fd, "{");
	turn();
	hear(fd);
	cr_assert_str_eq(got, "");
	say(fd, "}");
	turn();
	hear(fd);
	cr_assert(strstr(got, "HTTP/1.1 200 OK"), "%s", got);
	close(fd);
}

Test(server, what_is_no_request_is_refused_and_closed)
{
	static const char *const bad[] = {
		"SSH-2.0-x\r\n",
		"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
		"POST /v1/pause HTTP/1.1\r\nContent-Length: 4294967296\r\n\r\n",
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int fd = client();

		say(fd, bad[i]);
		turn();
		cr_assert(hear(fd), "%s", bad[i]);
		cr_assert(strstr(got, i == 2 ? "413 Payload Too Large" : "400 Bad Request"), "%s",
			  got);
		cr_assert(strstr(got, "\"remedy\":"), "%s", got);
		close(fd);
	}
	works();
}

Test(server, a_hundred_clients_that_say_nothing_or_half_cost_nobody_an_answer)
{
	static const char *const parts[] = {
		"", "GET /v1/sta", "POST /v1/pause HTTP/1.1\r\n",
		"POST /v1/pause HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"};
	unsigned int before;
	int fds[100];

	works();
	before = open_fds();
	for (unsigned int i = 0; i < 100; i++) {
		fds[i] = client();
		say(fds[i], parts[i % 4]);
		if (i % 2)
			turn();
	}
	for (unsigned int i = 0; i < 20; i++)
		works();
	cr_assert_leq(open_fds(), before + 100 + 64, "the machine holds at most 64");
	for (unsigned int i = 0; i < 100; i++)
		close(fds[i]);
	turn();
	cr_assert_eq(open_fds(), before);
	works();
}

Test(server, a_hundred_clients_that_vanish_leave_nothing)
{
	unsigned int before;

	works();
	before = open_fds();
	for (unsigned int i = 0; i < 100; i++) {
		int fd = client();

		say(fd, i % 3 ? status_request : "GET /v1/events HTTP/1.1\r\n\r\n");
		if (i % 2)
			turn();
		close(fd);
	}
	turn();
	cr_assert_eq(open_fds(), before);
	works();
}

Test(server, a_client_that_does_not_read_waits_alone)
{
	char *long_one = malloc(8 << 20);
	int fd = client();

	memset(long_one, ' ', 8 << 20);
	memcpy(long_one, "{", 1);
	strcpy(long_one + (8 << 20) - 2, "}");
	fake.status = long_one;
	say(fd, status_request);
	say(fd, status_request);
	turn();
	fake.status = "{\"state\": \"running\"}";
	works();
	/* It gets all of it when it reads. */
	for (size_t n = 0; n < 8 << 20;) {
		hear(fd);
		n += strlen(got);
		turn();
	}
	close(fd);
	free(long_one);
}

Test(server, a_half_request_is_closed_when_its_time_is_over)
{
	struct pollfd poller = {.fd = hospes_control_fd(control), .events = POLLIN};
	int half = client(), silent = client();

	control_set_limit(control, 1000000);
	say(half, "GET /v1/sta");
	while (!hear(half)) {
		cr_assert_eq(poll(&poller, 1, 30000), 1, "nothing wakes it");
		hospes_control_iterate(control);
	}
	cr_assert_not(hear(silent), "who has asked nothing may stay");
	/* And then nothing wakes it any more. */
	turn();
	cr_assert_eq(poll(&poller, 1, 0), 0);
	close(half);
	close(silent);
}

Test(server, nothing_fires_while_clients_are_idle)
{
	int fd = client();

	say(fd, status_request);
	control_set_limit(control, 1);
	turn();
	cr_assert_not(hear(fd));
	cr_assert_eq(answers(), 1u);
	turn();
	say(fd, status_request);
	turn();
	hear(fd);
	cr_assert_eq(answers(), 1u, "the connection is still there");
	close(fd);
}

/* --- file descriptors --- */

static void say_with_fds(int fd, const char *text, unsigned int n)
{
	char room[CMSG_SPACE(sizeof(int) * 32)] = "";
	struct iovec iov = {.iov_base = (char *)text, .iov_len = strlen(text)};
	struct msghdr message = {.msg_iov = &iov,
				 .msg_iovlen = 1,
				 .msg_control = room,
				 .msg_controllen = CMSG_SPACE(sizeof(int) * n)};
	struct cmsghdr *m = CMSG_FIRSTHDR(&message);

	m->cmsg_level = SOL_SOCKET;
	m->cmsg_type = SCM_RIGHTS;
	m->cmsg_len = CMSG_LEN(sizeof(int) * n);
	for (unsigned int i = 0; i < n; i++)
		memcpy(CMSG_DATA(m) + i * sizeof(int), &listener, sizeof(int));
	cr_assert_eq(sendmsg(fd, &message, 0), (ssize_t)strlen(text));
}

Test(server, file_descriptors_that_nobody_wanted_are_closed)
{
	static const struct {
		unsigned int fds;
		const char *text, *answer;
	} cases[] = {
		{1, "POST /v1/pause HTTP/1.1\r\n\r\n", "takes no file descriptors, 1 came"},
		{8, "POST /v1/pause HTTP/1.1\r\n\r\n", "takes no file descriptors, 8 came"},
		{9, "POST /v1/pause HTTP/1.1\r\n\r\n", "more than 8 file descriptors"},
		{30, "POST /v1/pause HTTP/1.1\r\n\r\n", "more than 8 file descriptors"},
		{3, "no HTTP\r\n\r\n", "this is no HTTP"},
		{3, "GET /none HTTP/1.1\r\n\r\n", "no such path"},
		{3, "GET /half", ""},
	};
	unsigned int before;

	works();
	before = open_fds();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int fd = client();

		say_with_fds(fd, cases[i].text, cases[i].fds);
		turn();
		hear(fd);
		cr_assert(strstr(got, cases[i].answer), "%s", got);
		close(fd);
		turn();
		cr_assert_eq(open_fds(), before, "case %zu", i);
	}
}

Test(server, a_reader_of_events_that_sends_descriptors_leaves_none)
{
	unsigned int before;
	int fd = client();

	say(fd, "GET /v1/events HTTP/1.1\r\n\r\n");
	turn();
	before = open_fds();
	for (int i = 0; i < 20; i++) {
		say_with_fds(fd, "x", 4);
		turn();
	}
	cr_assert_eq(open_fds(), before);
	close(fd);
}

/* --- events --- */

static void emit(enum hospes_event_type type, int value, const char *text)
{
	const struct hospes_event event = {
		.size = sizeof(event), .type = type, .value = value, .text = text};

	hospes_control_event(control, &event);
}

Test(server, events_come_as_they_happen_behind_a_line_with_the_state)
{
	int fd = client();

	emit(HOSPES_EVENT_RESET, 0, "");
	say(fd, "GET /v1/events HTTP/1.1\r\n\r\n");
	turn();
	cr_assert_not(hear(fd));
	cr_assert(strstr(got, "\r\n\r\n{\"seq\":1,\"event\":\"stream\",\"state\":\"running\"}\n"),
		  "%s", got);
	emit(HOSPES_EVENT_STATE, HOSPES_PAUSED, "");
	turn();
	hear(fd);
	cr_assert(strncmp(got, "{\"seq\":2,", 9) == 0, "%s", got);
	cr_assert(strstr(got, "\"state\":\"paused\"}\n"), "%s", got);
	close(fd);
}

Test(server, earlier_events_are_there_for_who_asks)
{
	int fd = client();

	for (int i = 0; i < 3; i++)
		emit(HOSPES_EVENT_RESET, 0, "");
	say(fd, "GET /v1/events?since=1 HTTP/1.1\r\n\r\n");
	turn();
	hear(fd);
	cr_assert(strstr(got, "{\"seq\":1,\"event\":\"stream\""), "%s", got);
	cr_assert(strstr(got, "{\"seq\":2,") && strstr(got, "{\"seq\":3,"), "%s", got);
	close(fd);
}

Test(server, a_slow_reader_of_events_loses_some_and_sees_it)
{
	unsigned long long last = 0, number, lost = 0;
	int fd = client(), size = 4096;

	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	say(fd, "GET /v1/events HTTP/1.1\r\n\r\n");
	turn();
	for (int i = 0; i < 20000; i++) {
		emit(HOSPES_EVENT_DEVICE_ERROR, 0, "an error");
		if (i % 16 == 0)
			turn();
	}
	do {
		hear(fd);
		for (char *at = got; (at = strstr(at, "{\"seq\":")); at++) {
			number = strtoull(at + 7, NULL, 10);
			if (number != last + 1 && last)
				lost += number - last - 1;
			last = number;
		}
		turn();
	} while (got[0]);
	cr_assert_eq(last, 20000u);
	cr_assert_gt(lost, 1000u);
	close(fd);
}

Test(server, there_are_at_most_sixteen_readers_of_events)
{
	int fds[17];

	for (int i = 0; i < 17; i++) {
		fds[i] = client();
		say(fds[i], "GET /v1/events HTTP/1.1\r\n\r\n");
		turn();
	}
	cr_assert_not(hear(fds[15]));
	cr_assert(strstr(got, "200 OK"));
	hear(fds[16]);
	cr_assert(strstr(got, "503 Service Unavailable"), "%s", got);
	close(fds[0]);
	turn();
	say(fds[16], "GET /v1/events HTTP/1.1\r\n\r\n");
	turn();
	hear(fds[16]);
	cr_assert(strstr(got, "200 OK"), "%s", got);
	for (int i = 1; i < 17; i++)
		close(fds[i]);
}

/* --- who, and what is missing --- */

Test(server, another_user_is_refused)
{
	int status;
	pid_t pid;

	if (geteuid() != 0)
		cr_skip("only root can become another user");
	chmod(directory, 0755);
	chmod(address.sun_path, 0777);
	pid = fork();
	if (pid == 0) {
		int fd;

		if (setuid(65534))
			_exit(1);
		fd = socket(AF_UNIX, SOCK_STREAM, 0);
		if (connect(fd, (struct sockaddr *)&address, sizeof(address)))
			_exit(2);
		/* It may have been refused before it has asked. */
		send(fd, "POST /v1/stop HTTP/1.1\r\n\r\n", 26, MSG_NOSIGNAL);
		_exit(recv(fd, got, sizeof(got), 0) < 22 ||
		      strncmp(got, "HTTP/1.1 403 Forbidden", 22) != 0);
	}
	while (waitpid(pid, &status, WNOHANG) == 0) {
		struct pollfd fd = {.fd = hospes_control_fd(control), .events = POLLIN};

		if (poll(&fd, 1, 50) == 1)
			hospes_control_iterate(control);
	}
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	cr_assert_str_eq(fake.calls, "", "%s", fake.calls);
	works();
}

Test(server, without_free_descriptors_it_does_not_spin)
{
	struct pollfd poller = {.fd = hospes_control_fd(control), .events = POLLIN};
	struct rlimit few, limit;
	int fd;

	works();
	fd = client();
	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	few = limit;
	few.rlim_cur = (rlim_t)fd + 1;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
	hospes_control_iterate(control);
	cr_assert_eq(poll(&poller, 1, 0), 0, "the listening socket is left alone for a second");
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	say(fd, status_request);
	cr_assert_eq(poll(&poller, 1, 30000), 1);
	turn();
	hear(fd);
	cr_assert(strstr(got, "200 OK"), "%s", got);
	close(fd);
}

Test(server, needs_a_socket_that_listens)
{
	struct hospes_control *other;
	struct hospes_error error;
	int plain = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	unsigned int before = open_fds();

	cr_assert_eq(hospes_control_create(&other, NULL), 0);
	cr_assert_eq(hospes_control_serve(other, vm, plain, &error), -EINVAL);
	cr_assert(strstr(error.text, "listens"), "%s", error.text);
	cr_assert_lt(hospes_control_serve(other, vm, -1, &error), 0);
	cr_assert_lt(hospes_control_fd(other), 0);
	cr_assert_lt(hospes_control_iterate(other), 0);
	hospes_control_destroy(other);
	hospes_control_destroy(NULL);
	cr_assert_eq(open_fds(), before);
	cr_assert_eq(hospes_control_serve(control, vm, listener, &error), -EBUSY);
	close(plain);
}

static void fails_without(long call)
{
	struct hospes_control *other;
	struct hospes_error error;
	unsigned int before = open_fds();

	cr_assert_eq(hospes_control_create(&other, &error), 0);
	if (deny(call, 0, EMFILE))
		cr_skip("seccomp cannot be used");
	cr_assert_eq(hospes_control_serve(other, vm, listener, &error), -EMFILE);
	hospes_control_destroy(other);
	cr_assert_eq(open_fds(), before);
}

Test(server, is_not_made_without_epoll)
{
	fails_without(SYS_epoll_create1);
}

Test(server, is_not_made_without_an_eventfd)
{
	fails_without(SYS_eventfd2);
}

Test(server, is_not_made_without_a_timer)
{
	fails_without(SYS_timerfd_create);
}
