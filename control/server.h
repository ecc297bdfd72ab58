/* SPDX-License-Identifier: Apache-2.0 */
/* The server, for its own tests; for all others: <hospes/control.h>. */
#ifndef CONTROL_SERVER_H
#define CONTROL_SERVER_H

#include <stdint.h>

#include "hospes/control.h"

/* How long a request may take to be complete, and an answer to be taken. */
void control_set_limit(struct hospes_control *control, uint64_t limit_ns);

#endif
