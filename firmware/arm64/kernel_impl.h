/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files of firmware/arm64: a kernel that was opened, and where its parts go. */
#ifndef FIRMWARE_ARM64_KERNEL_IMPL_H
#define FIRMWARE_ARM64_KERNEL_IMPL_H

#include <stdbool.h>

#include "firmware/arm64/image.h"
#include "firmware/kernel.h"

struct kernel {
	/* Constant once it is open. */
	const struct log *log;
	char *path, *initrd_path, *cmdline;
	int fd, initrd_fd; /* initrd_fd -1: none */
	enum kaslr_mode kaslr;
	uint64_t text_offset, image_bytes;
	const char *format, *compression;
	/* Of the thread that loads: until it is in guest memory. */
	struct arm64_image image;
};

/* From the beginning of RAM: kernel, initrd, device tree. */
struct arm64_places {
	uint64_t kernel_gpa;
	uint64_t initrd_gpa, initrd_bytes; /* bytes 0: none */
	uint64_t fdt_gpa;
};
enum { ARM64_FDT_BYTES = 2 << 20 }; /* at most, by booting.rst */

/* The same as long as the initrd is. -EINVAL and a message when they do not fit below the end of
 * RAM's first part. */
int arm64_places(const struct kernel *kernel, const struct arch_platform *platform,
		 struct arm64_places *ret, struct err *err);

#endif
