// SPDX-License-Identifier: Apache-2.0
// KVM as data. See stub_kvm.h.
#include "stub_kvm.h"

#include <assert.h>
#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/num.h"

enum {
	MAX_FILES = 512,
	MAX_SLOTS = 512,
	MAX_WRITTEN = 64,
	MAX_EVENTS = 8192,
	RUN_BYTES = 3 * 4096, /* with the pages of PIO data and coalesced MMIO */
	TSC_KHZ = 2000000,
	N_CHIPS = 3,
	/* callers have room for as many entries as KVM has, in both directions */
	CPUID_BYTES = sizeof(struct kvm_cpuid2) + 256 * sizeof(struct kvm_cpuid_entry2),
};

/* Which MSRs a vCPU has. */
static const uint32_t msr_index[] = {0x10, 0x1a0, 0x2ff, 0x6e0, 0xc0000080, 0xc0000102};

/* State that is read as it was last written, and zero before. */
static const struct {
	unsigned long get, set;
	size_t bytes;
} values[] = {
	{KVM_GET_REGS, KVM_SET_REGS, sizeof(struct kvm_regs)},
	{KVM_GET_SREGS, KVM_SET_SREGS, sizeof(struct kvm_sregs)},
	{KVM_GET_SREGS2, KVM_SET_SREGS2, sizeof(struct kvm_sregs2)},
	{KVM_GET_CPUID2, KVM_SET_CPUID2, CPUID_BYTES},
	{KVM_GET_FPU, KVM_SET_FPU, sizeof(struct kvm_fpu)},
	{KVM_GET_XCRS, KVM_SET_XCRS, sizeof(struct kvm_xcrs)},
	{KVM_GET_XSAVE, KVM_SET_XSAVE, sizeof(struct kvm_xsave)},
	{KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, sizeof(struct kvm_debugregs)},
	{KVM_GET_LAPIC, KVM_SET_LAPIC, sizeof(struct kvm_lapic_state)},
	{KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, sizeof(struct kvm_vcpu_events)},
	{KVM_GET_MP_STATE, KVM_SET_MP_STATE, sizeof(struct kvm_mp_state)},
	{KVM_GET_PIT2, KVM_SET_PIT2, sizeof(struct kvm_pit_state2)},
	{KVM_GET_CLOCK, KVM_SET_CLOCK, sizeof(struct kvm_clock_data)},
};

enum kind { KIND_KVM, KIND_VM, KIND_VCPU };

struct irqfd {
	int fd;
	uint32_t gsi;
};

struct vm {
	struct kvm_userspace_memory_region slots[MAX_SLOTS];
	struct kvm_irqchip chips[N_CHIPS];
	struct irqfd irqfds[MAX_EVENTS];
	struct kvm_ioeventfd ioeventfds[MAX_EVENTS];
	unsigned int n_irqfds, n_ioeventfds, n_routes;
	/* What vCPUs have written in slots that are logged, since it was asked for. */
	struct {
		uint32_t slot;
		uint64_t page;
	} written[MAX_WRITTEN];
	unsigned int n_written;
};

/* An open file. Duplicates of it have the same inode. */
struct file {
	enum kind kind;
	int fd; /* the first of its descriptors */
	ino_t inode;
	ino_t owner; /* of a vCPU: its VM */
	struct vm *vm;
	void *value[ARRAY_SIZE(values)];
	uint64_t msr[ARRAY_SIZE(msr_index)];
	sigset_t kicks; /* what KVM_RUN lets in */
	struct kvm_guest_debug debug;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all that follows */
static struct file *files[MAX_FILES];
static struct stub_kvm_totals so_far;
static unsigned int fail_in; /* calls, the last of which fails; 0: none does */
static int fail_error;

static ino_t inode_of(int fd)
{
	struct stat st;

	return fstat(fd, &st) ? 0 : st.st_ino;
}

static void forget(struct file *file)
{
	for (size_t i = 0; i < ARRAY_SIZE(values); i++)
		free(file->value[i]);
	free(file->vm);
	free(file);
}

/* Files are closed behind our back: those whose descriptor is another file's now are gone. */
static void sweep(void)
{
	for (size_t i = 0; i < MAX_FILES; i++) {
		if (files[i] && files[i]->kind != KIND_KVM &&
		    inode_of(files[i]->fd) != files[i]->inode) {
			forget(files[i]);
			files[i] = NULL;
		}
	}
}

static struct file *find(int fd)
{
	ino_t inode = inode_of(fd);

	for (size_t i = 0; inode && i < MAX_FILES; i++) {
		if (files[i] && files[i]->inode == inode)
			return files[i];
	}
	return NULL;
}

static int open_file(enum kind kind, size_t bytes, struct file **ret)
{
	struct file *file = calloc(1, sizeof(*file));
	size_t i = 0;

	sweep();
	while (i < MAX_FILES && files[i])
		i++;
	assert(file && i < MAX_FILES);
	file->kind = kind;
	file->fd = memfd_create("stub-kvm", MFD_CLOEXEC);
	if (file->fd < 0 || ftruncate(file->fd, (off_t)bytes)) {
		int rc = -errno;

		if (file->fd >= 0)
			close(file->fd);
		free(file);
		return rc;
	}
	file->inode = inode_of(file->fd);
	files[i] = file;
	*ret = file;
	return file->fd;
}

int stub_kvm_open(void)
{
	struct file *file;
	int fd;

	pthread_mutex_lock(&lock);
	fd = open_file(KIND_KVM, 0, &file);
	pthread_mutex_unlock(&lock);
	return fd;
}

/* --- /dev/kvm --- */

static int check_extension(unsigned long cap)
{
	switch (cap) {
	case KVM_CAP_MAX_VCPUS:
	case KVM_CAP_MAX_VCPU_ID:
		return 1024;
	case KVM_CAP_NR_MEMSLOTS:
		return MAX_SLOTS;
	case KVM_CAP_XSAVE2:
		return sizeof(struct kvm_xsave);
	case KVM_CAP_TSC_CONTROL:
	case KVM_CAP_NESTED_STATE:
		return 0;
	default:
		return 1;
	}
}

/* As little as firmware and kernels ask for: 46 bits of address, a local APIC. */
static int supported_cpuid(struct kvm_cpuid2 *ret)
{
	static const struct kvm_cpuid_entry2 entries[] = {
		{.function = 0,
		 .eax = 0xd,
		 .ebx = 0x756e6547,
		 .ecx = 0x6c65746e,
		 .edx = 0x49656e69},
		{.function = 1, .eax = 0x306f2, .ecx = 0x80202001, .edx = 0x178bfbff},
		{.function = 0x80000000, .eax = 0x80000008},
		{.function = 0x80000001, .edx = 0x2c100800},
		{.function = 0x80000008, .eax = 0x302e},
	};

	if (ret->nent < ARRAY_SIZE(entries))
		return -E2BIG;
	ret->nent = ARRAY_SIZE(entries);
	memcpy(ret->entries, entries, sizeof(entries));
	return 0;
}

static int list_msrs(struct kvm_msr_list *ret)
{
	uint32_t room = ret->nmsrs;

	ret->nmsrs = ARRAY_SIZE(msr_index);
	if (room < ARRAY_SIZE(msr_index))
		return -E2BIG;
	memcpy(ret->indices, msr_index, sizeof(msr_index));
	return 0;
}

static int create_vm(void)
{
	struct file *file;
	int fd = open_file(KIND_VM, 0, &file);

	if (fd < 0)
		return fd;
	file->vm = calloc(1, sizeof(*file->vm));
	assert(file->vm);
	return fd;
}

static int kvm_request(unsigned long request, unsigned long arg)
{
	switch (request) {
	case KVM_GET_API_VERSION:
		return KVM_API_VERSION;
	case KVM_CHECK_EXTENSION:
		return check_extension(arg);
	case KVM_GET_SUPPORTED_CPUID:
		return supported_cpuid((void *)arg);
	case KVM_GET_MSR_INDEX_LIST:
		return list_msrs((void *)arg);
	case KVM_GET_VCPU_MMAP_SIZE:
		return RUN_BYTES;
	case KVM_CREATE_VM:
		return create_vm();
	default:
		return -ENOTTY;
	}
}

/* --- state of VMs and vCPUs --- */

/* False: no state that is kept by value. */
static bool value_request(struct file *file, unsigned long request, unsigned long arg)
{
	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		if (request != values[i].get && request != values[i].set)
			continue;
		if (!file->value[i])
			file->value[i] = calloc(1, values[i].bytes);
		assert(file->value[i]);
		if (request == values[i].get)
			memcpy((void *)arg, file->value[i], values[i].bytes);
		else
			memcpy(file->value[i], (const void *)arg, values[i].bytes);
		return true;
	}
	return false;
}

/* How many were read or written: up to the first that there is not. */
static int msrs_request(struct file *file, struct kvm_msrs *msrs, bool write)
{
	for (uint32_t i = 0; i < msrs->nmsrs; i++) {
		struct kvm_msr_entry *e = &msrs->entries[i];
		size_t at = 0;

		while (at < ARRAY_SIZE(msr_index) && msr_index[at] != e->index)
			at++;
		if (at == ARRAY_SIZE(msr_index))
			return (int)i;
		if (write)
			file->msr[at] = e->data;
		else
			e->data = file->msr[at];
	}
	return (int)msrs->nmsrs;
}

/* --- a VM --- */

static int get_dirty_log(struct vm *vm, const struct kvm_dirty_log *log)
{
	const struct kvm_userspace_memory_region *slot = &vm->slots[log->slot % MAX_SLOTS];
	uint64_t *bits = log->dirty_bitmap;
	unsigned int kept = 0;

	if (!(slot->flags & KVM_MEM_LOG_DIRTY_PAGES))
		return -ENOENT;
	memset(bits, 0, (slot->memory_size / 4096 + 63) / 64 * 8);
	for (unsigned int i = 0; i < vm->n_written; i++) {
		uint64_t page = vm->written[i].page;

		if (vm->written[i].slot == log->slot)
			bits[page / 64] |= 1ull << page % 64;
		else
			vm->written[kept++] = vm->written[i];
	}
	vm->n_written = kept;
	return 0;
}

static int set_slot(struct vm *vm, const struct kvm_userspace_memory_region *slot)
{
	const uint64_t page = 4096;

	if (slot->slot >= MAX_SLOTS ||
	    (slot->guest_phys_addr | slot->memory_size | slot->userspace_addr) % page ||
	    (!slot->memory_size && !vm->slots[slot->slot].memory_size))
		return -EINVAL;
	for (size_t i = 0; slot->memory_size && i < MAX_SLOTS; i++) {
		if (i != slot->slot && vm->slots[i].memory_size &&
		    ranges_overlap(vm->slots[i].guest_phys_addr, vm->slots[i].memory_size,
				   slot->guest_phys_addr, slot->memory_size))
			return -EEXIST;
	}
	vm->slots[slot->slot] = *slot;
	return 0;
}

static int set_irqfd(struct vm *vm, const struct kvm_irqfd *arg)
{
	unsigned int i = 0;

	while (i < vm->n_irqfds && vm->irqfds[i].fd != (int)arg->fd)
		i++;
	if (arg->flags & KVM_IRQFD_FLAG_DEASSIGN) {
		if (i < vm->n_irqfds && vm->irqfds[i].gsi == arg->gsi)
			vm->irqfds[i] = vm->irqfds[--vm->n_irqfds];
		return 0;
	}
	if (i < vm->n_irqfds)
		return -EBUSY;
	assert(i < MAX_EVENTS);
	vm->irqfds[vm->n_irqfds++] = (struct irqfd){.fd = (int)arg->fd, .gsi = arg->gsi};
	return 0;
}

static bool same_place(const struct kvm_ioeventfd *a, const struct kvm_ioeventfd *b)
{
	const uint32_t mask = KVM_IOEVENTFD_FLAG_DATAMATCH | KVM_IOEVENTFD_FLAG_PIO;

	return a->addr == b->addr && a->len == b->len && a->datamatch == b->datamatch &&
	       (a->flags & mask) == (b->flags & mask);
}

static int set_ioeventfd(struct vm *vm, const struct kvm_ioeventfd *arg)
{
	bool on = !(arg->flags & KVM_IOEVENTFD_FLAG_DEASSIGN);
	unsigned int i = 0;

	while (i < vm->n_ioeventfds && !same_place(&vm->ioeventfds[i], arg))
		i++;
	if (on && i < vm->n_ioeventfds)
		return -EEXIST;
	if (!on && (i == vm->n_ioeventfds || vm->ioeventfds[i].fd != arg->fd))
		return -ENOENT;
	assert(i < MAX_EVENTS);
	vm->ioeventfds[i] = on ? *arg : vm->ioeventfds[vm->n_ioeventfds - 1];
	vm->n_ioeventfds += on ? 1 : -1u;
	return 0;
}

static int irqchip_request(struct vm *vm, unsigned long request, struct kvm_irqchip *chip)
{
	if (chip->chip_id >= N_CHIPS)
		return -EINVAL;
	if (request == KVM_SET_IRQCHIP) {
		vm->chips[chip->chip_id] = *chip;
		return 0;
	}
	vm->chips[chip->chip_id].chip_id = chip->chip_id;
	*chip = vm->chips[chip->chip_id];
	return 0;
}

static int create_vcpu(const struct file *owner)
{
	struct file *file;
	int fd = open_file(KIND_VCPU, RUN_BYTES, &file);

	if (fd >= 0)
		file->owner = owner->inode;
	return fd;
}

static int vm_request(struct file *file, unsigned long request, unsigned long arg)
{
	struct vm *vm = file->vm;

	switch (request) {
	case KVM_CHECK_EXTENSION:
		return check_extension(arg);
	case KVM_SET_USER_MEMORY_REGION:
		return set_slot(vm, (const void *)arg);
	case KVM_GET_DIRTY_LOG:
		return get_dirty_log(vm, (const void *)arg);
	case KVM_SET_GSI_ROUTING:
		vm->n_routes = ((const struct kvm_irq_routing *)arg)->nr;
		return 0;
	case KVM_IRQFD:
		return set_irqfd(vm, (const void *)arg);
	case KVM_IOEVENTFD:
		return set_ioeventfd(vm, (const void *)arg);
	case KVM_GET_IRQCHIP:
	case KVM_SET_IRQCHIP:
		return irqchip_request(vm, request, (void *)arg);
	case KVM_SIGNAL_MSI:
		so_far.messages++;
		return 1;
	case KVM_CREATE_VCPU:
		return create_vcpu(file);
	case KVM_CREATE_DEVICE:
		return -ENODEV;
	case KVM_SET_IDENTITY_MAP_ADDR:
	case KVM_SET_TSS_ADDR:
	case KVM_CREATE_IRQCHIP:
	case KVM_CREATE_PIT2:
	case KVM_ENABLE_CAP:
	case KVM_SET_TSC_KHZ:
	case KVM_IRQ_LINE:
		return 0;
	default:
		return -ENOTTY;
	}
}

/* --- a vCPU --- */

static void set_kicks(struct file *file, const struct kvm_signal_mask *mask)
{
	uint64_t blocked;

	assert(mask->len == sizeof(blocked));
	memcpy(&blocked, mask->sigset, sizeof(blocked));
	sigemptyset(&file->kicks);
	for (int sig = SIGRTMIN; sig <= SIGRTMAX; sig++) {
		if (!(blocked & (uint64_t)1 << (sig - 1)))
			sigaddset(&file->kicks, sig);
	}
}

/* The byte at this address of the vCPU's VM; NULL: none. */
static uint8_t *byte_at(const struct file *vcpu, uint64_t gpa)
{
	const struct vm *vm = NULL;

	for (size_t i = 0; i < MAX_FILES; i++) {
		if (files[i] && files[i]->kind == KIND_VM && files[i]->inode == vcpu->owner)
			vm = files[i]->vm;
	}
	for (size_t i = 0; vm && i < MAX_SLOTS; i++) {
		const struct kvm_userspace_memory_region *s = &vm->slots[i];

		if (s->memory_size && gpa - s->guest_phys_addr < s->memory_size)
			return (uint8_t *)s->userspace_addr + (gpa - s->guest_phys_addr);
	}
	return NULL;
}

static bool is_hard_break(const struct kvm_guest_debug *debug, uint64_t rip, uint64_t *dr6)
{
	for (unsigned int i = 0; i < 4; i++) {
		if (debug->control & KVM_GUESTDBG_USE_HW_BP &&
		    debug->arch.debugreg[7] & 2ull << 2 * i && debug->arch.debugreg[i] == rip) {
			*dr6 = 1ull << i;
			return true;
		}
	}
	return false;
}

static int debug_exit(int fd, uint32_t exception, uint64_t rip, uint64_t dr6)
{
	struct kvm_debug_exit_arch arch = {.exception = exception, .pc = rip, .dr6 = dr6};
	uint32_t reason = KVM_EXIT_DEBUG;

	assert(pwrite(fd, &reason, sizeof(reason), offsetof(struct kvm_run, exit_reason)) ==
	       sizeof(reason));
	assert(pwrite(fd, &arch, sizeof(arch), offsetof(struct kvm_run, debug.arch)) ==
	       sizeof(arch));
	return 0;
}

/* Once somebody debugs it, a vCPU runs after all, on a machine of one instruction: each byte of
 * memory is a `nop`, but for int3. It goes round in STUB_RUN_BYTES. With the lock held. 1: nothing
 * has happened yet. */
static int run_debugged(struct file *file, int fd)
{
	const struct kvm_guest_debug *debug = &file->debug;
	struct kvm_regs *regs = file->value[0]; /* as at its reset, at the latest */
	uint64_t dr6 = 0;
	const uint8_t *byte;

	for (unsigned int i = 0; i < 1000; i++) {
		if (regs->rip - STUB_RUN_START >= STUB_RUN_BYTES)
			regs->rip = STUB_RUN_START;
		byte = byte_at(file, regs->rip);
		assert(byte);
		if (*byte == 0xcc)
			return debug_exit(fd, 3, regs->rip, 0);
		if (is_hard_break(debug, regs->rip, &dr6))
			return debug_exit(fd, 1, regs->rip, dr6);
		regs->rip++;
		if (debug->control & KVM_GUESTDBG_SINGLESTEP)
			return debug_exit(fd, 1, regs->rip, 1 << 14);
	}
	return 1;
}

/* The lock is not held: it may take for ever. */
static int run(struct file *file, int fd, sigset_t kicks)
{
	const struct timespec at_once = {0};
	uint8_t immediate_exit = 0;
	int rc = 1;

	if (pread(fd, &immediate_exit, 1, offsetof(struct kvm_run, immediate_exit)) == 1 &&
	    immediate_exit)
		return -EINTR;
	while (rc == 1) {
		pthread_mutex_lock(&lock);
		if (file->debug.control & KVM_GUESTDBG_ENABLE)
			rc = run_debugged(file, fd);
		else
			rc = 0;
		pthread_mutex_unlock(&lock);
		if (rc == 0 && file->debug.control)
			return 0;
		if ((rc ? sigtimedwait(&kicks, NULL, &at_once) : sigwaitinfo(&kicks, NULL)) > 0)
			return -EINTR;
	}
	return -EINTR;
}

/* There is no paging. */
static int translate(const struct file *file, struct kvm_translation *t)
{
	t->physical_address = t->linear_address;
	t->valid = byte_at(file, t->linear_address) != NULL;
	return 0;
}

static int vcpu_request(struct file *file, unsigned long request, unsigned long arg)
{
	switch (request) {
	case KVM_GET_MSRS:
	case KVM_SET_MSRS:
		return msrs_request(file, (void *)arg, request == KVM_SET_MSRS);
	case KVM_SET_SIGNAL_MASK:
		set_kicks(file, (const void *)arg);
		return 0;
	case KVM_GET_TSC_KHZ:
		return TSC_KHZ;
	case KVM_TRANSLATE:
		return translate(file, (void *)arg);
	case KVM_SET_GUEST_DEBUG:
		file->debug = *(const struct kvm_guest_debug *)arg;
		return 0;
	case KVM_KVMCLOCK_CTRL:
		return -EINVAL;
	case KVM_SET_TSC_KHZ:
		return 0;
	default:
		return -ENOTTY;
	}
}

static int stub_ioctl(int fd, unsigned long request, unsigned long arg)
{
	struct file *file;
	sigset_t kicks;
	bool fails;
	int rc = 0;

	pthread_mutex_lock(&lock);
	file = find(fd);
	if (!file) {
		pthread_mutex_unlock(&lock);
		return inode_of(fd) ? -ENOTTY : -EBADF;
	}
	if (file->kind == KIND_VCPU && request == KVM_RUN) {
		so_far.runs++;
		kicks = file->kicks;
		pthread_mutex_unlock(&lock);
		return run(file, fd, kicks);
	}
	fails = fail_in == 1;
	fail_in -= fail_in > 0;
	if (fails)
		rc = -fail_error;
	else if (file->kind == KIND_KVM)
		rc = kvm_request(request, arg);
	else if (!value_request(file, request, arg))
		rc = file->kind == KIND_VM ? vm_request(file, request, arg)
					   : vcpu_request(file, request, arg);
	pthread_mutex_unlock(&lock);
	if (rc == -ENOTTY) {
		fprintf(stderr, "stub_kvm: request 0x%lx is not known\n", request);
		abort();
	}
	return rc;
}

const struct kvm_calls stub_kvm_calls = {.ioctl = stub_ioctl};

/* --- for tests --- */

void stub_kvm_fail(unsigned int n, int error)
{
	pthread_mutex_lock(&lock);
	fail_in = n + 1;
	fail_error = error;
	pthread_mutex_unlock(&lock);
}

bool stub_kvm_failed(void)
{
	bool ret;

	pthread_mutex_lock(&lock);
	ret = !fail_in;
	pthread_mutex_unlock(&lock);
	return ret;
}

struct stub_kvm_totals stub_kvm_totals(void)
{
	struct stub_kvm_totals ret;

	pthread_mutex_lock(&lock);
	sweep();
	ret = so_far;
	for (size_t i = 0; i < MAX_FILES; i++) {
		const struct vm *vm = files[i] ? files[i]->vm : NULL;

		ret.vcpus += files[i] && files[i]->kind == KIND_VCPU;
		if (!vm)
			continue;
		ret.vms++;
		ret.routes += vm->n_routes;
		ret.irqfds += vm->n_irqfds;
		ret.ioeventfds += vm->n_ioeventfds;
		for (size_t k = 0; k < MAX_SLOTS; k++) {
			ret.slots += vm->slots[k].memory_size > 0;
			ret.slot_bytes += vm->slots[k].memory_size;
		}
	}
	pthread_mutex_unlock(&lock);
	return ret;
}

bool stub_kvm_backed(uint64_t gpa)
{
	bool found = false;

	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < MAX_FILES; i++) {
		for (size_t k = 0; files[i] && files[i]->vm && k < MAX_SLOTS; k++) {
			const struct kvm_userspace_memory_region *s = &files[i]->vm->slots[k];

			found |= s->memory_size && gpa - s->guest_phys_addr < s->memory_size;
		}
	}
	pthread_mutex_unlock(&lock);
	return found;
}

bool stub_kvm_has_irqfd(uint32_t gsi)
{
	bool found = false;

	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < MAX_FILES; i++) {
		for (size_t k = 0; files[i] && files[i]->vm && k < files[i]->vm->n_irqfds; k++)
			found |= files[i]->vm->irqfds[k].gsi == gsi;
	}
	pthread_mutex_unlock(&lock);
	return found;
}

void stub_kvm_write(void *hva, const void *bytes, size_t len)
{
	uint64_t at = (uint64_t)hva;

	pthread_mutex_lock(&lock);
	memcpy(hva, bytes, len);
	for (size_t i = 0; i < MAX_FILES; i++) {
		for (uint32_t k = 0; files[i] && files[i]->vm && k < MAX_SLOTS; k++) {
			struct vm *vm = files[i]->vm;
			const struct kvm_userspace_memory_region *s = &vm->slots[k];

			if (!s->memory_size || at - s->userspace_addr >= s->memory_size ||
			    !(s->flags & KVM_MEM_LOG_DIRTY_PAGES))
				continue;
			for (uint64_t page = (at - s->userspace_addr) / 4096;
			     page <= (at - s->userspace_addr + len - 1) / 4096 &&
			     vm->n_written < MAX_WRITTEN;
			     page++) {
				vm->written[vm->n_written].slot = k;
				vm->written[vm->n_written++].page = page;
			}
		}
	}
	pthread_mutex_unlock(&lock);
}
