/* SPDX-License-Identifier: Apache-2.0 */
/* What the command's files share: exit statuses and the commands. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "options.h"

enum cli_status {
	CLI_OK = 0,     /* the guest powered off */
	CLI_FAILED = 1, /* it could not be run, or a run-time failure */
	CLI_USAGE = 2,
	CLI_CRASHED = 3, /* the guest crashed or panicked */
};

extern const struct command run_command, machines_command, ctl_command, vf_command, device_command,
	iommu_command, bench_command, compare_command, metrics_command, snapshot_command;

#endif
