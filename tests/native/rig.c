// SPDX-License-Identifier: Apache-2.0
// Machines without a guest. See rig.h.
#include "rig.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "synth.h"
#include "base/num.h"
#include "machine/vm.h"
#include "stub_kvm.h"

const char rig_least[] =
	"{\"memory\": {\"size\": \"32M\"}, \"kernel\": {\"path\": \"{dir}/kernel\","
	" \"cache\": false}}";

const char rig_everything[] =
	"{\"name\": \"all\", \"cpus\": {\"count\": 2}, \"memory\": {\"size\": \"64M\"},"
	" \"kernel\": {\"path\": \"{dir}/kernel\", \"cache\": false},"
	" \"viommu\": {\"enabled\": true}, \"io_threads\": 1, \"pci\": {\"root_ports\": 3},"
	" \"disks\": [{\"id\": \"rw\", \"path\": \"{dir}/disk\"},"
	"             {\"id\": \"ro\", \"path\": \"{dir}/disk2\", \"readonly\": true,"
	"              \"viommu\": true, \"queues\": 2}],"
	" \"nets\": [{\"id\": \"plain\", \"socket\": \"{dir}/passt.sock\"},"
	"            {\"id\": \"behind\", \"socket\": \"{dir}/passt.sock\", \"viommu\": true}],"
	" \"consoles\": [{\"type\": \"serial\", \"path\": \"{dir}/serial.log\"},"
	"                {\"type\": \"virtio\", \"path\": \"{dir}/console.log\"}]}";

static void write_file(const struct rig *rig, const char *name, const void *data, size_t bytes)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", rig->dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	cr_assert_geq(fd, 0);
	if (data)
		cr_assert_eq(write(fd, data, bytes), (ssize_t)bytes);
	else
		cr_assert_eq(ftruncate(fd, (off_t)bytes), 0);
	close(fd);
}

static void listen_as_passt(struct rig *rig)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/passt.sock", rig->dir);
	rig->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert_geq(rig->listen_fd, 0);
	cr_assert_eq(bind(rig->listen_fd, (const struct sockaddr *)&addr, sizeof(addr)), 0);
	cr_assert_eq(listen(rig->listen_fd, 1024), 0);
}

void rig_init(struct rig *rig, bool stub)
{
	cleanup_blob struct blob kernel = synth_bzimage(&(struct synth){.lists = 2}, NULL);

	rig->calls = &kvm_kernel_calls;
	rig->kvm_fd = stub ? -1 : open("/dev/kvm", O_RDWR | O_CLOEXEC);
	rig->stub = rig->kvm_fd < 0 || kvm_call_value(rig->calls, rig->kvm_fd, KVM_GET_API_VERSION,
						      0) != KVM_API_VERSION;
	if (rig->stub) {
		if (rig->kvm_fd >= 0)
			close(rig->kvm_fd);
		rig->calls = &stub_kvm_calls;
		rig->kvm_fd = stub_kvm_open();
		cr_assert_geq(rig->kvm_fd, 0);
	}
	snprintf(rig->dir, sizeof(rig->dir), "/tmp/hospes-native.XXXXXX");
	cr_assert_not_null(mkdtemp(rig->dir));
	write_file(rig, "kernel", kernel.data, kernel.len);
	write_file(rig, "disk", NULL, MiB);
	write_file(rig, "disk2", NULL, MiB);
	listen_as_passt(rig);
}

void rig_done(struct rig *rig)
{
	static const char *const names[] = {"kernel",     "disk",       "disk2",
					    "passt.sock", "serial.log", "console.log"};
	char path[128];

	close(rig->kvm_fd);
	close(rig->listen_fd);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", rig->dir, names[i]);
		unlink(path);
	}
	cr_expect_eq(rmdir(rig->dir), 0, "something is left in %s", rig->dir);
}

/* {dir} becomes the rig's. */
static char *fill_in(const struct rig *rig, const char *document)
{
	size_t len = strlen(document), n = 0;
	char *ret = calloc(1, 20 * len + 1);
	const char *at;

	cr_assert_not_null(ret);
	while ((at = strstr(document, "{dir}"))) {
		memcpy(ret + n, document, (size_t)(at - document));
		n += (size_t)(at - document);
		n += (size_t)sprintf(ret + n, "%s", rig->dir);
		document = at + strlen("{dir}");
	}
	strcpy(ret + n, document);
	return ret;
}

int rig_try(struct rig *rig, struct hospes_vm **vm, const char *document, unsigned int flags,
	    struct hospes_error *error)
{
	const struct hospes_vm_options options = {
		.size = sizeof(options),
		.flags = flags,
		.kvm_fd = rig->kvm_fd,
	};
	char *json = fill_in(rig, document);
	int rc = vm_create(vm, json, strlen(json), &options, rig->calls, error);

	free(json);
	/* The connections of machines that are gone make room. */
	while (poll(&(struct pollfd){.fd = rig->listen_fd, .events = POLLIN}, 1, 0) == 1)
		close(accept(rig->listen_fd, NULL, NULL));
	return rc;
}

struct hospes_vm *rig_create(struct rig *rig, const char *document, unsigned int flags)
{
	struct hospes_error error;
	struct hospes_vm *vm;

	cr_assert_eq(rig_try(rig, &vm, document, flags, &error), 0, "%s", error.text);
	return vm;
}

static unsigned int count_entries(const char *path)
{
	DIR *dir = opendir(path);
	unsigned int n = 0;

	cr_assert_not_null(dir);
	for (const struct dirent *e; (e = readdir(dir));)
		n += e->d_name[0] != '.';
	closedir(dir);
	return n;
}

unsigned int rig_fds(void)
{
	return count_entries("/proc/self/fd");
}

static void *nothing(void *opaque)
{
	return opaque;
}

unsigned int rig_threads(unsigned int wanted)
{
	static bool begun;
	pthread_t thread;
	unsigned int n;

	/* A sanitizer starts a thread of its own together with the first of ours. */
	if (!begun && pthread_create(&thread, NULL, nothing, NULL) == 0)
		begun = pthread_join(thread, NULL) == 0;
	n = count_entries("/proc/self/task");

	for (int i = 0; n > wanted && i < 1000000; i++) {
		sched_yield();
		n = count_entries("/proc/self/task");
	}
	return n;
}
