// SPDX-License-Identifier: Apache-2.0
// What exits of KVM_RUN mean, fed by hand. Live vCPUs are tests/payload/test_vcpu.c.
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/kvm.h>
#include <string.h>

#include "base/num.h"
#include "core/vcpu_exit.h"

struct area {
	struct kvm_run run;
	uint8_t data[64];
};

static uint64_t last_value;
static unsigned int writes, reads;

static uint64_t count_read(void *opaque, uint64_t offset, unsigned int size)
{
	(void)opaque;
	(void)offset;
	(void)size;
	return ++reads;
}

static void count_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	(void)opaque;
	(void)offset;
	(void)size;
	writes++;
	last_value = value;
}

static const struct bus_ops ops = {.read = count_read, .write = count_write, .unaligned = true};

Test(vcpu_exit, string_io_moves_every_item)
{
	struct bus_region region = {.ops = &ops, .name = "test", .size_bytes = 4};
	struct area area = {.run.exit_reason = KVM_EXIT_IO};
	struct bus *bus = NULL;
	struct err err = ERR_INIT;

	cr_assert_eq(bus_create(&bus, BUS_PIO, &err), 0);
	cr_assert_eq(bus_add(bus, &region, 0x100, &err), 0);
	area.run.io.port = 0x100;
	area.run.io.size = 2;
	area.run.io.count = 5;
	area.run.io.data_offset = offsetof(struct area, data);
	area.run.io.direction = KVM_EXIT_IO_IN;
	vcpu_exit_io(&area.run, bus);
	cr_assert_eq(reads, 5u);
	for (uint8_t i = 0; i < 5; i++)
		cr_assert_eq(area.data[2 * i], i + 1);
	area.run.io.direction = KVM_EXIT_IO_OUT;
	vcpu_exit_io(&area.run, bus);
	cr_assert_eq(writes, 5u);
	cr_assert_eq(last_value, 5u);
	/* Nobody there. */
	area.run.io.port = 0x200;
	area.run.io.direction = KVM_EXIT_IO_IN;
	vcpu_exit_io(&area.run, bus);
	for (int i = 0; i < 10; i++)
		cr_assert_eq(area.data[i], 0xff);
	bus_del(bus, &region);
	bus_destroy(bus);
}

Test(vcpu_exit, mmio_reads_what_nobody_claims_as_ones)
{
	struct kvm_run run = {.exit_reason = KVM_EXIT_MMIO};
	struct bus *bus = NULL;
	struct err err = ERR_INIT;

	cr_assert_eq(bus_create(&bus, BUS_MMIO, &err), 0);
	run.mmio.phys_addr = 0xd0000000;
	run.mmio.len = 8;
	vcpu_exit_mmio(&run, bus);
	for (int i = 0; i < 8; i++)
		cr_assert_eq(run.mmio.data[i], 0xff);
	run.mmio.is_write = 1;
	vcpu_exit_mmio(&run, bus);
	bus_destroy(bus);
}

Test(vcpu_exit, each_reason_has_its_event)
{
	static const struct {
		uint32_t reason, type;
		bool is_event;
		enum vcpu_event event;
		const char *text;
	} cases[] = {
		{KVM_EXIT_INTR, 0, false, 0, NULL},
		{KVM_EXIT_IRQ_WINDOW_OPEN, 0, false, 0, NULL},
		{KVM_EXIT_IOAPIC_EOI, 0, false, 0, NULL},
		{KVM_EXIT_SHUTDOWN, 0, true, VCPU_SHUTDOWN, "triple fault"},
		{KVM_EXIT_SYSTEM_EVENT, KVM_SYSTEM_EVENT_SHUTDOWN, true, VCPU_POWER_OFF, "off"},
		{KVM_EXIT_SYSTEM_EVENT, KVM_SYSTEM_EVENT_RESET, true, VCPU_RESET, "reset"},
		{KVM_EXIT_SYSTEM_EVENT, KVM_SYSTEM_EVENT_CRASH, true, VCPU_CRASH, "crash"},
		{KVM_EXIT_SYSTEM_EVENT, 99, true, VCPU_INTERNAL_ERROR, "99"},
		{KVM_EXIT_FAIL_ENTRY, 0, true, VCPU_INTERNAL_ERROR, "refused"},
		{KVM_EXIT_UNKNOWN, 0, true, VCPU_INTERNAL_ERROR, "unknown"},
		{KVM_EXIT_DEBUG, 0, true, VCPU_DEBUG, "debug"},
		{KVM_EXIT_HLT, 0, true, VCPU_INTERNAL_ERROR, "HLT"},
		{12345, 0, true, VCPU_INTERNAL_ERROR, "12345"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct kvm_run run = {.exit_reason = cases[i].reason};
		char text[VCPU_EXIT_TEXT] = "";
		enum vcpu_event event;

		if (cases[i].reason == KVM_EXIT_SYSTEM_EVENT)
			run.system_event.type = cases[i].type;
		cr_assert_eq(vcpu_exit_event(&run, &event, text), cases[i].is_event, "%zu", i);
		if (!cases[i].is_event)
			continue;
		cr_assert_eq(event, cases[i].event, "%zu", i);
		cr_assert(strstr(text, cases[i].text), "%s", text);
	}
}

Test(vcpu_exit, an_emulation_failure_shows_its_instruction)
{
	struct kvm_run run = {.exit_reason = KVM_EXIT_INTERNAL_ERROR};
	char text[VCPU_EXIT_TEXT];
	enum vcpu_event event;

	run.emulation_failure.suberror = KVM_INTERNAL_ERROR_EMULATION;
	run.emulation_failure.ndata = 3;
	run.emulation_failure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
	run.emulation_failure.insn_size = 200; /* more than there are */
	memset(run.emulation_failure.insn_bytes, 0xcc, sizeof(run.emulation_failure.insn_bytes));
	cr_assert(vcpu_exit_event(&run, &event, text));
	cr_assert(strstr(text, "cannot emulate cc cc"), "%s", text);
	run.internal.suberror = 77;
	run.internal.ndata = 1000;
	memset(run.internal.data, 0xff, sizeof(run.internal.data));
	cr_assert(vcpu_exit_event(&run, &event, text));
	cr_assert(strstr(text, "77: unknown 0xffffffffffffffff"), "%s", text);
}

Test(vcpu_exit, a_failed_run_names_the_address)
{
	struct kvm_run run = {.exit_reason = KVM_EXIT_MEMORY_FAULT};
	char text[VCPU_EXIT_TEXT];

	run.memory_fault.gpa = 0xabc000;
	run.memory_fault.size = 4096;
	vcpu_exit_failure(&run, -EFAULT, text);
	cr_assert(strstr(text, "0xabc000"), "%s", text);
	vcpu_exit_failure(&run, -ENOMEM, text);
	cr_assert(!strstr(text, "0xabc000"), "%s", text);
}
