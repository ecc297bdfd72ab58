// SPDX-License-Identifier: Apache-2.0
// Reserved ranges: the parser of sysfs.
#include "iommu/reserved.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"

unsigned int iommu_reserved_parse(const char *text, struct iommu_reserved *ranges, unsigned int max)
{
	unsigned int n = 0;

	while (*text) {
		size_t bytes = strcspn(text, "\n");
		struct iommu_reserved range;
		char line[120];

		snprintf(line, sizeof(line), "%.*s", (int)MIN(bytes, sizeof(line)), text);
		if (sscanf(line, "%" SCNx64 " %" SCNx64 " %19s", &range.first, &range.last,
			   range.type) == 3 &&
		    range.last >= range.first) {
			if (n < max)
				ranges[n] = range;
			n++;
		}
		text += bytes + (text[bytes] == '\n');
	}
	return n;
}

int iommu_reserved_read(const char *device, struct iommu_reserved *ranges, unsigned int max)
{
	char path[160], text[4097]; /* a sysfs file is a page at most */
	cleanup_fd int fd = -1;
	ssize_t n;

	if (!device || strchr(device, '/'))
		return -EINVAL;
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group/reserved_regions",
		 device);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, text, sizeof(text) - 1);
	if (n < 0)
		return -errno;
	text[n] = '\0';
	return (int)iommu_reserved_parse(text, ranges, max);
}

bool iommu_reserved_blocks(const struct iommu_reserved *range)
{
	return strcmp(range->type, "direct-relaxable") != 0;
}

const char *iommu_reserved_whose(const struct iommu_reserved *range)
{
	if (!strcmp(range->type, "msi"))
		return "the window of message-signalled interrupts";
	if (!strncmp(range->type, "direct", 6))
		return "memory that the firmware keeps for the device (RMRR)";
	return "a range that the platform reserves";
}
