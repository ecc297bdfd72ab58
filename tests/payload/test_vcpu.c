// SPDX-License-Identifier: Apache-2.0
// A live vCPU: exits, pause, kick, events, reset.
#include "core/vcpu.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/num.h"
#include "harness.h"

static void *result(struct payload_vm *p)
{
	return gmem_host(p->gmem, PAYLOAD_RESULT, 64, false);
}

Test(vcpu, port_accesses_of_each_size_and_string_instructions)
{
	static const struct payload_record want[] = {
		{0, 0x12, 1}, {0, 0x3456, 2}, {0, 0x789abcde, 4}, {0, 'h', 1},
		{0, 'e', 1},  {0, 'l', 1},    {0, 'l', 1},        {0, 'o', 1},
	};
	struct payload_vm *p = payload_create(1);
	uint8_t r[64];
	uint16_t words[6];
	uint32_t value;

	payload_start(p, "io", ARCH_ENTRY_REAL);
	cr_assert_eq(payload_wait_exit(p), 1);
	vcpus_pause(p->vcpus);
	cr_assert_eq(p->n_records, ARRAY_SIZE(want));
	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		cr_expect_eq(p->records[i].value, want[i].value, "%zu", i);
		cr_expect_eq(p->records[i].size, want[i].size, "%zu", i);
	}
	memcpy(r, result(p), sizeof(r));
	cr_expect_eq(r[0], 0x00); /* the first read is 0x100, of which a byte */
	memcpy(&value, r + 4, 4);
	cr_expect_eq(value, 0x102u);
	memcpy(&value, r + 8, 4);
	cr_expect_eq(value, UINT32_MAX, "a port nobody claims");
	memcpy(words, r + 16, sizeof(words));
	for (uint16_t i = 0; i < 6; i++)
		cr_expect_eq(words[i], 0x103 + i);
	payload_destroy(p);
}

Test(vcpu, mmio_accesses_of_each_size)
{
	struct payload_vm *p = payload_create(1);
	uint8_t r[12];
	uint32_t value;

	payload_start(p, "mmio", ARCH_ENTRY_PROT);
	cr_assert_eq(payload_wait_exit(p), 2);
	vcpus_pause(p->vcpus);
	cr_assert_eq(p->n_records, 3u);
	for (unsigned int i = 0; i < 3; i++)
		cr_expect_eq(p->records[i].size, 1u << i);
	memcpy(r, result(p), sizeof(r));
	cr_expect_eq(r[0], 0x11);
	cr_expect_eq(r[2] | r[3] << 8, 0x2233);
	memcpy(&value, r + 4, 4);
	cr_expect_eq(value, 0x44556677u);
	memcpy(&value, r + 8, 4);
	cr_expect_eq(value, UINT32_MAX, "an address nobody claims");
	payload_destroy(p);
}

Test(vcpu, long_mode_entry_eight_byte_mmio_and_cpuid)
{
	struct payload_vm *p = payload_create(2);
	uint64_t wide[2];
	uint32_t leaf[3];

	payload_start(p, "long", ARCH_ENTRY_LONG);
	cr_assert_eq(payload_wait_exit(p), 3);
	vcpus_pause(p->vcpus);
	memcpy(wide, result(p), sizeof(wide));
	memcpy(leaf, (uint8_t *)result(p) + 16, sizeof(leaf));
	cr_expect_eq(wide[0], 0x1122334455667788u);
	cr_expect_eq(wide[1], 0x5151u, "rsi at entry");
	cr_expect_eq(leaf[0], 2u, "processors of the package");
	cr_expect_eq(leaf[1], 0u, "the boot processor's x2APIC id");
	cr_expect(leaf[2] >> 31 & 1, "hypervisor bit");
	cr_expect(leaf[2] >> 21 & 1, "x2APIC bit");
	payload_destroy(p);
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void wait_progress(struct payload_vm *p)
{
	uint32_t before = payload_peek(p, PAYLOAD_RESULT);
	uint64_t deadline = now_ms() + 30000;

	while (payload_peek(p, PAYLOAD_RESULT) == before) {
		cr_assert_lt(now_ms(), deadline, "the guest stands still");
		sched_yield();
	}
}

Test(vcpu, a_guest_that_never_exits_is_paused_and_resumed)
{
	struct payload_vm *p = payload_create(1);
	struct vcpu_stats stats;

	payload_start(p, "spin", ARCH_ENTRY_REAL);
	for (int i = 0; i < 30; i++) {
		uint64_t start = now_ms();
		uint32_t at;

		wait_progress(p);
		start = now_ms();
		vcpus_pause(p->vcpus);
		cr_assert_lt(now_ms() - start, 10000u, "a kick takes for ever");
		at = payload_peek(p, PAYLOAD_RESULT);
		for (int n = 0; n < 20; n++)
			sched_yield();
		cr_assert_eq(payload_peek(p, PAYLOAD_RESULT), at, "it runs while paused");
		vcpus_pause(p->vcpus); /* again is harmless */
		vcpus_resume(p->vcpus);
	}
	vcpus_stats(p->vcpus, 0, &stats);
	cr_assert_gt(stats.exits[VCPU_EXIT_INTR], 0u);
	cr_assert_gt(stats.exit_ns[VCPU_EXIT_INTR], 0u);
	cr_assert_gt(stats.cpu_ns, 0u);
	payload_destroy(p);
}

Test(vcpu, sleeping_guests_are_kicked_and_destroyed)
{
	struct payload_vm *p = payload_create(3);

	payload_start(p, "halt", ARCH_ENTRY_REAL);
	cr_assert_eq(payload_wait_exit(p), 4);
	for (int i = 0; i < 20; i++) {
		vcpus_pause(p->vcpus);
		vcpus_resume(p->vcpus);
	}
	payload_destroy(p);
}

Test(vcpu, half_done_io_is_completed_at_a_pause)
{
	struct payload_vm *p = payload_create(1);

	payload_start(p, "flood", ARCH_ENTRY_REAL);
	for (int i = 0; i < 100; i++) {
		wait_progress(p);
		vcpus_pause(p->vcpus);
		vcpus_resume(p->vcpus);
	}
	vcpus_pause(p->vcpus);
	/* What was read last has arrived: nothing is left inside KVM. */
	cr_assert_eq(p->exit_code, 4, "a read was lost or doubled");
	cr_assert_geq(payload_peek(p, PAYLOAD_RESULT) + 2, 0x100 + p->next_read);
	payload_destroy(p);
}

Test(vcpu, a_triple_fault_is_an_event_and_a_reset_revives)
{
	struct payload_vm *p = payload_create(1);
	struct err err = ERR_INIT;
	char text[2048];

	for (int i = 0; i < 3; i++) {
		payload_start(p, "triple", ARCH_ENTRY_PROT);
		cr_assert_eq(payload_wait_event(p), VCPU_SHUTDOWN, "%s", p->event_text);
		vcpus_pause(p->vcpus);
		cr_assert_gt(arch_vcpu_dump(vcpus_get(p->vcpus, 0), text, sizeof(text)), 200);
		/* Where it stood; AMD's hardware leaves nothing of that, and KVM shows an INIT. */
		cr_assert(strstr(text, "rip 0000000000001") || strstr(text, "rip 000000000000fff0"),
			  "%s", text);
		cr_assert_eq(arch_vm_reset(p->arch, &err), 0, "%s", err.text);
		payload_start(p, "io", ARCH_ENTRY_REAL);
		cr_assert_eq(payload_wait_exit(p), 1);
		vcpus_pause(p->vcpus);
	}
	payload_destroy(p);
}

Test(vcpu, a_small_buffer_cuts_the_dump)
{
	struct payload_vm *p = payload_create(1);
	char text[16];

	memset(text, 'x', sizeof(text));
	cr_assert_eq(arch_vcpu_dump(vcpus_get(p->vcpus, 0), text, 10), 9);
	cr_assert_eq(text[9], '\0');
	cr_assert_eq(text[10], 'x');
	payload_destroy(p);
}

Test(vcpu, the_boot_processor_starts_another_and_again_after_a_reset)
{
	struct payload_vm *p = payload_create(2);
	struct err err = ERR_INIT;

	for (int i = 0; i < 3; i++) {
		payload_start(p, "smp", ARCH_ENTRY_PROT);
		cr_assert_eq(payload_wait_exit(p), 7);
		vcpus_pause(p->vcpus);
		cr_assert_eq(payload_peek(p, PAYLOAD_RESULT), 1u);
		cr_assert_eq(arch_vm_reset(p->arch, &err), 0, "%s", err.text);
	}
	payload_destroy(p);
}

Test(vcpu, no_signal_handler_is_installed)
{
	struct payload_vm *p = payload_create(1);
	struct sigaction action;

	payload_start(p, "spin", ARCH_ENTRY_REAL);
	wait_progress(p);
	for (int s = SIGRTMIN; s <= SIGRTMAX; s++) {
		cr_assert_eq(sigaction(s, NULL, &action), 0);
		cr_assert(action.sa_handler == SIG_DFL, "signal %d", s);
	}
	payload_destroy(p);
}

Test(vcpu, pinning_names_a_cpu_the_host_has_not)
{
	struct payload_vm *p = payload_create(1);
	struct vcpus_config config = {.vm = p->arch, .count = 1, .mmio = p->mmio, .pio = p->pio};
	struct vcpus *vcpus = NULL;
	struct err err = ERR_INIT;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(0, &set);
	CPU_SET(CPU_SETSIZE - 1, &set);
	config.pin = &set;
	/* vCPU 0 exists already, so give its place up first. */
	vcpus_destroy(p->vcpus);
	p->vcpus = NULL;
	cr_assert_neq(vcpus_create(&vcpus, &config, &err), 0);
	cr_assert(strstr(err.text, "vcpu0"), "%s", err.text);
	payload_destroy(p);
}

Test(vcpu, two_hundred_and_fifty_five_of_them)
{
	struct payload_vm *p = payload_create(255);
	struct err err = ERR_INIT;

	for (int i = 0; i < 2; i++) {
		payload_start(p, "smp", ARCH_ENTRY_PROT);
		cr_assert_eq(payload_wait_exit(p), 7);
		vcpus_pause(p->vcpus);
		cr_assert_eq(payload_peek(p, PAYLOAD_RESULT), 1u);
		cr_assert_eq(arch_vm_reset(p->arch, &err), 0, "%s", err.text);
	}
	payload_destroy(p);
}

Test(vcpu, device_memory_is_reached_without_an_exit_and_moves)
{
	struct payload_vm *p = payload_create(1);
	uint8_t *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct err err = ERR_INIT;

	cr_assert_neq(page, MAP_FAILED);
	/* More moves than KVM has slots. */
	for (uint64_t i = 0; i < 40000; i++) {
		cr_assert_eq(arch_vm_map_host(p->arch, PAYLOAD_MMIO + (i & 1) * 0x100000, page,
					      4096, false, &err),
			     0, "%s", err.text);
		arch_vm_unmap_host(p->arch, PAYLOAD_MMIO + (i & 1) * 0x100000);
	}
	cr_assert_eq(arch_vm_map_host(p->arch, 0x100000, page, 4096, false, &err), -EEXIST,
		     "over RAM");
	cr_assert_not_null(strstr(err.text, "0x100000"), "%s", err.text);
	cr_assert_eq(arch_vm_map_host(p->arch, PAYLOAD_MMIO, page, 4096, false, &err), 0);
	payload_start(p, "mmio", ARCH_ENTRY_PROT);
	cr_assert_eq(payload_wait_exit(p), 2);
	vcpus_pause(p->vcpus);
	cr_expect_eq(p->n_records, 0u, "no access was trapped");
	cr_expect_eq(page[0], 0x11);
	cr_expect_eq(page[7], 0x44);
	arch_vm_unmap_host(p->arch, PAYLOAD_MMIO);
	payload_start(p, "mmio", ARCH_ENTRY_PROT);
	cr_assert_eq(payload_wait_exit(p), 2);
	vcpus_pause(p->vcpus);
	cr_expect_eq(p->n_records, 3u, "trapped again");
	/* Read-only: what is written is trapped, what is read is not. */
	cr_assert_eq(arch_vm_map_host(p->arch, PAYLOAD_MMIO, page, 4096, true, &err), 0);
	page[0] = 0x99;
	payload_start(p, "mmio", ARCH_ENTRY_PROT);
	cr_assert_eq(payload_wait_exit(p), 2);
	vcpus_pause(p->vcpus);
	cr_expect_eq(p->n_records, 6u);
	cr_expect_eq(*(uint8_t *)result(p), 0x99);
	arch_vm_unmap_host(p->arch, PAYLOAD_MMIO);
	payload_destroy(p);
	munmap(page, 4096);
}

Test(vcpu, kvm_takes_no_file_for_a_vfio_device)
{
	struct payload_vm *p = payload_create(1);
	struct err err = ERR_INIT;
	int rc = arch_vm_add_vfio(p->arch, STDIN_FILENO, &err);

	/* -EOPNOTSUPP: a kernel without CONFIG_KVM_VFIO says so. */
	cr_assert(rc == -EINVAL || rc == -EBADF || rc == -EOPNOTSUPP, "%d %s", rc, err.text);
	cr_assert_neq(strlen(err.text), 0);
	arch_vm_remove_vfio(p->arch, STDIN_FILENO);
	payload_destroy(p);
}
