// SPDX-License-Identifier: Apache-2.0
// The device on what it needs of the world: an endpoint's file, and memory slots of KVM.
#include <errno.h>

#include "passthrough/vfio_pci_impl.h"

static int host_map(void *opaque, uint64_t gpa, void *hva, uint64_t bytes, struct err *err)
{
	return arch_vm_map_host(opaque, gpa, hva, bytes, false, err);
}

static void host_unmap(void *opaque, uint64_t gpa)
{
	arch_vm_unmap_host(opaque, gpa);
}

int vfio_pci_create(struct device **ret, const struct device_env *env,
		    const struct vfio_pci_config *config, struct err *err)
{
	struct vfio_host host = {.map = host_map, .unmap = host_unmap, .opaque = config->arch};
	int fd = iommu_endpoint_device_fd(config->endpoint);
	struct vfio_file file;

	if (fd < 0)
		return err_set(err, -EINVAL, "%s: attached to no I/O address space", config->bdf);
	vfio_file_init(&file, fd);
	return vfio_pci_create_on(ret, env, config, &file, &host, err);
}
