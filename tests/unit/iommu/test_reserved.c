// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "iommu/reserved.h"

Test(reserved, ranges_are_counted_beyond_what_fits)
{
	static const char text[] = "0x00000000fee00000 0x00000000feefffff msi\n"
				   "junk\n"
				   "0x000000fd00000000 0x000000ffffffffff reserved\n"
				   "0x00000000000a0000 0x00000000000bffff direct-relaxable\n";
	struct iommu_reserved ranges[2];

	cr_assert_eq(iommu_reserved_parse(text, ranges, 2), 3);
	cr_assert_eq(ranges[0].first, 0xfee00000);
	cr_assert_eq(ranges[0].last, 0xfeefffff);
	cr_assert_str_eq(ranges[0].type, "msi");
	cr_assert_str_eq(ranges[1].type, "reserved");
}

Test(reserved, a_type_that_does_not_fit_is_cut)
{
	struct iommu_reserved range;

	cr_assert_eq(iommu_reserved_parse("0x1 0x2 direct-relaxable-and-more", &range, 1), 1);
	cr_assert_str_eq(range.type, "direct-relaxable-an");
}

Test(reserved, a_range_is_in_one_line_and_not_backwards)
{
	struct iommu_reserved range;

	cr_assert_eq(iommu_reserved_parse("0x1 0x2\nmsi\n0x3 0x2 msi\n\n", &range, 1), 0);
	cr_assert_eq(iommu_reserved_parse("", &range, 1), 0);
}

Test(reserved, what_the_kernel_gives_up_for_vfio_does_not_block)
{
	static const char text[] = "0x1 0x2 direct-relaxable\n0x1 0x2 direct\n0x1 0x2 msi\n";
	struct iommu_reserved ranges[3];

	cr_assert_eq(iommu_reserved_parse(text, ranges, 3), 3);
	cr_expect_not(iommu_reserved_blocks(&ranges[0]));
	cr_expect(iommu_reserved_blocks(&ranges[1]));
	cr_expect(strstr(iommu_reserved_whose(&ranges[1]), "RMRR"));
	cr_expect(iommu_reserved_blocks(&ranges[2]));
}

Test(reserved, a_name_that_leads_elsewhere_is_refused)
{
	struct iommu_reserved range;

	cr_expect_eq(iommu_reserved_read("../0000:00:00.0", &range, 1), -EINVAL);
	cr_expect_eq(iommu_reserved_read(NULL, &range, 1), -EINVAL);
	cr_expect_eq(iommu_reserved_read("fffe:fe:1e.6", &range, 1), -ENOENT);
}
