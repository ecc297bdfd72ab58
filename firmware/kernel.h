/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Boot a Linux kernel directly: recognise the image, unpack it on the host (through a cache), place
 * it with kernel address space randomisation applied, build boot parameters, page tables and the
 * entry state.
 *
 *   file ── image.c: what is it? ─► bzImage ─► unpack.c (gzip xz zstd lz4) ─► cache.c ─► ELF
 *                                 └► vmlinux (PVH note, else 64-bit entry)     └► kaslr.c: relocate
 *                  params.c: zero page, memory map, initrd, command line ◄──┘
 *
 * The file is hostile: it may be cut short, have absurd header fields or segments outside memory;
 * each error is one clear line.
 *
 * Threads: one at a time, which need not be the same, before vCPUs run; again on each machine reset
 * (a fresh random offset each time).
 */
#ifndef FIRMWARE_KERNEL_H
#define FIRMWARE_KERNEL_H

#include "base/err.h"
#include "base/log.h"
#include "core/arch.h"
#include "core/gmem.h"

enum kaslr_mode {
	KASLR_AUTO, /* on where the image carries relocations and the command line has no nokaslr */
	KASLR_ON,   /* an error where it cannot be */
	KASLR_OFF,
};

struct kernel_config {
	const struct log *log;
	const char *path; /* for messages */
	int kernel_fd;
	int initrd_fd; /* -1: none */
	const char *initrd_path;
	const char *cmdline;
	enum kaslr_mode kaslr;
	const char *cache_dir; /* NULL: no cache */
	bool used_memory;      /* guest memory is not fresh: a guest has run in it */
	bool firmware;         /* no kernel but UEFI, entered by PVH; no initrd, no command line */
};

/* Opened, recognised, unpacked: what does not change from one boot to the next. */
struct kernel;
int kernel_open(struct kernel **ret, const struct kernel_config *config, struct err *err);
void kernel_close(struct kernel *kernel);
/* After this, kernel_load opens nothing by name: it has the kernel, the initrd, and the cache's
 * entry of them, if there was one. */
void kernel_seal(struct kernel *kernel);

/* What was done, for the log and the status. */
struct kernel_info {
	const char *format;      /* "bzImage", "vmlinux", "firmware" */
	const char *protocol;    /* "64-bit", "PVH", "decompressor" */
	const char *compression; /* "zstd", …, or "none" */
	bool cached;             /* the unpacked image came from the cache */
	bool kaslr;
	bool ecam; /* known to reach PCI config space without the ports 0xcf8 and 0xcfc */
};
void kernel_describe(const struct kernel *kernel, struct kernel_info *ret);

/* The places of the firmware tables (gpa), which the kernel is given. */
struct kernel_tables {
	uint64_t rsdp_gpa;
	/* Ranges of guest memory that the tables occupy: reported as reserved / ACPI data. */
	struct {
		uint64_t gpa, size_bytes;
		bool acpi;
	} reserved[8];
	unsigned int n_reserved;
};

/* Write the kernel into guest memory: `entry` for the boot processor. The first load assumes
 * that anonymous memory is still zero, as it was mapped (untouched pages cost nothing); later ones
 * clear what the kernel expects to be zero. So use one struct kernel for the life of a machine's
 * memory. */
int kernel_load(struct kernel *kernel, struct gmem *gmem, const struct arch_platform *platform,
		const struct kernel_tables *tables, struct arch_entry *entry, struct err *err);

#endif
