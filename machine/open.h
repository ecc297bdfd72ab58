/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening what a document names: KVM, kernels, disks, taps, sockets. Each failure is one line that
 * says what was tried and the way out. Results are O_CLOEXEC fds that the caller owns.
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

struct open_disk {
	int fd;
	uint64_t size_bytes;
	uint32_t align_bytes;
	uint32_t block_bytes; /* the document's, or the least that direct access allows */
	bool block_device;
};
/* Opens (or duplicates), checks and locks: a writable disk for this machine alone, a read-only one
 * against writers. */
int open_disk(const struct config_disk *disk, struct open_disk *ret, struct err *err);
/* The size in bytes now: files and block devices. */
int open_disk_size(int fd, uint64_t *ret);

/* One fd per queue pair, IFF_VNET_HDR set. fds: disk->queues entries, filled with -1 on failure. */
int open_net(const struct config_net *net, int *fds, struct err *err);
/* /dev/vhost-net, once per queue pair. */
int open_vhost(const struct config_net *net, int *fds, struct err *err);

/* Where unpacked kernels are kept: *ret is malloc'ed, or NULL when there is no place for a cache. */
int open_cache_dir(const struct config_kernel *kernel, char **ret, struct err *err);

#endif
