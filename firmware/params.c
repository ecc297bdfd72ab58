// SPDX-License-Identifier: Apache-2.0
// Boot parameters in guest memory.
#include "firmware/params.h"

#include <asm/setup_data.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "base/le.h"
#include "base/num.h"
#include "base/rand.h"

#define GDT_GPA     0x500ull
#define SEED_GPA    0x6000ull
#define ZERO_GPA    0x7000ull
#define TABLES_GPA  0x9000ull
#define TABLES_END  0x20000ull
#define CMDLINE_GPA 0x20000ull

#define LOADER_UNDEFINED 0xff /* boot.rst: type_of_loader without an assigned number */
#define SEED_TYPE        9    /* SETUP_RNG_SEED, since Linux 6.2; older kernels pass it over */
#define SEED_BYTES       32

#define PTE_PRESENT (1ull << 0)
#define PTE_WRITE   (1ull << 1)
#define PTE_LARGE   (1ull << 7)

static int write_guest(struct gmem *gmem, uint64_t gpa, const void *data, size_t len,
		       struct err *err)
{
	if (gmem_write(gmem, gpa, data, len))
		return err_set(
			err, -EINVAL,
			"no guest memory for boot parameters at 0x%lx: the first 640 KiB must "
			"be RAM",
			gpa);
	return 0;
}

/* Page tables, one page after the other from TABLES_GPA. */
struct tables {
	struct gmem *gmem;
	uint64_t next_gpa;
};

static uint64_t *table_at(struct tables *t, uint64_t gpa)
{
	return gmem_host(t->gmem, gpa, 4096, true);
}

/* The table that entry `index` of `table` points to; made when there is none. NULL when there is no
 * room. */
static uint64_t *table_below(struct tables *t, uint64_t *table, unsigned int index)
{
	uint64_t entry = le64toh(table[index]), gpa = entry & ~0xfffull, *below;

	if (entry)
		return table_at(t, gpa);
	gpa = t->next_gpa;
	if (gpa >= TABLES_END)
		return NULL;
	below = table_at(t, gpa);
	if (!below)
		return NULL;
	t->next_gpa += 4096;
	memset(below, 0, 4096);
	table[index] = htole64(gpa | PTE_PRESENT | PTE_WRITE);
	return below;
}

/* Map the whole GiB around gpa one to one, by pages of 2 MiB. */
static int map_gib(struct tables *t, uint64_t *root, uint64_t gpa)
{
	uint64_t *pdpt = table_below(t, root, (unsigned int)(gpa >> 39) & 511), *pd;
	uint64_t start = align_down(gpa, GiB);

	if (!pdpt)
		return -ENOSPC;
	pd = table_below(t, pdpt, (unsigned int)(gpa >> 30) & 511);
	if (!pd)
		return -ENOSPC;
	for (unsigned int i = 0; i < 512; i++)
		pd[i] = htole64((start + i * (2 * MiB)) | PTE_PRESENT | PTE_WRITE | PTE_LARGE);
	return 0;
}

static int write_tables(const struct params *p, struct gmem *gmem, struct err *err)
{
	struct tables t = {gmem, TABLES_GPA + 4096};
	uint64_t *root = table_at(&t, TABLES_GPA);
	uint64_t last = p->kernel_gpa + p->kernel_bytes - 1;
	int r;

	if (!root)
		return err_set(err, -EINVAL, "no guest memory for page tables at 0x%llx",
			       TABLES_GPA);
	memset(root, 0, 4096);
	/* boot.rst, "64-bit boot protocol": the kernel, the zero page and the command line. */
	r = map_gib(&t, root, 0);
	for (uint64_t gib = align_down(p->kernel_gpa, GiB); !r && gib <= last; gib += GiB)
		r = map_gib(&t, root, gib);
	if (r)
		return err_set(err, r, "no room for page tables that map the kernel at 0x%lx",
			       p->kernel_gpa);
	return 0;
}

static int write_cmdline(const struct params *p, struct gmem *gmem, struct err *err)
{
	size_t len = strlen(p->cmdline);

	if (len > PARAMS_CMDLINE_MAX)
		return err_set(err, -EINVAL, "command line of %zu bytes: at most %u fit", len,
			       PARAMS_CMDLINE_MAX);
	return write_guest(gmem, CMDLINE_GPA, p->cmdline, len + 1, err);
}

/* The guest's random number generator starts from the host's, at once. */
static int write_seed(struct gmem *gmem, struct err *err)
{
	struct {
		le64 next;
		le32 type;
		le32 len;
		uint8_t data[SEED_BYTES];
	} seed = {
		.type = le32_of(SEED_TYPE),
		.len = le32_of(SEED_BYTES),
	};
	int r = rand_bytes(seed.data, sizeof(seed.data));

	if (r)
		return err_set(err, r, "no random numbers from the host: %s", err_name(r));
	r = write_guest(gmem, SEED_GPA, &seed, sizeof(seed), err);
	explicit_bzero(&seed, sizeof(seed));
	return r;
}

static int fill_e820(struct boot_params *zero, const struct memmap *map, struct err *err)
{
	_Static_assert(MEMMAP_MAX <= E820_MAX_ENTRIES_ZEROPAGE, "the map fits into the zero page");

	if (map->n > E820_MAX_ENTRIES_ZEROPAGE)
		return err_set(err, -E2BIG, "more than %d ranges of memory",
			       E820_MAX_ENTRIES_ZEROPAGE);
	for (unsigned int i = 0; i < map->n; i++) {
		zero->e820_table[i].addr = map->range[i].gpa;
		zero->e820_table[i].size = map->range[i].bytes;
		zero->e820_table[i].type = map->range[i].type;
	}
	zero->e820_entries = (uint8_t)map->n;
	return 0;
}

static void fill_header(struct boot_params *zero, const struct params *p)
{
	struct setup_header *h = &zero->hdr;

	if (p->header) {
		*h = *p->header;
	} else {
		h->boot_flag = 0xaa55;
		h->header = 0x53726448; /* "HdrS" */
		h->version = 0x20f;
		h->loadflags = LOADED_HIGH;
		h->kernel_alignment = 2 * MiB;
	}
	h->type_of_loader = LOADER_UNDEFINED;
	h->ext_loader_type = 0;
	h->ext_loader_ver = 0;
	h->loadflags &= (uint8_t)~(KASLR_FLAG | KEEP_SEGMENTS | CAN_USE_HEAP);
	if (p->kaslr)
		h->loadflags |= KASLR_FLAG;
	h->vid_mode = 0xffff;
	h->heap_end_ptr = 0;
	h->realmode_swtch = 0;
	h->hardware_subarch = 0;
	h->hardware_subarch_data = 0;
	h->cmd_line_ptr = (uint32_t)CMDLINE_GPA;
	h->setup_data = SEED_GPA;
	h->ramdisk_image = (uint32_t)p->initrd_gpa;
	zero->ext_ramdisk_image = (uint32_t)(p->initrd_gpa >> 32);
	h->ramdisk_size = (uint32_t)p->initrd_bytes;
	zero->ext_ramdisk_size = (uint32_t)(p->initrd_bytes >> 32);
	if (p->code32_start)
		h->code32_start = (uint32_t)p->code32_start;
	zero->acpi_rsdp_addr = p->rsdp_gpa;
}

int params_write_linux(const struct params *p, struct gmem *gmem, struct arch_entry *entry,
		       struct err *err)
{
	struct boot_params zero;
	int r;

	_Static_assert(sizeof(zero) == 4096, "the zero page is a page");
	memset(&zero, 0, sizeof(zero)); /* screen_info and all firmware interfaces: none */
	fill_header(&zero, p);
	r = fill_e820(&zero, p->memmap, err);
	if (!r)
		r = write_guest(gmem, ZERO_GPA, &zero, sizeof(zero), err);
	if (!r)
		r = write_cmdline(p, gmem, err);
	if (!r)
		r = write_seed(gmem, err);
	if (!r)
		r = write_tables(p, gmem, err);
	if (r)
		return r;
	*entry = (struct arch_entry){
		.mode = ARCH_ENTRY_LONG,
		.rsp = PARAMS_STACK_TOP,
		.rsi = ZERO_GPA,
		.cr3 = TABLES_GPA,
		.gdt_gpa = GDT_GPA,
	};
	return 0;
}

/* The structures of PVH, version 1. */
#define PVH_MAGIC 0x336ec578u

struct pvh_start_info {
	le32 magic, version, flags, nr_modules;
	le64 modlist_gpa, cmdline_gpa, rsdp_gpa, memmap_gpa;
	le32 memmap_entries, reserved;
};
_Static_assert(sizeof(struct pvh_start_info) == 56, "version 1");

struct pvh_module {
	le64 gpa, bytes, cmdline_gpa, reserved;
};
_Static_assert(sizeof(struct pvh_module) == 32, "as specified");

struct pvh_memmap_entry {
	le64 gpa, bytes;
	le32 type, reserved;
};
_Static_assert(sizeof(struct pvh_memmap_entry) == 24, "as specified");

struct pvh_page {
	struct pvh_start_info info;
	struct pvh_module module;
	struct pvh_memmap_entry memmap[MEMMAP_MAX];
};
_Static_assert(sizeof(struct pvh_page) <= 4096, "start info and its lists are one page");

int params_write_pvh(const struct params *p, struct gmem *gmem, struct arch_entry *entry,
		     struct err *err)
{
	struct pvh_page page;
	int r;

	memset(&page, 0, sizeof(page));
	page.info.magic = le32_of(PVH_MAGIC);
	page.info.version = le32_of(1);
	page.info.cmdline_gpa = le64_of(CMDLINE_GPA);
	page.info.rsdp_gpa = le64_of(p->rsdp_gpa);
	page.info.memmap_gpa = le64_of(ZERO_GPA + offsetof(struct pvh_page, memmap));
	page.info.memmap_entries = le32_of(p->memmap->n);
	if (p->initrd_bytes) {
		page.info.nr_modules = le32_of(1);
		page.info.modlist_gpa = le64_of(ZERO_GPA + offsetof(struct pvh_page, module));
		page.module.gpa = le64_of(p->initrd_gpa);
		page.module.bytes = le64_of(p->initrd_bytes);
	}
	for (unsigned int i = 0; i < p->memmap->n; i++) {
		page.memmap[i].gpa = le64_of(p->memmap->range[i].gpa);
		page.memmap[i].bytes = le64_of(p->memmap->range[i].bytes);
		page.memmap[i].type = le32_of(p->memmap->range[i].type);
	}
	r = write_guest(gmem, ZERO_GPA, &page, sizeof(page), err);
	if (!r)
		r = write_cmdline(p, gmem, err);
	if (r)
		return r;
	*entry = (struct arch_entry){
		.mode = ARCH_ENTRY_PROT,
		.rsp = PARAMS_STACK_TOP,
		.rbx = ZERO_GPA,
		.gdt_gpa = GDT_GPA,
	};
	return 0;
}
