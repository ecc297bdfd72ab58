// SPDX-License-Identifier: Apache-2.0
// The options of hospes iommu compare.
#include "compare/arguments.h"

#include <stddef.h>

#include "cli.h"
#include "compare/compare.h"
#include "document.h"

#define TEXT(member) OPTION_AT(TEXT, struct compare_arguments, member)
#define NUMBER(member, most) \
	OPTION_AT(NUMBER, struct compare_arguments, member), .min = 1, .max = most

static const struct option compare_options[] = {
	{"workload", "block|net", "reads of a disk (block), or streams and requests to --peer",
	 OPTION_AT(CHOICE, struct compare_arguments, workload)},
	{"strategies", "A,B",
	 "those to compare (all, the default; 'hospes iommu list' shows them),\n"
	 "with their parameters: A,KEY=N,B",
	 TEXT(strategies)},
	{"guest", "A,B", "how the guest unmaps: strict, lazy (both), or none", TEXT(guest)},
	{"transports", "A,B", "how the guest's requests travel (the machine's default)",
	 TEXT(transports)},
	{"sizes", "A,B", "4K,16K,64K,128K,512K; network: 64,1K,16K,64K", TEXT(sizes)},
	{"depths", "A,B", "requests in flight (1,64)", TEXT(depths)},
	{"seconds", "N", "length of a run (2)", NUMBER(seconds, 3600)},
	{"repeat", "N", "runs, of which the median counts (5)", NUMBER(repeat, COMPARE_REPEATS)},
	{"target", "NAME", "the device in the guest, if not the only one: /dev/nvme0n1, eth0",
	 TEXT(target)},
	{"peer", "ADDRESS", "network: where 'iperf3 -s' listens", TEXT(peer)},
	{"address", "ADDRESS/LEN", "network: the guest's own", TEXT(address)},
	{"timeout", "SECONDS", "for a guest to get ready (120)", NUMBER(timeout_s, 86400)},
	{"json", "FILE", "also as JSON (- : standard output, instead of the table)", TEXT(json)},
	{"resume", NULL, "go on with what the file of --json has",
	 OPTION_AT(SWITCH, struct compare_arguments, resume)},
	{"svg", "FILE", "also as a picture", TEXT(svg)},
	{0},
};

static int load(void *into, char *path)
{
	struct compare_arguments *a = into;

	return document_load(&a->document, path);
}

const struct command compare_command = {
	.name = "iommu compare",
	.operands = "--passthrough BDF --kernel FILE --disk FILE [OPTION...]",
	.summary = "what each mapping strategy costs and exposes, with a workload",
	.text = "Starts a guest per mapping strategy, gives it the device, runs the same workload in "
		"each, and\nreports what it cost and what it exposed, beside 'direct'. The device must "
		"be bound to vfio-pci\n('hospes vf bind'). The guest's root disk needs /bin/sh and fio "
		"(network: iperf3, ping, ip), its\nkernel a driver for the device, virtio-blk and "
		"virtio-iommu. Disks are only read.\n",
	.groups = {{"The comparison", compare_options, 0},
		   {"The guest, as for 'hospes run'", document_options,
		    offsetof(struct compare_arguments, document)},
		   {"Its devices", device_options, offsetof(struct compare_arguments, document)}},
	.operand = load,
	.examples = "  hospes iommu compare --passthrough 0000:01:00.0 --kernel vmlinuz --initrd "
		    "initrd.img \\\n"
		    "      --disk path=root.img,readonly=on --cmdline root=/dev/vda1 --memory 1G "
		    "--svg price.svg\n"
		    "  hospes iommu compare --passthrough 0000:01:10.0 --kernel bzImage --disk "
		    "root.img \\\n"
		    "      --workload net --peer 10.0.0.1 --address 10.0.0.2/24 --guest strict\n",
	.run = compare_main,
};
