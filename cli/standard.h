/* SPDX-License-Identifier: Apache-2.0 */
/* Standard input, output and error of a process that was started without some of them. */
#ifndef CLI_STANDARD_H
#define CLI_STANDARD_H

/* Open /dev/null in the place of each that is closed, before anything else is opened: the next
 * files would take their numbers, and be read as the console's input or written as its output.
 * Returns 0, or a negative errno when a place stays empty. */
int standard_fds_keep(void);

#endif
