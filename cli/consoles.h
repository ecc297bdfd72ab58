/* SPDX-License-Identifier: Apache-2.0 */
/* The consoles of `hospes run`'s document, and the terminal. */
#ifndef CLI_CONSOLES_H
#define CLI_CONSOLES_H

#include <jansson.h>

/* Consoles without an fd or file get the terminal; the first only. Without any, a serial one. */
void consoles_default(json_t *document);

/* On a terminal, the console that reads standard input reads from a pipe instead: *from_terminal is
 * its end, *to_guest (non-blocking) the other; the caller's. Unchanged where there is none. CLI_OK,
 * or CLI_FAILED with the message printed. */
int consoles_take_terminal(json_t *document, int *from_terminal, int *to_guest);

#endif
