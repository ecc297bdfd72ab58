/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Run the attack guest in a machine that has one of every device, and see that hospes outlives it:
 * the guest reaches its end, every register region was hit, nothing but the guest's own devices
 * took harm. Public API only. TAP.
 *
 * usage: attack-run KERNEL SECONDS [SEED]
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <hospes/hospes.h>

#define DISK_BYTES (8 << 20)

static char folder[] = "/tmp/hospes-attack-XXXXXX";
static int peer_listener = -1;
static unsigned int n_tests;
static bool failed;

__attribute__((format(printf, 2, 3))) static bool ok(bool good, const char *fmt, ...)
{
	va_list ap;

	printf("%sok %u - ", good ? "" : "not ", ++n_tests);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	fflush(stdout);
	failed |= !good;
	return good;
}

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *fmt, ...)
{
	va_list ap;

	printf("Bail out! ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	exit(1);
}

static void log_line(void *opaque, enum hospes_log_level level, const char *component,
		     const char *text)
{
	(void)opaque;
	if (level <= HOSPES_LOG_WARNING)
		fprintf(stderr, "# %s: %s\n", component, text);
}

static const char *in_folder(const char *name)
{
	static char path[4][128];
	static unsigned int at;

	at = (at + 1) % 4;
	snprintf(path[at], sizeof(path[at]), "%s/%s", folder, name);
	return path[at];
}

static void make_disk(const char *name)
{
	int fd = open(in_folder(name), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0 || ftruncate(fd, DISK_BYTES))
		die("%s: %s", name, strerror(errno));
	close(fd);
}

/* The network's other end, as passt would be: takes what comes, now and then sends a frame. */
static void *peer(void *opaque)
{
	static const uint8_t frame[4 + 60] = {0, 0, 0, 60, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	uint8_t buf[4096];
	int fd = accept4(peer_listener, NULL, NULL, SOCK_CLOEXEC);

	(void)opaque;
	while (fd >= 0) {
		struct timeval pause = {.tv_usec = 10000};

		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &pause, sizeof(pause));
		if (recv(fd, buf, sizeof(buf), 0) == 0)
			break;
		if (send(fd, frame, sizeof(frame), MSG_DONTWAIT | MSG_NOSIGNAL) < 0 &&
		    errno != EAGAIN)
			break;
	}
	close(fd);
	return NULL;
}

static void start_peer(void)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	pthread_t thread;

	snprintf(at.sun_path, sizeof(at.sun_path), "%s", in_folder("net"));
	peer_listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (peer_listener < 0 || bind(peer_listener, (struct sockaddr *)&at, sizeof(at)) ||
	    listen(peer_listener, 1) || pthread_create(&thread, NULL, peer, NULL))
		die("peer: %s", strerror(errno));
	pthread_detach(thread);
}

/* Input that never ends: a pipe that is always full. */
static void *typist(void *opaque)
{
	char text[256];
	int fd = *(int *)opaque;

	memset(text, 'x', sizeof(text));
	while (write(fd, text, sizeof(text)) > 0)
		;
	return NULL;
}

static int typing(void)
{
	static int ends[2][2];
	static unsigned int n;
	pthread_t thread;
	int *fds = ends[n++];

	if (pipe2(fds, O_CLOEXEC) || pthread_create(&thread, NULL, typist, &fds[1]))
		die("pipe: %s", strerror(errno));
	pthread_detach(thread);
	return fds[0];
}

static char *document(const char *kernel, int serial_out, unsigned int seconds, unsigned int seed)
{
	char cmdline[64];

	snprintf(cmdline, sizeof(cmdline), "seconds=%u seed=%u", seconds, seed);
	json_t *j =
		json_pack("{s:s, s:{s:i}, s:{s:s}, s:{s:s, s:s, s:b}, s:[{s:s, s:i}, {s:s, s:b}], "
			  "s:[{s:s}], s:[{s:s, s:i, s:i}, {s:s, s:i, s:s}], s:{s:i}, s:i, s:s}",
			  "name", "attacked", "cpus", "count", 1, "memory", "size", "64M", "kernel",
			  "path", kernel, "cmdline", cmdline, "cache", 0, "disks", "path",
			  in_folder("disk0"), "queues", 2, "path", in_folder("disk1"), "readonly",
			  1, "nets", "socket", in_folder("net"), "consoles", "type", "serial", "in",
			  typing(), "out", serial_out, "type", "virtio", "in", typing(), "path",
			  "/dev/null", "pci", "root_ports", 2, "io_threads", 1, "on_reset", "stop");

	if (!j)
		die("the document");
	char *text = json_dumps(j, 0);
	json_decref(j);
	return text;
}

/* All that the guest wrote, terminated. */
static const char *output_of(const char *path, size_t *n)
{
	static char buf[64 << 20];
	FILE *f = fopen(path, "r");

	*n = f ? fread(buf, 1, sizeof(buf) - 1, f) : 0;
	buf[*n] = 0;
	if (f)
		fclose(f);
	return buf;
}

static void check_regions(struct hospes_vm *vm)
{
	struct hospes_error error;
	char *text = NULL;
	json_t *region;
	size_t i;

	if (hospes_vm_status(vm, &text, &error) < 0) {
		ok(false, "status: %s", error.text);
		return;
	}
	json_t *status = json_loads(text, 0, NULL);
	json_t *regions = json_object_get(status, "regions");
	ok(json_array_size(regions) > 10, "%zu regions are listed", json_array_size(regions));
	json_array_foreach(regions, i, region) ok(
		json_integer_value(json_object_get(region, "traps")) > 0,
		"%s %s at %s was hit %lld times", json_string_value(json_object_get(region, "bus")),
		json_string_value(json_object_get(region, "name")),
		json_string_value(json_object_get(region, "base")),
		(long long)json_integer_value(json_object_get(region, "traps")));
	json_decref(status);
	hospes_free(text);
}

/* What the guest said of itself, for somebody who has to find out why. */
static void show(const char *text, size_t n)
{
	const char *at, *end = text + n;

	while ((at = memmem(text, (size_t)(end - text), "attack: ", 8))) {
		int len = (int)strcspn(at, "\r\n");

		fprintf(stderr, "# %.*s\n", len > 120 ? 120 : len, at);
		text = at + 8;
	}
}

static void run(const char *kernel, unsigned int seconds, unsigned int seed)
{
	const struct hospes_vm_options options = {
		.size = sizeof(options),
		.flags = HOSPES_VM_THREAD,
		.log = log_line,
		.log_level = HOSPES_LOG_WARNING,
	};
	struct hospes_error error;
	struct hospes_vm *vm;
	char output[128];
	size_t n;

	snprintf(output, sizeof(output), "%s", in_folder("serial"));
	int out = open(output, O_RDWR | O_CREAT | O_CLOEXEC | O_APPEND, 0600);
	char *json = document(kernel, out, seconds, seed);

	if (hospes_vm_create(&vm, json, strlen(json), &options, &error) < 0)
		die("create: %s", error.text);
	if (hospes_vm_start(vm, &error) < 0)
		die("start: %s", error.text);
	int rc = hospes_vm_wait(vm, (int)(seconds * 4 + 120) * 1000);
	ok(rc == 0, "the guest ends by itself");
	ok(hospes_vm_outcome(vm) == HOSPES_OUTCOME_POWERED_OFF, "by powering off (outcome %d)",
	   (int)hospes_vm_outcome(vm));
	check_regions(vm);
	hospes_vm_destroy(vm);
	const char *text = output_of(output, &n);
	if (!ok(memmem(text, n, "attack: done", 12), "and said that it is through (seed %u)", seed))
		show(text, n);
	free(json);
}

int main(int argc, char **argv)
{
	static const char *const files[] = {"disk0", "disk1", "net", "serial"};

	if (argc < 3) {
		fprintf(stderr, "usage: attack-run KERNEL SECONDS [SEED]\n");
		return 2;
	}
	if (access("/dev/kvm", R_OK | W_OK)) {
		printf("1..0 # SKIP /dev/kvm: %s\n", strerror(errno));
		return 0;
	}
	signal(SIGPIPE, SIG_IGN);
	if (!mkdtemp(folder))
		die("%s: %s", folder, strerror(errno));
	make_disk("disk0");
	make_disk("disk1");
	start_peer();
	run(argv[1], (unsigned int)atoi(argv[2]),
	    argc > 3 ? (unsigned int)atoi(argv[3]) : (unsigned int)time(NULL));
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		unlink(in_folder(files[i]));
	ok(rmdir(folder) == 0, "nothing is left behind");
	printf("1..%u\n", n_tests);
	return failed;
}
