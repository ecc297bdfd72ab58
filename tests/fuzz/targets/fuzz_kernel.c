// SPDX-License-Identifier: Apache-2.0
// Kernel images: recognised, unpacked, placed and relocated.
//
// Input: a byte of options, then the file; or, with option WRAP, an ELF file (with relocations
// behind it) that is put into a bzImage with a sound header, so that mutations reach what is behind
// it.
//
// Oracle: a refusal has one line of text. What is accepted lies in guest memory exactly as a
// second, simple-minded loader here says (segments copied, the rest zero, relocations applied from
// the end backwards as the kernel's own decompressor does), the entry is inside it, and outside of
// it, of the boot parameters and of the initrd not a byte has changed. What lies next to guest
// memory in the process cannot be accessed. Random numbers are constant.
#include <asm/bootparam.h>
#include <elf.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "base/le.h"
#include "base/num.h"
#include "base/rand.h"
#include "firmware/image.h"
#include "firmware/kaslr.h"
#include "firmware/kernel.h"
#include "firmware/params.h"
#include "firmware/payload.h"

#define RAM          (4 * MiB)
#define UNTOUCHED    0xa5
#define INITRD_BYTES 5000u

#define OPTION_WRAP     1u
#define OPTION_INITRD   2u
#define OPTION_OFF      4u
#define OPTION_ON       8u
#define OPTION_FIRMWARE 16u /* and no initrd */

/* In place of the host's: the same input does the same thing. */
int rand_bytes(void *buf, size_t len)
{
	for (size_t i = 0; i < len; i++)
		((uint8_t *)buf)[i] = i < 3 ? (uint8_t)(0x5a + 17 * i) : 0;
	return 0;
}

static struct gmem *gmem;
static uint8_t *ram, *was;

static void make_memory(void)
{
	struct gmem_region_config config = {
		.name = "ram",
		.size_bytes = RAM,
		.backing = GMEM_ANONYMOUS,
		.numa_node = -1,
		.fd = -1,
	};

	check(!gmem_create(&gmem, NULL, NULL) && !gmem_begin(gmem, NULL));
	check(!gmem_add(gmem, &config, NULL) && !gmem_commit(gmem, NULL));
	ram = gmem_host(gmem, 0, RAM, true);
	/* Where nothing lies yet, nothing shall: a stray write is a fault. */
	for (uint64_t at = 0; at < 64 * MiB; at += 64 * KiB) {
		mmap(ram + RAM + at, 64 * KiB, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
		mmap(ram - at - 64 * KiB, 64 * KiB, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	}
	was = malloc(RAM);
	check(was);
	memset(was, UNTOUCHED, RAM);
}

static int file_of(const uint8_t *data, size_t size)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	check(fd >= 0);
	check(pwrite(fd, data, size, 0) == (ssize_t)size);
	return fd;
}

static int wrapped(const uint8_t *elf, size_t size)
{
	const size_t code_at = 5 * 512;
	size_t len = align_up(code_at + 64 + size, 16);
	uint8_t *file = calloc(1, len);
	struct setup_header *h = (void *)(file + 0x1f1);
	int fd;

	check(file);
	h->setup_sects = 4;
	h->boot_flag = 0xaa55;
	h->jump = (uint16_t)(0xeb | (sizeof(*h) - 0x11) << 8);
	h->header = 0x53726448;
	h->version = 0x20f;
	h->loadflags = LOADED_HIGH;
	h->syssize = (uint32_t)((len - code_at) / 16);
	h->kernel_alignment = 2 * MiB;
	h->relocatable_kernel = 1;
	h->xloadflags = XLF_KERNEL_64;
	h->cmdline_size = 255;
	h->payload_offset = 64;
	h->payload_length = (uint32_t)size;
	h->pref_address = 16 * MiB;
	h->init_size = MiB;
	memcpy(file + code_at + 64, elf, size);
	fd = file_of(file, len);
	free(file);
	return fd;
}

/* The simple-minded loader: segments in the order of their headers. */
static void reference_segments(uint8_t *image, const struct vmlinux *v, const uint8_t *elf)
{
	const Elf64_Ehdr *e = (const void *)elf;

	memset(image, 0, v->span_bytes);
	for (unsigned int i = 0; i < e->e_phnum; i++) {
		Elf64_Phdr p;

		memcpy(&p, elf + e->e_phoff + i * sizeof(p), sizeof(p));
		if (p.p_type != PT_LOAD || !p.p_memsz)
			continue;
		check(p.p_paddr >= v->base_gpa && p.p_paddr - v->base_gpa <= v->span_bytes);
		check(p.p_filesz <= v->span_bytes - (p.p_paddr - v->base_gpa));
		/* A segment with nothing in the file may name any offset. */
		if (p.p_filesz)
			memcpy(image + (p.p_paddr - v->base_gpa), elf + p.p_offset, p.p_filesz);
	}
}

static void reference_relocate(uint8_t *image, const struct vmlinux *v, const uint8_t *elf,
			       size_t size, uint64_t delta)
{
	static const struct {
		unsigned int bytes;
		bool minus;
	} three[] = {{4, false}, {4, true}, {8, false}}, two[] = {{4, false}, {8, false}};
	unsigned int zeroes = 0;
	const uint8_t *at;

	for (at = elf + v->elf_end; at < elf + size; at += 4)
		zeroes += !load_le32(at);
	check(zeroes == 2 || zeroes == 3);
	at = elf + size;
	for (unsigned int list = 0; list < zeroes; list++) {
		unsigned int bytes = zeroes == 3 ? three[list].bytes : two[list].bytes;

		while (load_le32(at -= 4)) {
			uint64_t va = (uint64_t)(int64_t)(int32_t)load_le32(at),
				 to = va - v->base_va;

			check(to <= v->span_bytes && bytes <= v->span_bytes - to);
			if (bytes == 8)
				store_le64(image + to, load_le64(image + to) + delta);
			else if (zeroes == 3 && three[list].minus)
				store_le32(image + to, load_le32(image + to) - (uint32_t)delta);
			else
				store_le32(image + to, load_le32(image + to) + (uint32_t)delta);
		}
	}
	check(at == elf + v->elf_end);
}

static void check_direct(const struct image *image, int fd, const struct kernel_info *info,
			 const struct arch_entry *entry, uint64_t *gpa, uint64_t *bytes)
{
	uint8_t *elf = malloc(image->unpacked_bytes), *want;
	struct payload payload;
	uint64_t delta = 0;

	check(elf && !payload_unpack(&payload, image, fd, NULL));
	/* payload_unpack() turns relocations into offsets in place: take the file's own bytes. */
	if (image->codec == CODEC_NONE)
		check(pread(fd, elf, image->unpacked_bytes, (off_t)image->payload_offset) ==
		      (ssize_t)image->unpacked_bytes);
	*gpa = entry->rip - payload.elf.entry_offset;
	*bytes = payload.elf.span_bytes;
	check(range_inside(*gpa, *bytes, MiB, RAM - MiB));
	/* Where it was linked to lie, whatever that is, or at a boundary. */
	check(*gpa == payload.elf.base_gpa || is_aligned(*gpa, 2 * MiB));
	if (image->codec == CODEC_NONE) {
		want = malloc(*bytes);
		check(want);
		reference_segments(want, &payload.elf, elf);
		if (info->kaslr) {
			check(!kaslr_choose_virtual(
				&payload.elf,
				MAX((uint64_t)image->header.kernel_alignment, 2 * MiB), &delta));
			reference_relocate(want, &payload.elf, elf, image->unpacked_bytes, delta);
		}
		check(!memcmp(want, ram + *gpa, *bytes));
		free(want);
	}
	payload_release(&payload);
	free(elf);
}

/* Where may memory have changed, and is it right there? */
static void check_placed(int fd, const struct kernel_info *info, const struct arch_entry *entry,
			 uint64_t *gpa, uint64_t *bytes)
{
	bool firmware = !strcmp(info->format, "firmware");
	struct image image;

	check(!(firmware ? image_recognise_firmware(&image, fd, "k", NULL)
			 : image_recognise(&image, fd, "k", NULL)));
	check(!firmware || !strcmp(info->protocol, "PVH"));
	if (image.format == IMAGE_VMLINUX) {
		struct elf_source source = {NULL, fd, image.file_bytes, firmware};
		struct vmlinux v;

		check(!vmlinux_parse(&v, &source, NULL));
		*gpa = v.base_gpa;
		*bytes = v.span_bytes;
	} else if (!strcmp(info->protocol, "decompressor")) {
		*gpa = entry->rip - 0x200;
		*bytes = MAX((uint64_t)image.header.init_size, image.code_bytes);
	} else {
		check_direct(&image, fd, info, entry, gpa, bytes);
	}
	check(range_inside(*gpa, *bytes, MiB, RAM - MiB));
	check(range_inside(entry->rip, 1, *gpa, *bytes));
}

static void check_untouched(uint64_t start, uint64_t end)
{
	if (start < end)
		check(!memcmp(ram + start, was + start, end - start));
}

static void check_memory(uint64_t gpa, uint64_t bytes, uint64_t initrd, uint64_t initrd_bytes)
{
	uint64_t first = MIN(gpa, initrd), first_bytes = gpa < initrd ? bytes : initrd_bytes;
	uint64_t last = MAX(gpa, initrd), last_bytes = gpa < initrd ? initrd_bytes : bytes;

	check(!ranges_overlap(gpa, bytes, initrd, initrd_bytes));
	check_untouched(PARAMS_END_GPA, first);
	check_untouched(first + first_bytes, last);
	check_untouched(last + last_bytes, RAM);
}

static void check_text(const struct err *err)
{
	check(err->code < 0 && *err->text && memchr(err->text, 0, sizeof(err->text)));
	for (const char *c = err->text; *c; c++)
		check((unsigned char)*c >= ' ');
}

static void run(int fd, unsigned int options)
{
	static const struct arch_platform platform = {.phys_bits = 40, .low_bytes = RAM};
	static const struct kernel_tables tables = {.rsdp_gpa = 0xe0000};
	struct kernel_config config = {
		.path = "k",
		.kernel_fd = fd,
		.initrd_fd = options & OPTION_INITRD && !(options & OPTION_FIRMWARE)
				     ? file_of(was, INITRD_BYTES)
				     : -1,
		.firmware = options & OPTION_FIRMWARE,
		.initrd_path = "i",
		.cmdline = "quiet",
		.kaslr = options & OPTION_OFF  ? KASLR_OFF
			 : options & OPTION_ON ? KASLR_ON
					       : KASLR_AUTO,
	};
	struct err err = ERR_INIT;
	struct arch_entry entry;
	struct kernel_info info;
	struct kernel *kernel;

	if (kernel_open(&kernel, &config, &err)) {
		check_text(&err);
	} else {
		/* Twice: the second clears what the first left. */
		for (unsigned int i = 0; i < 2; i++) {
			uint64_t gpa = 0, bytes = 0, initrd = RAM, initrd_bytes = 0;

			memset(ram, UNTOUCHED, RAM);
			if (kernel_load(kernel, gmem, &platform, &tables, &entry, &err)) {
				check_text(&err);
				break;
			}
			kernel_describe(kernel, &info);
			if (!i)
				continue;
			check_placed(fd, &info, &entry, &gpa, &bytes);
			if (config.initrd_fd >= 0) {
				initrd_bytes = INITRD_BYTES;
				initrd = entry.mode == ARCH_ENTRY_PROT
						 ? load_le64(ram + entry.rbx + 56)
						 : load_le32(ram + entry.rsi + 0x218);
				check(range_inside(initrd, initrd_bytes, MiB, RAM - MiB));
			}
			check_memory(gpa, bytes, initrd, initrd_bytes);
		}
		kernel_close(kernel);
	}
	if (config.initrd_fd >= 0)
		close(config.initrd_fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd;

	if (!ram)
		make_memory();
	if (!size)
		return 0;
	fd = data[0] & OPTION_WRAP ? wrapped(data + 1, size - 1) : file_of(data + 1, size - 1);
	run(fd, data[0]);
	close(fd);
	return 0;
}
