/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Credentials: secrets and settings that a guest's systemd takes from its firmware (systemd.system-
 * credentials(7)), as strings of SMBIOS type 11 (DSP0134, 7.12).
 *
 * Threads: the machine's own. The strings are constant from the machine's creation to its end, so
 * that a reset of the guest opens no file.
 */
#ifndef MACHINE_CREDENTIALS_H
#define MACHINE_CREDENTIALS_H

#include "base/err.h"
#include "machine/schema.h"

/* Of the 64 KiB below 1 MiB in which a guest looks for SMBIOS, the rest is for what else is
 * there. */
enum { CREDENTIALS_MAX = 64, CREDENTIALS_BYTES = 40 * 1024 };

struct config_credential {
	struct schema_item item;
	char *name;
	char *path; /* of the file with its value */
};

extern const struct schema credential_schema;

/* Each has a name of its own that systemd takes, and a file. */
int credentials_check(const struct list *config, struct err *err);

struct credentials {
	char *text[CREDENTIALS_MAX];
	unsigned int n;
};

/* Reads the files. On error nothing is left in *ret. */
int credentials_open(const struct list *config, struct credentials *ret, struct err *err);
/* Forgets them, in memory too. */
void credentials_done(struct credentials *c);

#endif
