// SPDX-License-Identifier: Apache-2.0
// DMA faults: records of the kernel log, and where the log cannot be read.
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "core/loop.h"
#include "deny.h"
#include "iommu/fault.h"

static struct iommu_fault fault;

static bool parse(const char *record)
{
	memset(&fault, 0xaa, sizeof(fault));
	return fault_parse_kmsg(record, (unsigned int)strlen(record), &fault);
}

Test(fault, a_write_that_vtd_stopped)
{
	cr_assert(parse("3,812,5140900,-;DMAR: [DMA Write NO_PASID] Request device [01:10.0] fault "
			"addr 0x7f3000 [fault reason 0x05] PTE Write access is not set\n"));
	cr_assert_str_eq(fault.device, "0000:01:10.0");
	cr_assert_eq(fault.iova, 0x7f3000);
	cr_assert(fault.write);
	cr_assert_str_eq(fault.reason, "PTE Write access is not set");
	cr_assert_eq(fault.when_ns, 5140900000);
}

Test(fault, a_read_with_a_pasid)
{
	cr_assert(parse("3,1,2,-;DMAR: [DMA Read PASID 0x5] Request device [ff:1f.7] fault addr "
			"0xfffffffffffff000 [fault reason 0x06] PTE Read access is not set"));
	cr_assert_str_eq(fault.device, "0000:ff:1f.7");
	cr_assert_eq(fault.iova, 0xfffffffffffff000);
	cr_assert_not(fault.write);
}

Test(fault, the_form_of_older_kernels)
{
	cr_assert(
		parse("3,1,2,c;DMAR: [DMA Read] Request device [00:02.0] PASID ffffffff fault addr "
		      "9bd00000 [fault reason 06] PTE Read access is not set\n"));
	cr_assert_str_eq(fault.device, "0000:00:02.0");
	cr_assert_eq(fault.iova, 0x9bd00000);
	cr_assert_str_eq(fault.reason, "PTE Read access is not set");
}

Test(fault, amd_with_the_device_in_front)
{
	cr_assert(parse("1,2050,10919607,-;vfio-pci 0000:41:00.0: AMD-Vi: Event logged "
			"[IO_PAGE_FAULT domain=0x000d address=0xcff49550 flags=0x0070]\n"
			" SUBSYSTEM=pci\n DEVICE=+pci:0000:41:00.0\n"));
	cr_assert_str_eq(fault.device, "0000:41:00.0");
	cr_assert_eq(fault.iova, 0xcff49550);
	cr_assert(fault.write);
	cr_assert_str_eq(fault.reason, "domain=0x000d address=0xcff49550 flags=0x0070");
}

Test(fault, amd_with_the_device_among_the_fields)
{
	cr_assert(parse("1,1,2,-;AMD-Vi: Event logged [IO_PAGE_FAULT device=0001:05:00.0 "
			"domain=0x0012 address=0xff6101b0 flags=0x0050]"));
	cr_assert_str_eq(fault.device, "0001:05:00.0");
	cr_assert_not(fault.write);
	cr_assert(parse("1,1,2,-;AMD-Vi: Event logged [IO_PAGE_FAULT device=05:00.1 domain=0x0012 "
			"address=0xff6101b0 flags=0x0020]"));
	cr_assert_str_eq(fault.device, "0000:05:00.1");
}

Test(fault, other_records_are_none)
{
	static const char *const records[] = {
		"",
		"3",
		"3,1,2,-;",
		"3,1,2,-;DMAR: DRHD: handling fault status reg 2\n",
		/* interrupts are no DMA */
		"3,1,2,-;DMAR: [INTR-REMAP] Request device [01:10.0] fault index 0x7 [fault reason "
		"0x22] x\n",
		/* not by the kernel: facility 1 is user space */
		"14,1,2,-;DMAR: [DMA Write NO_PASID] Request device [01:10.0] fault addr 0x7000 "
		"[fault reason 0x05] x\n",
		/* quoted by somebody else */
		"3,1,2,-;usb: product DMAR: [DMA Write NO_PASID] Request device [01:10.0] fault addr "
		"0x7000 [fault reason 0x05] x\n",
		"3,1,2,-;DMAR: [DMA Write NO_PASID] Request device [01:20.0] fault addr 0x7000 "
		"[fault reason 0x05] no such slot\n",
		"3,1,2,-;DMAR: [DMA Write NO_PASID] Request device [01:10.8] fault addr 0x7000 "
		"[fault reason 0x05] no such function\n",
		"3,1,2,-;DMAR: [DMA Write NO_PASID] Request device [01:10.0] fault addr "
		"0x10000000000007000 [fault reason 0x05] too long\n",
		/* the second line is not text */
		"3,1,2,-;x\nDMAR: [DMA Write NO_PASID] Request device [01:10.0] fault addr 0x7000 "
		"[fault reason 0x05] x\n",
		"1,1,2,-;AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x1 address=0x1 flags=0x0]",
	};

	for (size_t i = 0; i < sizeof(records) / sizeof(records[0]); i++)
		cr_assert_not(parse(records[i]), "%s", records[i]);
}

Test(fault, a_record_cut_anywhere_before_its_reason_is_none)
{
	static const char record[] = "3,1,2,-;DMAR: [DMA Write NO_PASID] Request device [01:10.0] "
				     "fault addr 0x7000 [fault reason 0x05]";

	for (unsigned int n = 0; n < sizeof(record) - 1; n++)
		cr_assert_not(fault_parse_kmsg(record, n, &fault), "%u bytes", n);
	cr_assert(fault_parse_kmsg(record, sizeof(record) - 1, &fault));
}

static void never(void *opaque, const struct iommu_fault *f)
{
	(void)opaque;
	cr_assert_fail("%s", f->device);
}

static void try_without(int error, const char *wanted)
{
	struct loop_config config = {.name = "test"};
	struct fault_watch *watch;
	struct loop *loop;

	cr_assert_eq(loop_create(&loop, &config, NULL), 0);
	cr_assert_eq(deny(SYS_openat, 0, error), 0);
	cr_assert_eq(fault_watch_create(&watch, loop, NULL, never, NULL, NULL), 0);
	cr_assert_str_eq(fault_source(watch), wanted);
	cr_assert_eq(loop_in_flight(loop), 0);
	fault_watch_destroy(watch);
	loop_destroy(loop);
}

Test(fault, without_the_right_the_status_says_how_to_get_it)
{
	try_without(EPERM, "none: /dev/kmsg: Operation not permitted "
			   "(kernel.dmesg_restrict=0 permits it)");
}

Test(fault, without_a_log_there_is_no_source)
{
	try_without(ENOENT, "none: /dev/kmsg: No such file or directory");
}
