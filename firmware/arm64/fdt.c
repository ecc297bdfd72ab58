// SPDX-License-Identifier: Apache-2.0
// The device tree of a machine. See fdt.h.
#include "firmware/arm64/fdt.h"

#include <errno.h>
#include <libfdt.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"

enum {
	PHANDLE_GIC = 1,
	PHANDLE_ITS,
	/* Interrupts in a tree (arm,gic-v3.yaml). */
	IRQ_SPI = 0,
	IRQ_PPI = 1,
	EDGE_RISING = 1,
	LEVEL_HIGH = 4,
	/* PPIs of the timers (arm,arch_timer.yaml): those that KVM gives. */
	TIMER_SECURE = 13,
	TIMER_PHYSICAL = 14,
	TIMER_VIRTUAL = 11,
	TIMER_HYPERVISOR = 10,
	/* First cells of an address on PCI (IEEE 1275, PCI binding 2.1). */
	PCI_IO = 0x01000000,
	PCI_MEM32 = 0x02000000,
	PCI_MEM64 = 0x43000000, /* prefetchable, as all 64-bit BARs may be behind a bridge */

	DIST_BYTES = 0x10000,
	REDIST_BYTES = 0x20000,
	ITS_BYTES = 0x20000,
	SERIAL_BYTES = 8,
	SERIAL_CLOCK = 1843200,
	PANIC_BYTES = 1,
	CELLS = 160,
};

/* A tree that grows; the first thing that fails is remembered. */
struct tree {
	void *fdt;
	int rc;
};

static void begin(struct tree *t, const char *name)
{
	if (!t->rc)
		t->rc = fdt_begin_node(t->fdt, name);
}

static void end(struct tree *t)
{
	if (!t->rc)
		t->rc = fdt_end_node(t->fdt);
}

static void prop(struct tree *t, const char *name, const void *value, size_t bytes)
{
	if (!t->rc)
		t->rc = fdt_property(t->fdt, name, value, (int)bytes);
}

static void prop_string(struct tree *t, const char *name, const char *text)
{
	prop(t, name, text, strlen(text) + 1);
}

static void prop_empty(struct tree *t, const char *name)
{
	prop(t, name, "", 0);
}

static void prop_u32(struct tree *t, const char *name, uint32_t value)
{
	if (!t->rc)
		t->rc = fdt_property_u32(t->fdt, name, value);
}

static void prop_u64(struct tree *t, const char *name, uint64_t value)
{
	if (!t->rc)
		t->rc = fdt_property_u64(t->fdt, name, value);
}

/* A list of cells on its way into a property. */
struct cells {
	fdt32_t cell[CELLS];
	unsigned int n;
	bool full;
};

static void add32(struct cells *c, uint32_t value)
{
	if (c->n < CELLS)
		c->cell[c->n++] = cpu_to_fdt32(value);
	else
		c->full = true;
}

static void add64(struct cells *c, uint64_t value)
{
	add32(c, (uint32_t)(value >> 32));
	add32(c, (uint32_t)value);
}

static void prop_cells(struct tree *t, const char *name, const struct cells *c)
{
	if (c->full && !t->rc)
		t->rc = -FDT_ERR_NOSPACE;
	prop(t, name, c->cell, c->n * sizeof(c->cell[0]));
}

static void prop_reg(struct tree *t, uint64_t gpa, uint64_t bytes)
{
	struct cells c = {.n = 0};

	add64(&c, gpa);
	add64(&c, bytes);
	prop_cells(t, "reg", &c);
}

static void begin_at(struct tree *t, const char *name, uint64_t at)
{
	char text[40];

	snprintf(text, sizeof(text), "%s@%llx", name, (unsigned long long)at);
	begin(t, text);
}

static void add_chosen(struct tree *t, const struct acpi_config *config,
		       const struct fdt_boot *boot)
{
	char serial[40];

	begin(t, "chosen");
	prop_string(t, "bootargs", boot->cmdline);
	if (config->serial_port) {
		snprintf(serial, sizeof(serial), "/serial@%llx",
			 (unsigned long long)(config->platform->pio_gpa + config->serial_port));
		prop_string(t, "stdout-path", serial);
	}
	if (boot->initrd_bytes) {
		prop_u64(t, "linux,initrd-start", boot->initrd_gpa);
		prop_u64(t, "linux,initrd-end", boot->initrd_gpa + boot->initrd_bytes);
	}
	if (boot->kaslr_seed)
		prop_u64(t, "kaslr-seed", boot->kaslr_seed);
	prop(t, "rng-seed", boot->rng_seed, sizeof(boot->rng_seed));
	end(t);
}

static void add_memory(struct tree *t, uint64_t gpa, uint64_t bytes)
{
	if (!bytes)
		return;
	begin_at(t, "memory", gpa);
	prop_string(t, "device_type", "memory");
	prop_reg(t, gpa, bytes);
	end(t);
}

/* Affinities as KVM gives them: 16 in a cluster. */
static uint32_t affinity(unsigned int cpu)
{
	return (cpu & 0xf) | (cpu >> 4) << 8;
}

/* Sockets of cores of threads (the kernel's bindings, cpu/cpu-topology.txt); phandles of CPUs
 * follow the others. */
static void add_cpu_map(struct tree *t, const struct arch_topology *topology)
{
	unsigned int cpu = 0;
	char name[24];

	begin(t, "cpu-map");
	for (unsigned int s = 0; s < topology->sockets; s++) {
		snprintf(name, sizeof(name), "socket%u", s);
		begin(t, name);
		begin(t, "cluster0");
		for (unsigned int c = 0; c < topology->cores; c++) {
			snprintf(name, sizeof(name), "core%u", c);
			begin(t, name);
			for (unsigned int i = 0; i < topology->threads; i++, cpu++) {
				snprintf(name, sizeof(name), "thread%u", i);
				if (topology->threads > 1)
					begin(t, name);
				prop_u32(t, "cpu", PHANDLE_ITS + 1 + cpu);
				if (topology->threads > 1)
					end(t);
			}
			end(t);
		}
		end(t);
		end(t);
	}
	end(t);
}

static void add_cpus(struct tree *t, const struct arch_topology *topology)
{
	begin(t, "cpus");
	prop_u32(t, "#address-cells", 1);
	prop_u32(t, "#size-cells", 0);
	for (unsigned int i = 0; i < topology->cpus; i++) {
		begin_at(t, "cpu", affinity(i));
		prop_string(t, "device_type", "cpu");
		prop_string(t, "compatible", "arm,armv8");
		prop_u32(t, "reg", affinity(i));
		prop_string(t, "enable-method", "psci");
		prop_u32(t, "phandle", PHANDLE_ITS + 1 + i);
		end(t);
	}
	add_cpu_map(t, topology);
	end(t);
	begin(t, "psci");
	prop(t, "compatible", "arm,psci-1.0\0arm,psci-0.2", sizeof("arm,psci-1.0\0arm,psci-0.2"));
	prop_string(t, "method", "hvc");
	end(t);
}

static void add_timer(struct tree *t)
{
	static const uint32_t ppis[] = {TIMER_SECURE, TIMER_PHYSICAL, TIMER_VIRTUAL,
					TIMER_HYPERVISOR};
	struct cells c = {.n = 0};

	begin(t, "timer");
	prop_string(t, "compatible", "arm,armv8-timer");
	for (unsigned int i = 0; i < ARRAY_SIZE(ppis); i++) {
		add32(&c, IRQ_PPI);
		add32(&c, ppis[i]);
		add32(&c, LEVEL_HIGH);
	}
	prop_cells(t, "interrupts", &c);
	prop_empty(t, "always-on");
	end(t);
}

static void add_gic(struct tree *t, const struct acpi_config *config)
{
	const struct arch_platform *p = config->platform;
	struct cells reg = {.n = 0};

	begin_at(t, "interrupt-controller", p->gic.dist_gpa);
	prop_string(t, "compatible", "arm,gic-v3");
	prop_empty(t, "interrupt-controller");
	prop_u32(t, "#interrupt-cells", 3);
	prop_u32(t, "#address-cells", 2);
	prop_u32(t, "#size-cells", 2);
	prop_empty(t, "ranges");
	add64(&reg, p->gic.dist_gpa);
	add64(&reg, DIST_BYTES);
	add64(&reg, p->gic.redist_gpa);
	add64(&reg, (uint64_t)config->topology->cpus * REDIST_BYTES);
	prop_cells(t, "reg", &reg);
	prop_u32(t, "phandle", PHANDLE_GIC);
	begin_at(t, "msi-controller", p->gic.its_gpa);
	prop_string(t, "compatible", "arm,gic-v3-its");
	prop_empty(t, "msi-controller");
	prop_u32(t, "#msi-cells", 1);
	prop_reg(t, p->gic.its_gpa, ITS_BYTES);
	prop_u32(t, "phandle", PHANDLE_ITS);
	end(t);
	end(t);
}

/* The four pins of four neighbouring slots on bus 0, which repeat: as struct pci_root_config says.
 * */
static void add_pci_pins(struct tree *t, const struct arch_platform *p)
{
	struct cells map = {.n = 0}, mask = {.n = 0};

	for (uint32_t slot = 0; slot < 4; slot++) {
		for (uint32_t pin = 0; pin < 4; pin++) {
			add32(&map, slot << 11);
			add32(&map, 0);
			add32(&map, 0);
			add32(&map, pin + 1);
			add32(&map, PHANDLE_GIC);
			add64(&map, 0); /* the controller's own address */
			add32(&map, IRQ_SPI);
			add32(&map, p->intx_gsi + (slot + pin) % 4);
			add32(&map, LEVEL_HIGH);
		}
	}
	add32(&mask, 3 << 11);
	add32(&mask, 0);
	add32(&mask, 0);
	add32(&mask, 7);
	prop_u32(t, "#interrupt-cells", 1);
	prop_cells(t, "interrupt-map", &map);
	prop_cells(t, "interrupt-map-mask", &mask);
}

static void add_window(struct cells *ranges, uint32_t kind, uint64_t pci, uint64_t gpa,
		       uint64_t bytes)
{
	add32(ranges, kind);
	add64(ranges, pci);
	add64(ranges, gpa);
	add64(ranges, bytes);
}

static void add_pci(struct tree *t, const struct acpi_config *config)
{
	const struct arch_platform *p = config->platform;
	const struct pci_windows *w = &p->pci;
	struct cells ranges = {.n = 0}, buses = {.n = 0}, msi = {.n = 0};

	begin_at(t, "pcie", w->ecam_gpa);
	prop_string(t, "compatible", "pci-host-ecam-generic");
	prop_string(t, "device_type", "pci");
	prop_u32(t, "#address-cells", 3);
	prop_u32(t, "#size-cells", 2);
	prop_reg(t, w->ecam_gpa, (uint64_t)(config->pci_last_bus + 1) * MiB);
	add32(&buses, 0);
	add32(&buses, config->pci_last_bus);
	prop_cells(t, "bus-range", &buses);
	prop_u32(t, "linux,pci-domain", 0);
	prop_empty(t, "dma-coherent");
	/* Bus numbers and BARs are placed already; the guest keeps them. */
	add_window(&ranges, PCI_IO, w->io_base, p->pio_gpa + w->io_base, w->io_bytes);
	add_window(&ranges, PCI_MEM32, w->mmio32_gpa, w->mmio32_gpa, w->mmio32_bytes);
	add_window(&ranges, PCI_MEM64, w->mmio64_gpa, w->mmio64_gpa, w->mmio64_bytes);
	prop_cells(t, "ranges", &ranges);
	add32(&msi, 0);
	add32(&msi, PHANDLE_ITS);
	add32(&msi, 0);
	add32(&msi, 0x10000);
	prop_cells(t, "msi-map", &msi);
	add_pci_pins(t, p);
	end(t);
}

static void add_serial(struct tree *t, const struct acpi_config *config)
{
	uint64_t gpa = config->platform->pio_gpa + config->serial_port;
	struct cells c = {.n = 0};

	if (!config->serial_port)
		return;
	begin_at(t, "serial", gpa);
	prop_string(t, "compatible", "ns16550a");
	prop_reg(t, gpa, SERIAL_BYTES);
	prop_u32(t, "clock-frequency", SERIAL_CLOCK);
	prop_u32(t, "reg-io-width", 1);
	add32(&c, IRQ_SPI);
	add32(&c, config->serial_gsi);
	add32(&c, LEVEL_HIGH);
	prop_cells(t, "interrupts", &c);
	end(t);
}

static void add_panic(struct tree *t, const struct acpi_config *config)
{
	uint64_t gpa = config->platform->pio_gpa + config->panic_port;

	if (!config->panic_port)
		return;
	begin_at(t, "pvpanic", gpa);
	prop_string(t, "compatible", "qemu,pvpanic-mmio");
	prop_reg(t, gpa, PANIC_BYTES);
	end(t);
}

int fdt_build(void *tree, unsigned int bytes, const struct acpi_config *config,
	      const struct fdt_boot *boot, struct err *err)
{
	const struct arch_platform *p = config->platform;
	struct tree t = {.fdt = tree};

	t.rc = fdt_create(tree, (int)bytes);
	if (!t.rc)
		t.rc = fdt_finish_reservemap(tree);
	begin(&t, "");
	prop_string(&t, "compatible", "linux,dummy-virt");
	prop_string(&t, "model", "hospes");
	prop_u32(&t, "#address-cells", 2);
	prop_u32(&t, "#size-cells", 2);
	prop_u32(&t, "interrupt-parent", PHANDLE_GIC);
	prop_empty(&t, "dma-coherent");
	add_chosen(&t, config, boot);
	add_memory(&t, p->low_gpa, p->low_bytes);
	add_memory(&t, p->high_gpa, p->high_bytes);
	add_cpus(&t, config->topology);
	add_timer(&t);
	add_gic(&t, config);
	add_serial(&t, config);
	add_panic(&t, config);
	add_pci(&t, config);
	end(&t);
	if (!t.rc)
		t.rc = fdt_finish(tree);
	if (t.rc)
		return err_set(err, t.rc == -FDT_ERR_NOSPACE ? -ENOSPC : -EINVAL,
			       "the device tree: %s", fdt_strerror(t.rc));
	return 0;
}
