/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files that build firmware tables, and included by no others. */
#ifndef FIRMWARE_ACPI_IMPL_H
#define FIRMWARE_ACPI_IMPL_H

#include "firmware/acpi.h"
#include "firmware/acpi_aml.h"

enum { ACPI_HEADER_BYTES = 36 };

/* A table's common header with length and checksum 0 for now (ACPI 6.5, 5.2.6). */
void acpi_header(uint8_t h[static ACPI_HEADER_BYTES], const char signature[static 4],
		 uint8_t revision);

/* The MADT's entry of a processor, and its length. It is enabled, or else online capable. */
enum { ACPI_PROCESSOR_BYTES = 16 };
size_t acpi_processor(uint8_t e[static ACPI_PROCESSOR_BYTES], const struct arch_topology *topology,
		      unsigned int number, bool enabled);

/* Append the SSDT that holds this machine's data. Its length and checksum are the caller's. */
void acpi_ssdt(struct aml *a, const struct acpi_config *config);

/* The _SM3_ entry point and the structures, to lie at gpa: their bytes and how many. 0 or
 * -E2BIG when they need more than `bytes`. */
int smbios_build(const struct acpi_config *config, uint64_t gpa, uint8_t *area, size_t bytes,
		 size_t *used);

#endif
