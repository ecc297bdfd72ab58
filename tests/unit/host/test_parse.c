/* SPDX-License-Identifier: Apache-2.0 */
/* What sysfs says about PCI devices, from text and bytes. */
#include <criterion/criterion.h>
#include <string.h>

#include "host/parse.h"

Test(host_parse, an_address_is_made_canonical)
{
	char bdf[HOST_BDF_BYTES];

	cr_assert(host_parse_bdf("01:10.0", bdf));
	cr_assert_str_eq(bdf, "0000:01:10.0");
	cr_assert(host_parse_bdf("0000:AB:1f.7", bdf));
	cr_assert_str_eq(bdf, "0000:ab:1f.7");
	cr_assert(host_parse_bdf("10000:e1:00.0", bdf)); /* behind a VMD */
	cr_assert_str_eq(bdf, "10000:e1:00.0");
}

Test(host_parse, what_is_no_address_is_refused)
{
	static const char *const bad[] = {
		"",          "01",          "01:10",         "01:20.0",         "01:10.8",
		"01:10.0 ",  "0000:01:10",  ":01:10.0",      "0000::10.0",      "0000:01:10.0x",
		"g1:10.0",   "001:10.0",    "0000:001:10.0", "1234567:01:10.0", "-1:10.0",
		"../../../", "0000:01:10.", "0x00:01:10.0",  "01:1.00",         "0:0:0:0.0",
	};
	char bdf[HOST_BDF_BYTES];

	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_expect_not(host_parse_bdf(bad[i], bdf), "'%s'", bad[i]);
}

Test(host_parse, longer_domains_come_after_shorter)
{
	cr_assert_lt(host_parse_compare("0000:ff:1f.7", "10000:00:00.0"), 0);
	cr_assert_lt(host_parse_compare("0000:01:10.0", "0000:01:10.1"), 0);
	cr_assert_eq(host_parse_compare("0000:01:10.0", "0000:01:10.0"), 0);
}

Test(host_parse, bars_have_their_size_and_kind)
{
	struct host_bar bars[HOST_BARS];

	host_parse_resource("0x00000000febc0000 0x00000000febdffff 0x0000000000040200\n"
			    "0x000000000000c000 0x000000000000c01f 0x0000000000040101\n"
			    "0x0000001000000000 0x00000013ffffffff 0x000000000014220c\n"
			    "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
			    "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
			    "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
			    "0x00000000feb80000 0x00000000febbffff 0x0000000000046200\n"
			    "0x00000000feb00000 0x00000000febfffff 0x0000000000140204\n",
			    bars);
	cr_assert_eq(bars[0].size_bytes, 0x20000);
	cr_assert_not(bars[0].io || bars[0].mem64 || bars[0].prefetchable);
	cr_assert_eq(bars[1].size_bytes, 32);
	cr_assert(bars[1].io);
	cr_assert_eq(bars[2].size_bytes, 16ull << 30);
	cr_assert(bars[2].mem64 && bars[2].prefetchable);
	cr_assert_eq(bars[3].size_bytes, 0);
	cr_assert_eq(bars[6].size_bytes, 0x40000); /* the ROM; the eighth line is an SR-IOV BAR */
}

Test(host_parse, damaged_resource_lines_count_as_none)
{
	struct host_bar bars[HOST_BARS];

	host_parse_resource("nonsense\n0x10\n0x2000 0x1000 0x200\n"
			    "0x0 0xffffffffffffffff 0x200\n0x1000 0x1fff 0x200",
			    bars);
	for (unsigned int i = 0; i < 4; i++)
		cr_expect_eq(bars[i].size_bytes, 0, "BAR %u", i);
	cr_assert_eq(bars[4].size_bytes, 0x1000);
}

Test(host_parse, reset_methods_are_whole_words)
{
	cr_assert_eq(host_parse_resets("flr bus"), HOST_RESET_FLR | HOST_RESET_BUS);
	cr_assert_eq(host_parse_resets("device_specific acpi\n"), HOST_RESET_DEVICE);
	cr_assert_eq(host_parse_resets("af_flr pm"), HOST_RESET_AF_FLR | HOST_RESET_PM);
	cr_assert_eq(host_parse_resets("flrx bu"), 0);
	cr_assert_eq(host_parse_resets(""), 0);
}

Test(host_parse, vtd_translates_the_lesser_of_depth_and_width)
{
	cr_assert_eq(host_parse_vtd_bits(0x00d2008c22260206), 39); /* emulated, aw-bits=39 */
	cr_assert_eq(host_parse_vtd_bits(0x00d2008c222f0606), 48); /* aw-bits=48 */
	cr_assert_eq(host_parse_vtd_bits((uint64_t)47 << 16 | 0xe00), 48);
	cr_assert_eq(host_parse_vtd_bits(0), 0);
}

Test(host_parse, amd_tells_levels)
{
	cr_assert_eq(host_parse_amd_bits(0), 48);
	cr_assert_eq(host_parse_amd_bits(1 << 10), 57);
	cr_assert_eq(host_parse_amd_bits(2 << 10), 64);
}

/* A function with the capabilities of a NIC's VF. */
static void vf_config(uint8_t config[256])
{
	memset(config, 0, 256);
	config[0x06] = 0x10;
	config[0x34] = 0x70;
	config[0x3d] = 1;
	/* MSI-X with 3 vectors */
	config[0x70] = 0x11;
	config[0x71] = 0xa0;
	config[0x72] = 2;
	/* Express with FLR */
	config[0xa0] = 0x10;
	config[0xa1] = 0xe0;
	config[0xa7] = 0x10;
	/* MSI with 8 messages */
	config[0xe0] = 0x05;
	config[0xe1] = 0xf0;
	config[0xe2] = 3 << 1;
	/* power management without No_Soft_Reset, last */
	config[0xf0] = 0x01;
}

Test(host_config, capabilities_are_found)
{
	uint8_t config[256];
	struct host_config got;

	vf_config(config);
	host_config_parse(config, sizeof(config), &got);
	cr_assert_eq(got.msix, 3);
	cr_assert_eq(got.msi, 8);
	cr_assert(got.express && got.pin);
	cr_assert_eq(got.resets, HOST_RESET_FLR | HOST_RESET_PM);
}

Test(host_config, a_device_that_keeps_its_state_in_d3_is_not_reset_by_it)
{
	uint8_t config[256];
	struct host_config got;

	vf_config(config);
	config[0xf4] = 8;
	host_config_parse(config, sizeof(config), &got);
	cr_assert_eq(got.resets, HOST_RESET_FLR);
}

Test(host_config, a_loop_ends)
{
	uint8_t config[256];
	struct host_config got;

	vf_config(config);
	config[0xf1] = 0x70;
	host_config_parse(config, sizeof(config), &got);
	cr_assert_eq(got.msix, 3);
	config[0x71] = 0x70; /* onto itself */
	host_config_parse(config, sizeof(config), &got);
	cr_assert_eq(got.msix, 3);
	cr_assert_not(got.express);
}

Test(host_config, what_an_ordinary_user_may_read_has_a_pin_and_no_capabilities)
{
	uint8_t config[256];
	struct host_config got;

	vf_config(config);
	host_config_parse(config, 64, &got);
	cr_assert(got.pin);
	cr_assert_eq(got.msix, 0);
	cr_assert_not(got.express);
}

Test(host_config, a_device_that_is_gone_has_nothing)
{
	uint8_t config[256];
	struct host_config got;

	memset(config, 0xff, sizeof(config));
	host_config_parse(config, sizeof(config), &got);
	cr_assert_eq(got.msix + got.msi + got.resets, 0);
	cr_assert_not(got.pin || got.express);
	host_config_parse(config, 0, &got);
	cr_assert_not(got.pin);
}

Test(host_config, a_capability_cut_by_the_end_is_not_read)
{
	uint8_t config[256];
	struct host_config got;

	vf_config(config);
	config[0x34] = 0xfc;
	config[0xfc] = 0x10; /* its body would lie past the end */
	config[0xfd] = 0;
	host_config_parse(config, sizeof(config), &got);
	cr_assert(got.express);
	cr_assert_eq(got.resets, 0);
}
