/* SPDX-License-Identifier: Apache-2.0 */
/* What machines of this host's architecture cannot have yet (arch_has): refused by the name of its
 * key. */
#ifndef MACHINE_LACKING_H
#define MACHINE_LACKING_H

#include "base/err.h"
#include "core/arch.h"
#include "machine/config.h"

/* -EOPNOTSUPP: the document asks for something that is not there. The machine's thread. */
int lacking_check(const struct config *config, struct err *err);
/* Likewise what a machine that runs is asked for: what, as "snapshot". Any thread. */
int lacking_refuse(enum arch_feature feature, const char *what, struct err *err);

#endif
