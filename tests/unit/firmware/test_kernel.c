// SPDX-License-Identifier: Apache-2.0
// Opening and loading as a whole: what a vCPU would find in memory.
#include <asm/bootparam.h>
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/le.h"
#include "base/num.h"
#include "deny.h"
#include "firmware/kernel.h"
#include "firmware/params.h"
#include "synth.h"

#define RAM      (64 * MiB)
#define ECAM_GPA 0xb0000000ull
#define ACPI_GPA 0xe0000ull

static struct gmem *gmem;
static struct err err;
static struct kernel *kernel;
static struct arch_entry entry;
static char last_log[512];
static struct arch_platform platform = {.phys_bits = 40, .low_bytes = RAM};
static struct kernel_tables tables = {
	.rsdp_gpa = ACPI_GPA,
	.reserved = {{ACPI_GPA, 0x10000, true}},
	.n_reserved = 1,
};

static void to_text(void *opaque, enum log_level level, const char *component, const char *text)
{
	(void)opaque;
	(void)level;
	(void)component;
	snprintf(last_log, sizeof(last_log), "%s", text);
}

static const struct log the_log = {.fn = to_text, .level = LOG_DEBUG};

static void set_up(void)
{
	gmem = synth_memory(RAM);
	platform.pci.ecam_gpa = ECAM_GPA;
}

static void tear_down(void)
{
	kernel_close(kernel);
	gmem_destroy(gmem);
}

TestSuite(kernel, .init = set_up, .fini = tear_down);

static struct kernel_config defaults(int fd)
{
	return (struct kernel_config){
		.log = &the_log,
		.path = "k",
		.kernel_fd = fd,
		.initrd_fd = -1,
		.initrd_path = "i",
		.cmdline = "console=ttyS0",
	};
}

static int open_config(const struct kernel_config *config)
{
	int r;

	err = (struct err)ERR_INIT;
	r = kernel_open(&kernel, config, &err);
	close(config->kernel_fd);
	return r;
}

static void open_synth(const struct synth *s, enum kaslr_mode mode)
{
	cleanup_blob struct blob b = synth_bzimage(s, NULL);
	struct kernel_config config = defaults(synth_file(&b));

	config.kaslr = mode;
	cr_assert_eq(open_config(&config), 0, "%s", err.text);
}

static int load(void)
{
	err = (struct err)ERR_INIT;
	return kernel_load(kernel, gmem, &platform, &tables, &entry, &err);
}

static const void *memory(uint64_t gpa, size_t len)
{
	const void *p = gmem_host(gmem, gpa, len, false);

	cr_assert_not_null(p, "0x%lx", gpa);
	return p;
}

static const struct boot_params *zero_page(void)
{
	return memory(entry.rsi, sizeof(struct boot_params));
}

/* The kernel lies where the entry says, whole and moved as it must be. Returns the offset. */
static uint64_t placed(const struct synth *s, uint64_t *gpa)
{
	cleanup_blob struct blob plain = synth_expected(s, 0);
	const uint8_t *image;
	uint64_t delta = 0;

	*gpa = entry.rip - SYNTH_ENTRY;
	image = memory(*gpa, SYNTH_SPAN);
	if (s->lists) /* the first 64-bit field of synth.c */
		delta = load_le64(image + 0x1001) - load_le64(plain.data + 0x1001);
	{
		cleanup_blob struct blob want = synth_expected(s, delta);

		cr_assert_eq(memcmp(image, want.data, want.len), 0);
	}
	cr_assert(is_aligned(*gpa, 2 * MiB));
	cr_assert(is_aligned(delta, 2 * MiB));
	return delta;
}

static const enum image_codec codecs[] = {CODEC_NONE, CODEC_GZIP, CODEC_XZ, CODEC_ZSTD, CODEC_LZ4};

Test(kernel, every_compression_enters_the_unpacked_kernel)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(codecs); i++) {
		struct synth s = {.codec = codecs[i], .lists = 3};
		struct kernel_info info;
		uint64_t gpa;

		gmem_destroy(gmem);
		gmem = synth_memory(RAM); /* another machine */
		open_synth(&s, KASLR_AUTO);
		cr_assert_eq(load(), 0, "%s", err.text);
		placed(&s, &gpa);
		kernel_describe(kernel, &info);
		cr_assert_str_eq(info.format, "bzImage");
		cr_assert_str_eq(info.protocol, "64-bit");
		cr_assert(info.kaslr);
		cr_assert_eq(entry.mode, ARCH_ENTRY_LONG);
		kernel_close(kernel);
		kernel = NULL;
	}
}

Test(kernel, a_kernel_of_linux_6_15_with_two_lists_is_moved_as_well)
{
	struct synth s = {.codec = CODEC_ZSTD, .lists = 2};
	uint64_t gpa;

	open_synth(&s, KASLR_ON);
	cr_assert_eq(load(), 0, "%s", err.text);
	placed(&s, &gpa);
}

Test(kernel, virtual_and_physical_places_differ_from_load_to_load)
{
	struct synth s = {.codec = CODEC_LZ4, .lists = 3};
	uint64_t delta[24], gpa[24], deltas = 0, gpas = 0;

	open_synth(&s, KASLR_ON);
	for (unsigned int i = 0; i < 24; i++) {
		bool new_delta = true, new_gpa = true;

		cr_assert_eq(load(), 0, "%s", err.text);
		delta[i] = placed(&s, &gpa[i]);
		for (unsigned int k = 0; k < i; k++) {
			new_delta &= delta[k] != delta[i];
			new_gpa &= gpa[k] != gpa[i];
		}
		deltas += new_delta;
		gpas += new_gpa;
		cr_assert_geq(gpa[i], SYNTH_BASE);
	}
	/* 502 and 23 places: less has a probability below 10^-12. */
	cr_assert_geq(deltas, 16);
	cr_assert_geq(gpas, 6);
}

Test(kernel, a_reset_restores_every_byte)
{
	struct synth s = {.codec = CODEC_GZIP, .lists = 3};
	uint64_t gpa;

	open_synth(&s, KASLR_AUTO);
	cr_assert_eq(load(), 0);
	for (unsigned int i = 0; i < 3; i++) {
		memset(gmem_host(gmem, 0, RAM, true), 0xff, RAM);
		cr_assert_eq(load(), 0, "%s", err.text);
		placed(&s, &gpa);
		cr_assert_eq(zero_page()->sentinel, 0);
	}
}

Test(kernel, the_zero_page_is_complete)
{
	struct synth s = {.codec = CODEC_GZIP, .lists = 3};
	const struct boot_params *zero;

	open_synth(&s, KASLR_AUTO);
	cr_assert_eq(load(), 0);
	zero = zero_page();
	cr_assert_eq(zero->hdr.header, 0x53726448);
	cr_assert_eq(zero->hdr.boot_flag, 0xaa55);
	cr_assert_eq(zero->hdr.type_of_loader, 0xff);
	cr_assert_eq(zero->hdr.loadflags, LOADED_HIGH | KASLR_FLAG);
	cr_assert_eq(zero->hdr.kernel_alignment, 2 * MiB);
	cr_assert_eq(zero->hdr.ramdisk_size, 0);
	cr_assert_eq(zero->acpi_rsdp_addr, ACPI_GPA);
	cr_assert_eq(zero->screen_info.orig_video_isVGA, 0);
	cr_assert_str_eq(memory(zero->hdr.cmd_line_ptr, 32), "console=ttyS0");
	cr_assert_eq(entry.rsp % 16, 0);
	cr_assert_neq(entry.gdt_gpa, 0);
}

static const struct boot_e820_entry *e820_of(uint64_t gpa)
{
	const struct boot_params *zero = zero_page();

	for (unsigned int i = 0; i < zero->e820_entries; i++)
		if (range_inside(gpa, 1, zero->e820_table[i].addr, zero->e820_table[i].size))
			return &zero->e820_table[i];
	return NULL;
}

Test(kernel, the_memory_map_names_ram_holes_tables_and_ecam)
{
	struct synth s = {.codec = CODEC_GZIP, .lists = 3};

	open_synth(&s, KASLR_AUTO);
	cr_assert_eq(load(), 0);
	cr_assert_eq(e820_of(0)->type, MEMMAP_RAM);
	cr_assert_eq(e820_of(0x9fbff)->type, MEMMAP_RAM);
	cr_assert_eq(e820_of(0x9fc00)->type, MEMMAP_RESERVED);
	cr_assert_eq(e820_of(ACPI_GPA)->type, MEMMAP_ACPI);
	cr_assert_eq(e820_of(0xfffff)->type, MEMMAP_RESERVED);
	cr_assert_eq(e820_of(MiB)->type, MEMMAP_RAM);
	cr_assert_eq(e820_of(RAM - 1)->type, MEMMAP_RAM);
	cr_assert_null(e820_of(RAM));
	cr_assert_eq(e820_of(ECAM_GPA)->type, MEMMAP_RESERVED);
	cr_assert_eq(e820_of(ECAM_GPA)->size, 256 * MiB);
}

/* What the tables of the guest make of an address; ~0 where they map nothing. */
static uint64_t translate(uint64_t va)
{
	uint64_t gpa = entry.cr3;

	for (int shift = 39; shift >= 21; shift -= 9) {
		uint64_t e =
			load_le64((const uint8_t *)memory(gpa, 4096) + 8 * (va >> shift & 511));

		if (!(e & 1))
			return ~0ull;
		if (e & 0x80)
			return (e & ~((1ull << shift) - 1) & ((1ull << 52) - 1)) |
			       (va & ((1ull << shift) - 1));
		gpa = e & 0xffffffffff000ull;
	}
	return ~0ull;
}

Test(kernel, page_tables_map_kernel_and_parameters_one_to_one)
{
	struct synth s = {.codec = CODEC_GZIP, .lists = 3};

	open_synth(&s, KASLR_AUTO);
	cr_assert_eq(load(), 0);
	cr_assert_eq(translate(entry.rip), entry.rip);
	cr_assert_eq(translate(entry.rip + SYNTH_SPAN), entry.rip + SYNTH_SPAN);
	cr_assert_eq(translate(entry.rsi), entry.rsi);
	cr_assert_eq(translate(zero_page()->hdr.cmd_line_ptr), zero_page()->hdr.cmd_line_ptr);
}

Test(kernel, above_4_gib_is_mapped_when_the_kernel_goes_there)
{
	struct memmap map = {0};
	struct params params = {
		.memmap = &map,
		.cmdline = "",
		.kernel_gpa = (512ull << 30) - 8 * MiB, /* over the edge of a top-level entry */
		.kernel_bytes = 32 * MiB,
	};

	cr_assert_eq(params_write_linux(&params, gmem, &entry, &err), 0, "%s", err.text);
	for (uint64_t at = 0; at < params.kernel_bytes; at += 2 * MiB)
		cr_assert_eq(translate(params.kernel_gpa + at), params.kernel_gpa + at);
	cr_assert_eq(translate(0x7000), 0x7000);
	cr_assert_eq(translate(8ull << 30), ~0ull);
}

Test(kernel, each_load_hands_over_another_random_seed)
{
	struct synth s = {.codec = CODEC_GZIP, .lists = 3};
	uint8_t first[48];
	const uint8_t *seed;

	open_synth(&s, KASLR_AUTO);
	cr_assert_eq(load(), 0);
	seed = memory(zero_page()->hdr.setup_data, 48);
	cr_assert_eq(load_le64(seed), 0);
	cr_assert_eq(load_le32(seed + 8), 9);
	cr_assert_eq(load_le32(seed + 12), 32);
	memcpy(first, seed, 48);
	cr_assert_eq(load(), 0);
	cr_assert_neq(memcmp(first + 16, seed + 16, 32), 0);
}

static void stays_at_home(const struct synth *s)
{
	struct kernel_info info;
	uint64_t gpa;

	cr_assert_eq(load(), 0, "%s", err.text);
	cr_assert_eq(placed(s, &gpa), 0);
	cr_assert_eq(gpa, SYNTH_BASE);
	cr_assert_eq(zero_page()->hdr.loadflags & KASLR_FLAG, 0);
	kernel_describe(kernel, &info);
	cr_assert_not(info.kaslr);
}

Test(kernel, kaslr_off_moves_nothing)
{
	struct synth s = {.codec = CODEC_GZIP, .lists = 3};

	open_synth(&s, KASLR_OFF);
	stays_at_home(&s);
}

Test(kernel, nokaslr_on_the_command_line_moves_nothing)
{
	struct synth s = {.codec = CODEC_GZIP, .lists = 3};
	cleanup_blob struct blob b = synth_bzimage(&s, NULL);
	struct kernel_config config = defaults(synth_file(&b));

	config.cmdline = "quiet nokaslr";
	cr_assert_eq(open_config(&config), 0);
	stays_at_home(&s);
}

Test(kernel, a_kernel_without_relocations_is_not_moved)
{
	struct synth s = {.codec = CODEC_GZIP};

	open_synth(&s, KASLR_AUTO);
	stays_at_home(&s);
}

static void kaslr_on_refused(const struct synth *s, const char *cmdline, const char *want)
{
	cleanup_blob struct blob b = s ? synth_bzimage(s, NULL) : synth_elf(&(struct synth){0});
	struct kernel_config config = defaults(synth_file(&b));

	config.kaslr = KASLR_ON;
	config.cmdline = cmdline;
	cr_assert_eq(open_config(&config), -EINVAL);
	cr_assert(strstr(err.text, want), "%s", err.text);
}

Test(kernel, kaslr_on_is_an_error_where_it_cannot_be)
{
	kaslr_on_refused(&(struct synth){.codec = CODEC_GZIP}, "", "CONFIG_RANDOMIZE_BASE");
	kaslr_on_refused(&(struct synth){.codec = CODEC_GZIP, .lists = 3}, "a nokaslr", "nokaslr");
	kaslr_on_refused(NULL, "", "a vmlinux carries no relocations");
}

Test(kernel, unknown_compression_boots_through_the_decompressor)
{
	struct synth s = {.codec = CODEC_OTHER};
	cleanup_blob struct blob b = synth_bzimage(&s, NULL);
	struct kernel_info info;

	open_synth(&s, KASLR_AUTO);
	cr_assert_eq(load(), 0, "%s", err.text);
	kernel_describe(kernel, &info);
	cr_assert_str_eq(info.protocol, "decompressor");
	cr_assert_str_eq(info.compression, "bzip2");
	cr_assert_eq(entry.rip, SYNTH_BASE + 0x200);
	cr_assert_eq(memcmp(memory(SYNTH_BASE, b.len - 2560), b.data + 2560, b.len - 2560), 0);
	cr_assert_eq(zero_page()->hdr.code32_start, SYNTH_BASE);
	cr_assert_eq(zero_page()->hdr.loadflags & KASLR_FLAG, 0);
	cr_assert_str_eq(memory(zero_page()->hdr.cmd_line_ptr, 64), "console=ttyS0");
}

Test(kernel, the_decompressor_is_told_when_kaslr_is_off)
{
	open_synth(&(struct synth){.codec = CODEC_OTHER}, KASLR_OFF);
	cr_assert_eq(load(), 0);
	cr_assert_str_eq(memory(zero_page()->hdr.cmd_line_ptr, 64), "nokaslr console=ttyS0");
}

Test(kernel, relocations_that_make_no_sense_are_left_to_the_decompressor)
{
	struct synth s = {.codec = CODEC_GZIP, .lists = 3};
	cleanup_blob struct blob elf = synth_elf(&s), packed, b;
	struct kernel_info info;
	struct kernel_config config;

	store_le32(elf.data + elf.len - 4, 0x1234);
	packed = synth_pack(CODEC_GZIP, elf.data, elf.len);
	b = synth_bzimage(&s, &packed);
	config = defaults(synth_file(&b));
	cr_assert_eq(open_config(&config), 0, "%s", err.text);
	kernel_describe(kernel, &info);
	cr_assert_str_eq(info.protocol, "decompressor");
	cr_assert(strstr(last_log, "outside of the kernel"), "%s", last_log);
}

static void open_vmlinux(bool no_pvh)
{
	cleanup_blob struct blob b = synth_elf(&(struct synth){.no_pvh = no_pvh});
	struct kernel_config config = defaults(synth_file(&b));

	cr_assert_eq(open_config(&config), 0, "%s", err.text);
}

Test(kernel, a_vmlinux_with_a_note_enters_by_pvh)
{
	cleanup_blob struct blob want = synth_expected(&(struct synth){0}, 0);
	const uint8_t *info, *map;

	open_vmlinux(false);
	memset(gmem_host(gmem, SYNTH_BASE, SYNTH_SPAN, true), 0xff, SYNTH_SPAN);
	cr_assert_eq(load(), 0, "%s", err.text);
	cr_assert_eq(load(), 0, "%s", err.text); /* the second clears what the first left */
	cr_assert_eq(entry.mode, ARCH_ENTRY_PROT);
	cr_assert_eq(entry.rip, SYNTH_BASE + SYNTH_PVH);
	cr_assert_eq(memcmp(memory(SYNTH_BASE, SYNTH_SPAN), want.data, SYNTH_SPAN), 0);
	info = memory(entry.rbx, 4096);
	cr_assert_eq(load_le32(info), 0x336ec578);
	cr_assert_eq(load_le32(info + 4), 1);
	cr_assert_eq(load_le32(info + 12), 0);
	cr_assert_str_eq(memory(load_le64(info + 24), 32), "console=ttyS0");
	cr_assert_eq(load_le64(info + 32), ACPI_GPA);
	map = memory(load_le64(info + 40), 24);
	cr_assert_eq(load_le64(map), 0);
	cr_assert_eq(load_le64(map + 8), 0x9fc00);
	cr_assert_eq(load_le32(map + 16), MEMMAP_RAM);
	cr_assert_geq(load_le32(info + 48), 5);
}

Test(kernel, a_kernel_that_reaches_the_ecam_is_known)
{
	static const struct synth with = {CODEC_ZSTD, 3, .ecam = true}, without = {CODEC_ZSTD, 3},
				  packed_by_another = {CODEC_OTHER, 3, .ecam = true};
	struct kernel_info info;

	open_synth(&with, KASLR_AUTO);
	kernel_describe(kernel, &info);
	cr_assert(info.ecam);
	kernel_close(kernel);
	open_synth(&without, KASLR_AUTO);
	kernel_describe(kernel, &info);
	cr_assert(!info.ecam);
	kernel_close(kernel);
	open_synth(&packed_by_another, KASLR_AUTO);
	kernel_describe(kernel, &info);
	cr_assert(!info.ecam, "hospes has not seen it");
}

Test(kernel, a_vmlinux_without_a_note_enters_by_the_64_bit_protocol)
{
	open_vmlinux(true);
	cr_assert_eq(load(), 0, "%s", err.text);
	cr_assert_eq(entry.mode, ARCH_ENTRY_LONG);
	cr_assert_eq(entry.rip, SYNTH_BASE + SYNTH_ENTRY);
	cr_assert_eq(zero_page()->hdr.header, 0x53726448);
}

Test(kernel, a_program_that_is_no_kernel_is_refused)
{
	cleanup_blob struct blob b = synth_elf(&(struct synth){.no_pvh = true, .no_banner = true});
	cleanup_blob struct blob with_note = synth_elf(&(struct synth){.no_banner = true});
	struct kernel_config config = defaults(synth_file(&b));

	cr_assert_eq(open_config(&config), -ENOEXEC);
	cr_assert(strstr(err.text, "neither a Linux kernel nor one with a PVH entry"), "%s",
		  err.text);
	/* With a note, whoever wrote it knows what it gets. */
	config = defaults(synth_file(&with_note));
	cr_assert_eq(open_config(&config), 0, "%s", err.text);
	cr_assert_eq(load(), 0, "%s", err.text);
}

static int initrd_file(size_t len)
{
	struct blob b = {malloc(len + 1), len};
	int fd;

	for (size_t i = 0; i < len; i++)
		b.data[i] = (uint8_t)(i * 31 + 7);
	fd = synth_file(&b);
	blob_free(&b);
	return fd;
}

static int open_with_initrd(int initrd_fd)
{
	cleanup_blob struct blob b =
		synth_bzimage(&(struct synth){.codec = CODEC_LZ4, .lists = 3}, NULL);
	struct kernel_config config = defaults(synth_file(&b));
	int r;

	config.initrd_fd = initrd_fd;
	r = open_config(&config);
	close(initrd_fd);
	return r;
}

Test(kernel, the_initrd_lies_high_and_apart_from_the_kernel)
{
	struct synth s = {.lists = 3};
	unsigned int wrong = 0;
	const uint8_t *p;

	cr_assert_eq(open_with_initrd(initrd_file(5 * MiB + 17)), 0, "%s", err.text);
	for (unsigned int i = 0; i < 16; i++) {
		uint64_t gpa, at;

		cr_assert_eq(load(), 0, "%s", err.text);
		placed(&s, &gpa);
		at = zero_page()->hdr.ramdisk_image;
		cr_assert_eq(zero_page()->hdr.ramdisk_size, 5 * MiB + 17);
		cr_assert_eq(at, RAM - 5 * MiB - 4096);
		cr_assert_leq(gpa + SYNTH_SPAN, at);
		p = memory(at, 5 * MiB + 17);
		for (size_t k = 0; k < 5 * MiB + 17; k += 1021)
			wrong += p[k] != (uint8_t)(k * 31 + 7);
	}
	cr_assert_eq(wrong, 0);
}

Test(kernel, tables_in_memory_are_spared)
{
	struct synth s = {.codec = CODEC_LZ4, .lists = 3};
	uint64_t gpa;

	tables.reserved[1].gpa = 32 * MiB;
	tables.reserved[1].size_bytes = 28 * MiB;
	tables.n_reserved = 2;
	open_synth(&s, KASLR_ON);
	for (unsigned int i = 0; i < 24; i++) {
		cr_assert_eq(load(), 0, "%s", err.text);
		placed(&s, &gpa);
		cr_assert_not(ranges_overlap(gpa, SYNTH_SPAN, 32 * MiB, 28 * MiB), "0x%lx", gpa);
	}
}

Test(kernel, an_initrd_that_does_not_fit_says_so)
{
	cr_assert_eq(open_with_initrd(initrd_file(64 * MiB)), 0);
	cr_assert_eq(load(), -ENOSPC);
	cr_assert(strstr(err.text, "initrd 'i': 64 MiB do not fit into the guest's 64 MiB of "
				   "memory; give it more"),
		  "%s", err.text);
}

/* RAM from 4 GiB on, too. */
static void add_high_memory(void)
{
	struct gmem_region_config config = {
		.name = "high",
		.gpa = 4 * GiB,
		.size_bytes = RAM,
		.backing = GMEM_ANONYMOUS,
		.numa_node = -1,
		.fd = -1,
	};

	cr_assert_eq(gmem_begin(gmem, &err), 0);
	cr_assert_eq(gmem_add(gmem, &config, &err), 0);
	cr_assert_eq(gmem_commit(gmem, &err), 0);
}

/* Open a kernel that takes its initrd below 32 MiB, or above 4 GiB as well. */
static void open_with_limit(bool high, size_t initrd_bytes)
{
	cleanup_blob struct blob b = synth_bzimage(&(struct synth){.lists = 3}, NULL);
	struct kernel_config config;

	synth_header(&b)->initrd_addr_max = 32 * MiB - 1;
	synth_header(&b)->xloadflags =
		(uint16_t)(XLF_KERNEL_64 | (high ? XLF_CAN_BE_LOADED_ABOVE_4G : 0));
	config = defaults(synth_file(&b));
	config.initrd_fd = initrd_file(initrd_bytes);
	cr_assert_eq(open_config(&config), 0, "%s", err.text);
	close(config.initrd_fd);
}

Test(kernel, an_initrd_too_large_for_its_kernel_is_not_answered_with_more_memory)
{
	add_high_memory();
	open_with_limit(false, 33 * MiB);
	cr_assert_eq(load(), -ENOSPC);
	cr_assert(strstr(err.text, "33 MiB do not fit below 32 MiB, which is as far as this "
				   "kernel takes an initrd; make it smaller"),
		  "%s", err.text);
	cr_assert_null(strstr(err.text, "more"), "%s", err.text);
}

Test(kernel, a_large_initrd_goes_above_4_gib_where_the_kernel_can_take_it)
{
	const size_t bytes = 63 * MiB + MiB / 2;
	uint64_t at;

	add_high_memory();
	open_with_limit(true, bytes);
	cr_assert_eq(load(), 0, "%s", err.text);
	at = zero_page()->hdr.ramdisk_image | (uint64_t)zero_page()->ext_ramdisk_image << 32;
	cr_assert_eq(at, 4 * GiB + RAM - bytes);
	cr_assert_eq(zero_page()->hdr.ramdisk_size, bytes);
	cr_assert_eq(memcmp(memory(at, 8), (uint8_t[]){7, 38, 69, 100, 131, 162, 193, 224}, 8), 0);
}

Test(kernel, a_small_initrd_stays_below_where_any_kernel_takes_it)
{
	add_high_memory();
	open_with_limit(true, MiB);
	cr_assert_eq(load(), 0, "%s", err.text);
	cr_assert_eq(zero_page()->ext_ramdisk_image, 0u);
	cr_assert_lt(zero_page()->hdr.ramdisk_image, 32 * MiB);
}

Test(kernel, an_empty_initrd_and_a_directory_say_so)
{
	cr_assert_eq(open_with_initrd(initrd_file(0)), -EINVAL);
	cr_assert(strstr(err.text, "initrd 'i': is empty"), "%s", err.text);
	cr_assert_eq(open_with_initrd(open("/", O_RDONLY | O_DIRECTORY)), -EISDIR);
	cr_assert(strstr(err.text, "is a directory"), "%s", err.text);
}

Test(kernel, a_kernel_larger_than_memory_says_what_it_needs)
{
	cleanup_blob struct blob b =
		synth_bzimage(&(struct synth){.codec = CODEC_LZ4, .lists = 3}, NULL);
	struct kernel_config config = defaults(synth_file(&b));

	gmem_destroy(gmem);
	gmem = synth_memory(4 * MiB);
	platform.low_bytes = 4 * MiB;
	cr_assert_eq(open_config(&config), 0);
	cr_assert_eq(load(), -ENOSPC);
	cr_assert(strstr(err.text, "needs 4 MiB"), "%s", err.text);
	cr_assert(strstr(err.text, "the guest has 4 MiB"), "%s", err.text);
}

Test(kernel, a_small_guest_gets_the_kernel_where_it_fits)
{
	struct synth s = {.codec = CODEC_LZ4, .lists = 3};
	uint64_t gpa;

	gmem_destroy(gmem);
	gmem = synth_memory(8 * MiB);
	platform.low_bytes = 8 * MiB;
	open_synth(&s, KASLR_ON);
	cr_assert_eq(load(), 0, "%s", err.text);
	placed(&s, &gpa);
	cr_assert_eq(gpa, 2 * MiB);
}

/* Memory that can leave: at a reset it is in the machine, and the guest finds it by ACPI. */
Test(kernel, memory_that_can_leave_is_neither_in_the_map_nor_a_place_for_the_kernel)
{
	struct gmem_region_config unit = {.name = "unit",
					  .gpa = 4 * GiB,
					  .size_bytes = 64 * MiB,
					  .backing = GMEM_ANONYMOUS,
					  .numa_node = -1,
					  .fd = -1};
	struct synth s = {.codec = CODEC_LZ4, .lists = 3};
	uint64_t gpa;

	cr_assert_eq(gmem_begin(gmem, &err), 0);
	cr_assert_eq(gmem_add(gmem, &unit, &err), 0);
	cr_assert_eq(gmem_commit(gmem, &err), 0);
	platform.plug_gpa = unit.gpa;
	platform.plug_bytes = 2 * unit.size_bytes;
	open_synth(&s, KASLR_ON);
	for (unsigned int i = 0; i < 30; i++) {
		cr_assert_eq(load(), 0, "%s", err.text);
		placed(&s, &gpa);
		cr_assert_lt(gpa, RAM);
	}
	cr_assert_null(e820_of(unit.gpa));
	cr_assert_not_null(e820_of(RAM - 1));
}

Test(kernel, a_long_command_line_is_refused_with_its_limit)
{
	cleanup_blob struct blob b = synth_bzimage(&(struct synth){.codec = CODEC_LZ4}, NULL);
	struct kernel_config config = defaults(synth_file(&b));
	char line[2049];

	memset(line, 'x', sizeof(line));
	line[2048] = 0;
	config.cmdline = line;
	cr_assert_eq(open_config(&config), -EINVAL);
	cr_assert(strstr(err.text, "2048 bytes: kernel 'k' takes at most 2047"), "%s", err.text);
	line[2047] = 0;
	config.kernel_fd = synth_file(&b);
	cr_assert_eq(open_config(&config), 0, "%s", err.text);
}

Test(kernel, a_damaged_payload_says_so)
{
	cleanup_blob struct blob b =
		synth_bzimage(&(struct synth){.codec = CODEC_ZSTD, .lists = 3}, NULL);
	struct kernel_config config;

	b.data[b.len / 2] ^= 0x55;
	config = defaults(synth_file(&b));
	cr_assert_eq(open_config(&config), -EINVAL);
	cr_assert(strstr(err.text, "kernel 'k': the zstd payload is damaged"), "%s", err.text);
}

static unsigned int open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

Test(kernel, no_fd_is_left_open)
{
	unsigned int before = open_fds();

	cr_assert_eq(open_with_initrd(initrd_file(100)), 0);
	cr_assert_eq(load(), 0);
	kernel_close(kernel);
	kernel = NULL;
	cr_assert_neq(open_with_initrd(initrd_file(0)), 0);
	cr_assert_eq(open_fds(), before);
}

/* Each system call of opening refused: an error of one line that names the file, or a kernel that
 * works all the same (the cache is a convenience); never a descriptor left. */
struct refusal {
	long nr;
	uint32_t second; /* argument, 0 for any (of mmap: what the payload needs) */
	int error;
	bool serious;
};

ParameterizedTestParameters(kernel, each_system_call_of_opening_may_fail)
{
	static struct refusal refusals[] = {
		{SYS_fcntl, F_DUPFD_CLOEXEC, EMFILE, true},
		{SYS_newfstatat, 0, EIO, true},
		{SYS_pread64, 0, EIO, true},
		{SYS_mmap, 0, ENOMEM, true},
		{SYS_openat, 0, EACCES, false},
		{SYS_openat, 0, EMFILE, false},
		{SYS_fstatfs, 0, EIO, true},
		{SYS_mkdir, 0, EROFS, false},
		{SYS_renameat, 0, EDQUOT, false},
		{SYS_unlinkat, 0, EROFS, false},
		{SYS_getrandom, 0, ENOSYS, false},
	};

	return cr_make_param_array(struct refusal, refusals, ARRAY_SIZE(refusals));
}

ParameterizedTest(struct refusal *f, kernel, each_system_call_of_opening_may_fail)
{
	cleanup_blob struct blob b =
		synth_bzimage(&(struct synth){.codec = CODEC_GZIP, .lists = 3}, NULL);
	struct kernel_config config = defaults(synth_file(&b));
	char top[] = "/tmp/hospes-kernel-XXXXXX", cache[sizeof(top) + 2];
	int fds, r;

	cr_assert_not_null(mkdtemp(top));
	snprintf(cache, sizeof(cache), "%s/c", top);
	config.initrd_fd = initrd_file(100);
	config.cache_dir = cache;
	if (f->nr == SYS_mmap)
		f->second = load_le32(&b.data[offsetof(struct boot_params, hdr.payload_length)]);
	fds = count_fds();
	cr_assert_eq(deny(f->nr, f->second, f->error), 0);
	/* fstat() is one or the other, as the C library and sanitizers like it. */
	if (f->nr == SYS_newfstatat)
		cr_assert_eq(deny(SYS_fstat, 0, f->error), 0);
	err = (struct err)ERR_INIT;
	r = kernel_open(&kernel, &config, &err);
	if (r) {
		cr_assert_neq(err.text[0], 0, "%ld", f->nr);
		cr_assert_eq(count_fds(), fds, "%ld: a descriptor is left", f->nr);
		cr_assert_null(kernel);
	}
	cr_assert_eq(f->serious, r != 0, "%ld: %s", f->nr, err.text);
	kernel_close(kernel);
	kernel = NULL;
	cr_assert_eq(count_fds(), fds, "%ld: a descriptor is left", f->nr);
	close(config.initrd_fd);
	close(config.kernel_fd);
	/* A file that was written just now is not cached, so there is nothing in it. */
	rmdir(cache);
	cr_assert_eq(rmdir(top), 0);
}

static uint64_t mapped_bytes(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	unsigned long pages = 0;

	cr_assert_eq(fscanf(f, "%lu", &pages), 1);
	fclose(f);
	return pages * 4096;
}

Test(kernel, a_running_machine_holds_no_second_copy)
{
	uint64_t before = mapped_bytes();

	open_synth(&(struct synth){.codec = CODEC_NONE, .lists = 3}, KASLR_AUTO);
	cr_assert_eq(load(), 0);
	/* The zstd and lzma libraries, and malloc's own growth. */
	cr_assert_lt(mapped_bytes(), before + MiB, "%llu bytes more",
		     (unsigned long long)(mapped_bytes() - before));
}

/* The cache as a whole, on a real file that first has to stand still. */
static char dir[64];

static struct kernel_config cached_config(char path[96], char cache[96])
{
	struct kernel_config config;

	snprintf(path, 96, "%s/kernel", dir);
	snprintf(cache, 96, "%s/cache", dir);
	config = defaults(open(path, O_RDONLY | O_CLOEXEC));
	config.cache_dir = cache;
	return config;
}

static bool boots_from_cache(void)
{
	char path[96], cache[96];
	struct kernel_config config = cached_config(path, cache);
	struct synth s = {.lists = 3};
	struct kernel_info info;
	uint64_t gpa;

	gmem_destroy(gmem);
	gmem = synth_memory(RAM); /* another machine */
	cr_assert_eq(open_config(&config), 0, "%s", err.text);
	cr_assert_eq(load(), 0, "%s", err.text);
	placed(&s, &gpa);
	kernel_describe(kernel, &info);
	kernel_close(kernel);
	kernel = NULL;
	return info.cached;
}

static void cache_entry(char path[400])
{
	char name[96];
	struct dirent *d;
	DIR *listing;

	snprintf(name, sizeof(name), "%s/cache", dir);
	listing = opendir(name);
	cr_assert_not_null(listing);
	*path = 0;
	while ((d = readdir(listing)))
		if (d->d_name[0] != '.')
			snprintf(path, 400, "%s/%s", name, d->d_name);
	closedir(listing);
}

Test(kernel, a_file_that_stands_still_is_cached_and_damage_is_repaired, .timeout = 60)
{
	cleanup_blob struct blob b =
		synth_bzimage(&(struct synth){.codec = CODEC_XZ, .lists = 3}, NULL);
	char path[96], entry_path[400], command[128];
	struct timespec start, now;
	uint8_t byte;
	int fd;

	snprintf(dir, sizeof(dir), "/tmp/hospes-kernel-XXXXXX");
	cr_assert_not_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/kernel", dir);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	cr_assert_eq(fd_write_full(fd, b.data, b.len, -1), 0);
	close(fd);
	clock_gettime(CLOCK_MONOTONIC, &start);
	cr_assert_not(boots_from_cache());
	cache_entry(entry_path);
	cr_assert_str_empty(entry_path, "kept although it changed just now");
	do {
		nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (!boots_from_cache() && now.tv_sec < start.tv_sec + 20);
	cr_assert(boots_from_cache());
	cr_assert_geq(now.tv_sec - start.tv_sec, 1);

	/* Damage in the data shows only when it is copied: the load repairs it and goes on. */
	cache_entry(entry_path);
	cr_assert_eq(chmod(entry_path, 0600), 0);
	fd = open(entry_path, O_RDWR);
	cr_assert_eq(pread(fd, &byte, 1, 12345), 1);
	byte ^= 1;
	cr_assert_eq(pwrite(fd, &byte, 1, 12345), 1);
	close(fd);
	cr_assert_not(boots_from_cache());
	cr_assert(boots_from_cache(), "the repaired entry is not served");

	snprintf(command, sizeof(command), "rm -rf %s", dir);
	cr_assert_eq(system(command), 0);
}
