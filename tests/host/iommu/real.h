/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For programs that try I/O address spaces on real devices: cases in TAP, devices by address, and
 * QEMU's edu device, whose DMA engine accesses any address that it is given.
 */
#ifndef TESTS_HOST_IOMMU_REAL_H
#define TESTS_HOST_IOMMU_REAL_H

#include <stdbool.h>
#include <stdint.h>

#include "iommu/fault.h"
#include "iommu/ioas.h"

/* Of the last call that failed; check() clears it. */
extern struct err err;

/* A case; returns good. */
bool check(bool good, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int failures(void);
/* What could not be set up ends the program. */
void need(bool good, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

extern const struct log test_log; /* to stdout, as comments */

/* The group or character device of a PCI device, opened as the backend wants it. -1: cannot. */
int open_device(enum iommu_kind kind, const char *bdf);
struct iommu_endpoint *make_endpoint(struct iommu *iommu, const char *bdf);

uint64_t now_ns(void); /* CLOCK_MONOTONIC */

/* A line of /proc/vmstat, brought up to date first. */
uint64_t vmstat(const char *name);

/* edu: its buffer is 4096 bytes; addresses are of 64 bits in the test host. */
struct edu {
	volatile uint8_t *bar;
};
enum { EDU_BUFFER_BYTES = 4096 };
/* Maps its registers, lets it be bus master. */
void edu_open(struct edu *edu, int device_fd);
void edu_close(struct edu *edu);
/* Starts, and the engine works for a while yet. */
void edu_start_write(struct edu *edu, uint64_t iova, uint32_t bytes);
bool edu_runs(const struct edu *edu);
void edu_wait(struct edu *edu);
/* Both wait until the engine has stopped. */
void edu_write(struct edu *edu, uint64_t iova, uint32_t bytes); /* buffer to memory */
void edu_read(struct edu *edu, uint64_t iova, uint32_t bytes);  /* memory to buffer */

/* A watch of DMA faults on a loop of its own. Was one of this kind seen, now or within some
 * seconds? It is forgotten then, and so is all that came before. */
void faults_open(void);
void faults_close(void);
bool fault_seen(const char *bdf, uint64_t iova, bool write, struct iommu_fault *ret);

#endif
