// SPDX-License-Identifier: Apache-2.0
// A machine made from another's state is that machine: saved again, it is the same bytes. What is
// no such state, or another machine's, is refused and changes nothing.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/num.h"
#include "base/rand.h"
#include "machine/vm.h"
#include "rig.h"
#include "x86_64/x86.h"

#define MARK_GPA 0x300ff0ull

static const char mark[] = "written by the guest, over the border of two pages";
static const char everything[] =
	"{\"cpus\": {\"count\": 2, \"max\": 3}, \"memory\": {\"size\": \"64M\"}, "
	"\"kernel\": {\"path\": \"{dir}/kernel\", \"cache\": false}, "
	"\"disks\": [{\"path\": \"{dir}/disk\"}, {\"path\": \"{dir}/disk2\", \"readonly\": true}], "
	"\"consoles\": [{\"type\": \"serial\", \"out\": %d}, {\"type\": \"virtio\"}], "
	"\"balloon\": {\"enabled\": true}}";

static struct rig rig;
static struct hospes_vm *vm;
static struct state_buffer saved;
static char *document;
static int memory;

static void save(struct hospes_vm *from, struct state_buffer *to)
{
	struct err err = ERR_INIT;

	*to = (struct state_buffer){0};
	cr_assert_eq(snapshot_save(from, to, &err), 0, "%s", err.text);
}

/* What it would not have at power-on. */
static void mark_chips(void)
{
	for (unsigned int i = 0; i < 3; i++) {
		struct kvm_lapic_state lapic;
		struct kvm_irqchip chip = {.chip_id = i};

		memset(&lapic, 0x40 + (int)i, sizeof(lapic));
		cr_assert_eq(arch_vcpu_call(vcpus_get(vm->vcpus, i), KVM_SET_LAPIC, &lapic), 0);
		memset(&chip.chip, 0x50 + (int)i, sizeof(chip.chip));
		cr_assert_eq(x86_vm_call(vm->arch, KVM_SET_IRQCHIP, &chip), 0);
	}
}

/* A machine that has run for a moment and is paused, and all that is to be had of it. */
static void set_up(void)
{
	struct hospes_error error;
	char text[1024];

	rig_init(&rig, true);
	snprintf(text, sizeof(text), everything, STDERR_FILENO);
	vm = rig_create(&rig, text, 0);
	mark_chips();
	cr_assert_eq(gmem_write(vm->gmem, MARK_GPA, mark, sizeof(mark)), 0);
	cr_assert_eq(hospes_vm_start(vm, &error), 0, "%s", error.text);
	cr_assert_eq(hospes_vm_pause(vm, &error), 0, "%s", error.text);
	save(vm, &saved);
	document = snapshot_document(vm);
	cr_assert_not_null(document);
	memory = memfd_create("memory", MFD_CLOEXEC);
	cr_assert_eq(ftruncate(memory, 64 * MiB), 0);
	cr_assert_eq(pwrite(memory, gmem_host(vm->gmem, 0, 64 * MiB, false), 64 * MiB, 0),
		     (ssize_t)(64 * MiB));
	hospes_vm_destroy(vm);
	vm = NULL;
}

static void tear_down(void)
{
	hospes_vm_destroy(vm);
	free(saved.bytes);
	free(document);
	close(memory);
	rig_done(&rig);
}

TestSuite(snapshot, .init = set_up, .fini = tear_down, .timeout = 120);

/* From these bytes and this file; change: of the document, may be NULL. */
static int make(const void *bytes, size_t len, int memory_fd, void (*change)(json_t *document),
		struct hospes_error *error)
{
	int state = memfd_create("state", MFD_CLOEXEC), rc;
	json_t *root = json_loads(document, 0, NULL);
	char *text;

	cr_assert_eq(pwrite(state, bytes, len, 0), (ssize_t)len);
	json_object_set_new(root, "restore",
			    json_pack("{s:i, s:i}", "state_fd", state, "memory_fd", memory_fd));
	if (change)
		change(root);
	text = json_dumps(root, 0);
	rc = rig_try(&rig, &vm, text, 0, error);
	free(text);
	json_decref(root);
	close(state);
	return rc;
}

Test(snapshot, a_machine_that_is_made_from_one_is_the_same_machine)
{
	struct state_buffer again;
	struct hospes_error error;
	unsigned int different = 0;
	char text[sizeof(mark)];

	cr_assert_eq(make(saved.bytes, saved.len, memory, NULL, &error), 0, "%s", error.text);
	cr_assert_eq(gmem_read(vm->gmem, MARK_GPA, text, sizeof(text)), 0);
	cr_assert_str_eq(text, mark);
	save(vm, &again);
	cr_assert_eq(again.len, saved.len);
	for (size_t i = 0; i < saved.len; i++)
		different += again.bytes[i] != saved.bytes[i];
	cr_assert_leq(different, 8u, "all but the time of day, which is one number");
	free(again.bytes);
	cr_assert_eq(hospes_vm_start(vm, &error), 0, "%s", error.text);
	cr_assert_eq(hospes_vm_state(vm), HOSPES_RUNNING);
	cr_assert_eq(hospes_vm_reset(vm, &error), 0, "%s", error.text);
}

Test(snapshot, its_memory_is_its_own)
{
	struct hospes_error error;
	char text[sizeof(mark)];

	cr_assert_eq(make(saved.bytes, saved.len, memory, NULL, &error), 0, "%s", error.text);
	cr_assert_eq(gmem_write(vm->gmem, MARK_GPA, "another", 8), 0);
	cr_assert_eq(pread(memory, text, sizeof(text), (off_t)MARK_GPA), (ssize_t)sizeof(text));
	cr_assert_str_eq(text, mark);
}

static void share(json_t *root)
{
	json_object_set_new(json_object_get(root, "memory"), "backing", json_string("memfd"));
}

/* As whoever it is shared with sees it. */
static int look_in_file(void *opaque, const struct gmem_region *region)
{
	return pread(region->fd, opaque, sizeof(mark), (off_t)(region->fd_offset + MARK_GPA)) ==
	       (ssize_t)sizeof(mark);
}

Test(snapshot, memory_that_is_shared_is_read)
{
	struct hospes_error error;
	char text[sizeof(mark)];

	cr_assert_eq(make(saved.bytes, saved.len, memory, share, &error), 0, "%s", error.text);
	cr_assert_eq(gmem_walk(vm->gmem, look_in_file, text), 1);
	cr_assert_str_eq(text, mark);
}

Test(snapshot, the_document_names_no_descriptors_and_all_places)
{
	json_t *root = json_loads(document, 0, NULL), *disks = json_object_get(root, "disks");

	cr_assert_eq(json_array_size(disks), 2);
	for (size_t i = 0; i < 2; i++) {
		cr_assert_null(json_object_get(json_array_get(disks, i), "fd"));
		cr_assert_not_null(json_object_get(json_array_get(disks, i), "addr"));
		cr_assert_not_null(json_object_get(json_array_get(disks, i), "id"));
	}
	cr_assert_null(
		json_object_get(json_array_get(json_object_get(root, "consoles"), 0), "out"));
	cr_assert_null(json_object_get(json_object_get(root, "restore"), "state_fd"));
	cr_assert_not_null(json_object_get(root, "uuid"));
	json_decref(root);
}

static void refused(const void *bytes, size_t len, void (*change)(json_t *root), const char *want)
{
	struct hospes_error error;

	cr_assert_lt(make(bytes, len, memory, change, &error), 0);
	cr_assert(strstr(error.text, want), "'%s' does not say '%s'", error.text, want);
	vm = NULL;
}

static void fewer_disks(json_t *root)
{
	json_array_remove(json_object_get(root, "disks"), 1);
}

static void no_balloon(json_t *root)
{
	json_object_del(root, "balloon");
}

static void no_rng(json_t *root)
{
	json_object_set_new(root, "rng", json_pack("{s:b}", "enabled", 0));
}

static void more_cpus(json_t *root)
{
	json_object_set_new(json_object_get(root, "cpus"), "max", json_integer(4));
	json_object_set_new(json_object_get(root, "cpus"), "cores", json_integer(4));
}

static void less_memory(json_t *root)
{
	json_object_set_new(json_object_get(root, "memory"), "size", json_string("32M"));
	json_object_set_new(json_object_get(root, "memory"), "max", json_string("32M"));
}

static void another(json_t *root)
{
	json_object_set_new(root, "uuid", json_string("6ba7b810-9dad-11d1-80b4-00c04fd430c8"));
}

Test(snapshot, another_machine_is_refused)
{
	refused(saved.bytes, saved.len, fewer_disks, "restore: state: ");
	refused(saved.bytes, saved.len, no_balloon, "restore: state: ");
	refused(saved.bytes, saved.len, no_rng, "restore: state: ");
	refused(saved.bytes, saved.len, more_cpus, "machine: section 'machine': vcpus");
	refused(saved.bytes, saved.len, less_memory, "the machine 33554432");
	refused(saved.bytes, saved.len, another, "machine: section 'machine': uuid");
}

Test(snapshot, a_file_of_memory_that_is_short_or_is_being_written_is_refused)
{
	struct hospes_error error;
	char path[64];
	int writer;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", memory);
	writer = open(path, O_RDWR | O_CLOEXEC);
	cr_assert_eq(flock(writer, LOCK_EX | LOCK_NB), 0);
	cr_assert_eq(make(saved.bytes, saved.len, memory, NULL, &error), -EBUSY);
	cr_assert(strstr(error.text, "somebody writes it now"), "%s", error.text);
	close(writer);
	cr_assert_eq(ftruncate(memory, 63 * MiB), 0);
	vm = NULL;
	refused(saved.bytes, saved.len, NULL, "cut short, or of another machine");
}

Test(snapshot, any_cut_of_the_state_is_refused)
{
	for (size_t len = 0; len < saved.len; len += saved.len / 60 + 1)
		refused(saved.bytes, len, NULL, "restore: state: ");
}

/* Most are values that a guest may have; the others are refused. None does harm. */
Test(snapshot, any_changed_byte_is_refused_or_is_a_value)
{
	uint8_t *bytes = malloc(saved.len);
	unsigned int good = 0, bad = 0;
	struct hospes_error error;

	for (unsigned int i = 0; i < 150; i++) {
		uint32_t at, value;

		rand_bytes(&at, sizeof(at));
		rand_bytes(&value, sizeof(value));
		memcpy(bytes, saved.bytes, saved.len);
		/* As many near the section heads of devices, at the end, as in vCPUs' registers. */
		at = i % 2 ? (uint32_t)(saved.len - 1 - at % 8192) : (uint32_t)(at % saved.len);
		bytes[at] ^= (uint8_t)(value | 1);
		if (make(bytes, saved.len, memory, NULL, &error) == 0) {
			good++;
			cr_assert_eq(hospes_vm_start(vm, &error), 0, "byte %u: %s", at, error.text);
			hospes_vm_destroy(vm);
		} else {
			bad++;
			cr_assert_neq(*error.text, '\0', "byte %u", at);
		}
		vm = NULL;
	}
	cr_assert(good && bad, "%u accepted, %u refused", good, bad);
	free(bytes);
}

Test(snapshot, what_cannot_be_saved_is_named)
{
	static const char viommu[] =
		"{\"memory\": {\"size\": \"64M\"}, \"kernel\": {\"path\": \"{dir}/kernel\", \"cache\": "
		"false}, \"viommu\": {\"enabled\": true}}";
	struct state_buffer buffer = {0};
	struct hospes_error error;
	struct err err = ERR_INIT;

	vm = rig_create(&rig, viommu, 0);
	cr_assert_eq(hospes_vm_start(vm, &error), 0);
	cr_assert_eq(hospes_vm_pause(vm, &error), 0);
	cr_assert_eq(snapshot_save(vm, &buffer, &err), -EOPNOTSUPP);
	cr_assert(strstr(err.text, "virtual IOMMU"), "%s", err.text);
	free(buffer.bytes);
}
