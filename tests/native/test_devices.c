// SPDX-License-Identifier: Apache-2.0
// Devices that come and go: into a machine before its start, while it runs and while it is paused,
// and out of it, with nothing left behind.
#include <criterion/criterion.h>
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <malloc.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/num.h"
#include "machine/vm.h"
#include "rig.h"
#include "stub_kvm.h"

enum { ROUNDS = 200, WARM = 100 };

/* Nothing but a virtual IOMMU, and an I/O thread for what is behind it. */
static const char bare[] =
	"{\"memory\": {\"size\": \"32M\"}, \"kernel\": {\"path\": \"{dir}/kernel\", \"cache\": false},"
	" \"viommu\": {\"enabled\": true}, \"io_threads\": 1, \"rng\": {\"enabled\": false}}";

/* Each kind that is emulated, in each of its forms. */
static const struct sort {
	const char *kind, *json;
} sorts[] = {
	{"disk", "{\"path\": \"{dir}/disk\"}"},
	{"disk",
	 "{\"path\": \"{dir}/disk2\", \"readonly\": true, \"queues\": 4, \"viommu\": true}"},
	{"net", "{\"socket\": \"{dir}/passt.sock\"}"},
	{"net", "{\"socket\": \"{dir}/passt.sock\", \"viommu\": true}"},
	{"console", "{\"path\": \"{dir}/serial.log\"}"},
	{"console", "{\"type\": \"virtio\", \"path\": \"{dir}/console.log\"}"},
	{"rng", "{}"},
	{"balloon", "{\"stats\": 1, \"free_page_reporting\": true}"},
};

static struct rig rig;

static void set_up(void)
{
	rig_init(&rig, true);
}

static void tear_down(void)
{
	rig_done(&rig);
}

TestSuite(devices, .init = set_up, .fini = tear_down, .timeout = 120);

static const struct device_kind *kind_named(const char *name)
{
	for (const struct device_kind *const *kind = device_kinds; *kind; kind++) {
		if (strcmp((*kind)->schema.what, name) == 0)
			return *kind;
	}
	cr_assert_fail("no kind '%s'", name);
	return NULL;
}

/* What a client of the machine hands over. */
static struct config_device *configure(const struct sort *sort)
{
	const char *at = strstr(sort->json, "{dir}");
	struct config_device *config;
	struct err err = ERR_INIT;
	char text[300];
	json_t *json;

	if (at)
		snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - sort->json), sort->json,
			 rig.dir, at + strlen("{dir}"));
	else
		snprintf(text, sizeof(text), "%s", sort->json);
	json = json_loads(text, 0, NULL);
	cr_assert_eq(config_device_read(kind_named(sort->kind), json, "device", &config, &err), 0,
		     "%s", err.text);
	json_decref(json);
	return config;
}

static int try_add(struct hospes_vm *vm, const struct sort *sort, struct vm_device **ret,
		   struct err *err)
{
	*err = (struct err)ERR_INIT;
	return vm_device_add(vm, configure(sort), ret, err);
}

static struct vm_device *add(struct hospes_vm *vm, const struct sort *sort)
{
	struct vm_device *d;
	struct err err;

	cr_assert_eq(try_add(vm, sort, &d, &err), 0, "%s: %s", sort->json, err.text);
	return d;
}

static void hang_up(void)
{
	while (poll(&(struct pollfd){.fd = rig.listen_fd, .events = POLLIN}, 1, 0) == 1)
		close(accept(rig.listen_fd, NULL, NULL));
}

static void add_all_and_remove_all(struct hospes_vm *vm, bool backwards)
{
	struct vm_device *d[ARRAY_SIZE(sorts)];

	for (size_t i = 0; i < ARRAY_SIZE(sorts); i++)
		d[i] = add(vm, &sorts[i]);
	for (size_t i = 0; i < ARRAY_SIZE(sorts); i++)
		vm_device_remove(d[backwards ? ARRAY_SIZE(sorts) - 1 - i : i]);
	hang_up();
	if (atomic_load(&vm->state) == HOSPES_RUNNING)
		cr_assert_eq(hospes_vm_iterate(vm), 1);
}

struct held {
	unsigned int fds, threads;
	size_t bytes;
	struct stub_kvm_totals kvm;
};

static struct held held(void)
{
	return (struct held){rig_fds(), rig_threads(UINT_MAX), mallinfo2().uordblks,
			     stub_kvm_totals()};
}

/* In the embedder's loop, so that all is done in this thread and its memory can be counted. */
static void many_rounds(struct hospes_vm *vm)
{
	struct held before, after;

	for (int i = 0; i < WARM; i++)
		add_all_and_remove_all(vm, i % 2);
	before = held();
	for (int i = 0; i < ROUNDS; i++)
		add_all_and_remove_all(vm, i % 2);
	after = held();
	cr_expect_eq(after.fds, before.fds, "%u, not %u", after.fds, before.fds);
	cr_expect_eq(rig_threads(before.threads), before.threads);
	/* Exact enough as meson.build runs it: without a cache of malloc's per thread. */
	if (getenv("GLIBC_TUNABLES"))
		cr_expect_lt(after.bytes, before.bytes + 4096, "%zu bytes more",
			     after.bytes - before.bytes);
	cr_expect_eq(after.kvm.slots, before.kvm.slots);
	cr_expect_eq(after.kvm.routes, before.kvm.routes);
	cr_expect_eq(after.kvm.irqfds, before.kvm.irqfds);
	cr_expect_eq(after.kvm.ioeventfds, before.kvm.ioeventfds);
	cr_expect_null(vm_next_device(vm, NULL, NULL));
	cr_expect_null(config_next(&vm->config, NULL, NULL));
}

Test(devices, come_and_go_200_times_before_the_start)
{
	struct hospes_vm *vm = rig_create(&rig, bare, 0);

	many_rounds(vm);
	hospes_vm_destroy(vm);
}

Test(devices, come_and_go_200_times_while_it_runs)
{
	struct hospes_vm *vm = rig_create(&rig, bare, 0);
	struct hospes_error error;

	cr_assert_eq(hospes_vm_start(vm, &error), 0, "%s", error.text);
	many_rounds(vm);
	cr_expect_eq(hospes_vm_state(vm), HOSPES_RUNNING);
	hospes_vm_destroy(vm);
}

Test(devices, come_and_go_200_times_while_it_is_paused)
{
	struct hospes_vm *vm = rig_create(&rig, bare, 0);
	struct hospes_error error;

	cr_assert_eq(hospes_vm_start(vm, &error), 0, "%s", error.text);
	cr_assert_eq(hospes_vm_pause(vm, &error), 0, "%s", error.text);
	many_rounds(vm);
	cr_assert_eq(hospes_vm_resume(vm, &error), 0, "%s", error.text);
	hospes_vm_destroy(vm);
}

Test(devices, that_came_while_it_was_paused_go_on_with_it)
{
	struct hospes_vm *vm = rig_create(&rig, bare, 0);
	struct hospes_error error;

	cr_assert_eq(hospes_vm_start(vm, &error), 0, "%s", error.text);
	cr_assert_eq(hospes_vm_pause(vm, &error), 0, "%s", error.text);
	for (size_t i = 0; i < ARRAY_SIZE(sorts); i++)
		add(vm, &sorts[i]);
	cr_assert_eq(hospes_vm_resume(vm, &error), 0, "%s", error.text);
	cr_assert_eq(hospes_vm_reset(vm, &error), 0, "%s", error.text);
	cr_assert_eq(hospes_vm_pause(vm, &error), 0, "%s", error.text);
	hospes_vm_destroy(vm);
}

Test(devices, of_a_document_can_be_removed)
{
	struct hospes_vm *vm = rig_create(&rig, rig_everything, 0);
	struct hospes_error error;
	struct vm_device *d;

	cr_assert_eq(hospes_vm_start(vm, &error), 0, "%s", error.text);
	while ((d = vm_next_device(vm, NULL, NULL)))
		vm_device_remove(d);
	cr_expect_null(config_next(&vm->config, NULL, NULL));
	cr_assert_eq(hospes_vm_reset(vm, &error), 0, "%s", error.text);
	hospes_vm_destroy(vm);
}

Test(devices, are_checked_against_those_that_are_there)
{
	struct hospes_vm *vm = rig_create(&rig, bare, 0);
	const struct sort one = {"disk",
				 "{\"path\": \"{dir}/disk\", \"id\": \"a\", \"addr\": \"9.0\"}"};
	const struct sort id = {"rng", "{}"};
	const struct sort addr = {"disk", "{\"path\": \"{dir}/disk2\", \"addr\": \"9.0\"}"};
	const struct sort file = {"disk", "{\"path\": \"{dir}/disk\"}"};
	struct vm_device *d;
	struct err err;

	add(vm, &one);
	add(vm, &id);
	cr_assert_eq(try_add(vm, &one, &d, &err), -EEXIST);
	cr_expect(strstr(err.text, "id 'a'"), "%s", err.text);
	cr_assert_eq(try_add(vm, &addr, &d, &err), -EEXIST);
	cr_expect(strstr(err.text, "taken by 'a'"), "%s", err.text);
	cr_assert_eq(try_add(vm, &id, &d, &err), -ENOSPC);
	cr_assert_eq(try_add(vm, &file, &d, &err), -EBUSY, "its lock: %s", err.text);
	cr_expect_null(d);
	hospes_vm_destroy(vm);
}

Test(devices, cannot_come_to_a_machine_that_has_stopped)
{
	struct hospes_vm *vm = rig_create(&rig, bare, 0);
	struct hospes_error error;
	struct vm_device *d;
	struct err err;

	cr_assert_eq(hospes_vm_stop(vm, &error), 0, "%s", error.text);
	cr_assert_eq(try_add(vm, &sorts[0], &d, &err), -EBUSY);
	hospes_vm_destroy(vm);
}

/* Each call of KVM that an addition makes. */
Test(devices, that_cannot_be_added_leave_nothing)
{
	struct hospes_vm *vm = rig_create(&rig, bare, 0);

	for (size_t i = 0; i < ARRAY_SIZE(sorts); i++) {
		vm_device_remove(add(vm, &sorts[i])); /* what is made once */
		hang_up();
		for (unsigned int n = 0;; n++) {
			struct held before = held();
			struct vm_device *d;
			struct err err;
			int rc;

			stub_kvm_fail(n, ENOMEM);
			rc = try_add(vm, &sorts[i], &d, &err);
			if (rc)
				cr_assert(err.text[0], "call %u of %s", n, sorts[i].json);
			vm_device_remove(d);
			hang_up();
			cr_assert_eq(rig_fds(), before.fds, "call %u of %s", n, sorts[i].json);
			cr_assert_eq(stub_kvm_totals().routes, before.kvm.routes);
			if (!stub_kvm_failed())
				break;
		}
		stub_kvm_fail(UINT_MAX, 0);
	}
	hospes_vm_destroy(vm);
}

static struct {
	struct viommu *viommu;
	uint32_t requester;
	const struct device_ops *ops;
	int found;
} asked;

static void ask_and_destroy(struct device *dev)
{
	asked.found = viommu_probe(asked.viommu, asked.requester, NULL, 0);
	dev->ops = asked.ops;
	dev->ops->destroy(dev);
}

/* A request that comes at that moment would ask a device that is freed for its number. */
Test(devices, are_unknown_to_the_virtual_iommu_before_they_are_freed)
{
	struct hospes_vm *vm = rig_create(&rig, bare, 0);
	struct vm_device *d = add(vm, &sorts[1]);
	struct device_ops ops = *d->dev->ops;

	asked.viommu = vm->viommu;
	asked.requester = vm_device_requester(d);
	asked.ops = d->dev->ops;
	ops.destroy = ask_and_destroy;
	d->dev->ops = &ops;
	cr_assert_geq(viommu_probe(vm->viommu, asked.requester, NULL, 0), 0);
	vm_device_remove(d);
	cr_assert_eq(asked.found, -ENOENT);
	hospes_vm_destroy(vm);
}

Test(devices, a_balloon_takes_what_leaves_the_guest_something)
{
	struct hospes_vm *vm = rig_create(&rig, bare, 0);
	struct hospes_error error;
	struct vm_device *d;
	char *status;

	cr_assert_eq(hospes_vm_balloon(vm, 4096, &error), -ENOENT);
	cr_assert(strstr(error.text, "--balloon"), "%s", error.text);
	d = add(vm, &(const struct sort){"balloon", "{}"});
	cr_assert_eq(hospes_vm_balloon(vm, 4095, &error), -EINVAL);
	cr_assert_eq(hospes_vm_balloon(vm, 32 * MiB, &error), -EINVAL);
	cr_assert(strstr(error.text, "33554432"), "%s", error.text);
	cr_assert_eq(hospes_vm_balloon(vm, 32 * MiB - 4096, &error), 0, "%s", error.text);
	cr_assert_eq(hospes_vm_status(vm, &status, &error), 0);
	cr_assert(strstr(status, "\"target_bytes\": 33550336"), "%s", status);
	hospes_free(status);
	vm_device_remove(d);
	cr_assert_eq(hospes_vm_balloon(vm, 4096, &error), -ENOENT);
	hospes_vm_destroy(vm);
}
