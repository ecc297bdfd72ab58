// SPDX-License-Identifier: Apache-2.0
// The public interface: devices that are added to a machine and removed from it.
#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/num.h"
#include "base/thread.h"
#include "machine/api.h"
#include "machine/hotplug.h"
#include "machine/vm.h"

#define FLAGS ((unsigned int)HOSPES_REMOVE_FORCE)

static const struct device_kind *kind_named(const char *name)
{
	for (const struct device_kind *const *kind = device_kinds; *kind; kind++) {
		if (strcmp((*kind)->schema.what, name) == 0)
			return *kind;
	}
	return NULL;
}

static int unknown_kind(const char *name, struct err *err)
{
	char names[128] = "";
	size_t used = 0;

	for (const struct device_kind *const *kind = device_kinds; *kind; kind++) {
		int n = snprintf(names + used, sizeof(names) - used, "%s%s", used ? ", " : "",
				 (*kind)->schema.what);

		used = MIN(used + (size_t)n, sizeof(names) - 1);
	}
	return err_set(err, -EINVAL, "unknown kind of device '%s'; it is one of %s", name, names);
}

static int find_kind(const struct device_kind **ret, json_t *root, struct err *err)
{
	const char *name = json_object_iter_key(json_object_iter(root));

	if (json_object_size(root) != 1)
		return err_set(err, -EINVAL,
			       "a device is an object with one key, its kind: {\"disk\": {...}}");
	*ret = kind_named(name);
	return *ret ? 0 : unknown_kind(name, err);
}

/* {"KIND": OBJECT} */
static int read_device(struct config_device **ret, const char *json, size_t length, struct err *err)
{
	const struct device_kind *kind;
	json_error_t at;
	json_t *root = json_loadb(json, length, JSON_REJECT_DUPLICATES, &at);
	int rc;

	*ret = NULL;
	if (!root)
		return err_set(err, -EINVAL, "line %d, column %d: %s", at.line, at.column, at.text);
	rc = find_kind(&kind, root, err);
	if (!rc)
		rc = config_device_read(kind, json_object_get(root, kind->schema.what),
					kind->schema.what, ret, err);
	json_decref(root);
	if (!rc)
		rc = schema_check_fds(&kind->schema, *ret, kind->schema.what, err);
	if (rc) {
		config_device_free(*ret);
		*ret = NULL;
	}
	return rc;
}

struct addition {
	struct config_device *config; /* NULL: taken over */
	bool wants_text;
	char *text;
};

static char *text_of(struct vm_device *d)
{
	json_t *item = vm_device_status(d);
	char *text = item ? json_dumps(item, JSON_INDENT(2)) : NULL;

	json_decref(item);
	return text;
}

static void say_confined(struct err *err)
{
	const struct err why = *err;

	err_set(err, why.code,
		"%s; this machine is confined and opens nothing by path: give open files (fd), "
		"as hospes_device_open and 'hospes ctl NAME add' do, or start it with sandbox off",
		why.text);
}

static int do_add(struct hospes_vm *vm, void *arg, struct err *err)
{
	struct addition *a = arg;
	struct config_device *config = a->config;
	struct vm_device *d;
	int iommufd = vm->config.iommu.fd, rc;

	rc = vm_migrate_refuses(vm, "add a device", err);
	if (rc)
		return rc;
	if (atomic_load(&vm->state) != HOSPES_CREATED && !config_device_is_pci(config))
		return err_set(err, -EOPNOTSUPP,
			       "cannot add this %s: no guest looks for it once it runs, since it "
			       "is not PCI; use type virtio, or give it before the start",
			       config->item.schema->what);
	a->config = NULL;
	rc = vm_device_add(vm, config, &d, err);
	if (rc == -EACCES && thread_role() == THREAD_MACHINE && sandbox_limits(vm->sandbox))
		say_confined(err);
	/* One that came with the device is the caller's to close; what uses it has a duplicate. */
	vm->config.iommu.fd = iommufd;
	if (rc)
		return rc;
	if (a->wants_text) {
		a->text = text_of(d);
		if (!a->text) {
			vm_device_remove(d);
			return err_set(err, -ENOMEM, "no memory");
		}
	}
	log_info(&vm->log, "hotplug", "'%s': added%s%s", config->id, d->port ? " behind " : "",
		 d->port ? d->port->dev->name : "");
	vm_emit_device(vm, HOSPES_EVENT_DEVICE_ADDED, 0, "", config->id);
	return 0;
}

int hospes_vm_device_add(struct hospes_vm *vm, const char *json, size_t length, char **device,
			 struct hospes_error *error)
{
	struct addition a = {.wants_text = device != NULL};
	struct err err = ERR_INIT;
	int rc = read_device(&a.config, json, length, &err);

	if (!rc)
		rc = vm_call(vm, do_add, &a, &err);
	config_device_free(a.config);
	if (!rc && device)
		*device = a.text;
	return give(error, &err, rc);
}

/* --- for a machine of another process --- */

/* Each fd that the device names, in the order of its table: the next of fds. */
static int *next_fd(struct config_device *device, const struct schema_field **at)
{
	for (const struct schema_field *f = *at; f->key; f++) {
		int *fd = (int *)(void *)((char *)device + f->offset);

		if (f->kind != SCHEMA_FD || *fd < 0)
			continue;
		*at = f + 1;
		return fd;
	}
	return NULL;
}

static int duplicate_fds(struct config_device *device, struct err *err)
{
	const struct schema_field *at = device->item.schema->fields;
	int *fd, rc = 0;

	while ((fd = next_fd(device, &at))) {
		int given = *fd;

		*fd = rc ? -1 : fd_dup(given);
		if (*fd < 0 && !rc)
			rc = err_set(err, *fd, "fd %d: %s", given, err_name(*fd));
	}
	return rc;
}

/* They are replaced by their places. */
static unsigned int collect_fds(struct config_device *device, int fds[HOSPES_DEVICE_FDS])
{
	const struct schema_field *at = device->item.schema->fields;
	unsigned int n = 0;
	int *fd;

	while ((fd = next_fd(device, &at))) {
		assert(n < HOSPES_DEVICE_FDS);
		fds[n] = *fd;
		*fd = (int)n++;
	}
	return n;
}

static int hand_over(struct config_device *device, const struct kind_receiver *to, struct err *err)
{
	const struct device_kind *kind = device_kind_of(device);
	bool unnamed = !device->id;
	int rc = duplicate_fds(device, err);

	/* Its machine will name it; messages have to before. */
	if (!rc && unnamed && !(device->id = strdup("new")))
		rc = err_set(err, -ENOMEM, "no memory");
	if (!rc && kind->hand_over)
		rc = kind->hand_over(device, to, err);
	if (unnamed) {
		free(device->id);
		device->id = NULL;
	}
	return rc;
}

/* {"KIND": OBJECT} again; NULL: no memory. */
static char *write_device(const struct config_device *device)
{
	const struct schema *schema = device->item.schema;
	json_t *root = json_pack("{s:o*}", schema->what, schema_write(schema, device, true));
	char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;

	json_decref(root);
	return text;
}

int hospes_device_open(const char *json, size_t length, const struct hospes_open_options *options,
		       char **device, int fds[HOSPES_DEVICE_FDS], unsigned int *n_fds,
		       struct hospes_error *error)
{
	const struct hospes_open_options none = {.size = sizeof(none)};
	struct kind_receiver to;
	struct config_device *config = NULL;
	struct err err = ERR_INIT;
	enum iommu_kind backend;
	int rc;

	options = options ? options : &none;
	*n_fds = 0;
	rc = api_iommu_kind(options->iommu, &backend, &err);
	to = (struct kind_receiver){.backend = (int)backend, .has_iommufd = options->has_iommufd};
	if (!rc)
		rc = read_device(&config, json, length, &err);
	if (rc)
		return give(error, &err, rc);
	rc = hand_over(config, &to, &err);
	*n_fds = collect_fds(config, fds);
	*device = rc ? NULL : write_device(config);
	if (!rc && !*device)
		rc = err_set(&err, -ENOMEM, "no memory");
	while (rc && *n_fds)
		close(fds[--*n_fds]);
	config_device_free(config);
	return give(error, &err, rc);
}

/* --- out of a machine --- */

static int do_remove(struct hospes_vm *vm, void *arg, struct err *err)
{
	int rc = vm_migrate_refuses(vm, "remove a device", err);

	return rc ? rc : hotplug_remove(vm, arg, err);
}

int hospes_vm_device_remove(struct hospes_vm *vm, const char *id, unsigned int timeout_ms,
			    unsigned int flags, struct hospes_error *error)
{
	struct hotplug_removal removal = {
		.id = id,
		.timeout_ns = timeout_ms * NS_PER_MS,
		.force = flags & HOSPES_REMOVE_FORCE,
	};
	struct err err = ERR_INIT;

	if (flags & ~FLAGS)
		return give(error, &err,
			    err_set(&err, -EINVAL, "'%s': unknown flags 0x%x", id, flags & ~FLAGS));
	return give(error, &err, vm_call(vm, do_remove, &removal, &err));
}
