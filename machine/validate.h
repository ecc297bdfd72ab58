/* SPDX-License-Identifier: Apache-2.0 */
/* What must hold between the values of a document, and the defaults that depend on others. */
#ifndef MACHINE_VALIDATE_H
#define MACHINE_VALIDATE_H

#include "machine/config.h"

/* Completes and checks: topology, then the devices. One message per fault. */
int config_validate(struct config *config, struct err *err);
/* Of all devices: ids, PCI addresses, then each one's own values. */
int config_check_devices(struct config *config, struct err *err);

#endif
