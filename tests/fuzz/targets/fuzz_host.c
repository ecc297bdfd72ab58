// SPDX-License-Identifier: Apache-2.0
// Config space and sysfs text of a host's device. Oracle: nothing behind the end is read (the input
// is a copy of exact size), values stay in what the specifications allow, and what is shown of a
// list does not depend on how much room there was for it.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "base/num.h"
#include "iommu/reserved.h"
#include "host/iommu.h"
#include "host/parse.h"

static void config_space(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);
	struct host_config got;
	bool on;

	check(copy != NULL);
	memcpy(copy, data, size);
	host_config_parse(copy, (unsigned int)size, &got);
	check(got.msix <= 2048 && got.msi <= 32);
	check(!(got.resets & ~(unsigned int)(HOST_RESET_FLR | HOST_RESET_AF_FLR | HOST_RESET_PM)));
	check(!host_config_acs(copy, (unsigned int)size, &on) || size > 256);
	check(size >= 64 || !(got.pin || got.express || got.msi || got.msix || got.resets));
	free(copy);
}

static void text(const uint8_t *data, size_t size)
{
	struct iommu_reserved some[2], all[64];
	struct host_bar bars[HOST_BARS];
	char bdf[HOST_BDF_BYTES], again[HOST_BDF_BYTES];
	char *copy = malloc(size + 1);
	unsigned int n;

	check(copy != NULL);
	memcpy(copy, data, size);
	copy[size] = '\0';
	host_parse_resource(copy, bars);
	for (unsigned int i = 0; i < HOST_BARS; i++)
		check(bars[i].size_bytes || !(bars[i].io || bars[i].mem64 || bars[i].prefetchable));
	n = iommu_reserved_parse(copy, some, ARRAY_SIZE(some));
	check(iommu_reserved_parse(copy, all, ARRAY_SIZE(all)) == n);
	for (unsigned int i = 0; i < MIN(n, (unsigned int)ARRAY_SIZE(all)); i++) {
		check(all[i].first <= all[i].last && all[i].type[0]);
		if (i < ARRAY_SIZE(some))
			check(some[i].first == all[i].first && some[i].last == all[i].last);
	}
	host_parse_resets(copy);
	if (host_parse_bdf(copy, bdf)) {
		check(host_parse_bdf(bdf, again) && strcmp(bdf, again) == 0);
		check(!strchr(bdf, '/') && strlen(bdf) >= strlen("0000:00:00.0"));
	}
	free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	config_space(data, size);
	text(data, size);
	return 0;
}
