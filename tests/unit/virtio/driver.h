/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small guest in the test's own process: memory, buses, an interrupt chip, a PCI root, one event
 * loop or several, and a virtio driver that does everything through the buses and its memory, as a
 * kernel would.
 *
 *     struct guest *g = guest_create(NULL);
 *     struct drv *d = drv_create(g, vdev);     the device is on the bus (owned by d now)
 *     drv_start(d, features, size);            negotiate, set up and enable all queues, DRIVER_OK
 *     drv_add(d, 0, out, n_out, in, n_in);     build a chain; drv_kick(d, 0) makes it visible
 *     drv_wait(d, 0, &head, &len);             turn the loops until a used element appears
 *     drv_destroy(d); guest_destroy(g);
 *
 * Failures of the harness itself abort with a message. By default everything runs in the caller's
 * thread; guest_run_loops starts a thread for each loop, for tests of what happens at once.
 */
#ifndef TEST_VIRTIO_DRIVER_H
#define TEST_VIRTIO_DRIVER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/dma.h"
#include "core/gmem.h"
#include "core/loop.h"
#include "core/pci.h"
#include "virtio/pci.h"
#include "virtio/virtio.h"

enum {
	GUEST_LOOPS_MAX = 4,
	DRV_QUEUES_MAX = VIRTIO_MAX_QUEUES,
	DRV_VECTORS_MAX = DRV_QUEUES_MAX + 1,
};

struct guest_config {
	unsigned int loops; /* 0: 1 */
	enum loop_backend backend;
	const struct dma_space_ops *dma_ops; /* NULL: identity */
	void *dma_opaque;
	bool platform_dma; /* offer VIRTIO_F_ACCESS_PLATFORM */
	bool behind_port;  /* the device sits below a root port */
};

struct guest; /* 64 MiB at 0, and 16 MiB at 4 GiB */

struct guest *guest_create(const struct guest_config *config);
void guest_destroy(struct guest *g);
struct loop *guest_loop(struct guest *g, unsigned int i);
struct gmem *guest_memory(struct guest *g);
struct dma_space *guest_dma(struct guest *g);
const struct log *guest_log(struct guest *g);
/* What a device is created with. */
struct device_env guest_env(struct guest *g);
struct pci_bus *guest_bus(struct guest *g);
/* Lines that were logged so far, and the last one. */
unsigned int guest_log_lines(struct guest *g);
const char *guest_last_line(struct guest *g);
/* Fresh, zeroed guest memory; align is a power of two. */
uint64_t guest_alloc(struct guest *g, uint64_t bytes, uint64_t align);
/* Allocate from gpa on again: what was allocated there is no longer in use. */
void guest_free_from(struct guest *g, uint64_t gpa);
/* A host pointer to guest memory; aborts when it is not there. */
void *guest_ptr(struct guest *g, uint64_t gpa, size_t len);
/* Turn every loop once, without waiting (nothing when they have threads). */
void guest_turn(struct guest *g);
/* Turn until cond(opaque) or 10 s are over; false then. */
bool guest_until(struct guest *g, bool (*cond)(void *opaque), void *opaque);
void guest_run_loops(struct guest *g);
void guest_join_loops(struct guest *g);

struct drv_sg {
	uint64_t gpa;
	uint32_t len;
};

struct drv_queue {
	uint16_t size;
	uint64_t desc, avail, used;
	uint16_t avail_idx; /* not yet visible until drv_publish */
	uint16_t used_seen;
	uint16_t next_desc; /* bump allocation: a chain takes consecutive descriptors */
	uint16_t outstanding;
	uint64_t table; /* next free indirect table memory, or 0 for direct chains */
};

struct drv {
	struct guest *guest;
	struct device *dev;
	struct virtio_device *vdev;
	struct pci_addr addr;
	uint64_t bar;
	/* Offsets in the BAR, from the capabilities. */
	uint32_t common, isr, config, notify, notify_multiplier;
	uint64_t ports;                /* where notifications by port go, of the same multiplier */
	_Atomic unsigned int notified; /* by port and by memory in turn, from any thread */
	unsigned int pci_cap;          /* config offset of the access capability */
	uint64_t features;             /* accepted */
	bool indirect;                 /* drv_add builds indirect tables */
	unsigned int n_queues;
	struct drv_queue queues[DRV_QUEUES_MAX];
};

/* Takes vdev over. Enables memory decoding and bus mastering, finds the capabilities. */
struct drv *drv_create(struct guest *g, struct virtio_device *vdev);
void drv_destroy(struct drv *d);

/* The root port's config space (with behind_port): reset the bus below, as a guest does. */
void drv_bus_reset(struct drv *d);

/* Config space, and the memory BAR. */
enum { DRV_BAR = 4 };
uint32_t drv_cfg_read(struct drv *d, unsigned int reg, unsigned int size);
void drv_cfg_write(struct drv *d, unsigned int reg, uint32_t value, unsigned int size);
uint64_t drv_bar_read(struct drv *d, uint64_t offset, unsigned int size);
void drv_bar_write(struct drv *d, uint64_t offset, uint64_t value, unsigned int size);
#define drv_common_read(d, field, size) drv_bar_read(d, (d)->common + (uint64_t)DRV_##field, size)
#define drv_common_write(d, field, value, size) \
	drv_bar_write(d, (d)->common + (uint64_t)DRV_##field, value, size)
enum drv_common {
	DRV_DEVICE_FEATURE_SELECT = 0x00,
	DRV_DEVICE_FEATURE = 0x04,
	DRV_DRIVER_FEATURE_SELECT = 0x08,
	DRV_DRIVER_FEATURE = 0x0c,
	DRV_CONFIG_VECTOR = 0x10,
	DRV_NUM_QUEUES = 0x12,
	DRV_STATUS = 0x14,
	DRV_GENERATION = 0x15,
	DRV_QUEUE_SELECT = 0x16,
	DRV_QUEUE_SIZE = 0x18,
	DRV_QUEUE_VECTOR = 0x1a,
	DRV_QUEUE_ENABLE = 0x1c,
	DRV_QUEUE_NOTIFY_OFF = 0x1e,
	DRV_QUEUE_DESC = 0x20,
	DRV_QUEUE_DRIVER = 0x28,
	DRV_QUEUE_DEVICE = 0x30,
	DRV_QUEUE_RESET = 0x3a,
};
uint8_t drv_status(struct drv *d);
void drv_set_status(struct drv *d, uint8_t bits);
/* Write 0 and turn until it reads 0. */
void drv_reset(struct drv *d);
uint64_t drv_offered(struct drv *d);
/* ACKNOWLEDGE, DRIVER, features (VERSION_1 added), FEATURES_OK: whether that stuck. */
bool drv_negotiate(struct drv *d, uint64_t features);
/* Give queue i fresh rings of that size (0: what the device offers) and enable it. */
void drv_setup_queue(struct drv *d, unsigned int i, uint16_t size);
/* MSI-X on, vector i for queue i, and the last for configuration. */
void drv_enable_msix(struct drv *d);
/* reset, negotiate, MSI-X, all queues, DRIVER_OK. Aborts when the device refuses. */
void drv_start(struct drv *d, uint64_t features, uint16_t queue_size);
/* How often MSI-X vector v was raised since last asked. */
unsigned int drv_interrupts(struct drv *d, unsigned int v);
/* Sleep until it is raised: how often it was; 0 after 10 s. With threads, or turned by nobody. */
unsigned int drv_sleep(struct drv *d, unsigned int v);
/* Level of the INTx line. */
bool drv_intx(struct drv *d);

/* Rings. add builds a chain of out segments then in segments and puts it into the available ring
 * without telling (its head is returned); publish writes the index; kick publishes and notifies if
 * the device wants it (true when it did). */
uint16_t drv_add(struct drv *d, unsigned int queue, const struct drv_sg *out, unsigned int n_out,
		 const struct drv_sg *in, unsigned int n_in);
void drv_publish(struct drv *d, unsigned int queue);
bool drv_kick(struct drv *d, unsigned int queue);
void drv_notify(struct drv *d, unsigned int queue);
/* Take a used element if there is one. */
bool drv_used(struct drv *d, unsigned int queue, uint16_t *head, uint32_t *len);
/* The same, turning the loops until there is; false after 10 s. */
bool drv_wait(struct drv *d, unsigned int queue, uint16_t *head, uint32_t *len);
/* One descriptor by hand. */
void drv_write_desc(struct drv *d, unsigned int queue, uint16_t i, uint64_t addr, uint32_t len,
		    uint16_t flags, uint16_t next);
uint16_t drv_used_idx(struct drv *d, unsigned int queue);

#endif
