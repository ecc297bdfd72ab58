// SPDX-License-Identifier: Apache-2.0
// The public functions that commands and the control server call, without a machine and without
// devices.
#include "fake_hospes.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct fake fake;
char fake_out[8192], fake_err[8192];

static struct hospes_vm {
	struct hospes_vm_options options;
	enum hospes_outcome outcome;
} machine;

__attribute__((format(printf, 3, 4))) static int call(struct hospes_error *error, const char *name,
						      const char *fmt, ...)
{
	size_t n = strlen(fake.calls);
	va_list ap;

	n += (size_t)snprintf(fake.calls + n, sizeof(fake.calls) - n, "%s(", name);
	va_start(ap, fmt);
	n += (size_t)vsnprintf(fake.calls + n, sizeof(fake.calls) - n, fmt, ap);
	va_end(ap);
	snprintf(fake.calls + n, sizeof(fake.calls) - n, ") ");
	*error = (struct hospes_error){0};
	if (!fake.fails || strcmp(fake.fails, name) != 0)
		return 0;
	error->code = -EBUSY;
	snprintf(error->text, sizeof(error->text), "%s: refused", name);
	if (fake.failure)
		snprintf(error->text, sizeof(error->text), "%s", fake.failure);
	return -EBUSY;
}

static void stop_with(struct hospes_vm *vm, enum hospes_outcome outcome)
{
	const struct hospes_event event = {.size = sizeof(event),
					   .type = HOSPES_EVENT_STATE,
					   .value = HOSPES_STOPPED,
					   .text = ""};

	/* As in the library, the first one stays. */
	if (vm->outcome == HOSPES_OUTCOME_NONE)
		vm->outcome = outcome;
	vm->options.event(vm->options.event_opaque, &event);
}

int hospes_config_check(const char *json, size_t length, char **effective,
			struct hospes_error *error)
{
	int rc = call(error, "check", "%.*s", (int)length, json);

	if (!rc && effective)
		*effective = strdup(fake.effective ? fake.effective : "{}\n");
	return rc;
}

static int lowest_free(void)
{
	int fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);

	close(fd);
	return fd;
}

int hospes_vm_create(struct hospes_vm **vm, const char *json, size_t length,
		     const struct hospes_vm_options *options, struct hospes_error *error)
{
	pthread_sigmask(SIG_BLOCK, NULL, &fake.blocked_at_create);
	fake.free_at_create = lowest_free();
	machine = (struct hospes_vm){.options = *options};
	*vm = &machine;
	return call(error, "create", "%.*s", (int)length, json);
}

int hospes_vm_start(struct hospes_vm *vm, struct hospes_error *error)
{
	int rc = call(error, "start", "%s", "");

	pthread_sigmask(SIG_BLOCK, NULL, &fake.blocked_at_start);
	fake.free_at_start = lowest_free();
	if (fake.started_fd)
		cr_assert_eq(write(fake.started_fd, "", 1), 1);
	if (!rc && fake.outcome != HOSPES_OUTCOME_NONE)
		stop_with(vm, fake.outcome);
	return rc;
}

int hospes_vm_pause(struct hospes_vm *vm, struct hospes_error *error)
{
	(void)vm;
	fake.state = HOSPES_PAUSED;
	return call(error, "pause", "%s", "");
}

int hospes_vm_resume(struct hospes_vm *vm, struct hospes_error *error)
{
	(void)vm;
	fake.state = HOSPES_RUNNING;
	return call(error, "resume", "%s", "");
}

enum hospes_state hospes_vm_state(const struct hospes_vm *vm)
{
	(void)vm;
	return fake.state;
}

int hospes_vm_shutdown(struct hospes_vm *vm, struct hospes_error *error)
{
	(void)vm;
	return call(error, "shutdown", "%s", "");
}

int hospes_vm_stop(struct hospes_vm *vm, struct hospes_error *error)
{
	stop_with(vm, HOSPES_OUTCOME_KILLED);
	return call(error, "stop", "%s", "");
}

int hospes_vm_reset(struct hospes_vm *vm, struct hospes_error *error)
{
	(void)vm;
	return call(error, "reset", "%s", "");
}

void hospes_vm_destroy(struct hospes_vm *vm)
{
	struct hospes_error ignored;

	(void)vm;
	call(&ignored, "destroy", "%s", "");
}

enum hospes_outcome hospes_vm_outcome(const struct hospes_vm *vm)
{
	return vm->outcome;
}

int hospes_vm_status(struct hospes_vm *vm, char **json, struct hospes_error *error)
{
	int rc = call(error, "status", "%s", "");

	(void)vm;
	if (rc == 0)
		*json = strdup(fake.status ? fake.status : "the status");
	return rc;
}

int hospes_vm_registers(struct hospes_vm *vm, char **text, struct hospes_error *error)
{
	int rc = call(error, "registers", "%s", "");

	(void)vm;
	if (rc == 0)
		*text = strdup("the registers");
	return rc;
}

int hospes_vm_dump(struct hospes_vm *vm, int fd, struct hospes_error *error)
{
	(void)vm;
	return call(error, "dump", "%s", fd >= 0 ? "a file" : "none");
}

int hospes_vm_snapshot(struct hospes_vm *vm, int state_fd, int memory_fd, char **document,
		       struct hospes_error *error)
{
	int rc = call(error, "snapshot", "%s",
		      state_fd >= 0 && memory_fd >= 0 && state_fd != memory_fd ? "two files"
									       : "none");

	(void)vm;
	if (rc == 0)
		*document = strdup("{}");
	return rc;
}

int hospes_vm_migrate(struct hospes_vm *vm, int fd, unsigned int downtime_ms,
		      struct hospes_error *error)
{
	(void)vm;
	return call(error, "migrate", "%s %u", fd >= 0 ? "a socket" : "none", downtime_ms);
}

int hospes_vm_migrate_cancel(struct hospes_vm *vm, struct hospes_error *error)
{
	(void)vm;
	return call(error, "migrate_cancel", "%s", "");
}

int hospes_vm_migrate_check(struct hospes_vm *vm, char **report, struct hospes_error *error)
{
	int rc = call(error, "migrate_check", "%s", "");

	(void)vm;
	if (rc == 0)
		*report = strdup("{\"possible\": false, \"obstacles\": [\"a device\"]}");
	return rc;
}

int hospes_migration_document(int fd, char **document, struct hospes_error *error)
{
	int rc = call(error, "migration_document", "%s", fd >= 0 ? "a socket" : "none");

	if (rc == 0)
		*document = strdup("{\"memory\": {\"size\": 134217728}}");
	return rc;
}

int hospes_vm_confine(struct hospes_vm *vm, const char *removes, struct hospes_error *error)
{
	(void)vm;
	return call(error, "confine", "%s", removes ? removes : "");
}

int hospes_vm_set_strategy(struct hospes_vm *vm, const char *strategy, struct hospes_error *error)
{
	(void)vm;
	return call(error, "set_strategy", "%s", strategy);
}

int hospes_vm_balloon(struct hospes_vm *vm, uint64_t bytes, struct hospes_error *error)
{
	(void)vm;
	return call(error, "balloon", "%llu", (unsigned long long)bytes);
}

int hospes_vm_set_cpus(struct hospes_vm *vm, unsigned int count, struct hospes_error *error)
{
	(void)vm;
	return call(error, "set_cpus", "%u", count);
}

int hospes_vm_set_memory(struct hospes_vm *vm, uint64_t bytes, struct hospes_error *error)
{
	(void)vm;
	return call(error, "set_memory", "%llu", (unsigned long long)bytes);
}

int hospes_vm_device_add(struct hospes_vm *vm, const char *json, size_t length, char **device,
			 struct hospes_error *error)
{
	int rc = call(error, "device_add", "%.*s", (int)length, json);

	(void)vm;
	if (!rc)
		*device = strdup("{\"id\": \"new\"}");
	return rc;
}

/* One descriptor, of an empty file: it is the caller's. */
int hospes_device_open(const char *json, size_t length, const struct hospes_open_options *options,
		       char **device, int fds[HOSPES_DEVICE_FDS], unsigned int *n_fds,
		       struct hospes_error *error)
{
	int rc = call(error, "open", "%s, %d, %.*s", options->iommu ? options->iommu : "NULL",
		      options->has_iommufd, (int)length, json);

	*n_fds = 0;
	if (rc)
		return rc;
	fds[(*n_fds)++] = open("/dev/null", O_RDWR | O_CLOEXEC);
	*device = strdup("{\"disk\": {\"fd\": 0}}");
	return 0;
}

int hospes_vm_device_remove(struct hospes_vm *vm, const char *id, unsigned int timeout_ms,
			    unsigned int flags, struct hospes_error *error)
{
	(void)vm;
	return call(error, "device_remove", "%s, %u, %u", id, timeout_ms, flags);
}

int hospes_vm_disk_resize(struct hospes_vm *vm, const char *id, uint64_t size_bytes,
			  struct hospes_error *error)
{
	(void)vm;
	return call(error, "disk_resize", "%s, %llu", id, (unsigned long long)size_bytes);
}

int hospes_vm_set_rate(struct hospes_vm *vm, const char *id, uint64_t bytes_per_s,
		       uint64_t ops_per_s, struct hospes_error *error)
{
	(void)vm;
	return call(error, "set_rate", "%s, %lld, %lld", id, (long long)bytes_per_s,
		    (long long)ops_per_s);
}

int hospes_vm_net_link(struct hospes_vm *vm, const char *id, int up, struct hospes_error *error)
{
	(void)vm;
	return call(error, "net_link", "%s, %d", id, up);
}

int hospes_vm_console_resize(struct hospes_vm *vm, const char *id, uint16_t columns, uint16_t rows,
			     struct hospes_error *error)
{
	(void)vm;
	return call(error, "console_resize", "%s, %u, %u", id, columns, rows);
}

int hospes_vm_console_view(struct hospes_vm *vm, const char *id, int fd, unsigned int flags,
			   struct hospes_error *error)
{
	int rc = call(error, "console_view", "%s, %u", id, flags);

	(void)vm;
	if (rc == 0 && fake.console_says)
		cr_assert_gt(write(fd, fake.console_says, strlen(fake.console_says)), 0);
	return rc;
}

const char *hospes_version(void)
{
	return "9.9.9";
}

int hospes_iommu_list(char **json, struct hospes_error *error)
{
	*json = strdup("{\"strategies\": [{\"name\": \"first\"}, {\"name\": \"second\"}]}");
	return call(error, "iommu_list", "%s", "");
}

int hospes_vf_list(char **json, struct hospes_error *error)
{
	int rc = call(error, "vf_list", "%s", "");

	if (!rc)
		*json = strdup(fake.vf_list);
	return rc;
}

int hospes_vf_create(const char *pf, unsigned int count, char **json, struct hospes_error *error)
{
	int rc = call(error, "vf_create", "%s, %u", pf, count);

	if (!rc)
		*json = strdup(
			"{\"vfs\": [{\"bdf\": \"0000:01:10.0\"}, {\"bdf\": \"0000:01:10.2\"}]}");
	return rc;
}

int hospes_vf_destroy(const char *pf, struct hospes_error *error)
{
	return call(error, "vf_destroy", "%s", pf);
}

int hospes_vf_set(const char *vf, const char *json, size_t length, struct hospes_error *error)
{
	return call(error, "vf_set", "%s, %.*s", vf, (int)length, json);
}

int hospes_device_bind(const char *device, const char *driver, struct hospes_error *error)
{
	return call(error, "bind", "%s, %s", device, driver ? driver : "NULL");
}

int hospes_device_own(const char *device, uid_t uid, struct hospes_error *error)
{
	return call(error, "own", "%s, %u", device, uid);
}

int hospes_device_unbind(const char *device, struct hospes_error *error)
{
	return call(error, "unbind", "%s", device);
}

void hospes_free(void *p)
{
	free(p);
}

static void read_back(FILE *file, char *text, size_t bytes)
{
	fseek(file, 0, SEEK_SET);
	text[fread(text, 1, bytes - 1, file)] = '\0';
	fclose(file);
}

int fake_run(int (*run)(int argc, char **argv), const char *const *words)
{
	int saved[2] = {dup(STDOUT_FILENO), dup(STDERR_FILENO)}, argc = 0, status;
	FILE *out = tmpfile(), *err = tmpfile();
	char *argv[32];

	while (words[argc]) {
		argv[argc] = (char *)words[argc];
		argc++;
	}
	argv[argc] = NULL;
	fake.calls[0] = '\0';
	fflush(NULL);
	cr_assert(dup2(fileno(out), STDOUT_FILENO) >= 0);
	cr_assert(dup2(fileno(err), STDERR_FILENO) >= 0);
	status = run(argc, argv);
	fflush(NULL);
	for (int i = 0; i < 2; i++) {
		dup2(saved[i], i + 1);
		close(saved[i]);
	}
	read_back(out, fake_out, sizeof(fake_out));
	read_back(err, fake_err, sizeof(fake_err));
	return status;
}
