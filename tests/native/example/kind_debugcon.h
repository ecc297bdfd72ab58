/* SPDX-License-Identifier: Apache-2.0 */
/* A port whose bytes go to a file: the example of a kind of device (docs/architecture.md). */
#ifndef EXAMPLE_KIND_DEBUGCON_H
#define EXAMPLE_KIND_DEBUGCON_H

#include "machine/kind.h"

extern const struct device_kind kind_debugcon;

#endif
