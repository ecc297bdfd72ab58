/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PCI_RIG_H
#define PCI_RIG_H

/* What the tests of PCI stand on: a PCI root with both config mechanisms, functions whose BARs
 * answer with a tag, bridges. */

#include <criterion/criterion.h>
#include <pthread.h>

#include "base/num.h"
#include "core/pci.h"
#include "pci_host.h"

enum {
	COMMAND = 4,
	COMMAND_IO = 1,
	COMMAND_MEM = 2,
	COMMAND_INTX_OFF = 0x400,
	BAR = 0x10,
	ROM = 0x30,
	PRIMARY = 0x18,
	BRIDGE_CONTROL = 0x3e,
};

extern struct pci_host pci;
extern struct err err;
extern bool level[24]; /* of each interrupt line */
extern unsigned int warnings;

/* A function with a trapped BAR of each kind that is asked for. */
struct fn {
	struct pci_device pci;
	pthread_mutex_t lock;
	struct bus_region region[PCI_PLACES];
	uint8_t tag;
	unsigned int written, reset;
	uint64_t mapped; /* of a host mapping, 0 when not visible */
};

void rig_set_up(void);
void rig_tear_down(void);

void fn_init(struct fn *f, const char *name, uint8_t tag);
/* A trapped BAR, of bytes that are the tag. */
void fn_bar(struct fn *f, unsigned int bar, enum pci_bar_kind kind, uint64_t size);
void port_init(struct fn *f, const char *name);
void attach(struct fn *f, struct pci_bus *bus, unsigned int slot, unsigned int function);

/* By ECAM, of function 0; by the ports. */
uint64_t ecam(unsigned int bus, unsigned int slot, unsigned int function, unsigned int reg);
uint32_t cfg_read(unsigned int bus, unsigned int slot, unsigned int reg, unsigned int size);
void cfg_write(unsigned int bus, unsigned int slot, unsigned int reg, uint32_t v,
	       unsigned int size);
uint32_t port_read(unsigned int bus, unsigned int slot, unsigned int reg, unsigned int size);
uint8_t tag_at(struct bus *bus, uint64_t addr);

#endif
