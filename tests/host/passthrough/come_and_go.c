// SPDX-License-Identifier: Apache-2.0
// Passed-through devices that come and go in a machine:   come_and_go DOCUMENT ROUNDS DEVICE…
//
// Each DEVICE is an object of the document's "passthrough". All of them are added and removed
// ROUNDS times before the machine starts, while its guest boots, and while it is paused. After each
// of these the process and the kernel hold what they held before ("created: good"), or a line says
// what they do not. Then all are added once more, and stay until the guest powers off (status 0).
#include <dirent.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "hospes/hospes.h"
#include "machine/vm.h"

enum { MAX_DEVICES = 8 };

struct rounds {
	unsigned int n, n_devices;
	char **json;
	struct vm_device *added[MAX_DEVICES];
};

static void on_log(void *opaque, enum hospes_log_level level, const char *component,
		   const char *text)
{
	(void)opaque;
	if (level <= HOSPES_LOG_ERROR)
		printf("log: %s: %s\n", component, text);
}

/* --- what is held --- */

/* The number after the first line's `key` in this file. */
static uint64_t value(const char *path, const char *key)
{
	char line[256];
	uint64_t n = 0;
	FILE *f = fopen(path, "re");

	while (f && fgets(line, sizeof(line), f)) {
		size_t len = strlen(key);

		if (strncmp(line, key, len) == 0 && strchr(": ", line[len])) {
			n = strtoull(line + len + 1, NULL, 10);
			break;
		}
	}
	if (f)
		fclose(f);
	return n;
}

static uint64_t count_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	uint64_t n = 0;

	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	return n;
}

/* Without the kernel's own of io_uring, which come and go as it likes. */
static uint64_t count_threads(void)
{
	DIR *dir = opendir("/proc/self/task");
	const struct dirent *e;
	uint64_t n = 0;

	while (dir && (e = readdir(dir))) {
		char path[300], name[16] = "";
		FILE *f;

		snprintf(path, sizeof(path), "/proc/self/task/%s/comm", e->d_name);
		f = fopen(path, "re");
		n += f && fgets(name, sizeof(name), f) && strncmp(name, "iou-", 4) != 0;
		if (f)
			fclose(f);
	}
	if (dir)
		closedir(dir);
	return n;
}

enum { FDS, THREADS, LOCKED_KIB, ACCOUNTED_KIB, PINS, IO_PAGES, N_HELD };
static const char *const held_names[N_HELD] = {
	[FDS] = "open files",
	[THREADS] = "threads",
	[LOCKED_KIB] = "KiB locked",
	[ACCOUNTED_KIB] = "KiB accounted as pinned",
	[PINS] = "pages pinned by anyone",
	[IO_PAGES] = "pages of I/O page tables",
};

static void measure(uint64_t *held)
{
	/* Each CPU keeps a part of these counters to itself until they are refreshed. */
	(void)value("/proc/sys/vm/stat_refresh", "");
	held[FDS] = count_files();
	held[THREADS] = count_threads();
	held[LOCKED_KIB] = value("/proc/self/status", "VmLck");
	held[ACCOUNTED_KIB] = value("/proc/self/status", "VmPin");
	held[PINS] = value("/proc/vmstat", "nr_foll_pin_acquired") -
		     value("/proc/vmstat", "nr_foll_pin_released");
	held[IO_PAGES] = value("/proc/vmstat", "nr_iommu_pages");
}

static bool as_before(const char *when, const uint64_t *before)
{
	uint64_t held[N_HELD];
	bool same = true;

	measure(held);
	/* One that was joined may still be seen for a moment. */
	for (int i = 0; i < 10000 && held[THREADS] > before[THREADS]; i++) {
		sched_yield();
		held[THREADS] = count_threads();
	}
	for (unsigned int i = 0; i < N_HELD; i++) {
		if (held[i] == before[i])
			continue;
		printf("%s: %s: %" PRIu64 ", then %" PRIu64 "\n", when, held_names[i], before[i],
		       held[i]);
		same = false;
	}
	return same;
}

/* --- in the machine's thread --- */

static int add_all(struct hospes_vm *vm, void *opaque, struct err *err)
{
	struct rounds *r = opaque;
	int rc = 0;

	for (unsigned int i = 0; i < r->n_devices && !rc; i++) {
		struct config_device *config;
		json_t *json = json_loads(r->json[i], 0, NULL);

		r->added[i] = NULL;
		rc = config_device_read(&kind_passthrough, json, "device", &config, err);
		json_decref(json);
		if (!rc)
			rc = vm_device_add(vm, config, &r->added[i], err);
	}
	return rc;
}

static int make_rounds(struct hospes_vm *vm, void *opaque, struct err *err)
{
	struct rounds *r = opaque;

	for (unsigned int round = 0; round < r->n; round++) {
		int rc = add_all(vm, r, err);

		if (rc)
			return rc;
		/* The other way round every second time. */
		for (unsigned int i = 0; i < r->n_devices && !rc; i++)
			rc = vm_device_remove(r->added[round % 2 ? i : r->n_devices - 1 - i]);
		if (rc)
			return err_set(err, rc, "a device cannot be removed");
	}
	return 0;
}

static bool good(struct hospes_vm *vm, const char *when, struct rounds *rounds)
{
	struct rounds first = *rounds;
	struct err err = ERR_INIT;
	uint64_t before[N_HELD];
	int rc;

	/* With the first device KVM opens a file of its own for VFIO, which stays (core/arch.h). */
	first.n = 1;
	rc = vm_call(vm, make_rounds, &first, &err);
	measure(before);
	if (!rc)
		rc = vm_call(vm, make_rounds, rounds, &err);
	if (rc) {
		printf("%s: %s\n", when, err.text);
		return false;
	}
	if (!as_before(when, before))
		return false;
	printf("%s: good\n", when);
	return true;
}

/* --- the machine --- */

static char *read_file(const char *path)
{
	enum { MAX = 1 << 16 };
	FILE *f = fopen(path, "re");
	char *text = calloc(1, MAX);

	if (!f || !text || !fread(text, 1, MAX - 1, f))
		exit(2);
	fclose(f);
	return text;
}

static bool worked(int rc, const struct hospes_error *error)
{
	if (rc)
		printf("error: %s\n", error->text);
	return !rc;
}

static bool run(struct hospes_vm *vm, struct rounds *rounds)
{
	struct hospes_error error;
	struct err err = ERR_INIT;

	if (!good(vm, "created", rounds) || !worked(hospes_vm_start(vm, &error), &error) ||
	    !good(vm, "running", rounds) || !worked(hospes_vm_pause(vm, &error), &error) ||
	    !good(vm, "paused", rounds) || !worked(hospes_vm_resume(vm, &error), &error))
		return false;
	if (vm_call(vm, add_all, rounds, &err)) {
		printf("last: %s\n", err.text);
		return false;
	}
	printf("last: they stay\n");
	hospes_vm_wait(vm, -1);
	return hospes_vm_outcome(vm) == HOSPES_OUTCOME_POWERED_OFF;
}

int main(int argc, char **argv)
{
	const struct hospes_vm_options options = {
		.size = sizeof(options),
		.flags = HOSPES_VM_THREAD,
		.log = on_log,
		.log_level = HOSPES_LOG_INFO,
	};
	struct rounds rounds = {.n_devices = (unsigned int)argc - 3, .json = argv + 3};
	struct hospes_error error;
	uint64_t before[N_HELD];
	struct hospes_vm *vm;
	bool well;
	char *json;

	if (argc < 4 || argc > 3 + MAX_DEVICES)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	rounds.n = (unsigned int)atoi(argv[2]);
	json = read_file(argv[1]);
	measure(before);
	if (!worked(hospes_vm_create(&vm, json, strlen(json), &options, &error), &error))
		return 1;
	free(json);
	well = run(vm, &rounds);
	hospes_vm_destroy(vm);
	return !(well && as_before("destroyed", before));
}
