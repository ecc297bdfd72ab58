// SPDX-License-Identifier: Apache-2.0
// The device tree of an arm64 machine, read back by libfdt as a kernel reads it.
#include <criterion/criterion.h>
#include <errno.h>
#include <libfdt.h>
#include <string.h>

#include "base/num.h"
#include "firmware/arm64/fdt.h"

enum { BYTES = 65536 };

static const struct arch_platform platform = {
	.phys_bits = 40,
	.low_gpa = GiB,
	.low_bytes = 512 * MiB,
	.high_gpa = 4 * GiB,
	.high_bytes = 256 * MiB,
	.pci =
		{
			.ecam_gpa = 0x10000000,
			.mmio32_gpa = 0x20000000,
			.mmio32_bytes = 512 * MiB,
			.mmio64_gpa = 768 * GiB,
			.mmio64_bytes = 256 * GiB,
			.io_base = 0x1000,
			.io_bytes = 0xf000,
		},
	.pio_gpa = 0x1000000,
	.intx_gsi = 16,
	.gic = {0x2000000, 0x3000000, 0x2020000},
};
static const struct arch_topology topology = {.cpus = 18, .sockets = 1, .cores = 18, .threads = 1};

static struct acpi_config config(void)
{
	return (struct acpi_config){
		.platform = &platform,
		.topology = &topology,
		.serial_port = 0x3f8,
		.serial_gsi = 4,
		.pci_last_bus = 8,
	};
}

static char tree[BYTES];

static void build(const struct fdt_boot *boot)
{
	const struct acpi_config c = config();
	struct err err = ERR_INIT;

	cr_assert_eq(fdt_build(tree, BYTES, &c, boot, &err), 0, "%s", err.text);
	cr_assert_eq(fdt_check_full(tree, BYTES), 0);
}

static const fdt32_t *cells(const char *path, const char *name, unsigned int want)
{
	int len, node = fdt_path_offset(tree, path);
	const fdt32_t *value;

	cr_assert_geq(node, 0, "%s", path);
	value = fdt_getprop(tree, node, name, &len);
	cr_assert_not_null(value, "%s of %s", name, path);
	cr_assert_eq(len, (int)(want * sizeof(*value)), "%s of %s: %d", name, path, len);
	return value;
}

static uint64_t pair(const fdt32_t *at)
{
	return (uint64_t)fdt32_to_cpu(at[0]) << 32 | fdt32_to_cpu(at[1]);
}

Test(arm64_fdt, names_all_memory)
{
	const struct fdt_boot boot = {.cmdline = ""};
	const fdt32_t *reg;

	build(&boot);
	reg = cells("/memory@40000000", "reg", 4);
	cr_assert_eq(pair(reg), GiB);
	cr_assert_eq(pair(reg + 2), 512 * MiB);
	reg = cells("/memory@100000000", "reg", 4);
	cr_assert_eq(pair(reg), 4 * GiB);
	cr_assert_eq(pair(reg + 2), 256 * MiB);
}

Test(arm64_fdt, has_what_is_booted)
{
	const struct fdt_boot boot = {
		.cmdline = "console=ttyS0 quiet",
		.initrd_gpa = GiB + 64 * MiB,
		.initrd_bytes = 12345,
		.kaslr_seed = 0x1122334455667788,
		.rng_seed = {1, 2, 3},
	};
	int len, chosen;

	build(&boot);
	chosen = fdt_path_offset(tree, "/chosen");
	cr_assert_str_eq(fdt_getprop(tree, chosen, "bootargs", NULL), boot.cmdline);
	cr_assert_str_eq(fdt_getprop(tree, chosen, "stdout-path", NULL), "/serial@10003f8");
	cr_assert_eq(pair(cells("/chosen", "linux,initrd-start", 2)), boot.initrd_gpa);
	cr_assert_eq(pair(cells("/chosen", "linux,initrd-end", 2)), boot.initrd_gpa + 12345);
	cr_assert_eq(pair(cells("/chosen", "kaslr-seed", 2)), boot.kaslr_seed);
	cr_assert_arr_eq(fdt_getprop(tree, chosen, "rng-seed", &len), boot.rng_seed, 64);
	cr_assert_eq(len, 64);
}

Test(arm64_fdt, gives_no_seed_where_the_kernel_is_to_stay)
{
	const struct fdt_boot boot = {.cmdline = "nokaslr"};
	int chosen;

	build(&boot);
	chosen = fdt_path_offset(tree, "/chosen");
	cr_assert_null(fdt_getprop(tree, chosen, "kaslr-seed", NULL));
	cr_assert_null(fdt_getprop(tree, chosen, "linux,initrd-start", NULL));
}

/* KVM's affinities: 16 in a cluster. */
Test(arm64_fdt, names_each_cpu)
{
	const struct fdt_boot boot = {.cmdline = ""};

	build(&boot);
	cr_assert_eq(fdt32_to_cpu(*cells("/cpus/cpu@f", "reg", 1)), 0xf);
	cr_assert_eq(fdt32_to_cpu(*cells("/cpus/cpu@101", "reg", 1)), 0x101);
	cr_assert_lt(fdt_path_offset(tree, "/cpus/cpu@102"), 0);
	cr_assert_eq(fdt32_to_cpu(*cells("/cpus/cpu-map/socket0/cluster0/core17", "cpu", 1)),
		     fdt_get_phandle(tree, fdt_path_offset(tree, "/cpus/cpu@101")));
	cr_assert_eq(pair(cells("/interrupt-controller@2000000", "reg", 8) + 6), 18 * 0x20000);
}

/* As struct pci_root_config says: (slot + pin) % 4. */
Test(arm64_fdt, leads_pins_to_their_interrupts)
{
	const struct fdt_boot boot = {.cmdline = ""};
	const fdt32_t *map;

	build(&boot);
	map = cells("/pcie@10000000", "interrupt-map", 160);
	for (unsigned int i = 0; i < 16; i++) {
		const fdt32_t *row = map + i * 10;

		cr_assert_eq(fdt32_to_cpu(row[0]), (i / 4) << 11);
		cr_assert_eq(fdt32_to_cpu(row[3]), i % 4 + 1);
		cr_assert_eq(fdt32_to_cpu(row[8]), 16 + (i / 4 + i % 4) % 4);
	}
	cr_assert_eq(pair(cells("/pcie@10000000", "reg", 4) + 2), 9 * MiB);
	cr_assert_eq(fdt32_to_cpu(cells("/pcie@10000000", "msi-map", 4)[3]), 0x10000);
	cr_assert_eq(pair(cells("/pcie@10000000", "ranges", 21) + 3), 0x1001000);
}

Test(arm64_fdt, too_little_room_is_said)
{
	const struct acpi_config c = config();
	const struct fdt_boot boot = {.cmdline = ""};

	for (unsigned int n = 64; n < 4000; n += 61) {
		struct err err = ERR_INIT;

		cr_assert_eq(fdt_build(tree, n, &c, &boot, &err), -ENOSPC, "%u", n);
	}
}
