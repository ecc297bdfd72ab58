/* SPDX-License-Identifier: Apache-2.0 */
/* A library for the command and the control server to call: it answers what a test wants, and
 * writes down what was asked. */
#ifndef TEST_FAKE_HOSPES_H
#define TEST_FAKE_HOSPES_H

#include <signal.h>

#include "hospes/hospes.h"

extern struct fake {
	char calls[1024];      /* "name(arguments) ..." */
	const char *fails;     /* the name of a call that fails, or NULL */
	const char *failure;   /* its message; NULL: "NAME: refused" */
	const char *status;    /* what hospes_vm_status answers; NULL: "the status" */
	const char *effective; /* what hospes_config_check answers; NULL: "{}" */
	const char *vf_list;   /* what hospes_vf_list answers */
	/* A machine that is started is done by itself with this outcome. NONE: it waits for the
	 * end. */
	enum hospes_outcome outcome;
	enum hospes_state state;    /* what hospes_vm_state answers */
	sigset_t blocked_at_create; /* while the machine was created */
	sigset_t blocked_at_start;
	int free_at_create; /* the lowest number that no file had, from 3 */
	int free_at_start;
	const char *console_says; /* to a viewer, who is left then */
	int started_fd;           /* if it is not 0, a byte is written there by hospes_vm_start */
} fake;

/* Run a command; its status. What it prints is in fake_out and fake_err. */
int fake_run(int (*run)(int argc, char **argv), const char *const *words);
extern char fake_out[8192], fake_err[8192];

#endif
