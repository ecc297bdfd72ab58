// SPDX-License-Identifier: Apache-2.0
// The hospes command: its commands, standard descriptors, and the limit of open files.
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "cli.h"
#include "hospes/hospes.h"
#include "standard.h"

static int print_version(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	printf("hospes %s\n", hospes_version());
	return CLI_OK;
}

static const struct command version_command = {
	.name = "version",
	.summary = "print the version",
	.run = print_version,
};

static const struct command hospes_command = {
	.name = "",
	.operands = "COMMAND [ARGUMENT...]",
	.text = "Virtual machines for Linux KVM, made for giving guests real hardware safely.\n",
	.commands = (const struct command *const[]){&run_command, &machines_command, &ctl_command,
						    &metrics_command, &vf_command, &device_command,
						    &iommu_command, &snapshot_command,
						    &version_command, NULL},
	.examples = "  hospes run --kernel bzImage --initrd initrd.img --disk path=disk.img "
		    "--memory 1G\n",
};

/* The soft limit is low for the sake of programs that use select(). A device may have thousands of
 * interrupt vectors, each with a file descriptor. */
static void allow_files(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv)
{
	if (standard_fds_keep() < 0)
		return CLI_FAILED; /* and nowhere to say it */
	strays_note();
	allow_files();
	if (argc > 1 && strcmp(argv[1], "--version") == 0)
		return print_version(argc - 1, argv + 1);
	return command_run(&hospes_command, argc, argv);
}
