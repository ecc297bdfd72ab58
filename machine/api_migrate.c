// SPDX-License-Identifier: Apache-2.0
// The public interface of live migration, and the document that comes before the machine.
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/num.h"
#include "machine/api.h"
#include "machine/migrate.h"
#include "machine/vm.h"
#include "migration/wire.h"

#define PATIENCE_NS (30 * NS_PER_S)

int hospes_vm_migrate(struct hospes_vm *vm, int fd, unsigned int downtime_ms,
		      struct hospes_error *error)
{
	struct vm_migrate_request request = {.fd = fd, .downtime_ns = downtime_ms * NS_PER_MS};
	struct err err = ERR_INIT;

	return give(error, &err, vm_call(vm, vm_do_migrate, &request, &err));
}

int hospes_vm_migrate_cancel(struct hospes_vm *vm, struct hospes_error *error)
{
	struct err err = ERR_INIT;

	return give(error, &err, vm_call(vm, vm_do_migrate_cancel, NULL, &err));
}

static int do_check(struct hospes_vm *vm, void *arg, struct err *err)
{
	json_t *obstacles = vm_migrate_obstacles(vm);
	json_t *report = json_pack("{s:b, s:I, s:o}", "possible", json_array_size(obstacles) == 0,
				   "memory_bytes", (json_int_t)gmem_ram_bytes(vm->gmem),
				   "obstacles", obstacles);
	char **text = arg;

	*text = report ? json_dumps(report, JSON_INDENT(2)) : NULL;
	json_decref(report);
	return *text ? 0 : err_set(err, -ENOMEM, "no memory");
}

int hospes_vm_migrate_check(struct hospes_vm *vm, char **report, struct hospes_error *error)
{
	struct err err = ERR_INIT;

	return give(error, &err, vm_call(vm, do_check, report, &err));
}

/* --- which machine comes --- */

/* What the stream may say of a machine: what its guest sees. The stream is hostile, and this is a
 * list of what is taken: no path, name or number of this host is. A key that is added later is
 * taken when it is added here; until then both sides give it, or the state does not fit. */
static const struct taken {
	const char *key;
	const char *const *members; /* of the object, or of each in the list; NULL: a value */
} taken[] = {
	{"uuid", NULL},
	{"on_reset", NULL},
	{"cpus", (const char *const[]){"count", "max", "sockets", "cores", "threads", NULL}},
	{"memory", (const char *const[]){"size", "max", NULL}},
	{"kernel", (const char *const[]){"cmdline", "kaslr", NULL}},
	{"pci", (const char *const[]){"root_ports", "config_ports", NULL}},
	{"smbios", (const char *const[]){"serial", "manufacturer", "product", "version", NULL}},
	{"disks", (const char *const[]){"id", "addr", "readonly", "cache", "discard", "queues",
					"queue_size", "block_size", "serial", "format", NULL}},
	{"nets", (const char *const[]){"id", "addr", "mac", "queues", "queue_size", "mtu",
				       "offload", "link", NULL}},
	{"consoles", (const char *const[]){"id", "addr", "type", "overflow", NULL}},
	{"rng", (const char *const[]){"id", "addr", "enabled", NULL}},
	{"balloon", (const char *const[]){"id", "addr", "enabled", "stats", "deflate_on_oom",
					  "free_page_reporting", "granule", NULL}},
};

static json_t *take_members(const json_t *from, const char *const *members)
{
	json_t *to = json_object();

	for (; *members; members++) {
		json_t *value = json_object_get(from, *members);

		/* A value that holds others could hold anything. */
		if (value && !json_is_object(value) && !json_is_array(value) &&
		    !json_is_null(value))
			json_object_set(to, *members, value);
	}
	return to;
}

static json_t *take_value(const json_t *value, const struct taken *t)
{
	json_t *list, *item;
	size_t i;

	if (!t->members)
		return json_is_string(value) ? json_incref((json_t *)value) : NULL;
	if (json_is_object(value))
		return take_members(value, t->members);
	if (!json_is_array(value))
		return NULL;
	list = json_array();
	json_array_foreach((json_t *)value, i, item)
	{
		json_array_append_new(list, take_members(item, t->members));
	}
	return list;
}

static json_t *take_document(const json_t *from)
{
	json_t *to = json_object();

	for (size_t i = 0; i < ARRAY_SIZE(taken); i++) {
		json_t *value = take_value(json_object_get(from, taken[i].key), &taken[i]);

		if (value)
			json_object_set_new(to, taken[i].key, value);
	}
	return to;
}

static int read_exactly(int fd, void *to, size_t bytes, uint64_t until, struct err *err)
{
	for (size_t n = 0; n < bytes;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		uint64_t now = clock_ns();
		ssize_t got;

		if (now >= until ||
		    (poll(&p, 1, (int)((until - now) / NS_PER_MS) + 1) < 0 && errno != EINTR))
			return err_set(err, -ETIMEDOUT,
				       "migration: the source has not said in %d s which machine "
				       "comes",
				       (int)(PATIENCE_NS / NS_PER_S));
		got = recv(fd, (char *)to + n, bytes - n, MSG_DONTWAIT);
		if (got < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (got <= 0)
			return err_set(err, got < 0 ? -errno : -ECONNRESET,
				       "migration: the source is gone (%s)",
				       got < 0 ? err_name(-errno) : "it has closed the connection");
		n += (size_t)got;
	}
	return 0;
}

/* One frame of this kind, its payload from malloc. Not a byte more: the rest is the machine's. */
static int read_frame(int fd, enum wire_kind kind, char **payload, size_t *bytes, uint64_t until,
		      struct err *err)
{
	struct wire_head head;
	struct wire_frame frame = {0};
	int rc = read_exactly(fd, &head, sizeof(head), until, err);

	if (!rc)
		rc = wire_parse(&head, &frame, bytes, err);
	if (!rc && frame.kind != kind)
		rc = err_set(err, -EPROTO, "migration: a frame '%s' in the place of '%s'",
			     wire_name(frame.kind), wire_name(kind));
	if (rc || !*bytes)
		return rc;
	*payload = malloc(*bytes);
	if (!*payload)
		return err_set(err, -ENOMEM, "migration: no memory");
	return read_exactly(fd, *payload, *bytes, until, err);
}

int hospes_migration_document(int fd, char **document, struct hospes_error *error)
{
	uint64_t until = clock_ns() + PATIENCE_NS;
	cleanup_free char *text = NULL;
	struct err err = ERR_INIT;
	json_t *root = NULL, *kept = NULL;
	json_error_t at;
	size_t bytes = 0;
	int rc = read_frame(fd, WIRE_HELLO, &text, &bytes, until, &err);

	if (!rc)
		rc = read_frame(fd, WIRE_DOCUMENT, &text, &bytes, until, &err);
	if (!rc) {
		root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &at);
		if (!json_is_object(root))
			rc = err_set(&err, -EPROTO, "migration: the source's document: %s",
				     root ? "must hold an object" : at.text);
	}
	if (!rc) {
		kept = take_document(root);
		*document = json_dumps(kept, JSON_INDENT(2));
		if (!*document)
			rc = err_set(&err, -ENOMEM, "migration: no memory");
	}
	json_decref(root);
	json_decref(kept);
	return give(error, &err, rc);
}
