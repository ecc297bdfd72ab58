// SPDX-License-Identifier: Apache-2.0
// What a guest starts with: its kernel, its tables, and where its processors are.
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/thread.h"
#include "firmware/acpi.h"
#include "firmware/tables.h"
#include "machine/cmdline.h"
#include "machine/kind_console.h"
#include "machine/open.h"
#include "machine/vm.h"

int vm_open_kernel(struct hospes_vm *vm, struct err *err)
{
	const struct config_kernel *kernel = &vm->config.kernel;
	cleanup_free char *cache_dir = NULL;
	cleanup_fd int kernel_fd = -1;
	cleanup_fd int initrd_fd = -1;
	struct kernel_config config;
	const char *firmware = vm->config.firmware;
	const char *path = firmware ? firmware : kernel->path;
	const char *trouble = firmware ? NULL : cmdline_trouble(kernel->cmdline);
	struct kernel_info info;
	int rc;

	if (trouble)
		log_warn(&vm->log, "kernel", "the command line has %s", trouble);
	kernel_fd = open_boot_file(firmware ? "firmware" : "kernel", path, err);
	if (kernel_fd < 0)
		return kernel_fd;
	if (kernel->initrd) {
		initrd_fd = open_boot_file("initrd", kernel->initrd, err);
		if (initrd_fd < 0)
			return initrd_fd;
	}
	rc = open_cache_dir(kernel, &cache_dir, err);
	if (rc)
		return rc;
	config = (struct kernel_config){
		.log = &vm->log,
		.path = path,
		.firmware = firmware != NULL,
		.kernel_fd = kernel_fd,
		.initrd_fd = initrd_fd,
		.initrd_path = kernel->initrd,
		.cmdline = kernel->cmdline,
		.kaslr = (enum kaslr_mode)kernel->kaslr,
		.cache_dir = cache_dir,
		.used_memory = vm->snapshot.present || vm->snapshot.arrives,
	};
	rc = kernel_open(&vm->kernel, &config, err);
	if (rc)
		return rc;
	kernel_describe(vm->kernel, &info);
	log_info(&vm->log, "kernel", "%s: %s, %s%s, entered by %s%s", path, info.format,
		 info.compression, info.cached ? " (unpacked before)" : "", info.protocol,
		 info.kaslr ? ", randomised" : "");
	if (vm_ecam_only(vm))
		log_debug(&vm->log, "kernel", "PCI config space by ECAM alone");
	return 0;
}

bool vm_ecam_only(const struct hospes_vm *vm)
{
	enum config_ports ports = (enum config_ports)vm->config.pci.config_ports;
	struct kernel_info info;

	if (ports != CONFIG_PORTS_AUTO)
		return ports == CONFIG_PORTS_OFF;
	kernel_describe(vm->kernel, &info);
	return info.ecam && !cmdline_forbids_ecam(vm->config.kernel.cmdline);
}

static void load(struct hospes_vm *vm)
{
	struct vm_loading *l = &vm->loading;
	struct kernel_tables tables;

	l->err = (struct err)ERR_INIT;
	acpi_places(&tables);
	l->result = kernel_load(vm->kernel, vm->gmem, &vm->platform, &tables, &l->entry, &l->err);
}

static void *loading_thread(void *opaque)
{
	load(opaque);
	return NULL;
}

void vm_start_loading(struct hospes_vm *vm)
{
	struct vm_loading *l = &vm->loading;

	/* Unlimited: it ends before the guest begins, and mends an entry of the kernel cache. */
	l->running = !thread_start(&l->thread, THREAD_LOADER, 0, NULL, loading_thread, vm);
}

void vm_stop_loading(struct hospes_vm *vm)
{
	if (vm->loading.running)
		pthread_join(vm->loading.thread, NULL);
	vm->loading.running = false;
}

/* By the thread, at the first boot; here at each reset, or where there could be no thread. */
static int loaded(struct hospes_vm *vm, struct arch_entry *entry, struct err *err)
{
	struct vm_loading *l = &vm->loading;

	if (l->running)
		vm_stop_loading(vm);
	else
		load(vm);
	*entry = l->entry;
	return l->result ? err_set(err, l->result, "%s", l->err.text) : 0;
}

/* Instead of a kernel and its tables, which are in memory already. */
static int restore(struct hospes_vm *vm, struct err *err)
{
	int rc = pci_root_assign(vm->pci, err);

	kernel_seal(vm->kernel);
	if (rc)
		return rc;
	vm_quiesce_devices(vm);
	return vm->snapshot.present ? snapshot_load(vm, err) : 0; /* else when it has come */
}

int vm_prepare_boot(struct hospes_vm *vm, struct err *err)
{
	bool serial = config_has_serial(&vm->config);
	struct acpi_viommu viommu = {0};
	struct arch_entry entry;
	struct acpi_config acpi;
	int rc;

	vm_assert_own_thread(vm);
	if ((vm->snapshot.present || vm->snapshot.arrives) && !vm->snapshot.loaded)
		return restore(vm, err);
	acpi = (struct acpi_config){
		.platform = &vm->platform,
		.topology = &vm->topology,
		.pm_port = PLATFORM_PM_PORT,
		.reset_port = PLATFORM_RESET_PORT,
		.reset_value = PLATFORM_RESET_VALUE,
		.s5_type = PLATFORM_S5_TYPE,
		.serial_port = serial ? PLATFORM_SERIAL_PORT : 0,
		.serial_gsi = PLATFORM_SERIAL_GSI,
		.panic_port = PLATFORM_PANIC_PORT,
		.rtc_gsi = PLATFORM_RTC_GSI,
		.ecam_only = vm_ecam_only(vm),
		.serial = vm->config.smbios.serial,
		.manufacturer = vm->config.smbios.manufacturer,
		.product = vm->config.smbios.product,
		.version = vm->config.smbios.version,
		.oem_strings = (const char *const *)vm->credentials.text,
		.n_oem_strings = vm->credentials.n,
	};
	cpus_describe(vm, &acpi);
	memory_describe(vm, &acpi);
	memcpy(acpi.uuid, vm->config.uuid.byte, sizeof(acpi.uuid));
	rc = pci_root_assign(vm->pci, err);
	vm_viommu_reset(vm);
	if (vm->viommu && !rc) {
		rc = vm_viommu_describe(vm, &viommu, err);
		acpi.viommu = &viommu;
	}
	acpi.pci_last_bus = pci_root_last_bus(vm->pci);
	if (!rc)
		rc = tables_build(vm->gmem, &acpi, vm->kernel, err);
	free((void *)viommu.endpoints);
	if (!rc)
		rc = loaded(vm, &entry, err);
	kernel_seal(vm->kernel);
	for (unsigned int i = 0; i < vm->config.cpus.max && !rc; i++)
		rc = arch_vcpu_reset(vcpus_get(vm->vcpus, i), i ? NULL : &entry, err);
	return rc;
}
