// SPDX-License-Identifier: Apache-2.0
// All kinds of devices. A new one is its file and a line here (docs/architecture.md).
#include "machine/kind_balloon.h"
#include "machine/kind_console.h"
#include "machine/kind_disk.h"
#include "machine/kind_net.h"
#include "machine/kind_passthrough.h"
#include "machine/kind_rng.h"
#include "machine/kind_share.h"

const struct device_kind *const device_kinds[] = {
	/* The balloon first: then memory is mapped for passed-through devices in parts. */
	&kind_disk, &kind_net,     &kind_share,       &kind_console,
	&kind_rng,  &kind_balloon, &kind_passthrough, NULL,
};
