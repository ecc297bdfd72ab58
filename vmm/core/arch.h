/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What KVM and the platform do differently per architecture: one header, implemented in
 * vmm/arch/<arch>. Nothing above knows which it is.
 *
 * Addresses of the platform (memory holes, windows, where devices sit) are the architecture's too:
 * struct arch_platform is what firmware tables, the PCI root and guest memory are laid out from.
 */
#ifndef CORE_ARCH_H
#define CORE_ARCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"
#include "core/bus.h"
#include "core/gmem.h"
#include "core/irq.h"
#include "core/kvm.h"
#include "core/pci.h"

struct kvm_run;

struct arch_topology {
	unsigned int cpus; /* 1 to 255; = sockets * dies * cores * threads, dies 1 */
	unsigned int sockets;
	unsigned int cores;
	unsigned int threads;
};

/* The number by which interrupts, CPUID and firmware tables name vCPU `index`: the (x2)APIC id. The
 * fields for thread and core are powers of two wide (Intel SDM 3, 10.9.1), so ids have gaps when
 * the counts are not. */
static inline uint32_t arch_cpu_id(const struct arch_topology *topology, unsigned int index)
{
	unsigned int thread_bits = 0, core_bits = 0;

	while (1u << thread_bits < topology->threads)
		thread_bits++;
	while (1u << core_bits < topology->cores)
		core_bits++;
	return (index / topology->threads / topology->cores) << (core_bits + thread_bits) |
	       (index / topology->threads % topology->cores) << thread_bits |
	       index % topology->threads;
}

/* Interrupts of one VM that KVM routes (KVM_MAX_IRQ_ROUTES): pins, and messages of all devices. */
enum { ARCH_MAX_ROUTES = 4096 };

/* The guest-physical layout, computed before anything is created. */
struct arch_platform {
	unsigned int phys_bits;        /* guest address width */
	uint64_t low_gpa, low_bytes;   /* RAM that there always is; at 0 on x86 */
	uint64_t high_gpa, high_bytes; /* RAM above a hole; high_bytes may be 0 */
	uint64_t plug_gpa, plug_bytes; /* kept for memory that comes and goes; or both 0 */
	struct pci_windows pci;
	uint64_t pio_gpa;  /* where ports are in memory; 0: they have instructions of their own */
	uint32_t intx_gsi; /* first of the four GSIs of INTx */
	uint32_t sci_gsi;
	/* arm64's interrupt controller (GICv3). */
	struct {
		uint64_t dist_gpa, redist_gpa, its_gpa;
	} gic;
};

/* /dev/kvm (kept open by the caller) becomes a VM. Owns: VM fd, irqchip, memory slots (as a
 * listener of gmem), ioeventfd and irqfd hooks. */
struct arch_vm;

struct arch_vm_config {
	const struct log *log;
	struct kvm kvm;
	struct arch_topology topology;
	struct gmem *gmem;
	struct bus *mmio;
	struct bus *pio;
};

/* Addresses where there must be no RAM, since a device that is passed through cannot reach it
 * there. */
struct arch_avoid {
	uint64_t first, last; /* inclusive */
	const char *what;     /* whose and what: "0000:00:02.0: reserved (direct)" */
};

struct arch_layout {
	uint64_t memory_bytes;
	uint64_t plug_bytes;   /* that may come while the guest runs; 0 */
	uint64_t plug_align;   /* a power of two; ignored where plug_bytes is 0 */
	uint64_t mmio64_bytes; /* what is known to go into the window of 64-bit BARs; 0 */
	bool firmware;         /* which puts 64-bit BARs right above all RAM, whatever tables say */
	const struct arch_avoid *avoid;
	unsigned int n_avoid;
};

/* -EINVAL and a message when the memory or the windows cannot be laid out in the host's width, or
 * RAM not beside what is to be avoided: which range, whose, and what to do. */
int arch_platform_init(struct arch_platform *ret, const struct kvm *kvm,
		       const struct arch_layout *layout, struct err *err);

int arch_vm_create(struct arch_vm **ret, const struct arch_vm_config *config, struct err *err);
void arch_vm_destroy(struct arch_vm *vm);
const struct irq_chip_ops *arch_irq_ops(void); /* opaque: the struct arch_vm */

/* Memory of a device (a BAR) in the guest: [gpa, gpa + bytes) is hva, page-aligned all, which must
 * stay mapped until unmap has returned; then no vCPU reaches it. It is no RAM: nobody but the guest
 * sees it, and it never becomes a target of DMA. -EEXIST where there is memory already, -ENOSPC
 * when KVM has no slot left. unmap names a mapping that is there. Any thread, vCPU threads too. */
int arch_vm_map_host(struct arch_vm *vm, uint64_t gpa, void *hva, uint64_t bytes, bool readonly,
		     struct err *err);
void arch_vm_unmap_host(struct arch_vm *vm, uint64_t gpa);

/* Tell KVM that the guest has this VFIO device (its cdev) or group, so that interrupts can be
 * posted and memory types are coherent: before the device is bound or opened from its group. The
 * file stays the caller's, but is in use until remove, or until the VM ends. -EOPNOTSUPP: this
 * kernel cannot; the device works without. Machine's thread. */
int arch_vm_add_vfio(struct arch_vm *vm, int fd, struct err *err);
void arch_vm_remove_vfio(struct arch_vm *vm, int fd);

/* What machines of this architecture may lack as yet. */
enum arch_feature {
	ARCH_CPU_PLUG,    /* vCPUs that come and go */
	ARCH_MEMORY_PLUG, /* and memory */
	ARCH_VIOMMU,      /* a virtual IOMMU */
	ARCH_FIRMWARE,    /* UEFI */
	ARCH_STATE,       /* snapshots */
	ARCH_DEBUG,       /* a debugger, and a core of the guest */
	ARCH_BUTTON,      /* a power button */
	ARCH_SMBIOS,      /* SMBIOS tables, and with them credentials */
};
bool arch_has(enum arch_feature feature);
/* "arm64": for messages. */
extern const char arch_name[];

/* CPU state at entry of a boot protocol; firmware fills it in. */
enum arch_entry_mode {
	ARCH_ENTRY_IMAGE, /* arm64: an Image, by Linux Documentation/arch/arm64/booting.rst */
	ARCH_ENTRY_LONG,  /* 64-bit, paging on, tables at cr3 */
	ARCH_ENTRY_PROT,  /* 32-bit protected, paging off (PVH) */
	ARCH_ENTRY_REAL,  /* 16-bit real, cs:ip from rip (payload guests, later firmware) */
};
struct arch_entry {
	enum arch_entry_mode mode;
	union {
		struct { /* ARCH_ENTRY_IMAGE */
			uint64_t pc;
			uint64_t fdt_gpa; /* the device tree: x0 */
		};
		struct { /* the others, x86's */
			uint64_t rip;
			uint64_t rsp;
			uint64_t rsi; /* boot parameters (Linux 64-bit protocol) */
			uint64_t rbx; /* start info (PVH) */
			uint64_t cr3;
			/* Where a flat GDT may be written: 64 bytes of low guest memory. */
			uint64_t gdt_gpa;
		};
	};
};

struct arch_vcpu;
int arch_vcpu_create(struct arch_vcpu **ret, struct arch_vm *vm, unsigned int index,
		     struct err *err);
void arch_vcpu_destroy(struct arch_vcpu *vcpu);
/* An ioctl on it: at least 0, or a negative errno. */
int arch_vcpu_call(const struct arch_vcpu *vcpu, unsigned long request, const void *arg);
struct kvm_run *arch_vcpu_run(const struct arch_vcpu *vcpu);
/* Power-on state; the boot processor (index 0) enters as `entry` says (NULL for the others: they
 * wait for INIT and SIPI). Before the first run, and on every machine reset. */
int arch_vcpu_reset(struct arch_vcpu *vcpu, const struct arch_entry *entry, struct err *err);
/* Back to power-on: irqchip, PIT, clock. All vCPUs are out of the guest. */
int arch_vm_reset(struct arch_vm *vm, struct err *err);
/* Registers as text, several lines, for the log of a crash. Returns the length. vCPU's thread, or
 * vCPU stopped. */
int arch_vcpu_dump(struct arch_vcpu *vcpu, char *text, unsigned int bytes);

/* Their state as a section of a stream (state.h), whose owner the caller has said: vCPUs are
 * paused, and devices quiesced. Loading is for a machine that has not run yet, vCPUs before the VM
 * before devices; all clocks go on where they were, and advance_ns further. -ENOTSUP when this host
 * lacks what the guest has, by name; -EPROTO; or KVM's error. After an error the machine is of no
 * use. */
struct state_writer;
struct state_reader;
int arch_vcpu_save(struct arch_vcpu *vcpu, struct state_writer *w, struct err *err);
int arch_vcpu_load(struct arch_vcpu *vcpu, struct state_reader *r, uint64_t advance_ns,
		   struct err *err);
int arch_vm_save(struct arch_vm *vm, struct state_writer *w, struct err *err);
int arch_vm_load(struct arch_vm *vm, struct state_reader *r, uint64_t advance_ns, struct err *err);

/* Which pages of guest memory vCPUs (and KVM for them) have written since the last take, or since
 * tracking began: each is marked at `to`. Tracking costs each page's first write an exit to KVM.
 * Memory that comes meanwhile is not tracked. The machine's thread. */
int arch_vm_dirty_track(struct arch_vm *vm, bool on, struct err *err);
int arch_vm_dirty_take(struct arch_vm *vm, struct gmem_dirty *to, struct err *err);

/* Tell KVM that a pause ended, so that guest watchdogs do not fire (KVM_KVMCLOCK_CTRL). */
void arch_vcpu_resumed(struct arch_vcpu *vcpu);

#endif
