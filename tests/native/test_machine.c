// SPDX-License-Identifier: Apache-2.0
// Whole machines in this process, by the public interface and with no guest: what is built, what is
// refused when something fails on the way, and that nothing is left behind.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/num.h"
#include "machine/vm.h"
#include "rig.h"
#include "stub_kvm.h"

enum { ROUNDS = 50 };

static struct rig rig;

static void set_up(void)
{
	rig_init(&rig, false);
}

static void set_up_stub(void)
{
	rig_init(&rig, true);
}

static void tear_down(void)
{
	rig_done(&rig);
}

static json_t *status_of(struct hospes_vm *vm)
{
	struct hospes_error error;
	json_error_t where;
	json_t *status;
	char *text;

	cr_assert_eq(hospes_vm_status(vm, &text, &error), 0, "%s", error.text);
	status = json_loads(text, 0, &where);
	cr_assert_not_null(status, "%s", where.text);
	hospes_free(text);
	return status;
}

static unsigned int devices_of_kind(const json_t *status, const char *kind)
{
	unsigned int n = 0;
	const json_t *device;
	size_t i;

	json_array_foreach(json_object_get(status, "devices"), i, device) n +=
		!strcmp(json_string_value(json_object_get(device, "kind")), kind);
	return n;
}

Test(machine, status_shows_every_emulated_device, .init = set_up, .fini = tear_down)
{
	struct hospes_vm *vm = rig_create(&rig, rig_everything, 0);
	json_t *status = status_of(vm);

	cr_expect_str_eq(json_string_value(json_object_get(status, "state")), "created");
	cr_expect_eq(devices_of_kind(status, "disk"), 2u);
	cr_expect_eq(devices_of_kind(status, "net"), 2u);
	cr_expect_eq(devices_of_kind(status, "console"), 2u);
	cr_expect_eq(devices_of_kind(status, "rng"), 1u);
	cr_expect_not_null(json_object_get(status, "viommu"));
	json_decref(status);
	hospes_vm_destroy(vm);
}

Test(machine, a_disk_is_not_resized_beyond_its_backing, .init = set_up, .fini = tear_down)
{
	struct hospes_vm *vm =
		rig_create(&rig,
			   "{\"memory\": {\"size\": \"32M\"}, \"kernel\": {\"path\": "
			   "\"{dir}/kernel\"}, \"disks\": [{\"path\": \"{dir}/disk\"}]}",
			   0);
	struct hospes_error error;
	char path[128];

	cr_expect_eq(hospes_vm_disk_resize(vm, "disk0", MiB + 512, &error), -EINVAL);
	cr_expect(strstr(error.text, "1049088") && strstr(error.text, "1048576"), "%s", error.text);
	cr_expect_eq(hospes_vm_disk_resize(vm, "disk0", MiB / 2, &error), 0, "%s", error.text);
	snprintf(path, sizeof(path), "%s/disk", rig.dir);
	cr_assert_eq(truncate(path, 2 * MiB), 0);
	cr_expect_eq(hospes_vm_disk_resize(vm, "disk0", MiB + 512, &error), 0, "%s", error.text);
	cr_expect_eq(hospes_vm_disk_resize(vm, "disk0", 0, &error), 0, "%s", error.text);
	hospes_vm_destroy(vm);
}

/* The lock of an open file is one for all descriptors of it. */
Test(machine, one_file_is_no_two_disks_whatever_leads_to_it, .init = set_up, .fini = tear_down)
{
	static const struct {
		const char *readonly;
		int wanted;
	} rows[] = {{"", -EBUSY}, {", \"readonly\": true", 0}};
	char path[128], document[512];
	struct hospes_error error;
	struct hospes_vm *vm;
	int fd, twin;

	snprintf(path, sizeof(path), "%s/disk", rig.dir);
	fd = open(path, O_RDWR | O_CLOEXEC);
	twin = dup(fd);
	cr_assert(fd >= 0 && twin >= 0);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const int second[] = {fd, twin};

		for (size_t j = 0; j < ARRAY_SIZE(second); j++) {
			snprintf(document, sizeof(document),
				 "{\"memory\": {\"size\": \"32M\"}, \"kernel\": {\"path\": "
				 "\"{dir}/kernel\"}, \"disks\": [{\"fd\": %d%s}, {\"fd\": %d%s}]}",
				 fd, rows[i].readonly, second[j], rows[i].readonly);
			cr_expect_eq(rig_try(&rig, &vm, document, 0, &error), rows[i].wanted,
				     "%s: %s", document, error.text);
			cr_expect(!rows[i].wanted || strstr(error.text, "file of disk 'disk0' too"),
				  "%s", error.text);
			if (!rows[i].wanted)
				hospes_vm_destroy(vm);
		}
	}
	close(fd);
	close(twin);
}

Test(machine, created_and_destroyed_fifty_times_leaves_nothing, .init = set_up, .fini = tear_down,
     .timeout = 120)
{
	unsigned int fds, threads = rig_threads(UINT_MAX);

	hospes_vm_destroy(rig_create(&rig, rig_everything, HOSPES_VM_THREAD));
	fds = rig_fds();
	for (int i = 0; i < ROUNDS; i++) {
		struct hospes_vm *vm =
			rig_create(&rig, rig_everything, i % 2 ? HOSPES_VM_THREAD : 0);

		json_decref(status_of(vm));
		hospes_vm_destroy(vm);
		cr_assert_eq(rig_fds(), fds, "round %d", i);
		cr_assert_eq(rig_threads(threads), threads, "round %d", i);
	}
}

Test(machine, kvm_has_memory_and_routes_of_a_machine_until_it_is_destroyed, .init = set_up_stub,
     .fini = tear_down)
{
	struct hospes_vm *vm = rig_create(&rig, rig_everything, 0);
	struct stub_kvm_totals totals = stub_kvm_totals();

	cr_expect_eq(totals.vms, 1u);
	cr_expect_eq(totals.vcpus, 2u);
	/* Its memory, and the config spaces of its three spare root ports, 18.0 to 18.2. */
	cr_expect_eq(totals.slot_bytes, 64 * MiB + 3 * 4096);
	cr_expect_not(stub_kvm_backed(0xe0000000 + (0x17 << 15) + (7 << 12)));
	cr_expect(stub_kvm_backed(0xe0000000 + (0x18 << 15)));
	cr_expect(stub_kvm_backed(0xe0000000 + (0x18 << 15) + (2 << 12)));
	cr_expect_not(stub_kvm_backed(0xe0000000 + (0x18 << 15) + (3 << 12)));
	cr_expect(stub_kvm_backed(0));
	cr_expect(stub_kvm_backed(64 * MiB - 1));
	cr_expect_not(stub_kvm_backed(64 * MiB));
	cr_expect_gt(totals.routes, 0u);
	hospes_vm_destroy(vm);
	totals = stub_kvm_totals();
	cr_expect_eq(totals.vms + totals.vcpus + totals.slots + totals.irqfds + totals.ioeventfds,
		     0u);
}

#define SHAPED(cpus, memory)                                                        \
	"{\"cpus\": {\"count\": " cpus "}, \"memory\": {\"size\": \"" memory "\"}," \
	" \"pci\": {\"root_ports\": 0},"                                            \
	" \"kernel\": {\"path\": \"{dir}/kernel\", \"cache\": false}}"

/* Below 4 GiB 1 GiB is for devices; what memory would be there goes above. */
Test(machine, memory_of_about_3_gib_is_all_there_on_both_sides_of_the_hole, .init = set_up_stub,
     .fini = tear_down)
{
	static const struct {
		const char *document;
		uint64_t bytes;
	} machines[] = {
		{SHAPED("1", "3070M"), 3070 * MiB}, {SHAPED("1", "3072M"), 3072 * MiB},
		{SHAPED("1", "3074M"), 3074 * MiB}, {SHAPED("1", "4096M"), 4096 * MiB},
		{SHAPED("1", "4098M"), 4098 * MiB},
	};

	for (size_t i = 0; i < ARRAY_SIZE(machines); i++) {
		struct hospes_vm *vm = rig_create(&rig, machines[i].document, 0);
		uint64_t bytes = machines[i].bytes, low = MIN(bytes, 3 * GiB);

		cr_expect_eq(stub_kvm_totals().slot_bytes, bytes, "%zu", i);
		cr_expect(stub_kvm_backed(low - 1), "%zu", i);
		cr_expect_not(stub_kvm_backed(low), "%zu", i);
		cr_expect_not(stub_kvm_backed(4 * GiB - 1), "%zu", i);
		cr_expect_eq(stub_kvm_backed(4 * GiB), bytes > low, "%zu", i);
		cr_expect(bytes == low || stub_kvm_backed(4 * GiB + (bytes - low) - 1), "%zu", i);
		cr_expect_not(stub_kvm_backed(4 * GiB + (bytes - low)), "%zu", i);
		hospes_vm_destroy(vm);
	}
}

Test(machine, of_255_cpus_starts_pauses_and_leaves_nothing, .init = set_up_stub, .fini = tear_down,
     .timeout = 120)
{
	unsigned int fds = rig_fds(), threads = rig_threads(UINT_MAX);
	struct hospes_vm *vm = rig_create(&rig, SHAPED("255", "64M"), HOSPES_VM_THREAD);
	struct hospes_error error;

	cr_expect_eq(stub_kvm_totals().vcpus, 255u);
	cr_assert_eq(hospes_vm_start(vm, &error), 0, "%s", error.text);
	cr_assert_eq(hospes_vm_pause(vm, &error), 0, "%s", error.text);
	cr_assert_eq(hospes_vm_resume(vm, &error), 0, "%s", error.text);
	cr_assert_eq(hospes_vm_stop(vm, &error), 0, "%s", error.text);
	cr_assert_eq(hospes_vm_wait(vm, 60000), 0);
	hospes_vm_destroy(vm);
	cr_expect_eq(rig_fds(), fds);
	cr_expect_eq(rig_threads(threads), threads);
}

/* Its vCPUs are in KVM_RUN, where only a kick reaches them. */
Test(machine, is_started_paused_reset_and_stopped, .init = set_up_stub, .fini = tear_down)
{
	struct hospes_vm *vm = rig_create(&rig, rig_everything, HOSPES_VM_THREAD);
	struct hospes_error error;

	for (int i = 0; i < 10; i++) {
		cr_assert_eq(i ? hospes_vm_resume(vm, &error) : hospes_vm_start(vm, &error), 0,
			     "%s", error.text);
		cr_assert_eq(hospes_vm_state(vm), HOSPES_RUNNING);
		json_decref(status_of(vm));
		cr_assert_eq(hospes_vm_reset(vm, &error), 0, "%s", error.text);
		cr_assert_eq(hospes_vm_pause(vm, &error), 0, "%s", error.text);
		cr_assert_eq(hospes_vm_state(vm), HOSPES_PAUSED);
	}
	cr_assert_eq(hospes_vm_stop(vm, &error), 0, "%s", error.text);
	cr_assert_eq(hospes_vm_wait(vm, 10000), 0);
	cr_assert_eq(hospes_vm_state(vm), HOSPES_STOPPED);
	cr_assert_eq(hospes_vm_outcome(vm), HOSPES_OUTCOME_KILLED);
	hospes_vm_destroy(vm);
}

Test(machine, runs_in_its_embedders_loop, .init = set_up_stub, .fini = tear_down)
{
	struct hospes_vm *vm = rig_create(&rig, rig_least, 0);
	struct hospes_error error;
	struct pollfd fd = {.fd = hospes_vm_fd(vm), .events = POLLIN};

	cr_assert_eq(hospes_vm_start(vm, &error), 0, "%s", error.text);
	cr_assert_eq(hospes_vm_iterate(vm), 1);
	cr_assert_eq(hospes_vm_stop(vm, &error), 0, "%s", error.text);
	while (hospes_vm_iterate(vm) == 1)
		cr_assert_eq(poll(&fd, 1, 10000), 1);
	cr_assert_eq(hospes_vm_state(vm), HOSPES_STOPPED);
	hospes_vm_destroy(vm);
}

static bool take_press(struct hospes_vm *vm)
{
	enum { PRESSED = 1 << 8 };
	uint16_t status;

	cr_assert(bus_read(vm->pio, PLATFORM_PM_PORT, &status, sizeof(status)));
	cr_assert(bus_write(vm->pio, PLATFORM_PM_PORT, &status, sizeof(status)));
	return status & PRESSED;
}

/* As one that sleeps, which the first wakes, or that has no driver for the button yet. */
Test(machine, a_guest_that_misses_the_power_button_sees_it_again, .init = set_up_stub,
     .fini = tear_down)
{
	struct hospes_vm *vm = rig_create(&rig, rig_least, 0);
	struct pollfd fd = {.fd = hospes_vm_fd(vm), .events = POLLIN};

	cr_assert_eq(hospes_vm_start(vm, NULL), 0);
	cr_assert_eq(hospes_vm_shutdown(vm, NULL), 0);
	cr_assert(take_press(vm));
	cr_assert_not(take_press(vm));
	do {
		cr_assert_eq(hospes_vm_iterate(vm), 1);
		cr_assert_eq(poll(&fd, 1, 10000), 1, "no further press");
		cr_assert_eq(hospes_vm_iterate(vm), 1);
	} while (!take_press(vm));
	hospes_vm_destroy(vm);
}

Test(machine, a_guest_that_only_resets_itself_has_to_wait, .init = set_up_stub, .fini = tear_down)
{
	enum { ASKED = 60, BURST = 10 };
	struct hospes_vm *vm = rig_create(&rig, rig_least, 0);
	uint64_t start_ns = clock_ns();

	cr_assert_eq(hospes_vm_start(vm, NULL), 0);
	for (unsigned int i = 0; i < ASKED; i++) {
		vm_request(vm, VM_RESET);
		cr_assert_eq(hospes_vm_iterate(vm), 1);
	}
	cr_expect_geq(vm->resets, BURST);
	cr_expect_leq(vm->resets, BURST + (clock_ns() - start_ns) / NS_PER_S + 1, "%u of %u",
		      vm->resets, ASKED);
	hospes_vm_destroy(vm);
}

Test(machine, destroyed_while_it_runs_leaves_nothing, .init = set_up_stub, .fini = tear_down)
{
	unsigned int fds = rig_fds(), threads = rig_threads(UINT_MAX);
	struct hospes_error error;

	for (int i = 0; i < 5; i++) {
		struct hospes_vm *vm = rig_create(&rig, rig_everything, HOSPES_VM_THREAD);

		cr_assert_eq(hospes_vm_start(vm, &error), 0, "%s", error.text);
		hospes_vm_destroy(vm);
		cr_assert_eq(rig_fds(), fds, "round %d", i);
		cr_assert_eq(rig_threads(threads), threads, "round %d", i);
	}
}

Test(machine, two_live_side_by_side, .init = set_up_stub, .fini = tear_down)
{
	struct hospes_vm *one = rig_create(&rig, rig_everything, HOSPES_VM_THREAD);
	struct hospes_vm *two = rig_create(&rig, rig_least, HOSPES_VM_THREAD);
	struct hospes_error error;

	cr_expect_eq(stub_kvm_totals().vms, 2u);
	cr_assert_eq(hospes_vm_start(one, &error), 0, "%s", error.text);
	cr_assert_eq(hospes_vm_start(two, &error), 0, "%s", error.text);
	hospes_vm_destroy(one);
	cr_expect_eq(hospes_vm_state(two), HOSPES_RUNNING);
	hospes_vm_destroy(two);
}

/* Each call of KVM in turn. Some failures are lived with, such as that of the TSC's rate. */
Test(machine, a_failing_call_of_kvm_is_told_and_leaves_nothing, .init = set_up_stub,
     .fini = tear_down, .timeout = 120)
{
	unsigned int fds = rig_fds(), threads = rig_threads(UINT_MAX), refused = 0, n;

	for (n = 0;; n++) {
		struct hospes_error error;
		struct hospes_vm *vm;
		int rc;

		stub_kvm_fail(n, ENOMEM);
		rc = rig_try(&rig, &vm, rig_everything, 0, &error);
		if (rc == 0 && !stub_kvm_failed()) {
			hospes_vm_destroy(vm);
			break;
		}
		refused += rc < 0;
		cr_assert(rc == 0 || strlen(error.text) > 0, "call %u: %d and no word", n, rc);
		cr_assert((rc == 0) == (vm != NULL), "call %u", n);
		hospes_vm_destroy(vm);
		cr_assert_eq(rig_fds(), fds, "call %u", n);
		cr_assert_eq(rig_threads(threads), threads, "call %u", n);
	}
	cr_expect_gt(n, 100u);
	cr_expect_gt(refused, n / 2, "%u of %u", refused, n);
}

/* A system call that is in no table of the thread's role would end this process. */
Test(machine, confined_strictly_goes_through_its_states, .init = set_up_stub, .fini = tear_down)
{
	struct hospes_error error;
	struct hospes_vm *vm;
	char document[4096];
	json_t *all, *status;
	int rc;

	cr_assert_eq(rig_everything[0], '{');
	snprintf(document, sizeof(document), "{\"sandbox\": \"strict\", %s", rig_everything + 1);
	rc = rig_try(&rig, &vm, document, HOSPES_VM_THREAD, &error);
	if (rc == -EOPNOTSUPP)
		cr_skip_test("%s", error.text);
	cr_assert_eq(rc, 0, "%s", error.text);
	cr_assert_eq(hospes_vm_start(vm, &error), 0, "%s", error.text);
	cr_expect_eq(hospes_vm_pause(vm, &error), 0, "%s", error.text);
	cr_expect_eq(hospes_vm_resume(vm, &error), 0, "%s", error.text);
	cr_expect_eq(hospes_vm_reset(vm, &error), 0, "%s", error.text);
	all = status_of(vm);
	status = json_object_get(all, "sandbox");
	cr_expect_eq(json_array_size(json_object_get(status, "layers")), 3);
	cr_expect_eq(json_object_size(json_object_get(status, "lacks")), 0);
	cr_expect_eq(
		json_integer_value(json_object_get(json_object_get(status, "threads"), "vcpu")), 2);
	json_decref(all);
	cr_expect_eq(hospes_vm_stop(vm, &error), 0, "%s", error.text);
	hospes_vm_destroy(vm);
}

Test(machine, says_what_confines_it_not, .init = set_up, .fini = tear_down)
{
	char document[4096];
	struct hospes_error error;
	struct hospes_vm *vm;
	json_t *all, *status;

	snprintf(document, sizeof(document), "{\"sandbox\": \"off\", %s", rig_least + 1);
	cr_assert_eq(rig_try(&rig, &vm, document, 0, &error), 0, "%s", error.text);
	all = status_of(vm);
	status = json_object_get(all, "sandbox");
	cr_expect_eq(json_array_size(json_object_get(status, "layers")), 0);
	cr_expect_str_eq(
		json_string_value(json_object_get(json_object_get(status, "lacks"), "seccomp")),
		"sandbox is off");
	json_decref(all);
	hospes_vm_destroy(vm);
}
