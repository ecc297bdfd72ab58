// SPDX-License-Identifier: Apache-2.0
// Devices that are added to a machine and removed from it by the public calls: what its guest sees
// and answers, which these tests play, and that nothing is left behind.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <malloc.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/num.h"
#include "machine/vm.h"
#include "rig.h"
#include "stub_kvm.h"

enum {
	WARM = 20,
	ROUNDS = 100,
	PATIENCE_MS = 60000,

	LISTENS = PCI_EXP_SLTCTL_ABPE | PCI_EXP_SLTCTL_HPIE | PCI_EXP_SLTCTL_DLLSCE,
	LAMP_AND_POWER_OFF = PCI_EXP_SLTCTL_PWR_IND_OFF | PCI_EXP_SLTCTL_PWR_OFF,
};

static const char bare[] =
	"{\"memory\": {\"size\": \"32M\"}, \"kernel\": {\"path\": \"{dir}/kernel\", \"cache\": false},"
	" \"viommu\": {\"enabled\": true}, \"io_threads\": 1, \"rng\": {\"enabled\": false}}";

/* Each kind that can come while the guest runs. */
static const char *const sorts[] = {
	"{\"disk\": {\"id\": \"a\", \"path\": \"{dir}/disk\"}}",
	"{\"disk\": {\"id\": \"b\", \"path\": \"{dir}/disk2\", \"queues\": 4, \"viommu\": true}}",
	"{\"net\": {\"id\": \"c\", \"socket\": \"{dir}/passt.sock\"}}",
	"{\"net\": {\"id\": \"d\", \"socket\": \"{dir}/passt.sock\", \"viommu\": true}}",
	"{\"console\": {\"id\": \"e\", \"type\": \"virtio\", \"path\": \"{dir}/console.log\"}}",
	"{\"rng\": {}}",
};
static const char *const ids[] = {"a", "b", "c", "d", "e", "rng"};

static struct rig rig;
static struct hospes_error error;

/* The last event about a device, and how many there were. */
static struct {
	unsigned int n;
	enum hospes_event_type type;
	int value;
	char id[CONFIG_ID_BYTES], text[400];
} seen;

static void on_event(void *opaque, const struct hospes_event *event)
{
	(void)opaque;
	if (!event->device)
		return;
	seen.n++;
	seen.type = event->type;
	seen.value = event->value;
	snprintf(seen.id, sizeof(seen.id), "%s", event->device);
	snprintf(seen.text, sizeof(seen.text), "%s", event->text);
}

static void set_up(void)
{
	rig_init(&rig, true);
}

static void tear_down(void)
{
	rig_done(&rig);
}

TestSuite(hotplug, .init = set_up, .fini = tear_down, .timeout = 120);

/* In the embedder's loop, so that all is done in this thread. */
static struct hospes_vm *created(const char *document)
{
	struct hospes_vm *vm = rig_create(&rig, document, 0);

	vm->options.event = on_event;
	seen.n = 0;
	return vm;
}

static struct hospes_vm *started(void)
{
	struct hospes_vm *vm = created(bare);

	cr_assert_eq(hospes_vm_start(vm, &error), 0, "%s", error.text);
	return vm;
}

static int try_add(struct hospes_vm *vm, const char *json, char **device)
{
	const char *at = strstr(json, "{dir}");
	char text[300];
	int rc;

	if (at)
		snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - json), json, rig.dir,
			 at + strlen("{dir}"));
	else
		snprintf(text, sizeof(text), "%s", json);
	rc = hospes_vm_device_add(vm, text, strlen(text), device, &error);
	while (poll(&(struct pollfd){.fd = rig.listen_fd, .events = POLLIN}, 1, 0) == 1)
		close(accept(rig.listen_fd, NULL, NULL));
	return rc;
}

static void add(struct hospes_vm *vm, const char *json)
{
	cr_assert_eq(try_add(vm, json, NULL), 0, "%s: %s", json, error.text);
}

static void must_remove(struct hospes_vm *vm, const char *id, unsigned int timeout_ms,
			unsigned int flags)
{
	cr_assert_eq(hospes_vm_device_remove(vm, id, timeout_ms, flags, &error), 0, "%s",
		     error.text);
}

static struct vm_device *device(struct hospes_vm *vm, const char *id)
{
	struct vm_device *d = NULL;

	while ((d = vm_next_device(vm, d, NULL)) && strcmp(d->config->id, id) != 0)
		;
	return d;
}

/* --- what the guest does with the slot of a device --- */

static uint64_t slot_register(struct hospes_vm *vm, const struct vm_port *port, unsigned int reg)
{
	unsigned int function = (unsigned int)(port->dev->name[strlen("port")] - '0');
	uint64_t base = vm->platform.pci.ecam_gpa +
			((uint64_t)CONFIG_ROOT_PORT_SLOT << 15 | function << 12);
	uint32_t at = 0;

	cr_assert(bus_read(vm->mmio, base + PCI_CAPABILITY_LIST, &at, 1));
	for (uint32_t id = 0;; at = id >> 8 & 0xff) {
		cr_assert(at && bus_read(vm->mmio, base + at, &id, 2));
		if ((id & 0xff) == PCI_CAP_ID_EXP)
			return base + at + reg;
	}
}

static uint32_t status_of(struct hospes_vm *vm, const struct vm_port *port)
{
	uint32_t v = 0;

	cr_assert(bus_read(vm->mmio, slot_register(vm, port, PCI_EXP_SLTSTA), &v, 2));
	return v;
}

static void control(struct hospes_vm *vm, const struct vm_port *port, uint32_t v)
{
	cr_assert(bus_write(vm->mmio, slot_register(vm, port, PCI_EXP_SLTCTL), &v, 2));
}

static void acknowledge(struct hospes_vm *vm, const struct vm_port *port)
{
	uint32_t v = 0xffff;

	cr_assert(bus_write(vm->mmio, slot_register(vm, port, PCI_EXP_SLTSTA), &v, 2));
}

static void power_on(struct hospes_vm *vm, const struct vm_port *port)
{
	acknowledge(vm, port);
	control(vm, port, LISTENS | PCI_EXP_SLTCTL_PWR_IND_ON);
	acknowledge(vm, port);
}

static void give_up(struct hospes_vm *vm, const struct vm_port *port)
{
	acknowledge(vm, port);
	control(vm, port, LISTENS | PCI_EXP_SLTCTL_PWR_IND_BLINK);
	control(vm, port, LISTENS | LAMP_AND_POWER_OFF);
}

static void iterate_until_events(struct hospes_vm *vm, unsigned int n)
{
	while (seen.n < n) {
		struct pollfd fd = {.fd = hospes_vm_fd(vm), .events = POLLIN};

		cr_assert_geq(hospes_vm_iterate(vm), 0);
		if (seen.n < n && poll(&fd, 1, PATIENCE_MS) == 0)
			cr_assert_fail("no event came");
	}
}

/* --- tests --- */

Test(hotplug, added_device_is_behind_a_spare_port_and_in_the_status)
{
	struct hospes_vm *vm = started();
	char *text;

	cr_assert_eq(try_add(vm, sorts[0], &text), 0, "%s", error.text);
	cr_expect(strstr(text, "\"port\": \"port0\""), "%s", text);
	cr_expect(strstr(text, "\"addr\": \"01:00.0\""), "%s", text);
	hospes_free(text);
	cr_expect_eq(seen.n, 1);
	cr_expect_eq(seen.type, HOSPES_EVENT_DEVICE_ADDED);
	cr_expect_str_eq(seen.id, "a");
	cr_expect_eq(status_of(vm, device(vm, "a")->port),
		     PCI_EXP_SLTSTA_PDS | PCI_EXP_SLTSTA_PDC | PCI_EXP_SLTSTA_ABP);
	hospes_vm_destroy(vm);
}

Test(hotplug, guest_that_gives_a_device_up_loses_it)
{
	struct hospes_vm *vm = started();
	unsigned int fds = rig_fds();
	const struct vm_port *port;
	char *text;

	add(vm, sorts[0]);
	port = device(vm, "a")->port;
	power_on(vm, port);
	must_remove(vm, "a", PATIENCE_MS, 0);
	cr_assert_eq(hospes_vm_iterate(vm), 1);
	cr_assert_eq(seen.n, 1, "it is asked first");
	cr_assert_eq(status_of(vm, port), PCI_EXP_SLTSTA_PDS | PCI_EXP_SLTSTA_ABP);
	cr_assert_eq(hospes_vm_status(vm, &text, &error), 0);
	cr_expect(strstr(text, "\"leaving\": true"));
	hospes_free(text);
	give_up(vm, port);
	iterate_until_events(vm, 2);
	cr_expect_eq(seen.type, HOSPES_EVENT_DEVICE_REMOVED);
	cr_expect_eq(seen.value, 0);
	cr_expect_str_eq(seen.id, "a");
	cr_expect_null(device(vm, "a"));
	cr_expect_null(port->user);
	cr_expect_eq(status_of(vm, port) & PCI_EXP_SLTSTA_PDS, 0);
	cr_expect_eq(rig_fds(), fds);
	hospes_vm_destroy(vm);
}

Test(hotplug, guest_that_does_not_answer_keeps_its_device_and_the_reason_is_said)
{
	struct hospes_vm *vm = started();

	add(vm, sorts[0]);
	control(vm, device(vm, "a")->port, PCI_EXP_SLTCTL_PWR_IND_ON);
	must_remove(vm, "a", 1, 0);
	iterate_until_events(vm, 2);
	cr_expect_eq(seen.type, HOSPES_EVENT_DEVICE_KEPT);
	cr_expect(strstr(seen.text, "'a': the guest keeps it") && strstr(seen.text, "pciehp"), "%s",
		  seen.text);
	cr_expect_not_null(device(vm, "a"));
	/* Another one, which it answers. */
	must_remove(vm, "a", PATIENCE_MS, 0);
	give_up(vm, device(vm, "a")->port);
	iterate_until_events(vm, 3);
	cr_expect_eq(seen.type, HOSPES_EVENT_DEVICE_REMOVED);
	hospes_vm_destroy(vm);
}

Test(hotplug, guest_that_answers_late_has_a_slot_without_power_until_it_is_asked_again)
{
	struct hospes_vm *vm = started();

	add(vm, sorts[0]);
	power_on(vm, device(vm, "a")->port);
	must_remove(vm, "a", 1, 0);
	iterate_until_events(vm, 2);
	cr_expect_eq(seen.type, HOSPES_EVENT_DEVICE_KEPT);
	give_up(vm, device(vm, "a")->port);
	cr_assert_eq(hospes_vm_iterate(vm), 1);
	cr_expect_not_null(device(vm, "a"));
	must_remove(vm, "a", PATIENCE_MS, 0);
	cr_expect_null(device(vm, "a"), "at once");
	cr_expect_eq(seen.value, 0);
	hospes_vm_destroy(vm);
}

Test(hotplug, guest_that_plays_with_its_slots_power_unasked_loses_nothing)
{
	struct hospes_vm *vm = started();
	const struct vm_port *port;

	add(vm, sorts[0]);
	port = device(vm, "a")->port;
	for (int i = 0; i < 20; i++) {
		power_on(vm, port);
		give_up(vm, port);
		give_up(vm, port);
		cr_assert_eq(hospes_vm_iterate(vm), 1);
	}
	cr_expect_eq(seen.n, 1);
	cr_expect_not_null(device(vm, "a"));
	hospes_vm_destroy(vm);
}

Test(hotplug, forced_device_goes_at_once_or_when_its_time_is_over)
{
	struct hospes_vm *vm = started();
	const struct vm_port *port;

	add(vm, sorts[0]);
	port = device(vm, "a")->port;
	power_on(vm, port);
	must_remove(vm, "a", 0, HOSPES_REMOVE_FORCE);
	cr_expect_null(device(vm, "a"));
	cr_expect_eq(seen.type, HOSPES_EVENT_DEVICE_REMOVED);
	cr_expect_eq(seen.value, 1);
	cr_expect_eq(status_of(vm, port), PCI_EXP_SLTSTA_PDC | PCI_EXP_SLTSTA_DLLSC);
	add(vm, sorts[0]);
	power_on(vm, device(vm, "a")->port);
	must_remove(vm, "a", 1, HOSPES_REMOVE_FORCE);
	iterate_until_events(vm, 4);
	cr_expect_null(device(vm, "a"));
	cr_expect_eq(seen.value, 1);
	hospes_vm_destroy(vm);
}

/* What firmware's part of the guest would do: the BAR of memory is in the port's window, and both
 * decode. */
static uint64_t map_registers(struct hospes_vm *vm, const struct vm_port *port)
{
	uint64_t bridge = slot_register(vm, port, 0) & ~0xfffull, below = 0;
	uint64_t ecam = vm->platform.pci.ecam_gpa;
	uint32_t v = 0, window = 0;

	cr_assert(bus_read(vm->mmio, bridge + PCI_MEMORY_BASE, &window, 2));
	window = (window & 0xfff0) << 16;
	below = ecam + ((uint64_t)pci_bus_number(root_port_bus(port->dev)) << 20);
	for (unsigned int reg = PCI_BASE_ADDRESS_0; reg <= PCI_BASE_ADDRESS_5; reg += 4) {
		v = 0;
		cr_assert(bus_read(vm->mmio, below + reg, &v, 4));
		if ((v & 7) == PCI_BASE_ADDRESS_MEM_TYPE_64)
			cr_assert(bus_write(vm->mmio, below + reg, &window, 4));
	}
	v = PCI_COMMAND_MEMORY;
	cr_assert(bus_write(vm->mmio, bridge + PCI_COMMAND, &v, 2));
	cr_assert(bus_write(vm->mmio, below + PCI_COMMAND, &v, 2));
	return window;
}

static uint32_t status_register(struct hospes_vm *vm, uint64_t bar)
{
	uint32_t v = 0;

	return bus_read(vm->mmio, bar + 0x14, &v, 1) ? v : 0xff;
}

/* Linux resets a virtio device that is gone, and waits for its status to read 0. */
Test(hotplug, registers_of_a_virtio_device_that_was_pulled_out_read_0_until_the_slot_is_off)
{
	struct hospes_vm *vm = started();
	const struct vm_port *port;
	uint64_t bar;
	uint32_t v = 1;

	add(vm, sorts[0]);
	port = device(vm, "a")->port;
	power_on(vm, port);
	bar = map_registers(vm, port);
	cr_assert(bus_write(vm->mmio, bar + 0x14, &v, 1));
	cr_assert_eq(status_register(vm, bar), 1);
	must_remove(vm, "a", 0, HOSPES_REMOVE_FORCE);
	cr_expect_eq(status_register(vm, bar), 0);
	give_up(vm, port);
	cr_assert_eq(hospes_vm_iterate(vm), 1);
	cr_expect_eq(status_register(vm, bar), 0xff, "nobody is there");
	/* The next device has the addresses. */
	add(vm, sorts[0]);
	power_on(vm, port);
	cr_assert_eq(map_registers(vm, port), bar);
	cr_expect_eq(status_register(vm, bar), 0);
	hospes_vm_destroy(vm);
}

Test(hotplug, guest_that_is_asked_can_be_forced_and_the_first_to_end_decides)
{
	struct hospes_vm *vm = started();

	add(vm, sorts[0]);
	power_on(vm, device(vm, "a")->port);
	must_remove(vm, "a", PATIENCE_MS, 0);
	cr_assert_eq(hospes_vm_iterate(vm), 1);
	cr_expect_eq(hospes_vm_device_remove(vm, "a", PATIENCE_MS, 0, &error), -EALREADY);
	must_remove(vm, "a", 1, HOSPES_REMOVE_FORCE);
	iterate_until_events(vm, 2);
	cr_expect_null(device(vm, "a"));
	hospes_vm_destroy(vm);
}

Test(hotplug, guest_that_is_reset_gives_up_what_it_was_asked_for)
{
	struct hospes_vm *vm = started();

	add(vm, sorts[0]);
	add(vm, sorts[2]);
	power_on(vm, device(vm, "a")->port);
	must_remove(vm, "a", PATIENCE_MS, 0);
	cr_assert_eq(hospes_vm_reset(vm, &error), 0, "%s", error.text);
	cr_expect_null(device(vm, "a"));
	cr_expect_not_null(device(vm, "c"));
	cr_expect_eq(status_of(vm, device(vm, "c")->port), PCI_EXP_SLTSTA_PDS, "as at power-on");
	hospes_vm_destroy(vm);
}

Test(hotplug, without_a_free_port_an_addition_is_refused_with_the_key)
{
	struct hospes_vm *vm = started();
	struct stub_kvm_totals before;
	char text[100];

	for (int i = 0; i < CONFIG_MAX_ROOT_PORTS; i++) {
		snprintf(text, sizeof(text), "{\"net\": {\"socket\": \"{dir}/passt.sock\"}}");
		add(vm, text);
	}
	before = stub_kvm_totals();
	cr_expect_eq(try_add(vm, sorts[0], NULL), -ENOSPC);
	cr_expect(strstr(error.text, "'a': none of the 8 PCIe root ports is free"), "%s",
		  error.text);
	cr_expect(strstr(error.text, "pci.root_ports"), "%s", error.text);
	cr_expect_null(device(vm, "a"));
	cr_expect_eq(stub_kvm_totals().routes, before.routes);
	must_remove(vm, "net3", 0, HOSPES_REMOVE_FORCE);
	add(vm, sorts[0]);
	hospes_vm_destroy(vm);
}

Test(hotplug, before_the_start_devices_come_to_bus_0_and_nobody_is_asked)
{
	struct hospes_vm *vm = created(bare);

	add(vm, sorts[0]);
	cr_expect_null(device(vm, "a")->port);
	must_remove(vm, "a", PATIENCE_MS, 0);
	cr_expect_null(device(vm, "a"));
	cr_expect_eq(seen.type, HOSPES_EVENT_DEVICE_REMOVED);
	hospes_vm_destroy(vm);
}

Test(hotplug, fd_of_the_caller_stays_the_callers)
{
	struct hospes_vm *vm = started();
	unsigned int fds;
	char text[100];
	int fd;

	snprintf(text, sizeof(text), "%s/disk", rig.dir);
	fd = open(text, O_RDWR | O_CLOEXEC);
	cr_assert_geq(fd, 0);
	fds = rig_fds();
	snprintf(text, sizeof(text), "{\"disk\": {\"id\": \"a\", \"fd\": %d}}", fd);
	add(vm, text);
	must_remove(vm, "a", 0, HOSPES_REMOVE_FORCE);
	cr_expect_eq(rig_fds(), fds);
	cr_expect_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
	close(fd);
	cr_expect_eq(try_add(vm, text, NULL), -EBADF, "%s", error.text);
	hospes_vm_destroy(vm);
}

Test(hotplug, wrong_additions_are_refused_in_one_line_and_leave_nothing)
{
	static const struct {
		const char *json;
		int rc;
		const char *text;
	} cases[] = {
		{"", -EINVAL, "line"},
		{"[]", -EINVAL, "one key"},
		{"{\"disk\": {}, \"net\": {}}", -EINVAL, "one key"},
		{"{\"disks\": {}}", -EINVAL, "disk, net, share, console, rng"},
		{"{\"disk\": []}", -EINVAL, "object"},
		{"{\"disk\": {\"pth\": \"x\"}}", -EINVAL, "did you mean 'path'"},
		{"{\"disk\": {\"path\": \"{dir}/none\"}}", -ENOENT, "none"},
		{"{\"disk\": {\"path\": \"{dir}/disk\", \"addr\": \"9.0\"}}", -EINVAL,
		 "leave the address out"},
		{"{\"disk\": {\"id\": \"a\", \"path\": \"{dir}/disk2\"}}", -EEXIST, "id 'a'"},
		{"{\"disk\": {\"path\": \"{dir}/disk\"}}", -EBUSY, "disk"},
		{"{\"console\": {\"path\": \"{dir}/serial.log\"}}", -EOPNOTSUPP, "type virtio"},
		{"{\"passthrough\": {\"device\": \"0000:00:00.0\", \"port\": \"9.0\"}}", -EINVAL,
		 "leave the address out"},
	};
	struct hospes_vm *vm = started();
	struct stub_kvm_totals before;
	unsigned int fds;

	add(vm, sorts[0]);
	before = stub_kvm_totals();
	fds = rig_fds();
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		cr_expect_eq(try_add(vm, cases[i].json, NULL), cases[i].rc, "%s: %s", cases[i].json,
			     error.text);
		cr_expect(strstr(error.text, cases[i].text) && !strchr(error.text, '\n'), "%s: %s",
			  cases[i].json, error.text);
	}
	cr_expect_eq(rig_fds(), fds);
	cr_expect_eq(stub_kvm_totals().routes, before.routes);
	cr_expect_eq(seen.n, 1);
	hospes_vm_destroy(vm);
}

Test(hotplug, wrong_removals_are_refused_in_one_line)
{
	struct hospes_vm *vm =
		created("{\"memory\": {\"size\": \"32M\"}, \"kernel\": {\"path\": \"{dir}/kernel\","
			" \"cache\": false}}");

	cr_assert_eq(hospes_vm_start(vm, &error), 0, "%s", error.text);
	add(vm, sorts[0]);
	power_on(vm, device(vm, "a")->port);
	cr_expect_eq(hospes_vm_device_remove(vm, "x", 1, 0, &error), -ENOENT);
	cr_expect_eq(hospes_vm_device_remove(vm, "a", 0, 0, &error), -EINVAL);
	cr_expect_eq(hospes_vm_device_remove(vm, "a", 1, ~0u, &error), -EINVAL);
	cr_expect_eq(hospes_vm_device_remove(vm, "rng", 1, 0, &error), -EOPNOTSUPP);
	cr_expect(strstr(error.text, "force"), "%s", error.text);
	cr_assert_eq(hospes_vm_pause(vm, &error), 0);
	cr_expect_eq(hospes_vm_device_remove(vm, "a", 1, 0, &error), -EBUSY);
	must_remove(vm, "a", 0, HOSPES_REMOVE_FORCE);
	cr_assert_eq(hospes_vm_resume(vm, &error), 0);
	must_remove(vm, "rng", 0, HOSPES_REMOVE_FORCE);
	cr_assert_eq(hospes_vm_stop(vm, &error), 0);
	cr_expect_eq(hospes_vm_device_remove(vm, "a", 1, 0, &error), -ENOENT);
	hospes_vm_destroy(vm);
}

/* --- nothing is left --- */

struct held {
	unsigned int fds, regions, memory;
	size_t bytes;
	struct stub_kvm_totals kvm;
};

static void count_region(void *opaque, const struct bus_region *region)
{
	(void)region;
	++*(unsigned int *)opaque;
}

static int count_memory(void *opaque, const struct gmem_region *region)
{
	(void)region;
	++*(unsigned int *)opaque;
	return 0;
}

static struct held held(struct hospes_vm *vm)
{
	struct held h = {
		.fds = rig_fds(),
		.bytes = mallinfo2().uordblks,
		.kvm = stub_kvm_totals(),
	};

	bus_walk(vm->mmio, count_region, &h.regions);
	bus_walk(vm->pio, count_region, &h.regions);
	gmem_walk(vm->gmem, count_memory, &h.memory);
	return h;
}

/* Every third is pulled out, every third while the guest has not powered it on. */
static void round_of_all(struct hospes_vm *vm, unsigned int round)
{
	for (size_t i = 0; i < ARRAY_SIZE(sorts); i++) {
		add(vm, sorts[i]);
		if ((round + i) % 3)
			power_on(vm, device(vm, ids[i])->port);
	}
	for (size_t i = 0; i < ARRAY_SIZE(sorts); i++) {
		const struct vm_port *port = device(vm, ids[i])->port;
		unsigned int n = seen.n;

		if ((round + i) % 3 == 1) {
			must_remove(vm, ids[i], 0, HOSPES_REMOVE_FORCE);
		} else {
			must_remove(vm, ids[i], PATIENCE_MS, 0);
			give_up(vm, port);
		}
		iterate_until_events(vm, n + 1);
		cr_assert_eq(seen.type, HOSPES_EVENT_DEVICE_REMOVED, "%s", seen.text);
		cr_assert_null(device(vm, ids[i]));
		give_up(vm, port);
	}
}

Test(hotplug, rounds_of_all_kinds_leave_nothing_behind)
{
	struct hospes_vm *vm = started();
	struct held before, after;

	for (unsigned int i = 0; i < WARM; i++)
		round_of_all(vm, i);
	before = held(vm);
	for (unsigned int i = 0; i < ROUNDS; i++)
		round_of_all(vm, i);
	after = held(vm);
	cr_expect_eq(after.fds, before.fds, "%u, not %u", after.fds, before.fds);
	cr_expect_eq(after.regions, before.regions);
	cr_expect_eq(after.memory, before.memory);
	cr_expect_eq(after.kvm.slots, before.kvm.slots);
	cr_expect_eq(after.kvm.routes, before.kvm.routes);
	cr_expect_eq(after.kvm.irqfds, before.kvm.irqfds);
	cr_expect_eq(after.kvm.ioeventfds, before.kvm.ioeventfds);
	/* Exact enough as meson.build runs it: without a cache of malloc's per thread. */
	if (getenv("GLIBC_TUNABLES"))
		cr_expect_lt(after.bytes, before.bytes + 4096, "%zu bytes more",
			     after.bytes - before.bytes);
	hospes_vm_destroy(vm);
}
