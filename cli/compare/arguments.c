// SPDX-License-Identifier: Apache-2.0
// The options of hospes iommu compare, told apart from those of the guest.
#include "compare/arguments.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "cli.h"

const char compare_usage[] =
	"usage: hospes iommu compare --passthrough BDF --kernel FILE --disk FILE [OPTION...]\n"
	"\n"
	"Starts a guest per mapping strategy, gives it the device, runs the same workload in each, and\n"
	"tells what it cost and what it exposed, beside 'direct'. The device must be bound to vfio-pci\n"
	"('hospes vf bind'). The guest's root disk needs /bin/sh and fio (network: iperf3, ping, ip), its\n"
	"kernel a driver for the device, virtio-blk and virtio-iommu. Disks are only read.\n"
	"\n"
	"  --workload block|net   reads of a disk (block), or streams and requests to --peer\n"
	"  --strategies A,B       those to compare; all that there are\n"
	"  --guest A,B            how the guest unmaps: strict, lazy, or both (the default)\n"
	"  --transports A,B       how the guest's requests travel; the machine's default\n"
	"  --sizes A,B            4K,16K,64K,128K,512K; network: 64,1K,16K,64K\n"
	"  --depths A,B           requests in flight: 1,64\n"
	"  --seconds N            of one run (2)\n"
	"  --repeat N             runs, of which the median counts (5; at most 15)\n"
	"  --target NAME          the device in the guest, if not the only one: /dev/nvme0n1, eth0\n"
	"  --peer ADDRESS         network: where 'iperf3 -s' listens\n"
	"  --address ADDRESS/LEN  network: the guest's own\n"
	"  --timeout SECONDS      for a guest to get ready (120)\n"
	"  --json FILE            also as JSON (- : standard output, instead of the table)\n"
	"  --svg FILE             also as a picture\n"
	"  --kernel, --initrd, --disk, --cmdline, --cpus, --memory, --iommu …   the guest, as for 'hospes "
	"run'\n"
	"\n"
	"Examples:\n"
	"  hospes iommu compare --passthrough 0000:01:00.0 --kernel vmlinuz --initrd initrd.img \\\n"
	"      --disk path=root.img,readonly=on --cmdline root=/dev/vda1 --memory 1G --svg price.svg\n"
	"  hospes iommu compare --passthrough 0000:01:10.0 --kernel bzImage --disk root.img --workload net \\\n"
	"      --peer 10.0.0.1 --address 10.0.0.2/24 --strategies direct,strict --guest strict\n";

static const struct {
	const char *name;
	size_t offset;
} options[] = {
#define OPTION(member) {"--" #member, offsetof(struct compare_arguments, member)}
	OPTION(workload), OPTION(strategies), OPTION(guest),  OPTION(transports), OPTION(sizes),
	OPTION(depths),   OPTION(seconds),    OPTION(repeat), OPTION(target),     OPTION(peer),
	OPTION(address),  OPTION(timeout),    OPTION(json),   OPTION(svg),
};

/* The argument at *i as one of ours; moves *i to its value. 1: not ours. */
static int own_option(int argc, char **argv, int *i, struct compare_arguments *ret)
{
	const char *text = argv[*i], *equals = strchr(text, '=');
	size_t n = equals ? (size_t)(equals - text) : strlen(text);

	for (size_t k = 0; k < sizeof(options) / sizeof(options[0]); k++) {
		const char **value = (void *)((char *)ret + options[k].offset);

		if (strlen(options[k].name) != n || strncmp(text, options[k].name, n) != 0)
			continue;
		*value = equals ? equals + 1 : *i + 1 < argc ? argv[++*i] : NULL;
		if (*value)
			return 0;
		cli_error("%s: needs a value; 'hospes iommu compare --help' shows it", text);
		return -EINVAL;
	}
	return 1;
}

int compare_arguments_split(int argc, char **argv, struct compare_arguments *ret, char **rest,
			    int *n)
{
	*n = 1;
	for (int i = 1; i < argc; i++) {
		int rc = own_option(argc, argv, &i, ret);

		if (rc < 0)
			return CLI_USAGE;
		if (rc)
			rest[(*n)++] = argv[i];
	}
	return CLI_OK;
}
