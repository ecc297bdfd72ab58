/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libhospes-control: a machine is controlled by others, over HTTP/1.1 on a UNIX socket
 * (docs/control.md, docs/openapi.json). A client of <hospes/hospes.h> like any other: programs that
 * want no server link without this library.
 *
 * It has no thread. The embedder polls one file descriptor and calls hospes_control_iterate, as
 * with hospes_vm_fd. Requests call the library in that thread: where the machine runs in another
 * one, they wait for it.
 *
 * Whoever may connect owns the machine. Peers of another user are refused, but root; the socket
 * should have mode 0600, or lie in a directory of mode 0700.
 *
 * Threads: hospes_control_event may be called from any; all others from one at a time. Errors: 0 or
 * a negative errno, with the message in *error (may be NULL).
 */
#ifndef HOSPES_CONTROL_H
#define HOSPES_CONTROL_H

#include <hospes/hospes.h>

#ifdef __cplusplus
extern "C" {
#endif

struct hospes_control;

/* Memory only, no file descriptor: it can exist before the machine, whose events it keeps. */
HOSPES_API int hospes_control_create(struct hospes_control **control, struct hospes_error *error);

/* Call this in the machine's hospes_event_fn. The last 128 events are kept for readers. It does not
 * block. */
HOSPES_API void hospes_control_event(struct hospes_control *control,
				     const struct hospes_event *event);

/* Accept connections, once, for this machine, which must live as long as hospes_control_iterate is
 * called. listen_fd: a UNIX stream socket that listens. It is duplicated, and made non-blocking;
 * the caller's stays open. */
HOSPES_API int hospes_control_serve(struct hospes_control *control, struct hospes_vm *vm,
				    int listen_fd, struct hospes_error *error);

/* After hospes_control_serve: poll it for input. iterate: do work without waiting for a client; fd
 * stays readable while there is more. */
HOSPES_API int hospes_control_fd(struct hospes_control *control);
HOSPES_API int hospes_control_iterate(struct hospes_control *control);

/* Close every connection. NULL is allowed. No event may come any more: where the machine's callback
 * passes them on, the machine is destroyed before. */
HOSPES_API void hospes_control_destroy(struct hospes_control *control);

#ifdef __cplusplus
}
#endif

#endif
