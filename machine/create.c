// SPDX-License-Identifier: Apache-2.0
// Building a machine, in the order in which its parts need each other, and taking it apart.
#include <errno.h>
#include <stdlib.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/num.h"
#include "machine/lacking.h"
#include "machine/open.h"
#include "machine/vm.h"
#include "migration/dirty.h"

static int build_loops(struct hospes_vm *vm, struct err *err)
{
	struct loop_config config = {.log = &vm->log, .name = "main"};
	int rc = loop_create(&vm->loop, &config, err);

	for (unsigned int i = 0; i < vm->config.io_threads && !rc; i++) {
		config.name = "io";
		rc = loop_create(&vm->io[i].loop, &config, err);
		vm->io_loops[i] = vm->io[i].loop;
	}
	if (vm->config.viommu.enabled && !rc) {
		config.name = "viommu";
		rc = loop_create(&vm->viommu_io.loop, &config, err);
	}
	vm->n_io_loops = vm->config.io_threads;
	if (!vm->n_io_loops) {
		vm->io_loops[0] = vm->loop;
		vm->n_io_loops = 1;
	}
	return rc;
}

/* By which edk2's CLOUDHV.fd knows a machine that has no devices of QEMU's (CloudHv.h). */
enum { FIRMWARE_HOST_DEVICE = 0x0d57 };

static int build_platform(struct hospes_vm *vm, struct err *err)
{
	struct arch_vm_config arch;
	struct pci_root_config pci;
	int rc = bus_create(&vm->mmio, BUS_MMIO, err);

	if (!rc)
		rc = bus_create(&vm->pio, BUS_PIO, err);
	if (rc)
		return rc;
	arch = (struct arch_vm_config){
		.log = &vm->log,
		.kvm = vm->kvm,
		.topology = vm->topology,
		.gmem = vm->gmem,
		.mmio = vm->mmio,
		.pio = vm->pio,
	};
	rc = arch_vm_create(&vm->arch, &arch, err);
	if (!rc)
		rc = irq_chip_create(&vm->irq, arch_irq_ops(), vm->arch, err);
	if (!rc)
		rc = irq_chip_start(vm->irq, err);
	if (rc)
		return rc;
	pci = (struct pci_root_config){
		.log = &vm->log,
		.mmio = vm->mmio,
		.pio = vm->pio,
		.irq = vm->irq,
		.windows = vm->platform.pci,
		.ecam_only = vm_ecam_only(vm),
		.host_device = vm->config.firmware ? FIRMWARE_HOST_DEVICE : 0,
		.intx_gsi = vm->platform.intx_gsi,
	};
	rc = pci_root_create(&vm->pci, &pci, err);
	return rc ? rc : dma_space_create(&vm->dma, vm->gmem, NULL, NULL, err);
}

static int build_vcpus(struct hospes_vm *vm, struct err *err)
{
	const struct config_cpus *cpus = &vm->config.cpus;
	cleanup_free cpu_set_t *pin = NULL;
	struct vcpus_config config = {
		.log = &vm->log,
		.vm = vm->arch,
		.count = cpus->max,
		.mmio = vm->mmio,
		.pio = vm->pio,
		.event = vm_vcpu_event,
		.opaque = vm,
		.limits = sandbox_limits(vm->sandbox),
	};

	if (cpus->pin.n) {
		pin = calloc(cpus->max, sizeof(*pin));
		if (!pin)
			return err_set(err, -ENOMEM, "no memory for %u vCPUs", cpus->max);
		for (unsigned int i = 0; i < cpus->max; i++) {
			if (cpus->pin.cpu[i] >= CPU_SETSIZE)
				return err_set(err, -EINVAL, "cpus.pin: there is no host CPU %u",
					       cpus->pin.cpu[i]);
			CPU_SET(cpus->pin.cpu[i], &pin[i]);
		}
		config.pin = pin;
	}
	return vcpus_create(&vm->vcpus, &config, err);
}

int vm_build(struct hospes_vm *vm, struct err *err)
{
	const struct config_cpus *cpus = &vm->config.cpus;
	struct vm_layout layout = {.arch = {.memory_bytes = 0}};
	int rc;

	vm->topology = (struct arch_topology){
		.cpus = cpus->max,
		.sockets = cpus->sockets,
		.cores = cpus->cores,
		.threads = cpus->threads,
	};
	memory_layout(vm, &layout.arch);
	rc = lacking_check(&vm->config, err);
	if (!rc)
		rc = sandbox_create(&vm->sandbox, (enum sandbox_mode)vm->config.sandbox, &vm->log,
				    err);
	if (!rc)
		rc = open_kvm(&vm->kvm, vm->options.kvm_fd, err);
	if (!rc)
		rc = snapshot_open(vm, err);
	if (!rc)
		rc = vm_open_kernel(vm, err);
	if (!rc)
		rc = credentials_open(&vm->config.credentials, &vm->credentials, err);
	if (!rc)
		rc = vm_open_devices(vm, &layout, err);
	if (!rc)
		rc = arch_platform_init(&vm->platform, &vm->kvm, &layout.arch, err);
	vm_layout_done(&layout);
	if (!rc)
		rc = build_loops(vm, err);
	if (!rc)
		rc = memory_build(vm, err);
	if (!rc)
		rc = snapshot_map(vm, err);
	if (!rc)
		rc = vm_arrival_create(vm, err);
	if (!rc && !vm->snapshot.present && !vm->snapshot.arrives)
		vm_start_loading(vm);
	if (!rc)
		rc = build_platform(vm, err);
	if (!rc)
		rc = vm_create_platform(vm, err);
	if (!rc)
		rc = vm_viommu_create(vm, err);
	if (!rc)
		rc = vm_plug_devices(vm, err);
	/* Last: its requests wait for the others. */
	if (!rc)
		rc = vm_viommu_plug(vm, err);
	if (!rc)
		rc = build_vcpus(vm, err);
	if (!rc)
		rc = vm_debug_create(vm, err);
	return rc ? rc : vm_prepare_boot(vm, err);
}

void vm_unbuild(struct hospes_vm *vm)
{
	vm_stop_loading(vm);
	vm_debug_destroy(vm);
	vm_dump_destroy(vm);
	vm_migrate_destroy(vm);
	vm_arrival_destroy(vm);
	vm_end_vcpus(vm);
	vm_stop_io_threads(vm);
	vm_remove_devices(vm);
	vm_viommu_destroy(vm);
	dma_space_destroy(vm->dma);
	pci_root_destroy(vm->pci);
	irq_chip_destroy(vm->irq);
	arch_vm_destroy(vm->arch);
	bus_destroy(vm->pio);
	bus_destroy(vm->mmio);
	gmem_destroy(vm->gmem);
	dirty_destroy(vm->dirty);
	snapshot_done(vm);
	kernel_close(vm->kernel);
	credentials_done(&vm->credentials);
	for (size_t i = 0; i < ARRAY_SIZE(vm->io); i++)
		loop_destroy(vm->io[i].loop);
	loop_destroy(vm->viommu_io.loop);
	vm_shutdown_done(vm);
	vm_lifecycle_done(vm);
	loop_destroy(vm->loop);
	fd_close(&vm->kvm.fd);
	sandbox_destroy(vm->sandbox);
}
