// SPDX-License-Identifier: Apache-2.0
// Interrupts and doorbells through KVM: irqfd, lines, ioeventfd.
#include <criterion/criterion.h>
#include <unistd.h>

#include "base/fd.h"
#include "harness.h"

static struct irq_line the_line;
static int seen_fd;

static void lower_line(struct payload_vm *p, uint64_t value)
{
	(void)p;
	if (value == 0x42)
		irq_line_set(&the_line, false);
	fd_event_signal(seen_fd);
}

static void wait_count(struct payload_vm *p, uint64_t gpa, uint32_t at_least)
{
	while (payload_peek(p, gpa) < at_least)
		payload_wait_fd(p, seen_fd);
}

Test(irq, msi_by_eventfd_and_a_level_line_arrive)
{
	struct payload_vm *p = payload_create(1);
	struct irq_msi msi = {0};
	struct err err = ERR_INIT;

	seen_fd = fd_eventfd();
	p->on_data = lower_line;
	cr_assert_eq(irq_msi_init(&msi, p->irq, 0x10, &err), 0, "%s", err.text);
	cr_assert_eq(irq_msi_enable(&msi, 0xfee00000, 0x41), 0);
	cr_assert_eq(irq_line_get(&the_line, p->irq, 10, &err), 0, "%s", err.text);
	payload_start(p, "irq", ARCH_ENTRY_PROT);
	cr_assert_eq(payload_wait_exit(p), 6);
	for (uint32_t i = 1; i <= 20; i++) {
		uint32_t lines = payload_peek(p, PAYLOAD_RESULT + 4);

		irq_msi_raise(&msi);
		wait_count(p, PAYLOAD_RESULT, i);
		cr_assert_eq(payload_peek(p, PAYLOAD_RESULT), i);
		irq_line_set(&the_line, true);
		/* Once; but kvm_pvm ends an interrupt as it injects it, and so may inject twice. */
		wait_count(p, PAYLOAD_RESULT + 4, lines + 1);
	}
	/* Masked: pending; unmasked: delivered. */
	irq_msi_mask(&msi);
	irq_msi_raise(&msi);
	cr_assert(irq_msi_pending(&msi));
	cr_assert_eq(payload_peek(p, PAYLOAD_RESULT), 20u);
	cr_assert_eq(irq_msi_unmask(&msi), 0);
	wait_count(p, PAYLOAD_RESULT, 21);
	cr_assert_eq(payload_peek(p, PAYLOAD_RESULT), 21u);
	vcpus_pause(p->vcpus);
	irq_msi_disable(&msi);
	irq_msi_done(&msi);
	irq_line_put(&the_line);
	payload_destroy(p);
	close(seen_fd);
}

Test(irq, a_reset_forgets_pending_interrupts)
{
	struct payload_vm *p = payload_create(1);
	struct irq_msi msi = {0};
	struct err err = ERR_INIT;

	seen_fd = fd_eventfd();
	p->on_data = lower_line;
	cr_assert_eq(irq_msi_init(&msi, p->irq, 0x10, &err), 0, "%s", err.text);
	cr_assert_eq(irq_msi_enable(&msi, 0xfee00000, 0x41), 0);
	payload_start(p, "irq", ARCH_ENTRY_PROT);
	cr_assert_eq(payload_wait_exit(p), 6);
	vcpus_pause(p->vcpus);
	fd_event_drain(seen_fd);
	irq_msi_raise(&msi);
	cr_assert_eq(arch_vm_reset(p->arch, &err), 0, "%s", err.text);
	payload_start(p, "irq", ARCH_ENTRY_PROT);
	cr_assert_eq(payload_wait_exit(p), 6);
	irq_msi_raise(&msi);
	cr_assert_eq(payload_wait_fd(p, seen_fd), 1u);
	vcpus_pause(p->vcpus);
	cr_assert_eq(payload_peek(p, PAYLOAD_RESULT), 1u, "the interrupt from before came too");
	irq_msi_disable(&msi);
	irq_msi_done(&msi);
	payload_destroy(p);
	close(seen_fd);
}

Test(irq, doorbells_are_answered_by_the_kernel)
{
	struct payload_vm *p = payload_create(1);
	int port = fd_eventfd(), match = fd_eventfd(), any = fd_eventfd();
	struct bus_ioeventfd bells[] = {
		{.region = &p->bell_port, .offset = 0, .size = 2, .fd = port},
		{.region = &p->bell_port,
		 .offset = 4,
		 .size = 4,
		 .match = true,
		 .value = 7,
		 .fd = match},
		{.region = &p->mmio_bell, .offset = 0, .size = 0, .fd = any},
	};

	for (int i = 0; i < 2; i++)
		cr_assert_eq(bus_ioeventfd_add(p->pio, &bells[i]), 0);
	cr_assert_eq(bus_ioeventfd_add(p->mmio, &bells[2]), 0);
	payload_start(p, "bell", ARCH_ENTRY_PROT);
	cr_assert_eq(payload_wait_exit(p), 5);
	vcpus_pause(p->vcpus);
	cr_expect_eq(fd_event_drain(port), 3u);
	cr_expect_eq(fd_event_drain(match), 1u);
	cr_expect_eq(fd_event_drain(any), 2u);
	cr_expect_eq(p->n_records, 1u, "only the value that does not match reaches the handler");
	cr_expect_eq(p->records[0].value, 8u);
	for (int i = 0; i < 2; i++)
		bus_ioeventfd_del(p->pio, &bells[i]);
	bus_ioeventfd_del(p->mmio, &bells[2]);
	close(port);
	close(match);
	close(any);
	payload_destroy(p);
}

static void count_only(struct payload_vm *p, uint64_t value)
{
	(void)p;
	(void)value;
	fd_event_signal(seen_fd);
}

/* What a passed-through device's INTx is: no call of ours between signal and end of interrupt. */
Test(irq, a_line_driven_by_an_eventfd_is_resampled_at_its_end)
{
	struct payload_vm *p = payload_create(1);
	struct irq_line line, other;
	struct err err = ERR_INIT;
	int fd = fd_eventfd(), resample = fd_eventfd();

	seen_fd = fd_eventfd();
	p->on_data = count_only;
	cr_assert_eq(irq_line_get(&line, p->irq, 10, &err), 0, "%s", err.text);
	cr_assert_eq(irq_line_get(&other, p->irq, 10, &err), 0, "the pin is shared");
	cr_assert_eq(irq_line_connect(&line, fd, resample), 0);
	payload_start(p, "irq", ARCH_ENTRY_PROT);
	cr_assert_eq(payload_wait_exit(p), 6);
	for (uint32_t i = 1; i <= 20; i++) {
		uint32_t lines = payload_peek(p, PAYLOAD_RESULT + 4);

		fd_event_signal(fd);
		cr_assert_geq(payload_wait_fd(p, resample), 1u);
		wait_count(p, PAYLOAD_RESULT + 4, lines + 1);
	}
	irq_line_disconnect(&line);
	vcpus_pause(p->vcpus);
	irq_line_put(&line);
	irq_line_put(&other);
	payload_destroy(p);
	close(fd);
	close(resample);
	close(seen_fd);
}
