// SPDX-License-Identifier: Apache-2.0
// A kind of device that the library does not know (example/): its document, its device, its status.
#include <criterion/criterion.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "example/kind_sharer.h"
#include "machine/vm.h"
#include "rig.h"

static const char document[] =
	"{\"memory\": {\"size\": \"32M\"}, \"kernel\": {\"path\": \"{dir}/kernel\", \"cache\": false},"
	" \"debugcons\": [{\"path\": \"{dir}/console.log\"}, {\"port\": 1026, \"id\": \"other\"}]}";

static struct rig rig;

static void set_up(void)
{
	rig_init(&rig, true);
}

static void tear_down(void)
{
	rig_done(&rig);
}

TestSuite(example, .init = set_up, .fini = tear_down);

Test(example, device_works_and_is_in_the_status)
{
	struct hospes_vm *vm = rig_create(&rig, document, 0);
	char path[100], text[20] = "", *json;
	json_t *status, *device;
	FILE *f;

	cr_assert(bus_write(vm->pio, 0xe9, "h", 1));
	cr_assert(bus_write(vm->pio, 0xe9, "i", 1));
	cr_assert_eq(hospes_vm_status(vm, &json, NULL), 0);
	status = json_loads(json, 0, NULL);
	device = json_array_get(json_object_get(status, "devices"), 1);
	cr_expect_str_eq(json_string_value(json_object_get(device, "id")), "debugcon0");
	cr_expect_eq(json_integer_value(json_object_get(device, "bytes")), 2);
	hospes_free(json);
	json_decref(status);
	hospes_vm_destroy(vm);
	snprintf(path, sizeof(path), "%s/console.log", rig.dir);
	f = fopen(path, "r");
	cr_assert(f && fgets(text, sizeof(text), f));
	fclose(f);
	cr_expect_str_eq(text, "hi");
}

Test(example, mistakes_name_its_keys)
{
	static const char *const bad[][2] = {
		{"\"debugcon\": []", "did you mean 'debugcons'?"},
		{"\"debugcons\": [{\"prt\": 1}]", "did you mean 'port'?"},
		{"\"debugcons\": [{}, {}]", "debugcon1"}, /* both at the same port */
		{"\"debugcons\": [{\"path\": \"/nowhere/file\"}]", "debugcon 'debugcon0'"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct hospes_error error;
		struct hospes_vm *vm;
		char text[300];

		snprintf(text, sizeof(text),
			 "{\"memory\": {\"size\": \"32M\"},"
			 " \"kernel\": {\"path\": \"{dir}/kernel\", \"cache\": false}, %s}",
			 bad[i][0]);
		cr_assert_lt(rig_try(&rig, &vm, text, 0, &error), 0, "%s", bad[i][0]);
		cr_expect(strstr(error.text, bad[i][1]), "%s", error.text);
	}
}

Test(example, device_comes_and_goes)
{
	struct hospes_vm *vm = rig_create(&rig, document, 0);
	struct vm_device *d = vm_find_device(vm, "debugcon", "other", NULL);

	cr_assert(bus_write(vm->pio, 1026, "x", 1));
	vm_device_remove(d);
	cr_assert(!bus_write(vm->pio, 1026, "x", 1));
	hospes_vm_destroy(vm);
}

static void sharer_destroy(struct device *dev)
{
	device_done(dev);
	free(dev);
}

static int sharer_create(struct vm_device *d, struct err *err)
{
	static const struct device_ops ops = {.type = "sharer", .destroy = sharer_destroy};

	(void)err;
	d->dev = calloc(1, sizeof(*d->dev));
	cr_assert(d->dev);
	device_init(d->dev, &ops, d->config->id, &d->vm->log);
	return 0;
}

static const struct schema_field sharer_fields[] = {
	{"id", SCHEMA_STRING, offsetof(struct config_device, id)},
	{NULL},
};
const struct device_kind kind_sharer = {
	.schema = {"sharer", sharer_fields, sizeof(struct config_device), NULL},
	.key = "sharers",
	.max = 1,
	.bytes = sizeof(struct vm_device),
	.shares_memory = true,
	.place = config_no_place,
	.create = sharer_create,
};

static int count_files(void *opaque, const struct gmem_region *region)
{
	*(unsigned int *)opaque += region->fd >= 0;
	return 0;
}

static unsigned int files(struct hospes_vm *vm)
{
	unsigned int n = 0;

	gmem_walk(vm->gmem, count_files, &n);
	return n;
}

#define SHARERS(memory, sharers)                                             \
	"{\"memory\": {\"size\": \"32M\"" memory "}, \"sharers\": [" sharers \
	"], \"kernel\": {\"path\": \"{dir}/kernel\", \"cache\": false}}"

Test(example, memory_is_a_file_where_a_device_shares_it)
{
	struct hospes_vm *vm = rig_create(&rig, SHARERS("", "{}"), 0);

	cr_expect_eq(files(vm), 1);
	hospes_vm_destroy(vm);
	vm = rig_create(&rig, SHARERS("", ""), 0);
	cr_expect_eq(files(vm), 0);
	hospes_vm_destroy(vm);
}

Test(example, memory_that_cannot_be_shared_is_refused)
{
	struct err err = ERR_INIT;
	struct config_device *config;
	struct hospes_error error;
	json_t *nothing = json_object();
	struct vm_device *d;
	struct hospes_vm *vm;

	cr_assert_eq(rig_try(&rig, &vm, SHARERS(", \"backing\": \"anonymous\"", "{}"), 0, &error),
		     -EINVAL);
	cr_expect(strstr(error.text, "backing"), "%s", error.text);
	vm = rig_create(&rig, SHARERS("", ""), 0);
	cr_assert_eq(config_device_read(&kind_sharer, nothing, "sharer", &config, &err), 0);
	cr_assert_eq(vm_device_add(vm, config, &d, &err), -EINVAL);
	cr_expect(strstr(err.text, "memfd"), "%s", err.text);
	json_decref(nothing);
	hospes_vm_destroy(vm);
}
