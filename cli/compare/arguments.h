/* SPDX-License-Identifier: Apache-2.0 */
/* The options of `hospes iommu compare` itself; those of the guest are document.h's. */
#ifndef COMPARE_ARGUMENTS_H
#define COMPARE_ARGUMENTS_H

/* As they were given; NULL: not. Borrowed from argv. */
struct compare_arguments {
	const char *workload, *strategies, *guest, *transports, *sizes, *depths, *seconds, *repeat,
		*target, *peer, *address, *timeout, *json, *svg;
};

extern const char compare_usage[];

/* Ours from argv to ret; the others, in their order, to rest from 1 on, which has room for as many as argv;
 * *n: how many are there then. CLI_OK, or CLI_USAGE with the message printed. */
int compare_arguments_split(int argc, char **argv, struct compare_arguments *ret, char **rest,
			    int *n);

#endif
