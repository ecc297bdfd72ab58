/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI and SMBIOS tables, from a plain description of the platform. Fixed AML is written in ASL and
 * compiled by iasl in the build; tables are built append-only, checksums last.
 *
 * Threads: the machine's thread, before vCPUs run; again on each machine reset.
 */
#ifndef FIRMWARE_ACPI_H
#define FIRMWARE_ACPI_H

#include "base/err.h"
#include "core/arch.h"
#include "core/gmem.h"
#include "firmware/kernel.h"

/* A virtual IOMMU (a PCI function on bus 0) and the functions behind it, by requester id. */
struct acpi_viommu {
	uint16_t requester;
	const uint16_t *endpoints;
	unsigned int n;
};

struct acpi_config {
	const struct arch_platform *platform;
	const struct arch_topology *topology;
	uint16_t pm_port; /* PM1 event block; control at + 4, timer at + 8 */
	uint16_t reset_port;
	uint8_t reset_value;
	uint8_t s5_type;      /* what SLP_TYP must be to power off */
	uint16_t serial_port; /* 0: none */
	uint32_t serial_gsi;
	uint16_t panic_port;  /* 0: none */
	uint8_t pci_last_bus; /* buses 0 to this one */
	bool ecam_only;       /* config space cannot be reached by ports */
	uint32_t rtc_gsi;
	/* Where processors come and go: the registers of asl/cpus.asl, which begin with GPE0's
	 * block, and who is in the machine, 32 bits in a word. 0: all of the topology are, for
	 * good. */
	uint16_t cpus_port;
	uint32_t cpus_in[8];
	/* Where memory comes and goes: the registers of asl/memory.asl, which begin with GPE1's
	 * block, and its units, one behind the other. 0: none does. */
	uint16_t memory_port;
	uint64_t memory_gpa, memory_unit_bytes;
	unsigned int memory_units;        /* to 32 */
	const struct acpi_viommu *viommu; /* NULL: none */
	/* SMBIOS */
	uint8_t uuid[16];                             /* as displayed, first byte first */
	const char *serial;                           /* NULL: none */
	const char *manufacturer, *product, *version; /* NULL: "hospes", "hospes", the version */
	const char *const *oem_strings;               /* of any length; none is empty */
	unsigned int n_oem_strings;                   /* to 255 */
};

/* Write RSDP, XSDT, FADT, MADT, MCFG, DSDT, SSDT (more where processors or memory come and go),
 * VIOT with a virtual IOMMU, and SMBIOS into guest memory. */
int acpi_build(struct gmem *gmem, const struct acpi_config *config, struct err *err);

/* The machine is a copy of one that the guest has run in: another generation ID (VM Generation ID,
 * in the DSDT) in its memory. The guest hears of it by PLATFORM_GENERATION_GSI. */
int acpi_new_generation(struct gmem *gmem);

/* Their places, the same on every platform: below 1 MiB. */
void acpi_places(struct kernel_tables *ret);

#endif
