/* SPDX-License-Identifier: Apache-2.0 */
/* The last word of a confined command, one of whose threads asks for what its role never does. */
#ifndef CLI_VIOLATION_H
#define CLI_VIOLATION_H

/* Have SIGSYS, by which the kernel ends that (docs/security.md), name thread and system call. For
 * the whole process. */
void violation_explain(void);

/* The second argument of the system call that a signal's context is of: violation_ARCH.c. */
unsigned long violation_request(const void *context);

#endif
