// SPDX-License-Identifier: Apache-2.0
// Guest memory, and units of it that come and go. See memory.h.
#include "machine/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/num.h"
#include "core/reclaim.h"
#include "machine/vm.h"

static_assert(CONFIG_MEMORY_UNITS <= 32, "a bit for each");

/* --- at the start --- */

static int add_region(struct hospes_vm *vm, const char *name, uint64_t gpa, uint64_t size_bytes,
		      bool populate, struct err *err)
{
	const struct gmem_region_config region = {
		.name = name,
		.gpa = gpa,
		.size_bytes = size_bytes,
		.backing = (enum gmem_backing)vm->config.memory.backing,
		.numa_node = vm->config.memory.numa_node,
		.share = vm->memory.share,
		.small_pages = vm->memory.small_pages,
		.populate = populate,
		.fd = -1,
	};

	return size_bytes ? gmem_add(vm->gmem, &region, err) : 0;
}

void memory_layout(struct hospes_vm *vm, struct arch_layout *layout)
{
	const struct config_memory *config = &vm->config.memory;
	struct vm_memory *m = &vm->memory;

	layout->memory_bytes = config->size_bytes;
	layout->firmware = vm->config.firmware != NULL;
	layout->plug_bytes = config->max_bytes - config->size_bytes;
	layout->plug_align = m->unit_bytes = config_memory_unit(config);
	m->n_units = (unsigned int)(layout->plug_bytes / m->unit_bytes);
}

int memory_build(struct hospes_vm *vm, struct err *err)
{
	const struct config_memory *config = &vm->config.memory;
	const struct arch_platform *p = &vm->platform;
	int rc = gmem_create(&vm->gmem, &vm->log, err);

	vm->memory.share = config_shares_memory(&vm->config);
	vm->memory.small_pages = config_has_small_pages(&vm->config);
	if (rc)
		return rc;
	gmem_expect(vm->gmem, p->plug_gpa + p->plug_bytes);
	rc = gmem_begin(vm->gmem, err);
	if (rc)
		return rc;
	rc = add_region(vm, "ram-low", p->low_gpa, p->low_bytes, false, err);
	if (!rc)
		rc = add_region(vm, "ram-high", p->high_gpa, p->high_bytes, false, err);
	if (rc) {
		gmem_abort(vm->gmem);
		return err_prefix(err, "memory");
	}
	rc = gmem_commit(vm->gmem, err);
	if (!rc && config->prefault) {
		log_info(&vm->log, "memory", "touching %llu MiB",
			 (unsigned long long)(config->size_bytes / MiB));
		rc = gmem_prefault(vm->gmem, config->prefault_threads, err);
	}
	return rc ? err_prefix(err, "memory") : 0;
}

/* --- units --- */

static uint64_t unit_gpa(const struct hospes_vm *vm, unsigned int number)
{
	return vm->platform.plug_gpa + number * vm->memory.unit_bytes;
}

static int map_units(struct hospes_vm *vm, uint32_t units, struct err *err)
{
	struct vm_memory *m = &vm->memory;
	int rc = gmem_begin(vm->gmem, err);
	char name[16];

	if (rc)
		return rc;
	for (unsigned int i = 0; i < m->n_units && !rc; i++) {
		snprintf(name, sizeof(name), "unit%u", i);
		if (units >> i & 1)
			rc = add_region(vm, name, unit_gpa(vm, i), m->unit_bytes,
					vm->config.memory.prefault, err);
	}
	if (rc)
		gmem_abort(vm->gmem);
	else
		rc = gmem_commit(vm->gmem, err);
	if (rc)
		return err_prefix(err, "memory");
	m->mapped |= units;
	return 0;
}

/* vCPUs and devices lose them, then hospes, then the host has the pages. */
static int unmap_units(struct hospes_vm *vm, uint32_t units, struct err *err)
{
	struct vm_memory *m = &vm->memory;
	int rc;

	gmem_hold(vm->gmem);
	rc = gmem_begin(vm->gmem, err);
	if (rc)
		goto out;
	for (unsigned int i = 0; i < m->n_units && !rc; i++) {
		if (units >> i & 1)
			rc = gmem_remove(vm->gmem, unit_gpa(vm, i), err);
	}
	if (rc)
		gmem_abort(vm->gmem);
	else
		rc = gmem_commit(vm->gmem, err);
	if (rc)
		goto out;
	for (unsigned int i = 0; i < m->n_units; i++) {
		if (units >> i & 1)
			reclaim_forget(gmem_reclaim(vm->gmem), unit_gpa(vm, i), m->unit_bytes);
	}
	m->mapped &= ~units;
	dma_space_forget(vm->dma);
	rc = gmem_empty_removed(vm->gmem);
	if (rc)
		err_set(err, rc, "the host does not get it back: %s", err_name(rc));
out:
	gmem_release(vm->gmem);
	return rc;
}

/* The units that are in, as the guest sees them. */
static uint32_t units_in(struct hospes_vm *vm)
{
	uint32_t ret = 0;

	for (unsigned int i = 0; i < vm->memory.n_units; i++)
		ret |= (uint32_t)plug_look(vm->memory.parts.plug, i).in << i;
	return ret;
}

/* What the guest has given up leaves. What could not stays mapped, and is tried again. */
static void follow(struct hospes_vm *vm)
{
	struct vm_memory *m = &vm->memory;
	uint32_t in = units_in(vm);
	struct err err = ERR_INIT;
	int rc = 0;

	if (m->mapped & ~in)
		rc = unmap_units(vm, m->mapped & ~in, &err);
	if (!rc && in & ~m->mapped) /* a state that was loaded */
		rc = map_units(vm, in & ~m->mapped, &err);
	if (rc)
		log_error(&vm->log, "memory", "units that come or go: %s", err.text);
}

static uint64_t bytes_of(struct hospes_vm *vm)
{
	return vm->config.memory.size_bytes +
	       (unsigned int)__builtin_popcount(units_in(vm)) * vm->memory.unit_bytes;
}

void memory_describe(struct hospes_vm *vm, struct acpi_config *acpi)
{
	vm_assert_own_thread(vm);
	if (!vm->memory.parts.plug)
		return;
	parts_restart(&vm->memory.parts);
	acpi->memory_port = PLATFORM_MEMORY_PORT;
	acpi->memory_gpa = vm->platform.plug_gpa;
	acpi->memory_unit_bytes = vm->memory.unit_bytes;
	acpi->memory_units = vm->memory.n_units;
}

/* --- more and less --- */

/* n more, the lowest addresses first. */
static int bring_in(struct hospes_vm *vm, unsigned int n, struct err *err)
{
	struct vm_memory *m = &vm->memory;
	uint32_t in = units_in(vm), come = 0;
	int rc;

	for (unsigned int i = 0; i < m->n_units && n; i++) {
		if (in >> i & 1)
			continue;
		come |= (uint32_t)1 << i;
		n--;
	}
	/* One that could not leave is there still. */
	rc = map_units(vm, come & ~m->mapped, err);
	for (unsigned int i = 0; i < m->n_units && !rc; i++) {
		if (come >> i & 1)
			plug_add(m->parts.plug, i);
	}
	return rc;
}

/* n fewer, the highest addresses first. */
static void ask_for(struct hospes_vm *vm, unsigned int n)
{
	uint32_t in = units_in(vm);

	for (unsigned int i = vm->memory.n_units; i && n; i--) {
		if (!(in >> (i - 1) & 1))
			continue;
		plug_ask(vm->memory.parts.plug, i - 1);
		n--;
	}
}

static int check(struct hospes_vm *vm, uint64_t bytes, struct err *err)
{
	const struct config_memory *config = &vm->config.memory;
	uint64_t unit = vm->memory.unit_bytes;

	if (!vm->memory.parts.plug)
		return err_set(err, -EOPNOTSUPP,
			       "memory: this machine has %" PRIu64 "M for good; start it with room "
			       "for more (--memory %" PRIu64 "M,max=SIZE; memory.max)",
			       config->size_bytes / MiB, config->size_bytes / MiB);
	if (bytes < config->size_bytes || bytes > config->max_bytes)
		return err_set(err, -EINVAL,
			       "memory: %" PRIu64 "M is not within %" PRIu64 "M, with which it was "
			       "started, and %" PRIu64 "M; for less there is a balloon, and for "
			       "more start the machine with a larger max (--memory SIZE,max=MAX; "
			       "memory.max)",
			       bytes / MiB, config->size_bytes / MiB, config->max_bytes / MiB);
	if (!is_aligned(bytes - config->size_bytes, unit)) {
		uint64_t below = config->size_bytes + align_down(bytes - config->size_bytes, unit);

		return err_set(err, -EINVAL,
			       "memory: %" PRIu64 " bytes: it comes and goes in units of %" PRIu64
			       "M; the nearest sizes are %" PRIu64 "M and %" PRIu64 "M",
			       bytes, unit / MiB, below / MiB, (below + unit) / MiB);
	}
	if (atomic_load(&vm->state) != HOSPES_RUNNING)
		return vm_wrong_state(vm, "change the memory", err);
	if (!plug_is_heard(vm->memory.parts.plug))
		return err_set(err, -EBUSY,
			       "memory: the guest does not listen for it; one that boots does "
			       "soon, one without ACPI never (Linux: "
			       "CONFIG_ACPI_HOTPLUG_MEMORY, and no acpi=off)");
	return 0;
}

int memory_set(struct hospes_vm *vm, uint64_t bytes, struct err *err)
{
	struct vm_memory *m = &vm->memory;
	int rc = check(vm, bytes, err);
	uint64_t now;

	vm_assert_own_thread(vm);
	if (rc)
		return rc;
	parts_begin(&m->parts);
	now = bytes_of(vm);
	if (bytes > now)
		rc = bring_in(vm, (unsigned int)((bytes - now) / m->unit_bytes), err);
	else
		ask_for(vm, (unsigned int)((now - bytes) / m->unit_bytes));
	if (rc)
		return rc;
	m->wanted_bytes = bytes;
	parts_wait(&m->parts);
	return 0;
}

/* --- what became of it --- */

/* A status of _OST (ACPI 6.5, 6.3.5). Those of a unit that came say no more than that it failed. */
static const char *refusal(uint8_t status, bool came)
{
	switch (came ? 0 : status) {
	case 0x80:
		return "it does not support that (Linux: "
		       "/sys/firmware/acpi/hotplug/memory/enabled is 0)";
	case 0x81:
		return "a program of it uses the memory";
	case 0x82:
		return "the memory is in use (Linux: by what cannot move; let it come online "
		       "as online_movable)";
	case 0x83:
		return "something depends on the memory";
	default:
		return "it failed (Linux: its log says why)";
	}
}

/* Why it is not as it was wanted, for the event; "": it is. */
static void explain(struct hospes_vm *vm, char *text, size_t bytes)
{
	const struct vm_memory *m = &vm->memory;
	const struct parts_answers a = parts_answers(&m->parts);
	uint64_t now = bytes_of(vm);
	bool paused = atomic_load(&vm->state) == HOSPES_PAUSED;

	text[0] = '\0';
	if (a.refused)
		snprintf(text, bytes,
			 "%" PRIu64 "M of %" PRIu64
			 "M wanted: the guest refuses (unit %u at 0x%" PRIx64
			 ", status 0x%02x of _OST): %s",
			 now / MiB, m->wanted_bytes / MiB, a.number, unit_gpa(vm, a.number),
			 a.status, refusal(a.status, now <= m->wanted_bytes));
	else if (a.silent)
		snprintf(text, bytes,
			 "%" PRIu64 "M of %" PRIu64 "M wanted: the guest has not answered for %u "
			 "units: %s",
			 now / MiB, m->wanted_bytes / MiB, a.silent,
			 paused ? "it is paused; resume the machine and try again"
				: "its log may say why; try again, or reset the machine, which "
				  "needs no answer");
	else if (m->parts.until_ns && now != m->wanted_bytes)
		snprintf(text, bytes,
			 "%" PRIu64 "M of %" PRIu64 "M wanted: the guest has given up other units; "
			 "try again",
			 now / MiB, m->wanted_bytes / MiB);
}

static void report(struct hospes_vm *vm, const char *text)
{
	struct vm_memory *m = &vm->memory;

	m->reported_bytes = bytes_of(vm);
	if (*text)
		log_warn(&vm->log, "memory", "%s", text);
	else
		log_info(&vm->log, "memory", "there are %" PRIu64 "M of %" PRIu64 "M",
			 m->reported_bytes / MiB, vm->config.memory.max_bytes / MiB);
	vm_emit(vm, HOSPES_EVENT_MEMORY, (int)(m->reported_bytes / MiB), text);
}

static bool differ(struct hospes_vm *vm)
{
	return bytes_of(vm) != vm->memory.reported_bytes;
}

/* --- as parts --- */

static const struct parts_ops ops = {follow, differ, explain, report};

int memory_create(struct hospes_vm *vm, struct err *err)
{
	struct vm_memory *m = &vm->memory;
	const struct plug_config plug = {
		.name = "memory",
		.port = PLATFORM_MEMORY_PORT,
		.max = m->n_units,
	};

	m->reported_bytes = m->wanted_bytes = vm->config.memory.size_bytes;
	return m->n_units ? parts_create(&m->parts, vm, &ops, &plug, err) : 0;
}

json_t *memory_status(struct hospes_vm *vm)
{
	const struct vm_memory *m = &vm->memory;
	json_t *ret = json_pack("{s:I, s:I}", "bytes", (json_int_t)gmem_ram_bytes(vm->gmem),
				"max_bytes", (json_int_t)vm->config.memory.max_bytes);

	if (m->parts.plug)
		json_object_set_new(ret, "unit_bytes", json_integer((json_int_t)m->unit_bytes));
	if (m->parts.until_ns)
		json_object_set_new(ret, "wanted_bytes", json_integer((json_int_t)m->wanted_bytes));
	return ret;
}
