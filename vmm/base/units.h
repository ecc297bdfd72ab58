/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sizes and times as people write them: "256M", "10ms".
 *
 * Threads: any; no state. Errors: a negative errno.
 */
#ifndef BASE_UNITS_H
#define BASE_UNITS_H

#include <stdint.h>

#define UNITS_TEXT 32

/* Bytes, with a suffix K, M, G, T, P (binary, in either case) and optionally iB or B behind it, or
 * none. -EINVAL: not such a text; -ERANGE: past 2^64. */
int units_parse_bytes(const char *text, uint64_t *ret);
/* Nanoseconds, from a whole number with its unit: ns, us, ms or s. Errors as above. */
int units_parse_ns(const char *text, uint64_t *ret);

/* The reverse, exact, in the largest unit that needs no fraction. In `text`, which is returned. */
const char *units_bytes_text(uint64_t bytes, char text[UNITS_TEXT]);
const char *units_ns_text(uint64_t ns, char text[UNITS_TEXT]);

#endif
