// SPDX-License-Identifier: Apache-2.0
// Exits of KVM_RUN (Linux Documentation/virt/kvm/api.rst, section 5). See vcpu_exit.h.
#include "core/vcpu_exit.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"

void vcpu_exit_io(struct kvm_run *run, struct bus *pio)
{
	uint8_t *data = (uint8_t *)run + run->io.data_offset;

	/* A string instruction moves `count` items through one port. */
	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
		if (run->io.direction == KVM_EXIT_IO_OUT)
			bus_write(pio, run->io.port, data, run->io.size);
		else
			bus_read(pio, run->io.port, data, run->io.size);
	}
}

void vcpu_exit_mmio(struct kvm_run *run, struct bus *mmio)
{
	if (run->mmio.is_write)
		bus_write(mmio, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
	else
		bus_read(mmio, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
}

static void internal_error(const struct kvm_run *run, char text[VCPU_EXIT_TEXT])
{
	static const char *const names[] = {
		[KVM_INTERNAL_ERROR_EMULATION] = "an instruction it cannot emulate",
		[KVM_INTERNAL_ERROR_SIMUL_EX] = "simultaneous exceptions",
		[KVM_INTERNAL_ERROR_DELIVERY_EV] = "an exit while an event was delivered",
		[KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON] = "an exit it does not know",
	};
	uint32_t sub = run->internal.suberror;
	int at = snprintf(text, VCPU_EXIT_TEXT, "KVM internal error %u: %s", sub,
			  sub < ARRAY_SIZE(names) && names[sub] ? names[sub] : "unknown");

	if (sub == KVM_INTERNAL_ERROR_EMULATION && run->emulation_failure.ndata &&
	    (run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES)) {
		unsigned int n = MIN((unsigned int)run->emulation_failure.insn_size,
				     (unsigned int)sizeof(run->emulation_failure.insn_bytes));

		for (unsigned int i = 0; i < n; i++)
			at += snprintf(text + at, (size_t)(VCPU_EXIT_TEXT - at), " %02x",
				       run->emulation_failure.insn_bytes[i]);
		return;
	}
	for (uint32_t i = 0; i < MIN(run->internal.ndata, 4u); i++)
		at += snprintf(text + at, (size_t)(VCPU_EXIT_TEXT - at), " 0x%llx",
			       run->internal.data[i]);
}

static bool system_event(const struct kvm_run *run, enum vcpu_event *event,
			 char text[VCPU_EXIT_TEXT])
{
	switch (run->system_event.type) {
	case KVM_SYSTEM_EVENT_SHUTDOWN:
		*event = VCPU_POWER_OFF;
		snprintf(text, VCPU_EXIT_TEXT, "the guest powered off");
		return true;
	case KVM_SYSTEM_EVENT_RESET:
		*event = VCPU_RESET;
		snprintf(text, VCPU_EXIT_TEXT, "the guest asked for a reset");
		return true;
	case KVM_SYSTEM_EVENT_CRASH:
		*event = VCPU_CRASH;
		snprintf(text, VCPU_EXIT_TEXT, "the guest said that it crashed");
		return true;
	default:
		*event = VCPU_INTERNAL_ERROR;
		snprintf(text, VCPU_EXIT_TEXT, "unknown system event %u", run->system_event.type);
		return true;
	}
}

bool vcpu_exit_event(const struct kvm_run *run, enum vcpu_event *event, char text[VCPU_EXIT_TEXT])
{
	*event = VCPU_INTERNAL_ERROR;
	switch (run->exit_reason) {
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_IOAPIC_EOI: /* of a split irqchip, which is not used */
	case KVM_EXIT_SET_TPR:
		return false;
	case KVM_EXIT_SHUTDOWN:
		*event = VCPU_SHUTDOWN;
		snprintf(text, VCPU_EXIT_TEXT, "triple fault");
		return true;
	case KVM_EXIT_SYSTEM_EVENT:
		return system_event(run, event, text);
	case KVM_EXIT_INTERNAL_ERROR:
		internal_error(run, text);
		return true;
	case KVM_EXIT_FAIL_ENTRY:
		snprintf(text, VCPU_EXIT_TEXT,
			 "the CPU refused to enter the guest: reason 0x%llx, CPU %u",
			 run->fail_entry.hardware_entry_failure_reason, run->fail_entry.cpu);
		return true;
	case KVM_EXIT_UNKNOWN:
		snprintf(text, VCPU_EXIT_TEXT, "unknown hardware exit 0x%llx",
			 run->hw.hardware_exit_reason);
		return true;
	case KVM_EXIT_DEBUG:
		*event = VCPU_DEBUG;
		snprintf(text, VCPU_EXIT_TEXT, "a debug exit");
		return true;
	case KVM_EXIT_HLT: /* the irqchip in the kernel waits itself */
		snprintf(text, VCPU_EXIT_TEXT, "HLT left the kernel");
		return true;
	default:
		snprintf(text, VCPU_EXIT_TEXT, "exit reason %u, which hospes does not know",
			 run->exit_reason);
		return true;
	}
}

void vcpu_exit_failure(const struct kvm_run *run, int rc, char text[VCPU_EXIT_TEXT])
{
	if (rc == -EFAULT && run->exit_reason == KVM_EXIT_MEMORY_FAULT)
		snprintf(text, VCPU_EXIT_TEXT, "KVM_RUN: no host memory behind gpa 0x%llx + 0x%llx",
			 run->memory_fault.gpa, run->memory_fault.size);
	else
		snprintf(text, VCPU_EXIT_TEXT, "KVM_RUN: %s", err_name(rc));
}
