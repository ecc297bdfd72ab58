// SPDX-License-Identifier: Apache-2.0
// hospes run: its options, the machine's life as the command leads it, signals and exit statuses.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "cli.h"
#include "fake_hospes.h"

static int run(int argc, char **argv)
{
	return command_run(&run_command, argc, argv);
}
#define RUN(...) fake_run(run, (const char *const[]){"run", __VA_ARGS__, NULL})

/* Standard input is no terminal, and no signal is ignored: whoever runs the tests may be nohup. */
static void no_terminal(void)
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	cr_assert(dup2(null, STDIN_FILENO) == STDIN_FILENO);
	close(null);
	signal(SIGHUP, SIG_DFL);
	signal(SIGINT, SIG_DFL);
}

/* A signal that is there before the command looks. */
static void pending(int signal)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, signal);
	sigprocmask(SIG_BLOCK, &set, NULL);
	raise(signal);
}

TestSuite(run, .init = no_terminal);

Test(run, a_machine_is_created_started_and_destroyed)
{
	fake = (struct fake){.outcome = HOSPES_OUTCOME_POWERED_OFF};
	cr_assert_eq(RUN("--kernel", "k", "--console=none"), CLI_OK);
	cr_assert_str_eq(fake.calls, "create({\"kernel\":{\"path\":\"k\"},\"consoles\":[]}) "
				     "start() confine() stop() destroy() ");
}

Test(run, creating_a_machine_can_be_interrupted)
{
	static const int ending[] = {SIGTERM, SIGINT, SIGHUP};

	fake = (struct fake){.outcome = HOSPES_OUTCOME_POWERED_OFF};
	cr_assert_eq(RUN("--kernel", "k", "--console=none"), CLI_OK);
	for (size_t i = 0; i < sizeof(ending) / sizeof(ending[0]); i++) {
		cr_assert(!sigismember(&fake.blocked_at_create, ending[i]), "%d", ending[i]);
		cr_assert(sigismember(&fake.blocked_at_start, ending[i]), "%d", ending[i]);
	}
}

Test(run, the_document_cannot_name_files_of_the_command_by_number)
{
	fake = (struct fake){.outcome = HOSPES_OUTCOME_POWERED_OFF};
	cr_assert_eq(RUN("--kernel", "k", "--console=none"), CLI_OK);
	cr_assert_gt(fake.free_at_start, fake.free_at_create, "signalfd and its like come later");
}

Test(run, the_log_is_not_written_through_a_link)
{
	char dir[] = "/tmp/hospes-log-XXXXXX", link[64], command[64];

	cr_assert(mkdtemp(dir));
	snprintf(link, sizeof(link), "%s/link", dir);
	cr_assert_eq(symlink("precious", link), 0);
	fake = (struct fake){.outcome = HOSPES_OUTCOME_POWERED_OFF};
	cr_assert_eq(RUN("--kernel", "k", "--console=none", "--log", link), CLI_FAILED);
	cr_assert(strstr(fake_err, "symbolic link"), "%s", fake_err);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	cr_assert_eq(system(command), 0);
}

Test(run, the_log_is_this_users_alone)
{
	char path[] = "/tmp/hospes-log-XXXXXX";
	struct stat st;

	close(mkstemp(path));
	unlink(path);
	umask(0);
	fake = (struct fake){.outcome = HOSPES_OUTCOME_POWERED_OFF};
	cr_assert_eq(RUN("--kernel", "k", "--console=none", "--log", path), CLI_OK);
	cr_assert_eq(stat(path, &st), 0);
	cr_assert_eq(st.st_mode & 0777, 0600);
	unlink(path);
}

Test(run, without_a_console_a_serial_one_is_on_the_terminal)
{
	fake = (struct fake){.outcome = HOSPES_OUTCOME_POWERED_OFF};
	cr_assert_eq(fake_run(run, (const char *const[]){"run", NULL}), CLI_OK);
	cr_assert(strstr(fake.calls,
			 "create({\"consoles\":[{\"type\":\"serial\",\"in\":0,\"out\":1}]})"),
		  "%s", fake.calls);
}

Test(run, only_the_first_console_without_a_place_gets_the_terminal)
{
	fake = (struct fake){.outcome = HOSPES_OUTCOME_POWERED_OFF};
	cr_assert_eq(RUN("--console=serial,path=f", "--console=virtio", "--console=virtio"),
		     CLI_OK);
	cr_assert(strstr(fake.calls, "[{\"type\":\"serial\",\"path\":\"f\"},{\"type\":\"virtio\","
				     "\"in\":0,\"out\":1},{\"type\":\"virtio\"}]"),
		  "%s", fake.calls);
}

/* --- jobs: a terminal that is the controlling one of a session of our own --- */

/* The side of it that a person has. Standard input is the other one. */
static int own_terminal(void)
{
	int person = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), side;

	cr_assert_geq(person, 0);
	cr_assert_eq(grantpt(person), 0);
	cr_assert_eq(unlockpt(person), 0);
	setsid();
	side = open(ptsname(person), O_RDWR | O_CLOEXEC); /* the session's from now on */
	cr_assert_eq(tcgetpgrp(side), getpgrp());
	cr_assert_eq(dup2(side, STDIN_FILENO), STDIN_FILENO);
	/* The shell that this stands for is not stopped by it. */
	signal(SIGTTOU, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	return person;
}

static bool is_raw(void)
{
	struct termios modes;

	cr_assert_eq(tcgetattr(STDIN_FILENO, &modes), 0);
	return !(modes.c_lflag & ICANON);
}

/* What a background job of the shell does; its status says whether it was as expected. */
static pid_t job(int (*body)(void))
{
	pid_t child = fork();

	if (child == 0) {
		setpgid(0, 0);
		signal(SIGTTOU, SIG_DFL);
		_exit(body());
	}
	setpgid(child, child);
	return child;
}

static int job_that_ends(void)
{
	fake = (struct fake){.outcome = HOSPES_OUTCOME_POWERED_OFF};
	return RUN("--kernel", "k") == CLI_OK && strstr(fake_err, "in the background") ? 0 : 1;
}

Test(run, a_background_job_runs_and_leaves_the_terminal_alone)
{
	int status, person = own_terminal();

	/* WUNTRACED: stopped by the terminal would be the wrong end. */
	cr_assert_gt(waitpid(job(job_that_ends), &status, WUNTRACED), 0);
	cr_assert_eq(status, 0, "%x", status);
	cr_assert_not(is_raw());
	close(person);
}

static int started[2];
static int other_side; /* of the terminal, which a child has too */

static int job_that_waits(void)
{
	fake = (struct fake){.started_fd = started[1]};
	/* Ended by Ctrl-A x, which is no outcome of the guest. */
	return RUN("--kernel", "k") == CLI_FAILED && strstr(fake.calls, "start() confine() stop() ")
		       ? 0
		       : 1;
}

Test(run, a_job_that_comes_to_the_foreground_takes_the_terminal_and_gives_it_back, .timeout = 60)
{
	int status, person = own_terminal();
	char byte;
	pid_t child;

	cr_assert_eq(pipe2(started, O_CLOEXEC), 0);
	child = job(job_that_waits);
	cr_assert_eq(read(started[0], &byte, 1), 1);
	cr_assert_not(is_raw());
	cr_assert_eq(tcsetpgrp(STDIN_FILENO, child), 0);
	while (!is_raw())
		poll(NULL, 0, 10);
	cr_assert_eq(write(person, "\001x", 2), 2);
	cr_assert_eq(waitpid(child, &status, WUNTRACED), child);
	cr_assert_eq(status, 0, "%x", status);
	cr_assert_not(is_raw());
	close(person);
}

static int job_that_is_hung_up(void)
{
	signal(SIGHUP, SIG_DFL);
	close(other_side);
	fake = (struct fake){.started_fd = started[1]};
	return RUN("--kernel", "k", "--grace", "1") == CLI_FAILED &&
			       strstr(fake.calls, "start() confine() shutdown() stop() ")
		       ? 0
		       : 1;
}

Test(run, a_terminal_that_is_hung_up_presses_the_power_button, .timeout = 60)
{
	int status;
	char byte;
	pid_t child;

	other_side = own_terminal();
	cr_assert_eq(pipe2(started, O_CLOEXEC), 0);
	child = job(job_that_is_hung_up);
	cr_assert_eq(tcsetpgrp(STDIN_FILENO, child), 0);
	cr_assert_eq(read(started[0], &byte, 1), 1);
	/* The kernel tells the shell, and that its jobs. */
	close(other_side);
	cr_assert_eq(kill(-child, SIGHUP), 0);
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert_eq(status, 0, "%x", status);
}

Test(run, each_outcome_has_its_status)
{
	static const struct {
		enum hospes_outcome outcome;
		int status;
		const char *text;
	} cases[] = {
		{HOSPES_OUTCOME_POWERED_OFF, CLI_OK, ""},
		{HOSPES_OUTCOME_RESET, CLI_OK, ""},
		{HOSPES_OUTCOME_PANICKED, CLI_CRASHED, "hospes: the guest's kernel panicked\n"},
		{HOSPES_OUTCOME_CRASHED, CLI_CRASHED, "hospes: the guest crashed (triple fault)\n"},
		{HOSPES_OUTCOME_KILLED, CLI_FAILED, "hospes: the machine was ended\n"},
		{HOSPES_OUTCOME_ERROR, CLI_FAILED, ""},
		{HOSPES_OUTCOME_MIGRATED, CLI_OK, ""},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		fake = (struct fake){.outcome = cases[i].outcome};
		cr_assert_eq(RUN("--console=none"), cases[i].status, "%zu", i);
		cr_assert_str_eq(fake_err, cases[i].text);
	}
}

#define STATUS(bytes) "{\"devices\": [{\"kind\": \"console\", \"output_bytes\": " #bytes "}]}"

Test(run, a_console_that_shows_nothing_is_explained)
{
	static const struct {
		const char *console, *cmdline, *status, *says;
	} cases[] = {
		{"serial", "quiet", STATUS(0), "console=ttyS0"},
		{"serial", "console=tty0", STATUS(0), "console=ttyS0"},
		{"virtio", "console=ttyS0", STATUS(0), "console=hvc0"},
		{"serial", "quiet", STATUS(1), NULL},
		{"serial", "quiet console=ttyS0,115200", STATUS(0), NULL},
		{"virtio", "console=hvc0", STATUS(0), NULL},
		{"none", "quiet", STATUS(0), NULL},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		fake = (struct fake){.outcome = HOSPES_OUTCOME_POWERED_OFF,
				     .status = cases[i].status};
		cr_expect_eq(RUN("--console", cases[i].console, "--cmdline", cases[i].cmdline),
			     CLI_OK);
		if (cases[i].says)
			cr_expect(strstr(fake_err, "nothing to its console") &&
					  strstr(fake_err, cases[i].says),
				  "%zu: %s", i, fake_err);
		else
			cr_expect_str_eq(fake_err, "", "%zu", i);
	}
}

Test(run, a_machine_that_cannot_be_made_or_started_is_a_failure)
{
	fake = (struct fake){.fails = "create"};
	cr_assert_eq(RUN("--console=none"), CLI_FAILED);
	cr_assert_str_eq(fake_err, "hospes: create: refused\n");
	cr_assert_not(strstr(fake.calls, "start"));
	fake = (struct fake){.fails = "start"};
	cr_assert_eq(RUN("--console=none"), CLI_FAILED);
	cr_assert_str_eq(fake_err, "hospes: start: refused\n");
	cr_assert(strstr(fake.calls, "start() destroy() "));
}

Test(run, a_dry_run_only_checks)
{
	fake = (struct fake){0};
	cr_assert_eq(RUN("--dry-run", "--name", "x", "--console=none"), CLI_OK);
	cr_assert_str_eq(fake.calls, "check({\"name\":\"x\",\"consoles\":[]}) ");
	cr_assert_str_eq(fake_out, "{}\n");
	fake = (struct fake){.fails = "check"};
	cr_assert_eq(RUN("--dry-run"), CLI_FAILED);
}

Test(run, sigterm_presses_the_power_button_and_time_ends_the_machine)
{
	fake = (struct fake){0};
	pending(SIGTERM);
	cr_assert_eq(RUN("--console=none", "--grace", "1"), CLI_FAILED);
	cr_assert(strstr(fake.calls, "start() confine() shutdown() stop() destroy() "), "%s",
		  fake.calls);
	cr_assert(strstr(fake_err, "did not power off within 1 s"), "%s", fake_err);
}

Test(run, without_grace_sigterm_ends_the_machine)
{
	fake = (struct fake){0};
	pending(SIGTERM);
	cr_assert_eq(RUN("--console=none", "--grace=0"), CLI_FAILED);
	cr_assert(strstr(fake.calls, "start() confine() stop() destroy() "), "%s", fake.calls);
}

Test(run, a_second_signal_ends_the_machine)
{
	fake = (struct fake){0};
	pending(SIGINT);
	pending(SIGTERM);
	cr_assert_eq(RUN("--console=none"), CLI_FAILED);
	cr_assert(strstr(fake.calls, "start() confine() shutdown() stop() destroy() "), "%s",
		  fake.calls);
}

Test(run, the_power_signal_of_machined_presses_the_button_and_ends_nothing)
{
	fake = (struct fake){0};
	pending(SIGRTMIN + 4);
	pending(SIGTERM);
	cr_assert_eq(RUN("--console=none", "--grace", "1"), CLI_FAILED);
	cr_assert(strstr(fake.calls, "start() confine() shutdown() shutdown() stop() destroy() "),
		  "%s", fake.calls);
	cr_assert(strstr(fake_err, "did not power off within 1 s"), "%s", fake_err);
}

Test(run, a_signal_that_was_ignored_when_it_started_ends_nothing)
{
	static const int ignored[] = {SIGHUP, SIGINT};

	for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++) {
		fake = (struct fake){0};
		signal(ignored[i], SIG_IGN);
		pending(ignored[i]);
		pending(SIGTERM);
		cr_expect_eq(RUN("--console=none", "--grace", "1"), CLI_FAILED);
		cr_expect(strstr(fake_err, "did not power off within 1 s"),
			  "signal %d counted as the second: %s", ignored[i], fake_err);
	}
}

Test(run, sigusr1_shows_status_and_registers)
{
	fake = (struct fake){0};
	pending(SIGUSR1);
	pending(SIGTERM);
	cr_assert_eq(RUN("--console=none", "--grace=0"), CLI_FAILED);
	cr_assert(strstr(fake.calls, "status() registers() stop() "), "%s", fake.calls);
	cr_assert(strstr(fake_err, "\nthe status\n") && strstr(fake_err, "\nthe registers\n"));
}

Test(run, usage_errors_ask_nothing_of_the_library)
{
	fake = (struct fake){0};
	cr_assert_eq(RUN("--kernal", "x"), CLI_USAGE);
	cr_assert_eq(RUN("--grace", "soon"), CLI_USAGE);
	cr_assert_eq(RUN("--dry-run=yes"), CLI_USAGE);
	cr_assert_eq(RUN("/nowhere/config.json"), CLI_FAILED);
	cr_assert_eq(RUN("--log=/nowhere/log", "--console=none"), CLI_FAILED);
	cr_assert_str_eq(fake.calls, "");
}
