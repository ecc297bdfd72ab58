/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of vf.h share. */
#ifndef HOST_VF_IMPL_H
#define HOST_VF_IMPL_H

/* Only one process at a time changes a function in several steps: an fd that holds the right until it
 * is closed, or -1 where we may not write (the first write says so). Waits for the other. */
int vf_lock(const char *bdf);

#endif
