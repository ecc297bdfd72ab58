/* SPDX-License-Identifier: Apache-2.0 */
/* hospes run --incoming ADDRESS: a machine that comes from another host. */
#ifndef CLI_INCOMING_H
#define CLI_INCOMING_H

#include <jansson.h>

/* Wait for the source at this address, and put what it says of its machine beneath the document;
 * where the document says something else of what the guest sees, it is refused, by name. *fd: the
 * stream, for the caller to close. enum cli_status; messages are printed. */
int incoming_document(json_t **document, const char *address, int *fd);

#endif
