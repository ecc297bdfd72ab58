// SPDX-License-Identifier: Apache-2.0
// The public interface: devices that are added to a machine and removed from it.
#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "base/clock.h"
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

/* {"KIND": OBJECT} */
static int read_device(struct config_device **ret, const json_t *root, struct err *err)
{
	const struct device_kind *kind;
	const char *name;
	void *at;
	int rc;

	if (!json_is_object(root) || json_object_size(root) != 1)
		return err_set(err, -EINVAL,
			       "a device is an object with one key, its kind: {\"disk\": {...}}");
	at = json_object_iter((json_t *)root);
	name = json_object_iter_key(at);
	kind = kind_named(name);
	if (!kind)
		return unknown_kind(name, err);
	rc = config_device_read(kind, json_object_iter_value(at), name, ret, err);
	if (rc)
		return rc;
	rc = schema_check_fds(&kind->schema, *ret, name, err);
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
		"%s; this machine is confined and opens nothing by path: give an open file (fd), "
		"or start it with sandbox off",
		why.text);
}

static int do_add(struct hospes_vm *vm, void *arg, struct err *err)
{
	struct addition *a = arg;
	struct config_device *config = a->config;
	struct vm_device *d;
	int rc;

	if (atomic_load(&vm->state) != HOSPES_CREATED && !config_device_is_pci(config))
		return err_set(err, -EOPNOTSUPP,
			       "cannot add this %s: no guest looks for it once it runs, since it "
			       "is not PCI; use type virtio, or give it before the start",
			       config->item.schema->what);
	a->config = NULL;
	rc = vm_device_add(vm, config, &d, err);
	if (rc == -EACCES && thread_role() == THREAD_MACHINE &&
	    sandbox_has(vm->sandbox, SANDBOX_LANDLOCK))
		say_confined(err);
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
	json_error_t at;
	json_t *root = json_loadb(json, length, JSON_REJECT_DUPLICATES, &at);
	int rc;

	if (!root)
		return give(error, &err,
			    err_set(&err, -EINVAL, "line %d, column %d: %s", at.line, at.column,
				    at.text));
	rc = read_device(&a.config, root, &err);
	json_decref(root);
	if (!rc)
		rc = vm_call(vm, do_add, &a, &err);
	config_device_free(a.config);
	if (!rc && device)
		*device = a.text;
	return give(error, &err, rc);
}

static int do_remove(struct hospes_vm *vm, void *arg, struct err *err)
{
	return hotplug_remove(vm, arg, err);
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
