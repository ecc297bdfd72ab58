/* SPDX-License-Identifier: Apache-2.0 */
/* vCPU threads over an architecture of ours, whose guest writes a port without end: how long a
 * handler may keep its vCPU, and what a pause makes of it. */
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/kvm.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "core/bus.h"
#include "core/vcpu.h"
#include "core/vcpu_gate.h"

enum { PORT = 0x10 };

struct arch_vcpu {
	union {
		struct kvm_run run;
		uint8_t bytes[sizeof(struct kvm_run) + 16];
	} area;
};

int arch_vcpu_create(struct arch_vcpu **ret, struct arch_vm *vm, unsigned int index,
		     struct err *error)
{
	(void)vm;
	(void)index;
	(void)error;
	*ret = calloc(1, sizeof(**ret));
	return *ret ? 0 : -ENOMEM;
}

void arch_vcpu_destroy(struct arch_vcpu *vcpu)
{
	free(vcpu);
}

struct kvm_run *arch_vcpu_run(const struct arch_vcpu *vcpu)
{
	return (struct kvm_run *)&vcpu->area.run;
}

void arch_vcpu_resumed(struct arch_vcpu *vcpu)
{
	(void)vcpu;
}

/* What the guest does instead, and its exits. */
static _Atomic bool asleep;
static sem_t entered, release;

static int sleep_until_kicked(void)
{
	sigset_t set;

	sem_post(&entered);
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	sigwaitinfo(&set, NULL);
	return -EINTR;
}

int arch_vcpu_call(const struct arch_vcpu *vcpu, unsigned long request, const void *arg)
{
	struct kvm_run *run = (struct kvm_run *)&vcpu->area.run;

	(void)arg;
	if (request != KVM_RUN)
		return 0;
	if (run->immediate_exit)
		return -EINTR;
	if (asleep)
		return sleep_until_kicked();
	run->exit_reason = KVM_EXIT_IO;
	run->io.direction = KVM_EXIT_IO_OUT;
	run->io.size = 1;
	run->io.port = PORT;
	run->io.count = 1;
	run->io.data_offset = sizeof(*run);
	return 0;
}

static void (*_Atomic handler)(void); /* both vCPUs may change it */

static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	(void)opaque;
	(void)offset;
	(void)value;
	(void)size;
	atomic_load (&handler)();
}

static const struct bus_ops ops = {.write = port_write, .min = 1, .max = 1};
static struct bus_region region = {.ops = &ops, .name = "port", .size_bytes = 1};
static struct bus *pio;
static struct vcpus *vcpus;

static void start(void (*fn)(void), uint64_t leave_ns)
{
	struct err err = ERR_INIT;

	handler = fn;
	sem_init(&entered, 0, 0);
	sem_init(&release, 0, 0);
	cr_assert_eq(bus_create(&pio, BUS_PIO, &err), 0);
	cr_assert_eq(bus_add(pio, &region, PORT, &err), 0);
	cr_assert_eq(
		vcpus_create(&vcpus,
			     &(struct vcpus_config){.count = 2, .pio = pio, .leave_ns = leave_ns},
			     &err),
		0, "%s", err.text);
	vcpus_resume(vcpus);
}

static void finish(void)
{
	vcpus_destroy(vcpus);
	bus_del(pio, &region);
	bus_destroy(pio);
}

static void stuck(void)
{
	sem_post(&entered);
	sem_wait(&release);
}

Test(vcpus, a_pause_gives_up_on_an_exit_that_does_not_end)
{
	start(stuck, 20 * NS_PER_MS);
	sem_wait(&entered);
	cr_expect_eq(vcpus_pause(vcpus), -ETIMEDOUT);
	for (unsigned int i = 0; i < 2; i++)
		sem_post(&release);
	cr_expect_eq(vcpus_pause(vcpus), 0, "who comes out later parks");
	finish();
}

static void long_work(void)
{
	sem_post(&entered);
	while (!vcpu_wanted_out())
		;
}

Test(vcpus, a_handler_sees_that_it_is_to_leave)
{
	start(long_work, 0);
	sem_wait(&entered);
	cr_expect_eq(vcpus_pause(vcpus), 0);
	finish();
}

static void throttled(void)
{
	sem_post(&entered);
	vcpu_wait(3600 * NS_PER_S);
}

Test(vcpus, a_throttled_vcpu_leaves_at_once)
{
	start(throttled, 0);
	sem_wait(&entered);
	cr_expect_eq(vcpus_pause(vcpus), 0);
	finish();
}

static _Atomic uint64_t took_ns;

static void short_wait(void)
{
	uint64_t start_ns = clock_ns();

	vcpu_wait(2 * NS_PER_MS);
	took_ns = clock_ns() - start_ns;
	sem_post(&entered);
	handler = throttled;
}

Test(vcpus, a_guest_that_is_throttled_waits)
{
	start(short_wait, 0);
	sem_wait(&entered);
	cr_expect_geq(took_ns, 2 * NS_PER_MS);
	cr_expect_eq(vcpus_pause(vcpus), 0);
	finish();
}

Test(vcpus, one_that_is_out_of_the_machine_never_enters_the_guest_until_it_is_back)
{
	int more;

	start(throttled, 0);
	sem_wait(&entered);
	sem_wait(&entered);
	vcpus_plug(vcpus, 1, false);
	cr_expect(vcpus_is_in(vcpus, 0));
	cr_expect_not(vcpus_is_in(vcpus, 1));
	cr_expect_eq(vcpus_pause(vcpus), 0);
	for (unsigned int i = 0; i < 200; i++) {
		vcpus_resume(vcpus);
		sem_wait(&entered);
		cr_expect_eq(vcpus_pause(vcpus), 0);
		sem_getvalue(&entered, &more);
		cr_assert_eq(more, 0, "the other has entered too");
	}
	vcpus_hold(vcpus, 0, true);
	vcpus_plug(vcpus, 1, true);
	cr_expect(vcpus_is_in(vcpus, 1));
	vcpus_resume(vcpus);
	sem_wait(&entered);
	cr_expect_eq(vcpus_pause(vcpus), 0);
	finish();
}

Test(vcpus, one_that_is_put_out_of_the_machine_leaves_the_guest_without_a_pause)
{
	struct vcpu_stats stats;
	int more;

	asleep = true;
	start(throttled, 0);
	sem_wait(&entered);
	sem_wait(&entered);
	vcpus_plug(vcpus, 0, false);
	do
		vcpus_stats(vcpus, 0, &stats);
	while (!stats.exits[VCPU_EXIT_INTR]);
	cr_expect_eq(vcpus_pause(vcpus), 0);
	sem_getvalue(&entered, &more);
	cr_expect_eq(more, 0, "it has entered again");
	finish();
}

static void slow(void)
{
	uint64_t until = clock_ns() + 2 * NS_PER_MS;

	while (clock_ns() < until)
		;
	sem_post(&entered);
}

Test(vcpus, what_exits_and_threads_took_is_counted)
{
	struct vcpu_stats stats;

	start(slow, 0);
	for (int i = 0; i < 8; i++)
		sem_wait(&entered);
	cr_expect_eq(vcpus_pause(vcpus), 0);
	for (unsigned int i = 0; i < 2; i++) {
		vcpus_stats(vcpus, i, &stats);
		cr_expect_geq(stats.exit_ns[VCPU_EXIT_IO],
			      stats.exits[VCPU_EXIT_IO] * 2 * NS_PER_MS);
		cr_expect_eq(stats.exit_ns[VCPU_EXIT_MMIO], 0);
		cr_expect(!stats.exits[VCPU_EXIT_IO] || stats.cpu_ns > 0);
		cr_expect_eq(stats.has_steal, access("/proc/thread-self/schedstat", R_OK) == 0);
	}
	finish();
}

Test(vcpus, other_threads_are_not_throttled)
{
	uint64_t start_ns = clock_ns();

	vcpu_wait(3600 * NS_PER_S);
	cr_expect_lt(clock_ns() - start_ns, 60 * NS_PER_S);
	cr_expect_not(vcpu_wanted_out());
}
