// SPDX-License-Identifier: Apache-2.0
// The PCI root: config accesses by ECAM and by ports 0xcf8/0xcfc, their routing through bridges,
// and what is attached where.
#include "core/pci.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/le.h"
#include "base/mem.h"
#include "base/num.h"
#include "core/pci_impl.h"
#include "core/vcpu_gate.h"

enum {
	CONFIG_ADDRESS_PORT = 0xcf8,
	CONFIG_PORT_BYTES = 8,
	CONFIG_DATA = 4,  /* offset of 0xcfc */
	RESET_OFFSET = 1, /* of 0xcf9 */
};
#define CONFIG_ENABLE (1u << 31)
/* Guests may have the root's lock for a quarter of the time, and for 2 s at once. */
#define LOCK_PRICE    4
#define LOCK_BURST_NS (LOCK_PRICE * 2 * NS_PER_S)
#define LOCK_WAIT_NS  NS_PER_S /* at most, for one write */
#define ECAM_BYTES    (256 * MiB)

/* One to `digits` hexadecimal digits that end with `end`, which is passed too. */
static bool hex_field(const char **at, unsigned int digits, char end, unsigned int *ret)
{
	const char *p = *at;

	for (*ret = 0; isxdigit((unsigned char)*p); p++) {
		if (p == *at + digits)
			return false;
		*ret = *ret << 4 |
		       (unsigned int)(isdigit((unsigned char)*p) ? *p - '0'
								 : (*p | 0x20) - 'a' + 10);
	}
	if (p == *at || *p != end)
		return false;
	*at = p + 1;
	return true;
}

int pci_addr_parse(struct pci_addr *ret, const char *text, struct err *err)
{
	unsigned int domain = 0, bus = 0, slot, function, colons = 0;
	const char *at = text;

	for (const char *p = text; *p; p++)
		colons += *p == ':';
	if ((colons == 2 && !hex_field(&at, 4, ':', &domain)) ||
	    (colons >= 1 && !hex_field(&at, 2, ':', &bus)) || !hex_field(&at, 2, '.', &slot) ||
	    !hex_field(&at, 1, '\0', &function) || domain || slot > 31 || function > 7)
		return err_set(err, -EINVAL,
			       "'%s' is not a PCI address: write [[0000:]BUS:]SLOT.FUNCTION in "
			       "hexadecimal, as in 04.0 or 00:1f.7",
			       text);
	*ret = (struct pci_addr){
		.bus = (uint8_t)bus, .slot = (uint8_t)slot, .function = (uint8_t)function};
	return 0;
}

const char *pci_addr_format(const struct pci_addr *addr, char text[PCI_ADDR_TEXT])
{
	snprintf(text, PCI_ADDR_TEXT, "%02x:%02x.%x", __atomic_load_n(&addr->bus, __ATOMIC_RELAXED),
		 addr->slot & 31u, addr->function & 7u);
	return text;
}

/* --- routing (7.3.3: type 1 requests go down where secondary <= bus <= subordinate) --- */

/* The bus behind the bridge on bus that takes requests for bus_number; NULL when none does. */
static struct pci_bus *way_down(const struct pci_bus *bus, unsigned int at, unsigned int bus_number)
{
	for (unsigned int w = 0; w < ARRAY_SIZE(bus->bridges); w++) {
		for (uint64_t left = bus->bridges[w]; left; left &= left - 1) {
			const struct pci_device *b =
				bus->functions[64 * w + (unsigned int)__builtin_ctzll(left)];

			if (b->config[PCI_SECONDARY_BUS] > at &&
			    b->config[PCI_SECONDARY_BUS] <= bus_number &&
			    b->config[PCI_SUBORDINATE_BUS] >= bus_number)
				return pci_slot_is_off(b) ? NULL : b->secondary;
		}
	}
	return NULL;
}

static struct pci_device *find_function(struct pci_root *root, unsigned int bus_number,
					unsigned int devfn)
{
	struct pci_bus *bus = &root->bus0;
	unsigned int at = 0;

	while (at != bus_number) {
		bus = way_down(bus, at, bus_number);
		if (!bus)
			return NULL;
		/* Numbers grow on the way down, so that a guest's loop of numbers ends here. */
		at = bus->bridge->config[PCI_SECONDARY_BUS];
	}
	return bus->functions[devfn];
}

static void dev_lock(struct pci_device *dev)
{
	if (dev->lock)
		pthread_mutex_lock(dev->lock);
}

static void dev_unlock(struct pci_device *dev)
{
	if (dev->lock)
		pthread_mutex_unlock(dev->lock);
}

static uint32_t config_read(struct pci_root *root, unsigned int bus, unsigned int devfn,
			    unsigned int reg, unsigned int size)
{
	struct pci_device *dev;
	uint32_t value = ~0u;

	pci_root_lock(root);
	dev = find_function(root, bus, devfn);
	if (dev) {
		dev_lock(dev);
		pci_caps_read(dev);
		if (dev->ops->config_read)
			dev->ops->config_read(dev, reg, size);
		value = 0;
		memcpy(&value, &dev->config[reg], size);
		dev_unlock(dev);
	}
	pci_root_unlock(root);
	return value;
}

/* A reset that the guest asked for by a register. Root lock held, device lock held for reset(). */
static void guest_reset(struct pci_device *dev)
{
	dev_lock(dev);
	pci_device_reset(dev);
	if (dev->ops->reset)
		dev->ops->reset(dev);
	dev_unlock(dev);
}

static void reset_below(void *opaque, struct pci_device *dev)
{
	(void)opaque;
	guest_reset(dev);
}

static bool touches(unsigned int reg, unsigned int size, unsigned int first, unsigned int end)
{
	return reg < end && reg + size > first;
}

/* Do those below lose their state now: by a reset of the bus, or with the slot's power? */
static bool resets_below(const struct pci_device *bridge)
{
	return bridge->config[PCI_BRIDGE_CONTROL] & PCI_BRIDGE_CTL_BUS_RESET ||
	       pci_slot_is_off(bridge);
}

/* What follows from a write to the standard registers. did_reset: resets_below before it. Root lock
 * held, device lock not. */
static void after_write(struct pci_device *dev, unsigned int reg, unsigned int size, bool did_reset)
{
	if (pci_is_bridge(dev) && resets_below(dev) && !did_reset)
		pci_bus_walk(dev->secondary, reset_below, NULL);
	if (!touches(reg, size, PCI_COMMAND, PCI_COMMAND + 2) &&
	    !touches(reg, size, PCI_BASE_ADDRESS_0, PCI_CAPABILITY_LIST))
		return;
	pci_update(dev, false);
	if (pci_is_bridge(dev))
		pci_update_below(dev);
}

/* Returns how long the writer has to wait, when it has let go of the lock. */
static uint64_t config_write(struct pci_root *root, unsigned int bus, unsigned int devfn,
			     unsigned int reg, unsigned int size, uint32_t value)
{
	struct pci_device *dev;
	bool did_reset;
	uint64_t start_ns, now_ns;

	pci_root_lock(root);
	start_ns = clock_ns();
	dev = find_function(root, bus, devfn);
	if (!dev)
		goto out;
	dev_lock(dev);
	did_reset = pci_is_bridge(dev) && resets_below(dev);
	if (dev->ops->config_write)
		dev->ops->config_write(dev, reg, size, value);
	for (unsigned int i = 0; i < size; i++) {
		uint8_t byte = (uint8_t)(value >> 8 * i), mask = dev->wmask[reg + i];
		uint8_t now = (uint8_t)((dev->config[reg + i] & ~mask) | (byte & mask));

		now &= (uint8_t)~(byte & dev->w1c[reg + i]);
		/* pci_bus_master reads it from any thread */
		__atomic_store_n(&dev->config[reg + i], now, __ATOMIC_RELAXED);
	}
	if (touches(reg, size, PCI_COMMAND, PCI_COMMAND + 2))
		pci_intx_update(dev);
	pci_caps_written(dev);
	if (dev->ops->config_written)
		dev->ops->config_written(dev, reg, size);
	dev_unlock(dev);
	if (pci_flr_written(dev, reg, size, value))
		guest_reset(dev);
	after_write(dev, reg, size, did_reset);
out:
	now_ns = clock_ns();
	pci_root_unlock(root);
	return MIN(
		budget_spend(&root->held, now_ns, LOCK_PRICE * (now_ns - start_ns), LOCK_BURST_NS),
		LOCK_WAIT_NS);
}

/* --- the two mechanisms --- */

static uint64_t ecam_read(void *opaque, uint64_t offset, unsigned int size)
{
	return config_read(opaque, (unsigned int)(offset >> 20), offset >> 12 & 0xff,
			   offset & 0xfff, size);
}

static void ecam_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	vcpu_wait(config_write(opaque, (unsigned int)(offset >> 20), offset >> 12 & 0xff,
			       offset & 0xfff, size, (uint32_t)value));
}

static const struct bus_ops ecam_ops = {.read = ecam_read, .write = ecam_write, .min = 1, .max = 4};

/* The address port takes whole doublewords only; narrower accesses belong to whatever else is at
 * these ports, of which there is the reset control (PCI Local Bus 3.0, 3.2.2.3.2). */
static uint64_t ports_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct pci_root *root = opaque;
	struct bus_region *reset = root->reset_port;
	uint64_t value = ~0ull;
	uint32_t address;

	if (offset == RESET_OFFSET && size == 1 && reset) {
		atomic_fetch_add_explicit(&reset->traps, 1, memory_order_relaxed);
		if (reset->lock)
			pthread_mutex_lock(reset->lock);
		value = reset->ops->read(reset->opaque, 0, 1);
		if (reset->lock)
			pthread_mutex_unlock(reset->lock);
		return value;
	}
	if (root->config.ecam_only)
		return value;
	pci_root_lock(root);
	address = root->config_address;
	if (offset == 0 && size == 4)
		value = address;
	else if (offset >= CONFIG_DATA && address & CONFIG_ENABLE)
		value = config_read(root, address >> 16 & 0xff, address >> 8 & 0xff,
				    (address & 0xfc) | (offset & 3), size);
	pci_root_unlock(root);
	return value;
}

static void ports_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct pci_root *root = opaque;
	struct bus_region *reset = root->reset_port;
	uint64_t wait_ns = 0;
	uint32_t address;

	if (offset == RESET_OFFSET && size == 1 && reset) {
		atomic_fetch_add_explicit(&reset->traps, 1, memory_order_relaxed);
		if (reset->lock)
			pthread_mutex_lock(reset->lock);
		reset->ops->write(reset->opaque, 0, value, 1);
		if (reset->lock)
			pthread_mutex_unlock(reset->lock);
		return;
	}
	if (root->config.ecam_only)
		return;
	pci_root_lock(root);
	address = root->config_address;
	if (offset == 0 && size == 4)
		root->config_address = (uint32_t)value & PCI_CONFIG_ADDRESS_BITS;
	else if (offset >= CONFIG_DATA && address & CONFIG_ENABLE)
		wait_ns = config_write(root, address >> 16 & 0xff, address >> 8 & 0xff,
				       (address & 0xfc) | (offset & 3), size, (uint32_t)value);
	pci_root_unlock(root);
	vcpu_wait(wait_ns);
}

static const struct bus_ops ports_ops = {
	.read = ports_read, .write = ports_write, .min = 1, .max = 4};

/* --- the root --- */

static const struct pci_device_ops no_ops = {0};

int pci_root_create(struct pci_root **ret, const struct pci_root_config *config, struct err *err)
{
	/* A plain host bridge, so that probing by any mechanism finds bus 0 */
	const struct pci_ids host_ids = {
		.vendor = 0x1b36,
		.device = config->host_device ? config->host_device : 0x0008,
		.class_code = 0x060000,
	};
	pthread_mutexattr_t attr;
	struct pci_root *root;
	int r = 0;

	if (!mem_new(root))
		return err_set(err, -ENOMEM, "PCI: out of memory");
	root->config = *config;
	root->bus0.root = root;
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&root->lock, &attr);
	pthread_mutexattr_destroy(&attr);
	root->ecam = (struct bus_region){
		.ops = &ecam_ops, .opaque = root, .name = "pci-ecam", .size_bytes = ECAM_BYTES};
	root->ports = (struct bus_region){.ops = &ports_ops,
					  .opaque = root,
					  .name = "pci-config-ports",
					  .size_bytes = CONFIG_PORT_BYTES};
	pci_device_init(&root->host, &no_ops, "host-bridge", &host_ids);
	r = pci_attach(&root->host, &root->bus0, NULL, err);
	if (!r)
		r = bus_add(config->mmio, &root->ecam, config->windows.ecam_gpa, err);
	if (!r)
		r = bus_add(config->pio, &root->ports, CONFIG_ADDRESS_PORT, err);
	if (r) {
		pci_root_destroy(root);
		return r;
	}
	*ret = root;
	return 0;
}

void pci_root_destroy(struct pci_root *root)
{
	if (!root)
		return;
	bus_del(root->config.mmio, &root->ecam);
	bus_del(root->config.pio, &root->ports);
	pci_detach(&root->host);
	for (unsigned int i = 0; i < PCI_DEVFNS; i++)
		assert(!root->bus0.functions[i]);
	pthread_mutex_destroy(&root->lock);
	free(root);
}

struct pci_bus *pci_root_bus(struct pci_root *root)
{
	return &root->bus0;
}

bool pci_bus_is_root(const struct pci_bus *bus)
{
	return !bus->bridge;
}

uint8_t pci_bus_number(const struct pci_bus *bus)
{
	return bus->bridge
		       ? __atomic_load_n(&bus->bridge->config[PCI_SECONDARY_BUS], __ATOMIC_RELAXED)
		       : 0;
}

const struct pci_windows *pci_root_windows(const struct pci_root *root)
{
	return &root->config.windows;
}

void pci_root_set_reset_port(struct pci_root *root, struct bus_region *region)
{
	root->reset_port = region;
}

void pci_root_lock(struct pci_root *root)
{
	pthread_mutex_lock(&root->lock);
}

void pci_root_unlock(struct pci_root *root)
{
	pthread_mutex_unlock(&root->lock);
}

void pci_bus_walk(struct pci_bus *bus, void (*fn)(void *opaque, struct pci_device *dev),
		  void *opaque)
{
	for (unsigned int i = 0; i < PCI_DEVFNS; i++) {
		if (bus->functions[i])
			fn(opaque, bus->functions[i]);
	}
	for (unsigned int i = 0; i < PCI_DEVFNS; i++) {
		if (bus->functions[i] && pci_is_bridge(bus->functions[i]))
			pci_bus_walk(bus->functions[i]->secondary, fn, opaque);
	}
}

void pci_root_walk(struct pci_root *root, void (*fn)(void *opaque, struct pci_device *dev),
		   void *opaque)
{
	pci_bus_walk(&root->bus0, fn, opaque);
}

/* --- attach and detach --- */

static unsigned int devfn_of(const struct pci_addr *addr)
{
	return (unsigned int)addr->slot << 3 | addr->function;
}

/* A link leads to device 0 only (7.3.1). */
static bool is_link(const struct pci_bus *bus)
{
	int type = bus->bridge ? pci_port_type(bus->bridge) : -1;

	return type == PCI_EXP_TYPE_ROOT_PORT || type == PCI_EXP_TYPE_DOWNSTREAM;
}

static bool slot_free(const struct pci_bus *bus, unsigned int slot)
{
	for (unsigned int f = 0; f < 8; f++) {
		if (bus->functions[slot << 3 | f])
			return false;
	}
	return true;
}

static int choose_addr(const struct pci_device *dev, const struct pci_bus *bus,
		       const struct pci_addr *want, struct pci_addr *ret, struct err *err)
{
	unsigned int slots = is_link(bus) ? 1 : 32, slot = 0;
	char text[PCI_ADDR_TEXT];

	ret->bus = bus->bridge ? bus->bridge->config[PCI_SECONDARY_BUS] : 0;
	if (!want) {
		while (slot < slots && !slot_free(bus, slot))
			slot++;
		if (slot == slots)
			return err_set(err, -ENOSPC, "%s: no free slot %s%s", dev->name,
				       bus->bridge ? "behind " : "on PCI bus 0",
				       bus->bridge ? bus->bridge->name : "");
		ret->slot = (uint8_t)slot;
		ret->function = 0;
		return 0;
	}
	ret->slot = want->slot;
	ret->function = want->function;
	pci_addr_format(ret, text);
	if (want->slot >= slots || want->function > 7)
		return err_set(err, -EINVAL, "%s: no slot %02x on this bus (%s): %s", dev->name,
			       want->slot, text,
			       slots == 1 ? "behind a PCIe port there is slot 00 only"
					  : "slots are 00 to 1f");
	if (bus->functions[devfn_of(ret)])
		return err_set(err, -EEXIST, "%s: PCI address %s is taken by '%s'", dev->name, text,
			       bus->functions[devfn_of(ret)]->name);
	return 0;
}

/* Function 0 tells software whether to look for more (7.5.1.1.9). */
static void update_multi_function(struct pci_bus *bus, unsigned int slot)
{
	unsigned int n = 0;

	for (unsigned int f = 0; f < 8; f++)
		n += bus->functions[slot << 3 | f] != NULL;
	for (unsigned int f = 0; f < 8; f++) {
		struct pci_device *dev = bus->functions[slot << 3 | f];

		if (dev && n > 1)
			dev->config[PCI_HEADER_TYPE] |= PCI_HEADER_TYPE_MFD;
		else if (dev)
			dev->config[PCI_HEADER_TYPE] &= (uint8_t)~PCI_HEADER_TYPE_MFD;
	}
}

/* INTA to INTD turn by the slot at each bridge on the way up (PCI-to-PCI Bridge 1.2, 9.1). */
static int get_intx(struct pci_device *dev, struct err *err)
{
	const struct pci_root_config *config = &dev->root->config;
	unsigned int pin = dev->config[PCI_INTERRUPT_PIN];
	uint32_t gsi;
	int ret;

	if (!pin || !config->irq)
		return 0;
	pin--;
	for (const struct pci_device *at = dev; at; at = at->bus->bridge)
		pin = (pin + at->addr.slot) % 4;
	gsi = config->intx_gsi + pin;
	ret = irq_line_get(&dev->intx, config->irq, gsi, err);
	if (!ret)
		dev->config[PCI_INTERRUPT_LINE] = (uint8_t)gsi;
	return ret;
}

static void set_function(struct pci_bus *bus, unsigned int devfn, struct pci_device *dev)
{
	uint64_t bit = 1ull << devfn % 64, *bridges = &bus->bridges[devfn / 64];

	bus->functions[devfn] = dev;
	*bridges = dev && pci_is_bridge(dev) ? *bridges | bit : *bridges & ~bit;
}

int pci_attach(struct pci_device *dev, struct pci_bus *bus, const struct pci_addr *addr,
	       struct err *err)
{
	struct pci_root *root = bus->root;
	int ret;

	assert(root && !dev->bus);
	dev->initial = malloc(PCI_CONFIG_BYTES);
	if (!dev->initial)
		return err_set(err, -ENOMEM, "%s: out of memory", dev->name);
	pci_root_lock(root);
	ret = choose_addr(dev, bus, addr, &dev->addr, err);
	if (ret)
		goto fail;
	dev->root = root;
	dev->bus = bus;
	ret = get_intx(dev, err);
	if (ret) {
		err_prefix(err, "%s", dev->name);
		dev->root = NULL;
		dev->bus = NULL;
		goto fail;
	}
	memcpy(dev->initial, dev->config, PCI_CONFIG_BYTES);
	if (dev->secondary)
		dev->secondary->root = root;
	set_function(bus, devfn_of(&dev->addr), dev);
	update_multi_function(bus, dev->addr.slot);
	pci_update(dev, false);
	pci_root_unlock(root);
	return 0;
fail:
	pci_root_unlock(root);
	free(dev->initial);
	dev->initial = NULL;
	return ret;
}

static void update_again(void *opaque, struct pci_device *dev)
{
	(void)opaque;
	pci_update(dev, false);
}

void pci_detach(struct pci_device *dev)
{
	struct pci_root *root = dev->root;

	if (!root)
		return;
	pci_root_lock(root);
	pci_hide(dev);
	set_function(dev->bus, devfn_of(&dev->addr), NULL);
	update_multi_function(dev->bus, dev->addr.slot);
	/* Somebody may have waited for the addresses of its host mappings. */
	pci_bus_walk(&root->bus0, update_again, NULL);
	pci_root_unlock(root);
	/* Config accesses that found it are over with the lock; those of its BARs with this. */
	bus_synchronize(root->config.mmio);
	bus_synchronize(root->config.pio);
	irq_line_put(&dev->intx);
	if (dev->secondary)
		dev->secondary->root = NULL;
	dev->root = NULL;
	dev->bus = NULL;
	free(dev->initial);
	dev->initial = NULL;
}

int pci_bridge_init(struct pci_device *dev, struct err *err)
{
	assert(dev->config[PCI_HEADER_TYPE] == 1 && !dev->secondary && !dev->bus);
	if (!mem_new(dev->secondary))
		return err_set(err, -ENOMEM, "%s: out of memory", dev->name);
	dev->secondary->bridge = dev;
	return 0;
}

void pci_bridge_done(struct pci_device *dev)
{
	if (!dev->secondary)
		return;
	assert(!dev->bus);
	for (unsigned int i = 0; i < PCI_DEVFNS; i++)
		assert(!dev->secondary->functions[i]);
	free(dev->secondary);
	dev->secondary = NULL;
}
