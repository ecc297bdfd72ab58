/* SPDX-License-Identifier: Apache-2.0 */
/* Consoles: a serial port, of which a machine has one at most, and virtio consoles. */
#ifndef MACHINE_KIND_CONSOLE_H
#define MACHINE_KIND_CONSOLE_H

#include "machine/kind.h"

enum config_console_type {
	CONFIG_CONSOLE_SERIAL,
	CONFIG_CONSOLE_VIRTIO,
};

enum config_overflow {
	CONFIG_OVERFLOW_DROP, /* after a while, what nobody takes is lost */
	CONFIG_OVERFLOW_WAIT, /* the guest waits for ever */
};

struct config_console {
	struct config_device base;
	int type;
	int in;       /* fd, -1: no input */
	int out;      /* fd, -1: discarded unless path */
	int overflow; /* enum config_overflow */
	char *path;   /* output goes to this file, which is created or truncated */
};

extern const struct device_kind kind_console;

/* This socket looks at the console and types on it from now on. -EBUSY: another one does; take: in
 * its place. -EINVAL: no stream socket. */
int console_view(struct vm_device *d, int fd, bool take, struct err *err);

/* Is one of the consoles a serial port? */
bool config_has_serial(const struct config *config);

#endif
