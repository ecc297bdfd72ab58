// SPDX-License-Identifier: Apache-2.0
// Where control sockets are, and whose: names, stale files, two machines of one name; and `hospes
// ctl` and `hospes list` with a server that is there.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "fake_hospes.h"
#include "serve.h"
#include "socket.h"

static char directory[] = "/tmp/hospes-cli-XXXXXX", path[SOCKET_PATH];

static void set_up(void)
{
	cr_assert(mkdtemp(directory));
	setenv("XDG_RUNTIME_DIR", directory, 1);
	snprintf(path, sizeof(path), "%s/hospes/web.sock", directory);
	fake = (struct fake){.state = HOSPES_RUNNING,
			     .status = "{\"state\": \"running\", \"pid\": 7, "
				       "\"memory_bytes\": 1073741824}"};
}

static void tear_down(void)
{
	char command[SOCKET_PATH + 16];

	snprintf(command, sizeof(command), "rm -r %s", directory);
	cr_assert_eq(system(command), 0);
}

TestSuite(socket, .init = set_up, .fini = tear_down);

static int ctl(int argc, char **argv)
{
	return command_run(&ctl_command, argc, argv);
}
#define CTL(...) fake_run(ctl, (const char *const[]){"ctl", __VA_ARGS__, NULL})

static int list(int argc, char **argv)
{
	return command_run(&machines_command, argc, argv);
}
#define LIST(...) fake_run(list, (const char *const[]){"list", __VA_ARGS__, NULL})

static int run(int argc, char **argv)
{
	return command_run(&run_command, argc, argv);
}
#define RUN(...) fake_run(run, (const char *const[]){"run", __VA_ARGS__, NULL})

static int lowest_free(void)
{
	int fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);

	close(fd);
	return fd;
}

/* --- a machine that serves in a thread --- */

static struct serve serve;
static struct hospes_vm *vm;
static pthread_t thread;
static int end_fd;

static void *serve_loop(void *opaque)
{
	struct pollfd fds[] = {{.fd = serve_fd(&serve), .events = POLLIN},
			       {.fd = end_fd, .events = POLLIN}};

	(void)opaque;
	while (poll(fds, 2, -1) > 0 && !fds[1].revents)
		serve_iterate(&serve);
	return NULL;
}

static void begin(void)
{
	const struct hospes_vm_options options = {.size = sizeof(options)};
	struct hospes_error error;

	hospes_vm_create(&vm, "", 0, &options, &error);
	serve = (struct serve){0};
	cr_assert_eq(serve_prepare(&serve, NULL, "web"), CLI_OK);
	cr_assert_eq(serve_start(&serve, vm), CLI_OK);
	end_fd = eventfd(0, EFD_CLOEXEC);
	cr_assert_eq(pthread_create(&thread, NULL, serve_loop, NULL), 0);
}

static void end(void)
{
	cr_assert_eq(eventfd_write(end_fd, 1), 0);
	pthread_join(thread, NULL);
	close(end_fd);
	serve_done(&serve);
}

Test(socket, of_a_machine_is_for_its_user_alone_and_goes_with_it)
{
	struct stat st;

	begin();
	cr_assert_eq(stat(path, &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0600u);
	cr_assert_eq(serve.socket.fd >= 0 && fcntl(serve.socket.fd, F_GETFD), FD_CLOEXEC);
	end();
	cr_assert_eq(stat(path, &st), -1);
}

Test(socket, ctl_console_shows_what_comes_from_the_first_or_the_one_that_is_named)
{
	fake.status = "{\"devices\": [{\"kind\": \"disk\", \"id\": \"disk0\"}, {\"kind\": "
		      "\"console\", \"id\": \"tty\"}, {\"kind\": \"console\", \"id\": \"b\"}]}";
	fake.console_says = "login: ";
	begin();
	cr_assert_eq(CTL("web", "console"), CLI_OK, "%s", fake_err);
	cr_assert_str_eq(fake_out, "login: ");
	cr_assert_str_eq(fake.calls, "status() console_view(tty, 0) ");
	cr_assert_eq(CTL("web", "console", "b", "force"), CLI_OK, "%s", fake_err);
	cr_assert_str_eq(fake.calls, "console_view(b, 1) ");
	cr_assert_eq(CTL("web", "console", "b", "now"), CLI_USAGE);
	fake.fails = "console_view";
	fake.failure = "console 'b': somebody looks at it already; take it";
	cr_assert_eq(CTL("web", "console", "b"), CLI_FAILED);
	cr_assert(strstr(fake_err, "looks at it already; take it"), "%s", fake_err);
	fake.status = "{\"devices\": []}";
	cr_assert_eq(CTL("web", "console"), CLI_FAILED);
	cr_assert(strstr(fake_err, "add --console virtio"), "%s", fake_err);
	end();
}

Test(socket, ctl_asks_by_name_and_by_path)
{
	begin();
	cr_assert_eq(CTL("web", "pause"), CLI_OK);
	cr_assert_str_eq(fake.calls, "pause() ");
	cr_assert_str_eq(fake_out, "");
	cr_assert_eq(CTL(path, "status"), CLI_OK);
	cr_assert(strstr(fake_out, "\"pid\": 7"), "%s", fake_out);
	end();
}

Test(socket, ctl_sets_what_each_device_has)
{
	begin();
	cr_assert_eq(CTL("web", "set", "data.size=1G", "a.b.link=down", "console0.terminal=80x24",
			 "strategy=staged,pool=8", "balloon=64K", "cpus=16", "memory=2G"),
		     CLI_OK, "%s", fake_err);
	cr_assert_str_eq(fake.calls, "disk_resize(data, 1073741824) net_link(a.b, 0) "
				     "console_resize(console0, 80, 24) set_strategy(staged,pool=8) "
				     "balloon(65536) set_cpus(16) set_memory(2147483648) ");
	cr_assert_eq(CTL("web", "set", "balloon=0"), CLI_OK, "%s", fake_err);
	cr_assert_str_eq(fake.calls, "balloon(0) ");
	cr_assert_eq(CTL("web", "set", "balloon=auto"), CLI_USAGE);
	cr_assert_eq(CTL("web", "set", "cpus=-1"), CLI_USAGE);
	cr_assert_eq(CTL("web", "set", "cpus=2x"), CLI_USAGE);
	cr_assert_eq(CTL("web", "set", "cpus="), CLI_USAGE);
	cr_assert_eq(CTL("web", "set", "memory=all"), CLI_USAGE);
	cr_assert_eq(CTL("web", "set", "memory="), CLI_USAGE);
	cr_assert_eq(CTL("web", "set", "data.bytes_per_s=10M", "net0.ops_per_s=0"), CLI_OK, "%s",
		     fake_err);
	cr_assert_str_eq(fake.calls, "set_rate(data, 10485760, -1) set_rate(net0, -1, 0) ");
	cr_assert_eq(CTL("web", "set", "data.bytes_per_s=0"), CLI_OK, "%s", fake_err);
	cr_assert_str_eq(fake.calls, "set_rate(data, 0, -1) ");
	cr_assert_eq(CTL("web", "set", "data.size=auto"), CLI_OK);
	cr_assert_str_eq(fake.calls, "disk_resize(data, 0) ");
	end();
}

/* The number that the machine got for place 0 is its own, whatever it is. */
static void added(const char *opened)
{
	char wanted[512];

	snprintf(wanted, sizeof(wanted), "%sdevice_add({\"disk\":{\"fd\":", opened);
	cr_assert_eq(strncmp(fake.calls, wanted, strlen(wanted)), 0, "%s", fake.calls);
	cr_assert_str_eq(fake_out, "new\n");
}

Test(socket, ctl_opens_devices_with_the_options_of_run_and_hands_them_over)
{
	int before = lowest_free();

	begin();
	cr_assert_eq(CTL("web", "add", "--disk", "path=a,,b.img,readonly=on"), CLI_OK, "%s",
		     fake_err);
	added("open(NULL, 0, {\"disk\":{\"path\":\"a,b.img\",\"readonly\":\"on\"}}) ");
	cr_assert_eq(CTL("web", "add", "--rng"), CLI_OK, "%s", fake_err);
	added("open(NULL, 0, {\"rng\":{\"enabled\":\"on\"}}) ");
	cr_assert_eq(CTL("--console=virtio,path=log", "web", "add"), CLI_OK, "%s", fake_err);
	added("open(NULL, 0, {\"console\":{\"type\":\"virtio\",\"path\":\"log\"}}) ");
	end();
	cr_assert_eq(lowest_free(), before, "what was opened is closed");
}

Test(socket, ctl_opens_a_passed_through_device_for_the_iommu_that_the_machine_has)
{
	fake.status = "{\"iommu\": {\"backend\": \"type1\", \"iommufd\": true}}";
	begin();
	cr_assert_eq(CTL("web", "add", "--passthrough", "01:00.0"), CLI_OK, "%s", fake_err);
	added("status() open(type1, 1, {\"passthrough\":{\"device\":\"01:00.0\"}}) ");
	end();
}

Test(socket, ctl_adds_nothing_when_a_device_cannot_be_opened)
{
	begin();
	fake.fails = "open";
	fake.failure = "disk 'new' (x.img): in use; stop that one";
	cr_assert_eq(CTL("web", "add", "--disk", "x.img", "--rng"), CLI_FAILED);
	cr_assert_str_eq(fake_err, "hospes: disk 'new' (x.img): in use; stop that one\n");
	cr_assert_null(strstr(fake.calls, "device_add"), "%s", fake.calls);
	end();
}

Test(socket, ctl_takes_devices_for_add_only_and_add_takes_nothing_else)
{
	cr_expect_eq(CTL("web", "add"), CLI_USAGE);
	cr_expect(strstr(fake_err, "add: needs a device, such as --disk"), "%s", fake_err);
	cr_expect_eq(CTL("web", "add", "--console", "none"), CLI_USAGE);
	cr_expect_eq(CTL("web", "add", "data.img"), CLI_USAGE);
	cr_expect_eq(CTL("web", "add", "--kernel", "k"), CLI_USAGE);
	cr_expect_eq(CTL("web", "pause", "--rng"), CLI_USAGE);
	cr_expect(strstr(fake_err, "ctl pause: devices are for the verb 'add'"), "%s", fake_err);
}

Test(socket, ctl_removes_a_device)
{
	begin();
	cr_assert_eq(CTL("web", "remove", "a/b"), CLI_OK, "%s", fake_err);
	cr_assert_str_eq(fake.calls, "device_remove(a/b, 30000, 0) ");
	cr_assert_eq(CTL("web", "remove", "data", "force"), CLI_OK, "%s", fake_err);
	cr_assert_str_eq(fake.calls, "device_remove(data, 30000, 1) ");
	cr_assert_eq(CTL("web", "remove", "data", "now"), CLI_USAGE);
	end();
}

Test(socket, ctl_says_why_and_what_to_do)
{
	begin();
	fake.fails = "pause";
	fake.failure = "cannot pause: it is tired; wait";
	cr_assert_eq(CTL("web", "pause"), CLI_FAILED);
	cr_assert_str_eq(fake_err, "hospes: web: cannot pause: it is tired; wait\n");
	fake.failure = "cannot pause";
	cr_assert_eq(CTL("web", "pause"), CLI_FAILED);
	cr_assert_str_eq(fake_err, "hospes: web: cannot pause; 'hospes ctl web status' shows the "
				   "machine's state\n");
	end();
	cr_assert_eq(CTL("web", "pause"), CLI_FAILED);
	cr_assert(strstr(fake_err, "'hospes list' shows"), "%s", fake_err);
}

Test(socket, ctl_refuses_what_it_does_not_know_before_it_asks)
{
	static const char *const words[][2] = {
		{"set", "data.size=big"},
		{"set", "net0.link=on"},
		{"set", "data.bytes_per_s=fast"},
		{"set", "data.ops_per_s=-1"},
		{"set", "memroy=2G"},
		{"set", "c.terminal=80x24x"},
		{"set", "data.colour=red"},
		{"set", "size"},
		{"pause", "now"},
		{"dance", NULL},
		{NULL, NULL},
	};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		cr_expect_eq(CTL("web", words[i][0], words[i][1]), CLI_USAGE, "%zu", i);
		cr_expect_gt(strlen(fake_err), 20u);
	}
}

Test(socket, list_shows_machines_and_not_what_is_left_of_others)
{
	int left = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	begin();
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/hospes/gone.sock", directory);
	cr_assert_eq(bind(left, (struct sockaddr *)&address, sizeof(address)), 0);
	close(left);
	cr_assert_eq(LIST(NULL), CLI_OK);
	cr_assert(strstr(fake_out, "web                   running"), "%s", fake_out);
	cr_assert(strstr(fake_out, "1 GiB"), "%s", fake_out);
	cr_assert_not(strstr(fake_out, "gone"), "%s", fake_out);
	end();
	cr_assert_eq(LIST("--json"), CLI_OK);
	cr_assert_not(strstr(fake_out, "web"), "%s", fake_out);
}

static int metrics(int argc, char **argv)
{
	return command_run(&metrics_command, argc, argv);
}
#define METRICS(...) fake_run(metrics, (const char *const[]){"metrics", __VA_ARGS__, NULL})

static unsigned int times_out(const char *line)
{
	unsigned int n = 0;

	for (const char *at = fake_out; (at = strstr(at, line)); at += strlen(line))
		n++;
	return n;
}

Test(socket, metrics_have_a_family_once_and_a_label_for_each_machine)
{
	struct control_socket left = {.fd = -1};

	begin();
	cr_assert_eq(METRICS("web", path), CLI_OK, "%s", fake_err);
	cr_assert_eq(times_out("# TYPE hospes_state gauge\n"), 1, "%s", fake_out);
	cr_assert_eq(times_out("hospes_up{machine=\"web\"} 1\n"), 1, "%s", fake_out);
	cr_assert_eq(times_out("hospes_memory_bytes{machine=\"web\"} 1073741824\n"), 1);
	cr_assert_eq(times_out("hospes_state{machine=\"web\",state=\"running\"} 1\n"), 1);
	cr_assert_eq(times_out(".sock\",state=\"running\"} 1\n"), 1);
	/* One that was killed has left its socket. */
	cr_assert_eq(socket_place(left.path, "left"), CLI_OK);
	cr_assert_eq(socket_listen(&left), CLI_OK);
	close(left.fd);
	cr_assert_eq(METRICS("--all"), CLI_OK, "%s", fake_err);
	cr_assert_eq(times_out("hospes_up{machine=\"web\"} 1\n"), 1, "%s", fake_out);
	cr_assert_eq(times_out("left"), 0, "%s", fake_out);
	end();
	cr_assert_eq(METRICS("--all"), CLI_OK);
	cr_assert_str_eq(fake_out, "");
	cr_assert_eq(METRICS("web"), CLI_OK);
	cr_assert_eq(times_out("hospes_up{machine=\"web\"} 0\n"), 1, "%s", fake_out);
	cr_assert_eq(METRICS("--all", "web"), CLI_USAGE);
	cr_assert_eq(METRICS(NULL), CLI_USAGE);
}

/* --- whose name --- */

static void serves_the_name(bool yes)
{
	struct serve other = {0};
	const struct hospes_vm_options options = {.size = sizeof(options)};
	struct hospes_error error;

	hospes_vm_create(&vm, "", 0, &options, &error);
	cr_assert_eq(serve_prepare(&other, NULL, "web") == CLI_OK &&
			     serve_start(&other, vm) == CLI_OK,
		     yes);
	serve_done(&other);
}

Test(socket, a_name_belongs_to_one_machine)
{
	begin();
	serves_the_name(false);
	cr_assert_eq(access(path, F_OK), 0, "the first one keeps its socket");
	cr_assert_eq(RUN("--kernel", "k", "--name", "web"), CLI_FAILED);
	cr_assert(strstr(fake_err, "listens there already; choose another name"), "%s", fake_err);
	cr_assert_str_eq(fake.calls, "", "and no machine is made");
	end();
	serves_the_name(true);
}

Test(socket, a_socket_that_was_left_is_replaced_and_a_file_is_not)
{
	struct control_socket left = {.fd = -1};
	FILE *file;

	cr_assert_eq(socket_place(left.path, "web"), CLI_OK);
	cr_assert_eq(socket_listen(&left), CLI_OK);
	close(left.fd); /* as the kernel does for a process that is killed */
	cr_assert_eq(access(path, F_OK), 0);
	serves_the_name(true);
	file = fopen(path, "w");
	fclose(file);
	serves_the_name(false);
	cr_assert_eq(access(path, F_OK), 0);
}

Test(socket, of_another_machine_is_not_removed)
{
	struct control_socket first = {.fd = -1}, second = {.fd = -1};

	cr_assert_eq(socket_place(first.path, "web"), CLI_OK);
	memcpy(second.path, first.path, sizeof(second.path));
	cr_assert_eq(socket_listen(&first), CLI_OK);
	cr_assert_eq(unlink(path), 0);
	cr_assert_eq(socket_listen(&second), CLI_OK);
	socket_done(&first);
	cr_assert_eq(access(path, F_OK), 0);
	socket_done(&second);
	cr_assert_eq(access(path, F_OK), -1);
}

static void fails(const char *option, const char *value, const char *words)
{
	cr_assert_eq(RUN("--kernel", "k", option, value), CLI_FAILED);
	cr_assert(strstr(fake_err, words), "%s", fake_err);
	cr_assert_str_eq(fake.calls, "");
}

Test(socket, names_and_paths_that_cannot_be_are_refused_first)
{
	char long_one[SOCKET_PATH + 1];

	memset(long_one, 'a', SOCKET_PATH);
	long_one[SOCKET_PATH] = '\0';
	fails("--name", "a/b", "cannot be a file's name; give --control PATH, or none");
	fails("--name", "..", "cannot be a file's name");
	fails("--name", long_one, "choose a shorter name");
	fails("--control", long_one, "has from 1 to 107");
	fails("--control", "", "has from 1 to 107");
	fails("--control", "fd:none", "no descriptor of that name was passed");
	setenv("XDG_RUNTIME_DIR", "/proc/none", 1);
	fails("--name", "web", "/proc/none/hospes: cannot be made");
}

Test(socket, a_machine_without_a_name_or_with_none_has_no_socket)
{
	fake.outcome = HOSPES_OUTCOME_POWERED_OFF;
	cr_assert_eq(RUN("--kernel", "k", "--console=none"), CLI_OK);
	cr_assert_eq(RUN("--kernel", "k", "--console=none", "--name", "a/b", "--control", "none"),
		     CLI_OK);
	cr_assert_eq(RUN("--kernel", "k", "--console=none", "--name", "web"), CLI_OK);
	cr_assert_eq(access(path, F_OK), -1, "it was removed at the end");
}

Test(socket, descriptors_of_a_service_manager_are_found_by_name)
{
	char pid[16];

	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	setenv("LISTEN_PID", pid, 1);
	setenv("LISTEN_FDS", "3", 1);
	setenv("LISTEN_FDNAMES", "a:control:b", 1);
	cr_assert_eq(socket_inherited("control"), 4);
	cr_assert_eq(socket_inherited("b"), 5);
	cr_assert_eq(socket_inherited("c"), -1);
	cr_assert_eq(socket_inherited("17"), 17);
	setenv("LISTEN_PID", "1", 1);
	cr_assert_eq(socket_inherited("control"), -1);
}
