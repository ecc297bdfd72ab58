/* SPDX-License-Identifier: Apache-2.0 */
/* Random numbers of the host. */
#ifndef MACHINE_KIND_RNG_H
#define MACHINE_KIND_RNG_H

#include "machine/kind.h"

extern const struct device_kind kind_rng;

#endif
