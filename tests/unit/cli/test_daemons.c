// SPDX-License-Identifier: Apache-2.0
// Daemons that the command starts: what they get, what they may, how they end, what is said of it.
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "answer.h"
#include "cli.h"
#include "daemons.h"
#include "fake_hospes.h"
#include "fence.h"
#include "keeper.h"

static char dir[] = "/tmp/hospes-daemons-XXXXXX";
static char share[64];

/* $PATH has a daemon of each name. */
static void begin(void)
{
	char path[128];

	cr_assert(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/virtiofsd", dir);
	cr_assert_eq(symlink(getenv("FAKE_DAEMON"), path), 0);
	snprintf(path, sizeof(path), "%s/qemu-storage-daemon", dir);
	cr_assert_eq(symlink(getenv("FAKE_DAEMON"), path), 0);
	snprintf(share, sizeof(share), "%s/share", dir);
	cr_assert_eq(mkdir(share, 0700), 0);
	setenv("PATH", dir, 1);
	setenv("XDG_RUNTIME_DIR", dir, 1);
}

static void end(void)
{
	char command[128];

	snprintf(command, sizeof(command), "/bin/rm -r %s", dir);
	cr_assert_eq(system(command), 0);
}

TestSuite(daemons, .init = begin, .fini = end, .timeout = 90);

/* --- what the command is asked, as fake_run wants it --- */

static struct daemons daemons;
static json_t *item;
static const char *list;

static int start(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return daemons_start_for(&daemons, list, item, false, true);
}

static int start_one(const char *in, const char *text)
{
	list = in;
	item = json_loads(text, 0, NULL);
	cr_assert(item, "%s", text);
	return fake_run(start, (const char *const[]){"run", NULL});
}

static int start_share(const char *more)
{
	char text[256];

	snprintf(text, sizeof(text), "{\"path\": \"%s\"%s}", share, more);
	return start_one("shares", text);
}

/* All lines that its keeper has, up to the one about its pid; or to the end. */
static const char *lines(const char *last)
{
	static char all[4096];
	size_t n = 0;

	memset(all, 0, sizeof(all));
	while (!last || !strstr(all, last)) {
		ssize_t got = recv(daemons.child[0].lifeline, all + n, sizeof(all) - n - 2, 0);

		if (got <= 0)
			break;
		n += (size_t)got;
		all[n++] = '\n';
	}
	return all;
}

static pid_t number_after(const char *text, const char *word)
{
	const char *at = strstr(text, word);

	cr_assert(at, "%s", text);
	return atoi(at + strlen(word));
}

/* Its connection ends with it: within the time that the test has. */
static void assert_ended(int connection)
{
	struct pollfd fd = {.fd = connection, .events = POLLRDHUP};

	cr_assert_eq(poll(&fd, 1, -1), 1);
	cr_assert(fd.revents & (POLLRDHUP | POLLHUP));
}

static void finish(void)
{
	daemons_release(&daemons);
	daemons_wait(&daemons);
	json_decref(item);
}

Test(daemons, a_folder_is_a_device_that_a_daemon_serves)
{
	const char *said;

	cr_assert_eq(start_share(", \"queues\": 2"), CLI_OK, "%s", fake_err);
	cr_assert_str_eq(text_of(item, "tag", ""), "share");
	cr_assert(json_is_integer(json_object_get(item, "vhost_user_fd")));
	cr_assert(json_is_integer(json_object_get(item, "keeper_fd")));
	cr_assert(json_object_get(item, "queues"));
	cr_assert_not(json_object_get(item, "path"));
	said = lines("pid ");
	cr_assert(strstr(said, "virtiofsd: argument --fd=3\n"), "%s", said);
	cr_assert(strstr(said, "/share\n"), "%s", said);
	cr_assert(strstr(said, "fifth: none"), "it has a descriptor of ours: %s", said);
	finish();
}

Test(daemons, a_daemon_opens_what_it_is_to_serve_and_nothing_else)
{
	const char *said;

	if (!fence_is_there())
		cr_skip("this kernel has no Landlock");
	cr_assert_eq(start_share(""), CLI_OK, "%s", fake_err);
	said = lines("pid ");
	cr_expect(strstr(said, "write: open"), "%s", said);
	cr_expect(strstr(said, "passwd: Permission denied"), "%s", said);
	cr_expect(strstr(said, "--sandbox=none"), "%s", said);
	finish();
	cr_assert_eq(start_share(", \"readonly\": \"on\", \"tag\": \"t\""), CLI_OK, "%s", fake_err);
	said = lines("pid ");
	cr_expect(strstr(said, "write: Permission denied"), "%s", said);
	cr_expect(strstr(said, "--readonly"), "%s", said);
	cr_expect_str_eq(text_of(item, "tag", ""), "t");
	finish();
}

Test(daemons, a_daemon_ends_with_its_device)
{
	int connection;

	cr_assert_eq(start_share(""), CLI_OK, "%s", fake_err);
	connection = dup(daemons.child[0].connection);
	daemons_release(&daemons);
	daemons_wait(&daemons);
	assert_ended(connection);
	close(connection);
	json_decref(item);
}

Test(daemons, a_daemon_that_does_not_want_to_end_is_killed)
{
	const char *const argv[] = {getenv("FAKE_DAEMON"), NULL};
	int pair[2];
	struct kept kept;
	char word[256];

	/* Its socket is connected already, which it notices by what it says. */
	setenv("FAKE_DAEMON_DOES", "stay", 1);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	cr_assert_eq(keeper_start(&kept, &(struct keeper_job){.argv = argv,
							      .listen_fd = pair[1],
							      .end_ms = 100}),
		     0);
	close(pair[1]);
	cr_assert_gt(recv(kept.lifeline, word, sizeof(word), 0), 0);
	close(kept.lifeline);
	assert_ended(pair[0]);
	assert_ended(kept.ended);
	close(kept.ended);
	close(pair[0]);
}

Test(daemons, how_a_daemon_ended_is_the_last_word)
{
	const char *said;

	cr_assert_eq(start_share(""), CLI_OK, "%s", fake_err);
	cr_assert_eq(kill(number_after(lines("pid "), "pid "), SIGKILL), 0);
	said = lines(NULL);
	cr_assert(strstr(said, "virtiofsd was killed by signal 9 (Killed); it said last: pid "),
		  "%s", said);
	finish();
}

Test(daemons, a_daemon_does_not_outlive_its_keeper)
{
	cr_assert_eq(start_share(""), CLI_OK, "%s", fake_err);
	cr_assert_eq(kill(number_after(lines("pid "), "keeper "), SIGKILL), 0);
	assert_ended(daemons.child[0].connection);
	finish();
}

Test(daemons, a_keeper_is_not_ended_by_what_ends_a_job)
{
	const char *said;
	pid_t keeper;

	cr_assert_eq(start_share(""), CLI_OK, "%s", fake_err);
	said = lines("pid ");
	keeper = number_after(said, "keeper ");
	cr_assert_neq(getpgid(keeper), getpgid(0));
	cr_assert_eq(kill(keeper, SIGTERM), 0);
	cr_assert_eq(kill(keeper, SIGINT), 0);
	cr_assert_eq(kill(keeper, SIGHUP), 0);
	cr_assert_eq(kill(number_after(said, "pid "), SIGKILL), 0);
	cr_assert(strstr(lines(NULL), "killed by signal 9"), "it was there to say so");
	finish();
}

Test(daemons, one_that_does_not_come_is_explained)
{
	setenv("FAKE_DAEMON_DOES", "die", 1);
	cr_assert_eq(start_share(""), CLI_FAILED);
	cr_assert_str_eq(fake_err, "hospes: share 'share': virtiofsd ended with status 3; it said "
				   "last: no ?[1mreason\n");
	finish();
}

Test(daemons, what_is_missing_is_said_with_the_package)
{
	char text[128], path[96];
	FILE *f;

	snprintf(path, sizeof(path), "%s/x.qcow2", dir);
	f = fopen(path, "w");
	fwrite("QFI\xfb\0\0\0\2", 1, 8, f);
	cr_assert_eq(ftruncate(fileno(f), 4096), 0);
	fclose(f);
	setenv("PATH", "/nowhere:", 1);
	snprintf(text, sizeof(text), "{\"path\": \"%s\"}", path);
	cr_assert_eq(start_one("disks", text), CLI_FAILED);
	cr_assert(
		strstr(fake_err, "qemu-storage-daemon is not there; type: apt install qemu-utils"),
		"%s", fake_err);
	json_decref(item);
	cr_assert_eq(start_one("shares", "{\"path\": \"/nowhere/x\"}"), CLI_FAILED);
	cr_assert(strstr(fake_err, "'/nowhere/x': No such file"), "%s", fake_err);
	json_decref(item);
	snprintf(text, sizeof(text), "{\"path\": \"%s\"}", path);
	cr_assert_eq(start_one("shares", text), CLI_FAILED);
	cr_assert(strstr(fake_err, "is no folder"), "%s", fake_err);
	finish();
}

Test(daemons, an_image_is_served_with_what_the_document_says)
{
	char text[256], path[96];
	const char *said;
	FILE *f;

	snprintf(path, sizeof(path), "%s/odd,\\\"name.qcow2", dir);
	f = fopen(path, "w");
	fwrite("QFI\xfb\0\0\0\2", 1, 8, f);
	cr_assert_eq(ftruncate(fileno(f), 4096), 0);
	fclose(f);
	setenv("FAKE_DAEMON_READS", path, 1);
	list = "disks";
	item = json_pack("{s:s, s:s, s:s, s:s, s:s}", "path", path, "id", "d", "cache", "direct",
			 "readonly", "on", "queues", "3");
	cr_assert_eq(fake_run(start, (const char *const[]){"run", NULL}), CLI_OK, "%s", fake_err);
	said = lines("pid ");
	cr_expect(strstr(said, "read: open"), "%s", said);
	cr_expect(strstr(said, "--blockdev"), "%s", said);
	cr_expect_str_eq(text_of(item, "readonly", ""), "on");
	cr_expect_str_eq(text_of(item, "queues", ""), "3");
	cr_expect(json_object_get(item, "vhost_user_fd"));
	cr_expect_not(json_object_get(item, "cache"));
	finish();
	/* What a guest may have written to its raw disk. */
	snprintf(text, sizeof(text), "%s/disk.img", dir);
	cr_assert_eq(link(path, text), 0);
	snprintf(text, sizeof(text), "{\"path\": \"%s/disk.img\"}", dir);
	cr_assert_eq(start_one("disks", text), CLI_OK);
	cr_assert(json_object_get(item, "path"), "it is an image where somebody says so");
	finish();
	snprintf(text, sizeof(text), "{\"path\": \"%s/disk.img\", \"format\": \"qcow2\"}", dir);
	cr_assert_eq(start_one("disks", text), CLI_OK, "%s", fake_err);
	cr_assert(json_object_get(item, "vhost_user_fd"));
	finish();
	snprintf(text, sizeof(text), "{\"path\": \"%s\", \"format\": \"raw\"}", share);
	cr_assert_eq(start_one("disks", text), CLI_OK, "what is no image is not ours");
	cr_assert(json_object_get(item, "path"));
	finish();
}

static int run(int argc, char **argv)
{
	return command_run(&run_command, argc, argv);
}

Test(daemons, a_machine_gets_them_and_they_end_with_it)
{
	fake = (struct fake){.outcome = HOSPES_OUTCOME_POWERED_OFF};
	cr_assert_eq(fake_run(run, (const char *const[]){"run", "--console=none", "--share", share,
							 NULL}),
		     CLI_OK, "%s", fake_err);
	cr_assert(strstr(fake.calls, "\"tag\":\"share\",\"vhost_user_fd\":"), "%s", fake.calls);
	setenv("FAKE_DAEMON_DOES", "die", 1);
	fake = (struct fake){.outcome = HOSPES_OUTCOME_POWERED_OFF};
	cr_assert_eq(fake_run(run, (const char *const[]){"run", "--console=none", "--share", share,
							 NULL}),
		     CLI_FAILED);
	cr_assert_str_eq(fake.calls, "", "no machine is made without it");
}
