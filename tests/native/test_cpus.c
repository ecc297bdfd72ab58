// SPDX-License-Identifier: Apache-2.0
// vCPUs that are plugged into a machine and unplugged by the public calls: what its guest sees and
// answers, which these tests play, by the registers that the ACPI methods use.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/le.h"
#include "base/num.h"
#include "machine/vm.h"
#include "platform/plug.h"
#include "plug_rig.h"
#include "stub_kvm.h"

#define MACHINE(cpus)                                                                \
	"{\"memory\": {\"size\": \"32M\"}, \"kernel\": {\"path\": \"{dir}/kernel\"," \
	" \"cache\": false}, \"cpus\": {" cpus "}}"

static void set_up(void)
{
	plug_rig_init(PLATFORM_CPUS_PORT, HOSPES_EVENT_CPUS);
}

TestSuite(cpus, .init = set_up, .fini = plug_rig_done, .timeout = 120);

static void set(struct hospes_vm *vm, unsigned int count)
{
	cr_assert_eq(hospes_vm_set_cpus(vm, count, &error), 0, "%s", error.text);
}

static unsigned int count(struct hospes_vm *vm, const char *key)
{
	return (unsigned int)number_of(vm, "cpus", key);
}

static void expect_refused(struct hospes_vm *vm, unsigned int n, int code, const char *text)
{
	cr_expect_eq(hospes_vm_set_cpus(vm, n, &error), code, "%u: %s", n, error.text);
	cr_expect_not_null(strstr(error.text, text), "%u: %s", n, error.text);
}

Test(cpus, a_machine_that_says_no_max_has_its_count_for_good)
{
	struct hospes_vm *vm = started(MACHINE("\"count\": 2"));
	uint8_t v;

	cr_expect_eq(count(vm, "count"), 2u);
	cr_expect_eq(count(vm, "max"), 2u);
	cr_expect_not(bus_read(vm->pio, GPE_EN, &v, 1), "no registers");
	expect_refused(vm, 1, -EOPNOTSUPP, "has 2 for good; start it with room for more");
	hospes_vm_destroy(vm);
}

Test(cpus, what_cannot_be_is_refused_and_changes_nothing)
{
	struct hospes_vm *vm = rig_create(&rig, MACHINE("\"max\": 4"), 0);

	expect_refused(vm, 2, -EBUSY, "the machine is not started");
	cr_assert_eq(hospes_vm_start(vm, &error), 0, "%s", error.text);
	expect_refused(vm, 2, -EBUSY, "the guest does not listen");
	out8(vm, GPE_EN, 1);
	out8(vm, GPE_EN, 0); /* as while an event is served: it has listened */
	expect_refused(vm, 0, -EINVAL, "0 is not within 1 and 4; to have more");
	expect_refused(vm, 5, -EINVAL, "5 is not within 1 and 4; to have more");
	cr_assert_eq(hospes_vm_pause(vm, &error), 0);
	expect_refused(vm, 2, -EBUSY, "the machine is paused");
	cr_expect_eq(count(vm, "count"), 1u);
	cr_expect_eq(in32(vm, EVENT), 0u);
	cr_assert_eq(hospes_vm_resume(vm, &error), 0);
	set(vm, 2);
	hospes_vm_destroy(vm);
}

Test(cpus, all_that_there_can_be_are_made_at_the_start_and_those_that_are_out_do_not_run)
{
	struct hospes_vm *vm = started(MACHINE("\"count\": 2, \"max\": 16"));
	char *text;

	cr_expect_eq(stub_kvm_totals().vcpus, 16u);
	/* Those that are in enter the guest, and stay in it. */
	while (stub_kvm_totals().runs < 2)
		;
	cr_assert_eq(hospes_vm_pause(vm, &error), 0);
	/* Each once, and once more to leave nothing half done. */
	cr_expect_leq(stub_kvm_totals().runs, 4u);
	for (unsigned int i = 0; i < 16; i++)
		cr_expect_eq(vcpus_is_in(vm->vcpus, i), i < 2);
	cr_assert_eq(hospes_vm_registers(vm, &text, &error), 0, "%s", error.text);
	cr_expect_not_null(strstr(text, "vCPU 1: "));
	cr_expect_null(strstr(text, "vCPU 2: "));
	hospes_free(text);
	hospes_vm_destroy(vm);
}

Test(cpus, the_guest_takes_more_and_gives_them_up)
{
	struct hospes_vm *vm = started(MACHINE("\"count\": 1, \"max\": 4"));

	out8(vm, GPE_EN, 1);
	set(vm, 4);
	cr_expect_eq(count(vm, "count"), 4u, "at once");
	cr_expect_eq(count(vm, "wanted"), 4u);
	cr_expect_eq(in32(vm, IN), 0xfu);
	iterate(vm);
	cr_expect_eq(seen.n, 0u, "the guest has not answered");
	cr_expect_eq(act(vm, 0), 3u);
	cr_expect_eq(seen.n, 1u);
	cr_expect_eq(seen.value, 4);
	cr_expect_str_eq(seen.text, "");
	cr_expect_eq(count(vm, "wanted"), 0u);

	set(vm, 2);
	cr_expect_eq(count(vm, "count"), 4u, "the guest has them still");
	iterate(vm);
	cr_expect_eq(act(vm, 0), 2u);
	cr_expect_eq(seen.n, 2u);
	cr_expect_eq(seen.value, 2);
	cr_expect_str_eq(seen.text, "");
	cr_expect_eq(count(vm, "count"), 2u);
	cr_expect_eq(in32(vm, IN), 3u, "the last ones have left");
	set(vm, 2);
	iterate(vm);
	cr_expect_eq(seen.n, 3u, "what is so already is done");
	hospes_vm_destroy(vm);
}

Test(cpus, a_guest_that_refuses_keeps_them_and_the_event_says_why)
{
	struct hospes_vm *vm = started(MACHINE("\"count\": 3, \"max\": 4"));

	out8(vm, GPE_EN, 1);
	set(vm, 1);
	cr_expect_eq(act(vm, BUSY), 2u);
	cr_expect_eq(seen.n, 1u);
	cr_expect_eq(seen.value, 3);
	cr_expect_not_null(
		strstr(seen.text, "3 of 1 wanted: the guest refuses (CPU 1, status 0x82"), "%s",
		seen.text);
	cr_expect_not_null(strstr(seen.text, "busy"), "%s", seen.text);
	cr_expect_eq(count(vm, "count"), 3u);
	set(vm, 3);
	iterate(vm);
	cr_expect_eq(seen.n, 2u);
	cr_expect_str_eq(seen.text, "", "that is over");
	hospes_vm_destroy(vm);
}

Test(cpus, a_guest_that_says_nothing_keeps_them_and_the_event_says_so)
{
	struct hospes_vm *vm = started(MACHINE("\"count\": 3, \"max\": 4"));

	out8(vm, GPE_EN, 1);
	set(vm, 1);
	iterate(vm);
	cr_expect_eq(seen.n, 0u);
	vm->cpus.parts.until_ns = 1; /* long ago */
	iterate(vm);
	cr_expect_eq(seen.n, 1u);
	cr_expect_eq(seen.value, 3);
	cr_expect_not_null(strstr(seen.text, "3 of 1 wanted: the guest has not answered for 2"),
			   "%s", seen.text);
	cr_expect_eq(in32(vm, EVENT), 0u, "it is not asked any more");
	/* It does so late, all the same. */
	out32(vm, EJECT, 2);
	iterate(vm);
	cr_expect_eq(seen.n, 2u);
	cr_expect_eq(seen.value, 2);
	cr_expect_str_eq(seen.text, "");
	hospes_vm_destroy(vm);
}

Test(cpus, those_that_came_stay_where_the_guest_says_nothing_and_it_may_hear_of_them_later)
{
	struct hospes_vm *vm = started(MACHINE("\"count\": 1, \"max\": 4"));

	out8(vm, GPE_EN, 1);
	set(vm, 2);
	vm->cpus.parts.until_ns = 1;
	iterate(vm);
	cr_expect_eq(seen.n, 1u);
	cr_expect_eq(seen.value, 2);
	cr_expect_not_null(strstr(seen.text, "2 of 2 wanted: the guest has not answered for 1"),
			   "%s", seen.text);
	cr_expect_not_null(strstr(seen.text, "after a reset it finds them"), "%s", seen.text);
	cr_expect_eq(in32(vm, EVENT), 1u | 1 << 16);
	hospes_vm_destroy(vm);
}

Test(cpus, a_machine_that_is_paused_meanwhile_says_so)
{
	struct hospes_vm *vm = started(MACHINE("\"count\": 2, \"max\": 4"));

	out8(vm, GPE_EN, 1);
	set(vm, 1);
	cr_assert_eq(hospes_vm_pause(vm, &error), 0, "%s", error.text);
	vm->cpus.parts.until_ns = 1;
	iterate(vm);
	cr_expect_eq(seen.n, 1u);
	cr_expect_not_null(strstr(seen.text, "it is paused; resume the machine"), "%s", seen.text);
	hospes_vm_destroy(vm);
}

Test(cpus, a_new_wish_replaces_the_one_before)
{
	struct hospes_vm *vm = started(MACHINE("\"count\": 4, \"max\": 6"));

	out8(vm, GPE_EN, 1);
	set(vm, 1);
	set(vm, 5);
	cr_expect_eq(in32(vm, EVENT), 4u | 1 << 16, "none is to leave");
	cr_expect_eq(act(vm, 0), 1u);
	cr_expect_eq(seen.n, 1u);
	cr_expect_eq(seen.value, 5);
	cr_expect_str_eq(seen.text, "");
	hospes_vm_destroy(vm);
}

/* The MADT's entries in guest memory: flags of each CPU, a bit each. */
static uint32_t enabled_in_madt(struct hospes_vm *vm)
{
	const uint8_t *area = gmem_host(vm->gmem, 0xe0000, 0x10000, false);
	const uint8_t *t = memmem(area, 0x10000, "APIC", 4);
	uint32_t ret = 0;

	cr_assert_not_null(t);
	for (const uint8_t *e = t + 44; e < t + load_le32(t + 4); e += e[1]) {
		if (e[0] == 0)
			ret |= (load_le32(e + 4) & 1) << e[2];
	}
	return ret;
}

Test(cpus, a_reset_takes_what_was_asked_for_and_the_guest_starts_with_the_rest)
{
	struct hospes_vm *vm = started(MACHINE("\"count\": 1, \"max\": 5"));

	cr_expect_eq(enabled_in_madt(vm), 1u);
	out8(vm, GPE_EN, 1);
	set(vm, 4);
	act(vm, 0);
	out32(vm, EJECT, 1);
	iterate(vm);
	set(vm, 2);
	cr_expect_eq(count(vm, "count"), 3u);
	seen.n = 0;
	cr_assert_eq(hospes_vm_reset(vm, &error), 0, "%s", error.text);
	iterate(vm);
	cr_expect_eq(count(vm, "count"), 2u);
	cr_expect_eq(enabled_in_madt(vm), 1u | 1 << 2);
	cr_expect_eq(seen.n, 1u);
	cr_expect_eq(seen.value, 2);
	cr_expect_str_eq(seen.text, "");
	expect_refused(vm, 4, -EBUSY, "does not listen");
	hospes_vm_destroy(vm);
}

Test(cpus, it_comes_and_goes_200_times_and_the_machine_ends_in_the_middle)
{
	struct hospes_vm *vm = started(MACHINE("\"count\": 1, \"max\": 8"));

	out8(vm, GPE_EN, 1);
	for (unsigned int i = 0; i < 200; i++) {
		set(vm, 1 + i % 8);
		act(vm, i % 3 ? 0 : BUSY);
	}
	set(vm, 8);
	act(vm, 0);
	cr_expect_eq(count(vm, "count"), 8u);
	set(vm, 1);
	hospes_vm_destroy(vm);
	cr_expect_eq(stub_kvm_totals().vcpus, 0u);
}

/* A call of KVM that fails brings none in. */
Test(cpus, a_vcpu_that_cannot_be_reset_stays_out)
{
	struct hospes_vm *vm = started(MACHINE("\"count\": 1, \"max\": 3"));
	bool failed = true;

	out8(vm, GPE_EN, 1);
	for (unsigned int n = 0; failed && n < 200; n++) {
		int rc;

		stub_kvm_fail(n, EIO);
		rc = hospes_vm_set_cpus(vm, 3, &error);
		failed = stub_kvm_failed();
		if (rc) {
			cr_assert(failed);
			cr_assert_eq(count(vm, "count"), 1u);
			cr_assert_eq(in32(vm, EVENT), 0u);
			continue;
		}
		cr_assert_eq(count(vm, "count"), 3u);
		act(vm, 0);
		set(vm, 1);
		act(vm, 0);
	}
	cr_expect_not(failed, "the calls have an end");
	hospes_vm_destroy(vm);
}
