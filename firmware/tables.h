/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guest knows its machine by: ACPI and SMBIOS tables on x86-64 (acpi.h), a device tree on
 * arm64 (arm64/fdt.h). Both are made from the description that acpi.h has.
 *
 * Threads: the machine's thread, before vCPUs run; again on each machine reset. The kernel may be
 * on its way into memory meanwhile.
 */
#ifndef FIRMWARE_TABLES_H
#define FIRMWARE_TABLES_H

#include "base/err.h"
#include "core/gmem.h"
#include "firmware/acpi.h"
#include "firmware/kernel.h"

int tables_build(struct gmem *gmem, const struct acpi_config *config, const struct kernel *kernel,
		 struct err *err);

#endif
