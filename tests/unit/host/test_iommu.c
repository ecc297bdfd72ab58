/* SPDX-License-Identifier: Apache-2.0 */
/* What an IOMMU's registers and config space say about isolation. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "host/iommu.h"

static void put32(uint8_t *p, uint32_t v)
{
	for (unsigned int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

Test(host_iommu, legacy_mode_has_no_dirty_tracking_nesting_or_pasid)
{
	struct host_iommu iommu = {.name = "dmar0"};

	/* An emulated VT-d. */
	host_iommu_vtd(&iommu, 0xd2008c222f0606, 0xf00f4a);
	cr_assert_str_eq(iommu.kind, "VT-d");
	cr_assert_eq(iommu.address_bits, 48);
	cr_assert_eq(iommu.page_sizes, 4 * KiB | 2 * MiB | GiB);
	cr_assert(iommu.dirty == HOST_NO && iommu.nesting == HOST_NO && iommu.pasid == HOST_NO);
	cr_assert_eq(iommu.pasid_bits, 0);
}

Test(host_iommu, what_scalable_mode_can_is_not_known_until_bound)
{
	uint64_t ecap = 1ull << 43 | 1ull << 45 | 1ull << 40 | 1ull << 26 | 19ull << 35;
	struct host_iommu iommu = {.name = "dmar0"};

	host_iommu_vtd(&iommu, 0xd2008c222f0606, ecap);
	cr_assert(iommu.dirty == HOST_UNKNOWN && iommu.nesting == HOST_UNKNOWN &&
		  iommu.pasid == HOST_UNKNOWN);
	cr_assert_eq(iommu.pasid_bits, 20);
	host_iommu_vtd(&iommu, 0xd2008c222f0606, ecap & ~(1ull << 43));
	cr_assert_eq(iommu.nesting, HOST_NO);
}

Test(host_iommu, amd_features)
{
	struct host_iommu iommu = {.name = "ivhd0"};

	host_iommu_amd(&iommu, 1ull << 52 | 1ull << 4 | 15ull << 32);
	cr_assert_eq(iommu.address_bits, 48);
	cr_assert(iommu.dirty == HOST_UNKNOWN && iommu.nesting == HOST_UNKNOWN);
	cr_assert_eq(iommu.pasid_bits, 16);
	host_iommu_amd(&iommu, 0);
	cr_assert(iommu.dirty == HOST_NO && iommu.pasid == HOST_NO);
}

Test(host_acs, it_is_found_behind_others_and_counts_when_all_of_it_is_on)
{
	uint8_t config[4096] = {0};
	bool on;

	put32(config + 0x100, 0x0001 | 1 << 16 | 0x148u << 20); /* AER */
	put32(config + 0x148, 0x000d | 1 << 16);
	put32(config + 0x14c, 0x001f | 0x001du << 16);
	cr_assert(host_config_acs(config, sizeof(config), &on));
	cr_assert(on);
	put32(config + 0x14c, 0x001f | 0x000du << 16); /* upstream forwarding is off */
	cr_assert(host_config_acs(config, sizeof(config), &on));
	cr_assert_not(on);
}

Test(host_acs, a_function_without_extended_space_has_none)
{
	uint8_t config[4096] = {0};
	bool on;

	cr_assert_not(host_config_acs(config, sizeof(config), &on));
	cr_assert_not(host_config_acs(config, 256, &on));
	memset(config, 0xff, sizeof(config));
	cr_assert_not(host_config_acs(config, sizeof(config), &on));
}

Test(host_acs, a_loop_ends)
{
	uint8_t config[4096] = {0};
	bool on;

	put32(config + 0x100, 0x0001 | 1 << 16 | 0x100u << 20);
	cr_assert_not(host_config_acs(config, sizeof(config), &on));
	put32(config + 0x100, 0x0001 | 1 << 16 | 0xffcu << 20); /* cut by the end */
	put32(config + 0xffc, 0x000d | 1 << 16);
	cr_assert_not(host_config_acs(config, sizeof(config), &on));
}

Test(host_iommu, the_machine_s_own_are_listed)
{
	struct err err = ERR_INIT;
	struct host_iommu *iommus;
	unsigned int n;

	cr_assert_eq(host_iommu_list(&iommus, &n, &err), 0, "%s", err.text);
	for (unsigned int i = 0; i < n; i++)
		cr_expect(iommus[i].name[0] && iommus[i].kind);
	free(iommus);
}

Test(host_isolation, a_device_without_a_group_is_not_translated)
{
	struct host_device *devices;
	unsigned int n;
	char why[160];

	if (host_list(&devices, &n, NULL) < 0)
		cr_skip_test("no PCI here");
	for (unsigned int i = 0; i < n; i++) {
		enum host_isolation verdict = host_isolation_of(&devices[i], why, sizeof(why));

		cr_expect_eq(verdict == HOST_NOT_TRANSLATED, devices[i].group < 0);
		cr_expect(why[0]);
	}
	free(devices);
}
