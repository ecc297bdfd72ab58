/* SPDX-License-Identifier: Apache-2.0 */
/* Randomness from the kernel, for what must not be guessed. */
#ifndef BASE_RAND_H
#define BASE_RAND_H

#include <stddef.h>
#include <stdint.h>

/* Fill len bytes; 0 or a negative errno. Blocks only before the host's pool is first ready. */
int rand_bytes(void *buf, size_t len);

#endif
