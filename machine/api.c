// SPDX-License-Identifier: Apache-2.0
// The public interface: argument checks and calls into the machine's thread, nothing else.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/fd.h"
#include "base/num.h"
#include "hospes/hospes.h"
#include "machine/api.h"
#include "machine/kind_balloon.h"
#include "machine/kind_console.h"
#include "machine/kind_disk.h"
#include "machine/kind_net.h"
#include "machine/vm.h"
#include "virtio/console.h"
#include "virtio/net.h"

static_assert((int)HOSPES_LOG_ERROR == (int)LOG_ERROR && (int)HOSPES_LOG_DEBUG == (int)LOG_DEBUG,
	      "public and internal log levels are the same");
static_assert(sizeof(((struct err *)0)->text) <= sizeof(((struct hospes_error *)0)->text),
	      "an internal message fits the public object");

const char *hospes_version(void)
{
	return HOSPES_VERSION;
}

void hospes_free(void *p)
{
	free(p);
}

int hospes_config_check(const char *json, size_t length, char **effective,
			struct hospes_error *error)
{
	struct err err = ERR_INIT;
	struct config config;
	int rc = config_read(&config, json, length, &err);

	if (rc == 0 && effective) {
		*effective = config_write(&config, true);
		if (!*effective)
			rc = err_set(&err, -ENOMEM, "no memory");
	}
	config_done(&config);
	return give(error, &err, rc);
}

static void log_out(void *opaque, enum log_level level, const char *component, const char *text)
{
	struct hospes_vm *vm = opaque;

	vm->options.log(vm->options.log_opaque, (enum hospes_log_level)level, component, text);
}

static void wake_done(struct loop_op *op, int result)
{
	(void)op;
	(void)result; /* the turn that this ends looks at commands and requests */
}

static void init_vm(struct hospes_vm *vm, const struct hospes_vm_options *options,
		    const struct kvm_calls *calls)
{
	pthread_condattr_t attr;

	if (options)
		memcpy(&vm->options, options, MIN(options->size, sizeof(vm->options)));
	vm->options.size = sizeof(vm->options);
	vm->kvm = (struct kvm){.fd = -1, .calls = calls};
	vm->log = (struct log){
		.fn = vm->options.log ? log_out : NULL,
		.opaque = vm,
		.level = (enum log_level)vm->options.log_level,
	};
	vm->wake.done = wake_done;
	vm->call_ns = VM_CALL_NS;
	vm->no_thread = vm->options.flags & HOSPES_VM_THREAD;
	vm_own(vm, true);
	list_init(&vm->plugged);
	list_init(&vm->devices);
	hotplug_init(vm);
	list_init(&vm->commands);
	pthread_mutex_init(&vm->mutex, NULL);
	pthread_mutex_init(&vm->acting, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&vm->changed, &attr);
	pthread_condattr_destroy(&attr);
}

static void free_vm(struct hospes_vm *vm)
{
	vm_unbuild(vm);
	config_done(&vm->config);
	list_for_each_safe (item, &vm->commands) /* of callers that have given up */
		free(container_of(item, struct vm_command, link));
	pthread_cond_destroy(&vm->changed);
	pthread_mutex_destroy(&vm->acting);
	pthread_mutex_destroy(&vm->mutex);
	free(vm);
}

static int refuse_cloud_init(const struct config_cloud_init *c, struct err *err)
{
	if (!c->user && !c->key && !c->password && !c->hostname && !c->userdata)
		return 0;
	return err_set(err, -EOPNOTSUPP,
		       "cloud_init: 'hospes run' makes the disk for it, and the library does not: "
		       "give a disk with the file system CIDATA");
}

int vm_create(struct hospes_vm **ret, const char *json, size_t length,
	      const struct hospes_vm_options *options, const struct kvm_calls *calls,
	      struct hospes_error *error)
{
	struct err err = ERR_INIT;
	struct hospes_vm *vm;
	int rc;

	*ret = NULL;
	if (options && options->size < offsetof(struct hospes_vm_options, kvm_fd))
		return give(error, &err,
			    err_set(&err, -EINVAL,
				    "options.size is %zu: set it to sizeof(struct "
				    "hospes_vm_options)",
				    options->size));
	vm = calloc(1, sizeof(*vm));
	if (!vm)
		return give(error, &err, err_set(&err, -ENOMEM, "no memory"));
	init_vm(vm, options, calls);
	rc = config_read(&vm->config, json, length, &err);
	if (rc == 0)
		rc = config_check_fds(&vm->config, &err);
	if (rc == 0)
		rc = refuse_cloud_init(&vm->config.cloud_init, &err);
	if (rc == 0)
		rc = vm_build(vm, &err);
	if (rc) {
		free_vm(vm);
		return give(error, &err, rc);
	}
	/* Without a thread of its own the machine is its creator's until another one runs it. */
	vm_own(vm, !(vm->options.flags & HOSPES_VM_THREAD));
	*ret = vm;
	return give(error, &err, rc);
}

int hospes_vm_create(struct hospes_vm **ret, const char *json, size_t length,
		     const struct hospes_vm_options *options, struct hospes_error *error)
{
	return vm_create(ret, json, length, options, &kvm_kernel_calls, error);
}

void hospes_vm_destroy(struct hospes_vm *vm)
{
	if (!vm)
		return;
	/* The embedder's loop: nobody turns it any more, so this thread may. */
	if (!vm->thread_running)
		vm_own(vm, true);
	if (atomic_load(&vm->state) != HOSPES_CREATED)
		vm_call(vm, vm_do_stop, NULL, NULL);
	vm_join_thread(vm);
	free_vm(vm);
}

int hospes_vm_start(struct hospes_vm *vm, struct hospes_error *error)
{
	struct err err = ERR_INIT;
	int rc = vm_start_threads(vm, &err);

	if (!rc)
		rc = vm_call(vm, vm_do_start, NULL, &err);
	return give(error, &err, rc);
}

#define CALL(verb)                                                               \
	int hospes_vm_##verb(struct hospes_vm *vm, struct hospes_error *error)   \
	{                                                                        \
		struct err err = ERR_INIT;                                       \
                                                                                 \
		return give(error, &err, vm_call(vm, vm_do_##verb, NULL, &err)); \
	}
CALL(pause)
CALL(resume)
CALL(shutdown)
CALL(reset)
CALL(stop)

enum hospes_state hospes_vm_state(const struct hospes_vm *vm)
{
	return (enum hospes_state)atomic_load(&((struct hospes_vm *)vm)->state);
}

enum hospes_outcome hospes_vm_outcome(const struct hospes_vm *vm)
{
	return (enum hospes_outcome)atomic_load(&((struct hospes_vm *)vm)->outcome);
}

int hospes_vm_wait(struct hospes_vm *vm, int timeout_ms)
{
	struct timespec until;
	int rc = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	if (timeout_ms > 0) {
		until.tv_sec += timeout_ms / 1000;
		until.tv_nsec += timeout_ms % 1000 * 1000000l;
		until.tv_sec += until.tv_nsec / 1000000000l;
		until.tv_nsec %= 1000000000l;
	}
	pthread_mutex_lock(&vm->mutex);
	while (atomic_load(&vm->state) != HOSPES_STOPPED && rc == 0)
		rc = timeout_ms < 0 ? pthread_cond_wait(&vm->changed, &vm->mutex)
				    : pthread_cond_timedwait(&vm->changed, &vm->mutex, &until);
	rc = atomic_load(&vm->state) == HOSPES_STOPPED ? 0 : -ETIMEDOUT;
	pthread_mutex_unlock(&vm->mutex);
	return rc;
}

int hospes_vm_fd(struct hospes_vm *vm)
{
	if (vm->options.flags & HOSPES_VM_THREAD)
		return -EBUSY;
	return loop_fd(vm->loop);
}

int hospes_vm_iterate(struct hospes_vm *vm)
{
	int rc;

	if (vm->options.flags & HOSPES_VM_THREAD)
		return -EBUSY;
	vm_own(vm, true);
	rc = vm_iterate(vm, false);
	/* What callbacks submitted must be in the kernel before the embedder sleeps. */
	if (rc > 0) {
		int flushed = loop_flush(vm->loop);

		if (flushed < 0)
			rc = flushed;
	}
	return rc;
}

int hospes_vm_run(struct hospes_vm *vm)
{
	int rc;

	if (vm->options.flags & HOSPES_VM_THREAD)
		return -EBUSY;
	vm_own(vm, true);
	do
		rc = vm_iterate(vm, true);
	while (rc > 0);
	return rc;
}

int hospes_vm_confine(struct hospes_vm *vm, const char *removes, struct hospes_error *error)
{
	struct err err = ERR_INIT;

	return give(error, &err, sandbox_enter(vm->sandbox, removes, &err));
}

static int do_status(struct hospes_vm *vm, void *arg, struct err *err)
{
	char **json = arg;

	*json = vm_status(vm);
	return *json ? 0 : err_set(err, -ENOMEM, "no memory");
}

int hospes_vm_status(struct hospes_vm *vm, char **json, struct hospes_error *error)
{
	struct err err = ERR_INIT;

	return give(error, &err, vm_call(vm, do_status, json, &err));
}

int hospes_vm_registers(struct hospes_vm *vm, char **text, struct hospes_error *error)
{
	struct err err = ERR_INIT;

	return give(error, &err, vm_call(vm, vm_do_registers, text, &err));
}

int hospes_vm_dump(struct hospes_vm *vm, int fd, struct hospes_error *error)
{
	struct vm_dump_request request = {.fd = fd, .state_fd = -1};
	struct err err = ERR_INIT;

	return give(error, &err, vm_call(vm, vm_do_dump, &request, &err));
}

int hospes_vm_snapshot(struct hospes_vm *vm, int state_fd, int memory_fd, char **document,
		       struct hospes_error *error)
{
	struct err err = ERR_INIT;
	struct vm_dump_request request = {
		.fd = memory_fd, .state_fd = state_fd, .document = document};

	if (state_fd < 0)
		return give(error, &err, err_set(&err, -EBADF, "snapshot: no file for the state"));
	return give(error, &err, vm_call(vm, vm_do_dump, &request, &err));
}

/* A change of one device: what it is about, and to what. */
struct device_call {
	const char *id;
	const char *strategy;
	uint64_t size_bytes;
	uint64_t bytes_per_s, ops_per_s;
	bool up;
	uint16_t columns, rows;
};

static int do_disk_resize(struct hospes_vm *vm, void *arg, struct err *err)
{
	const struct device_call *call = arg;
	struct vm_device *disk = vm_find_device(vm, "disk", call->id, err);

	if (!disk)
		return -ENOENT;
	if (atomic_load(&vm->state) == HOSPES_STOPPED)
		return err_set(err, -EBUSY, "disk '%s': the machine has stopped", call->id);
	return disk_resize(disk, call->size_bytes, err);
}

int hospes_vm_disk_resize(struct hospes_vm *vm, const char *id, uint64_t size_bytes,
			  struct hospes_error *error)
{
	struct device_call call = {.id = id, .size_bytes = size_bytes};
	struct err err = ERR_INIT;

	return give(error, &err, vm_call(vm, do_disk_resize, &call, &err));
}

static int do_set_strategy(struct hospes_vm *vm, void *arg, struct err *err)
{
	const struct device_call *call = arg;

	if (atomic_load(&vm->state) == HOSPES_STOPPED)
		return err_set(err, -EBUSY, "strategy '%s': the machine has stopped",
			       call->strategy);
	return vm_viommu_switch(vm, call->strategy, err);
}

int hospes_vm_set_strategy(struct hospes_vm *vm, const char *strategy, struct hospes_error *error)
{
	struct device_call call = {.strategy = strategy};
	struct err err = ERR_INIT;

	return give(error, &err, vm_call(vm, do_set_strategy, &call, &err));
}

static int do_balloon(struct hospes_vm *vm, void *arg, struct err *err)
{
	const struct device_call *call = arg;

	if (atomic_load(&vm->state) == HOSPES_STOPPED)
		return err_set(err, -EBUSY, "balloon: the machine has stopped");
	return balloon_set(vm, call->size_bytes, err);
}

int hospes_vm_balloon(struct hospes_vm *vm, uint64_t bytes, struct hospes_error *error)
{
	struct device_call call = {.size_bytes = bytes};
	struct err err = ERR_INIT;

	return give(error, &err, vm_call(vm, do_balloon, &call, &err));
}

static int do_net_link(struct hospes_vm *vm, void *arg, struct err *err)
{
	const struct device_call *call = arg;
	struct vm_device *net = vm_find_device(vm, "net", call->id, err);

	if (!net)
		return -ENOENT;
	return net_set_link(net, call->up, err);
}

static int do_set_cpus(struct hospes_vm *vm, void *arg, struct err *err)
{
	int rc = vm_migrate_refuses(vm, "set cpus", err);

	return rc ? rc : cpus_set(vm, *(unsigned int *)arg, err);
}

int hospes_vm_set_cpus(struct hospes_vm *vm, unsigned int count, struct hospes_error *error)
{
	struct err err = ERR_INIT;

	return give(error, &err, vm_call(vm, do_set_cpus, &count, &err));
}

static int do_set_memory(struct hospes_vm *vm, void *arg, struct err *err)
{
	int rc = vm_migrate_refuses(vm, "set memory", err);

	return rc ? rc : memory_set(vm, *(uint64_t *)arg, err);
}

int hospes_vm_set_memory(struct hospes_vm *vm, uint64_t bytes, struct hospes_error *error)
{
	struct err err = ERR_INIT;

	return give(error, &err, vm_call(vm, do_set_memory, &bytes, &err));
}

int hospes_vm_net_link(struct hospes_vm *vm, const char *id, int up, struct hospes_error *error)
{
	struct device_call call = {.id = id, .up = up != 0};
	struct err err = ERR_INIT;

	return give(error, &err, vm_call(vm, do_net_link, &call, &err));
}

static int do_set_rate(struct hospes_vm *vm, void *arg, struct err *err)
{
	const struct device_call *call = arg;
	struct vm_device *d = vm_find_device(vm, NULL, call->id, err);

	return d ? vm_device_set_rate(d, call->bytes_per_s, call->ops_per_s, err) : -ENOENT;
}

int hospes_vm_set_rate(struct hospes_vm *vm, const char *id, uint64_t bytes_per_s,
		       uint64_t ops_per_s, struct hospes_error *error)
{
	struct device_call call = {.id = id, .bytes_per_s = bytes_per_s, .ops_per_s = ops_per_s};
	struct err err = ERR_INIT;

	return give(error, &err, vm_call(vm, do_set_rate, &call, &err));
}

struct view_call {
	const char *id;
	int fd;
	bool take;
};

static int do_console_view(struct hospes_vm *vm, void *arg, struct err *err)
{
	const struct view_call *call = arg;
	struct vm_device *console = vm_find_device(vm, "console", call->id, err);

	if (!console)
		return -ENOENT;
	if (atomic_load(&vm->state) == HOSPES_STOPPED)
		return err_set(err, -EBUSY, "console '%s': the machine has stopped", call->id);
	return console_view(console, call->fd, call->take, err);
}

int hospes_vm_console_view(struct hospes_vm *vm, const char *id, int fd, unsigned int flags,
			   struct hospes_error *error)
{
	struct view_call call = {.id = id, .fd = fd, .take = flags & HOSPES_VIEW_TAKE};
	struct err err = ERR_INIT;
	int rc = 0;

	if (flags & ~(unsigned int)HOSPES_VIEW_TAKE)
		rc = err_set(&err, -EINVAL, "flags: 0x%x is unknown", flags);
	return give(error, &err, rc ? rc : vm_call(vm, do_console_view, &call, &err));
}

static int do_console_resize(struct hospes_vm *vm, void *arg, struct err *err)
{
	const struct device_call *call = arg;
	struct vm_device *console = vm_find_device(vm, "console", call->id, err);

	if (!console)
		return -ENOENT;
	if (console->vdev)
		virtio_console_resize(console->vdev, call->columns, call->rows);
	return 0; /* a serial port has no size to tell */
}

int hospes_vm_console_resize(struct hospes_vm *vm, const char *id, uint16_t columns, uint16_t rows,
			     struct hospes_error *error)
{
	struct device_call call = {.id = id, .columns = columns, .rows = rows};
	struct err err = ERR_INIT;

	return give(error, &err, vm_call(vm, do_console_resize, &call, &err));
}
