// SPDX-License-Identifier: Apache-2.0
// What happens to passed-through devices while the guest runs: their errors, the host that wants
// one back, DMA faults. Callbacks only note what is to be done; passthrough_act does it after the
// iteration.
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "iommu/ledger.h"
#include "machine/kind_passthrough.h"
#include "machine/vm.h"

/* Of what a guest can make its device do: so many at once, then one a second. */
static bool event_permitted(struct vm_passthrough *p)
{
	return budget_take(&p->event_budget, clock_ns(), NS_PER_S, 10 * NS_PER_S);
}

static void tell(struct vm_passthrough *p, enum hospes_event_type type, const char *text)
{
	char line[400];

	snprintf(line, sizeof(line), "'%s' (%s): %s", p->d.config->id, p->name, text);
	if (type == HOSPES_EVENT_DEVICE_RESET)
		log_info(&p->d.vm->log, "passthrough", "%s", line);
	else
		log_warn(&p->d.vm->log, "passthrough", "%s", line);
	vm_emit(p->d.vm, type, (int)p->d.index, line);
}

void passthrough_event(void *opaque, struct device *dev, enum vfio_event event, const char *text)
{
	struct vm_passthrough *p = opaque;
	int on_error = passthrough_config(p)->on_error;

	(void)dev;
	switch (event) {
	case VFIO_EVENT_ERROR:
		if (event_permitted(p))
			tell(p, HOSPES_EVENT_DEVICE_ERROR, text);
		p->pause |= on_error == VFIO_ON_ERROR_PAUSE;
		p->stop |= on_error == VFIO_ON_ERROR_STOP;
		break;
	case VFIO_EVENT_REQUESTED:
		tell(p, HOSPES_EVENT_DEVICE_REQUESTED, text);
		p->stop |= on_error == VFIO_ON_ERROR_STOP;
		p->remove = true;
		break;
	case VFIO_EVENT_GONE:
		tell(p, HOSPES_EVENT_DEVICE_GONE, text);
		p->stop |= on_error == VFIO_ON_ERROR_STOP;
		p->remove = true;
		break;
	case VFIO_EVENT_RESET:
		if (event_permitted(p))
			tell(p, HOSPES_EVENT_DEVICE_RESET, text);
		break;
	}
}

void passthrough_fault(void *opaque, const struct iommu_fault *fault)
{
	struct hospes_vm *vm = opaque;
	struct vm_passthrough *p = NULL;
	char history[120];

	while ((p = passthrough_next(vm, p))) {
		if (strcmp(p->found.bdf, fault->device) != 0)
			continue;
		p->faults++;
		history[0] = '\0';
		if (p->d.endpoint)
			vm_viommu_fault(&p->d, fault, history, sizeof(history));
		else if (p->space)
			ioas_history(hw_domain_ioas(p->space->domain), fault->iova, history,
				     sizeof(history));
		snprintf(p->last_fault, sizeof(p->last_fault),
			 "DMA fault: %s at iova 0x%llx by %s: %s%s%s",
			 fault->write ? "write" : "read", (unsigned long long)fault->iova, p->name,
			 fault->reason, history[0] ? "; " : "", history);
		/* The guest decides how many there are. */
		log_guest(&vm->log, &p->fault_limit, "passthrough", "%s", p->last_fault);
		if (event_permitted(p))
			vm_emit(vm, HOSPES_EVENT_DMA_FAULT, (int)p->d.index, p->last_fault);
	}
}

void passthrough_act(struct vm_device *d)
{
	struct vm_passthrough *p = passthrough_of(d);
	struct hospes_vm *vm = d->vm;
	struct err err = ERR_INIT;
	char text[128];

	if (p->stop) {
		snprintf(text, sizeof(text), "passthrough '%s' (%s) failed, and on_error is stop",
			 d->config->id, p->name);
		log_error(&vm->log, "passthrough", "%s", text);
		vm_end(vm, HOSPES_OUTCOME_ERROR, text);
	}
	if (p->pause && vm_do_pause(vm, NULL, &err))
		log_warn(&vm->log, "passthrough", "%s", err.text);
	p->stop = p->pause = false;
	if (p->remove && d->dev) {
		/* Later, where a vCPU is held in an exit, perhaps by this device. */
		if (vm_device_release(d))
			return;
		log_warn(&vm->log, "passthrough", "'%s' (%s): taken from the guest and released",
			 d->config->id, p->name);
		vm_emit(vm, HOSPES_EVENT_DEVICE_RELEASED, (int)d->index, p->name);
	}
	p->remove = false;
}
