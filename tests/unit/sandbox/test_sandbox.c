// SPDX-License-Identifier: Apache-2.0
// What a thread of each role can no longer do, and what it still can.
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/num.h"
#include "sandbox/sandbox.h"

static const struct log no_log;

static struct sandbox *sandbox;

static void set_up(void)
{
	struct err err = ERR_INIT;

	cr_assert_eq(sandbox_create(&sandbox, SANDBOX_AUTO, &no_log, &err), 0, "%s", err.text);
}

static void tear_down(void)
{
	sandbox_destroy(sandbox);
}

TestSuite(sandbox, .init = set_up, .fini = tear_down);

/* A deed is what a thread of a role tries: 0 or a negative errno. */
struct deed {
	int (*fn)(void);
	int result;
};

static void *run_deed(void *opaque)
{
	struct deed *deed = opaque;

	deed->result = deed->fn();
	return NULL;
}

static int in_role(enum thread_role role, int (*fn)(void))
{
	struct deed deed = {.fn = fn};
	pthread_t thread;

	cr_assert_eq(thread_start(&thread, role, 0, sandbox_limits(sandbox), run_deed, &deed), 0);
	pthread_join(thread, NULL);
	return deed.result;
}

static int opened(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0600);

	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

static int open_passwd(void)
{
	return opened("/etc/passwd", O_RDONLY);
}

static int open_root(void)
{
	return opened("/", O_RDONLY | O_DIRECTORY);
}

static int create_file(void)
{
	return opened("/tmp/hospes-sandbox", O_WRONLY | O_CREAT);
}

static int make_directory(void)
{
	return mkdir("/tmp/hospes-sandbox-dir", 0700) ? -errno : 0;
}

static int read_sysfs(void)
{
	return opened("/sys/kernel", O_RDONLY | O_DIRECTORY);
}

static int open_device(void)
{
	return opened("/dev/null", O_RDWR);
}

static int connect_tcp(void)
{
	const struct sockaddr_in to = {.sin_family = AF_INET,
				       .sin_port = htons(9),
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), rc;

	if (fd < 0)
		return -errno;
	rc = connect(fd, (const struct sockaddr *)&to, sizeof(to)) ? -errno : 0;
	close(fd);
	return rc;
}

static int signal_parent(void)
{
	return kill(getppid(), 0) ? -errno : 0;
}

static pthread_t other_thread;

static int signal_thread(void)
{
	return -pthread_kill(other_thread, SIGURG);
}

static int privileges(void)
{
	return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
}

static int pipe_ends[2];

static int use_opened(void)
{
	char c;

	return write(pipe_ends[1], "x", 1) == 1 && read(pipe_ends[0], &c, 1) == 1 ? 0 : -errno;
}

static void need(enum sandbox_layer layer)
{
	if (!sandbox_has(sandbox, layer))
		cr_skip_test("%s", sandbox_lack(sandbox, layer));
}

Test(sandbox, no_role_opens_or_makes_a_file)
{
	need(SANDBOX_LANDLOCK);
	for (enum thread_role role = THREAD_VCPU; role < THREAD_ROLES; role++) {
		const char *name = thread_role_name(role);

		cr_expect_eq(in_role(role, open_passwd), -EACCES, "%s", name);
		cr_expect_eq(in_role(role, open_root), -EACCES, "%s", name);
		cr_expect_eq(in_role(role, create_file), -EACCES, "%s", name);
		cr_expect_eq(in_role(role, make_directory), -EACCES, "%s", name);
		cr_expect_eq(in_role(role, open_device), -EACCES, "%s", name);
	}
}

Test(sandbox, only_the_machines_thread_looks_at_the_hosts_devices)
{
	need(SANDBOX_LANDLOCK);
	for (enum thread_role role = THREAD_VCPU; role < THREAD_ROLES; role++)
		cr_expect_eq(in_role(role, read_sysfs), role == THREAD_MACHINE ? 0 : -EACCES, "%s",
			     thread_role_name(role));
}

Test(sandbox, no_role_connects_by_tcp)
{
	need(SANDBOX_LANDLOCK);
	for (enum thread_role role = THREAD_VCPU; role < THREAD_ROLES; role++)
		cr_expect_eq(in_role(role, connect_tcp), -EACCES, "%s", thread_role_name(role));
}

Test(sandbox, a_thread_signals_its_own_process_and_no_other)
{
	need(SANDBOX_LANDLOCK);
	other_thread = pthread_self();
	signal(SIGURG, SIG_IGN);
	cr_expect_eq(in_role(THREAD_MACHINE, signal_thread), 0, "as it kicks a vCPU");
	cr_expect_eq(in_role(THREAD_VCPU, signal_parent), -EPERM);
}

Test(sandbox, every_role_is_without_new_privileges)
{
	need(SANDBOX_NO_NEW_PRIVS);
	for (enum thread_role role = THREAD_VCPU; role < THREAD_ROLES; role++)
		cr_expect_eq(in_role(role, privileges), 1, "%s", thread_role_name(role));
}

Test(sandbox, what_was_opened_before_stays_usable)
{
	cr_assert_eq(pipe(pipe_ends), 0);
	for (enum thread_role role = THREAD_VCPU; role < THREAD_ROLES; role++)
		cr_expect_eq(in_role(role, use_opened), 0, "%s", thread_role_name(role));
}

Test(sandbox, leaves_the_thread_that_starts_others_alone)
{
	in_role(THREAD_VCPU, privileges);
	cr_expect_eq(open_passwd(), 0);
	cr_expect_eq(privileges(), 0);
}

Test(sandbox, counts_threads_by_role)
{
	in_role(THREAD_IO, privileges);
	in_role(THREAD_IO, privileges);
	cr_expect_eq(sandbox_threads(sandbox, THREAD_IO), 2);
	cr_expect_eq(sandbox_threads(sandbox, THREAD_VCPU), 0);
}

static void *inherit(void *opaque)
{
	pthread_t thread;

	if (thread_start(&thread, THREAD_HELPER, 0, NULL, run_deed, opaque) == 0)
		pthread_join(thread, NULL);
	return NULL;
}

Test(sandbox, a_thread_that_a_confined_one_starts_is_confined)
{
	struct deed deed = {.fn = open_passwd};
	pthread_t thread;

	need(SANDBOX_LANDLOCK);
	cr_assert_eq(thread_start(&thread, THREAD_VCPU, 0, sandbox_limits(sandbox), inherit, &deed),
		     0);
	pthread_join(thread, NULL);
	cr_expect_eq(deed.result, -EACCES);
}

static char socket_dir[] = "/tmp/hospes-sandbox-XXXXXX";
static char socket_file[64];

static int enter_as_command(void)
{
	struct err err = ERR_INIT;
	int rc = sandbox_enter(sandbox, socket_dir, &err);

	if (!rc && open_passwd() != -EACCES)
		rc = -EPERM;
	return rc ? rc : unlink(socket_file) ? -errno : 0;
}

static void *ask_for_it(void *opaque)
{
	*(int *)opaque = enter_as_command();
	return NULL;
}

Test(sandbox, a_thread_that_asks_for_it_may_still_remove_its_socket)
{
	pthread_t thread;
	int rc;

	need(SANDBOX_LANDLOCK);
	cr_assert(mkdtemp(socket_dir));
	snprintf(socket_file, sizeof(socket_file), "%s/s", socket_dir);
	cr_assert_eq(opened(socket_file, O_WRONLY | O_CREAT), 0);
	cr_assert_eq(pthread_create(&thread, NULL, ask_for_it, &rc), 0);
	pthread_join(thread, NULL);
	cr_expect_eq(rc, 0);
	cr_expect_eq(rmdir(socket_dir), 0, "nothing is left in it");
}

Test(sandbox, off_confines_nothing)
{
	struct err err = ERR_INIT;

	sandbox_destroy(sandbox);
	cr_assert_eq(sandbox_create(&sandbox, SANDBOX_OFF, &no_log, &err), 0);
	cr_expect_null(sandbox);
	cr_expect_null(sandbox_limits(sandbox));
	cr_expect_eq(in_role(THREAD_VCPU, open_passwd), 0);
	cr_expect_eq(sandbox_enter(sandbox, NULL, &err), 0);
	cr_expect_str_eq(sandbox_lack(sandbox, SANDBOX_LANDLOCK), "sandbox is off");
}

Test(sandbox, strict_is_refused_by_the_name_of_what_is_missing)
{
	struct sandbox *strict;
	struct err err = ERR_INIT;
	int rc = sandbox_create(&strict, SANDBOX_STRICT, &no_log, &err);

	if (sandbox_has(sandbox, SANDBOX_NO_NEW_PRIVS) && sandbox_has(sandbox, SANDBOX_LANDLOCK)) {
		cr_expect_eq(rc, 0, "%s", err.text);
		sandbox_destroy(strict);
		return;
	}
	cr_expect_eq(rc, -EOPNOTSUPP);
	cr_expect(strstr(err.text, "sandbox strict: no ") && strstr(err.text, "sandbox auto"), "%s",
		  err.text);
}
