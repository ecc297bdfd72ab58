// SPDX-License-Identifier: Apache-2.0
// The state of all devices of a whole machine, put into another one of the same document.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/state.h"
#include "machine/vm.h"
#include "rig.h"

/* What can be saved: everything but a virtual IOMMU. */
static const char document[] =
	"{\"memory\": {\"size\": \"64M\"}, \"pci\": {\"root_ports\": 2},"
	" \"kernel\": {\"path\": \"{dir}/kernel\", \"cache\": false}, \"io_threads\": 1,"
	" \"disks\": [{\"path\": \"{dir}/disk\"},"
	"             {\"path\": \"{dir}/disk2\", \"readonly\": true, \"queues\": 2}],"
	" \"nets\": [{\"socket\": \"{dir}/passt.sock\"}],"
	" \"balloon\": {\"enabled\": true},"
	" \"consoles\": [{\"type\": \"serial\", \"path\": \"{dir}/serial.log\"},"
	"                {\"type\": \"virtio\", \"path\": \"{dir}/console.log\"}]}";

static struct rig rig;
static struct err err;

static void set_up(void)
{
	rig_init(&rig, true);
}

static void tear_down(void)
{
	rig_done(&rig);
}

TestSuite(state, .init = set_up, .fini = tear_down, .timeout = 120);

static struct hospes_vm *paused(const char *text)
{
	struct hospes_vm *vm = rig_create(&rig, text, 0);
	struct hospes_error error;

	cr_assert_eq(hospes_vm_start(vm, &error), 0, "%s", error.text);
	cr_assert_eq(hospes_vm_pause(vm, &error), 0, "%s", error.text);
	return vm;
}

static struct device *device_at(struct list *item)
{
	return container_of(item, struct device, link);
}

static struct state_buffer save(struct hospes_vm *vm)
{
	struct state_buffer buffer = {0};
	struct state_writer w;

	state_writer_begin(&w, state_buffer_sink, &buffer);
	pci_root_save(vm->pci, &w);
	list_for_each (item, &vm->plugged)
		cr_assert_eq(state_save_device(&w, device_at(item), &err), 0, "%s", err.text);
	cr_assert_eq(state_writer_end(&w, &err), 0, "%s", err.text);
	return buffer;
}

Test(state, all_devices_of_a_machine_are_put_into_another_and_saved_again_as_the_same_bytes)
{
	struct state_buffer first, second;
	struct hospes_error error;
	struct state_reader *r;
	struct hospes_vm *vm;
	unsigned int n = 0;

	vm = paused(document);
	first = save(vm);
	hospes_vm_destroy(vm);

	vm = paused(document);
	cr_assert_eq(state_reader_open(&r, first.bytes, first.len, &err), 0, "%s", err.text);
	cr_assert_eq(pci_root_load(vm->pci, r, &err), 0, "%s", err.text);
	list_for_each (item, &vm->plugged) {
		cr_assert_eq(state_load_device(r, device_at(item), &err), 0, "%s", err.text);
		n++;
	}
	cr_assert_eq(state_reader_end(r, &err), 0, "%s", err.text);
	state_reader_close(r);
	cr_expect_geq(n, 12, "%u devices", n);
	second = save(vm);
	cr_assert_eq(first.len, second.len);
	cr_assert_eq(memcmp(first.bytes, second.bytes, first.len), 0);
	cr_assert_eq(hospes_vm_resume(vm, &error), 0, "%s", error.text);
	cr_assert_eq(hospes_vm_reset(vm, &error), 0, "%s", error.text);
	hospes_vm_destroy(vm);
	free(first.bytes);
	free(second.bytes);
}

Test(state, what_cannot_be_saved_says_why_and_goes_on)
{
	struct hospes_vm *vm = paused(rig_everything);
	struct state_buffer buffer = {0};
	struct hospes_error error;
	unsigned int refused = 0;
	struct state_writer w;

	state_writer_begin(&w, state_buffer_sink, &buffer);
	list_for_each (item, &vm->plugged) {
		int ret = state_save_device(&w, device_at(item), &err);

		cr_assert(!ret || ret == -EOPNOTSUPP, "%s", err.text);
		cr_assert(!ret || strstr(err.text, "virtual IOMMU"), "%s", err.text);
		refused += ret != 0;
	}
	cr_expect_eq(refused, 1);
	cr_assert_eq(hospes_vm_resume(vm, &error), 0, "%s", error.text);
	hospes_vm_destroy(vm);
	free(buffer.bytes);
}
