// SPDX-License-Identifier: Apache-2.0
// Devices that every machine has, and spare root ports; and what the document's devices share.
#include "machine/cpus.h"
#include "machine/hotplug.h"
#include "machine/vm.h"
#include "platform/platform.h"

struct device_env vm_device_env(struct hospes_vm *vm)
{
	return (struct device_env){
		.log = &vm->log,
		.mmio = vm->mmio,
		.pio = vm->pio,
		.irq = vm->irq,
		.loop = vm->loop,
		.dma = vm->dma,
	};
}

void vm_adopt(struct hospes_vm *vm, struct device *dev)
{
	vm_assert_own_thread(vm);
	/* The virtual IOMMU's stays last: devices are made quiet in this order, and its requests
	 * wait for the others. */
	list_append(vm->viommu_dev ? &vm->viommu_dev->link : &vm->plugged, &dev->link);
}

int vm_create_platform(struct hospes_vm *vm, struct err *err)
{
	const struct device_env env = vm_device_env(vm);
	struct device *dev;
	int rc;

	vm->sink = (struct platform_sink){.event = vm_platform_event, .opaque = vm};
	rc = rtc_create(&dev, &env, err);
	if (rc)
		return rc;
	vm_adopt(vm, dev);
	rc = pm_create(&vm->pm, &env, &vm->sink, vm->config.firmware != NULL, err);
	if (rc)
		return rc;
	vm_adopt(vm, vm->pm);
	rc = reset_create(&dev, &env, vm->pci, &vm->sink, err);
	if (rc)
		return rc;
	vm_adopt(vm, dev);
	rc = pvpanic_create(&dev, &env, &vm->sink, err);
	if (rc)
		return rc;
	vm_adopt(vm, dev);
	rc = cpus_create(vm, err);
	if (!rc)
		rc = memory_create(vm, err);
	return rc ? rc : ports_create_spare(vm, err);
}
