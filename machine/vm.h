/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of struct hospes_vm: what create.c builds, lifecycle.c runs and status.c shows.
 *
 * Everything here is the machine's thread's (hospes.h), unless it says otherwise: a pointer is
 * constant from creation to destruction, and what it leads to says what guards it. Functions here
 * are for that thread too, unless they say otherwise, and those that change the machine assert it.
 * vCPU threads and callbacks only set `request` and post `wake`.
 */
#ifndef MACHINE_VM_H
#define MACHINE_VM_H

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/list.h"
#include "base/log.h"
#include "core/arch.h"
#include "core/device.h"
#include "core/dma.h"
#include "core/loop.h"
#include "core/vcpu.h"
#include "firmware/acpi.h"
#include "firmware/kernel.h"
#include "hospes/hospes.h"
#include "iommu/viommu.h"
#include "machine/arrival.h"
#include "machine/config.h"
#include "machine/cpus.h"
#include "machine/credentials.h"
#include "machine/debug.h"
#include "machine/dump.h"
#include "machine/hotplug.h"
#include "machine/kind.h"
#include "machine/kind_passthrough.h"
#include "machine/memory.h"
#include "machine/migrate.h"
#include "platform/platform.h"
#include "sandbox/sandbox.h"
#include "virtio/virtio.h"

enum { VM_MAX_IO_THREADS = 64 };

/* What the guest did that ends or restarts it; 0 is nothing. */
enum vm_request {
	VM_POWER_OFF = 1,
	VM_RESET,
	VM_PANIC,
	VM_CRASH,
	VM_ERROR,
};

/* A loop with a thread of its own, for queues. The machine's thread starts and joins it. */
struct vm_io_thread {
	struct hospes_vm *vm;
	struct loop *loop;
	pthread_t thread;
	bool running;
};

/* A call from another thread, guarded by `mutex`. The caller frees it when it is done; where the
 * caller has given up, who carries it out does. */
struct vm_command {
	struct list link;
	int (*fn)(struct hospes_vm *vm, void *arg, struct err *err);
	void *arg;
	struct err err;
	int result;
	bool running, done, abandoned;
};

/* How long a call waits for a machine's thread that does not answer: longer than vcpus_pause, which
 * the thread itself may be waiting in. */
#define VM_CALL_NS (3 * VCPU_LEAVE_NS)

/* The kernel on its way into guest memory, which is copying, while KVM makes the machine, which is
 * mostly waiting. Its thread has this, and uses kernel, gmem and platform, until it is joined. */
struct vm_loading {
	pthread_t thread;
	bool running; /* not joined yet */
	int result;
	struct err err;
	struct arch_entry entry;
};

/* The power button, which is pressed more than once (shutdown.c). */
struct vm_shutdown {
	struct loop_op timer;
	unsigned int presses; /* since the last call */
	bool waits;           /* the timer is in flight */
};

struct hospes_vm {
	struct config config;
	struct hospes_vm_options options;
	struct log log;

	struct sandbox *sandbox; /* NULL: off */
	struct kvm kvm;
	struct arch_topology topology;
	struct arch_platform platform;
	struct gmem *gmem;
	struct bus *mmio;
	struct bus *pio;
	struct arch_vm *arch;
	struct irq_chip *irq;
	struct pci_root *pci;
	struct dma_space *dma;
	struct vcpus *vcpus;
	struct vm_cpus cpus;
	struct vm_memory memory;
	struct loop *loop;
	struct vm_io_thread io[VM_MAX_IO_THREADS];
	struct loop *io_loops[VM_MAX_IO_THREADS];
	struct vm_io_thread viommu_io; /* of the virtual IOMMU, which may wait for the others */
	unsigned int n_io_loops;       /* at least 1: the main loop when there are no I/O threads */

	struct kernel *kernel;
	struct credentials credentials;
	struct vm_loading loading;

	/* struct device, in order of creation: what is reset, made quiet, resumed. */
	struct list plugged;
	/* struct vm_device (kind.h), in order of adding: those of the document's kinds. */
	struct list devices;
	struct vm_hotplug hotplug;
	struct device *pm;
	struct viommu *viommu; /* NULL: the guest has none */
	struct device *viommu_dev;
	struct vm_host_iommu host_iommu;
	struct platform_sink sink;

	_Atomic int state;    /* enum hospes_state */
	_Atomic int outcome;  /* enum hospes_outcome */
	_Atomic int request;  /* enum vm_request: the first since it was last handled */
	char crash_text[160]; /* written once, before VM_CRASH or VM_ERROR is set */
	unsigned int resets;
	struct log_limit guest_limit; /* of messages about what the guest does to itself */
	struct budget reset_budget;
	struct loop_op reset_timer; /* until the guest's next reset may be done */
	bool reset_waits;           /* the timer is in flight */
	bool reset_paid;            /* the reset that waited is in the budget */
	struct vm_shutdown shutdown;
	struct vm_debug *debug; /* NULL: no debugger can come */
	struct vm_dump *dump;   /* NULL: none is being written */
	struct vm_snapshot snapshot;
	struct vm_migration *migration; /* the last, or NULL: there was none */
	struct vm_arrival *arrival;     /* NULL: it did not come by one */
	/* What is written while it is migrated; NULL before the first. Any thread marks in it, so
	 * it goes with memory. */
	struct dirty *dirty;
	bool stuck; /* stopped, but a vCPU is still in an exit: its devices are not quiesced */

	struct loop_op wake; /* posted by any thread */
	/* The machine's thread, which writes it itself; 0: there is none now. With HOSPES_VM_THREAD
	 * the library's own, or, where that does not exist, whoever holds `acting` during a call;
	 * else the last that has turned the machine. */
	_Atomic pthread_t owner;
	pthread_t thread; /* ours, with HOSPES_VM_THREAD */
	bool thread_running;
	/* Held by whoever acts as the machine's thread while that does not exist: with
	 * HOSPES_VM_THREAD before the start, and once it has ended. Before mutex. */
	pthread_mutex_t acting;
	bool threads_started; /* guarded by acting */
	/* Guarded by mutex: there is no machine's thread, and none to come by itself. */
	bool no_thread;

	uint64_t call_ns;       /* VM_CALL_NS */
	pthread_mutex_t mutex;  /* guards commands */
	pthread_cond_t changed; /* a command is done, or the machine stopped */
	struct list commands;
};

/* lifecycle.c: the calling thread is the machine's from now on (false: there is none). */
void vm_own(struct hospes_vm *vm, bool own);
static inline bool vm_is_own_thread(const struct hospes_vm *vm)
{
	return pthread_equal(atomic_load_explicit(&vm->owner, memory_order_relaxed),
			     pthread_self());
}
/* Whoever else gets here is a bug of ours. Always on: it costs two loads. */
#define vm_assert_own_thread(vm) assert(vm_is_own_thread(vm))

/* api.c: hospes_vm_create() by these calls of KVM, which stay the caller's; for tests. */
int vm_create(struct hospes_vm **ret, const char *json, size_t length,
	      const struct hospes_vm_options *options, const struct kvm_calls *calls,
	      struct hospes_error *error);

/* create.c */
int vm_build(struct hospes_vm *vm, struct err *err);
/* Undo in reverse, from any stage. */
void vm_unbuild(struct hospes_vm *vm);

/* boot.c */
int vm_open_kernel(struct hospes_vm *vm, struct err *err);
/* Do PCI config ports not answer? After vm_open_kernel(). */
bool vm_ecam_only(const struct hospes_vm *vm);

/* When there is guest memory. vm_prepare_boot() waits for the end of it. */
void vm_start_loading(struct hospes_vm *vm);
void vm_stop_loading(struct hospes_vm *vm);
/* Lay out tables, kernel and entry state: at creation and at every reset. */
int vm_prepare_boot(struct hospes_vm *vm, struct err *err);

/* platform.c */
struct device_env vm_device_env(struct hospes_vm *vm);
int vm_create_platform(struct hospes_vm *vm, struct err *err);
/* It is on its bus: into `plugged`. */
void vm_adopt(struct hospes_vm *vm, struct device *dev);

/* devices.c, and kind.h */
/* After an iteration of the loop: what events asked for. */
void vm_act(struct hospes_vm *vm);

/* viommu.c: the virtual IOMMU, before the devices behind it; its own device, after them; and what
 * the firmware says of it. */
int vm_viommu_create(struct hospes_vm *vm, struct err *err);
int vm_viommu_plug(struct hospes_vm *vm, struct err *err);
void vm_viommu_unplug(struct hospes_vm *vm);
/* No device is behind it any more. */
void vm_viommu_destroy(struct hospes_vm *vm);
/* ret->endpoints: free() them. */
int vm_viommu_describe(struct hospes_vm *vm, struct acpi_viommu *ret, struct err *err);
/* To the guest too; history as ioas_history. */
void vm_viommu_fault(struct vm_device *d, const struct iommu_fault *fault, char *history,
		     unsigned int bytes);
/* A strategy for all passed-through devices behind it. The machine's thread. */
int vm_viommu_switch(struct hospes_vm *vm, const char *strategy, struct err *err);
/* At power-on and machine reset. */
void vm_viommu_reset(struct hospes_vm *vm);
json_t *vm_viommu_status(struct hospes_vm *vm);

/* shutdown.c */
int vm_do_shutdown(struct hospes_vm *vm, void *arg, struct err *err);
/* Before the loop is destroyed. */
void vm_shutdown_done(struct hospes_vm *vm);

/* lifecycle.c */
/* Carry out fn in the machine's thread and return its result. Any thread. -ETIMEDOUT when the
 * machine's thread does not answer for call_ns: without an arg fn is carried out all the same when
 * it does, with one it is not carried out; one that has begun is waited for. */
int vm_call(struct hospes_vm *vm, int (*fn)(struct hospes_vm *vm, void *arg, struct err *err),
	    void *arg, struct err *err);
void vm_request(struct hospes_vm *vm, enum vm_request request);
void vm_emit(struct hospes_vm *vm, enum hospes_event_type type, int value, const char *text);
/* Of this device. */
void vm_emit_device(struct hospes_vm *vm, enum hospes_event_type type, int value, const char *text,
		    const char *id);
/* Stop for good, in the machine's thread, outside loop callbacks. */
void vm_end(struct hospes_vm *vm, enum hospes_outcome outcome, const char *text);
void vm_platform_event(void *opaque, enum platform_event event);
void vm_vcpu_event(void *opaque, unsigned int index, enum vcpu_event event, const char *text);
/* -EBUSY: one cannot do that (verb) now. */
int vm_wrong_state(struct hospes_vm *vm, const char *verb, struct err *err);
int vm_do_start(struct hospes_vm *vm, void *arg, struct err *err);
int vm_do_pause(struct hospes_vm *vm, void *arg, struct err *err);
int vm_do_resume(struct hospes_vm *vm, void *arg, struct err *err);
int vm_do_reset(struct hospes_vm *vm, void *arg, struct err *err);
int vm_do_registers(struct hospes_vm *vm, void *arg, struct err *err);
/* -ETIMEDOUT: it has stopped, but a vCPU does not come out of its exit. */
int vm_do_stop(struct hospes_vm *vm, void *arg, struct err *err);
/* Pause them, or, with -ETIMEDOUT, let those go on that are out. */
int vm_pause_vcpus(struct hospes_vm *vm, struct err *err);
/* Until they are resumed nothing of theirs changes. */
void vm_quiesce_devices(struct hospes_vm *vm);
/* Ends the vCPU threads, however long one of them is stuck; then devices are quiesced in any
 * case. */
void vm_end_vcpus(struct hospes_vm *vm);
/* Before the loop is destroyed. */
void vm_lifecycle_done(struct hospes_vm *vm);
/* One iteration of the machine: 1 while it lives, 0 when stopped, or a negative errno. */
int vm_iterate(struct hospes_vm *vm, bool wait);
int vm_start_thread(struct hospes_vm *vm, struct err *err);
void vm_join_thread(struct hospes_vm *vm);
int vm_start_io_threads(struct hospes_vm *vm, struct err *err);
/* All that the machine asks for, once, whoever calls: any thread. */
int vm_start_threads(struct hospes_vm *vm, struct err *err);
void vm_stop_io_threads(struct hospes_vm *vm);

/* status.c */
char *vm_status(struct hospes_vm *vm);
/* One of its devices. A new reference; NULL: no memory. */
json_t *vm_device_status(struct vm_device *d);

#endif
