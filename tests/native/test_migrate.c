// SPDX-License-Identifier: Apache-2.0
// A machine that moves to another process is the same machine there: memory, state, identity, the
// lock of its disk; and wherever the stream is cut, or a side dies, it never runs twice.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/num.h"
#include "machine/kind_disk.h"
#include "migrate_rig.h"
#include "stub_kvm.h"

#define BY_VCPU   0x400ff8ull
#define BY_DEVICE 0x500ff8ull
#define OLD       0x600000ull
#define GIVEN_UP  0x700000ull

static struct migrate_rig m;

static void set_up(void)
{
	migrate_rig_init(&m);
}

static void tear_down(void)
{
	migrate_rig_done(&m);
}

TestSuite(migrate, .init = set_up, .fini = tear_down, .timeout = 120);

static int compare_region(void *opaque, const struct gmem_region *region)
{
	const struct hospes_vm *to = opaque;
	const uint8_t *there = region->hva, *here;

	if (region->flags & GMEM_READONLY)
		return 0;
	here = gmem_host(to->gmem, region->gpa, region->size_bytes, false);
	for (uint64_t at = 0; here && at < region->size_bytes; at += 4096) {
		if (memcmp(here + at, there + at, 4096) != 0)
			return (int)((region->gpa + at) / 4096) + 1;
	}
	return here ? 0 : -1;
}

static void expect_same_memory(void)
{
	int page = gmem_walk(m.source.vm->gmem, compare_region, m.target.vm);

	cr_expect_eq(page, 0, "page 0x%x differs", (unsigned int)page - 1);
}

static enum hospes_state state_of(const struct side *s)
{
	return hospes_vm_state(s->vm);
}

static bool has_lock(void)
{
	char path[128];
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int fd, rc;

	snprintf(path, sizeof(path), "%s/disk", m.rig.dir);
	fd = open(path, O_RDWR | O_CLOEXEC);
	cr_assert_geq(fd, 0);
	rc = fcntl(fd, F_OFD_SETLK, &lock);
	close(fd);
	return rc < 0;
}

/* Twice in the middle of things: what the next look at the logs has to find. */
static void write_in_round(struct migrate_rig *rig)
{
	struct hospes_vm *vm = rig->source.vm;
	char text[32];

	snprintf(text, sizeof(text), "in round %d", atomic_load(&rig->source.told.rounds));
	stub_kvm_write(gmem_host(vm->gmem, BY_VCPU, 16, true), text, 16);
	cr_assert_eq(gmem_write(vm->gmem, BY_DEVICE, text, 16), 0);
	cr_assert_eq(gmem_discard(vm->gmem, GIVEN_UP, 4096), 0);
}

Test(migrate, a_machine_that_has_moved_is_the_same)
{
	migrate_source(&m, ", \"uuid\": \"6ba7b810-9dad-11d1-80b4-00c04fd430c8\"");
	cr_assert_eq(gmem_write(m.source.vm->gmem, OLD, "from before", 12), 0);
	cr_assert_eq(gmem_write(m.source.vm->gmem, GIVEN_UP, "gone later", 11), 0);
	m.on_round = write_in_round;
	migrate_begin(&m);
	migrate_relay(&m, UINT32_MAX);
	cr_assert_eq(migrate_wait(&m.source), 0, "%s", m.source.told.text);
	cr_assert_eq(migrate_wait(&m.target), 0, "%s", m.target.told.text);
	cr_assert_eq(hospes_vm_wait(m.source.vm, -1), 0);
	cr_assert_eq(hospes_vm_outcome(m.source.vm), HOSPES_OUTCOME_MIGRATED);
	cr_assert_eq(state_of(&m.target), HOSPES_RUNNING);
	cr_expect(has_lock());
	expect_same_memory();
	cr_expect_eq(memcmp(&m.source.vm->config.uuid, &m.target.vm->config.uuid, 16), 0);
	cr_expect_str_eq(gmem_host(m.target.vm->gmem, OLD, 12, false), "from before");
	cr_expect_eq(*(char *)gmem_host(m.target.vm->gmem, GIVEN_UP, 1, false), 0);
}

Test(migrate, memory_in_a_file_moves_as_far_as_it_was_used)
{
	m.in_file = true;
	migrate_source(&m, ", \"io_threads\": 1");
	m.on_round = write_in_round;
	migrate_begin(&m);
	migrate_relay(&m, UINT32_MAX);
	cr_assert_eq(migrate_wait(&m.target), 0, "%s", m.target.told.text);
	cr_assert_eq(hospes_vm_wait(m.source.vm, -1), 0);
	expect_same_memory();
}

/* The guest asks for it; its kernel is placed anew, elsewhere. */
static void reset_in_round(struct migrate_rig *rig)
{
	if (!rig->source.vm->resets)
		vm_request(rig->source.vm, VM_RESET);
}

Test(migrate, a_guest_that_resets_itself_meanwhile_has_all_of_its_memory)
{
	migrate_source(&m, "");
	m.on_round = reset_in_round;
	migrate_begin(&m);
	migrate_relay(&m, UINT32_MAX);
	cr_assert_eq(migrate_wait(&m.target), 0, "%s", m.target.told.text);
	cr_assert_eq(hospes_vm_wait(m.source.vm, -1), 0);
	cr_assert_eq(m.source.vm->resets, 1);
	expect_same_memory();
}

Test(migrate, what_is_no_connected_socket_is_refused)
{
	struct hospes_error error;
	char text[300];
	int pipe_fds[2], fds = 0;

	cr_assert_eq(pipe(pipe_fds), 0);
	migrate_source(&m, "");
	cr_assert_eq(hospes_vm_migrate(m.source.vm, pipe_fds[1], 50, &error), -EINVAL);
	cr_expect(strstr(error.text, "no connected stream socket"), "%s", error.text);
	cr_assert_eq(state_of(&m.source), HOSPES_RUNNING);
	snprintf(text, sizeof(text),
		 "{\"kernel\": {\"path\": \"{dir}/kernel\", \"cache\": false}, \"incoming\": "
		 "{\"fd\": %d}}",
		 pipe_fds[0]);
	fds = (int)rig_fds();
	cr_assert_eq(rig_try(&m.rig, &m.target.vm, text, 0, &error), -EINVAL);
	cr_expect(strstr(error.text, "no connected stream socket"), "%s", error.text);
	cr_expect_eq((int)rig_fds(), fds);
	m.target.vm = NULL;
	close(pipe_fds[0]);
	close(pipe_fds[1]);
}

static unsigned int runs(const struct side *s)
{
	return s->vm && state_of(s) == HOSPES_RUNNING;
}

/* The relay is cut after so many frames: what becomes of both? False: it was over by then. */
static bool cut_after(unsigned int frames)
{
	struct hospes_error error;
	bool committed;

	migrate_source(&m, "");
	migrate_begin(&m);
	migrate_relay(&m, frames);
	committed = m.last == WIRE_GO || m.last == WIRE_RUNNING;
	if (m.frames < frames)
		return false;
	migrate_cut(&m);
	migrate_wait(&m.source);
	migrate_wait(&m.target);
	cr_expect_leq(runs(&m.source) + runs(&m.target), 1u, "frame %u", frames);
	if (!committed) {
		/* Before GO has passed nobody but the source can have it. */
		cr_expect(!runs(&m.target), "frame %u", frames);
		cr_expect(runs(&m.source) || state_of(&m.source) == HOSPES_PAUSED);
	}
	if (!runs(&m.source) && !runs(&m.target)) {
		cr_expect_eq(atomic_load(&m.source.told.result), -EINPROGRESS);
		cr_expect(strstr(m.source.told.text, "this side stands still"), "%s",
			  m.source.told.text);
		cr_expect_eq(state_of(&m.source), HOSPES_PAUSED);
		cr_expect_eq(hospes_vm_reset(m.source.vm, &error), -EBUSY);
		cr_expect_eq(hospes_vm_resume(m.source.vm, &error), 0, "%s", error.text);
		cr_expect_eq(state_of(&m.source), HOSPES_RUNNING);
	}
	if (runs(&m.source))
		cr_expect(has_lock(), "frame %u", frames);
	return true;
}

Test(migrate, wherever_the_stream_is_cut_it_never_runs_twice)
{
	unsigned int frames = 2, standing = 0, moved = 0;

	while (cut_after(++frames)) {
		standing += atomic_load(&m.source.told.result) == -EINPROGRESS;
		moved += runs(&m.target);
		tear_down();
		set_up();
	}
	cr_expect_gt(frames, 6u, "%u frames", frames);
	cr_expect(standing || moved, "no cut was late enough");
}

/* The relay plays a side. */
static void relay_until(enum wire_kind kind, struct side *from)
{
	struct wire_frame frame;

	do
		cr_assert(migrate_step(&m, from, &frame), "no '%s' came", wire_name(kind));
	while (frame.kind != kind);
}

/* Up to where the target has all of it, and its answer is on its way. */
static void bring_to_loaded(void)
{
	struct wire_frame frame;

	migrate_source(&m, "");
	migrate_begin(&m);
	relay_until(WIRE_ACCEPT, &m.target);
	relay_until(WIRE_WHOLE, &m.source);
	cr_assert(migrate_step(&m, &m.target, &frame));
	cr_assert_eq(frame.kind, WIRE_LOADED);
}

Test(migrate, if_go_is_lost_both_stand_still_until_somebody_decides)
{
	struct hospes_error error;
	struct wire_head go;

	bring_to_loaded();
	cr_assert_eq(recv(m.source.fd, &go, sizeof(go), MSG_WAITALL), (ssize_t)sizeof(go));
	cr_assert_eq(le32_get(go.kind), WIRE_GO);
	migrate_cut(&m);
	cr_assert_eq(migrate_wait(&m.source), -EINPROGRESS);
	cr_assert_eq(migrate_wait(&m.target), -EINPROGRESS);
	cr_assert_eq(state_of(&m.source), HOSPES_PAUSED);
	cr_assert_eq(state_of(&m.target), HOSPES_PAUSED);
	cr_expect(!has_lock(), "neither has the disk");
	cr_expect(strstr(m.target.told.text, "only then, resume it"), "%s", m.target.told.text);
	/* The disk's lock decides between two who both decide. */
	cr_assert_eq(hospes_vm_resume(m.target.vm, &error), 0, "%s", error.text);
	cr_assert_eq(state_of(&m.target), HOSPES_RUNNING);
	cr_assert_eq(hospes_vm_resume(m.source.vm, &error), -EBUSY);
	cr_expect(strstr(error.text, "in use"), "%s", error.text);
	cr_assert_eq(state_of(&m.source), HOSPES_PAUSED);
}

Test(migrate, a_target_that_cannot_go_on_leaves_it_with_the_source)
{
	struct wire_head go;

	bring_to_loaded();
	cr_assert_eq(recv(m.source.fd, &go, sizeof(go), MSG_WAITALL), (ssize_t)sizeof(go));
	migrate_send(&m.source, WIRE_FAILED, 0, "no", 2);
	cr_assert_eq(migrate_wait(&m.source), -EREMOTEIO);
	cr_expect(strstr(m.source.told.text, "the target: no"), "%s", m.source.told.text);
	cr_assert_eq(state_of(&m.source), HOSPES_RUNNING);
	cr_expect(has_lock());
}

Test(migrate, a_cancelled_one_stays)
{
	struct hospes_error error;

	migrate_source(&m, "");
	cr_assert_eq(hospes_vm_migrate_cancel(m.source.vm, &error), -ENOENT);
	migrate_begin(&m);
	cr_assert_eq(hospes_vm_migrate(m.source.vm, m.source.fd, 10, &error), -EBUSY);
	cr_assert_eq(hospes_vm_migrate_cancel(m.source.vm, &error), 0, "%s", error.text);
	migrate_relay(&m, UINT32_MAX);
	cr_assert_eq(migrate_wait(&m.source), -ECANCELED);
	cr_assert_eq(migrate_wait(&m.target), -ECANCELED, "%s", m.target.told.text);
	cr_assert_eq(state_of(&m.source), HOSPES_RUNNING);
	cr_assert_eq(hospes_vm_wait(m.target.vm, -1), 0);
}

Test(migrate, go_before_all_has_come_is_refused)
{
	migrate_source(&m, "");
	migrate_begin(&m);
	migrate_send(&m.target, WIRE_GO, 1, NULL, 0);
	cr_assert_eq(migrate_wait(&m.target), -EPROTO);
	cr_expect(strstr(m.target.told.text, "'go' while memory comes"), "%s", m.target.told.text);
	cr_assert_eq(hospes_vm_wait(m.target.vm, -1), 0);
	cr_assert_eq(state_of(&m.source), HOSPES_RUNNING);
}

Test(migrate, while_it_comes_it_is_nobody_elses)
{
	struct hospes_error error;

	migrate_source(&m, "");
	migrate_begin(&m);
	cr_assert_eq(state_of(&m.target), HOSPES_PAUSED);
	cr_expect_eq(hospes_vm_resume(m.target.vm, &error), -EBUSY);
	cr_expect_eq(hospes_vm_reset(m.target.vm, &error), -EBUSY);
	cr_expect(strstr(error.text, "still to arrive"), "%s", error.text);
	cr_expect_eq(hospes_vm_set_cpus(m.source.vm, 1, &error), -EBUSY);
	cr_expect(strstr(error.text, "a migration is under way"), "%s", error.text);
}

Test(migrate, what_cannot_be_moved_is_named_beforehand)
{
	static const char viommu[] = ", \"viommu\": {\"enabled\": true}";
	struct hospes_error error;
	char *report;

	migrate_source(&m, viommu);
	cr_assert_eq(hospes_vm_migrate_check(m.source.vm, &report, &error), 0, "%s", error.text);
	cr_expect(strstr(report, "\"possible\": false") && strstr(report, "virtual IOMMU"), "%s",
		  report);
	hospes_free(report);
	cr_assert_eq(hospes_vm_migrate(m.source.vm, m.source.far, 50, &error), -EOPNOTSUPP);
	cr_expect(strstr(error.text, "virtual IOMMU"), "%s", error.text);
	cr_assert_eq(state_of(&m.source), HOSPES_RUNNING);
}

/* A source says which disk: nothing of this host is in what it can say. */
Test(migrate, a_document_from_the_stream_names_nothing_here)
{
	static const char hostile[] =
		"{\"uuid\": \"6ba7b810-9dad-11d1-80b4-00c04fd430c8\", \"sandbox\": \"off\","
		" \"kernel\": {\"path\": \"/etc/shadow\", \"cmdline\": \"quiet\"},"
		" \"restore\": {\"path\": \"/\"}, \"name\": \"x\", \"firmware\": \"/etc/shadow\","
		" \"disks\": [{\"path\": \"/etc/shadow\", \"fd\": 0, \"id\": {\"path\": \"/\"},"
		" \"serial\": \"s\"}], \"credentials\": [{\"name\": \"a\", \"path\": \"/b\"}]}";
	struct hospes_error error;
	char *text;

	migrate_send(&m.target, WIRE_HELLO, WIRE_MAGIC, NULL, WIRE_FORMAT);
	migrate_send(&m.target, WIRE_DOCUMENT, 0, hostile, sizeof(hostile) - 1);
	cr_assert_eq(hospes_migration_document(m.target.far, &text, &error), 0, "%s", error.text);
	cr_expect(!strchr(text, '/') && !strstr(text, "\"fd\"") && !strstr(text, "sandbox"), "%s",
		  text);
	cr_expect(strstr(text, "quiet") && strstr(text, "\"serial\": \"s\""), "%s", text);
	hospes_free(text);
	migrate_send(&m.target, WIRE_GO, 0, NULL, 0);
	cr_assert_eq(hospes_migration_document(m.target.far, &text, &error), -EPROTO);
	cr_expect(strstr(error.text, "'go' in the place of 'hello'"), "%s", error.text);
}
