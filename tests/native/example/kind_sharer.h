/* SPDX-License-Identifier: Apache-2.0 */
/* Nothing but a wish: that something outside this process maps guest memory. In test_example.c. */
#ifndef EXAMPLE_KIND_SHARER_H
#define EXAMPLE_KIND_SHARER_H

#include "machine/kind.h"

extern const struct device_kind kind_sharer;

#endif
