/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines that show nothing: a Linux kernel whose command line names no console that is there
 * keeps its messages to itself.
 */
#ifndef CLI_SILENCE_H
#define CLI_SILENCE_H

#include <jansson.h>
#include <stdbool.h>

/* Has the document consoles, and names the kernel's command line none of them? */
bool silence_is_likely(const json_t *document);

/* If the machine with this status has written nothing to any console, say what may be missing. text
 * is freed. True: that was said. */
bool silence_explain(const json_t *document, char *status);

#endif
