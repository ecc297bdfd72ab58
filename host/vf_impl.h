/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files of vf.h. */
#ifndef HOST_VF_IMPL_H
#define HOST_VF_IMPL_H

/* Take the right to change a function in several steps, waiting for another process that has it: an
 * fd that holds it until closed, or -1 without write permission (the first write then reports
 * that). */
int vf_lock(const char *bdf);

#endif
