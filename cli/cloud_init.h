/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What cloud-init finds at its first start: a NoCloud seed, a small FAT file system named CIDATA on
 * a disk of its own, which is in memory and read-only. mtools makes it: small, in each Debian, well
 * kept, and it writes into an open file and reads its standard input, so that nothing (a password,
 * say) is ever in a file with a name. Makers of ISO 9660 want their input in files.
 */
#ifndef CLI_CLOUD_INIT_H
#define CLI_CLOUD_INIT_H

#include <jansson.h>

/* The document's "cloud_init" becomes a disk, the last one. *fd: of the seed, the caller's to close
 * when the machine has it; -1: there is none. CLI_OK, or another enum cli_status with the message
 * printed. */
int cloud_init_seed(json_t *document, int *fd);

/* What is written into it, from the object of the document: text to be freed. CLI_OK, or another
 * enum cli_status with the message printed, and no text. */
int cloud_init_write(const json_t *c, char **user_data, char **meta_data);

/* With a leading "~/" in place of $HOME, to be freed; NULL: no memory. */
char *expand_home(const char *path);

#endif
