// SPDX-License-Identifier: Apache-2.0
// The table of machine/kinds.c and lines more. It is linked in its place.
#include "kind_debugcon.h"
#include "kind_sharer.h"
#include "machine/kind_disk.h"
#include "machine/kind_rng.h"

const struct device_kind *const device_kinds[] = {
	&kind_disk, &kind_rng, &kind_debugcon, &kind_sharer, NULL,
};
