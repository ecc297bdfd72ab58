/* SPDX-License-Identifier: Apache-2.0 */
/* This architecture's number in seccomp's data. Its own rows of filter_table.c are in
 * filter_calls.inc and filter_requests.inc. */
#ifndef X86_64_FILTER_ARCH_H
#define X86_64_FILTER_ARCH_H

#define FILTER_AUDIT_ARCH AUDIT_ARCH_X86_64

#endif
