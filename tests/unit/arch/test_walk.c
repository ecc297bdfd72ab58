// SPDX-License-Identifier: Apache-2.0
// Page tables of a guest, as a debugger reads them.
#include <criterion/criterion.h>
#include <errno.h>

#include "base/num.h"
#include "x86_64/x86.h"

enum { PRESENT = 1, USER = 4, LARGE = 0x80 };
#define NO_EXECUTE (1ull << 63)
#define CR3        0x1000ull /* the level-5 table is at 0x6000 */

static struct gmem *gmem;

static void entry(uint64_t table, unsigned int index, uint64_t value)
{
	cr_assert_eq(gmem_write(gmem, table + index * 8ull, &value, sizeof(value)), 0);
}

static void set_up(void)
{
	const struct gmem_region_config ram = {
		.name = "ram", .size_bytes = 2 * MiB, .numa_node = -1, .fd = -1};

	cr_assert_eq(gmem_create(&gmem, NULL, NULL), 0);
	cr_assert_eq(gmem_begin(gmem, NULL), 0);
	cr_assert_eq(gmem_add(gmem, &ram, NULL), 0);
	cr_assert_eq(gmem_commit(gmem, NULL), 0);
	entry(0x1000, 0, 0x2000 | PRESENT | USER);
	entry(0x1000, 511, 0x2000 | PRESENT);
	entry(0x2000, 0, 0x3000 | PRESENT | USER);
	entry(0x2000, 1, 0x5140000000 | PRESENT | LARGE | 1 << 12);
	entry(0x3000, 2, 0x4000 | PRESENT | USER);
	entry(0x3000, 3, 0x40600000 | PRESENT | LARGE | NO_EXECUTE | 1 << 12);
	entry(0x4000, 1, 0x123000 | PRESENT | USER | LARGE | NO_EXECUTE); /* there it is PAT */
	entry(0x4000, 2, 0x124000 | USER);
	entry(0x6000, 1, 0x1000 | PRESENT);
}

static void tear_down(void)
{
	gmem_destroy(gmem);
}

TestSuite(walk, .init = set_up, .fini = tear_down);

static void finds(unsigned int levels, uint64_t gva, uint64_t wanted)
{
	uint64_t gpa = 0;

	cr_expect_eq(x86_walk(gmem, levels == 5 ? 0x6000 : CR3 | 0x18, levels, gva, &gpa), 0,
		     "%#lx", gva);
	cr_expect_eq(gpa, wanted, "%#lx: %#lx", gva, gpa);
}

static void finds_nothing(unsigned int levels, uint64_t gva)
{
	uint64_t gpa;

	cr_expect_eq(x86_walk(gmem, levels == 5 ? 0x6000 : CR3, levels, gva, &gpa), -EFAULT, "%#lx",
		     gva);
}

Test(walk, pages_of_each_size_are_found_whoever_may_use_them)
{
	finds(4, 0x401abc, 0x123abc);
	finds(4, 0x6abcde, 0x406abcde);
	finds(4, 0x40abcdef, 0x5140abcdef);
	finds(4, 0xffffff8000401abc, 0x123abc);
}

Test(walk, five_levels_are_walked_where_there_are_five)
{
	finds(5, (1ull << 48) | 0x401abc, 0x123abc);
	finds_nothing(5, 0x401abc);
}

Test(walk, what_is_not_present_or_not_canonical_is_nowhere)
{
	finds_nothing(4, 0x402000);
	finds_nothing(4, 0x8000000000);
	finds_nothing(4, (1ull << 48) | 0x401abc);
	finds_nothing(4, 0x0000ff8000401abc);
}

Test(walk, tables_outside_of_memory_lead_nowhere)
{
	uint64_t gpa;

	entry(0x3000, 2, 0xfee00000 | PRESENT);
	finds_nothing(4, 0x401abc);
	cr_expect_eq(x86_walk(gmem, UINT64_MAX, 4, 0, &gpa), -EFAULT);
}
