// SPDX-License-Identifier: Apache-2.0
// A machine as an ELF core: what is in it, what it leaves of the machine, what is refused.
#include <criterion/criterion.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/procfs.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/num.h"
#include "machine/vm.h"
#include "rig.h"

#define MARK_GPA 0x300ff0ull

static const char mark[] = "written by the guest, over the border of two pages";
static struct rig rig;
static struct hospes_vm *vm;
static char path[128];
static int file;
static _Atomic int ends, result;

static void on_event(void *opaque, const struct hospes_event *event)
{
	(void)opaque;
	if (event->type != HOSPES_EVENT_DUMPED)
		return;
	atomic_store(&result, event->value);
	atomic_fetch_add(&ends, 1);
}

static void create(const char *backing)
{
	struct hospes_vm_options options = {
		.size = sizeof(options), .flags = HOSPES_VM_THREAD, .event = on_event};
	struct hospes_error error;
	char document[512];

	options.kvm_fd = rig.kvm_fd;
	snprintf(
		document, sizeof(document),
		"{\"cpus\": {\"count\": 2, \"max\": 3}, \"memory\": {\"size\": \"64M\", \"backing\": \"%s\"}, "
		"\"kernel\": {\"path\": \"%s/kernel\", \"cache\": false}}",
		backing, rig.dir);
	cr_assert_eq(vm_create(&vm, document, strlen(document), &options, rig.calls, &error), 0,
		     "%s", error.text);
	cr_assert_eq(gmem_write(vm->gmem, MARK_GPA, mark, sizeof(mark)), 0);
	snprintf(path, sizeof(path), "%s/core", rig.dir);
	file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	cr_assert_geq(file, 0);
}

static void set_up(void)
{
	rig_init(&rig, true);
}

static void tear_down(void)
{
	hospes_vm_destroy(vm);
	close(file);
	unlink(path);
	rig_done(&rig);
}

TestSuite(dump, .init = set_up, .fini = tear_down, .timeout = 60);

static void start(const char *backing)
{
	struct hospes_error error;

	create(backing);
	cr_assert_eq(hospes_vm_start(vm, &error), 0, "%s", error.text);
}

static void dump(void)
{
	struct hospes_error error;
	int before = atomic_load(&ends);

	cr_assert_eq(hospes_vm_dump(vm, file, &error), 0, "%s", error.text);
	while (atomic_load(&ends) == before)
		sched_yield();
}

static void await_state(enum hospes_state state)
{
	while (hospes_vm_state(vm) != state)
		sched_yield();
}

static void check_core(void)
{
	const Elf64_Ehdr *elf;
	const Elf64_Phdr *part;
	const Elf64_Nhdr *note;
	const uint8_t *all;
	struct stat st;

	cr_assert_eq(fstat(file, &st), 0);
	cr_expect_geq(st.st_size, (off_t)(64 * MiB));
	cr_expect_lt((uint64_t)st.st_blocks * 512, 32 * MiB, "it has holes");
	all = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, file, 0);
	cr_assert_neq(all, MAP_FAILED);
	elf = (const void *)all;
	cr_assert_arr_eq(elf->e_ident, ELFMAG, SELFMAG);
	cr_expect_eq(elf->e_type, ET_CORE);
	cr_expect_eq(elf->e_machine, EM_X86_64);
	cr_assert_eq(elf->e_phnum, 2);
	part = (const void *)(all + elf->e_phoff);
	note = (const void *)(all + part[0].p_offset);
	cr_expect_eq(part[0].p_type, (Elf64_Word)PT_NOTE);
	cr_expect_eq(part[0].p_filesz, 2 * (sizeof(*note) + 8 + sizeof(struct elf_prstatus)));
	cr_expect_eq(note->n_type, (Elf64_Word)NT_PRSTATUS);
	cr_expect_eq(note->n_descsz, sizeof(struct elf_prstatus));
	cr_expect_eq(part[1].p_type, (Elf64_Word)PT_LOAD);
	cr_expect_eq(part[1].p_paddr, 0u);
	cr_expect_eq(part[1].p_memsz, 64 * MiB);
	cr_assert_eq(part[1].p_offset + part[1].p_filesz, (uint64_t)st.st_size);
	cr_expect_eq(
		memcmp(all + part[1].p_offset, gmem_host(vm->gmem, 0, 64 * MiB, false), 64 * MiB),
		0, "all of memory, as it is");
	cr_expect_str_eq((const char *)all + part[1].p_offset + MARK_GPA, mark);
	munmap((void *)all, (size_t)st.st_size);
}

Test(dump, a_running_machine_is_written_whole_and_goes_on)
{
	start("anonymous");
	dump();
	cr_expect_eq(atomic_load(&result), 0);
	await_state(HOSPES_RUNNING);
	check_core();
}

Test(dump, memory_in_a_file_is_written_and_what_was_never_used_stays_so)
{
	struct stat before, after;
	int fd = -1;

	start("memfd");
	for (int i = 3; i < 256 && fd < 0; i++) {
		char name[64], link[64];
		ssize_t n;

		snprintf(name, sizeof(name), "/proc/self/fd/%d", i);
		n = readlink(name, link, sizeof(link) - 1);
		link[n < 0 ? 0 : n] = '\0';
		if (strstr(link, "ram-low"))
			fd = i;
	}
	cr_assert_geq(fd, 0);
	cr_assert_eq(fstat(fd, &before), 0);
	dump();
	cr_assert_eq(fstat(fd, &after), 0);
	cr_expect_eq(before.st_blocks, after.st_blocks);
	check_core();
}

Test(dump, what_the_file_held_before_is_gone)
{
	start("anonymous");
	dump();
	cr_assert_eq(pwrite(file, "x", 1, 40 * MiB), 1);
	dump();
	check_core();
}

Test(dump, a_paused_machine_stays_paused_and_so_does_one_that_is_paused_meanwhile)
{
	struct hospes_error error;

	start("anonymous");
	cr_assert_eq(hospes_vm_pause(vm, &error), 0);
	dump();
	cr_expect_eq(hospes_vm_state(vm), HOSPES_PAUSED);
	cr_assert_eq(hospes_vm_resume(vm, &error), 0);
	cr_assert_eq(hospes_vm_dump(vm, file, &error), 0, "%s", error.text);
	cr_assert_eq(hospes_vm_pause(vm, &error), 0);
	while (atomic_load(&ends) < 2)
		sched_yield();
	cr_expect_eq(hospes_vm_state(vm), HOSPES_PAUSED);
}

Test(dump, one_that_is_stopped_in_the_middle_says_so_once)
{
	struct hospes_error error;

	start("anonymous");
	cr_assert_eq(hospes_vm_dump(vm, file, &error), 0, "%s", error.text);
	cr_assert_eq(hospes_vm_stop(vm, &error), 0, "%s", error.text);
	hospes_vm_destroy(vm);
	vm = NULL;
	cr_expect_eq(atomic_load(&ends), 1);
}

Test(dump, what_cannot_be_written_is_refused_and_the_machine_goes_on)
{
	struct hospes_error error;
	int readonly, ends_of_pipe[2];

	create("anonymous");
	cr_expect_eq(hospes_vm_dump(vm, file, &error), -EBUSY);
	cr_assert_eq(hospes_vm_start(vm, &error), 0, "%s", error.text);
	readonly = open(path, O_RDONLY | O_CLOEXEC);
	cr_expect_eq(hospes_vm_dump(vm, readonly, &error), -EINVAL);
	cr_expect(strstr(error.text, "open a regular file for writing"), "%s", error.text);
	cr_assert_eq(pipe(ends_of_pipe), 0);
	cr_expect_eq(hospes_vm_dump(vm, ends_of_pipe[1], &error), -EINVAL);
	cr_expect_eq(hospes_vm_dump(vm, -1, &error), -EINVAL);
	cr_expect_eq(hospes_vm_state(vm), HOSPES_RUNNING);
	cr_expect_eq(atomic_load(&ends), 0);
	close(readonly);
	close(ends_of_pipe[0]);
	close(ends_of_pipe[1]);
}

Test(dump, real_gdb_opens_it)
{
	static char said[16 * 1024];
	char command[512];
	FILE *gdb;

	start("anonymous");
	dump();
	snprintf(command, sizeof(command),
		 "gdb -nx -batch -ex 'core %s' -ex 'info threads' -ex 'x/s %#llx' -ex 'p/x $cs' "
		 "2>&1",
		 path, MARK_GPA);
	gdb = popen(command, "r");
	cr_assert_not_null(gdb);
	said[fread(said, 1, sizeof(said) - 1, gdb)] = '\0';
	cr_expect_eq(pclose(gdb), 0);
	cr_expect(strstr(said, mark), "%s", said);
	cr_expect(strstr(said, "LWP 2"), "%s", said);
}
