// SPDX-License-Identifier: Apache-2.0
// A whole machine, its control library in a loop beside it, and real curl.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <pty.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include <utmp.h>

#include "base/num.h"
#include "core/kvm.h"
#include "hospes/control.h"
#include "machine/vm.h"
#include "rig.h"

static struct rig rig;
static struct hospes_control *control;
static struct hospes_vm *vm;
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static pthread_t thread;
static int end_fd;

static void on_event(void *opaque, const struct hospes_event *event)
{
	(void)opaque;
	hospes_control_event(control, event);
}

static void *serve(void *opaque)
{
	struct pollfd fds[] = {{.fd = hospes_control_fd(control), .events = POLLIN},
			       {.fd = end_fd, .events = POLLIN}};

	(void)opaque;
	while (poll(fds, 2, -1) > 0 && !fds[1].revents)
		hospes_control_iterate(control);
	return NULL;
}

static void set_up(void)
{
	struct hospes_vm_options options = {
		.size = sizeof(options), .flags = HOSPES_VM_THREAD, .event = on_event};
	struct hospes_error error;
	char document[512];
	int listener;

	rig_init(&rig, true);
	options.kvm_fd = rig.kvm_fd;
	snprintf(document, sizeof(document),
		 "{\"name\": \"web\", \"memory\": {\"size\": \"32M\"}, \"kernel\": {\"path\": "
		 "\"%s/kernel\", \"cache\": false}, \"disks\": [{\"path\": \"%s/disk\"}]}",
		 rig.dir, rig.dir);
	cr_assert_eq(hospes_control_create(&control, &error), 0);
	cr_assert_eq(vm_create(&vm, document, strlen(document), &options, rig.calls, &error), 0,
		     "%s", error.text);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/control.sock", rig.dir);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert_eq(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	cr_assert_eq(listen(listener, 128), 0);
	cr_assert_eq(hospes_control_serve(control, vm, listener, &error), 0, "%s", error.text);
	close(listener);
	cr_assert_eq(hospes_vm_start(vm, &error), 0, "%s", error.text);
	end_fd = eventfd(0, EFD_CLOEXEC);
	cr_assert_eq(pthread_create(&thread, NULL, serve, NULL), 0);
}

/* Every connection is closed then. */
static void end(void)
{
	if (!vm)
		return;
	cr_assert_eq(eventfd_write(end_fd, 1), 0);
	pthread_join(thread, NULL);
	close(end_fd);
	hospes_vm_destroy(vm);
	hospes_control_destroy(control);
	vm = NULL;
}

static void tear_down(void)
{
	end();
	unlink(address.sun_path);
	rig_done(&rig);
}

TestSuite(control, .init = set_up, .fini = tear_down, .timeout = 60);

static FILE *curl(const char *arguments)
{
	char command[512];

	snprintf(command, sizeof(command), "curl -sS --unix-socket %s %s", address.sun_path,
		 arguments);
	return popen(command, "r");
}

/* What curl prints. */
static const char *ask(const char *arguments)
{
	static char text[256 * 1024];
	FILE *from = curl(arguments);

	text[fread(text, 1, sizeof(text) - 1, from)] = '\0';
	pclose(from);
	return text;
}

static void answers(const char *arguments, const char *words)
{
	const char *text = ask(arguments);

	cr_assert(strstr(text, words), "%s: %s", arguments, text);
}

#define URL "http://localhost"

Test(control, curl_leads_a_machine_through_its_states)
{
	answers(URL "/v1/status", "\"state\": \"running\"");
	answers("-X POST " URL "/v1/pause", "{\"state\":\"paused\"}");
	cr_assert_eq(hospes_vm_state(vm), HOSPES_PAUSED);
	answers("-X POST " URL "/v1/shutdown", "\"code\":\"wrong_state\"");
	answers(URL "/metrics", "hospes_state{state=\"paused\"} 1\n");
	answers("-X POST " URL "/v1/resume", "{\"state\":\"running\"}");
	answers("-w '%{http_code}' -X PUT -d '{\"bytes\": 524288}' " URL "/v1/disks/disk0/size",
		"204");
	answers("-X PUT -d '{\"bytes\": 1048577}' " URL "/v1/disks/disk0/size", "1048577");
	answers("-X POST " URL "/v1/reset", "{\"state\":\"running\"}");
	answers("-X POST " URL "/v1/stop", "{\"state\":\"stopped\"}");
	cr_assert_eq(hospes_vm_outcome(vm), HOSPES_OUTCOME_KILLED);
}

Test(control, curl_hears_events_until_the_machine_ends)
{
	FILE *events = curl("-N " URL "/v1/events");
	char line[1024];

	cr_assert(fgets(line, sizeof(line), events));
	cr_assert(strstr(line, "\"event\":\"stream\",\"state\":\"running\""), "%s", line);
	ask("-X POST " URL "/v1/pause");
	cr_assert(fgets(line, sizeof(line), events));
	cr_assert(strstr(line, "\"state\":\"paused\""), "%s", line);
	ask("-X POST " URL "/v1/stop");
	do
		cr_assert(fgets(line, sizeof(line), events));
	while (!strstr(line, "\"state\":\"stopped\""));
	end();
	cr_assert_eq(pclose(events), 0, "curl sees a proper end");
}

/* What 'hospes ctl' says of a dump into this file; its exit status. */
static int dump(const char *name, char *text, size_t room)
{
	char command[1024];
	FILE *from;

	snprintf(command, sizeof(command), "%s ctl %s dump %s/%s 2>&1", HOSPES_COMMAND,
		 address.sun_path, rig.dir, name);
	from = popen(command, "r");
	text[fread(text, 1, room - 1, from)] = '\0';
	return pclose(from);
}

Test(control, ctl_waits_until_a_dump_is_written_and_never_over_another_file)
{
	char path[128], text[1024];
	struct stat st;

	cr_assert_eq(dump("core", text, sizeof(text)), 0, "%s", text);
	cr_expect_str_eq(text, "");
	snprintf(path, sizeof(path), "%s/core", rig.dir);
	cr_assert_eq(stat(path, &st), 0);
	cr_expect(st.st_size > (off_t)(32 * MiB) && (st.st_mode & 0777) == 0600);
	cr_expect_neq(dump("core", text, sizeof(text)), 0);
	cr_expect(strstr(text, "core: cannot be made for the dump: File exists"), "%s", text);
	unlink(path);
	answers("-X POST " URL "/v1/stop", "{\"state\":\"stopped\"}");
	cr_expect_neq(dump("core", text, sizeof(text)), 0);
	cr_expect(strstr(text, "cannot dump: the machine is stopped"), "%s", text);
	cr_expect_eq(stat(path, &st), -1, "what was begun is gone");
	answers("-X POST -d '{\"fd\": 0}' " URL "/v1/dump",
		"'hospes ctl NAME dump FILE' opens the file");
}

/* One request with file descriptors, on a connection of its own. */
static void send_with_fds(const char *text, const int *fds, unsigned int n_fds, char *answer,
			  size_t room)
{
	int to = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(HOSPES_DEVICE_FDS * sizeof(int))];
	} with = {0};
	struct iovec iov = {.iov_base = (char *)text, .iov_len = strlen(text)};
	struct msghdr message = {.msg_iov = &iov,
				 .msg_iovlen = 1,
				 .msg_control = &with,
				 .msg_controllen = CMSG_SPACE(n_fds * sizeof(int))};
	struct cmsghdr *m = CMSG_FIRSTHDR(&message);
	size_t at = 0;
	ssize_t n;

	m->cmsg_level = SOL_SOCKET;
	m->cmsg_type = SCM_RIGHTS;
	m->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
	memcpy(CMSG_DATA(m), fds, n_fds * sizeof(int));
	cr_assert_eq(connect(to, (struct sockaddr *)&address, sizeof(address)), 0);
	cr_assert_eq(sendmsg(to, &message, 0), (ssize_t)strlen(text));
	while ((n = read(to, answer + at, room - 1 - at)) > 0)
		at += (size_t)n;
	answer[at] = '\0';
	close(to);
}

/* Connections that are over are closed by the thread that serves them, in its time. */
static unsigned int fds_soon(unsigned int wanted)
{
	unsigned int n = rig_fds();

	for (int i = 0; n != wanted && i < 1000000; i++) {
		sched_yield();
		n = rig_fds();
	}
	return n;
}

Test(control, a_disk_comes_as_a_descriptor_and_goes)
{
	static const char add[] =
		"POST /v1/devices HTTP/1.1\r\nConnection: close\r\nContent-Length: 40\r\n\r\n"
		"{\"disk\": {\"id\": \"second\",    \"fd\": 0  }}";
	unsigned int before = rig_fds();
	char path[128], answer[4096];
	int disk;

	snprintf(path, sizeof(path), "%s/disk2", rig.dir);
	disk = open(path, O_RDWR | O_CLOEXEC);
	send_with_fds(add, &disk, 1, answer, sizeof(answer));
	cr_assert(strstr(answer, "200 OK") && strstr(answer, "\"second\""), "%s", answer);
	close(disk);
	answers(URL "/v1/status", "\"second\"");
	answers("-X POST -d '{\"disk\": {\"path\": \"/etc/passwd\"}}' " URL "/v1/devices",
		"opens nothing for a client");
	answers("-w '%{http_code}' -X DELETE '" URL "/v1/devices/second?timeout_ms=0&force=1'",
		"202");
	cr_assert_not(strstr(ask(URL "/v1/status"), "\"second\""));
	cr_assert_eq(fds_soon(before), before);
}

/* As 'hospes ctl add' does. {dir}: the rig's. */
static int open_and_send(const char *text, char *answer, size_t room, struct hospes_error *error)
{
	int fds[HOSPES_DEVICE_FDS];
	char device[512], request[1024], *opened;
	const char *dir = strstr(text, "{dir}");
	unsigned int n;

	if (dir)
		snprintf(device, sizeof(device), "%.*s%s%s", (int)(dir - text), text, rig.dir,
			 dir + strlen("{dir}"));
	else
		snprintf(device, sizeof(device), "%s", text);
	if (hospes_device_open(device, strlen(device), NULL, &opened, fds, &n, error) < 0)
		return -1;
	cr_assert_null(strstr(opened, rig.dir), "no path is left: %s", opened);
	snprintf(request, sizeof(request),
		 "POST /v1/devices HTTP/1.1\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
		 strlen(opened), opened);
	send_with_fds(request, fds, n, answer, room);
	hospes_free(opened);
	while (n)
		close(fds[--n]);
	return 0;
}

Test(control, what_a_client_opens_it_hands_over)
{
	static const char *const devices[] = {
		"{\"disk\": {\"id\": \"new\", \"path\": \"{dir}/disk2\", \"cache\": \"writethrough\"}}",
		"{\"net\": {\"id\": \"new\", \"socket\": \"{dir}/passt.sock\"}}",
		"{\"console\": {\"id\": \"new\", \"type\": \"virtio\", \"path\": \"{dir}/console.log\"}}",
	};
	unsigned int before = rig_fds();
	struct hospes_error error;
	char answer[4096];

	for (size_t i = 0; i < sizeof(devices) / sizeof(devices[0]); i++) {
		cr_assert_eq(open_and_send(devices[i], answer, sizeof(answer), &error), 0, "%s",
			     error.text);
		cr_assert(strstr(answer, "200 OK") && strstr(answer, "\"new\""), "%s", answer);
		answers(URL "/v1/status", "\"new\"");
		ask("-X DELETE '" URL "/v1/devices/new?timeout_ms=0&force=1'");
		cr_assert_eq(fds_soon(before), before, "%s", devices[i]);
	}
}

Test(control, a_client_opens_by_the_rules_of_a_machine)
{
	static const struct {
		const char *device, *words;
	} cases[] = {
		{"{\"disk\": {\"path\": \"{dir}/disk\"}}", "in use: another machine (or this one)"},
		{"{\"disk\": {\"path\": \"{dir}/none\"}}", "none): No such file"},
		{"{\"disk\": {\"path\": \"{dir}/disk2\", \"fd\": 0}}", "give either path or fd"},
		{"{\"net\": {\"socket\": \"{dir}/passt.sock\", \"queues\": 2}}",
		 "need a tap by name"},
		{"{\"net\": {\"tap\": \"t\", \"queues\": 2}}", "leave out queues"},
		{"{\"floppy\": {\"path\": \"a\"}}", "unknown kind of device"},
	};
	unsigned int before = rig_fds();
	struct hospes_error error;
	char answer[4096];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cr_expect_lt(open_and_send(cases[i].device, answer, sizeof(answer), &error), 0);
		cr_expect(strstr(error.text, cases[i].words), "%s", error.text);
		cr_expect_eq(fds_soon(before), before, "%s", cases[i].device);
	}
}

/* --- viewers of a console --- */

static void add_console(void)
{
	struct hospes_error error;
	char answer[4096];

	cr_assert_eq(open_and_send("{\"console\": {\"id\": \"tty\", \"type\": \"virtio\"}}", answer,
				   sizeof(answer), &error),
		     0, "%s", error.text);
	cr_assert(strstr(answer, "200 OK"), "%s", answer);
}

/* The viewer's end, or -1; answer: what the machine says. */
static int view(const char *body, char *answer, size_t room)
{
	char request[256];
	int ends[2];

	snprintf(request, sizeof(request),
		 "POST /v1/consoles/tty/view HTTP/1.1\r\nConnection: close\r\n"
		 "Content-Length: %zu\r\n\r\n%s",
		 strlen(body), body);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	send_with_fds(request, &ends[0], 1, answer, room);
	close(ends[0]);
	if (strstr(answer, " 204 "))
		return ends[1];
	close(ends[1]);
	return -1;
}

Test(control, one_viewer_of_a_console_until_he_or_it_leaves)
{
	unsigned int before = rig_fds();
	char answer[4096], text[128] = "";
	int first, second;

	add_console();
	answers(URL "/v1/status", "\"viewed\": false");
	first = view("{\"fd\": 0}", answer, sizeof(answer));
	cr_assert_geq(first, 0, "%s", answer);
	answers(URL "/v1/status", "\"viewed\": true");
	cr_assert_eq(view("{\"fd\": 0}", answer, sizeof(answer)), -1);
	cr_assert(strstr(answer, "looks at it already") && strstr(answer, "console tty force"),
		  "%s", answer);
	second = view("{\"fd\": 0, \"take\": true}", answer, sizeof(answer));
	cr_assert_geq(second, 0, "%s", answer);
	cr_assert_gt(read(first, text, sizeof(text) - 1), 0);
	cr_assert(strstr(text, "somebody else has taken"), "%s", text);
	cr_assert_eq(read(first, text, 1), 0);
	close(first);
	ask("-X DELETE '" URL "/v1/devices/tty?timeout_ms=0&force=1'");
	cr_assert_eq(read(second, text, 1), 0, "it ends with the console");
	close(second);
	cr_assert_eq(fds_soon(before), before);
	answers("-X POST -d '{\"fd\": 0}' " URL "/v1/consoles/tty/view", "hospes ctl NAME console");
}

Test(control, a_file_is_no_viewer)
{
	static const char request[] = "POST /v1/consoles/tty/view HTTP/1.1\r\nConnection: close\r\n"
				      "Content-Length: 9\r\n\r\n{\"fd\": 0}";
	int file = open("/dev/null", O_RDWR | O_CLOEXEC);
	char answer[4096];

	add_console();
	send_with_fds(request, &file, 1, answer, sizeof(answer));
	cr_assert(strstr(answer, "400 ") && strstr(answer, "no stream socket"), "%s", answer);
	close(file);
}

/* 'hospes ctl' on a terminal of its own, raw by now; its process. */
static pid_t open_terminal(int *terminal, struct termios *was)
{
	struct termios now;
	pid_t pid;
	int theirs;

	cr_assert_eq(openpty(terminal, &theirs, NULL, NULL, NULL), 0);
	fcntl(*terminal, F_SETFD, FD_CLOEXEC);
	tcgetattr(theirs, was);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0) {
		if (login_tty(theirs) == 0)
			execl(HOSPES_COMMAND, "hospes", "ctl", address.sun_path, "console", "tty",
			      (char *)NULL);
		_exit(127);
	}
	do {
		struct pollfd says = {.fd = *terminal, .events = POLLIN};
		char text[256];

		if (poll(&says, 1, 10) > 0)
			cr_assert_gt(read(*terminal, text, sizeof(text)), 0);
		tcgetattr(*terminal, &now);
	} while (now.c_lflag & ICANON && waitpid(pid, NULL, WNOHANG) == 0);
	cr_assert_not(now.c_lflag & (ICANON | ECHO | ISIG));
	close(theirs);
	return pid;
}

static void is_as_it_was(int terminal, const struct termios *was)
{
	struct termios now;

	cr_assert_eq(tcgetattr(terminal, &now), 0);
	cr_assert_eq(now.c_lflag, was->c_lflag);
	cr_assert_eq(now.c_iflag, was->c_iflag);
	cr_assert_eq(now.c_oflag, was->c_oflag);
}

Test(control, ctl_console_gives_the_terminal_back_however_it_ends)
{
	static const int ends[] = {0, SIGTERM, SIGHUP, SIGINT};
	struct termios was;

	add_console();
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		int terminal, status, keeper;
		pid_t pid = open_terminal(&terminal, &was);

		keeper = open(ptsname(terminal), O_RDWR | O_NOCTTY | O_CLOEXEC);
		answers(URL "/v1/status", "\"viewed\": true");
		if (ends[i])
			cr_assert_eq(kill(pid, ends[i]), 0);
		else
			cr_assert_eq(write(terminal, "\001x", 2), 2);
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		if (ends[i])
			cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == ends[i], "%x", status);
		else
			cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%x", status);
		is_as_it_was(terminal, &was);
		answers(URL "/v1/status", "\"viewed\": false");
		close(keeper);
		close(terminal);
	}
}

Test(control, ctl_console_ends_with_the_machine)
{
	struct termios was;
	int terminal, status, keeper;
	pid_t pid;

	add_console();
	pid = open_terminal(&terminal, &was);
	keeper = open(ptsname(terminal), O_RDWR | O_NOCTTY | O_CLOEXEC);
	ask("-X POST " URL "/v1/stop");
	end();
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%x", status);
	is_as_it_was(terminal, &was);
	close(keeper);
	close(terminal);
}
