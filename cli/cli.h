/* SPDX-License-Identifier: Apache-2.0 */
/* What the command's files share: exit statuses and the subcommands. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

enum cli_status {
	CLI_OK = 0,     /* the guest powered off */
	CLI_FAILED = 1, /* it could not be run, or a run-time failure */
	CLI_USAGE = 2,
	CLI_CRASHED = 3, /* the guest crashed or panicked */
};

int cli_run(int argc, char **argv);
int cli_vf(int argc, char **argv);
int cli_device(int argc, char **argv);
int cli_iommu(int argc, char **argv);

/* "hospes: ..." on stderr, one line. */
void cli_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
