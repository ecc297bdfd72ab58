/* SPDX-License-Identifier: Apache-2.0 */
/* The run-time SSDT: names whose values differ by machine. No methods, so nothing to interpret, but
 * where processors or memory come and go: then each has those that are its own, and asl/ the
 * rest. */
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

/* What comes and goes: C... are processors, M... units of memory, whose methods are in
 * asl/cpus.asl and asl/memory.asl. */
static const char *part_name(char name[static 8], char kind, unsigned int number)
{
	snprintf(name, 8, "%c%03X", kind, number & 0xfff);
	return name;
}

static const char *method_name(char name[static 5], char kind, const char *rest)
{
	snprintf(name, 5, "%c%s", kind, rest);
	return name;
}

/* It is there or not. */
static void is_there(struct aml *a, char kind, unsigned int number)
{
	const char word[] = {'I', 'N', (char)('0' + number / 32), '\0'};
	size_t method = aml_method(a, "_STA", 0);
	char name[5];

	aml_return(a);
	aml_path(a, method_name(name, kind, "STA"));
	aml_path(a, method_name(name, kind, word));
	aml_integer(a, number % 32);
	aml_end(a, method);
}

/* The guest can give it up. */
static void can_leave(struct aml *a, char kind, unsigned int number)
{
	size_t method = aml_method(a, "_EJ0", 1);
	char name[5];

	aml_store(a);
	aml_integer(a, number);
	aml_path(a, method_name(name, kind, "EJC"));
	aml_end(a, method);
	method = aml_method(a, "_OST", 3);
	aml_path(a, method_name(name, kind, "OST"));
	aml_integer(a, number);
	aml_arg(a, 0);
	aml_arg(a, 1);
	aml_end(a, method);
}

/* CNTF or MNTF (number, event), and CPRT or MPRT. */
static void notify(struct aml *a, char kind, unsigned int parts, uint16_t port)
{
	size_t method;
	char name[8];

	aml_name(a, method_name(name, kind, "PRT"));
	aml_integer(a, port);
	method = aml_method(a, method_name(name, kind, "NTF"), 2);
	for (unsigned int i = 0; i < parts; i++) {
		size_t same = aml_if(a);

		aml_equal(a);
		aml_arg(a, 0);
		aml_integer(a, i);
		aml_notify(a);
		aml_path(a, part_name(name, kind, i));
		aml_arg(a, 1);
		aml_end(a, same);
	}
	aml_end(a, method);
}

/* All but the first, with which the guest starts, can leave. */
static void plug_processor(struct aml *a, const struct acpi_config *config, unsigned int number)
{
	uint8_t e[ACPI_PROCESSOR_BYTES];

	/* The MADT says who is there when the guest starts: this is the entry of one that is. */
	aml_name(a, "_MAT");
	aml_buffer(a, e, acpi_processor(e, config->topology, number, true));
	is_there(a, 'C', number);
	if (number)
		can_leave(a, 'C', number);
}

static void processors(struct aml *a, const struct acpi_config *config)
{
	unsigned int cpus = config->topology->cpus;
	char name[8];

	for (unsigned int i = 0; i < cpus; i++) {
		size_t device = aml_device(a, part_name(name, 'C', i));

		aml_name(a, "_HID");
		aml_string(a, "ACPI0007");
		aml_name(a, "_UID"); /* as in the MADT */
		aml_integer(a, i);
		if (config->cpus_port)
			plug_processor(a, config, i);
		aml_end(a, device);
	}
	if (config->cpus_port)
		notify(a, 'C', cpus, config->cpus_port);
}

static void memory(struct aml *a, const struct acpi_config *config)
{
	uint64_t bytes = config->memory_unit_bytes;
	char name[8];

	if (!config->memory_port)
		return;
	for (unsigned int i = 0; i < config->memory_units; i++) {
		size_t device = aml_device(a, part_name(name, 'M', i)), res;

		aml_name(a, "_HID");
		aml_eisaid(a, "PNP0C80");
		aml_name(a, "_UID");
		aml_integer(a, i);
		aml_name(a, "_CRS");
		res = aml_resources(a);
		aml_res_ram(a, config->memory_gpa + i * bytes, bytes);
		aml_resources_end(a, res);
		is_there(a, 'M', i);
		can_leave(a, 'M', i);
		aml_end(a, device);
	}
	notify(a, 'M', config->memory_units, config->memory_port);
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
	memory(a, config);
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
