/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device tree that an arm64 guest finds its machine by (Devicetree Specification 0.4, the
 * kernel's Documentation/devicetree/bindings), made by libfdt from the description that ACPI tables
 * are made from.
 */
#ifndef FIRMWARE_ARM64_FDT_H
#define FIRMWARE_ARM64_FDT_H

#include <stdint.h>

#include "base/err.h"
#include "firmware/acpi.h"

struct fdt_boot {
	const char *cmdline;
	uint64_t initrd_gpa, initrd_bytes; /* bytes 0: none */
	uint64_t kaslr_seed;               /* 0: the kernel is to lie where it lies */
	uint8_t rng_seed[64];
};

/* Into `tree`, of `bytes`: complete, as long as its header says. -ENOSPC when that is too little.
 * */
int fdt_build(void *tree, unsigned int bytes, const struct acpi_config *config,
	      const struct fdt_boot *boot, struct err *err);

#endif
