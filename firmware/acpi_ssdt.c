/* SPDX-License-Identifier: Apache-2.0 */
/* The run-time SSDT: names whose values differ by machine. No methods, so nothing to interpret, but
 * where processors come and go: then each has those that are its own, and asl/cpus.asl the rest. */
#include <stdio.h>

#include "base/num.h"
#include "firmware/acpi_impl.h"

/* PCI config ports: the bridge's own, not handed on. */
enum { CONFIG_PORT = 0xcf8, CONFIG_PORTS = 8, RTC_PORT = 0x70 };

static void host_bridge(struct aml *a, const struct acpi_config *config)
{
	const struct pci_windows *w = &config->platform->pci;
	size_t scope = aml_scope(a, "\\_SB.PCI0");

	aml_name(a, "_CRS");
	size_t res = aml_resources(a);
	aml_res_bus(a, 0, config->pci_last_bus);
	if (!config->ecam_only)
		aml_res_io(a, CONFIG_PORT, CONFIG_PORTS);
	if (w->io_bytes)
		aml_res_io_window(a, w->io_base, w->io_bytes);
	if (w->mmio32_bytes)
		aml_res_memory_window(a, w->mmio32_gpa, w->mmio32_bytes);
	if (w->mmio64_bytes)
		aml_res_memory_window(a, w->mmio64_gpa, w->mmio64_bytes);
	aml_resources_end(a, res);

	/* Pins of the slots on bus 0, as pci.h has them: (slot + pin) % 4. No link devices. */
	aml_name(a, "_PRT");
	size_t table = aml_package(a, 32 * 4);
	for (unsigned int slot = 0; slot < 32; slot++) {
		for (unsigned int pin = 0; pin < 4; pin++) {
			size_t entry = aml_package(a, 4);

			aml_integer(a, slot << 16 | 0xffff);
			aml_integer(a, pin);
			aml_integer(a, 0);
			aml_integer(a, config->platform->intx_gsi + (slot + pin) % 4);
			aml_end(a, entry);
		}
	}
	aml_end(a, table);
	aml_end(a, scope);
}

static void board(struct aml *a, const struct acpi_config *config)
{
	/* Without this reservation Linux does not use the ECAM (PCI Firmware 3.3, 4.1.2). */
	size_t scope = aml_scope(a, "\\_SB.MBRD");
	uint64_t ecam = config->platform->pci.ecam_gpa;

	aml_name(a, "_CRS");
	size_t res = aml_resources(a);
	if (ecam + 256 * MiB <= 4 * GiB)
		aml_res_memory32(a, (uint32_t)ecam, 256 * MiB);
	else
		aml_res_memory64(a, ecam, 256 * MiB);
	aml_resources_end(a, res);
	aml_end(a, scope);
}

static void isa_device(struct aml *a, const char *name, const char *eisaid, const char *hid,
		       unsigned int uid, uint16_t port, uint8_t ports, uint32_t gsi)
{
	size_t device = aml_device(a, name);

	aml_name(a, "_HID");
	if (eisaid)
		aml_eisaid(a, eisaid);
	else
		aml_string(a, hid);
	aml_name(a, "_UID");
	aml_integer(a, uid);
	aml_name(a, "_CRS");
	size_t res = aml_resources(a);
	aml_res_io(a, port, ports);
	if (gsi)
		aml_res_irq(a, gsi);
	aml_resources_end(a, res);
	aml_end(a, device);
}

static const char *processor_name(char name[static 8], unsigned int number)
{
	snprintf(name, 8, "C%03X", number & 0xfff);
	return name;
}

/* It is there or not, and the guest can give it up: all but the first, with which it starts. */
static void methods(struct aml *a, const struct acpi_config *config, unsigned int number)
{
	uint8_t e[ACPI_PROCESSOR_BYTES];
	char word[] = {'C', 'I', 'N', (char)('0' + number / 32), '\0'};
	size_t method;

	/* The MADT says who is there when the guest starts: this is the entry of one that is. */
	aml_name(a, "_MAT");
	aml_buffer(a, e, acpi_processor(e, config->topology, number, true));
	method = aml_method(a, "_STA", 0);
	aml_return(a);
	aml_path(a, "CSTA");
	aml_path(a, word);
	aml_integer(a, number % 32);
	aml_end(a, method);
	if (!number)
		return;
	method = aml_method(a, "_EJ0", 1);
	aml_store(a);
	aml_integer(a, number);
	aml_path(a, "CEJC");
	aml_end(a, method);
	method = aml_method(a, "_OST", 3);
	aml_path(a, "COST");
	aml_integer(a, number);
	aml_arg(a, 0);
	aml_arg(a, 1);
	aml_end(a, method);
}

/* CNTF (number, event) */
static void notify(struct aml *a, unsigned int cpus)
{
	size_t method = aml_method(a, "CNTF", 2);
	char name[8];

	for (unsigned int i = 0; i < cpus; i++) {
		size_t same = aml_if(a);

		aml_equal(a);
		aml_arg(a, 0);
		aml_integer(a, i);
		aml_notify(a);
		aml_path(a, processor_name(name, i));
		aml_arg(a, 1);
		aml_end(a, same);
	}
	aml_end(a, method);
}

static void processors(struct aml *a, const struct acpi_config *config)
{
	unsigned int cpus = config->topology->cpus;
	char name[8];

	for (unsigned int i = 0; i < cpus; i++) {
		size_t device = aml_device(a, processor_name(name, i));

		aml_name(a, "_HID");
		aml_string(a, "ACPI0007");
		aml_name(a, "_UID"); /* as in the MADT */
		aml_integer(a, i);
		if (config->cpus_port)
			methods(a, config, i);
		aml_end(a, device);
	}
	if (!config->cpus_port)
		return;
	aml_name(a, "CPRT");
	aml_integer(a, config->cpus_port);
	notify(a, cpus);
}

void acpi_ssdt(struct aml *a, const struct acpi_config *config)
{
	uint8_t header[ACPI_HEADER_BYTES];

	acpi_header(header, "SSDT", 2);
	aml_bytes(a, header, sizeof(header));

	host_bridge(a, config);
	board(a, config);

	size_t scope = aml_scope(a, "\\_SB");
	isa_device(a, "RTC", "PNP0B00", NULL, 0, RTC_PORT, 2, config->rtc_gsi);
	if (config->serial_port)
		isa_device(a, "COM1", "PNP0501", NULL, 1, config->serial_port, 8,
			   config->serial_gsi);
	if (config->panic_port)
		isa_device(a, "PEVT", NULL, "QEMU0001", 0, config->panic_port, 1, 0);
	processors(a, config);
	aml_end(a, scope);

	/* SLP_TYP for PM1a and PM1b, two reserved (ACPI 6.5, 7.4.2). */
	aml_name(a, "\\_S5");
	size_t s5 = aml_package(a, 4);
	aml_integer(a, config->s5_type);
	aml_integer(a, config->s5_type);
	aml_integer(a, 0);
	aml_integer(a, 0);
	aml_end(a, s5);
}
