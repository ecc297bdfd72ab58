/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One debugger's session: gdb's remote serial protocol, between bytes and a target. There is no
 * machine and no socket in here; `struct gdb_target` is what it debugs. The vCPUs are the threads
 * of one process, in all-stop mode: either all stand still, and the client asks and changes, or
 * the target runs and the client waits for the stop, or asks for one.
 *
 *   gdb_session_begin ──► stopped ⇄ running ──► ended (detached, killed, the protocol given up)
 *
 * The client may be hostile: packets are bounded, nothing grows, what it says wrongly is refused by
 * an error ("E16", an errno), and while the target runs no call of it reaches the target but
 * `interrupt`.
 *
 * Threads: the caller's, one at a time.
 */
#ifndef GDB_SESSION_H
#define GDB_SESSION_H

#include "core/debug.h"
#include "gdb/packet.h"

enum { GDB_MAX_THREADS = 255 };

enum gdb_action { GDB_HOLD, GDB_CONTINUE, GDB_STEP };

/* Threads are numbered from 0 here, and from 1 in the protocol. 0 or a negative errno. */
struct gdb_target_ops {
	int (*get_regs)(void *opaque, unsigned int thread, uint8_t regs[DEBUG_REGS_BYTES]);
	int (*set_regs)(void *opaque, unsigned int thread, const uint8_t regs[DEBUG_REGS_BYTES]);
	/* Memory as the thread sees it. read: how many bytes could be, from the first on. */
	int (*read)(void *opaque, unsigned int thread, uint64_t gva, uint8_t *buf, size_t n);
	int (*write)(void *opaque, unsigned int thread, uint64_t gva, const uint8_t *buf, size_t n);
	/* -EOPNOTSUPP: it has no such breakpoints. Inserting twice, and removing what is not there,
	 * do nothing. */
	int (*insert)(void *opaque, unsigned int thread, const struct debug_point *point);
	int (*remove)(void *opaque, const struct debug_point *point);
	/* Until gdb_session_stopped. actions: of each thread. */
	int (*resume)(void *opaque, const enum gdb_action *actions);
	/* Stop it; gdb_session_stopped follows, perhaps within the call. */
	void (*interrupt)(void *opaque);
	/* One line about a thread. */
	void (*describe)(void *opaque, unsigned int thread, char *text, size_t bytes);
	/* The session ends with this: the target goes on as if there were no debugger; or it is
	 * ended. */
	void (*detach)(void *opaque);
	void (*kill)(void *opaque);
};

struct gdb_target {
	const struct gdb_target_ops *ops;
	void *opaque;
	unsigned int n_threads; /* 1 to GDB_MAX_THREADS */
	const char *description;
	unsigned int n_regs;
	struct debug_reg regs[DEBUG_REGS];
};

enum gdb_reason {
	GDB_INTERRUPTED,
	GDB_STEPPED,
	GDB_SOFT_BREAK,
	GDB_HARD_BREAK,
	GDB_WATCH, /* write */
	GDB_ACCESS,
};
struct gdb_stop {
	enum gdb_reason reason;
	unsigned int thread;
	uint64_t gva; /* of a WATCH or ACCESS */
};

struct gdb_session {
	const struct gdb_target *target;
	struct gdb_reader reader;
	struct gdb_stop stop; /* the last */
	bool running;
	bool waits; /* the packet at hand is answered by a stop */
	bool ended;
	bool no_acks, says_soft, says_hard; /* what the client asked for */
	unsigned int thread;                /* that `g`, `m` and the like are about */
	unsigned int step_thread;      /* that `c` and `s` are about, or all: GDB_MAX_THREADS */
	char data[GDB_PACKET_MAX + 1]; /* an answer on its way into the frame */
	size_t n_data;
	/* To be sent: out[sent] to out[n_out - 1]. */
	size_t sent, n_out, last; /* last: where the last packet begins; n_out: there is none */
	char out[GDB_FRAME_MAX + 16];
};

/* The target stands still. */
void gdb_session_begin(struct gdb_session *s, const struct gdb_target *target);
/* Bytes of the client, when nothing is left to be sent. Returns how many were used: up to the end
 * of one packet, if there is one. */
size_t gdb_session_input(struct gdb_session *s, const uint8_t *bytes, size_t n);
/* The target, which was running, has stopped. */
void gdb_session_stopped(struct gdb_session *s, const struct gdb_stop *stop);
/* It has ended, with this status, and the session with it. */
void gdb_session_exited(struct gdb_session *s, uint8_t status);

#endif
