/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a migration's stream goes: "unix:PATH", "tcp:HOST:PORT" (a numeric IPv6 address in
 * brackets), or "fd:N", a connected socket that this process was started with. Messages of failures
 * are printed.
 */
#ifndef CLI_ADDRESS_H
#define CLI_ADDRESS_H

/* A connected stream socket, or -1. */
int address_connect(const char *text);
/* Listen there, take the first who comes, and listen no more: the connected socket, or -1. */
int address_accept(const char *text);

#endif
