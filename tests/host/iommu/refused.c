// SPDX-License-Identifier: Apache-2.0
// A device that no IOMMU stands before, or a host that lacks something:   refused KIND PATH NAME
//
// Opens PATH, gives it to an address space of that kind, and prints the error; 0 when it is
// refused.
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "real.h"

int main(int argc, char **argv)
{
	struct iommu_config config = {.iommufd = -1};
	struct iommu_endpoint_config device = {.fd = -1};
	struct iommu_endpoint *endpoint;
	struct iommu *iommu;

	if (argc != 4)
		return 2;
	while (strcmp(iommu_kind_name(config.kind), argv[1]) != 0 && config.kind < IOMMU_TYPE1)
		config.kind++;
	device.name = argv[3];
	config.device = argv[3];
	if (iommu_create(&iommu, &config, &err)) {
		printf("%s\n", err.text);
		return 0;
	}
	printf("%s\n", iommu_reason(iommu));
	device.fd = open(argv[2], O_RDWR | O_CLOEXEC);
	need(device.fd >= 0, "%s can be opened", argv[2]);
	if (!iommu_endpoint_create(&endpoint, iommu, &device, &err)) {
		printf("taken\n");
		return 1;
	}
	printf("%s\n", err.text);
	return 0;
}
