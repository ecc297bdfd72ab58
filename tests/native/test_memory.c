// SPDX-License-Identifier: Apache-2.0
// Memory that is plugged into a machine and unplugged by the public calls: what its guest sees and
// answers, which these tests play, by the registers that the ACPI methods use.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/num.h"
#include "core/reclaim.h"
#include "machine/vm.h"
#include "platform/plug.h"
#include "plug_rig.h"
#include "stub_kvm.h"

#define UNIT (128 * MiB)
#define MACHINE(memory, more)                                                                  \
	"{\"memory\": {\"size\": \"32M\"" memory "}, \"kernel\": {\"path\": \"{dir}/kernel\"," \
	" \"cache\": false}" more "}"

static void set_up(void)
{
	plug_rig_init(PLATFORM_MEMORY_PORT, HOSPES_EVENT_MEMORY);
}

TestSuite(memory, .init = set_up, .fini = plug_rig_done, .timeout = 120);

/* Beside the 32 MiB of the start. */
static void set(struct hospes_vm *vm, unsigned int units)
{
	cr_assert_eq(hospes_vm_set_memory(vm, 32 * MiB + units * UNIT, &error), 0, "%s",
		     error.text);
}

static uint64_t of(struct hospes_vm *vm, const char *key)
{
	return number_of(vm, "memory", key);
}

/* What the vCPUs have. */
static uint64_t in_slots(void)
{
	return stub_kvm_totals().slot_bytes;
}

static void expect_refused(struct hospes_vm *vm, uint64_t bytes, int code, const char *text)
{
	cr_expect_eq(hospes_vm_set_memory(vm, bytes, &error), code, "%s", error.text);
	cr_expect_not_null(strstr(error.text, text), "%s", error.text);
}

Test(memory, a_machine_that_says_no_max_has_its_size_for_good)
{
	struct hospes_vm *vm = started(MACHINE("", ""));
	uint8_t v;

	cr_expect_eq(of(vm, "bytes"), 32 * MiB);
	cr_expect_eq(of(vm, "max_bytes"), 32 * MiB);
	cr_expect_eq(of(vm, "unit_bytes"), 0u);
	cr_expect_not(bus_read(vm->pio, GPE_EN, &v, 1), "no registers");
	expect_refused(vm, 64 * MiB, -EOPNOTSUPP, "has 32M for good; start it with room for more");
	hospes_vm_destroy(vm);
}

Test(memory, what_cannot_be_is_refused_and_changes_nothing)
{
	struct hospes_vm *vm = rig_create(&rig, MACHINE(", \"max\": \"544M\"", ""), 0);
	uint64_t before = in_slots();

	expect_refused(vm, 160 * MiB, -EBUSY, "the machine is not started");
	cr_assert_eq(hospes_vm_start(vm, &error), 0, "%s", error.text);
	expect_refused(vm, 160 * MiB, -EBUSY, "the guest does not listen");
	out8(vm, GPE_EN, 1);
	expect_refused(vm, 0, -EINVAL, "0M is not within 32M");
	expect_refused(vm, 545 * MiB, -EINVAL, "and 544M; for less there is a balloon");
	expect_refused(vm, 160 * MiB + 1, -EINVAL, "nearest sizes are 160M and 288M");
	expect_refused(vm, UINT64_MAX, -EINVAL, "is not within");
	cr_assert_eq(hospes_vm_pause(vm, &error), 0);
	expect_refused(vm, 160 * MiB, -EBUSY, "the machine is paused");
	cr_expect_eq(of(vm, "bytes"), 32 * MiB);
	cr_expect_eq(in_slots(), before);
	cr_expect_eq(in32(vm, EVENT), 0u);
	hospes_vm_destroy(vm);
}

Test(memory, the_guest_takes_more_and_gives_it_up)
{
	struct hospes_vm *vm = started(MACHINE(", \"max\": \"544M\"", ""));
	uint64_t before = in_slots(), gpa = vm->platform.plug_gpa;
	unsigned char in;
	char *p;

	out8(vm, GPE_EN, 1);
	set(vm, 3);
	cr_expect_eq(of(vm, "bytes"), 32 * MiB + 3 * UNIT, "at once");
	cr_expect_eq(of(vm, "wanted_bytes"), 32 * MiB + 3 * UNIT);
	cr_expect_eq(in_slots(), before + 3 * UNIT);
	cr_expect_eq(in32(vm, IN), 7u);
	iterate(vm);
	cr_expect_eq(seen.n, 0u, "the guest has not answered");
	cr_expect_eq(act(vm, 0), 3u);
	cr_expect_eq(seen.n, 1u);
	cr_expect_eq(seen.value, 32 + 3 * 128);
	cr_expect_str_eq(seen.text, "");
	cr_expect_eq(of(vm, "wanted_bytes"), 0u);

	p = gmem_host(vm->gmem, gpa + 2 * UNIT, UNIT, true);
	cr_assert_not_null(p);
	p[4096] = 1;
	set(vm, 1);
	cr_expect_eq(of(vm, "bytes"), 32 * MiB + 3 * UNIT, "the guest has it still");
	iterate(vm);
	cr_expect_eq(act(vm, 0), 2u);
	cr_expect_eq(seen.n, 2u);
	cr_expect_eq(seen.value, 160);
	cr_expect_str_eq(seen.text, "");
	cr_expect_eq(in_slots(), before + UNIT);
	cr_expect_null(gmem_host(vm->gmem, gpa + 2 * UNIT, 1, false));
	cr_expect_eq(mincore(p + 4096, 4096, &in), 0, "whoever looks there still may");
	cr_expect_eq(in & 1, 0, "the host has it back");
	cr_expect_eq(in32(vm, IN), 1u, "the last ones have left");
	hospes_vm_destroy(vm);
}

Test(memory, a_guest_that_refuses_keeps_it_and_the_event_says_why)
{
	struct hospes_vm *vm = started(MACHINE(", \"max\": \"544M\"", ""));
	uint64_t before = in_slots();

	out8(vm, GPE_EN, 1);
	set(vm, 2);
	act(vm, 0);
	set(vm, 0);
	cr_expect_eq(act(vm, BUSY), 2u);
	cr_expect_eq(seen.n, 2u);
	cr_expect_eq(seen.value, 288);
	cr_expect_not_null(strstr(seen.text, "288M of 32M wanted: the guest refuses (unit 0 at "),
			   "%s", seen.text);
	cr_expect_not_null(strstr(seen.text, "online_movable"), "%s", seen.text);
	cr_expect_eq(in_slots(), before + 2 * UNIT);
	set(vm, 0);
	vm->memory.parts.until_ns = 1; /* long ago */
	iterate(vm);
	cr_expect_eq(seen.n, 3u);
	cr_expect_not_null(strstr(seen.text, "the guest has not answered for 2 units"), "%s",
			   seen.text);
	cr_expect_eq(in32(vm, EVENT), 0u, "it is not asked any more");
	/* It does so late, all the same, and what it likes. */
	out32(vm, EJECT, 0);
	iterate(vm);
	cr_expect_eq(seen.n, 4u);
	cr_expect_eq(seen.value, 160);
	cr_expect_eq(in_slots(), before + UNIT);
	cr_expect_null(gmem_host(vm->gmem, vm->platform.plug_gpa, 1, false));
	hospes_vm_destroy(vm);
}

Test(memory, a_reset_takes_what_was_asked_for_and_the_guest_starts_with_the_rest)
{
	struct hospes_vm *vm = started(MACHINE(", \"max\": \"544M\"", ""));
	uint64_t before = in_slots();

	out8(vm, GPE_EN, 1);
	set(vm, 4);
	act(vm, 0);
	out32(vm, EJECT, 0);
	iterate(vm);
	set(vm, 1);
	seen.n = 0;
	cr_assert_eq(hospes_vm_reset(vm, &error), 0, "%s", error.text);
	cr_expect_eq(in_slots(), before + UNIT);
	cr_expect_eq(in32(vm, IN), 2u);
	iterate(vm);
	cr_expect_eq(seen.n, 1u);
	cr_expect_eq(seen.value, 160);
	cr_expect_str_eq(seen.text, "");
	expect_refused(vm, 32 * MiB, -EBUSY, "does not listen");
	hospes_vm_destroy(vm);
}

Test(memory, pages_that_a_balloon_has_of_it_are_forgotten_when_it_leaves)
{
	struct hospes_vm *vm =
		started(MACHINE(", \"max\": \"544M\"", ", \"balloon\": {\"enabled\": true}"));
	uint64_t gpa = vm->platform.plug_gpa;
	struct reclaim_totals totals;

	out8(vm, GPE_EN, 1);
	set(vm, 1);
	act(vm, 0);
	cr_assert_eq(reclaim_give(gmem_reclaim(vm->gmem), gpa, 4 * MiB + 4096), 0);
	set(vm, 0);
	act(vm, 0);
	reclaim_totals(gmem_reclaim(vm->gmem), &totals);
	cr_expect_eq(totals.given_bytes, 0u);
	set(vm, 1);
	cr_expect_not(reclaim_has(gmem_reclaim(vm->gmem), gpa, UNIT));
	hospes_vm_destroy(vm);
}

Test(memory, it_comes_and_goes_500_times_and_the_machine_ends_in_the_middle)
{
	struct hospes_vm *vm = started(MACHINE(", \"max\": \"1056M\"", ""));

	out8(vm, GPE_EN, 1);
	for (unsigned int i = 0; i < 500; i++) {
		set(vm, i * 5 % 9);
		act(vm, i % 3 ? 0 : BUSY);
	}
	set(vm, 8);
	act(vm, 0);
	cr_expect_eq(of(vm, "bytes"), 1056 * MiB);
	set(vm, 1);
	hospes_vm_destroy(vm);
}

/* A call of KVM that fails brings none in, of several. */
Test(memory, units_that_cannot_all_be_mapped_stay_out)
{
	struct hospes_vm *vm = started(MACHINE(", \"max\": \"544M\"", ""));
	uint64_t before = in_slots();
	bool failed = true;

	out8(vm, GPE_EN, 1);
	for (unsigned int n = 0; failed && n < 20; n++) {
		int rc;

		stub_kvm_fail(n, ENOMEM);
		rc = hospes_vm_set_memory(vm, 32 * MiB + 3 * UNIT, &error);
		failed = stub_kvm_failed();
		if (!rc)
			continue;
		cr_assert(failed);
		cr_assert_not_null(strstr(error.text, "unit"), "%s", error.text);
		cr_assert_eq(of(vm, "bytes"), 32 * MiB);
		cr_assert_eq(in_slots(), before);
		cr_assert_eq(in32(vm, EVENT), 0u);
	}
	cr_expect_not(failed, "the calls have an end");
	cr_expect_eq(in_slots(), before + 3 * UNIT);
	hospes_vm_destroy(vm);
}
