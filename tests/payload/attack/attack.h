/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The attack guest: a kernel of a few pages that writes garbage to every port, config register, BAR
 * and ring of its machine, for a time and from a seed given on its command line:
 *
 *     seconds=60 seed=7
 *
 * It spares what would end it: the bits that reset or power off the machine, memory below
 * GARBAGE_GPA (its own) as a target of DMA, delivery modes of messages that are not interrupts, and
 * the interrupt controllers that are the kernel's and not hospes's. Everything else is fair.
 *
 * It says "attack: done" on the serial port and powers off.
 */
#ifndef ATTACK_H
#define ATTACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	GARBAGE_GPA = 16 << 20, /* from here to the end of RAM is the devices' to spoil */
	MAX_FUNCTIONS = 64,
	MAX_BARS = 6,
	HEADER_BYTES = 64,

	SERIAL_PORT = 0x3f8,
};

/* io.c: port and memory accesses of 1, 2, 4 (memory: 8) bytes, which may be unaligned. */
uint32_t port_read(uint16_t port, unsigned int size);
void port_write(uint16_t port, uint32_t value, unsigned int size);
void port_string(uint16_t port, const void *bytes, unsigned int count, unsigned int size);
uint64_t mem_read(uint64_t gpa, unsigned int size);
void mem_write(uint64_t gpa, uint64_t value, unsigned int size);
uint64_t tsc(void);
/* Map what lies above 4 GiB; false when page tables have run out. */
bool map_high(uint64_t gpa);

/* The seeded generator. */
extern uint64_t random_state;
uint64_t rnd(void);
uint32_t below(uint32_t n);
/* Values that find more than uniform ones do: bits, edges, small numbers. */
uint64_t nasty(void);

void print(const char *text);
void print_number(uint64_t v);
__attribute__((noreturn)) void power_off(void);

struct bar {
	bool present, io;
	uint64_t base, size;
};

struct function {
	uint32_t address; /* bus, device, function as in config addresses: bits 23 to 8 */
	uint32_t header[HEADER_BYTES / 4]; /* as found */
	struct bar bar[MAX_BARS];
	uint8_t msix_cap;
	int msix_bar;
	uint32_t msix_offset, msix_entries;
	bool virtio;
	uint8_t window_cap; /* virtio's access by config space */
	struct {
		int bar;
		uint32_t offset, length;
	} common, notify;
	uint32_t notify_multiplier;
};

extern struct function functions[MAX_FUNCTIONS];
extern unsigned int n_functions;
extern uint64_t ram_end; /* of RAM below 4 GiB */
extern uint64_t ecam_gpa;

/* pci.c */
void pci_scan(void);
uint32_t pci_config_read(uint32_t address, unsigned int reg);
void pci_config_write(uint32_t address, unsigned int reg, uint32_t value);
/* Put a function's header back, so that its BARs can be attacked where they were. */
void pci_restore(const struct function *f);
/* Write to a BAR's register unless it would kill the guest. */
void bar_write(const struct function *f, unsigned int bar, uint64_t offset, uint64_t value,
	       unsigned int size);
uint64_t bar_read(const struct function *f, unsigned int bar, uint64_t offset, unsigned int size);
/* Every register of every function once, then every byte; and every fourth byte of every BAR. */
void pci_sweep(void);
void attack_config(void);
void attack_bar(void);

/* place.c: BARs over RAM and over each other, MSI-X tables in every order. */
void pci_place(void);

/* ring.c */
void attack_ring(void);

#endif
