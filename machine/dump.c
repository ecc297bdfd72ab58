// SPDX-License-Identifier: Apache-2.0
// The machine's memory in a file: an ELF core, or a snapshot. See dump.h.
#include "machine/dump.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/num.h"
#include "core/debug.h"
#include "machine/lacking.h"
#include "machine/vm.h"

enum {
	MAX_RANGES = 64,
	PAGE_BYTES = 4096,
	WRITE_BYTES = 4 << 20,
	SCAN_BYTES = 16 << 20, /* of zeroes in one iteration */
};

struct range {
	uint64_t gpa, bytes, at; /* at: in the file */
	int fd;                  /* of its memory, or -1 */
	uint64_t fd_offset;
};

struct vm_dump {
	struct loop_op op; /* a write, or posted */
	bool waits;        /* it is in flight */
	int fd;
	int result;  /* of the last write */
	bool resume; /* the machine, when it is written */
	bool snapshot;
	uint8_t *head;
	size_t head_bytes, head_done;
	struct range ranges[MAX_RANGES];
	unsigned int n_ranges;
	unsigned int range; /* where it is */
	uint64_t offset;    /* in that range */
	uint64_t done, bytes;
};

/* --- the head: headers and registers --- */

static int add_range(void *opaque, const struct gmem_region *region)
{
	struct vm_dump *d = opaque;

	if (region->flags & GMEM_READONLY)
		return 0;
	if (d->n_ranges == MAX_RANGES)
		return -E2BIG;
	d->ranges[d->n_ranges++] = (struct range){
		.gpa = region->gpa,
		.bytes = region->size_bytes,
		.fd = region->fd,
		.fd_offset = region->fd_offset,
	};
	d->bytes += region->size_bytes;
	return 0;
}

struct note {
	Elf64_Nhdr head;
	char name[8];
	uint8_t status[DEBUG_STATUS_BYTES];
};
static_assert(sizeof(struct note) % 4 == 0, "ELF: notes are aligned to 4 bytes");

static int make_head(struct hospes_vm *vm, struct vm_dump *d)
{
	unsigned int n_vcpus = cpus_count(vm), n_headers = d->n_ranges + 1;
	size_t notes_at = sizeof(Elf64_Ehdr) + n_headers * sizeof(Elf64_Phdr);
	size_t used = notes_at + n_vcpus * sizeof(struct note);
	uint64_t at = d->head_bytes = align_up(used, PAGE_BYTES);
	Elf64_Ehdr *elf;
	Elf64_Phdr *load;
	struct note *note;
	int rc = 0;

	d->head = calloc(1, d->head_bytes);
	if (!d->head)
		return -ENOMEM;
	elf = (void *)d->head;
	*elf = (Elf64_Ehdr){
		.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB,
			    EV_CURRENT},
		.e_type = ET_CORE,
		.e_machine = arch_debug_elf_machine,
		.e_version = EV_CURRENT,
		.e_phoff = sizeof(*elf),
		.e_ehsize = sizeof(*elf),
		.e_phentsize = sizeof(*load),
		.e_phnum = (Elf64_Half)n_headers,
	};
	load = (void *)(elf + 1);
	*load++ = (Elf64_Phdr){
		.p_type = PT_NOTE, .p_offset = notes_at, .p_filesz = n_vcpus * sizeof(*note)};
	for (unsigned int i = 0; i < d->n_ranges; i++) {
		struct range *r = &d->ranges[i];

		r->at = at;
		at += r->bytes;
		/* A debugger finds memory where it is, as with paging off. */
		*load++ = (Elf64_Phdr){
			.p_type = PT_LOAD,
			.p_flags = PF_R | PF_W | PF_X,
			.p_offset = r->at,
			.p_vaddr = r->gpa,
			.p_paddr = r->gpa,
			.p_filesz = r->bytes,
			.p_memsz = r->bytes,
			.p_align = PAGE_BYTES,
		};
	}
	note = (void *)(d->head + notes_at);
	for (unsigned int i = 0; i < vm->config.cpus.max && !rc; i++) {
		if (!vcpus_is_in(vm->vcpus, i))
			continue;
		note->head = (Elf64_Nhdr){sizeof("CORE"), sizeof(note->status), NT_PRSTATUS};
		memcpy(note->name, "CORE", sizeof("CORE"));
		rc = arch_debug_status(vcpus_get(vm->vcpus, i), note++->status);
	}
	return rc;
}

/* --- the memory --- */

/* Memory of a file that was never used would come into being by being read: where from offset on is
 * there some, and up to where? The range's end where there is none. */
static void find_data(const struct range *r, uint64_t offset, uint64_t *from, uint64_t *to)
{
	off_t at = (off_t)(r->fd_offset + offset);
	off_t data = r->fd < 0 ? -1 : lseek(r->fd, at, SEEK_DATA), hole;

	*from = offset;
	*to = r->bytes;
	if (r->fd < 0 || (data < 0 && errno != ENXIO))
		return;
	if (data < 0 || (uint64_t)data - r->fd_offset >= r->bytes) {
		*from = r->bytes;
		return;
	}
	*from = align_down((uint64_t)data - r->fd_offset, PAGE_BYTES);
	hole = lseek(r->fd, data, SEEK_HOLE);
	if (hole > data)
		*to = MIN(r->bytes, align_up((uint64_t)hole - r->fd_offset, PAGE_BYTES));
}

static bool is_zero(const uint8_t *page)
{
	return !page[0] && memcmp(page, page + 1, PAGE_BYTES - 1) == 0;
}

static void written(struct loop_op *op, int result)
{
	struct vm_dump *d = container_of(op, struct vm_dump, op);

	d->waits = false;
	d->result = result;
}

/* The next pages that are not zero, at most WRITE_BYTES, and where they are. 0: none in the part
 * that was looked at, and `offset` is behind it. -EFAULT: the memory has left the machine. */
static int find_pages(struct hospes_vm *vm, struct vm_dump *d, const uint8_t **ret)
{
	const struct range *r = &d->ranges[d->range];
	uint64_t from, end, bytes = 0;
	const uint8_t *at;

	find_data(r, d->offset, &from, &end);
	end = MIN(end, from + SCAN_BYTES);
	d->done += from - d->offset;
	d->offset = from;
	if (from == r->bytes)
		return 0;
	at = gmem_host(vm->gmem, r->gpa + from, end - from, false);
	if (!at)
		return -EFAULT;
	while (d->offset < end && is_zero(at + (d->offset - from)))
		d->offset += PAGE_BYTES;
	d->done += d->offset - from;
	*ret = at + (d->offset - from);
	while (bytes < WRITE_BYTES && d->offset + bytes < end && !is_zero(*ret + bytes))
		bytes += PAGE_BYTES;
	return (int)bytes;
}

static void write_part(struct hospes_vm *vm, struct vm_dump *d, const uint8_t *bytes, size_t n,
		       uint64_t at)
{
	d->waits = true;
	loop_write(vm->loop, &d->op, d->fd, bytes, (unsigned int)n, (int64_t)at);
}

/* One step. 1: there is more, 0: it is done, or a negative errno. */
static int step(struct hospes_vm *vm, struct vm_dump *d)
{
	const uint8_t *pages;
	int n;

	if (d->result < 0)
		return d->result;
	if (d->head_done < d->head_bytes) {
		d->head_done += (size_t)d->result;
		if (d->head_done < d->head_bytes) {
			write_part(vm, d, d->head + d->head_done, d->head_bytes - d->head_done,
				   d->head_done);
			return 1;
		}
	} else {
		d->offset += (uint64_t)d->result;
		d->done += (uint64_t)d->result;
	}
	d->result = 0;
	while (d->range < d->n_ranges && d->offset == d->ranges[d->range].bytes) {
		d->range++;
		d->offset = 0;
	}
	if (d->range == d->n_ranges)
		return 0;
	n = find_pages(vm, d, &pages);
	if (n > 0) {
		write_part(vm, d, pages, (size_t)n, d->ranges[d->range].at + d->offset);
	} else if (n == 0) {
		d->waits = true;
		loop_post(vm->loop, &d->op);
	}
	return n < 0 ? n : 1;
}

/* --- from the beginning to the end --- */

static void free_dump(struct vm_dump *d)
{
	fd_close(&d->fd);
	free(d->head);
	free(d);
}

static enum hospes_event_type event_of(const struct vm_dump *d)
{
	return d->snapshot ? HOSPES_EVENT_SNAPSHOT : HOSPES_EVENT_DUMPED;
}

/* Not while the op is in flight. */
static void finish(struct hospes_vm *vm, int rc)
{
	struct vm_dump *d = vm->dump;
	bool resume = d->resume && atomic_load(&vm->state) == HOSPES_PAUSED;
	enum hospes_event_type event = event_of(d);
	struct err err = ERR_INIT;

	vm->dump = NULL;
	free_dump(d);
	vm_emit(vm, event, rc, rc ? err_name(rc) : "");
	if (resume && vm_do_resume(vm, NULL, &err) != 0)
		log_error(&vm->log, "dump", "%s", err.text);
}

static int check_file(const char *what, int fd, struct err *err)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY || flags & O_APPEND ||
	    lseek(fd, 0, SEEK_CUR) < 0)
		return err_set(err, -EINVAL,
			       "%s: no file that can be written at any place; open a regular "
			       "file for writing",
			       what);
	return 0;
}

static int write_state(struct hospes_vm *vm, int fd, struct err *err)
{
	struct state_buffer buffer = {0};
	int rc = snapshot_save(vm, &buffer, err);

	if (!rc && ftruncate(fd, 0))
		rc = err_set(err, -errno, "snapshot: %s", err_name(errno));
	if (!rc) {
		rc = fd_write_full(fd, buffer.bytes, buffer.len, 0);
		if (rc)
			err_set(err, rc, "snapshot: the state cannot be written: %s", err_name(rc));
	}
	free(buffer.bytes);
	return rc;
}

/* Where memory lies in the file, and what comes before it. */
static int lay_out(struct hospes_vm *vm, struct vm_dump *d, struct err *err)
{
	uint64_t at = 0;
	int rc = gmem_walk(vm->gmem, add_range, d);

	if (!rc && !d->snapshot)
		rc = make_head(vm, d);
	if (rc)
		return err_set(err, rc, "dump: cannot be prepared: %s", err_name(rc));
	for (unsigned int i = 0; i < d->n_ranges && d->snapshot; i++) {
		d->ranges[i].at = at;
		at += d->ranges[i].bytes;
	}
	return 0;
}

static int begin(struct hospes_vm *vm, struct vm_dump *d, const struct vm_dump_request *request,
		 struct err *err)
{
	const char *what = d->snapshot ? "snapshot" : "dump";
	const struct range *last;
	int rc = check_file(what, request->fd, err);

	if (!rc && d->snapshot)
		rc = check_file(what, request->state_fd, err);
	if (rc)
		return rc;
	d->fd = fd_dup(request->fd);
	if (d->fd < 0)
		return err_set(err, d->fd, "%s: %s", what, err_name(d->fd));
	if (d->snapshot)
		rc = write_state(vm, request->state_fd, err);
	if (!rc)
		rc = lay_out(vm, d, err);
	if (rc)
		return rc;
	last = &d->ranges[d->n_ranges - 1];
	/* What it held before is gone, so that holes are zero. */
	if (ftruncate(d->fd, 0) < 0 || ftruncate(d->fd, (off_t)(last->at + last->bytes)) < 0)
		return err_set(err, -errno, "%s: the file cannot be made that large: %s", what,
			       err_name(errno));
	if (d->snapshot && !(*request->document = snapshot_document(vm)))
		return err_set(err, -ENOMEM, "snapshot: no memory");
	return 0;
}

int vm_do_dump(struct hospes_vm *vm, void *arg, struct err *err)
{
	bool running = atomic_load(&vm->state) == HOSPES_RUNNING;
	const struct vm_dump_request *request = arg;
	struct vm_dump *d;
	int rc;

	rc = request->state_fd < 0 ? lacking_refuse(ARCH_DEBUG, "dump", err)
				   : lacking_refuse(ARCH_STATE, "snapshot", err);
	if (rc)
		return rc;
	if (vm->dump)
		return err_set(err, -EALREADY,
			       "%s: one is being written; an event says when that is done",
			       vm->dump->snapshot ? "snapshot" : "dump");
	rc = vm_migrate_refuses(vm, request->state_fd < 0 ? "dump" : "snapshot", err);
	if (rc)
		return rc;
	if (!running && atomic_load(&vm->state) != HOSPES_PAUSED)
		return vm_wrong_state(vm, request->state_fd < 0 ? "dump" : "snapshot", err);
	if (!mem_new(d))
		return err_set(err, -ENOMEM, "dump: no memory");
	d->fd = -1;
	d->op.done = written;
	d->resume = running;
	d->snapshot = request->state_fd >= 0;
	rc = vm_do_pause(vm, NULL, err);
	if (!rc)
		rc = begin(vm, d, request, err);
	if (rc) {
		free_dump(d);
		if (running && atomic_load(&vm->state) == HOSPES_PAUSED)
			vm_do_resume(vm, NULL, NULL);
		return rc;
	}
	vm->dump = d;
	if (!d->snapshot) {
		write_part(vm, d, d->head, d->head_bytes, 0);
	} else {
		d->waits = true;
		loop_post(vm->loop, &d->op);
	}
	return 0;
}

bool vm_dump_then(struct hospes_vm *vm, bool resume)
{
	if (vm->dump)
		vm->dump->resume = resume;
	return vm->dump;
}

void vm_dump_act(struct hospes_vm *vm)
{
	int rc;

	if (!vm->dump || vm->dump->waits || atomic_load(&vm->state) == HOSPES_STOPPED)
		return;
	rc = step(vm, vm->dump);
	if (rc <= 0)
		finish(vm, rc);
}

void vm_dump_ended(struct hospes_vm *vm)
{
	if (!vm->dump)
		return;
	if (vm->dump->waits)
		loop_cancel(vm->loop, &vm->dump->op);
	vm_emit(vm, event_of(vm->dump), -ECANCELED, "the machine has stopped");
}

void vm_dump_destroy(struct hospes_vm *vm)
{
	if (!vm->dump)
		return;
	while (vm->dump->waits && loop_iterate(vm->loop, true) >= 0)
		;
	free_dump(vm->dump);
	vm->dump = NULL;
}

json_t *vm_dump_status(const struct hospes_vm *vm)
{
	if (!vm->dump)
		return NULL;
	return json_pack("{s:I, s:I}", "done", (json_int_t)vm->dump->done, "of",
			 (json_int_t)vm->dump->bytes);
}
