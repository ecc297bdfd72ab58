/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buses: MMIO, port I/O, and (in pci.h) PCI config space dispatch through one region type.
 *
 * A region declares which access sizes its handler understands. The framework splits or widens what
 * the guest does to fit, so a handler sees only offsets inside the region and sizes it declared.
 * What nobody claims reads as all ones and swallows writes.
 *
 * Lookup is a binary search in a table that never changes: additions and removals build a new table
 * and swap it in, so accesses take no lock. The old table is freed once every access that began
 * before the swap is over (two counters, as SRCU does it), never waited for inside a handler.
 *
 * Threads: dispatch by any vCPU thread; the handler runs in that thread under region->lock if that
 * is set (the device's lock). add and del by any thread, also from inside a handler (a guest moves
 * its BARs by a config write): they never wait. bus_synchronize waits, so it is called from no
 * handler and under no device lock.
 */
#ifndef CORE_BUS_H
#define CORE_BUS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct bus;

enum bus_kind {
	BUS_MMIO, /* addresses are gpa */
	BUS_PIO,  /* addresses are ports, 0 to 0xffff */
};

struct bus_ops {
	/* offset is inside the region, size is 1, 2, 4 or 8 and within [min, max] below. Naturally
	 * aligned unless `unaligned`. Values are host-endian integers. */
	uint64_t (*read)(void *opaque, uint64_t offset, unsigned int size);
	void (*write)(void *opaque, uint64_t offset, uint64_t value, unsigned int size);
	unsigned int min; /* smallest and largest size the handler takes; 0 means 1 and 8 */
	unsigned int max;
	bool unaligned;
};

/* Embedded in the device; the framework never allocates or copies it. Fields above the line are set
 * by the device before bus_add and constant while it is on the bus. */
struct bus_region {
	const struct bus_ops *ops;
	void *opaque;
	const char *name; /* for messages and counters */
	uint64_t size_bytes;
	pthread_mutex_t *lock; /* held around the handler, NULL for none */
	/* --- framework, under the bus's lock --- */
	uint64_t base; /* present address, valid while `on` */
	bool on;
	_Atomic uint64_t traps; /* accesses so far: for tests, statistics and the exit counters */
};

int bus_create(struct bus **ret, enum bus_kind kind, struct err *err);
void bus_destroy(struct bus *bus);

/* -EEXIST when it would overlap another region (the message names both). bus_add_shadowed puts the
 * region on the bus but lets what is there already win (PCI BARs that a guest programs over
 * something: the first comer keeps the addresses, as on real buses nothing is promised). */
int bus_add(struct bus *bus, struct bus_region *region, uint64_t base, struct err *err);
int bus_add_shadowed(struct bus *bus, struct bus_region *region, uint64_t base);
void bus_del(struct bus *bus, struct bus_region *region);

/* Dispatch one access of 1 to 8 bytes, crossing regions if it must. true when somebody claimed
 * it. */
bool bus_read(struct bus *bus, uint64_t addr, void *data, unsigned int size);
bool bus_write(struct bus *bus, uint64_t addr, const void *data, unsigned int size);

/* Return when no access that began before the call is still inside a handler: after it, a removed
 * region's memory may go. */
void bus_synchronize(struct bus *bus);

/* ioeventfd is a property of a region: a write of `size` bytes (0: any size, where KVM can) at
 * offset, matching `value` if match is set, signals fd instead of running the handler. The hook
 * that installs it in KVM is set by the arch layer; it follows the region when it moves. The fd
 * stays the caller's. Set before bus_add or any time after. */
struct bus_ioeventfd {
	struct bus_region *region;
	uint64_t offset;
	unsigned int size;
	bool match;
	uint64_t value;
	int fd;
};
struct bus_ioeventfd_ops {
	int (*assign)(void *opaque, enum bus_kind kind, uint64_t addr,
		      const struct bus_ioeventfd *e, bool on);
};
void bus_set_ioeventfd_ops(struct bus *bus, const struct bus_ioeventfd_ops *ops, void *opaque);
int bus_ioeventfd_add(struct bus *bus, const struct bus_ioeventfd *ioeventfd);
void bus_ioeventfd_del(struct bus *bus, const struct bus_ioeventfd *ioeventfd);

/* Call fn for each region that is on the bus (counters, tests); under the bus's lock. */
void bus_walk(struct bus *bus, void (*fn)(void *opaque, const struct bus_region *region),
	      void *opaque);

#endif
