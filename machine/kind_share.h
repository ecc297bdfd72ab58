/* SPDX-License-Identifier: Apache-2.0 */
/* Shared folders: a virtio-fs that a daemon (virtiofsd) serves. */
#ifndef MACHINE_KIND_SHARE_H
#define MACHINE_KIND_SHARE_H

#include "machine/kind.h"

extern const struct device_kind kind_share;

#endif
