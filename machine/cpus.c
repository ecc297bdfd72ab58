// SPDX-License-Identifier: Apache-2.0
// vCPUs that come and go. See cpus.h.
#include "machine/cpus.h"

#include <errno.h>
#include <stdio.h>

#include "base/num.h"
#include "machine/vm.h"

static_assert(8 * sizeof(((struct acpi_config *)0)->cpus_in) >= PLUG_MAX, "a bit for each");

/* Where the guest has given a processor up, its vCPU leaves. */
static void follow(struct hospes_vm *vm)
{
	for (unsigned int i = 0; i < vm->config.cpus.max; i++) {
		bool in = plug_look(vm->cpus.parts.plug, i).in;

		if (in != vcpus_is_in(vm->vcpus, i))
			vcpus_plug(vm->vcpus, i, in);
	}
}

void cpus_describe(struct hospes_vm *vm, struct acpi_config *acpi)
{
	vm_assert_own_thread(vm);
	if (!vm->cpus.parts.plug)
		return;
	parts_restart(&vm->cpus.parts);
	acpi->cpus_port = PLATFORM_CPUS_PORT;
	for (unsigned int i = 0; i < vm->config.cpus.max; i++)
		acpi->cpus_in[i / 32] |= (uint32_t)vcpus_is_in(vm->vcpus, i) << i % 32;
}

unsigned int cpus_count(struct hospes_vm *vm)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < vm->config.cpus.max; i++)
		n += vcpus_is_in(vm->vcpus, i);
	return n;
}

/* --- more and fewer --- */

/* n more, the lowest numbers first. */
static int bring_in(struct hospes_vm *vm, unsigned int n, struct err *err)
{
	bool comes[PLUG_MAX] = {false};
	int rc = vm_pause_vcpus(vm, err);

	if (rc)
		return rc;
	for (unsigned int i = 0; i < vm->config.cpus.max && n && !rc; i++) {
		if (vcpus_is_in(vm->vcpus, i))
			continue;
		/* What it was sent while it was out, or did before, is void. */
		rc = arch_vcpu_reset(vcpus_get(vm->vcpus, i), NULL, err);
		comes[i] = true;
		n--;
	}
	for (unsigned int i = 0; i < vm->config.cpus.max && !rc; i++) {
		if (!comes[i])
			continue;
		vcpus_plug(vm->vcpus, i, true);
		plug_add(vm->cpus.parts.plug, i);
	}
	vcpus_resume(vm->vcpus);
	return rc;
}

/* n fewer, the highest numbers first. */
static void ask_for(struct hospes_vm *vm, unsigned int n)
{
	for (unsigned int i = vm->config.cpus.max - 1; i && n; i--) {
		if (!vcpus_is_in(vm->vcpus, i))
			continue;
		plug_ask(vm->cpus.parts.plug, i);
		n--;
	}
}

static int check(struct hospes_vm *vm, unsigned int count, struct err *err)
{
	unsigned int max = vm->config.cpus.max;

	if (!vm->cpus.parts.plug)
		return err_set(err, -EOPNOTSUPP,
			       "cpus: this machine has %u for good; start it with room for more "
			       "(--cpus %u,max=N; cpus.max)",
			       max, max);
	if (!count || count > max)
		return err_set(err, -EINVAL,
			       "cpus: %u is not within 1 and %u; to have more, start the machine "
			       "with a larger max (--cpus N,max=M; cpus.max)",
			       count, max);
	if (atomic_load(&vm->state) != HOSPES_RUNNING)
		return vm_wrong_state(vm, "change the number of CPUs", err);
	if (!plug_is_heard(vm->cpus.parts.plug))
		return err_set(
			err, -EBUSY,
			"cpus: the guest does not listen for them; one that boots does soon, "
			"one without ACPI never (Linux: CONFIG_ACPI_HOTPLUG_CPU, and no "
			"acpi=off)");
	return 0;
}

int cpus_set(struct hospes_vm *vm, unsigned int count, struct err *err)
{
	struct vm_cpus *c = &vm->cpus;
	int rc = check(vm, count, err);
	unsigned int now;

	vm_assert_own_thread(vm);
	if (rc)
		return rc;
	parts_begin(&c->parts);
	now = cpus_count(vm);
	if (count > now)
		rc = bring_in(vm, count - now, err);
	else
		ask_for(vm, now - count);
	c->wanted = rc ? now : count;
	if (!rc)
		parts_wait(&c->parts);
	return rc;
}

/* --- what became of it --- */

/* A status of _OST (ACPI 6.5, 6.3.5). Those of a CPU that came say no more than that it failed. */
static const char *refusal(uint8_t status, bool came)
{
	switch (came ? 0 : status) {
	case 0x80:
		return "it does not support that (Linux: "
		       "/sys/firmware/acpi/hotplug/processor/enabled is 0)";
	case 0x81:
		return "a program of it uses the CPU";
	case 0x82:
		return "the CPU is busy (Linux: programs or interrupts that run nowhere else)";
	case 0x83:
		return "something depends on the CPU";
	default:
		return "it failed (Linux: its log says why)";
	}
}

/* What helps where the guest says nothing. */
static const char *remedy(const struct hospes_vm *vm, bool came)
{
	if (atomic_load(&vm->state) == HOSPES_PAUSED)
		return "it is paused; resume the machine and try again";
	return came ? "its log may say why; after a reset it finds them"
		    : "its log may say why; ask again, and reset the machine meanwhile, which "
		      "takes them";
}

/* Why it is not as it was wanted, for the event; "": it is. */
static void explain(struct hospes_vm *vm, char *text, size_t bytes)
{
	const struct parts_answers a = parts_answers(&vm->cpus.parts);
	unsigned int now = cpus_count(vm);
	bool came = now <= vm->cpus.wanted;

	text[0] = '\0';
	if (a.refused)
		snprintf(text, bytes,
			 "%u of %u wanted: the guest refuses (CPU %u, status 0x%02x of _OST): %s",
			 now, vm->cpus.wanted, a.number, a.status, refusal(a.status, came));
	else if (a.silent)
		snprintf(text, bytes,
			 "%u of %u wanted: the guest has not answered for %u of them: %s", now,
			 vm->cpus.wanted, a.silent, remedy(vm, came));
	else if (vm->cpus.parts.until_ns && now != vm->cpus.wanted)
		snprintf(text, bytes, "%u of %u wanted: the guest has given up others; try again",
			 now, vm->cpus.wanted);
}

static void report(struct hospes_vm *vm, const char *text)
{
	struct vm_cpus *c = &vm->cpus;

	c->reported = cpus_count(vm);
	if (*text)
		log_warn(&vm->log, "cpus", "%s", text);
	else
		log_info(&vm->log, "cpus", "there are %u of %u", c->reported, vm->config.cpus.max);
	vm_emit(vm, HOSPES_EVENT_CPUS, (int)c->reported, text);
}

static bool differ(struct hospes_vm *vm)
{
	return cpus_count(vm) != vm->cpus.reported;
}

/* --- as parts --- */

static const struct parts_ops ops = {follow, differ, explain, report};

int cpus_create(struct hospes_vm *vm, struct err *err)
{
	const struct config_cpus *config = &vm->config.cpus;
	const struct plug_config plug = {
		.name = "cpus",
		.port = PLATFORM_CPUS_PORT,
		.first_stays = true,
		.max = config->max,
		.in = config->count,
	};
	struct vm_cpus *c = &vm->cpus;

	c->reported = c->wanted = config->count;
	return config->max == config->count ? 0 : parts_create(&c->parts, vm, &ops, &plug, err);
}

json_t *cpus_status(struct hospes_vm *vm)
{
	json_t *ret = json_pack("{s:i, s:i}", "count", (int)cpus_count(vm), "max",
				(int)vm->config.cpus.max);

	if (vm->cpus.parts.until_ns)
		json_object_set_new(ret, "wanted", json_integer(vm->cpus.wanted));
	return ret;
}
