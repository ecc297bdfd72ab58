/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening what a document names (what devices need is in their kinds' headers). Each failure is one
 * line that says what was tried and the remedy. Results are O_CLOEXEC fds that the caller owns;
 * nothing here waits for a peer.
 *
 * Threads: no state; any thread.
 */
#ifndef MACHINE_OPEN_H
#define MACHINE_OPEN_H

#include "base/err.h"
#include "core/kvm.h"
#include "machine/config.h"

/* Fill in kvm->fd, by kvm->calls: /dev/kvm, or a duplicate of fd if that is above 0. Checks the API
 * version. */
int open_kvm(struct kvm *kvm, int fd, struct err *err);

/* A file that is read at start; what is "kernel" or "initrd". */
int open_boot_file(const char *what, const char *path, struct err *err);

/* The size in bytes now: files and block devices. */
int open_disk_size(int fd, uint64_t *ret);

/* A file, terminal or pipe that output of `what` (its id) goes to: created for this user alone or
 * emptied, never by way of a link. */
int open_output(const char *what, const char *id, const char *path, struct err *err);

/* Where unpacked kernels are kept: *ret is malloc'ed, or NULL when there is no place for a
 * cache. */
int open_cache_dir(const struct config_kernel *kernel, char **ret, struct err *err);

#endif
