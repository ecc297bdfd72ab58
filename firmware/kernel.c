// SPDX-License-Identifier: Apache-2.0
// Opening a kernel and placing it: the order of things. Each step is a file of its own.
#include "firmware/kernel.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/num.h"
#include "firmware/cache.h"
#include "firmware/image.h"
#include "firmware/initrd.h"
#include "firmware/kaslr.h"
#include "firmware/memmap.h"
#include "firmware/params.h"
#include "firmware/payload.h"

#define PAGE                4096ull
#define CMDLINE_MAX_DEFAULT 2047u /* COMMAND_LINE_SIZE of x86, less the zero */
#define INITRD_MAX_DEFAULT  0x7fffffffull
#define KERNEL_MIN_GPA      MiB
#define LEGACY_START        0x9fc00ull /* where a BIOS would keep its data area, and the hole */
#define LEGACY_END          MiB
#define ECAM_BYTES          (256 * MiB)

enum protocol {
	PROTOCOL_DIRECT, /* 64-bit entry of the unpacked kernel */
	PROTOCOL_PVH,
	PROTOCOL_DECOMPRESSOR, /* 64-bit entry of the bzImage as it is */
};

struct kernel {
	const struct log *log;
	const char *what; /* "kernel" or "firmware" */
	char *path, *initrd_path, *cmdline;
	int fd, initrd_fd;
	bool firmware;
	enum kaslr_mode mode;
	struct cache cache;
	bool placed; /* at least once: guest memory may hold what an earlier kernel left */

	/* Valid while `ready`: from prepare() to the end of kernel_load(). */
	bool ready;
	struct payload payload; /* PROTOCOL_DIRECT of a bzImage */

	/* Valid after prepare(). */
	struct image image;
	struct vmlinux elf; /* all but PROTOCOL_DECOMPRESSOR */
	enum protocol protocol;
	bool kaslr, cached;
	struct cache_key key;
};

/* One load: where things are. */
struct placing {
	struct kernel *kernel;
	struct gmem *gmem;
	struct memmap map;  /* for the kernel */
	struct memmap free; /* RAM where something can still be placed */
	struct params params;
};

static int no_kaslr(const struct kernel *k, const char *why, struct err *err)
{
	return err_set(err, -EINVAL, "kernel '%s': kaslr=on, but %s", k->path, why);
}

/* Does it get a random offset? Called when the protocol is known. */
static int settle_kaslr(struct kernel *k, const struct relocs *relocs, struct err *err)
{
	bool forbidden = cmdline_has(k->cmdline, "nokaslr");
	const char *why = NULL;

	k->kaslr = false;
	if (k->mode == KASLR_OFF)
		return 0;
	if (forbidden)
		why = "the command line says nokaslr";
	else if (k->image.format == IMAGE_VMLINUX)
		why = "a vmlinux carries no relocations; give the bzImage";
	else if (k->protocol == PROTOCOL_DIRECT && (!relocs || !relocs_any(relocs)))
		why = "it was built without CONFIG_RANDOMIZE_BASE";
	else if (k->protocol == PROTOCOL_DIRECT && !k->image.header.relocatable_kernel)
		why = "its header says that it is not relocatable";
	if (why && k->mode == KASLR_ON)
		return no_kaslr(k, why, err);
	k->kaslr = !why;
	return 0;
}

/* A fresh payload from the file: and into the cache, when the file stood still meanwhile. */
static int unpack_fresh(struct kernel *k, const struct cache_key *key, bool may_store,
			struct err *err)
{
	struct cache_key after;
	int r = payload_unpack(&k->payload, &k->image, k->fd, err);

	if (r && r != -ENOTSUP)
		return err_prefix(err, "kernel '%s'", k->path);
	if (cache_key_of(&after, k->fd) || !cache_key_equal(&after, key)) {
		payload_release(&k->payload);
		return err_set(err, -EAGAIN,
			       "kernel '%s': it was changed while it was read; try again", k->path);
	}
	if (!r && may_store)
		cache_store(&k->cache, key, k->fd, &k->payload);
	return r;
}

static int prepare_bzimage(struct kernel *k, bool use_cache, struct err *err)
{
	struct err why = ERR_INIT;
	int r;

	k->protocol = PROTOCOL_DECOMPRESSOR;
	k->cached = false;
	if (k->image.codec == CODEC_OTHER) {
		log_info(k->log, "kernel", "'%s': packed with %s: its own decompressor unpacks it",
			 k->path, k->image.codec_name);
		return settle_kaslr(k, NULL, err);
	}
	r = cache_key_of(&k->key, k->fd);
	if (r)
		return err_set(err, r, "kernel '%s': cannot read it: %s", k->path, err_name(r));
	r = use_cache ? cache_load(&k->cache, &k->key, k->fd, &k->payload) : -ENOENT;
	k->cached = !r;
	if (r)
		r = unpack_fresh(k, &k->key, use_cache, &why);
	if (r == -ENOTSUP) {
		log_warn(k->log, "kernel", "'%s': left to its own decompressor: %s", k->path,
			 why.text);
		return settle_kaslr(k, NULL, err);
	}
	if (r)
		return err_set(err, r, "%s", why.text);
	k->protocol = PROTOCOL_DIRECT;
	k->elf = k->payload.elf;
	return settle_kaslr(k, &k->payload.relocs, err);
}

static int prepare_vmlinux(struct kernel *k, struct err *err)
{
	struct elf_source source = {NULL, k->fd, k->image.file_bytes, k->firmware};
	int r = vmlinux_parse(&k->elf, &source, err);

	if (r)
		return err_prefix(err, "%s '%s'", k->what, k->path);
	k->protocol = k->elf.pvh_entry ? PROTOCOL_PVH : PROTOCOL_DIRECT;
	k->cached = false;
	/* Every Linux kernel has that text. The 64-bit entry of anything else would be handed
	 * parameters that it does not understand. */
	if (!k->elf.pvh_entry && !vmlinux_has_text(&k->elf, &source, "Linux version "))
		return err_set(
			err, -ENOEXEC,
			"kernel '%s': an ELF file that is neither a Linux kernel nor one with a "
			"PVH entry; give a bzImage or a vmlinux",
			k->path);
	return settle_kaslr(k, NULL, err);
}

/* Recognise and unpack, when that is not done already. */
static int prepare(struct kernel *k, bool use_cache, struct err *err)
{
	int r;

	if (k->ready)
		return 0;
	r = k->firmware ? image_recognise_firmware(&k->image, k->fd, k->path, err)
			: image_recognise(&k->image, k->fd, k->path, err);
	if (!r)
		r = k->image.format == IMAGE_BZIMAGE ? prepare_bzimage(k, use_cache, err)
						     : prepare_vmlinux(k, err);
	k->ready = !r;
	if (r)
		payload_release(&k->payload);
	return r;
}

static int check_cmdline(const struct kernel *k, struct err *err)
{
	uint32_t max = k->image.format == IMAGE_BZIMAGE ? k->image.header.cmdline_size
							: CMDLINE_MAX_DEFAULT;
	size_t len = strlen(k->cmdline);

	max = MIN(max, PARAMS_CMDLINE_MAX);
	if (len > max)
		return err_set(err, -EINVAL,
			       "command line of %zu bytes: kernel '%s' takes at most %u", len,
			       k->path, max);
	return 0;
}

static int open_copies(struct kernel *k, const struct kernel_config *config, struct err *err)
{
	k->firmware = config->firmware;
	k->placed = config->used_memory;
	k->what = k->firmware ? "firmware" : "kernel";
	k->path = strdup(config->path ? config->path : k->what);
	k->initrd_path = strdup(config->initrd_path ? config->initrd_path : "initrd");
	k->cmdline = strdup(config->cmdline ? config->cmdline : "");
	if (!k->path || !k->initrd_path || !k->cmdline)
		return err_set(err, -ENOMEM, "no memory");
	k->fd = fd_dup(config->kernel_fd);
	if (k->fd < 0)
		return err_set(err, k->fd, "%s '%s': %s", k->what, k->path, err_name(k->fd));
	return initrd_take(config->initrd_fd, k->initrd_path, &k->initrd_fd, err);
}

int kernel_open(struct kernel **ret, const struct kernel_config *config, struct err *err)
{
	struct kernel *k;
	uint64_t bytes;
	int r;

	if (!mem_new(k))
		return err_set(err, -ENOMEM, "no memory");
	k->log = config->log;
	k->mode = config->kaslr;
	k->fd = k->initrd_fd = -1;
	k->cache.dir_fd = k->cache.entry_fd = -1;
	r = open_copies(k, config, err);
	if (r)
		goto fail;
	if (config->cache_dir)
		cache_open(&k->cache, config->cache_dir, config->log);
	r = prepare(k, true, err);
	if (!r)
		r = check_cmdline(k, err);
	if (!r)
		r = initrd_size(k->initrd_fd, k->initrd_path, &bytes, err);
	if (r)
		goto fail;
	*ret = k;
	return 0;
fail:
	kernel_close(k);
	return r;
}

void kernel_close(struct kernel *k)
{
	if (!k)
		return;
	payload_release(&k->payload);
	cache_close(&k->cache);
	fd_close(&k->fd);
	fd_close(&k->initrd_fd);
	free(k->path);
	free(k->initrd_path);
	free(k->cmdline);
	free(k);
}

void kernel_seal(struct kernel *k)
{
	cache_seal(&k->cache);
}

void kernel_describe(const struct kernel *k, struct kernel_info *ret)
{
	static const char *const protocol[] = {
		[PROTOCOL_DIRECT] = "64-bit",
		[PROTOCOL_PVH] = "PVH",
		[PROTOCOL_DECOMPRESSOR] = "decompressor",
	};

	*ret = (struct kernel_info){
		.format = k->firmware                        ? "firmware"
			  : k->image.format == IMAGE_BZIMAGE ? "bzImage"
							     : "vmlinux",
		.protocol = protocol[k->protocol],
		.compression = k->image.codec_name,
		.cached = k->cached,
		.kaslr = k->kaslr,
		.ecam = k->protocol == PROTOCOL_DIRECT && k->elf.ecam,
	};
}

static int build_map(struct placing *p, const struct arch_platform *platform,
		     const struct kernel_tables *tables, struct err *err)
{
	int r = memmap_from_gmem(&p->map, p->gmem);

	/* Memory that can leave is no place for what stays: the guest finds it by ACPI. */
	if (!r && platform->plug_bytes)
		r = memmap_remove(&p->map, platform->plug_gpa, platform->plug_bytes);

	p->free = p->map;
	if (!r)
		r = memmap_set(&p->map, LEGACY_START, LEGACY_END - LEGACY_START, MEMMAP_RESERVED);
	if (!r && platform->pci.ecam_gpa)
		r = memmap_set(&p->map, platform->pci.ecam_gpa, ECAM_BYTES, MEMMAP_RESERVED);
	if (!r)
		r = memmap_remove(&p->free, 0, LEGACY_END);
	for (unsigned int i = 0; !r && i < tables->n_reserved; i++) {
		uint64_t gpa = tables->reserved[i].gpa, bytes = tables->reserved[i].size_bytes;

		r = memmap_set(&p->map, gpa, bytes,
			       tables->reserved[i].acpi ? MEMMAP_ACPI : MEMMAP_RESERVED);
		if (!r)
			r = memmap_remove(&p->free, gpa, bytes);
	}
	if (r)
		return err_set(err, r, "memory map for the kernel: %s", err_name(r));
	memmap_merge(&p->map);
	return 0;
}

/* May its boot parameters point above 4 GiB? PVH has room for it too, but Linux cuts that off. */
static bool takes_high_initrd(const struct kernel *k)
{
	return k->image.format == IMAGE_BZIMAGE &&
	       k->image.header.xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G;
}

/* More memory is advised where it helps: not beyond what this kernel can take. */
static int initrd_too_large(const struct placing *p, uint64_t bytes, uint64_t limit, bool ram_ends,
			    struct err *err)
{
	const char *path = p->kernel->initrd_path;
	uint64_t mib = (bytes + MiB - 1) / MiB;

	if (takes_high_initrd(p->kernel) || (ram_ends && bytes < limit - KERNEL_MIN_GPA))
		return err_set(
			err, -ENOSPC,
			"initrd '%s': %lu MiB do not fit into the guest's %lu MiB of memory; "
			"give it more",
			path, mib, gmem_ram_bytes(p->gmem) / MiB);
	return err_set(err, -ENOSPC,
		       "initrd '%s': %lu MiB do not fit below %lu MiB, which is as far as this "
		       "kernel takes an initrd; make it smaller, or put it on a disk",
		       path, mib, limit / MiB);
}

/* As high as any kernel can reach, out of the way of everything else; higher, if it is too large
 * for that and the kernel says that it can. */
static int place_initrd(struct placing *p, const struct arch_platform *platform, struct err *err)
{
	const struct kernel *k = p->kernel;
	uint64_t bytes, gpa, limit = INITRD_MAX_DEFAULT + 1;
	void *to;
	int r = initrd_size(k->initrd_fd, k->initrd_path, &bytes, err);

	if (r || !bytes)
		return r;
	if (k->image.format == IMAGE_BZIMAGE && k->image.header.initrd_addr_max)
		limit = (uint64_t)k->image.header.initrd_addr_max + 1;
	if (!memmap_place_high(&p->free, bytes, PAGE, MIN(limit, platform->low_bytes), &gpa) &&
	    (!takes_high_initrd(k) || !memmap_place_high(&p->free, bytes, PAGE, UINT64_MAX, &gpa)))
		return initrd_too_large(p, bytes, limit, platform->low_bytes < limit, err);
	to = gmem_host(p->gmem, gpa, bytes, true);
	r = to ? fd_read_full(k->initrd_fd, to, bytes, 0) : -EFAULT;
	if (r)
		return err_set(err, r, "initrd '%s': cannot read it: %s", k->initrd_path,
			       err_name(r));
	p->params.initrd_gpa = gpa;
	p->params.initrd_bytes = bytes;
	r = memmap_remove(&p->free, gpa, align_up(bytes, PAGE));
	return r ? err_set(err, r, "memory map for the kernel: %s", err_name(r)) : 0;
}

static int too_large(const struct placing *p, uint64_t bytes, struct err *err)
{
	uint64_t ram = gmem_ram_bytes(p->gmem);
	const char *beside = p->params.initrd_bytes ? " beside its initrd" : "";

	return err_set(
		err, -ENOSPC,
		"%s '%s': needs %lu MiB of contiguous memory%s; the guest has %lu MiB of memory in "
		"all; give it more",
		p->kernel->what, p->kernel->path, (bytes + MiB - 1) / MiB, beside, ram / MiB);
}

/* At its own address where that is free, else at the lowest that is; anywhere when randomised. */
static int choose_place(const struct placing *p, uint64_t bytes, uint64_t preferred, uint64_t align,
			bool movable, bool random, uint64_t *gpa, struct err *err)
{
	uint64_t places, n;
	int r;

	if (random) {
		/* Not below where it was linked to lie: memory for old DMA stays free. */
		places = memmap_count_places(&p->free, bytes, align, preferred);
		if (places) {
			r = kaslr_random_below(places, &n);
			if (r)
				return err_set(err, r, "no random numbers from the host: %s",
					       err_name(r));
			*gpa = memmap_nth_place(&p->free, bytes, align, preferred, n);
			return 0;
		}
	}
	*gpa = preferred;
	if (memmap_is_ram(&p->free, preferred, bytes))
		return 0;
	if (movable && memmap_place_low(&p->free, bytes, align, KERNEL_MIN_GPA, gpa))
		return 0;
	return too_large(p, bytes, err);
}

static uint8_t *kernel_memory(struct placing *p, uint64_t gpa, uint64_t bytes, struct err *err)
{
	void *hva = gmem_host(p->gmem, gpa, bytes, true);

	if (!hva)
		err_set(err, -EFAULT, "%s '%s': no guest memory at 0x%lx", p->kernel->what,
			p->kernel->path, gpa);
	p->params.kernel_gpa = gpa;
	p->params.kernel_bytes = bytes;
	return hva;
}

/* Is guest memory known to be zero? Only what was never written and no file lies behind. */
static int is_anonymous(void *opaque, const struct gmem_region *region)
{
	(void)opaque;
	return region->fd >= 0 && !(region->flags & GMEM_READONLY);
}

static bool is_fresh(const struct placing *p)
{
	return !p->kernel->placed && !gmem_walk(p->gmem, is_anonymous, NULL);
}

/* The unpacked image, moved in both address spaces. */
static int place_payload(struct placing *p, struct arch_entry *entry, struct err *err)
{
	struct kernel *k = p->kernel;
	const struct vmlinux *v = &k->elf;
	uint64_t align = MAX((uint64_t)k->image.header.kernel_alignment, 2 * MiB), gpa, delta = 0;
	uint8_t *image;
	int r;

	r = choose_place(p, v->span_bytes, v->base_gpa, align, k->image.header.relocatable_kernel,
			 k->kaslr, &gpa, err);
	if (r)
		return r;
	image = kernel_memory(p, gpa, v->span_bytes, err);
	if (!image)
		return err ? err->code : -EFAULT;
	r = payload_place(&k->payload, image, is_fresh(p));
	k->placed = true;
	if (r)
		return r;
	if (k->kaslr) {
		r = kaslr_choose_virtual(v, align, &delta);
		if (r)
			return err_set(err, r, "kernel '%s': no random offset: %s", k->path,
				       err_name(r));
		relocs_apply(&k->payload.relocs, image, delta);
	}
	entry->rip = gpa + v->entry_offset;
	return 0;
}

/* A vmlinux file: each segment at the address it asks for. */
static int place_vmlinux(struct placing *p, struct arch_entry *entry, struct err *err)
{
	struct kernel *k = p->kernel;
	const struct vmlinux *v = &k->elf;
	bool fresh = is_fresh(p);
	uint8_t *image;
	int r;

	if (!memmap_is_ram(&p->free, v->base_gpa, v->span_bytes))
		return too_large(p, v->base_gpa + v->span_bytes, err);
	image = kernel_memory(p, v->base_gpa, v->span_bytes, err);
	if (!image)
		return err ? err->code : -EFAULT;
	k->placed = true;
	if (!fresh)
		memset(image, 0, v->span_bytes);
	for (unsigned int i = 0; i < v->n_segments; i++) {
		const struct vmlinux_segment *s = &v->segment[i];

		if (!s->file_bytes)
			continue;
		r = fd_read_full(k->fd, image + s->image_offset, s->file_bytes,
				 (off_t)s->file_offset);
		if (r)
			return err_set(err, r, "%s '%s': cannot read it: %s", k->what, k->path,
				       err_name(r));
	}
	entry->rip = k->protocol == PROTOCOL_PVH ? v->pvh_entry : v->base_gpa + v->entry_offset;
	return 0;
}

/* The bzImage's protected-mode part, which unpacks itself in the guest. */
static int place_decompressor(struct placing *p, struct arch_entry *entry, struct err *err)
{
	struct kernel *k = p->kernel;
	const struct setup_header *h = &k->image.header;
	uint64_t bytes = MAX((uint64_t)h->init_size, k->image.code_bytes), gpa;
	uint8_t *image;
	int r;

	/* Below 4 GiB: not every such kernel can be above. */
	r = memmap_remove(&p->free, 4 * GiB, (1ull << 52) - 4 * GiB);
	if (!r)
		r = choose_place(p, bytes, h->pref_address, h->kernel_alignment,
				 h->relocatable_kernel, false, &gpa, err);
	if (r)
		return r;
	image = kernel_memory(p, gpa, bytes, err);
	if (!image)
		return err ? err->code : -EFAULT;
	if (k->placed)
		memset(image, 0, bytes);
	k->placed = true;
	r = fd_read_full(k->fd, image, k->image.code_bytes, (off_t)k->image.code_offset);
	if (r)
		return err_set(err, r, "kernel '%s': cannot read it: %s", k->path, err_name(r));
	p->params.code32_start = gpa;
	entry->rip = gpa + IMAGE_ENTRY64_OFFSET;
	return 0;
}

static int place_kernel(struct placing *p, struct arch_entry *entry, struct err *err)
{
	struct kernel *k = p->kernel;
	int r;

	if (k->protocol == PROTOCOL_DECOMPRESSOR)
		return place_decompressor(p, entry, err);
	if (k->image.format == IMAGE_VMLINUX)
		return place_vmlinux(p, entry, err);
	r = place_payload(p, entry, err);
	if (r != -EBADMSG || !k->cached)
		return r;
	/* Once more, from the file itself, and so that it leaves a sound entry. */
	cache_drop(&k->cache, &k->key, "its data is damaged");
	payload_release(&k->payload);
	k->ready = false;
	r = prepare(k, true, err);
	if (!r && k->protocol != PROTOCOL_DIRECT)
		r = err_set(err, -EAGAIN, "kernel '%s': it was changed; try again", k->path);
	return r ? r : place_payload(p, entry, err);
}

/* nokaslr, for a kernel that randomises itself. */
static char *effective_cmdline(const struct kernel *k)
{
	char *line = NULL;

	if (k->protocol != PROTOCOL_DECOMPRESSOR || k->mode != KASLR_OFF ||
	    cmdline_has(k->cmdline, "nokaslr"))
		return strdup(k->cmdline);
	if (asprintf(&line, "nokaslr %s", k->cmdline) < 0)
		return NULL;
	return line;
}

int kernel_load(struct kernel *k, struct gmem *gmem, const struct arch_platform *platform,
		const struct kernel_tables *tables, struct arch_entry *entry, struct err *err)
{
	struct placing p = {.kernel = k, .gmem = gmem};
	cleanup_free char *cmdline = NULL;
	uint64_t rip;
	int r;

	r = prepare(k, true, err);
	if (!r)
		r = build_map(&p, platform, tables, err);
	if (!r)
		r = place_initrd(&p, platform, err);
	*entry = (struct arch_entry){0};
	if (!r)
		r = place_kernel(&p, entry, err);
	if (r)
		goto out;
	cmdline = effective_cmdline(k);
	if (!cmdline) {
		r = err_set(err, -ENOMEM, "no memory");
		goto out;
	}
	p.params.cmdline = cmdline;
	p.params.header = k->image.format == IMAGE_BZIMAGE ? &k->image.header : NULL;
	p.params.memmap = &p.map;
	p.params.rsdp_gpa = tables->rsdp_gpa;
	p.params.kaslr = k->kaslr && k->protocol == PROTOCOL_DIRECT;
	rip = entry->rip;
	r = k->protocol == PROTOCOL_PVH ? params_write_pvh(&p.params, gmem, entry, err)
					: params_write_linux(&p.params, gmem, entry, err);
	entry->rip = rip;
out:
	/* What can be made again is not kept: a running machine holds no second copy of its
	 * kernel. */
	payload_release(&k->payload);
	k->ready = false;
	return r;
}
