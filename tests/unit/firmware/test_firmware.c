// SPDX-License-Identifier: Apache-2.0
// Firmware in a kernel's place: entered by its PVH note and by nothing else; what is none is named.
#include <criterion/criterion.h>
#include <elf.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"
#include "firmware/kernel.h"
#include "synth.h"

#define RAM (64 * MiB)

static struct err err;
static struct kernel *kernel;

static int open_blob(const struct blob *b)
{
	struct kernel_config config = {
		.path = "f",
		.kernel_fd = synth_file(b),
		.initrd_fd = -1,
		.firmware = true,
	};
	int rc;

	err = (struct err)ERR_INIT;
	rc = kernel_open(&kernel, &config, &err);
	close(config.kernel_fd);
	return rc;
}

/* As CLOUDHV.fd is: a PVH note, says that it is for i386, and its ELF entry is nowhere. */
static struct blob firmware(void)
{
	struct blob b = synth_elf(&(struct synth){.no_banner = true});
	Elf64_Ehdr *e = (void *)b.data;

	e->e_machine = EM_386;
	e->e_entry = 0x10;
	return b;
}

static void refused(const struct blob *b, const char *want)
{
	cr_assert_lt(open_blob(b), 0);
	cr_assert(strstr(err.text, "firmware 'f'"), "'%s'", err.text);
	cr_assert(strstr(err.text, want), "'%s' does not say '%s'", err.text, want);
}

Test(firmware, is_entered_by_its_pvh_note_in_protected_mode)
{
	static const struct arch_platform platform = {.phys_bits = 40, .low_bytes = RAM};
	static const struct kernel_tables tables = {.rsdp_gpa = 0xe0000};
	struct gmem *gmem = synth_memory(RAM);
	cleanup_blob struct blob b = firmware();
	struct arch_entry entry;
	struct kernel_info info;
	uint8_t placed[64];

	cr_assert_eq(open_blob(&b), 0, "%s", err.text);
	kernel_describe(kernel, &info);
	cr_assert_str_eq(info.format, "firmware");
	cr_assert_str_eq(info.protocol, "PVH");
	cr_assert(!info.kaslr && !info.ecam, "it wants the ports of PCI");
	cr_assert_eq(kernel_load(kernel, gmem, &platform, &tables, &entry, &err), 0, "%s",
		     err.text);
	cr_assert_eq(entry.mode, ARCH_ENTRY_PROT);
	cr_assert_eq(entry.rip, SYNTH_BASE + SYNTH_PVH);
	cr_assert_eq(gmem_read(gmem, SYNTH_BASE, placed, sizeof(placed)), 0);
	cr_assert_arr_eq(placed,
			 b.data + ((Elf64_Phdr *)(void *)(b.data + sizeof(Elf64_Ehdr)))->p_offset,
			 sizeof(placed));
	kernel_close(kernel);
	gmem_destroy(gmem);
}

Test(firmware, the_same_file_is_no_kernel)
{
	cleanup_blob struct blob b = firmware();
	struct kernel_config config = {.path = "k", .kernel_fd = synth_file(&b), .initrd_fd = -1};

	cr_assert_eq(kernel_open(&kernel, &config, &err), -ENOEXEC);
	cr_assert(strstr(err.text, "kernel 'k': an ELF file for 32-bit x86"), "%s", err.text);
	close(config.kernel_fd);
}

Test(firmware, without_a_pvh_note_or_of_another_machine_it_is_refused)
{
	cleanup_blob struct blob plain = synth_elf(&(struct synth){.no_pvh = true});
	cleanup_blob struct blob other = firmware();

	refused(&plain, "without a PVH entry");
	((Elf64_Ehdr *)(void *)other.data)->e_machine = EM_AARCH64;
	refused(&other, "not an x86-64 ELF file");
	((Elf64_Ehdr *)(void *)other.data)->e_machine = EM_386;
	other.data[EI_CLASS] = ELFCLASS32;
	refused(&other, "not an x86-64 ELF file");
}

Test(firmware, what_people_take_for_it_is_named)
{
	uint8_t bytes[8192] = {0};
	const struct blob volume = {bytes, sizeof(bytes)};
	cleanup_blob struct blob linux_image = synth_bzimage(&(struct synth){0}, NULL);

	refused(&volume, "all zeroes at its start");
	memcpy(bytes + 40, "_FVH", 4);
	refused(&volume,
		"a flash image for QEMU (OVMF), which wants QEMU's own devices; give a CLOUDHV.fd");
	refused(&linux_image, "a Linux kernel, which is given by --kernel");
	memcpy(bytes, "QFI\xfb", 4);
	bytes[40] = 0;
	refused(&volume, "a qcow2 disk image");
	refused(&(struct blob){bytes, 0}, "is empty");
}

Test(firmware, any_cut_is_survived)
{
	cleanup_blob struct blob b = firmware();
	size_t whole = b.len;

	for (b.len = 0; b.len < whole; b.len += 3701)
		cr_assert_lt(open_blob(&b), 0, "accepted with %zu of %zu bytes", b.len, whole);
	b.len = whole;
}
