// SPDX-License-Identifier: Apache-2.0
// What an orchestrator does: two machines in one process. The first runs in a thread of the
// library, the second in this program's poll loop; KVM, the disk and the consoles are opened here
// and handed in.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <hospes/hospes.h>

struct guest {
	const char *name;
	struct hospes_vm *vm;
	int console[2]; /* pipe: the guest's serial output */
	char line[512]; /* of it, not yet complete */
	size_t used;
	int greeted;  /* its user space has said hello */
	int ended_fd; /* eventfd: it has stopped */
};

static void on_log(void *opaque, enum hospes_log_level level, const char *component,
		   const char *text)
{
	const struct guest *guest = opaque;

	fprintf(stderr, "%s: %d: %s: %s\n", guest->name, (int)level, component, text);
}

static void on_event(void *opaque, const struct hospes_event *event)
{
	static const char *const types[] = {"state",        "outcome",          "reset",
					    "device error", "device requested", "device gone",
					    "device reset", "device released",  "DMA fault",
					    "device added", "device removed",   "device kept"};
	const unsigned int n = sizeof(types) / sizeof(types[0]);
	const struct guest *guest = opaque;

	/* A later library may have more. */
	printf("%s: event %s %d %s\n", guest->name,
	       (unsigned int)event->type < n ? types[event->type] : "of a new kind", event->value,
	       event->text);
	if (event->type == HOSPES_EVENT_STATE && event->value == HOSPES_STOPPED)
		eventfd_write(guest->ended_fd, 1);
}

static int create(struct guest *guest, const char *kernel, const char *initrd, int disk_fd,
		  int kvm_fd, unsigned int flags)
{
	const struct hospes_vm_options options = {
		.size = sizeof(options),
		.flags = flags,
		.log = on_log,
		.log_opaque = guest,
		.log_level = HOSPES_LOG_WARNING,
		.event = on_event,
		.event_opaque = guest,
		.kvm_fd = kvm_fd,
	};
	struct hospes_error error;
	char json[2048];

	guest->ended_fd = eventfd(0, EFD_CLOEXEC);
	if (guest->ended_fd < 0 || pipe2(guest->console, O_CLOEXEC) != 0)
		return -errno;
	fcntl(guest->console[0], F_SETFL, O_NONBLOCK);
	snprintf(json, sizeof(json),
		 "{\"name\": \"%s\", \"memory\": {\"size\": \"128M\"},"
		 " \"kernel\": {\"path\": \"%s\", \"initrd\": \"%s\","
		 "              \"cmdline\": \"console=ttyS0 quiet hospes.test=hello\"},"
		 " \"disks\": [{\"fd\": %d, \"readonly\": true}],"
		 " \"consoles\": [{\"type\": \"serial\", \"out\": %d}]}",
		 guest->name, kernel, initrd, disk_fd, guest->console[1]);
	if (hospes_vm_create(&guest->vm, json, strlen(json), &options, &error) < 0 ||
	    hospes_vm_start(guest->vm, &error) < 0) {
		fprintf(stderr, "%s: %s\n", guest->name, error.text);
		return error.code;
	}
	return 0;
}

/* Show the guest's lines as they come. */
static void read_console(struct guest *guest)
{
	ssize_t n;

	while ((n = read(guest->console[0], guest->line + guest->used,
			 sizeof(guest->line) - 1 - guest->used)) > 0) {
		char *newline;

		guest->used += (size_t)n;
		guest->line[guest->used] = '\0';
		while ((newline = strchr(guest->line, '\n'))) {
			*newline = '\0';
			printf("%s| %s\n", guest->name, guest->line);
			if (strstr(guest->line, "hello from"))
				guest->greeted = 1;
			guest->used -= (size_t)(newline + 1 - guest->line);
			memmove(guest->line, newline + 1, guest->used + 1);
		}
		if (guest->used == sizeof(guest->line) - 1)
			guest->used = 0; /* a line without end */
	}
}

/* Pause, look, go on: from another thread than the machine's. */
static int pause_and_resume(struct guest *guest)
{
	struct hospes_error error;
	char *status;

	if (hospes_vm_pause(guest->vm, &error) < 0) {
		/* It may have ended just now, which is no fault. */
		fprintf(stderr, "%s: %s\n", guest->name, error.text);
		return hospes_vm_state(guest->vm) == HOSPES_STOPPED ? 0 : error.code;
	}
	if (hospes_vm_status(guest->vm, &status, &error) < 0)
		return error.code;
	printf("%s: status while paused: %zu bytes, state %d\n", guest->name, strlen(status),
	       (int)hospes_vm_state(guest->vm));
	hospes_free(status);
	return hospes_vm_resume(guest->vm, &error);
}

static int serve(struct guest *threaded, struct guest *own)
{
	int alive = 1;

	while (alive || hospes_vm_state(threaded->vm) != HOSPES_STOPPED) {
		struct pollfd fds[] = {
			{.fd = alive ? hospes_vm_fd(own->vm) : -1, .events = POLLIN},
			{.fd = own->console[0], .events = POLLIN},
			{.fd = threaded->console[0], .events = POLLIN},
			{.fd = threaded->ended_fd, .events = POLLIN},
		};

		if (alive) {
			alive = hospes_vm_iterate(own->vm);
			if (alive < 0)
				return alive;
		}
		if (alive || hospes_vm_state(threaded->vm) != HOSPES_STOPPED)
			poll(fds, sizeof(fds) / sizeof(fds[0]), -1);
		read_console(threaded);
		read_console(own);
	}
	read_console(threaded);
	read_console(own);
	return 0;
}

int main(int argc, char **argv)
{
	struct guest one = {.name = "one", .console = {-1, -1}};
	struct guest two = {.name = "two", .console = {-1, -1}};
	int kvm_fd;
	int disk_fd;
	int rc;

	if (argc != 4) {
		fprintf(stderr, "usage: %s KERNEL INITRD DISK\n", argv[0]);
		return 2;
	}
	kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	disk_fd = open(argv[3], O_RDONLY | O_CLOEXEC);
	if (kvm_fd < 0 || disk_fd < 0) {
		perror(kvm_fd < 0 ? "/dev/kvm" : argv[3]);
		return 1;
	}
	rc = create(&one, argv[1], argv[2], disk_fd, kvm_fd, HOSPES_VM_THREAD);
	if (rc == 0)
		rc = create(&two, argv[1], argv[2], disk_fd, kvm_fd, 0);
	if (rc == 0)
		rc = pause_and_resume(&one);
	if (rc == 0)
		rc = serve(&one, &two);
	if (rc == 0)
		printf("outcomes: one %d, two %d; greetings: %d\n", (int)hospes_vm_outcome(one.vm),
		       (int)hospes_vm_outcome(two.vm), one.greeted + two.greeted);
	if (rc == 0 && (hospes_vm_outcome(one.vm) != HOSPES_OUTCOME_POWERED_OFF ||
			hospes_vm_outcome(two.vm) != HOSPES_OUTCOME_POWERED_OFF ||
			one.greeted + two.greeted != 2))
		rc = -EIO;
	hospes_vm_destroy(two.vm);
	hospes_vm_destroy(one.vm);
	close(disk_fd);
	close(kvm_fd);
	return rc == 0 ? 0 : 1;
}
