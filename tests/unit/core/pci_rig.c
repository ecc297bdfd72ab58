/* SPDX-License-Identifier: Apache-2.0 */
#include "pci_rig.h"

struct pci_host pci;
struct err err;
bool level[24];

static int set_line(void *opaque, uint32_t gsi, bool high)
{
	(void)opaque;
	level[gsi] = high;
	return 0;
}

static const struct irq_chip_ops chip_ops = {
	.set_routes = accept_routes, .set_line = set_line, .pins = PINS, .max_gsi = 64};

unsigned int warnings;

static void count_warning(void *opaque, enum log_level log_level, const char *component,
			  const char *text)
{
	(void)opaque;
	(void)component;
	(void)text;
	warnings += log_level == LOG_WARN;
}

static const struct log counting = {.fn = count_warning, .level = LOG_WARN};

void rig_set_up(void)
{
	pci_host_init(&pci, &chip_ops, &counting);
	warnings = 0;
}

void rig_tear_down(void)
{
	pci_host_done(&pci);
}

static uint64_t tag_read(void *opaque, uint64_t offset, unsigned int size)
{
	(void)offset;
	(void)size;
	return ((struct fn *)opaque)->tag;
}

static void no_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	(void)opaque;
	(void)offset;
	(void)value;
	(void)size;
}

static const struct bus_ops tag_ops = {.read = tag_read, .write = no_write, .min = 1, .max = 1};

static void written(struct pci_device *dev, unsigned int offset, unsigned int size)
{
	(void)offset;
	(void)size;
	((struct fn *)dev)->written++;
}

static void was_reset(struct pci_device *dev)
{
	((struct fn *)dev)->reset++;
}

static void bar_mapped(struct pci_device *dev, unsigned int bar, uint64_t gpa, bool on)
{
	struct fn *f = (struct fn *)dev;

	(void)bar;
	cr_assert_eq(f->mapped, on ? 0 : gpa, "on and off in turn, at one place");
	f->mapped = on ? gpa : 0;
}

static const struct pci_device_ops fn_ops = {
	.config_written = written, .bar_mapped = bar_mapped, .reset = was_reset};

void fn_init(struct fn *f, const char *name, uint8_t tag)
{
	const struct pci_ids ids = {.vendor = 0x1234,
				    .device = 0x5678,
				    .subsystem_vendor = 0x1af4,
				    .subsystem = tag,
				    .revision = 3,
				    .class_code = 0x020000,
				    .pin = 1};

	*f = (struct fn){.tag = tag};
	pthread_mutex_init(&f->lock, NULL);
	pci_device_init(&f->pci, &fn_ops, name, &ids);
	f->pci.lock = &f->lock;
}

void fn_bar(struct fn *f, unsigned int bar, enum pci_bar_kind kind, uint64_t size)
{
	f->region[bar] = (struct bus_region){
		.ops = &tag_ops, .opaque = f, .name = f->pci.name, .size_bytes = size};
	pci_set_bar(&f->pci, bar, kind, size, &f->region[bar]);
}

void attach(struct fn *f, struct pci_bus *bus, unsigned int slot, unsigned int function)
{
	const struct pci_addr a = {.slot = (uint8_t)slot, .function = (uint8_t)function};

	cr_assert_eq(pci_attach(&f->pci, bus, &a, &err), 0, "%s", err.text);
}

void port_init(struct fn *f, const char *name)
{
	const struct pci_ids ids = {
		.vendor = 0x1234, .device = 1, .class_code = 0x060400, .header_type = 1, .pin = 1};

	*f = (struct fn){0};
	pthread_mutex_init(&f->lock, NULL);
	pci_device_init(&f->pci, &fn_ops, name, &ids);
	f->pci.lock = &f->lock;
	pci_add_express(&f->pci, 4);
	cr_assert_eq(pci_bridge_init(&f->pci, &err), 0);
}

uint64_t ecam(unsigned int bus, unsigned int slot, unsigned int function, unsigned int reg)
{
	return ECAM + (bus << 20 | slot << 15 | function << 12 | reg);
}

uint32_t cfg_read(unsigned int bus, unsigned int slot, unsigned int reg, unsigned int size)
{
	uint32_t v = 0;

	cr_assert(bus_read(pci.mmio, ecam(bus, slot, 0, reg), &v, size));
	return v;
}

void cfg_write(unsigned int bus, unsigned int slot, unsigned int reg, uint32_t v, unsigned int size)
{
	cr_assert(bus_write(pci.mmio, ecam(bus, slot, 0, reg), &v, size));
}

uint32_t port_read(unsigned int bus, unsigned int slot, unsigned int reg, unsigned int size)
{
	uint32_t address = 1u << 31 | bus << 16 | slot << 11 | (reg & 0xfc), v = 0;

	cr_assert(bus_write(pci.pio, 0xcf8, &address, 4));
	bus_read(pci.pio, 0xcfc + (reg & 3), &v, size);
	return v;
}

uint8_t tag_at(struct bus *bus, uint64_t addr)
{
	uint8_t v = 0;

	bus_read(bus, addr, &v, 1);
	return v;
}
