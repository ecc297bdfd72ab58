/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket of `hospes run`: from the options to the last answer. */
#ifndef CLI_SERVE_H
#define CLI_SERVE_H

#include "hospes/control.h"
#include "socket.h"

struct serve {
	struct hospes_control *control; /* NULL: the machine has none */
	struct control_socket socket;
	bool ours; /* it is to be made, where socket.path says */
};

/* Before the machine: option NULL: by its name, if it has one (NULL: no). No file is opened yet.
 * CLI_OK, or CLI_FAILED with the message printed. */
int serve_prepare(struct serve *serve, const char *option, const char *name);
/* Listen, for this machine. */
int serve_start(struct serve *serve, struct hospes_vm *vm);
/* Of the socket that was made; NULL: none was. */
const char *serve_directory(const struct serve *serve, char directory[SOCKET_PATH]);
/* To be polled for input; -1: none. */
int serve_fd(const struct serve *serve);
void serve_iterate(struct serve *serve);
/* A hospes_event_fn's event. */
void serve_event(struct serve *serve, const struct hospes_event *event);
/* After the machine. */
void serve_done(struct serve *serve);

#endif
