// SPDX-License-Identifier: Apache-2.0
// What a service manager hears of a machine, on a socket like systemd's.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cli.h"
#include "fake_hospes.h"
#include "notify.h"

static char directory[] = "/tmp/hospes-notify-XXXXXX", path[64];
static int manager;

static void listen_there(void)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	cr_assert(dup2(null, STDIN_FILENO) == STDIN_FILENO && mkdtemp(directory));
	close(null);
	snprintf(path, sizeof(path), "%s/socket", directory);
	memcpy(at.sun_path, path, strlen(path));
	manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	cr_assert(bind(manager, (struct sockaddr *)&at, sizeof(at)) == 0);
	setenv("NOTIFY_SOCKET", path, 1);
}

static void remove_it(void)
{
	unlink(path);
	rmdir(directory);
}

TestSuite(notify, .init = listen_there, .fini = remove_it);

/* All that was said, a '|' after each. */
static const char *heard(void)
{
	static char all[4096];
	size_t used = 0;
	ssize_t n;

	while ((n = recv(manager, all + used, sizeof(all) - used - 2, 0)) > 0) {
		used += (size_t)n;
		all[used++] = '|';
	}
	all[used] = '\0';
	return all;
}

static int run(int argc, char **argv)
{
	return command_run(&run_command, argc, argv);
}
#define RUN(...) fake_run(run, (const char *const[]){"run", __VA_ARGS__, NULL})

Test(notify, the_manager_hears_that_the_guest_runs)
{
	fake = (struct fake){.outcome = HOSPES_OUTCOME_POWERED_OFF};
	cr_assert_eq(RUN("--kernel", "k", "--console=none"), CLI_OK);
	cr_assert(strstr(heard(), "READY=1\nSTATUS=the guest runs|"));
}

Test(notify, a_machine_that_cannot_start_is_never_ready)
{
	fake = (struct fake){.fails = "start"};
	cr_assert_eq(RUN("--kernel", "k", "--console=none"), CLI_FAILED);
	cr_assert_str_eq(heard(), "");
}

Test(notify, a_signal_says_that_it_stops)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	raise(SIGTERM);
	fake = (struct fake){0};
	cr_assert_eq(RUN("--console=none", "--grace", "1"), CLI_FAILED);
	cr_assert(strstr(heard(), "STOPPING=1\nSTATUS=the guest was asked to power off|"));
}

Test(notify, events_are_told_in_the_managers_words)
{
	static const struct {
		enum hospes_event_type type;
		int value;
		const char *said;
	} rows[] = {
		{HOSPES_EVENT_STATE, HOSPES_PAUSED, "STATUS=the guest is paused|"},
		{HOSPES_EVENT_STATE, HOSPES_RUNNING, "STATUS=the guest runs|"},
		{HOSPES_EVENT_STATE, HOSPES_STOPPED, ""},
		{HOSPES_EVENT_RESET, 0, ""},
		{HOSPES_EVENT_OUTCOME, HOSPES_OUTCOME_POWERED_OFF,
		 "STOPPING=1\nSTATUS=the guest powered off|"},
		{HOSPES_EVENT_OUTCOME, HOSPES_OUTCOME_PANICKED,
		 "STOPPING=1\nSTATUS=the guest's kernel panicked|"},
		{HOSPES_EVENT_OUTCOME, HOSPES_OUTCOME_CRASHED,
		 "STOPPING=1\nSTATUS=the guest crashed|"},
		{HOSPES_EVENT_OUTCOME, HOSPES_OUTCOME_KILLED,
		 "STOPPING=1\nSTATUS=the machine was ended|"},
	};
	struct notify n;

	notify_open(&n);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct hospes_event event = {
			.size = sizeof(event), .type = rows[i].type, .value = rows[i].value};

		notify_event(&n, &event);
		cr_expect_str_eq(heard(), rows[i].said, "%zu", i);
	}
	notify_close(&n);
}

/* With 20 ms until the manager gives up. */
static void wait_for_watchdog(struct notify *n)
{
	setenv("WATCHDOG_USEC", "20000", 1);
	notify_open(n);
	cr_assert(n->watchdog_fd >= 0);
	cr_assert_eq(poll(&(struct pollfd){.fd = n->watchdog_fd, .events = POLLIN}, 1, 60000), 1);
}

Test(notify, a_machine_that_answers_gives_signs_of_life)
{
	struct notify n;

	fake = (struct fake){0};
	wait_for_watchdog(&n);
	notify_watchdog(&n, NULL);
	cr_assert_str_eq(heard(), "WATCHDOG=1|");
	notify_close(&n);
}

Test(notify, a_machine_that_does_not_answer_gives_none)
{
	struct notify n;

	fake = (struct fake){.fails = "status"};
	wait_for_watchdog(&n);
	notify_watchdog(&n, NULL);
	cr_assert_str_eq(heard(), "");
	notify_close(&n);
}

Test(notify, the_watchdog_of_another_process_is_not_ours)
{
	struct notify n;

	setenv("WATCHDOG_USEC", "20000", 1);
	setenv("WATCHDOG_PID", "1", 1);
	notify_open(&n);
	cr_assert_eq(n.watchdog_fd, -1);
	notify_close(&n);
}

Test(notify, an_abstract_name_is_connected_to)
{
	static const char name[] = "@hospes-test-notify";
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	struct notify n;

	memcpy(at.sun_path + 1, name + 1, sizeof(name) - 2);
	close(manager);
	manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	cr_assert(bind(manager, (struct sockaddr *)&at,
		       (socklen_t)(sizeof(sa_family_t) + sizeof(name) - 1)) == 0);
	setenv("NOTIFY_SOCKET", name, 1);
	notify_open(&n);
	notify_ready(&n);
	cr_assert_str_eq(heard(), "READY=1\nSTATUS=the guest runs|");
	notify_close(&n);
}

Test(notify, a_manager_that_does_not_read_keeps_nobody)
{
	struct notify n;

	notify_open(&n);
	for (int i = 0; i < 5000; i++)
		notify_ready(&n);
	cr_assert(*heard());
	notify_close(&n);
}

Test(notify, a_socket_that_is_not_there_is_said_and_the_machine_runs)
{
	static const char *const names[] = {"/no/such/socket", "vsock:2:1234"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		setenv("NOTIFY_SOCKET", names[i], 1);
		fake = (struct fake){.outcome = HOSPES_OUTCOME_POWERED_OFF};
		cr_expect_eq(RUN("--kernel", "k", "--console=none"), CLI_OK);
		cr_expect(strstr(fake_err, names[i]), "%s", fake_err);
	}
}

Test(notify, nobody_asked)
{
	struct notify n;

	unsetenv("NOTIFY_SOCKET");
	notify_open(&n);
	cr_assert_eq(n.fd, -1);
	notify_ready(&n);
	notify_close(&n);
}
