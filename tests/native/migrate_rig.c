// SPDX-License-Identifier: Apache-2.0
// Two machines and what is between them. See migrate_rig.h.
#include "migrate_rig.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/num.h"

static void told(struct told *t, const struct hospes_event *event)
{
	if (event->type == HOSPES_EVENT_MIGRATING)
		atomic_store(&t->rounds, event->value);
	if (event->type != HOSPES_EVENT_MIGRATED)
		return;
	snprintf(t->text, sizeof(t->text), "%s", event->text);
	atomic_store(&t->result, event->value);
	atomic_fetch_add(&t->ended, 1);
}

static void source_event(void *opaque, const struct hospes_event *event)
{
	struct migrate_rig *m = opaque;

	/* The last one tells what it took; the machine is there by then. */
	if (event->type == HOSPES_EVENT_MIGRATING && m->on_round &&
	    hospes_vm_state(m->source.vm) == HOSPES_RUNNING)
		m->on_round(m);
	told(&m->source.told, event);
}

static void target_event(void *opaque, const struct hospes_event *event)
{
	told(&((struct migrate_rig *)opaque)->target.told, event);
}

static void connect_side(struct side *s)
{
	struct err err = ERR_INIT;
	int pair[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	s->fd = pair[0];
	s->far = pair[1];
	cr_assert_eq(wire_reader_init(&s->reader, &err), 0);
}

void migrate_rig_init(struct migrate_rig *m)
{
	*m = (struct migrate_rig){0};
	rig_init(&m->rig, true);
	connect_side(&m->source);
	connect_side(&m->target);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void migrate_cut(struct migrate_rig *m)
{
	close_fd(&m->source.fd);
	close_fd(&m->target.fd);
}

void migrate_rig_done(struct migrate_rig *m)
{
	hospes_vm_destroy(m->target.vm);
	hospes_vm_destroy(m->source.vm);
	migrate_cut(m);
	close_fd(&m->source.far);
	close_fd(&m->target.far);
	wire_reader_done(&m->source.reader);
	wire_reader_done(&m->target.reader);
	rig_done(&m->rig);
}

static void make(struct migrate_rig *m, struct side *s, const char *document,
		 hospes_event_fn *event)
{
	const struct hospes_vm_options options = {
		.size = sizeof(options),
		.flags = HOSPES_VM_THREAD,
		.kvm_fd = m->rig.kvm_fd,
		.event = event,
		.event_opaque = m,
	};
	struct hospes_error error;

	cr_assert_eq(vm_create(&s->vm, document, strlen(document), &options, m->rig.calls, &error),
		     0, "%s\n%s", error.text, document);
	cr_assert_eq(hospes_vm_start(s->vm, &error), 0, "%s", error.text);
}

void migrate_source(struct migrate_rig *m, const char *more)
{
	char text[1024];

	snprintf(
		text, sizeof(text),
		"{\"cpus\": {\"count\": 2, \"max\": 3}, \"memory\": {\"size\": \"32M\", \"backing\": \"%s\"}, "
		"\"kernel\": {\"path\": \"%s/kernel\", \"cache\": false}, "
		"\"disks\": [{\"path\": \"%s/disk\"}], \"balloon\": {\"enabled\": true}, "
		"\"consoles\": [{\"type\": \"serial\", \"out\": %d}]%s}",
		m->in_file ? "memfd" : "auto", m->rig.dir, m->rig.dir, STDERR_FILENO, more);
	make(m, &m->source, text, source_event);
}

/* What the stream says, and where things are. */
static char *target_document(struct migrate_rig *m)
{
	json_t *root, *kernel, *disk, *console;
	struct hospes_error error;
	char *text;

	cr_assert_eq(hospes_migration_document(m->target.far, &text, &error), 0, "%s", error.text);
	root = json_loads(text, 0, NULL);
	hospes_free(text);
	kernel = json_object_get(root, "kernel");
	json_object_set_new(kernel, "path", json_sprintf("%s/kernel", m->rig.dir));
	json_object_set_new(kernel, "cache", json_false());
	disk = json_array_get(json_object_get(root, "disks"), 0);
	json_object_set_new(disk, "path", json_sprintf("%s/disk", m->rig.dir));
	console = json_array_get(json_object_get(root, "consoles"), 0);
	json_object_set_new(console, "out", json_integer(STDERR_FILENO));
	json_object_set_new(root, "incoming", json_pack("{s:i}", "fd", m->target.far));
	text = json_dumps(root, 0);
	json_decref(root);
	return text;
}

void migrate_begin(struct migrate_rig *m)
{
	struct hospes_error error;
	char *document;

	cr_assert_eq(hospes_vm_migrate(m->source.vm, m->source.far, 1000, &error), 0, "%s",
		     error.text);
	close_fd(&m->source.far);
	for (unsigned int i = 0; i < 2; i++) {
		struct wire_frame frame;

		cr_assert(migrate_step(m, &m->source, &frame));
		cr_assert_eq(frame.kind, i ? WIRE_DOCUMENT : WIRE_HELLO);
	}
	document = target_document(m);
	make(m, &m->target, document, target_event);
	close_fd(&m->target.far);
	free(document);
}

static void send_all(int fd, const void *bytes, size_t n)
{
	while (n) {
		ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL);

		if (sent < 0 && errno == EPIPE)
			return; /* whoever reads there has ended */
		cr_assert_gt(sent, 0, "%s", strerror(errno));
		bytes = (const char *)bytes + sent;
		n -= (size_t)sent;
	}
}

void migrate_send(struct side *to, enum wire_kind kind, uint64_t at, const void *payload,
		  uint64_t bytes)
{
	struct wire_head head = wire_head(kind, at, bytes);

	send_all(to->fd, &head, sizeof(head));
	if (payload)
		send_all(to->fd, payload, (size_t)bytes);
}

/* 1: a frame, 0: none yet, -1: no more. */
static int take(struct side *from, struct wire_frame *frame, bool wait)
{
	struct err err = ERR_INIT;
	int rc;

	while (!(rc = wire_reader_take(&from->reader, frame, &err))) {
		size_t room;
		uint8_t *at = wire_reader_free(&from->reader, &room);
		ssize_t n = recv(from->fd, at, room, wait ? 0 : MSG_DONTWAIT);

		if (n < 0 && errno == EAGAIN)
			return 0;
		if (n <= 0)
			return -1;
		wire_reader_filled(&from->reader, (size_t)n);
	}
	cr_assert_eq(rc, 1, "%s", err.text);
	return 1;
}

static struct side *other(struct migrate_rig *m, const struct side *s)
{
	return s == &m->source ? &m->target : &m->source;
}

static void pass_on(struct migrate_rig *m, struct side *from, const struct wire_frame *frame)
{
	migrate_send(other(m, from), frame->kind, frame->at, frame->payload, frame->bytes);
	m->frames++;
	m->last = frame->kind;
}

bool migrate_step(struct migrate_rig *m, struct side *from, struct wire_frame *frame)
{
	if (take(from, frame, true) < 0)
		return false;
	pass_on(m, from, frame);
	return true;
}

void migrate_relay(struct migrate_rig *m, unsigned int frames)
{
	bool ended[2] = {false};

	while (m->frames < frames && !(ended[0] && ended[1])) {
		struct side *sides[2] = {&m->source, &m->target};
		struct pollfd fds[2] = {{.fd = ended[0] ? -1 : m->source.fd, .events = POLLIN},
					{.fd = ended[1] ? -1 : m->target.fd, .events = POLLIN}};
		bool any = false;

		for (unsigned int i = 0; i < 2 && m->frames < frames; i++) {
			struct wire_frame frame;
			int rc = ended[i] ? 0 : take(sides[i], &frame, false);

			if (rc > 0)
				pass_on(m, sides[i], &frame);
			ended[i] |= rc < 0;
			/* What one side cannot say any more, the other sees as an end. */
			if (rc < 0)
				shutdown(other(m, sides[i])->fd, SHUT_WR);
			any |= rc != 0;
		}
		if (!any)
			poll(fds, 2, -1);
	}
}

int migrate_wait(struct side *s)
{
	while (!atomic_load(&s->told.ended))
		sched_yield();
	return atomic_load(&s->told.result);
}
