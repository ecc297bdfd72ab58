/* SPDX-License-Identifier: Apache-2.0 */
/* A serial port and the two ends of its line, for tests. */
#ifndef TESTS_PLATFORM_LINE_H
#define TESTS_PLATFORM_LINE_H

#include <fcntl.h>
#include <unistd.h>

#include "base/fd.h"
#include "harness.h"
#include "platform/serial.h"

enum {
	PORT = PLATFORM_SERIAL_PORT,
	GSI = PLATFORM_SERIAL_GSI,
	RBR = PORT,
	THR = PORT,
	IER = PORT + 1,
	IIR = PORT + 2,
	FCR = PORT + 2,
	LCR = PORT + 3,
	MCR = PORT + 4,
	LSR = PORT + 5,
	MSR = PORT + 6,
	SCR = PORT + 7,
};

/* A serial port on a harness of its own; pipes are its input and output. */
struct line {
	struct harness h;
	struct device *dev;
	int in[2], out[2];
	uint64_t patience_ns; /* before line_init */
};

static inline void line_init(struct line *l, bool in, bool out)
{
	struct err err = ERR_INIT;

	harness_init(&l->h);
	cr_assert_eq(pipe2(l->in, O_CLOEXEC), 0);
	cr_assert_eq(pipe2(l->out, O_CLOEXEC), 0);
	struct serial_config config = {
		.name = "serial0",
		.port = PORT,
		.gsi = GSI,
		.in_fd = in ? l->in[0] : -1,
		.out_fd = out ? l->out[1] : -1,
		.patience_ns = l->patience_ns,
	};
	cr_assert_eq(serial_create(&l->dev, &l->h.env, &config, &err), 0, "%s", err.text);
}

static inline void line_done(struct line *l)
{
	harness_stop(&l->h);
	if (l->dev)
		l->dev->ops->destroy(l->dev);
	harness_done(&l->h);
	for (int i = 0; i < 2; i++) {
		fd_close(&l->in[i]);
		fd_close(&l->out[i]);
	}
}

#endif
