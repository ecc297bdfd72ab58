/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the command line to the configuration document. A flag sets a key or appends to a list;
 * "key=value,key=value" becomes an object, whose values the library understands as text ("on",
 * "256M", "4"). A comma inside a value is written twice.
 */
#ifndef CLI_DOCUMENT_H
#define CLI_DOCUMENT_H

#include <jansson.h>
#include <stdbool.h>

/* Options of `hospes run` that are not the machine's. */
struct run_options {
	bool dry_run;
	bool help;
	unsigned int verbose; /* how often --verbose was given */
	const char *log_path;
	bool json_log;
	unsigned int grace_s; /* between the power button and the end, after SIGTERM */
};

/* argv[0] is "run". *ret is a new reference. CLI_OK, or another enum cli_status with the message printed. */
int document_read(int argc, char **argv, json_t **ret, struct run_options *options);

extern const char document_help[];

#endif
