/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libhospes: virtual machines for Linux KVM, as a library.
 *
 * A machine is created from a configuration document (JSON; docs/configuration.md), started,
 * paused, resumed, reset, asked to power off, stopped and destroyed. Many machines may live in one
 * process: the library has no globals, installs no signal handlers, never exits, and starts only
 * these threads: one per vCPU, one per I/O thread in the document, and, with HOSPES_VM_THREAD, one
 * that runs the machine.
 *
 *     created ── start ──► running ⇄ paused ── … ──► stopped        (hospes_vm_state)
 *
 * Errors: functions return 0 or a negative errno, and leave one line of text in the caller's
 * struct hospes_error, which names the thing, the value and the remedy.
 *
 * Threads: a machine belongs to the thread that runs it: the library's (HOSPES_VM_THREAD), or the
 * embedder's, who calls hospes_vm_run, or hospes_vm_iterate whenever the fd of hospes_vm_fd polls
 * readable. Every function on a machine except destroy may be called from any thread. Calls that
 * change its state run in the machine's thread and return when they are done; so with the
 * embedder's loop, another thread that makes such a call waits for the next iteration. (The
 * library's thread exists from the start to the end; before and after, callers take turns in its
 * place.) Callbacks run in library threads: they must not block, and must not call back into the
 * same machine, except hospes_vm_state. No call waits for ever for a guest: -ETIMEDOUT means that
 * the machine's thread has not answered for 30 s because of this host. A change of the state is
 * then made when it does.
 *
 * The library's threads are confined (the document's "sandbox"; docs/security.md): what a guest
 * makes of one cannot open, connect or start anything. Nor can a callback that runs in one: it uses
 * what is open (a log, a pipe, a connected socket), and leaves the rest to a thread of the
 * embedder's. Those are never touched, unless they ask for it (hospes_vm_confine).
 *
 * File descriptors: the library opens what it needs at the lowest free numbers, as any program
 * does. Keep 0, 1 and 2 open (on /dev/null, where there is nothing better): otherwise a file of the
 * library's gets the number that the rest of the process takes for standard input or output. What a
 * document names by number has to be open before the call.
 *
 * ABI: structures begin with their size and grow only at the end; set `size` to sizeof. Symbols
 * have versions. Text and documents are UTF-8.
 */
#ifndef HOSPES_H
#define HOSPES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HOSPES_API __attribute__((visibility("default")))

struct hospes_vm;

/* The caller's, reusable. text is one line, always terminated, "" after success. */
struct hospes_error {
	int code; /* negative errno */
	char text[768];
};

/* "0.1.0". Static storage. */
HOSPES_API const char *hospes_version(void);

enum hospes_log_level {
	HOSPES_LOG_ERROR,
	HOSPES_LOG_WARNING,
	HOSPES_LOG_INFO,
	HOSPES_LOG_DEBUG,
};

enum hospes_state {
	HOSPES_CREATED,
	HOSPES_RUNNING,
	HOSPES_PAUSED,
	HOSPES_STOPPED,
};

/* Why a stopped machine stopped. */
enum hospes_outcome {
	HOSPES_OUTCOME_NONE,        /* it is not stopped */
	HOSPES_OUTCOME_POWERED_OFF, /* by the guest */
	HOSPES_OUTCOME_RESET,       /* by the guest, and the document says on_reset: stop */
	HOSPES_OUTCOME_KILLED,      /* by hospes_vm_stop */
	HOSPES_OUTCOME_PANICKED,    /* the guest's kernel reported it (pvpanic) */
	HOSPES_OUTCOME_CRASHED,     /* triple fault */
	HOSPES_OUTCOME_ERROR,       /* KVM or the host failed; the log has the registers */
	HOSPES_OUTCOME_MIGRATED,    /* it runs at the target of a migration */
};

enum hospes_event_type {
	HOSPES_EVENT_STATE,        /* state changed: value is enum hospes_state */
	HOSPES_EVENT_OUTCOME,      /* about to stop: value is enum hospes_outcome */
	HOSPES_EVENT_RESET,        /* the guest was reset and goes on */
	HOSPES_EVENT_DEVICE_ERROR, /* text names the device and the error */
	/* Of passed-through devices; value is the index in the document's list (of one that was
	 * added later: the lowest that was free). */
	HOSPES_EVENT_DEVICE_REQUESTED, /* the host requests it: it is removed from the guest */
	HOSPES_EVENT_DEVICE_GONE,      /* it no longer responds: likewise */
	HOSPES_EVENT_DEVICE_RESET,     /* it was reset */
	HOSPES_EVENT_DEVICE_RELEASED,  /* the guest no longer has it; the host may use it */
	HOSPES_EVENT_DMA_FAULT,        /* text: the device, the address, its last mapping */
	/* Of hospes_vm_device_add and hospes_vm_device_remove. */
	HOSPES_EVENT_DEVICE_ADDED,
	HOSPES_EVENT_DEVICE_REMOVED, /* value 1: the guest had not given it up */
	HOSPES_EVENT_DEVICE_KEPT,    /* the guest did not give it up in time; text: why */
	HOSPES_EVENT_STRATEGY, /* the strategy 'auto' of a device has chosen; text: what, and why */
	HOSPES_EVENT_BALLOON,  /* the balloon holds what it was set to; text: its bytes */
	HOSPES_EVENT_DUMPED,   /* hospes_vm_dump has ended: value 0, or a negative errno and why */
	/* There are other vCPUs, or hospes_vm_set_cpus has ended: value is how many there are, text
	 * "", or why they are not as many as were wanted. */
	HOSPES_EVENT_CPUS,
	/* There is another amount of memory, or hospes_vm_set_memory has ended: value is how many
	 * MiB there are, text "", or why they are not as many as were wanted. */
	HOSPES_EVENT_MEMORY,
	/* hospes_vm_snapshot has ended: value 0, or a negative errno and why. */
	HOSPES_EVENT_SNAPSHOT,
	/* A round of hospes_vm_migrate is over: value is its number; text: what was sent and is
	 * left. */
	HOSPES_EVENT_MIGRATING,
	/* A migration has ended, at either side: value 0, and the machine runs at the target; a
	 * negative errno and why, and it is at the source; or -EINPROGRESS: this side does not
	 * know, and stands still until hospes_vm_resume or hospes_vm_stop decides. */
	HOSPES_EVENT_MIGRATED,
};

struct hospes_event {
	size_t size;
	enum hospes_event_type type;
	int value;
	const char *text; /* may be ""; valid during the call */
	/* Likewise: its id, for STRATEGY, BALLOON, DEVICE_ADDED to _KEPT; else NULL. */
	const char *device;
};

/* Any library thread may call these, several at a time. */
typedef void hospes_log_fn(void *opaque, enum hospes_log_level level, const char *component,
			   const char *text);
typedef void hospes_event_fn(void *opaque, const struct hospes_event *event);

enum {
	HOSPES_VM_THREAD = 1 << 0, /* the library runs the machine in a thread of its own */
};

/* All zero but `size` is a valid choice: silent, embedder's loop, /dev/kvm. */
struct hospes_vm_options {
	size_t size;
	unsigned int flags;
	hospes_log_fn *log;
	void *log_opaque;
	enum hospes_log_level log_level;
	hospes_event_fn *event;
	void *event_opaque;
	/* An open /dev/kvm, which stays the caller's; 0: the library opens it. */
	int kvm_fd;
};

/* Parse and validate without creating or opening anything. *effective (if not NULL) is then the
 * document with every default filled in: free it with hospes_free. */
HOSPES_API int hospes_config_check(const char *json, size_t length, char **effective,
				   struct hospes_error *error);

/* Create: everything is opened, mapped and placed, nothing runs. File descriptors in the document
 * are duplicated; the caller's stay open. options may be NULL. On failure everything is undone. */
HOSPES_API int hospes_vm_create(struct hospes_vm **vm, const char *json, size_t length,
				const struct hospes_vm_options *options,
				struct hospes_error *error);

/* Stop it if it runs, and free everything. NULL is allowed. No other thread may be in a call on
 * it. It waits, without bound, for what hospes_vm_stop gives up on: nothing of a machine can be
 * freed while one of its threads is in the kernel. Whoever may not wait does not destroy such a
 * machine, keeps what its callbacks use, and leaves it to the end of the process, which the kernel
 * ends in the order that is safe. */
HOSPES_API void hospes_vm_destroy(struct hospes_vm *vm);

HOSPES_API int hospes_vm_start(struct hospes_vm *vm, struct hospes_error *error);
HOSPES_API int hospes_vm_pause(struct hospes_vm *vm, struct hospes_error *error);
HOSPES_API int hospes_vm_resume(struct hospes_vm *vm, struct hospes_error *error);
/* Press the power button; the guest decides what to do. For a minute it is pressed again and again:
 * the first press only wakes a guest that sleeps, and one that boots may miss it. */
HOSPES_API int hospes_vm_shutdown(struct hospes_vm *vm, struct hospes_error *error);
HOSPES_API int hospes_vm_reset(struct hospes_vm *vm, struct hospes_error *error);
/* Stop it now, whatever the guest is doing. -ETIMEDOUT (after 30 s at most): something of this
 * host, such as storage or the driver of a device, holds one of the machine's threads; another call
 * tries again. Where that is of no use, end the process: the kernel then closes VFIO devices, which
 * ends their DMA and resets them, before it gives up the memory that they reach. */
HOSPES_API int hospes_vm_stop(struct hospes_vm *vm, struct hospes_error *error);

/* Any thread, any time, also in callbacks. */
HOSPES_API enum hospes_state hospes_vm_state(const struct hospes_vm *vm);
HOSPES_API enum hospes_outcome hospes_vm_outcome(const struct hospes_vm *vm);

/* Wait until it has stopped: 0, or -ETIMEDOUT; timeout_ms -1: no limit. Not in the thread that runs
 * the machine. */
HOSPES_API int hospes_vm_wait(struct hospes_vm *vm, int timeout_ms);

/* The embedder's loop. fd: poll it for input. iterate: do all pending work without blocking; 1
 * while the machine lives, 0 when it has stopped, or a negative errno. run: iterate until stopped.
 * -EBUSY for a machine with a thread of its own. */
HOSPES_API int hospes_vm_fd(struct hospes_vm *vm);
HOSPES_API int hospes_vm_iterate(struct hospes_vm *vm);
HOSPES_API int hospes_vm_run(struct hospes_vm *vm);

/* Confine the calling thread, for good, as the machine's own are (docs/security.md): for a program
 * that has opened all it needs and only serves this machine from now on. By path it can then open
 * nothing, and remove files only below the directory `removes` (NULL: none), where its sockets are.
 * Without effect where the document says "sandbox": "off". */
HOSPES_API int hospes_vm_confine(struct hospes_vm *vm, const char *removes,
				 struct hospes_error *error);

/* Status as a JSON document (docs/configuration.md): state, exits, devices with their addresses and
 * counters. Free with hospes_free. */
HOSPES_API int hospes_vm_status(struct hospes_vm *vm, char **json, struct hospes_error *error);

/* The registers of every vCPU, as lines of text for people. A running machine is paused while they
 * are read. Free with hospes_free. */
HOSPES_API int hospes_vm_registers(struct hospes_vm *vm, char **text, struct hospes_error *error);

/* Write memory and registers of the guest into this file, as an ELF core for gdb, crash or drgn:
 * what the file held is gone, what is zero is a hole, memory lies at its physical address. The
 * machine is paused meanwhile; the call returns when that has begun, and HOSPES_EVENT_DUMPED says
 * how it ended. Then the machine goes on, if it was running: hospes_vm_pause and hospes_vm_resume
 * change that in the meantime. fd: a regular file that is open for writing; it is duplicated.
 * -EALREADY: one is being written; -EBUSY: not started, or stopped. */
HOSPES_API int hospes_vm_dump(struct hospes_vm *vm, int fd, struct hospes_error *error);

/* Write the whole machine into two files (docs/snapshots.md), from which another can be made, by a
 * document with `restore`: *document is the one of this machine, without file descriptors, for
 * hospes_free. The machine is paused meanwhile; the call returns when the state is written, and
 * HOSPES_EVENT_SNAPSHOT says how it ended with memory; pausing, resuming and files as with
 * hospes_vm_dump. Disks are the caller's to copy, while the machine is paused. -EOPNOTSUPP names a
 * device that cannot be saved. */
HOSPES_API int hospes_vm_snapshot(struct hospes_vm *vm, int state_fd, int memory_fd,
				  char **document, struct hospes_error *error);

/* Move the machine to the other end of this socket, while it runs (docs/migration.md): there,
 * hospes_migration_document is called on the other end, and a machine is made from a document with
 * `incoming`, and started. fd: a connected stream socket, duplicated. downtime_ms: how long the
 * guest may stand still, which decides when memory is sent for the last time. The call returns when
 * it has begun; HOSPES_EVENT_MIGRATING tells how far it is, HOSPES_EVENT_MIGRATED how it ended.
 * -EOPNOTSUPP names a device that cannot be moved; -EBUSY: one is under way. */
HOSPES_API int hospes_vm_migrate(struct hospes_vm *vm, int fd, unsigned int downtime_ms,
				 struct hospes_error *error);
/* Keep it here, as long as the target was not asked to go on (-EBUSY). -ENOENT: there is none. */
HOSPES_API int hospes_vm_migrate_cancel(struct hospes_vm *vm, struct hospes_error *error);
/* Could it be migrated? *report is a JSON document for hospes_free: "possible", and "obstacles", a
 * text each. */
HOSPES_API int hospes_vm_migrate_check(struct hospes_vm *vm, char **report,
				       struct hospes_error *error);
/* At the target, before the machine is made: read from the stream which machine comes. *document,
 * for hospes_free, has what the guest sees of it, and no path, name or descriptor: where disks,
 * networks, consoles and the kernel are is for the caller to add, and `incoming`, with the number
 * of this fd. Waits 30 s at most for the source. -EPROTO: what came is no migration. */
HOSPES_API int hospes_migration_document(int fd, char **document, struct hospes_error *error);

/* Add one device: {"KIND": OBJECT}, where KIND is "disk", "net", "console", "rng", "balloon" or
 * "passthrough", and OBJECT what the document has for it (docs/configuration.md), fds included,
 * which are duplicated. A machine that has started puts it behind a spare PCIe root port, and its
 * guest finds it there; the object names no address then. It is in the machine when the call
 * returns (HOSPES_EVENT_DEVICE_ADDED); the guest takes a moment more. *device (if not NULL) is
 * then the device as the status has it, with its id: free it with hospes_free. On failure nothing
 * has changed. -ENOSPC: no port is free (pci.root_ports), or no more devices of the kind;
 * -EEXIST: the id or the device is in the machine; -EBUSY: in use elsewhere, or the machine has
 * stopped; -EOPNOTSUPP: no guest can find such a device once it runs. Opening, and mapping memory
 * for a passed-through device, is done in the machine's thread, while the guest goes on; with
 * HOSPES_VM_THREAD and a sandbox that thread opens nothing (-EACCES), so the object gives fds. */
HOSPES_API int hospes_vm_device_add(struct hospes_vm *vm, const char *json, size_t length,
				    char **device, struct hospes_error *error);

enum { HOSPES_DEVICE_FDS = 8 /* of one device, at most */ };

/* The machine that a device is opened for, as its status says; all zero but `size` is a valid
 * choice. */
struct hospes_open_options {
	size_t size;
	const char *iommu; /* "iommu", "backend": "auto", "iommufd", "type1"; NULL: auto */
	int has_iommufd;   /* "iommu", "iommufd": it needs no other */
};
/* For a machine of another process, which opens nothing for its clients (docs/control.md): open
 * what this device names by path, address or name, by the rules that hospes_vm_create has. json: as
 * for hospes_vm_device_add; its fds are duplicated. *device: the same, with places in fds, from 0,
 * where a document has numbers: free it with hospes_free. The n_fds descriptors are the caller's to
 * send and to close. No machine is needed; options may be NULL. */
HOSPES_API int hospes_device_open(const char *json, size_t length,
				  const struct hospes_open_options *options, char **device,
				  int fds[HOSPES_DEVICE_FDS], unsigned int *n_fds,
				  struct hospes_error *error);

enum {
	HOSPES_REMOVE_FORCE = 1 << 0, /* when its time is over, pull the device out of its slot */
};
/* Remove a device with the guest's consent: its slot's attention button is pressed, and the guest
 * has timeout_ms to give the device up (Linux takes 6 s); the call returns meanwhile. One event
 * follows: HOSPES_EVENT_DEVICE_REMOVED, when all that the device held of this host is given back
 * and its port is free, or HOSPES_EVENT_DEVICE_KEPT with the reason. With HOSPES_REMOVE_FORCE the
 * device goes in any case; with timeout_ms 0 at once, before the call returns (but where this host
 * holds a vCPU in an exit, that comes first). A guest that is reset gives everything up, and so
 * does one that has the slot off; before the start no guest is asked. -ENOENT: no such device;
 * -EALREADY: the guest is asked already (force shortens its time); -EOPNOTSUPP: not behind a root
 * port, so only force removes it, and the guest is not told; -EBUSY: paused, or stopped. */
HOSPES_API int hospes_vm_device_remove(struct hospes_vm *vm, const char *id,
				       unsigned int timeout_ms, unsigned int flags,
				       struct hospes_error *error);

/* The disk's backing has a new size (0: ask the file) in bytes, a multiple of 512, and not more
 * than the file or block device has now. */
HOSPES_API int hospes_vm_disk_resize(struct hospes_vm *vm, const char *id, uint64_t size_bytes,
				     struct hospes_error *error);
/* Switch the passed-through devices behind the virtual IOMMU to another strategy (hospes_iommu_list
 * names them; "NAME" or "NAME,key=value") while they work: existing guest mappings stay reachable
 * throughout. -ENODEV: no device is behind a virtual IOMMU. On failure nothing has changed. */
HOSPES_API int hospes_vm_set_strategy(struct hospes_vm *vm, const char *strategy,
				      struct hospes_error *error);
/* How much a disk or a network may move in a second, from now on: bytes (at least 1024), and
 * requests (of a network: packets, and each way has the limit for itself). 0: no limit;
 * HOSPES_KEEP: as it is. -EOPNOTSUPP: a device of another kind, or one that vhost serves. */
#define HOSPES_KEEP UINT64_MAX
HOSPES_API int hospes_vm_set_rate(struct hospes_vm *vm, const char *id, uint64_t bytes_per_s,
				  uint64_t ops_per_s, struct hospes_error *error);
/* What the balloon is to hold: so much is taken from the guest's memory, and the host has it. The
 * guest's driver follows, as fast and as far as it can: HOSPES_EVENT_BALLOON when it is there.
 * -ENOENT: the machine has no balloon; -EINVAL: not a multiple of 4096, or all of the memory. */
HOSPES_API int hospes_vm_balloon(struct hospes_vm *vm, uint64_t bytes, struct hospes_error *error);
/* How many vCPUs there are, 1 to the document's cpus.max, while the guest runs: the call returns
 * when the guest has been notified, by ACPI, and HOSPES_EVENT_CPUS says how it ended. More are in
 * the machine at once, the guest's to use (Linux: once they are online). Fewer: the guest is asked
 * for the last ones, and gives them up or not, within 30 s; the next call replaces what was asked.
 * A guest that is reset starts with those that there are. -EINVAL: 0, or more than cpus.max;
 * -EOPNOTSUPP: there can be no others (cpus.max); -EBUSY: not running, or the guest does not
 * listen. */
HOSPES_API int hospes_vm_set_cpus(struct hospes_vm *vm, unsigned int count,
				  struct hospes_error *error);
/* How much memory there is, from the document's memory.size to its memory.max, while the guest
 * runs: the call returns when the guest has been notified, by ACPI, and HOSPES_EVENT_MEMORY says
 * how it ended. More is mapped for the guest and its devices before the call returns, or the call
 * fails and there is no more than before. Less: the guest is asked for the last units, and gives
 * them up or not, within 30 s; the next call replaces what was asked. A guest that is reset starts
 * with what there is. -EINVAL: out of bounds, or not a whole number of units beside memory.size
 * (the message names the nearest sizes); -EOPNOTSUPP: there can be no other (memory.max); -EBUSY:
 * not running, or the guest does not listen; -ENOMEM and others: it cannot be mapped, and why. */
HOSPES_API int hospes_vm_set_memory(struct hospes_vm *vm, uint64_t bytes,
				    struct hospes_error *error);
/* Link of a network device: up is 0 or 1. */
HOSPES_API int hospes_vm_net_link(struct hospes_vm *vm, const char *id, int up,
				  struct hospes_error *error);
/* Size of the terminal behind a virtio console, in characters. */
HOSPES_API int hospes_vm_console_resize(struct hospes_vm *vm, const char *id, uint16_t columns,
					uint16_t rows, struct hospes_error *error);
enum {
	HOSPES_VIEW_TAKE = 1 << 0, /* in the place of another viewer */
};
/* Look at a console and type on it, by a socket: one end of a socketpair (AF_UNIX, SOCK_STREAM),
 * which is duplicated. What the guest writes from now on goes there too, and still to where it goes
 * anyway; what is sent there is the guest's input, and that of the console's own `in` waits. It
 * ends when the other end is closed, or the machine or the console ends. A viewer who does not read
 * costs the machine nothing: output beyond 64 KiB is lost to him, and a line says how much. One at
 * a time: -EBUSY; with HOSPES_VIEW_TAKE the other one's socket is closed. -EINVAL: no stream
 * socket. */
HOSPES_API int hospes_vm_console_view(struct hospes_vm *vm, const char *id, int fd,
				      unsigned int flags, struct hospes_error *error);

/* SR-IOV: virtual functions (VFs) of a card's physical function (PF). No machine is needed. A
 * device is named by its address ("0000:01:10.0", "01:10.0") or a path in sysfs. A call that fails
 * changes nothing. Calls that change something need root, and may wait seconds for the device. */

/* Every PF with its VFs, as JSON (hospes-vf(1)). Free with hospes_free. */
HOSPES_API int hospes_vf_list(char **json, struct hospes_error *error);
/* Create VFs without a driver. *json (if not NULL) is then the PF as in the list. -EBUSY: it has
 * VFs. */
HOSPES_API int hospes_vf_create(const char *pf, unsigned int count, char **json,
				struct hospes_error *error);
/* Remove all VFs. -EBUSY: one is in use; the text names its user. */
HOSPES_API int hospes_vf_destroy(const char *pf, struct hospes_error *error);
/* Set what the PF enforces for the VF: an object with some of "mac", "vlan", "qos", "trust",
 * "spoofchk", "min_mbps", "max_mbps", "link_state" ("auto", "enable", "disable"). Each is read
 * back. -EOPNOTSUPP: the PF's driver lacks such a setting. */
HOSPES_API int hospes_vf_set(const char *vf, const char *json, size_t length,
			     struct hospes_error *error);
/* Bind any PCI function to a driver; NULL: vfio-pci. driver_override keeps other drivers away until
 * unbind. -EBUSY: it is in use. -ENOENT: the driver is not loaded. */
HOSPES_API int hospes_device_bind(const char *device, const char *driver,
				  struct hospes_error *error);
/* Give the nodes in /dev/vfio of a function that vfio-pci has to a user, who may then open it, and
 * its group, until it is unbound. /dev/iommu, which is empty without a device, stays as it is.
 * -ENODEV: vfio-pci does not have it. -EPERM: this process may not. */
HOSPES_API int hospes_device_own(const char *device, uid_t uid, struct hospes_error *error);
/* Leave it without a driver. */
HOSPES_API int hospes_device_unbind(const char *device, struct hospes_error *error);

/* --- the host --- */

/* The properties of the future machine that matter here; all zero but `size` is a valid choice. */
struct hospes_explain_options {
	size_t size;
	uint64_t memory_bytes;      /* of the guest; 0: not known */
	const char *iommu;          /* "auto", "iommufd", "type1"; NULL: auto */
	int vfio_fd, iommufd;       /* that will be handed in; 0: opened by the library */
	unsigned int other_vectors; /* "msix_vectors" of the guest's other devices together */
	const char *backing; /* of the memory, as memory.backing; NULL: auto, and not shared */
};
/* Will passthrough of this device work here, and if not, what is the remedy? device: an address
 * ("0000:01:10.0"), a path in sysfs or of a VFIO device. *json: {"works": bool, "msix_vectors":
 * int, "findings": [{"level": "ok"|"warning"|"blocker", "topic", "fact", "remedy"}], ...}; free it
 * with hospes_free. Returns 0 whatever is found; changes nothing. options may be NULL. */
HOSPES_API int hospes_device_explain(const char *device,
				     const struct hospes_explain_options *options, char **json,
				     struct hospes_error *error);
/* The host's IOMMUs, groups and devices with their isolation, its limits, and the library's mapping
 * strategies, as a JSON document; free it with hospes_free. */
HOSPES_API int hospes_iommu_list(char **json, struct hospes_error *error);

struct hospes_bench_options {
	size_t size;
	const char *backend; /* "iommufd", "type1", "both"; NULL: both */
	uint64_t max_bytes;  /* the largest mapping; 0: 1 GiB, or a quarter of the free memory */
	int quick;           /* fewer sizes and repetitions */
	/* Called before each step, in the calling thread: its name, and how many of all steps are
	 * done. */
	void (*progress)(void *opaque, const char *what, unsigned int done, unsigned int total);
	void *opaque;
};
/* Measure what mapping and unmapping costs on this host, with a device that is bound to vfio-pci
 * and not in use (it does no DMA). *json: per backend the cost of an empty system call, medians by
 * size and backing with their parts, batches, threads; free it with hospes_free. options may be
 * NULL. Takes seconds to a minute. */
HOSPES_API int hospes_iommu_bench(const char *device, const struct hospes_bench_options *options,
				  char **json, struct hospes_error *error);

HOSPES_API void hospes_free(void *p);

#ifdef __cplusplus
}
#endif

#endif
