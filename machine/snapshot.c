// SPDX-License-Identifier: Apache-2.0
// The state of a whole machine, saved and loaded. See snapshot.h.
#include "machine/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/num.h"
#include "firmware/acpi.h"
#include "machine/kind.h"
#include "machine/vm.h"
#include "platform/platform.h"

enum {
	STREAM_MAX = 256 << 20, /* bytes: 255 vCPUs have some 15 MB */
	RANGES_MAX = 4,
};

/* Further than this, what two hosts' clocks say of a pause is no pause. */
#define CLOCKS_APART_NS (2 * NS_PER_S)

/* --- what it is, and where its memory is --- */

struct saved_machine {
	uint8_t uuid[16]; /* the state's and the document's are of one machine */
	uint32_t vcpus;
	uint32_t n_ranges;
	uint64_t gpa[RANGES_MAX], bytes[RANGES_MAX];
	uint64_t real_ns; /* CLOCK_REALTIME, when it was saved */
};

static const struct state_field machine_fields[] = {
	STATE_ARRAY(struct saved_machine, uuid, .same = true),
	STATE_ONE(struct saved_machine, vcpus, .same = true),
	STATE_ONE(struct saved_machine, n_ranges, .same = true),
	STATE_ARRAY(struct saved_machine, gpa, .same = true),
	STATE_ARRAY(struct saved_machine, bytes, .same = true),
	STATE_ONE(struct saved_machine, real_ns, .max = INT64_MAX),
};
static const struct state_section machine_section =
	STATE_SECTION("machine", 1, struct saved_machine, machine_fields);

static uint64_t real_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static int add_range(void *opaque, const struct gmem_region *region)
{
	struct saved_machine *m = opaque;

	if (region->flags & GMEM_READONLY)
		return 0;
	if (m->n_ranges == RANGES_MAX)
		return -E2BIG;
	m->gpa[m->n_ranges] = region->gpa;
	m->bytes[m->n_ranges++] = region->size_bytes;
	return 0;
}

static int describe(struct hospes_vm *vm, struct saved_machine *ret, struct err *err)
{
	*ret = (struct saved_machine){.vcpus = vm->config.cpus.max, .real_ns = real_ns()};
	memcpy(ret->uuid, vm->config.uuid.byte, sizeof(ret->uuid));
	if (gmem_walk(vm->gmem, add_range, ret))
		return err_set(err, -EOPNOTSUPP, "memory: more than %d ranges", RANGES_MAX);
	return 0;
}

/* --- saving --- */

/* A device that came while the guest ran is behind a port that a new machine gives to nobody. */
int snapshot_check(struct hospes_vm *vm, struct err *err)
{
	list_for_each (item, &vm->devices) {
		const struct vm_device *d = container_of(item, struct vm_device, link);

		if (config_device_is_pci(d->config) && !d->config->addr.set)
			return err_set(err, -EOPNOTSUPP,
				       "%s: was added while the guest ran, and cannot be saved; "
				       "remove it first ('hospes ctl NAME remove %s')",
				       d->config->id, d->config->id);
	}
	if (vm->memory.mapped)
		return err_set(err, -EOPNOTSUPP,
			       "memory: what was plugged in cannot be saved yet; unplug it first "
			       "('hospes ctl NAME set memory=%lluM')",
			       (unsigned long long)(vm->config.memory.size_bytes / MiB));
	return 0;
}

static void owner_of_vcpu(char owner[STATE_NAME_BYTES], unsigned int i)
{
	snprintf(owner, STATE_NAME_BYTES, "vcpu%u", i);
}

static int save_all(struct hospes_vm *vm, struct state_writer *w, struct err *err)
{
	struct saved_machine machine;
	char owner[STATE_NAME_BYTES];
	int rc = describe(vm, &machine, err);

	if (rc)
		return rc;
	state_writer_owner(w, "machine");
	state_save(w, &machine_section, &machine, 1);
	for (unsigned int i = 0; i < vm->config.cpus.max && !rc; i++) {
		owner_of_vcpu(owner, i);
		state_writer_owner(w, owner);
		rc = arch_vcpu_save(vcpus_get(vm->vcpus, i), w, err);
	}
	if (rc)
		return rc;
	state_writer_owner(w, "vm");
	rc = arch_vm_save(vm->arch, w, err);
	list_for_each (item, &vm->plugged) {
		if (!rc)
			rc = state_save_device(w, container_of(item, struct device, link), err);
	}
	return rc;
}

int snapshot_save(struct hospes_vm *vm, struct state_buffer *buffer, struct err *err)
{
	struct state_writer writer;
	int rc = snapshot_check(vm, err);

	vm_assert_own_thread(vm);
	if (rc)
		return rc;
	state_writer_begin(&writer, state_buffer_sink, buffer);
	rc = save_all(vm, &writer, err);
	return rc ? rc : state_writer_end(&writer, err);
}

/* Without where it came from itself, without a debugger, with what was settled at its start. */
char *snapshot_document(struct hospes_vm *vm)
{
	struct config *c = &vm->config;
	const struct config_restore restore = c->restore;
	const struct config_incoming incoming = c->incoming;
	const struct config_gdb gdb = c->gdb;
	int ports = c->pci.config_ports;
	char *text;

	vm_assert_own_thread(vm);
	c->restore = (struct config_restore){.state_fd = -1, .memory_fd = -1};
	c->incoming = (struct config_incoming){.fd = -1};
	c->gdb = (struct config_gdb){.fd = -1};
	c->pci.config_ports = vm_ecam_only(vm) ? CONFIG_PORTS_OFF : CONFIG_PORTS_ON;
	text = config_write(c, false);
	c->restore = restore;
	c->incoming = incoming;
	c->gdb = gdb;
	c->pci.config_ports = ports;
	return text;
}

/* --- what it is made from --- */

/* The descriptor, which is the caller's, or negative errno. */
static int open_one(int dir, const char *name, int given, struct err *err)
{
	int fd = given >= 0 ? fd_dup(given)
			    : openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;

	if (fd < 0)
		return err_set(err, given >= 0 ? fd : -errno, "%s: %s", name,
			       err_name(given >= 0 ? fd : -errno));
	if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		close(fd);
		return err_set(err, -EINVAL, "%s: not a regular file", name);
	}
	return fd;
}

static int read_stream(struct vm_snapshot *s, int fd, struct err *err)
{
	struct stat st;
	int rc;

	if (fstat(fd, &st) || st.st_size > STREAM_MAX)
		return err_set(err, -EPROTO, "state: more bytes than the %d that are possible",
			       STREAM_MAX);
	s->len = (size_t)st.st_size;
	s->bytes = malloc(s->len + 1);
	if (!s->bytes)
		return err_set(err, -ENOMEM, "state: no memory");
	rc = fd_read_full(fd, s->bytes, s->len, 0);
	return rc ? err_set(err, rc, "state: cannot be read: %s", err_name(rc)) : 0;
}

static int open_files(struct vm_snapshot *s, const struct config_restore *c, struct err *err)
{
	cleanup_fd int dir = -1;
	cleanup_fd int state = -1;

	if (c->path) {
		dir = open(c->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (dir < 0)
			return err_set(err, -errno, "%s", err_name(-errno));
	}
	state = open_one(dir, "state", c->state_fd, err);
	if (state < 0)
		return state;
	s->memory_fd = open_one(dir, "memory", c->memory_fd, err);
	if (s->memory_fd < 0)
		return s->memory_fd;
	/* Whoever writes it has it alone; we read pages from it as long as we run. */
	if (flock(s->memory_fd, LOCK_SH | LOCK_NB))
		return err_set(err, -EBUSY,
			       "memory: somebody writes it now; wait until that is done");
	return read_stream(s, state, err);
}

int snapshot_open(struct hospes_vm *vm, struct err *err)
{
	const struct config_restore *c = &vm->config.restore;
	int rc;

	vm->snapshot.memory_fd = -1;
	vm->snapshot.arrives = vm->config.incoming.fd >= 0;
	if (!c->path && c->state_fd < 0)
		return 0;
	vm->snapshot.present = true;
	rc = open_files(&vm->snapshot, c, err);
	return rc ? err_prefix(err, "restore: %s", c->path ? c->path : "the given files") : 0;
}

int snapshot_map(struct hospes_vm *vm, struct err *err)
{
	struct saved_machine here = {0};
	uint64_t offset = 0;
	struct stat st;
	int rc = 0;

	if (!vm->snapshot.present)
		return 0;
	if (gmem_walk(vm->gmem, add_range, &here) || fstat(vm->snapshot.memory_fd, &st))
		return err_set(err, -EINVAL, "restore: memory cannot be laid out");
	for (unsigned int i = 0; i < here.n_ranges; i++)
		offset += here.bytes[i];
	if ((uint64_t)st.st_size != offset)
		return err_set(
			err, -EPROTO,
			"restore: memory: the file has %lld bytes, and the machine %llu: it is "
			"cut short, or of another machine",
			(long long)st.st_size, (unsigned long long)offset);
	offset = 0;
	for (unsigned int i = 0; i < here.n_ranges && !rc; i++) {
		rc = gmem_fill(vm->gmem, here.gpa[i], vm->snapshot.memory_fd, offset, err);
		offset += here.bytes[i];
	}
	return rc ? err_prefix(err, "restore") : 0;
}

/* --- loading --- */

static int check_owner(const struct state_reader *r, const char *want, struct err *err)
{
	const char *owner = state_reader_owner(r);

	if (owner && !strcmp(owner, want))
		return 0;
	return err_set(err, -EPROTO, "the state of %s is missing; %s%s%s comes in its place", want,
		       owner ? "that of '" : "", owner ? owner : "the end", owner ? "'" : "");
}

/* Some have no state. */
static int load_devices(struct hospes_vm *vm, struct state_reader *r, struct err *err)
{
	int rc = 0;

	list_for_each (item, &vm->plugged) {
		struct device *dev = container_of(item, struct device, link);

		if (!rc)
			rc = state_load_device(r, dev, err);
	}
	return rc;
}

/* The guest is a copy: another generation ID, and an edge of its interrupt. */
static int announce(struct hospes_vm *vm, struct err *err)
{
	struct irq_line line;
	int rc = irq_line_get(&line, vm->irq, PLATFORM_GENERATION_GSI, err);

	if (rc)
		return rc;
	if (acpi_new_generation(vm->gmem))
		rc = err_set(err, -EFAULT, "the generation ID cannot be changed");
	irq_line_set(&line, true);
	irq_line_set(&line, false);
	irq_line_put(&line);
	return rc;
}

/* By how much its clocks go on. Of a machine that arrives: by the real pause, as far as the two
 * hosts' clocks agree; where they do not, by what is known to have passed here. */
static uint64_t advance_of(const struct hospes_vm *vm, uint64_t saved_ns)
{
	const struct vm_snapshot *s = &vm->snapshot;
	uint64_t now = real_ns(), passed = now > saved_ns ? now - saved_ns : 0;

	if (s->arrives)
		return passed >= s->least_ns && passed - s->least_ns < CLOCKS_APART_NS
			       ? passed
			       : s->least_ns;
	return vm->config.restore.clock == SNAPSHOT_REAL ? passed : 0;
}

static int load_all(struct hospes_vm *vm, struct state_reader *r, struct err *err)
{
	struct saved_machine machine;
	char owner[STATE_NAME_BYTES];
	uint64_t advance_ns = 0;
	int rc = describe(vm, &machine, err);

	if (!rc)
		rc = check_owner(r, "machine", err);
	if (rc)
		return rc;
	state_reader_begin(r, "machine");
	rc = state_load(r, &machine_section, &machine, 1, err);
	if (!rc)
		rc = state_commit(r, err);
	if (!rc)
		advance_ns = advance_of(vm, machine.real_ns);
	for (unsigned int i = 0; i < vm->config.cpus.max && !rc; i++) {
		owner_of_vcpu(owner, i);
		rc = check_owner(r, owner, err);
		if (rc)
			break;
		state_reader_begin(r, owner);
		rc = arch_vcpu_load(vcpus_get(vm->vcpus, i), r, advance_ns, err);
	}
	if (!rc)
		rc = check_owner(r, "vm", err);
	if (rc)
		return rc;
	state_reader_begin(r, "vm");
	rc = arch_vm_load(vm->arch, r, advance_ns, err);
	if (!rc)
		rc = load_devices(vm, r, err);
	if (!rc)
		rc = state_reader_end(r, err);
	return rc || vm->snapshot.arrives ? rc : announce(vm, err);
}

int snapshot_load(struct hospes_vm *vm, struct err *err)
{
	struct vm_snapshot *s = &vm->snapshot;
	struct state_reader *r = NULL;
	int rc;

	vm_assert_own_thread(vm);
	rc = state_reader_open(&r, s->bytes, s->len, err);
	if (!rc)
		rc = load_all(vm, r, err);
	state_reader_close(r);
	free(s->bytes);
	s->bytes = NULL;
	s->loaded = !rc;
	if (rc && s->arrives)
		return err_prefix(err, "migration");
	return rc ? err_prefix(err, "restore: %s",
			       vm->config.restore.path ? vm->config.restore.path : "state")
		  : 0;
}

void snapshot_done(struct hospes_vm *vm)
{
	free(vm->snapshot.bytes);
	vm->snapshot.bytes = NULL;
	if (vm->snapshot.present)
		fd_close(&vm->snapshot.memory_fd);
}
