/* SPDX-License-Identifier: Apache-2.0 */
/* The descriptors that a process is started with: standard input, output and error, which it may
 * lack, and others, which it may not know of. */
#ifndef CLI_STANDARD_H
#define CLI_STANDARD_H

/* Open /dev/null in the place of each that is closed, before anything else is opened: the next
 * files would take their numbers, and be read as the console's input or written as its output.
 * Returns 0, or a negative errno when a place stays empty. */
int standard_fds_keep(void);

/* Note which others there are, before anything is opened. Once, in main. */
void strays_note(void);
/* Close those, but for `keep` (-1: none): whoever needs one has a duplicate. */
void strays_close(int keep);

#endif
