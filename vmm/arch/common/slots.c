// SPDX-License-Identifier: Apache-2.0
// Memory slots of KVM: guest memory, as a listener of its map, and memory of devices (BARs), which
// comes and goes as the guest programs them.
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/fd.h"
#include "common/common.h"

enum { PAGE_BYTES = 4096 };

/* Lock held. bytes 0 takes the slot back. */
static int set_slot(struct arch_common *c, uint32_t slot, uint64_t gpa, void *hva, uint64_t bytes,
		    uint32_t flags)
{
	struct kvm_userspace_memory_region m = {
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = gpa,
		.memory_size = bytes,
		.userspace_addr = (uintptr_t)hva,
	};

	return arch_vm_call(c, KVM_SET_USER_MEMORY_REGION, &m);
}

static int slot_add(struct arch_common *c, const char *what, uint64_t gpa, void *hva,
		    uint64_t bytes, uint32_t flags, bool ram, struct err *err)
{
	uint32_t slot = 0;
	int rc;

	pthread_mutex_lock(&c->slot_lock);
	while (slot < c->max_slots && c->slot_used[slot])
		slot++;
	if (slot == c->max_slots) {
		rc = err_set(err, -ENOSPC, "%s: KVM has only %u memory slots", what, c->max_slots);
		goto out;
	}
	rc = set_slot(c, slot, gpa, hva, bytes, flags);
	if (rc) {
		err_set(err, rc, "%s: KVM slot %u for 0x%llx + 0x%llx: %s", what, slot,
			(unsigned long long)gpa, (unsigned long long)bytes,
			rc == -EEXIST ? "there is memory already" : err_name(rc));
		goto out;
	}
	c->slot_used[slot] = 1;
	c->slots[c->n_slots++] = (struct memslot){gpa, bytes, hva, slot, ram};
out:
	pthread_mutex_unlock(&c->slot_lock);
	return rc;
}

static void slot_del(struct arch_common *c, uint64_t gpa)
{
	unsigned int i = 0;
	int rc;

	pthread_mutex_lock(&c->slot_lock);
	while (i < c->n_slots && c->slots[i].gpa != gpa)
		i++;
	assert(i < c->n_slots);
	rc = set_slot(c, c->slots[i].slot, gpa, NULL, 0, 0);
	/* Deleting a slot that exists fails for want of memory only. Its number is lost then: KVM
	 * still has it. */
	if (rc)
		log_error(c->log, "kvm", "cannot take slot %u (0x%llx + 0x%llx) back: %s",
			  c->slots[i].slot, (unsigned long long)gpa,
			  (unsigned long long)c->slots[i].bytes, err_name(rc));
	else
		c->slot_used[c->slots[i].slot] = 0;
	c->slots[i] = c->slots[--c->n_slots];
	pthread_mutex_unlock(&c->slot_lock);
}

static int region_map(void *opaque, const struct gmem_region *region, struct err *err)
{
	bool readonly = region->flags & GMEM_READONLY;
	int rc = slot_add(opaque, region->name, region->gpa, region->hva, region->size_bytes,
			  readonly ? KVM_MEM_READONLY : 0, !readonly, err);

	return rc ? err_prefix(err, "memory") : 0;
}

static void region_unmap(void *opaque, const struct gmem_region *region)
{
	slot_del(opaque, region->gpa);
}

static const struct gmem_listener_ops slot_ops = {
	.name = "kvm",
	.map = region_map,
	.unmap = region_unmap,
};

int arch_slots_listen(struct arch_common *c, struct err *err)
{
	int n = arch_kvm_has(&c->kvm, KVM_CAP_NR_MEMSLOTS), rc;

	c->max_slots = n > 0 ? (unsigned int)n : 32;
	c->slots = calloc(c->max_slots, sizeof(*c->slots));
	c->slot_used = calloc(c->max_slots, 1);
	if (!c->slots || !c->slot_used)
		return err_set(err, -ENOMEM, "no memory for %u memory slots", c->max_slots);
	c->listener.ops = &slot_ops;
	c->listener.opaque = c;
	rc = gmem_listen(c->gmem, &c->listener, err);
	c->listening = rc == 0;
	return rc;
}

int arch_vm_map_host(struct arch_vm *vm, uint64_t gpa, void *hva, uint64_t bytes, bool readonly,
		     struct err *err)
{
	return slot_add(arch_common(vm), "device memory", gpa, hva, bytes,
			readonly ? KVM_MEM_READONLY : 0, false, err);
}

void arch_vm_unmap_host(struct arch_vm *vm, uint64_t gpa)
{
	slot_del(arch_common(vm), gpa);
}

/* --- what vCPUs write --- */

int arch_vm_dirty_track(struct arch_vm *vm, bool on, struct err *err)
{
	struct arch_common *c = arch_common(vm);
	int rc = 0;

	pthread_mutex_lock(&c->slot_lock);
	for (unsigned int i = 0; i < c->n_slots && !rc; i++) {
		const struct memslot *s = &c->slots[i];

		if (s->ram)
			rc = set_slot(c, s->slot, s->gpa, s->hva, s->bytes,
				      on ? KVM_MEM_LOG_DIRTY_PAGES : 0);
	}
	pthread_mutex_unlock(&c->slot_lock);
	return rc ? err_set(err, rc, "kvm: cannot log what vCPUs write: %s", err_name(rc)) : 0;
}

/* A run of ones at a time. */
static void mark_all(const uint64_t *bits, uint64_t pages, uint64_t gpa, struct gmem_dirty *to)
{
	for (uint64_t page = 0, from; page < pages;) {
		if (!bits[page / 64]) {
			page = (page / 64 + 1) * 64;
			continue;
		}
		from = page;
		while (page < pages && bits[page / 64] >> page % 64 & 1)
			page++;
		if (page > from)
			to->mark(to, gpa + from * PAGE_BYTES, (page - from) * PAGE_BYTES);
		else
			page++;
	}
}

static int take_slot(struct arch_common *c, const struct memslot *s, struct gmem_dirty *to)
{
	uint64_t pages = s->bytes / PAGE_BYTES;
	uint64_t *bits = calloc((pages + 63) / 64, sizeof(*bits));
	struct kvm_dirty_log log = {.slot = s->slot, .dirty_bitmap = bits};
	int rc = bits ? arch_vm_call(c, KVM_GET_DIRTY_LOG, &log) : -ENOMEM;

	if (rc >= 0)
		mark_all(bits, pages, s->gpa, to);
	free(bits);
	return rc < 0 ? rc : 0;
}

int arch_vm_dirty_take(struct arch_vm *vm, struct gmem_dirty *to, struct err *err)
{
	struct arch_common *c = arch_common(vm);
	int rc = 0;

	pthread_mutex_lock(&c->slot_lock);
	for (unsigned int i = 0; i < c->n_slots && !rc; i++) {
		if (c->slots[i].ram)
			rc = take_slot(c, &c->slots[i], to);
	}
	pthread_mutex_unlock(&c->slot_lock);
	return rc ? err_set(err, rc, "kvm: cannot read what vCPUs have written: %s", err_name(rc))
		  : 0;
}
