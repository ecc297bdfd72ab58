// SPDX-License-Identifier: Apache-2.0
// A daemon that somebody keeps for a machine's device: the device's end of its lifeline.
#include <criterion/criterion.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "machine/vm.h"
#include "rig.h"
#include "virtio/vhost_user_wire.h"

enum { PATIENCE_MS = 60000 };

static struct rig rig;
static struct hospes_error error;
static struct hospes_vm *vm;
static int daemon_fd, keeper_fd; /* the other ends */
static pthread_t thread;

static struct {
	unsigned int errors;
	char text[512];
} seen;

static void on_event(void *opaque, const struct hospes_event *event)
{
	(void)opaque;
	if (event->type != HOSPES_EVENT_DEVICE_ERROR)
		return;
	seen.errors++;
	cr_assert_str_eq(event->device, "share0");
	snprintf(seen.text, sizeof(seen.text), "%s", event->text);
}

static void answer(uint32_t request, uint64_t value)
{
	struct {
		struct vhost_user_header header;
		uint64_t value;
	} __attribute__((packed)) a = {{request, VHOST_USER_VERSION | VHOST_USER_REPLY, 8}, value};

	(void)!send(daemon_fd, &a, sizeof(a), MSG_NOSIGNAL);
}

/* A daemon that says yes. */
static void *serve(void *opaque)
{
	struct vhost_user_header h;
	char body[512];

	while (recv(daemon_fd, &h, sizeof(h), MSG_WAITALL) == sizeof(h)) {
		if (h.bytes > sizeof(body) ||
		    (h.bytes && recv(daemon_fd, body, h.bytes, MSG_WAITALL) != (ssize_t)h.bytes))
			break;
		if (h.request == VHOST_USER_GET_FEATURES)
			answer(h.request, 1ull << 32 | 1ull << VHOST_USER_F_PROTOCOL_FEATURES);
		else if (h.request == VHOST_USER_GET_PROTOCOL_FEATURES)
			answer(h.request, 1ull << VHOST_USER_PROTOCOL_F_MQ |
						  1ull << VHOST_USER_PROTOCOL_F_REPLY_ACK);
		else if (h.request == VHOST_USER_GET_QUEUE_NUM)
			answer(h.request, 2);
		else if (h.flags & VHOST_USER_NEED_REPLY)
			answer(h.request, 0);
	}
	return opaque;
}

static void set_up(void)
{
	char document[400];
	int served[2], life[2];

	rig_init(&rig, true);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, served), 0);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, life), 0);
	daemon_fd = served[1];
	keeper_fd = life[1];
	cr_assert_eq(pthread_create(&thread, NULL, serve, NULL), 0);
	snprintf(document, sizeof(document),
		 "{\"memory\": {\"size\": \"32M\"}, \"kernel\": {\"path\": \"{dir}/kernel\", "
		 "\"cache\": false}, \"shares\": [{\"tag\": \"t\", \"vhost_user_fd\": %d, "
		 "\"keeper_fd\": %d}]}",
		 served[0], life[0]);
	vm = rig_create(&rig, document, 0);
	vm->options.event = on_event;
	close(served[0]);
	close(life[0]);
	seen.errors = 0;
	cr_assert_eq(hospes_vm_start(vm, &error), 0, "%s", error.text);
}

static void tear_down(void)
{
	hospes_vm_destroy(vm);
	shutdown(daemon_fd, SHUT_RDWR);
	pthread_join(thread, NULL);
	close(daemon_fd);
	close(keeper_fd);
	rig_done(&rig);
}

TestSuite(keeper, .init = set_up, .fini = tear_down, .timeout = 120);

static void say(const char *text)
{
	cr_assert_eq(send(keeper_fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

static void iterate_until_error(void)
{
	while (!seen.errors) {
		struct pollfd fd = {.fd = hospes_vm_fd(vm), .events = POLLIN};

		cr_assert_geq(hospes_vm_iterate(vm), 0);
		if (!seen.errors && poll(&fd, 1, PATIENCE_MS) == 0)
			cr_assert_fail("no event came");
	}
}

/* All that is ready, and nothing is waited for. */
static void iterate(void)
{
	for (unsigned int i = 0; i < 20; i++)
		cr_assert_geq(hospes_vm_iterate(vm), 0);
}

Test(keeper, its_last_word_is_in_the_event)
{
	say("virtiofsd: a line");
	iterate();
	shutdown(daemon_fd, SHUT_RDWR);
	iterate();
	cr_assert_eq(seen.errors, 0, "it has not said why: %s", seen.text);
	say("virtiofsd was killed by \033[1msignal 9");
	shutdown(keeper_fd, SHUT_RDWR);
	iterate_until_error();
	cr_assert(strstr(seen.text,
			 "daemon is gone: it has closed its socket: virtiofsd was killed "
			 "by ?[1msignal 9;"),
		  "%s", seen.text);
	cr_assert(strstr(seen.text, "remove the device"), "%s", seen.text);
}

Test(keeper, what_it_says_before_the_daemon_is_gone_counts_too)
{
	say("virtiofsd ended with status 1");
	shutdown(keeper_fd, SHUT_RDWR);
	iterate();
	shutdown(daemon_fd, SHUT_RDWR);
	iterate_until_error();
	cr_assert(strstr(seen.text, "virtiofsd ended with status 1"), "%s", seen.text);
}

Test(keeper, one_that_says_nothing_is_not_waited_for)
{
	shutdown(daemon_fd, SHUT_RDWR);
	iterate_until_error();
	cr_assert(strstr(seen.text, "it has closed its socket; its requests"), "%s", seen.text);
	/* Nor one that says too much, which is no second event. */
	for (unsigned int i = 0; i < 30; i++)
		(void)!send(keeper_fd, "again", 5, MSG_NOSIGNAL | MSG_DONTWAIT);
	iterate();
	cr_assert_eq(seen.errors, 1);
}

Test(keeper, one_that_never_ends_speaking_is_not_waited_for)
{
	for (unsigned int i = 0; i < 100; i++)
		(void)!send(keeper_fd, "more", 4, MSG_NOSIGNAL | MSG_DONTWAIT);
	shutdown(daemon_fd, SHUT_RDWR);
	iterate_until_error();
	cr_assert(strstr(seen.text, "it has closed its socket: more;"), "%s", seen.text);
}

Test(keeper, its_end_is_closed_with_the_device)
{
	char byte;

	cr_assert_eq(hospes_vm_device_remove(vm, "share0", 0, HOSPES_REMOVE_FORCE, &error), 0, "%s",
		     error.text);
	while (recv(keeper_fd, &byte, 1, MSG_DONTWAIT) != 0) {
		struct pollfd fds[] = {{.fd = hospes_vm_fd(vm), .events = POLLIN},
				       {.fd = keeper_fd, .events = POLLIN}};

		cr_assert_geq(hospes_vm_iterate(vm), 0);
		cr_assert_gt(poll(fds, 2, PATIENCE_MS), 0);
	}
	cr_assert_eq(seen.errors, 0, "%s", seen.text);
}
