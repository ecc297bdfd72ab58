/* SPDX-License-Identifier: Apache-2.0 */
/* The options of `hospes iommu compare`: its own, and those of the guest. */
#ifndef COMPARE_ARGUMENTS_H
#define COMPARE_ARGUMENTS_H

#include <jansson.h>
#include <stdbool.h>

/* Borrowed from argv; NULL: not given. */
struct compare_arguments {
	const char *workload, *strategies, *guest, *transports, *sizes, *depths, *target, *peer,
		*address, *json, *svg;
	bool resume;
	unsigned int seconds, repeat, timeout_s; /* the caller sets the defaults */
	json_t *document;                        /* of the guest; the caller's */
};

/* Returns enum cli_status. */
int compare_main(int argc, char **argv);

#endif
