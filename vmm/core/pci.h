/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PCI: the hierarchy, config space, BARs and capabilities of what sits on it.
 *
 *   pci_root ── bus 0 ─┬─ 00:01.0 device
 *   (ECAM, CF8/CFC)    └─ 00:03.0 root port ── bus 1 ── 01:00.0 device
 *
 * hospes assigns bus numbers, bridge windows and BARs before the guest starts, since no firmware
 * runs; the guest may reprogram all of them. A device embeds struct pci_device, fills its config
 * space by the helpers below, and gets hooks for what it wants to see. Config space is 4096 bytes
 * with, per byte, a mask of writable bits and a mask of write-one-to-clear bits, so most devices
 * need no hook. A BAR is a bus_region (trapped) or a host mapping (memory the guest touches without
 * an exit, which the device's bar_mapped hook puts into the guest by arch_vm_map_host; parts of it
 * that are to be trapped are bus regions that the same hook adds to the root's bus).
 *
 * PCI Express Base 6.0, chapter 7 for every register named here.
 *
 * A BAR is visible while its decoding is on, it lies where BARs may be (pci_windows), and every
 * bridge above forwards it. Where BARs overlap, the first comer stays visible.
 *
 * A port's slot has a power controller: while the guest has it off, nothing below answers, and what
 * is below was reset as by a reset of the bus.
 *
 * Threads: config accesses come from vCPU threads and are serialised by the root's lock, which is
 * taken before any device lock; hooks run under both. Building the hierarchy is the machine's
 * thread's business; pci_attach and pci_detach take the root's lock themselves.
 */
#ifndef CORE_PCI_H
#define CORE_PCI_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/list.h"
#include "base/log.h"
#include "core/bus.h"
#include "core/irq.h"

enum {
	PCI_CONFIG_BYTES = 4096,
	PCI_BARS = 6,
	PCI_ROM = PCI_BARS, /* among a function's BARs: its expansion ROM */
	PCI_PLACES,         /* BARs and ROM */
};

/* Where a device sits, as users write it: [[DDDD:]BB:]dd.f. */
struct pci_addr {
	uint8_t bus;
	uint8_t slot;     /* 0 to 31 */
	uint8_t function; /* 0 to 7 */
};
/* Parse "04.0", "00:04.0" or "0000:00:04.0"; -EINVAL and a message that shows the form. */
int pci_addr_parse(struct pci_addr *ret, const char *text, struct err *err);
#define PCI_ADDR_TEXT 16
const char *pci_addr_format(const struct pci_addr *addr, char text[PCI_ADDR_TEXT]);

struct pci_root;
struct pci_bus;
struct pci_device;
struct state_writer;
struct state_reader;

struct pci_range {
	uint64_t gpa, bytes;
};

struct pci_windows {
	/* Where BARs are placed, and what firmware tables name. */
	uint64_t ecam_gpa; /* 256 MiB */
	uint64_t mmio32_gpa, mmio32_bytes;
	uint64_t mmio64_gpa, mmio64_bytes;
	uint16_t io_base;
	uint32_t io_bytes;
	/* A guest that ignores the tables may put a memory BAR anywhere below `top` (exclusive),
	 * but for these: memory, ECAM, interrupt controllers. bytes 0: no range. */
	uint64_t top;
	struct pci_range kept[5];
};

struct pci_root_config {
	const struct log *log;
	struct bus *mmio;
	struct bus *pio;
	struct irq_chip *irq;
	struct pci_windows windows;
	/* Config space is reached by the ECAM alone: as if nobody were at 0xcf8 to 0xcff, but for
	 * the reset control. */
	bool ecam_only;
	uint16_t host_device; /* device ID of 00:00.0; 0: the usual one */
	/* GSI of INTx pin A..D of a slot on bus 0: (slot + pin) % 4 + intx_gsi, as _PRT says. */
	uint32_t intx_gsi;
};
int pci_root_create(struct pci_root **ret, const struct pci_root_config *config, struct err *err);
void pci_root_destroy(struct pci_root *root);
struct pci_bus *pci_root_bus(struct pci_root *root); /* bus 0 */
/* Is it bus 0, whose functions are integrated endpoints without a link? */
bool pci_bus_is_root(const struct pci_bus *bus);
/* As of now: the guest may change it. */
uint8_t pci_bus_number(const struct pci_bus *bus);
const struct pci_windows *pci_root_windows(const struct pci_root *root);
/* The chipset's reset control is the byte at port 0xcf9, inside the config address port, which
 * takes whole doublewords only: single-byte accesses of that port go to this region instead (offset
 * 0, under its lock; traps counted). It is on no bus. NULL: nobody. Before vCPUs run. */
void pci_root_set_reset_port(struct pci_root *root, struct bus_region *region);
void pci_root_lock(struct pci_root *root);
void pci_root_unlock(struct pci_root *root);

/* After all devices are attached and before the guest runs: number the buses, place the BARs
 * (keeping spare room in the windows of root ports), open the bridge windows, enable decoding of
 * nothing (the guest does). Deterministic: the same devices at the same addresses get the same
 * BARs. Also called on a machine reset, to return to that state. */
int pci_root_assign(struct pci_root *root, struct err *err);
/* The highest bus number that pci_root_assign gave out: reported to the guest. Linux probes each
 * number up to there by itself, 64 exits for one without a bus. */
uint8_t pci_root_last_bus(struct pci_root *root);

struct pci_device_ops {
	/* Before a guest write (value: its bytes, the first lowest) changes config space: for
	 * registers that live elsewhere, such as bits that a real device clears when they are
	 * written with 1. */
	void (*config_write)(struct pci_device *dev, unsigned int offset, unsigned int size,
			     uint32_t value);
	/* After the generic code has updated config space for a guest write. */
	void (*config_written)(struct pci_device *dev, unsigned int offset, unsigned int size);
	/* Before a guest read is served from config space, to refresh what changes by itself. */
	void (*config_read)(struct pci_device *dev, unsigned int offset, unsigned int size);
	/* A BAR that is a host mapping begins or ceases to be visible at gpa (decode on or off,
	 * moved). May be NULL for devices with trapped BARs only. */
	void (*bar_mapped)(struct pci_device *dev, unsigned int bar, uint64_t gpa, bool on);
	/* The guest resets the function: function-level reset (which is offered when this is set)
	 * or the reset of a bus above. The standard part is reset already. May be NULL. */
	void (*reset)(struct pci_device *dev);
};

enum pci_bar_kind {
	PCI_BAR_NONE,
	PCI_BAR_IO,
	PCI_BAR_MEM32,
	PCI_BAR_MEM64, /* takes two registers */
	PCI_BAR_MEM64_PREFETCH,
	PCI_BAR_ROM, /* PCI_ROM alone, which has an enable bit of its own (7.5.1.2.4) */
};

struct pci_bar {
	enum pci_bar_kind kind;
	uint64_t size_bytes;       /* power of two; at least 16 (memory), 4 (I/O), 2 KiB (ROM) */
	struct bus_region *region; /* trapped; NULL for a host mapping */
	/* --- framework, under the root's lock --- */
	uint64_t address; /* as programmed */
	bool visible;
	bool refused; /* the log says already that it was put where no BAR may be */
	uint64_t gpa; /* where, while visible */
};

struct pci_cap;

/* A capability that does something when config space changes (MSI, MSI-X). Called under the
 * device's lock, or with vCPUs out of the guest. */
struct pci_cap_ops {
	/* Before a guest read, as pci_device_ops.config_read. May be NULL. */
	void (*config_read)(struct pci_cap *cap);
	/* After any guest write: also the command register counts, since bus mastering gates
	 * messages. */
	void (*config_written)(struct pci_cap *cap);
	/* As pci_device_reset: the writable bits have their first values again. */
	void (*reset)(struct pci_cap *cap);
	/* Its section (state.h), behind that of config space; what load keeps, state_commit makes
	 * so. */
	void (*save)(const struct pci_cap *cap, struct state_writer *w);
	int (*load)(struct pci_cap *cap, struct state_reader *r, struct err *err);
};

/* Embedded by the implementation, which calls pci_cap_hook when its capability is in config space,
 * and pci_cap_unhook (harmless after no hook, if zeroed) before it is freed. */
struct pci_cap {
	const struct pci_cap_ops *ops;
	struct list link;
};

struct pci_device {
	/* Set by the device before pci_attach. */
	const struct pci_device_ops *ops;
	const char *name;
	pthread_mutex_t *lock; /* the device's lock, taken around hooks; may be NULL */
	/* PCI_CONFIG_BYTES: `own`, unless the device named another place before pci_device_init, a
	 * page of zeroes that outlives it. Such a page may be the guest's to read, where no hook
	 * is called for reads: it sees each change as it is made. */
	uint8_t *config;
	/* Framework. What changes once it is attached does so under the root's lock. */
	struct pci_root *root;
	struct pci_bus *bus;
	struct pci_addr addr; /* bus number as of now, which the guest may change */
	struct pci_bar bars[PCI_PLACES];
	uint8_t own[PCI_CONFIG_BYTES];
	uint8_t wmask[PCI_CONFIG_BYTES];
	uint8_t w1c[PCI_CONFIG_BYTES];
	uint16_t next_cap; /* where the next capability goes */
	uint16_t last_cap;
	uint16_t last_ecap;
	uint16_t next_ecap;
	uint16_t express;          /* offset of the PCI Express capability, 0: none */
	uint8_t *initial;          /* config space as attached, for resets */
	struct list caps;          /* struct pci_cap, in order of pci_cap_hook */
	struct pci_bus *secondary; /* of a bridge */
	struct irq_line intx;      /* from pci_attach to pci_detach, for a function with a pin */
};

struct pci_ids {
	uint16_t vendor, device, subsystem_vendor, subsystem;
	uint8_t revision;
	uint32_t class_code; /* 24 bits */
	uint8_t header_type; /* 0 or 1; the multi-function bit is the framework's */
	uint8_t pin;         /* INTx: 0 none, 1 for A */
};

/* Prepare config space: header, command and status masks. Then bars and capabilities, then
 * attach. */
void pci_device_init(struct pci_device *dev, const struct pci_device_ops *ops, const char *name,
		     const struct pci_ids *ids);
/* bar PCI_ROM with kind PCI_BAR_ROM: the expansion ROM, of a function that is no bridge. */
void pci_set_bar(struct pci_device *dev, unsigned int bar, enum pci_bar_kind kind,
		 uint64_t size_bytes, struct bus_region *region);
/* Reserve len bytes of (extended) capability with this id: its offset; asserts that there is room
 * (our own code decides). The body is zero and read-only until the caller sets config and wmask. */
unsigned int pci_add_cap(struct pci_device *dev, uint8_t id, unsigned int len);
unsigned int pci_add_ecap(struct pci_device *dev, uint16_t id, uint8_t version, unsigned int len);
void pci_cap_hook(struct pci_device *dev, struct pci_cap *cap, const struct pci_cap_ops *ops);
void pci_cap_unhook(struct pci_cap *cap);
/* PCI Express capability of the port type given (0 endpoint, 4 root port, 9 root complex integrated
 * endpoint). Returns its offset. */
unsigned int pci_add_express(struct pci_device *dev, unsigned int port_type);

/* Attach at addr (slot and function on that bus); addr NULL: the lowest free slot, by rule and so
 * stable. -EEXIST names who is there; -EINVAL for a slot but 0 below a PCI Express port, whose link
 * leads to one device only. Under no device lock. */
int pci_attach(struct pci_device *dev, struct pci_bus *bus, const struct pci_addr *addr,
	       struct err *err);
/* Take it off the bus; afterwards no vCPU is in its handlers. It waits for them, so not from a
 * handler and under no lock. Harmless when dev is not attached. */
void pci_detach(struct pci_device *dev);

/* A bridge's side: give dev (header type 1) a secondary bus. Before pci_attach; done after
 * pci_detach, when nothing is attached below. */
int pci_bridge_init(struct pci_device *dev, struct err *err);
void pci_bridge_done(struct pci_device *dev);

/* Conventional and function-level reset of the standard part: what is writable returns to its value
 * at pci_attach, but for BARs, bus numbers and windows, which stay as assigned; MSI and MSI-X are
 * off, INTx low. The device resets its own. By the machine's thread with vCPUs out of the guest;
 * takes no lock of dev's or the root's. */
void pci_device_reset(struct pci_device *dev);

/* A function's pin is dev->intx, which is usable from pci_attach to pci_detach (its chip is NULL
 * when the function has no pin). pci_set_intx drives it for emulated devices. A passed-through one
 * connects eventfds to it instead (irq_line_connect), and takes them off while the command
 * register's disable bit is set, which its config_written hook sees. */
/* Level of INTx (and the status bit that shows it), gated by the command register's disable bit.
 * Any thread holding the device lock. */
void pci_set_intx(struct pci_device *dev, bool level);

/* Bus mastering allowed? A device that does DMA asks. Any thread. */
bool pci_bus_master(const struct pci_device *dev);

/* Requester id for irq.h and dma.h. */
uint32_t pci_requester_id(const struct pci_device *dev);

/* State (state.h), of an attached function: config space, MSI and MSI-X; a part of the owner that
 * the device is. load comes before state_commit, which gives messages their routes; loaded comes
 * after it, under no lock: BARs move. Then the device drives its pin anew. */
void pci_device_save(const struct pci_device *dev, struct state_writer *w);
int pci_device_load(struct pci_device *dev, struct state_reader *r, struct err *err);
void pci_device_loaded(struct pci_device *dev);
/* The root and its host bridge, as an owner of their own, "pci-root". */
void pci_root_save(struct pci_root *root, struct state_writer *w);
int pci_root_load(struct pci_root *root, struct state_reader *r, struct err *err);

/* Walk all devices in address order (listing, reset). */
void pci_root_walk(struct pci_root *root, void (*fn)(void *opaque, struct pci_device *dev),
		   void *opaque);

#endif
