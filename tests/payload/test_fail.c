// SPDX-License-Identifier: Apache-2.0
// Each system call of creating a machine fails once: one clear line, nothing left behind.
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/num.h"
#include "deny.h"
#include "harness.h"

struct step {
	long nr;
	unsigned long request;
	const char *text; /* what the message names */
	bool at_reset;    /* of arch_vcpu_reset, not of creation */
};

#define IOCTL(request) {SYS_ioctl, request, #request, false}
#define RESET(request) {SYS_ioctl, request, #request, true}

static const struct step steps[] = {
	IOCTL(KVM_GET_SUPPORTED_CPUID),
	IOCTL(KVM_CREATE_VM),
	IOCTL(KVM_SET_IDENTITY_MAP_ADDR),
	IOCTL(KVM_SET_TSS_ADDR),
	IOCTL(KVM_CREATE_IRQCHIP),
	IOCTL(KVM_CREATE_PIT2),
	IOCTL(KVM_GET_IRQCHIP),
	IOCTL(KVM_GET_PIT2),
	{SYS_ioctl, KVM_SET_USER_MEMORY_REGION, "KVM slot", false},
	{SYS_ioctl, KVM_SET_GSI_ROUTING, "routes", false},
	IOCTL(KVM_CREATE_VCPU),
	IOCTL(KVM_GET_VCPU_MMAP_SIZE),
	IOCTL(KVM_SET_CPUID2),
	IOCTL(KVM_GET_REGS),
	IOCTL(KVM_GET_SREGS),
	IOCTL(KVM_GET_LAPIC),
	IOCTL(KVM_GET_VCPU_EVENTS),
	IOCTL(KVM_GET_MP_STATE),
	IOCTL(KVM_GET_DEBUGREGS),
	IOCTL(KVM_GET_XCRS),
	IOCTL(KVM_GET_MSR_INDEX_LIST),
	IOCTL(KVM_SET_SIGNAL_MASK),
	{SYS_clone3, 0, "thread", false},
	RESET(KVM_SET_SREGS),
	RESET(KVM_SET_REGS),
	RESET(KVM_SET_XSAVE),
	RESET(KVM_SET_XCRS),
	RESET(KVM_SET_DEBUGREGS),
	RESET(KVM_SET_LAPIC),
	RESET(KVM_SET_VCPU_EVENTS),
	RESET(KVM_SET_MP_STATE),
};

/* All the way; the first error. Everything is taken down again. */
static int whole_life(int kvm_fd, struct err *err)
{
	struct gmem_region_config ram = {
		.name = "ram",
		.size_bytes = PAYLOAD_MEMORY,
		.numa_node = -1,
		.fd = -1,
	};
	struct arch_vm_config config = {
		.kvm = {.fd = kvm_fd, .calls = &kvm_kernel_calls},
		.topology = {.cpus = 2, .sockets = 1, .cores = 2, .threads = 1},
	};
	struct arch_entry entry = {.mode = ARCH_ENTRY_REAL, .rip = PAYLOAD_GPA};
	struct vcpus_config vcpus_config = {.count = 2};
	struct irq_chip *irq = NULL;
	struct arch_vm *vm = NULL;
	struct vcpus *vcpus = NULL;
	int rc;

	cr_assert_eq(gmem_create(&config.gmem, NULL, err), 0);
	cr_assert_eq(bus_create(&config.mmio, BUS_MMIO, err), 0);
	cr_assert_eq(bus_create(&config.pio, BUS_PIO, err), 0);
	rc = arch_vm_create(&vm, &config, err);
	if (!rc) {
		cr_assert_eq(gmem_begin(config.gmem, err), 0);
		cr_assert_eq(gmem_add(config.gmem, &ram, err), 0);
		rc = gmem_commit(config.gmem, err);
	}
	if (!rc) {
		cr_assert_eq(irq_chip_create(&irq, arch_irq_ops(), vm, err), 0);
		rc = irq_chip_start(irq, err);
	}
	vcpus_config.vm = vm;
	if (!rc)
		rc = vcpus_create(&vcpus, &vcpus_config, err);
	for (unsigned int i = 0; !rc && i < 2; i++)
		rc = arch_vcpu_reset(vcpus_get(vcpus, i), i ? NULL : &entry, err);
	vcpus_destroy(vcpus);
	irq_chip_destroy(irq);
	arch_vm_destroy(vm);
	gmem_destroy(config.gmem);
	bus_destroy(config.mmio);
	bus_destroy(config.pio);
	return rc;
}

ParameterizedTestParameters(create, each_system_call_may_fail)
{
	/* Indexes: a parameter reaches the test's process by value, and pointers in it do not. */
	static unsigned int indexes[ARRAY_SIZE(steps)];

	for (unsigned int i = 0; i < ARRAY_SIZE(steps); i++)
		indexes[i] = i;
	return cr_make_param_array(unsigned int, indexes, ARRAY_SIZE(steps));
}

ParameterizedTest(unsigned int *index, create, each_system_call_may_fail)
{
	const struct step *step = &steps[*index];
	int kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC), fds;
	struct err err = ERR_INIT;

	if (kvm_fd < 0)
		cr_skip("/dev/kvm: %s", strerror(errno));
	cr_assert_eq(whole_life(kvm_fd, &err), 0, "%s", err.text);
	fds = count_fds();
	cr_assert_eq(deny(step->nr, (uint32_t)step->request, EPERM), 0);
	cr_assert_lt(whole_life(kvm_fd, &err), 0, "%s has no effect", step->text);
	cr_assert(strstr(err.text, step->text), "'%s' names no %s", err.text, step->text);
	cr_assert_eq(count_fds(), fds, "a descriptor is left");
}

Test(create, a_file_that_is_no_kvm_is_refused)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct err err = ERR_INIT;

	cr_assert_lt(whole_life(fd, &err), 0);
	cr_assert(err.text[0]);
	close(fd);
}

Test(create, too_many_cpus_and_crooked_topologies_are_refused)
{
	static const struct arch_topology bad[] = {
		{0, 1, 1, 1}, {5, 2, 2, 1}, {255, 85, 3, 1}, {256, 1, 256, 1}, {300, 300, 1, 1},
	};
	int kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	struct arch_vm_config config = {.kvm = {.fd = kvm_fd, .calls = &kvm_kernel_calls}};
	struct err err = ERR_INIT;

	if (kvm_fd < 0)
		cr_skip("/dev/kvm: %s", strerror(errno));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct arch_vm *vm = NULL;

		config.topology = bad[i];
		cr_assert_eq(arch_vm_create(&vm, &config, &err), -EINVAL, "%zu", i);
		cr_assert_null(vm);
	}
	close(kvm_fd);
}
