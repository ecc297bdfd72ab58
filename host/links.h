/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Network interfaces of this host's network namespace that come and go.
 *
 * Threads: no state; any thread.
 */
#ifndef HOST_LINKS_H
#define HOST_LINKS_H

/* A non-blocking AF_NETLINK socket that is readable when an interface was made, changed or
 * deleted: the caller's, or a negative errno. */
int host_links_open(void);

#endif
