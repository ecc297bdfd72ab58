/* SPDX-License-Identifier: Apache-2.0 */
/* Allocation with clean-up attributes; failures are ordinary errors, never an exit. */
#ifndef BASE_MEM_H
#define BASE_MEM_H

#include <stdlib.h>

static inline void mem_free_ptr(void *p)
{
	free(*(void **)p);
}
#define cleanup_free __attribute__((cleanup(mem_free_ptr)))

/* Zeroed storage for one object of the pointer's type; NULL when there is no memory. */
#define mem_new(ptr) ((ptr) = calloc(1, sizeof(*(ptr))))

#endif
