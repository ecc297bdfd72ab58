// SPDX-License-Identifier: Apache-2.0
// What a thread of each role can no longer do, and what it still can.
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/num.h"
#include "sandbox/filter.h"
#include "sandbox/sandbox.h"

static const struct log no_log;

static struct sandbox *sandbox;
static int pipe_ends[2];

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
	pid_t pid = getppid();

	return syscall(SYS_tgkill, pid, pid, 0) ? -errno : 0;
}

static pthread_t other_thread;

static int signal_thread(void)
{
	return -pthread_kill(other_thread, SIGURG);
}

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

/* Of the thread that waits at the pipe, as others see it. */
static pid_t waiting;
static sem_t waits;

static int wait_to_be_seen(void)
{
	char c;

	waiting = gettid();
	sem_post(&waits);
	return read(pipe_ends[0], &c, 1) == 1 ? 0 : -errno;
}

static int status_field(pid_t thread, const char *field)
{
	char path[64], line[128];
	int value = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/status", thread);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		if (strncmp(line, field, strlen(field)) == 0)
			value = atoi(line + strlen(field));
	}
	if (f)
		fclose(f);
	return value;
}

Test(sandbox, every_role_shows_its_layers_in_proc)
{
	need(SANDBOX_SECCOMP);
	cr_assert_eq(pipe(pipe_ends), 0);
	sem_init(&waits, 0, 0);
	for (enum thread_role role = THREAD_VCPU; role < THREAD_ROLES; role++) {
		struct deed deed = {.fn = wait_to_be_seen};
		pthread_t thread;

		cr_assert_eq(
			thread_start(&thread, role, 0, sandbox_limits(sandbox), run_deed, &deed),
			0);
		sem_wait(&waits);
		cr_expect_eq(status_field(waiting, "NoNewPrivs:"), 1);
		cr_expect_eq(status_field(waiting, "Seccomp:"), 2);
		cr_assert_eq(write(pipe_ends[1], "x", 1), 1);
		pthread_join(thread, NULL);
	}
	cr_expect_eq(status_field(gettid(), "Seccomp:"), 0, "this one is nobody's");
}

Test(sandbox, what_was_opened_before_stays_usable)
{
	cr_assert_eq(pipe(pipe_ends), 0);
	for (enum thread_role role = THREAD_VCPU; role < THREAD_ROLES; role++)
		cr_expect_eq(in_role(role, use_opened), 0, "%s", thread_role_name(role));
}

Test(sandbox, leaves_the_thread_that_starts_others_alone)
{
	in_role(THREAD_VCPU, open_passwd);
	cr_expect_eq(open_passwd(), 0);
	cr_expect_eq(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
}

Test(sandbox, counts_threads_by_role)
{
	in_role(THREAD_IO, open_passwd);
	in_role(THREAD_IO, open_passwd);
	cr_expect_eq(sandbox_threads(sandbox, THREAD_IO), 2);
	cr_expect_eq(sandbox_threads(sandbox, THREAD_VCPU), 0);
}

/* --- what only foreign code does: its process ends --- */

static int execute(void)
{
	execl("/bin/true", "true", NULL);
	return -errno;
}

static int make_process(void)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	return pid < 0 ? -errno : 0;
}

static int trace(void)
{
	return ptrace(PTRACE_ATTACH, getppid(), NULL, NULL) ? -errno : 0;
}

static int make_ring(void)
{
	struct io_uring_params params = {0};

	return syscall(SYS_io_uring_setup, 8, &params) < 0 ? -errno : 0;
}

static int change_ring(void)
{
	return syscall(SYS_io_uring_register, 0, 0, NULL, 0) < 0 ? -errno : 0;
}

static int map_code(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);

	return p == MAP_FAILED ? -errno : 0;
}

static int read_other_process(void)
{
	char byte;
	struct iovec here = {&byte, 1}, there = {&byte, 1};

	return process_vm_readv(getppid(), &here, 1, &there, 1, 0) < 0 ? -errno : 0;
}

static int load_program(void)
{
	return syscall(SYS_bpf, 0, NULL, 0) < 0 ? -errno : 0;
}

static int kill_all(void)
{
	return kill(-1, 0) ? -errno : 0;
}

static int ask_by_x32(void)
{
	return syscall(0x40000000 + SYS_getpid) < 0 ? -errno : 0;
}

/* The signal that ends a process in whose thread of this role that happens; 0: it did nothing. */
static int ends_by(enum sandbox_mode mode, enum thread_role role, int (*fn)(void))
{
	pid_t pid = fork();
	int status;

	cr_assert_geq(pid, 0);
	if (pid == 0) {
		const struct rlimit none = {0, 0};
		struct err err = ERR_INIT;

		setrlimit(RLIMIT_CORE, &none);
		signal(SIGSYS, SIG_DFL);
		if (sandbox_create(&sandbox, mode, &no_log, &err))
			_exit(100);
		_exit(in_role(role, fn) ? 1 : 0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? WTERMSIG(status) : -WEXITSTATUS(status);
}

Test(sandbox, what_only_foreign_code_asks_for_ends_the_process, .timeout = 120)
{
	static const struct {
		const char *name;
		int (*fn)(void);
	} deeds[] = {
		{"a program", execute}, {"a process", make_process},
		{"ptrace", trace},      {"another process's memory", read_other_process},
		{"a ring", make_ring},  {"a ring's registration", change_ring},
		{"code", map_code},     {"bpf", load_program},
		{"kill", kill_all},     {"a call of another interface", ask_by_x32},
	};

	need(SANDBOX_SECCOMP);
	for (size_t i = 0; i < ARRAY_SIZE(deeds); i++) {
		for (enum thread_role role = THREAD_VCPU; role < THREAD_ROLES; role++)
			cr_expect_eq(ends_by(SANDBOX_AUTO, role, deeds[i].fn), SIGSYS, "%s by %s",
				     deeds[i].name, thread_role_name(role));
	}
}

/* --- what is in no table --- */

static int foreign_ioctl(void)
{
	return ioctl(0, TIOCSTI, "x") ? -errno : 0;
}

static int create_machine(void)
{
	return ioctl(0, KVM_CREATE_VM, 0) < 0 ? -errno : 0;
}

static int swap_on(void)
{
	return syscall(SYS_swapon, "/", 0) ? -errno : 0;
}

static int signal_group(void)
{
	return syscall(SYS_tgkill, 1, 1, 0) ? -errno : 0;
}

Test(sandbox, what_is_in_no_table_is_refused_and_with_strict_the_end, .timeout = 120)
{
	static int (*const deeds[])(void) = {foreign_ioctl, create_machine, swap_on, signal_group};

	need(SANDBOX_SECCOMP);
	for (size_t i = 0; i < ARRAY_SIZE(deeds); i++) {
		for (enum thread_role role = THREAD_VCPU; role < THREAD_ROLES; role++) {
			cr_expect_eq(in_role(role, deeds[i]), -EPERM, "%zu by %s", i,
				     thread_role_name(role));
			if (sandbox_has(sandbox, SANDBOX_LANDLOCK))
				cr_expect_eq(ends_by(SANDBOX_STRICT, role, deeds[i]), SIGSYS,
					     "%zu by %s", i, thread_role_name(role));
		}
	}
}

static int make_unix_socket(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

Test(sandbox, no_role_has_a_socket)
{
	need(SANDBOX_SECCOMP);
	for (enum thread_role role = THREAD_VCPU; role < THREAD_ROLES; role++)
		cr_expect_eq(in_role(role, make_unix_socket), -EACCES, "%s",
			     thread_role_name(role));
}

static int enter_without_paths(void)
{
	const struct filter_policy policy = {
		.role = THREAD_MACHINE, .others = FILTER_DENY, .pid = (uint32_t)getpid()};
	int rc;

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	rc = filter_enter(&policy);
	return rc ? rc : read_sysfs();
}

static void *without_paths(void *opaque)
{
	*(int *)opaque = enter_without_paths();
	return NULL;
}

Test(sandbox, without_landlock_the_filter_refuses_every_path)
{
	pthread_t thread;
	int rc;

	need(SANDBOX_SECCOMP);
	cr_assert_eq(pthread_create(&thread, NULL, without_paths, &rc), 0);
	pthread_join(thread, NULL);
	cr_expect_eq(rc, -EACCES);
}

/* --- threads that come by other ways --- */

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

	if (sandbox_has(sandbox, SANDBOX_SECCOMP) && sandbox_has(sandbox, SANDBOX_LANDLOCK)) {
		cr_expect_eq(rc, 0, "%s", err.text);
		sandbox_destroy(strict);
		return;
	}
	cr_expect_eq(rc, -EOPNOTSUPP);
	cr_expect(strstr(err.text, "sandbox strict: no ") && strstr(err.text, "sandbox auto"), "%s",
		  err.text);
}
