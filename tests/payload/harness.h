/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Payload guests: a few instructions on a live vCPU, with no kernel and no firmware, for tests of
 * what only a vCPU can show. Runs on any /dev/kvm, also on one that cannot boot Linux.
 *
 *     struct payload_vm *p = payload_create(1);       skips the test where KVM cannot, with why
 *     payload_start(p, "io", ARCH_ENTRY_REAL);
 *     payload_wait_exit(p)                            what the payload wrote to its exit port
 *     payload_destroy(p);
 *
 * Memory: 2 MiB at 0. The payload is loaded at PAYLOAD_GPA; its results are at PAYLOAD_RESULT. Any
 * failure of the harness itself fails the test (cr_assert).
 *
 * Threads: the test's own.
 */
#ifndef TESTS_PAYLOAD_HARNESS_H
#define TESTS_PAYLOAD_HARNESS_H

#include <stdatomic.h>
#include <stdint.h>

#include "core/arch.h"
#include "core/bus.h"
#include "core/gmem.h"
#include "core/irq.h"
#include "core/vcpu.h"

enum {
	PAYLOAD_GDT = 0x500,
	PAYLOAD_GPA = 0x1000,
	PAYLOAD_RESULT = 0x4000,
	PAYLOAD_STACK = 0x7000,
	PAYLOAD_TABLES = 0x8000, /* six pages: the first 4 GiB, identity */
	PAYLOAD_BYTES = 0x3000,  /* the largest payload */
	PAYLOAD_MEMORY = 2 << 20,
	PAYLOAD_PORT_EXIT = 0xf4,
	PAYLOAD_PORT_DATA = 0x510,
	PAYLOAD_PORT_BELL = 0x520,
	PAYLOAD_RECORDS = 64,
};
#define PAYLOAD_MMIO      0xd0000000ull
#define PAYLOAD_MMIO_BELL 0xd0001000ull

struct payload_record {
	uint64_t offset, value;
	unsigned int size;
};

struct payload_vm {
	int kvm_fd;
	unsigned int cpus;
	struct gmem *gmem;
	struct bus *mmio;
	struct bus *pio;
	struct arch_vm *arch;
	struct irq_chip *irq;
	struct vcpus *vcpus;
	/* Ports. Writes to the data port are recorded; reads count up from 0x100. */
	struct bus_region exit_port, data_port, bell_port, mmio_ram, mmio_bell;
	pthread_mutex_t lock;
	struct payload_record records[PAYLOAD_RECORDS];
	unsigned int n_records;
	_Atomic uint32_t next_read;
	uint8_t ram[4096];
	/* If set, called for each write to the data port, in the vCPU's thread. */
	void (*on_data)(struct payload_vm *p, uint64_t value);
	int exit_fd; /* eventfd */
	_Atomic int exit_code;
	int event_fd; /* eventfd */
	_Atomic int event;
	char event_text[256];
};

/* The payloads as assembled; the last has no name. */
struct payload_image {
	const char *name;
	unsigned int bytes;
	const unsigned char *data;
};
extern const struct payload_image payload_images[];

/* A machine with `cpus` vCPUs and nothing loaded. Skips the running test where /dev/kvm is missing,
 * forbidden or does not run a payload. */
struct payload_vm *payload_create(unsigned int cpus);
void payload_destroy(struct payload_vm *p);

/* Load tests/payload/<name>.S and reset all vCPUs to its entry. vCPUs are paused. */
void payload_load(struct payload_vm *p, const char *name, enum arch_entry_mode mode);
/* Load and run. */
void payload_start(struct payload_vm *p, const char *name, enum arch_entry_mode mode);
/* Wait for a write to the exit port (its value) or a vCPU event; fail the test after 30 s. */
int payload_wait_exit(struct payload_vm *p);
enum vcpu_event payload_wait_event(struct payload_vm *p);
/* Wait until fd (an eventfd) was signalled; returns and clears its count. Fails the test on a vCPU
 * event and after 30 s. */
uint64_t payload_wait_fd(struct payload_vm *p, int fd);

/* 4 bytes of guest memory, as a running guest may be changing them. */
uint32_t payload_peek(struct payload_vm *p, uint64_t gpa);

#endif
