/* SPDX-License-Identifier: Apache-2.0 */
/* ACPI and SMBIOS tables as a guest finds them: reachable, summing to zero, and such that iasl
 * decompiles each without a complaint. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/le.h"
#include "base/num.h"
#include "core/gmem.h"
#include "firmware/acpi.h"

struct machine {
	struct log log;
	struct gmem *gmem;
	struct arch_platform platform;
	struct arch_topology topology;
	struct acpi_config config;
	struct kernel_tables tables;
};

static void machine_init(struct machine *m, unsigned int sockets, unsigned int cores,
			 unsigned int threads)
{
	struct err err = ERR_INIT;

	*m = (struct machine){
		.platform = {.phys_bits = 40,
			     .low_bytes = 2 * GiB,
			     .high_gpa = 4 * GiB,
			     .high_bytes = 6 * GiB,
			     .pci = {.ecam_gpa = 0xb0000000,
				     .mmio32_gpa = 0xc0000000,
				     .mmio32_bytes = 0x3c000000,
				     .mmio64_gpa = 64 * GiB,
				     .mmio64_bytes = 64 * GiB,
				     .io_base = 0x1000,
				     .io_bytes = 0xf000},
			     .intx_gsi = 16,
			     .sci_gsi = 9},
		.topology = {sockets * cores * threads, sockets, cores, threads},
		.config = {.pm_port = 0x600,
			   .reset_port = 0xcf9,
			   .reset_value = 6,
			   .s5_type = 5,
			   .serial_port = 0x3f8,
			   .serial_gsi = 4,
			   .panic_port = 0x505,
			   .pci_last_bus = 8,
			   .rtc_gsi = 8,
			   .uuid = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99,
				    0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff},
			   .serial = "S-1234"},
	};
	m->config.platform = &m->platform;
	m->config.topology = &m->topology;
	struct gmem_region_config low = {.name = "low",
					 .size_bytes = 2 * MiB,
					 .backing = GMEM_ANONYMOUS,
					 .numa_node = -1,
					 .fd = -1};
	cr_assert_eq(gmem_create(&m->gmem, &m->log, &err), 0, "%s", err.text);
	cr_assert_eq(gmem_begin(m->gmem, &err), 0, "%s", err.text);
	cr_assert_eq(gmem_add(m->gmem, &low, &err), 0, "%s", err.text);
	cr_assert_eq(gmem_commit(m->gmem, &err), 0, "%s", err.text);
}

/* Processors come and go, and these are there: every third. */
static void come_and_go(struct machine *m)
{
	m->config.cpus_port = 0x640;
	for (unsigned int i = 0; i < m->topology.cpus; i += 3)
		m->config.cpus_in[i / 32] |= 1u << i % 32;
}

/* Memory comes and goes, in so many units. */
static void memory_comes_and_goes(struct machine *m, unsigned int units)
{
	m->config.memory_port = 0x680;
	m->config.memory_gpa = 5 * GiB;
	m->config.memory_unit_bytes = 256 * MiB;
	m->config.memory_units = units;
}

static bool is_in(unsigned int number)
{
	return number % 3 == 0;
}

static void machine_build(struct machine *m)
{
	struct err err = ERR_INIT;

	cr_assert_eq(acpi_build(m->gmem, &m->config, &err), 0, "%s", err.text);
	acpi_places(&m->tables);
}

static const uint8_t *at(struct machine *m, uint64_t gpa, size_t len)
{
	bool reserved = false;
	const uint8_t *p = gmem_host(m->gmem, gpa, len, false);

	cr_assert_not_null(p, "nothing at 0x%lx", gpa);
	for (unsigned int i = 0; i < m->tables.n_reserved; i++)
		reserved |= range_inside(gpa, len, m->tables.reserved[i].gpa,
					 m->tables.reserved[i].size_bytes);
	cr_assert(reserved, "0x%lx is not said to be reserved", gpa);
	return p;
}

static uint8_t sum(const uint8_t *p, size_t n)
{
	uint8_t s = 0;

	while (n--)
		s = (uint8_t)(s + *p++);
	return s;
}

/* The table with this signature, of several the one of this number, its checksum verified; NULL:
 * there is none. */
static const uint8_t *find_table(struct machine *m, const char *signature, unsigned int number)
{
	const uint8_t *rsdp = at(m, m->tables.rsdp_gpa, 36), *t;
	const uint8_t *xsdt = at(m, load_le64(rsdp + 24), 36);
	uint32_t len = load_le32(xsdt + 4);

	xsdt = at(m, load_le64(rsdp + 24), len);
	for (uint32_t i = 36; i < len; i += 8) {
		uint64_t gpa = load_le64(xsdt + i);

		t = at(m, gpa, 36);
		if (memcmp(t, "FACP", 4) == 0 && strcmp(signature, "DSDT") == 0) {
			gpa = load_le64(t + 140);
			t = at(m, gpa, 36);
		} else if (memcmp(t, "FACP", 4) == 0 && strcmp(signature, "FACS") == 0) {
			return at(m, load_le32(t + 36), 64); /* has no checksum */
		}
		if (memcmp(t, signature, 4) == 0 && !number--) {
			t = at(m, gpa, load_le32(t + 4));
			cr_assert_eq(sum(t, load_le32(t + 4)), 0, "checksum of %s", signature);
			return t;
		}
	}
	return NULL;
}

/* It must exist. */
static const uint8_t *table(struct machine *m, const char *signature)
{
	const uint8_t *t = find_table(m, signature, 0);

	cr_assert_not_null(t, "no table %s", signature);
	return t;
}

static void machine_done(struct machine *m)
{
	gmem_destroy(m->gmem);
}

static size_t append(const char *path, char *text, size_t used, size_t size)
{
	FILE *f = fopen(path, "r");

	if (f) {
		used += fread(text + used, 1, size - 1 - used, f);
		fclose(f);
	}
	text[used] = 0;
	return used;
}

/* Run iasl in the current folder: its exit status, and all that it says of a table and makes of it.
 * with, and: other tables that this one refers to, or NULL. */
static int decompile(const char *name, const char *with, const char *and, char *text, size_t size)
{
	char table[32], source[32], with_table[32], and_table[32];
	int status;

	snprintf(table, sizeof(table), "%s.dat", name);
	snprintf(source, sizeof(source), "%s.dsl", name);
	snprintf(with_table, sizeof(with_table), "%s.dat", with ? with : name);
	snprintf(and_table, sizeof(and_table), "%s.dat", and? and : name);
	fflush(NULL);
	pid_t child = fork();
	if (child == 0) {
		if (!freopen("said", "w", stdout) || dup2(1, 2) < 0)
			_exit(127);
		if (and)
			execl(getenv("IASL"), "iasl", "-e", with_table, "-e", and_table, "-d",
			      table, NULL);
		else if (with)
			execl(getenv("IASL"), "iasl", "-e", with_table, "-d", table, NULL);
		else
			execl(getenv("IASL"), "iasl", "-d", table, NULL);
		_exit(127);
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	size_t used = append("said", text, 0, size);
	append(source, text, used, size);
	cr_assert_eq(unlink(source), 0, "iasl wrote no %s: %s", source, text);
	return status;
}

static void expect_clean(const char *name, const char *with, const char *and)
{
	static const char *const complaints[] = {"Warning", "Error",     "Invalid",    "Unknown",
						 "Unable",  "Could not", "unresolved", "Remark"};
	static char text[4 << 20];

	cr_assert_eq(decompile(name, with, and, text, sizeof(text)), 0, "%s: %s", name, text);
	for (size_t i = 0; i < ARRAY_SIZE(complaints); i++)
		cr_assert_null(strstr(text, complaints[i]), "%s: '%s' in:\n%s", name, complaints[i],
			       text);
}

static void save(const char *name, const uint8_t *t)
{
	char path[32];

	snprintf(path, sizeof(path), "%s.dat", name);
	FILE *f = fopen(path, "w");
	cr_assert_not_null(f);
	cr_assert_eq(fwrite(t, 1, load_le32(t + 4), f), load_le32(t + 4));
	fclose(f);
}

static void all_decompile(unsigned int sockets, unsigned int cores, unsigned int threads)
{
	static const char *const names[] = {"DSDT", "FACP", "APIC", "MCFG", "SSDT", "FACS"};
	char dir[] = "/tmp/hospes-acpi-XXXXXX", path[32];
	struct machine m;

	cr_assert_not_null(mkdtemp(dir));
	cr_assert_eq(chdir(dir), 0);
	machine_init(&m, sockets, cores, threads);
	machine_build(&m);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		save(names[i], table(&m, names[i]));
		expect_clean(names[i], NULL, NULL);
	}
	/* and together: what the SSDT extends is in the DSDT */
	expect_clean("SSDT", "DSDT", NULL);
	machine_done(&m);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "%s.dat", names[i]);
		unlink(path);
	}
	unlink("said");
	cr_assert_eq(rmdir(dir), 0);
}

/* The two SSDTs refer to each other, so they are looked at together. */
static void plug_decompiles(unsigned int sockets, unsigned int cores, unsigned int threads)
{
	char dir[] = "/tmp/hospes-acpi-XXXXXX";
	struct machine m;

	cr_assert_not_null(mkdtemp(dir));
	cr_assert_eq(chdir(dir), 0);
	machine_init(&m, sockets, cores, threads);
	come_and_go(&m);
	machine_build(&m);
	save("DSDT", table(&m, "DSDT"));
	save("FACP", table(&m, "FACP"));
	save("APIC", table(&m, "APIC"));
	save("SSDT", table(&m, "SSDT"));
	save("CPUS", find_table(&m, "SSDT", 1));
	expect_clean("FACP", NULL, NULL);
	expect_clean("APIC", NULL, NULL);
	expect_clean("SSDT", "DSDT", "CPUS");
	expect_clean("CPUS", "DSDT", "SSDT");
	machine_done(&m);
	cr_assert_eq(system("rm -- *.dat said"), 0);
	cr_assert_eq(rmdir(dir), 0);
}

static void memory_decompiles(unsigned int units)
{
	char dir[] = "/tmp/hospes-acpi-XXXXXX";
	struct machine m;

	cr_assert_not_null(mkdtemp(dir));
	cr_assert_eq(chdir(dir), 0);
	machine_init(&m, 1, 2, 1);
	memory_comes_and_goes(&m, units);
	machine_build(&m);
	save("DSDT", table(&m, "DSDT"));
	save("FACP", table(&m, "FACP"));
	save("SSDT", table(&m, "SSDT"));
	save("MEMORY", find_table(&m, "SSDT", 1));
	expect_clean("FACP", NULL, NULL);
	expect_clean("SSDT", "DSDT", "MEMORY");
	expect_clean("MEMORY", "DSDT", "SSDT");
	machine_done(&m);
	cr_assert_eq(system("rm -- *.dat said"), 0);
	cr_assert_eq(rmdir(dir), 0);
}

Test(acpi, tables_of_memory_that_comes_and_goes_decompile_clean, .timeout = 100)
{
	memory_decompiles(1);
	memory_decompiles(17);
	memory_decompiles(32);
}

Test(acpi, tables_of_cpus_that_come_and_go_decompile_clean, .timeout = 100)
{
	plug_decompiles(1, 2, 1);
	plug_decompiles(1, 16, 1);
	plug_decompiles(255, 1, 1);
	plug_decompiles(17, 5, 3);
}

Test(acpi, tables_of_one_cpu_decompile_clean, .timeout = 60)
{
	all_decompile(1, 1, 1);
}

Test(acpi, tables_of_four_cpus_decompile_clean, .timeout = 60)
{
	all_decompile(1, 2, 2);
}

Test(acpi, tables_of_255_cpus_decompile_clean, .timeout = 60)
{
	all_decompile(255, 1, 1);
}

Test(acpi, tables_of_cpus_with_large_ids_decompile_clean, .timeout = 60)
{
	all_decompile(17, 5, 3);
}

Test(acpi, rsdp_sums_to_zero_over_both_of_its_lengths)
{
	struct machine m;

	machine_init(&m, 1, 1, 1);
	machine_build(&m);
	const uint8_t *rsdp = at(&m, m.tables.rsdp_gpa, 36);
	cr_assert_eq(memcmp(rsdp, "RSD PTR ", 8), 0);
	cr_assert_eq(rsdp[15], 2);
	cr_assert_eq(sum(rsdp, 20), 0);
	cr_assert_eq(sum(rsdp, 36), 0);
	cr_assert_eq(m.tables.rsdp_gpa % 16, 0);
	cr_assert(range_inside(m.tables.rsdp_gpa, 36, 0xe0000, 0x20000), "where guests scan");
	machine_done(&m);
}

Test(acpi, fadt_names_the_registers_and_denies_legacy_hardware)
{
	struct machine m;

	machine_init(&m, 1, 1, 1);
	machine_build(&m);
	const uint8_t *f = table(&m, "FACP");
	cr_assert_eq(load_le16(f + 46), 9);
	cr_assert_eq(load_le32(f + 56), 0x600);
	cr_assert_eq(load_le64(f + 152), 0x600);
	cr_assert_eq(load_le32(f + 64), 0x604);
	cr_assert_eq(load_le64(f + 176), 0x604);
	cr_assert_eq(load_le32(f + 76), 0x608);
	cr_assert_eq(load_le64(f + 212), 0x608);
	cr_assert(load_le32(f + 112) & 1 << 8, "the timer has 32 bits");
	cr_assert_eq(f[88], 4);
	cr_assert_eq(f[89], 2);
	cr_assert_eq(f[91], 4);
	cr_assert_eq(load_le64(f + 120), 0xcf9);
	cr_assert_eq(f[128], 6);
	cr_assert_eq(load_le16(f + 109), 1 << 2, "no 8042, no VGA, but a clock");
	cr_assert(load_le32(f + 112) & 1 << 10, "reset register");
	cr_assert_eq(load_le32(f + 112) & (1 << 4 | 1 << 20), 0,
		     "fixed power button, fixed hardware");
	cr_assert_eq(load_le32(f + 36) % 64, 0, "FACS alignment");
	machine_done(&m);
}

/* The few instructions that are there, as a processor in real mode runs them. */
Test(acpi, the_bios_entry_writes_the_reset_register_with_a_rising_bit)
{
	struct machine m;
	const uint8_t *code;
	unsigned int dx = 0, al = 0xff, written[2] = {0xff, 0xff}, n = 0;

	machine_init(&m, 1, 1, 1);
	machine_build(&m);
	code = at(&m, 0xffff0, 16);
	while (*code != 0xf4) {
		if (*code == 0xba) {
			dx = load_le16(code + 1);
			code += 3;
		} else if (*code == 0xb0) {
			al = code[1];
			code += 2;
		} else if (code[0] == 0x30 && code[1] == 0xc0) {
			al = 0;
			code += 2;
		} else {
			cr_assert_eq(*code, 0xee);
			cr_assert_lt(n, 2u);
			cr_assert_eq(dx, 0xcf9u);
			written[n++] = al;
			code++;
		}
	}
	cr_expect_eq(n, 2u);
	cr_expect_eq(written[0], 0u);
	cr_expect_eq(written[1], 6u);
	cr_expect_eq(code[1], 0xeb, "and again, after an NMI");
	machine_done(&m);
}

/* ACPI 6.5, table 5.22: enabled, or online capable. */
static uint32_t flags_of(bool plug, unsigned int number)
{
	return !plug || is_in(number) ? 1 << 0 : 1 << 1;
}

static void check_madt(unsigned int sockets, unsigned int cores, unsigned int threads, bool plug)
{
	struct machine m;
	unsigned int cpus = 0, ioapics = 0, overrides = 0;

	machine_init(&m, sockets, cores, threads);
	if (plug)
		come_and_go(&m);
	machine_build(&m);
	const uint8_t *t = table(&m, "APIC");
	for (const uint8_t *e = t + 44, *end = t + load_le32(t + 4); e < end; e += e[1]) {
		cr_assert_geq(e[1], 2);
		cr_assert_leq(e[1], end - e);
		switch (e[0]) {
		case 0:
			cr_assert_eq(e[2], cpus);
			cr_assert_eq(load_le32(e + 4), flags_of(plug, cpus));
			cr_assert_eq(e[3], arch_cpu_id(&m.topology, cpus++));
			cr_assert_lt(e[3], 255);
			break;
		case 9:
			cr_assert_eq(load_le32(e + 12), cpus);
			cr_assert_eq(load_le32(e + 8), flags_of(plug, cpus));
			cr_assert_eq(load_le32(e + 4), arch_cpu_id(&m.topology, cpus++));
			break;
		case 1:
			ioapics++;
			break;
		case 2:
			overrides++;
			if (e[3] == 0)
				cr_assert_eq(load_le32(e + 4), 2);
			else
				cr_assert_eq(load_le16(e + 8), 0x0d);
			break;
		default:
			break;
		}
	}
	cr_assert_eq(cpus, m.topology.cpus);
	cr_assert_eq(ioapics, 1);
	cr_assert_eq(overrides, 2);
	machine_done(&m);
}

Test(acpi, madt_lists_every_cpu_by_its_id)
{
	check_madt(1, 1, 1, false);
	check_madt(2, 3, 2, false);
	check_madt(255, 1, 1, false);
	check_madt(17, 5, 3, false); /* ids beyond 8 bits */
}

Test(acpi, madt_says_which_cpus_are_there_and_which_may_come)
{
	check_madt(2, 3, 2, true);
	check_madt(255, 1, 1, true);
	check_madt(17, 5, 3, true);
}

Test(acpi, fadt_has_an_event_block_where_cpus_come_and_go)
{
	struct machine m;
	const uint8_t *f;

	machine_init(&m, 1, 4, 1);
	machine_build(&m);
	f = table(&m, "FACP");
	cr_assert_eq(load_le32(f + 80) + f[92] + load_le64(f + 224), 0u);
	cr_assert_null(find_table(&m, "SSDT", 1), "the second SSDT is for them alone");
	come_and_go(&m);
	machine_build(&m);
	f = table(&m, "FACP");
	cr_assert_eq(load_le32(f + 80), 0x640u);
	cr_assert_eq(f[92], 2);
	cr_assert_eq(f[221], 16, "bits");
	cr_assert_eq(load_le64(f + 224), 0x640u);
	cr_assert_not_null(find_table(&m, "SSDT", 1));
	machine_done(&m);
}

Test(acpi, fadt_has_another_event_block_where_memory_comes_and_goes)
{
	struct machine m;
	const uint8_t *f;

	machine_init(&m, 1, 4, 1);
	machine_build(&m);
	f = table(&m, "FACP");
	cr_assert_eq(load_le32(f + 84) + f[93] + f[94] + load_le64(f + 236), 0u);
	memory_comes_and_goes(&m, 4);
	machine_build(&m);
	f = table(&m, "FACP");
	cr_assert_eq(load_le32(f + 80) + f[92], 0u, "the other is processors'");
	cr_assert_eq(load_le32(f + 84), 0x680u);
	cr_assert_eq(f[93], 2);
	cr_assert_eq(f[94], 8, "its events are numbered from");
	cr_assert_eq(f[233], 16, "bits");
	cr_assert_eq(load_le64(f + 236), 0x680u);
	come_and_go(&m);
	machine_build(&m);
	cr_assert_not_null(find_table(&m, "SSDT", 2), "one for each");
	machine_done(&m);
}

Test(acpi, mcfg_gives_the_ecam)
{
	struct machine m;

	machine_init(&m, 1, 1, 1);
	machine_build(&m);
	const uint8_t *t = table(&m, "MCFG");
	cr_assert_eq(load_le32(t + 4), 60);
	cr_assert_eq(load_le64(t + 44), 0xb0000000);
	cr_assert_eq(t[54], 0);
	cr_assert_eq(t[55], 8);
	machine_done(&m);
}

/* (The iasl of Debian 12 does not know this table yet.) */
Test(acpi, viot_names_the_virtual_iommu_and_what_is_behind_it)
{
	static const uint16_t behind[] = {0x18, 0x0100};
	static const struct acpi_viommu viommu = {.requester = 0x28, .endpoints = behind, .n = 2};
	struct machine m;

	machine_init(&m, 1, 1, 1);
	m.config.viommu = &viommu;
	machine_build(&m);
	const uint8_t *t = table(&m, "VIOT");
	cr_assert_eq(load_le32(t + 4), 48 + 16 + 2 * 24);
	cr_assert_eq(load_le16(t + 36), 3, "nodes");
	cr_assert_eq(load_le16(t + 38), 48, "where they begin");
	cr_assert_eq(t[48], 3, "virtio-iommu over PCI");
	cr_assert_eq(load_le16(t + 48 + 6), 0x28);
	for (unsigned int i = 0; i < ARRAY_SIZE(behind); i++) {
		const uint8_t *node = t + 64 + (size_t)24 * i;

		cr_assert_eq(node[0], 1, "a range of PCI functions");
		cr_assert_eq(load_le16(node + 2), 24);
		cr_assert_eq(load_le32(node + 4), behind[i]);
		cr_assert_eq(load_le16(node + 12), behind[i]);
		cr_assert_eq(load_le16(node + 14), behind[i]);
		cr_assert_eq(load_le16(node + 16), 48, "behind the first node");
	}
	machine_done(&m);
}

Test(acpi, viot_of_a_virtual_iommu_with_nothing_behind_it_lists_itself)
{
	static const struct acpi_viommu viommu = {.requester = 0x28};
	struct machine m;

	machine_init(&m, 1, 1, 1);
	m.config.viommu = &viommu;
	machine_build(&m);
	const uint8_t *t = table(&m, "VIOT");
	cr_assert_eq(load_le32(t + 4), 48 + 16 + 24);
	cr_assert_eq(load_le16(t + 36), 2, "nodes");
	cr_assert_eq(t[64], 1, "a range of PCI functions");
	cr_assert_eq(load_le16(t + 64 + 12), 0x28);
	cr_assert_eq(load_le16(t + 64 + 14), 0x28);
	machine_done(&m);
}

/* The word address space descriptor of bus numbers (6.4.3.5.3): granularity, minimum, maximum,
 * translation, length. */
Test(acpi, the_host_bridge_has_the_buses_that_mcfg_names)
{
	static const uint8_t buses[] = {0x88, 13, 0, 2, 0x0c, 0, 0, 0, 0, 0, 8, 0, 0, 0, 9, 0};
	struct machine m;

	machine_init(&m, 1, 1, 1);
	machine_build(&m);
	const uint8_t *t = table(&m, "SSDT");
	cr_assert_not_null(memmem(t, load_le32(t + 4), buses, sizeof(buses)));
	machine_done(&m);
}

/* The I/O port descriptor (6.4.2.5) of 0xcf8 to 0xcff. */
Test(acpi, config_ports_that_are_off_are_not_the_bridges)
{
	static const uint8_t ports[] = {0x47, 1, 0xf8, 0x0c, 0xf8, 0x0c, 1, 8};
	struct machine m;

	machine_init(&m, 1, 1, 1);
	machine_build(&m);
	const uint8_t *t = table(&m, "SSDT");
	cr_assert_not_null(memmem(t, load_le32(t + 4), ports, sizeof(ports)));
	m.config.ecam_only = true;
	machine_build(&m);
	t = table(&m, "SSDT");
	cr_assert_null(memmem(t, load_le32(t + 4), ports, sizeof(ports)));
	machine_done(&m);
}

static bool contains(const uint8_t *t, const char *needle)
{
	return memmem(t, load_le32(t + 4), needle, strlen(needle)) != NULL;
}

Test(acpi, ssdt_lists_only_the_devices_that_exist)
{
	struct machine m;

	machine_init(&m, 1, 1, 1);
	machine_build(&m);
	cr_assert(contains(table(&m, "SSDT"), "COM1"));
	cr_assert(contains(table(&m, "SSDT"), "QEMU0001"));
	m.config.serial_port = 0;
	m.config.panic_port = 0;
	machine_build(&m);
	cr_assert(!contains(table(&m, "SSDT"), "COM1"));
	cr_assert(!contains(table(&m, "SSDT"), "QEMU0001"));
	machine_done(&m);
}

/* iasl forgives a container that ends too late, so the SSDT's grammar is walked here: returns the
 * position behind the term at i. */
static size_t pkg_length(const uint8_t *t, size_t i, size_t *end)
{
	unsigned int more = t[i] >> 6;
	size_t len = more ? t[i] & 0xf : t[i] & 0x3f;

	for (unsigned int k = 0; k < more; k++)
		len |= (size_t)t[i + 1 + k] << (4 + 8 * k);
	*end = i + len;
	return i + 1 + more;
}

static size_t name_string(const uint8_t *t, size_t i)
{
	i += t[i] == '\\';
	if (t[i] == 0x2e)
		return i + 9;
	if (t[i] == 0x2f)
		return i + 2 + 4 * (size_t)t[i + 1];
	return i + 4;
}

/* Descriptors of the sizes that the specification gives them, the end tag last (6.4.2, 6.4.3). */
static void resources(const uint8_t *r, size_t size)
{
	size_t i = 0;

	while (i < size) {
		size_t len = r[i] & 0x80 ? 3u + load_le16(r + i + 1) : 1u + (r[i] & 7u);

		switch (r[i]) {
		case 0x47:
		case 0x22:
		case 0x79:
			break;
		case 0x86:
			cr_assert_eq(len, 12);
			break;
		case 0x87:
			cr_assert_eq(len, 26);
			break;
		case 0x88:
			cr_assert_eq(len, 16);
			break;
		case 0x8a:
			cr_assert_eq(len, 46);
			break;
		default:
			cr_assert(false, "descriptor 0x%02x", r[i]);
		}
		cr_assert_eq(r[i] == 0x79, i + len == size, "the end tag is last");
		i += len;
	}
}

/* How many arguments what has this name takes. */
static unsigned int arguments(const uint8_t *name)
{
	return memcmp(name + 1, "STA", 3) == 0 ? 2 : memcmp(name + 1, "OST", 3) == 0 ? 3 : 0;
}

/* A resource template, or an entry of the MADT (_MAT), by its type and length. */
static void buffer(const uint8_t *b, size_t size)
{
	if (b[0] == 0 || b[0] == 9) {
		cr_assert_eq(b[1], size, "a processor's entry");
		cr_assert_eq(load_le32(b + (b[0] ? 8 : 4)), 1u, "enabled: it is there by then");
		return;
	}
	resources(b, size);
	cr_assert_eq(sum(b, size), 0, "a template's checksum");
}

static size_t term(const uint8_t *t, size_t i, size_t limit)
{
	size_t end = limit, elements = 0;
	uint8_t op = t[i++];

	cr_assert_lt(i, limit + 1);
	if (op >= 'A' && op <= 'Z') {
		end = i + 3;
		for (unsigned int n = arguments(t + i - 1); n; n--)
			end = term(t, end, limit);
		return end;
	}
	switch (op) {
	case 0x00:
	case 0x01:
		return i;
	case 0x0a:
		return i + 1;
	case 0x0b:
		return i + 2;
	case 0x0c:
		return i + 4;
	case 0x0e:
		return i + 8;
	case 0x0d:
		return i + strlen((const char *)t + i) + 1;
	case 0x08:
		return term(t, name_string(t, i), limit);
	case 0x68: /* arguments of a method */
	case 0x69:
		return i;
	case 0xa4: /* return */
		return term(t, i, limit);
	case 0x70: /* store */
	case 0x86: /* notify */
	case 0x93: /* equal */
		return term(t, term(t, i, limit), limit);
	case 0xa0: /* if */
		i = pkg_length(t, i, &end);
		while (i < end)
			i = term(t, i, end);
		cr_assert_eq(i, end, "an If ends in the middle of a term");
		break;
	case 0x14: /* method */
		i = 1 + name_string(t, pkg_length(t, i, &end));
		while (i < end)
			i = term(t, i, end);
		cr_assert_eq(i, end, "a method ends in the middle of a term");
		break;
	case 0x11: {
		uint64_t size = 0;
		size_t body = term(t, pkg_length(t, i, &end), limit);
		i = pkg_length(t, i, &end);
		memcpy(&size, t + i + 1, body - i - 1); /* the size, as an integer */
		cr_assert_eq(body + size, end, "a buffer's size");
		buffer(t + body, size);
		break;
	}
	case 0x12:
		i = pkg_length(t, i, &end);
		uint8_t announced = t[i++];
		for (; i < end; elements++)
			i = term(t, i, end);
		cr_assert_eq(i, end);
		cr_assert_eq(elements, announced);
		break;
	case 0x5b:
		cr_assert_eq(t[i++], 0x82);
		__attribute__((fallthrough));
	case 0x10:
		i = name_string(t, pkg_length(t, i, &end));
		while (i < end)
			i = term(t, i, end);
		cr_assert_eq(i, end, "a container ends in the middle of a term");
		break;
	default:
		cr_assert(false, "opcode 0x%02x at %zu", op, i - 1);
	}
	cr_assert_leq(end, limit);
	return end;
}

static void check_ssdt(unsigned int cpus, bool plug)
{
	struct machine m;

	machine_init(&m, cpus, 1, 1);
	if (plug) {
		come_and_go(&m);
		memory_comes_and_goes(&m, 1 + cpus % 32);
	}
	machine_build(&m);
	const uint8_t *t = table(&m, "SSDT");
	size_t len = load_le32(t + 4), i = 36, terms = 0;
	for (; i < len; terms++)
		i = term(t, i, len);
	cr_assert_eq(i, len);
	cr_assert_eq(terms, 4, "PCI0, MBRD, _SB and _S5");
	machine_done(&m);
}

Test(acpi, ssdt_containers_end_where_their_content_does)
{
	for (unsigned int cpus = 1; cpus <= 255; cpus++)
		check_ssdt(cpus, false);
}

Test(acpi, methods_end_where_their_content_does)
{
	for (unsigned int cpus = 2; cpus <= 255; cpus++)
		check_ssdt(cpus, true);
}

/* In how many places of its SSDT, which differs by machine, these bytes are. */
static unsigned int occurrences(struct machine *m, const char *bytes, size_t n)
{
	const uint8_t *t = table(m, "SSDT"), *end = t + load_le32(t + 4);
	unsigned int ret = 0;

	while ((t = memmem(t, (size_t)(end - t), bytes, n))) {
		t += n;
		ret++;
	}
	return ret;
}

Test(acpi, every_cpu_but_the_first_can_be_given_up)
{
	struct machine m;

	machine_init(&m, 1, 5, 1);
	come_and_go(&m);
	machine_build(&m);
	cr_expect_eq(occurrences(&m, "_STA", 4), 5u);
	cr_expect_eq(occurrences(&m, "_EJ0", 4), 4u);
	cr_expect_eq(occurrences(&m, "_OST", 4), 4u);
	/* _EJ0 of number 4 stores that in the register, _OST hands its number on, and the event
	 * names it. */
	cr_expect_eq(occurrences(&m, "_EJ0\1\x70\x0a\4CEJC", 12), 1u);
	cr_expect_eq(occurrences(&m, "_OST\3COST\x0a\4hi", 13), 1u);
	cr_expect_eq(occurrences(&m,
				 "\x93h\x0a\4\x86"
				 "C004i",
				 10),
		     1u);
	machine_done(&m);
}

Test(acpi, every_unit_of_memory_has_its_place_and_can_be_given_up)
{
	/* ACPI 6.4.3.5.1: memory, fixed, cacheable and writable; granularity 0, from, to. */
	static const uint8_t place[] = {
		0x8a, 0x2b, 0,    0, 0x0d, 0x03, 0, 0,    0,    0,    0,    0, 0, 0, 0,
		0,    0,    0x60, 1, 0,    0,    0, 0xff, 0xff, 0xff, 0x6f, 1, 0, 0, 0,
	};
	struct machine m;

	machine_init(&m, 1, 1, 1);
	memory_comes_and_goes(&m, 3);
	machine_build(&m);
	cr_expect_eq(occurrences(&m, "_STA", 4), 3u);
	cr_expect_eq(occurrences(&m, "_EJ0", 4), 3u);
	cr_expect_eq(occurrences(&m, "\x0c\x41\xd0\x0c\x80", 5), 3u, "PNP0C80");
	cr_expect_eq(occurrences(&m, "_EJ0\1\x70\x0a\2MEJC", 12), 1u);
	cr_expect_eq(occurrences(&m, "_OST\3MOST\x0a\2hi", 13), 1u);
	cr_expect_eq(occurrences(&m, (const char *)place, sizeof(place)), 1u, "number 2");
	machine_done(&m);
}

Test(acpi, built_again_gives_the_same_bytes_but_for_another_generation_id)
{
	enum { ID_AT = 0x1ffc0, ID_BYTES = 16 };
	struct machine m;
	static uint8_t first[0x20000], id[ID_BYTES];

	machine_init(&m, 2, 2, 2);
	machine_build(&m);
	memcpy(first, gmem_host(m.gmem, 0xe0000, sizeof(first), false), sizeof(first));
	memset(gmem_host(m.gmem, 0xe0000, sizeof(first), true), 0xa5, sizeof(first));
	machine_build(&m);
	cr_assert_eq(gmem_read(m.gmem, 0xe0000 + ID_AT, id, ID_BYTES), 0);
	cr_assert_neq(memcmp(first + ID_AT, id, ID_BYTES), 0);
	memcpy(first + ID_AT, id, ID_BYTES);
	cr_assert_eq(memcmp(first, gmem_host(m.gmem, 0xe0000, sizeof(first), false), sizeof(first)),
		     0);
	memcpy(first, gmem_host(m.gmem, 0xe0000, sizeof(first), false), sizeof(first));
	cr_assert_eq(acpi_new_generation(m.gmem), 0);
	cr_assert_eq(gmem_read(m.gmem, 0xe0000 + ID_AT, id, ID_BYTES), 0);
	cr_assert_neq(memcmp(first + ID_AT, id, ID_BYTES), 0);
	memcpy(first + ID_AT, id, ID_BYTES);
	cr_assert_eq(memcmp(first, gmem_host(m.gmem, 0xe0000, sizeof(first), false), sizeof(first)),
		     0, "and nothing else");
	cr_assert_eq(acpi_new_generation(m.gmem), 0);
	cr_assert_eq(gmem_read(m.gmem, 0xe0000 + ID_AT, id, ID_BYTES), 0);
	cr_assert_neq(memcmp(first + ID_AT, id, ID_BYTES), 0, "each time");
	machine_done(&m);
}

Test(acpi, without_memory_there_it_is_an_error)
{
	struct machine m;
	struct err err = ERR_INIT;

	machine_init(&m, 1, 1, 1);
	cr_assert_eq(gmem_begin(m.gmem, &err), 0);
	cr_assert_eq(gmem_remove(m.gmem, 0, &err), 0);
	cr_assert_eq(gmem_commit(m.gmem, &err), 0);
	cr_assert_lt(acpi_build(m.gmem, &m.config, &err), 0);
	cr_assert_neq(err.text[0], 0);
	machine_done(&m);
}

/* The n-th string of an SMBIOS structure, "" for number 0. */
static const char *smbios_string(const uint8_t *s, uint8_t n)
{
	const char *p = (const char *)s + s[1];

	if (!n)
		return "";
	while (--n)
		p += strlen(p) + 1;
	return p;
}

static const uint8_t *smbios_next(const uint8_t *s)
{
	const uint8_t *p = s + s[1];

	while (p[0] || p[1])
		p++;
	return p + 2;
}

static const uint8_t *smbios_first(struct machine *m, uint32_t *size)
{
	const uint8_t *e = at(m, 0xf0000, 24);

	cr_assert_eq(memcmp(e, "_SM3_", 5), 0);
	cr_assert_eq(e[6], 24);
	cr_assert_eq(sum(e, 24), 0);
	*size = load_le32(e + 12);
	return at(m, load_le64(e + 16), *size);
}

static void check_smbios(struct machine *m)
{
	uint32_t size, seen = 0;
	const uint8_t *first = smbios_first(m, &size), *s;
	unsigned int sockets = 0;

	for (s = first; s[0] != 127; s = smbios_next(s)) {
		cr_assert_lt(s - first, size);
		seen |= 1u << s[0] % 32;
		sockets += s[0] == 4;
		for (const uint8_t *o = first; o != s; o = smbios_next(o))
			cr_assert_neq(load_le16(o + 2), load_le16(s + 2), "two with one handle");
	}
	cr_assert_eq(smbios_next(s) - first, size, "the end is where the entry point says");
	cr_assert_eq(seen, 1u << 0 | 1u << 1 | 1u << 3 | 1u << 4 | 1u << 16 | 1u << 17 | 1u << 19 |
				   1u << 32 % 32 | (m->config.n_oem_strings ? 1u << 11 : 0));
	cr_assert_eq(sockets, m->topology.sockets);
}

Test(smbios, structures_follow_each_other_to_the_end)
{
	struct machine m;

	machine_init(&m, 1, 1, 1);
	machine_build(&m);
	check_smbios(&m);
	machine_done(&m);
	machine_init(&m, 255, 1, 1);
	machine_build(&m);
	check_smbios(&m);
	machine_done(&m);
}

static const uint8_t *smbios_type(struct machine *m, uint8_t type)
{
	uint32_t size;
	const uint8_t *s = smbios_first(m, &size);

	while (s[0] != type && s[0] != 127)
		s = smbios_next(s);
	cr_assert_eq(s[0], type);
	return s;
}

Test(smbios, system_has_the_users_uuid_and_serial)
{
	static const uint8_t stored[16] = {0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66,
					   0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};
	struct machine m;

	machine_init(&m, 1, 1, 1);
	m.config.product = "a product";
	machine_build(&m);
	const uint8_t *s = smbios_type(&m, 1);
	cr_assert_eq(memcmp(s + 8, stored, 16), 0);
	cr_assert_str_eq(smbios_string(s, s[7]), "S-1234");
	cr_assert_str_eq(smbios_string(s, s[4]), "hospes");
	cr_assert_str_eq(smbios_string(s, s[5]), "a product");
	m.config.serial = "";
	machine_build(&m);
	cr_assert_eq(smbios_type(&m, 1)[7], 0, "an empty string is none");
	machine_done(&m);
}

Test(smbios, overlong_strings_are_cut_and_nothing_else_moves)
{
	struct machine m;
	char text[1000];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	machine_init(&m, 1, 1, 1);
	m.config.serial = text;
	machine_build(&m);
	const uint8_t *s = smbios_type(&m, 1);
	cr_assert_eq(strlen(smbios_string(s, s[7])), 64);
	check_smbios(&m);
	machine_done(&m);
}

Test(smbios, oem_strings_are_whole_whatever_their_length)
{
	struct machine m;
	char text[3000];
	const char *const strings[] = {"a=b", text, "c"};

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	machine_init(&m, 1, 1, 1);
	m.config.oem_strings = strings;
	m.config.n_oem_strings = ARRAY_SIZE(strings);
	machine_build(&m);
	const uint8_t *s = smbios_type(&m, 11);
	cr_assert_eq(s[4], 3);
	for (uint8_t i = 0; i < 3; i++)
		cr_assert_str_eq(smbios_string(s, (uint8_t)(i + 1)), strings[i]);
	check_smbios(&m);
	machine_done(&m);
}

Test(smbios, memory_is_told_in_full)
{
	struct machine m;

	machine_init(&m, 1, 1, 1);
	machine_build(&m);
	cr_assert_eq(load_le16(smbios_type(&m, 17) + 0x0c), 8192);
	m.platform.high_bytes = 3 * TiB;
	machine_build(&m);
	const uint8_t *s = smbios_type(&m, 17);
	cr_assert_eq(load_le16(s + 0x0c), 0x7fff);
	cr_assert_eq(load_le32(s + 0x1c), 3 * 1024 * 1024 + 2048);
	s = smbios_type(&m, 16);
	cr_assert_eq(load_le64(s + 0x0f), 3 * TiB + 2 * GiB);
	machine_done(&m);
}
