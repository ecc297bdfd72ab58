// SPDX-License-Identifier: Apache-2.0
// What happens to passed-through devices while the guest runs: their errors, the host that wants one
// back, DMA faults. Callbacks only note what is to be done; vm_passthrough_act does it after the turn.
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "iommu/ledger.h"
#include "machine/passthrough.h"
#include "machine/vm.h"

static void tell(struct vm_passthrough *p, enum hospes_event_type type, const char *text)
{
	char line[400];

	snprintf(line, sizeof(line), "'%s' (%s): %s", p->config->id, p->name, text);
	if (type == HOSPES_EVENT_DEVICE_RESET)
		log_info(&p->vm->log, "passthrough", "%s", line);
	else
		log_warn(&p->vm->log, "passthrough", "%s", line);
	vm_emit(p->vm, type, (int)(p - p->vm->passthrough.items), line);
}

void vm_passthrough_event(void *opaque, struct device *dev, enum vfio_event event, const char *text)
{
	struct vm_passthrough *p = opaque;
	int on_error = p->config->on_error;

	(void)dev;
	switch (event) {
	case VFIO_EVENT_ERROR:
		tell(p, HOSPES_EVENT_DEVICE_ERROR, text);
		p->pause |= on_error == CONFIG_ON_ERROR_PAUSE;
		p->stop |= on_error == CONFIG_ON_ERROR_STOP;
		break;
	case VFIO_EVENT_REQUESTED:
		tell(p, HOSPES_EVENT_DEVICE_REQUESTED, text);
		p->stop |= on_error == CONFIG_ON_ERROR_STOP;
		p->remove = true;
		break;
	case VFIO_EVENT_GONE:
		tell(p, HOSPES_EVENT_DEVICE_GONE, text);
		p->stop |= on_error == CONFIG_ON_ERROR_STOP;
		p->remove = true;
		break;
	case VFIO_EVENT_RESET:
		tell(p, HOSPES_EVENT_DEVICE_RESET, text);
		break;
	}
}

void vm_passthrough_fault(void *opaque, const struct iommu_fault *fault)
{
	struct hospes_vm *vm = opaque;
	struct vm_passthroughs *all = &vm->passthrough;
	char history[120];

	for (unsigned int i = 0; i < all->n; i++) {
		struct vm_passthrough *p = &all->items[i];

		if (strcmp(p->found.bdf, fault->device) != 0)
			continue;
		p->faults++;
		history[0] = '\0';
		if (p->behind)
			vm_viommu_fault(p, fault, history, sizeof(history));
		else if (p->space)
			ioas_history(hw_domain_ioas(p->space->domain), fault->iova, history,
				     sizeof(history));
		snprintf(p->last_fault, sizeof(p->last_fault),
			 "DMA fault: %s at iova 0x%llx by %s: %s%s%s",
			 fault->write ? "write" : "read", (unsigned long long)fault->iova, p->name,
			 fault->reason, history[0] ? "; " : "", history);
		/* The guest decides how many there are. */
		log_guest(&vm->log, &p->fault_limit, "passthrough", "%s", p->last_fault);
		vm_emit(vm, HOSPES_EVENT_DMA_FAULT, (int)i, p->last_fault);
	}
}

/* As pulled out of its slot: the guest's driver reads all ones, then the port says that the slot is
 * empty. */
static void remove_device(struct vm_passthrough *p)
{
	struct hospes_vm *vm = p->vm;
	bool running = atomic_load(&vm->state) == HOSPES_RUNNING;

	if (!p->dev)
		return;
	if (running)
		vcpus_pause(vm->vcpus);
	for (unsigned int phase = 0; phase < 2 && running; phase++) {
		if (p->dev->ops->quiesce)
			p->dev->ops->quiesce(p->dev, phase);
	}
	list_remove(&p->dev->link);
	p->dev->ops->destroy(p->dev);
	p->dev = NULL;
	vm_passthrough_release(p);
	if (p->port)
		root_port_set_present(p->port, false);
	if (running)
		vcpus_resume(vm->vcpus);
	log_warn(&vm->log, "passthrough", "'%s' (%s): taken from the guest and released",
		 p->config->id, p->name);
	vm_emit(vm, HOSPES_EVENT_DEVICE_RELEASED, (int)(p - vm->passthrough.items), p->name);
}

void vm_passthrough_act(struct hospes_vm *vm)
{
	struct vm_passthroughs *all = &vm->passthrough;
	struct err err = ERR_INIT;

	for (unsigned int i = 0; i < all->n; i++) {
		struct vm_passthrough *p = &all->items[i];
		char text[128];

		if (p->stop) {
			snprintf(text, sizeof(text),
				 "passthrough '%s' (%s) failed, and on_error is stop",
				 p->config->id, p->name);
			log_error(&vm->log, "passthrough", "%s", text);
			vm_end(vm, HOSPES_OUTCOME_ERROR, text);
		}
		if (p->pause && vm_do_pause(vm, NULL, &err))
			log_warn(&vm->log, "passthrough", "%s", err.text);
		if (p->remove)
			remove_device(p);
		p->stop = p->pause = p->remove = false;
	}
}
