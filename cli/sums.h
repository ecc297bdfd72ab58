/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checksums of a snapshot's files (docs/snapshots.md), in its file `checksums`: CRC-32 of the
 * document and the state, and of each 2 MiB of memory. They find what a disk or a copy has changed,
 * not what somebody has changed on purpose. Messages of failures are printed.
 */
#ifndef CLI_SUMS_H
#define CLI_SUMS_H

/* Of the files in this directory, written there; the file is on the disk then. CLI_OK or
 * CLI_FAILED; `name` is the directory's in messages. */
int sums_write(int dir, const char *name);
/* CLI_OK when all are as they were. Says how far it is on a terminal. */
int sums_verify(int dir, const char *name);

#endif
