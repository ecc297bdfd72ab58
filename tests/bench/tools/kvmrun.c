// SPDX-License-Identifier: Apache-2.0
// Preloaded into a VMM: when it first entered the guest, how often it came back, and what it spent
// on mapping memory for devices. The same for every VMM, without ptrace, which would cost more than
// what is measured.
//
// BENCH_KVMRUN names a file of 64-bit numbers, struct shared: when bench-exec called execve, when
// KVM_RUN was first called (both CLOCK_MONOTONIC, ns), how often it was called, and the CPU time of
// the process until the first call (ns). Then, if BENCH_MAPS is set, of the ioctls that map memory
// for devices, VFIO's and iommufd's: calls, the time during which at least one was under way, and
// the CPU time in them (ns). That takes two system calls more for each, too much where there are
// many.
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/iommufd.h>
#include <linux/kvm.h>
#include <linux/vfio.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* IOMMU_IOAS_MAP_FILE, which headers of Linux 6.12 do not have. */
#define IOAS_MAP_FILE _IO(IOMMUFD_TYPE, 0x8f)

struct shared {
	uint64_t exec_ns;
	_Atomic uint64_t first_ns;
	_Atomic uint64_t runs;
	_Atomic uint64_t first_cpu_ns;
	uint64_t map_calls, map_ns, map_cpu_ns; /* map_lock */
};

static struct shared *shared;
static bool times_maps;
static pthread_mutex_t map_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned int map_busy; /* calls under way */
static uint64_t map_since_ns;

__attribute__((constructor)) static void map_shared(void)
{
	const char *path = getenv("BENCH_KVMRUN");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;

	if (fd < 0)
		return;
	void *p = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	close(fd);
	if (p == MAP_FAILED)
		return;
	shared = p;
	times_maps = getenv("BENCH_MAPS");
}

static uint64_t now_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void note_run(void)
{
	if (!shared)
		return;
	if (atomic_fetch_add_explicit(&shared->runs, 1, memory_order_relaxed))
		return;
	atomic_store(&shared->first_cpu_ns, now_ns(CLOCK_PROCESS_CPUTIME_ID));
	atomic_store(&shared->first_ns, now_ns(CLOCK_MONOTONIC));
}

static bool is_map(unsigned long request)
{
	return request == VFIO_IOMMU_MAP_DMA || request == IOMMU_IOAS_MAP ||
	       request == IOAS_MAP_FILE;
}

static int timed_map(int fd, unsigned long request, void *arg)
{
	uint64_t cpu_ns = now_ns(CLOCK_THREAD_CPUTIME_ID);

	pthread_mutex_lock(&map_lock);
	if (!map_busy++)
		map_since_ns = now_ns(CLOCK_MONOTONIC);
	pthread_mutex_unlock(&map_lock);
	int ret = (int)syscall(SYS_ioctl, fd, request, arg);

	cpu_ns = now_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_ns;
	pthread_mutex_lock(&map_lock);
	if (!--map_busy)
		shared->map_ns += now_ns(CLOCK_MONOTONIC) - map_since_ns;
	shared->map_cpu_ns += cpu_ns;
	shared->map_calls++;
	pthread_mutex_unlock(&map_lock);
	return ret;
}

__attribute__((visibility("default"))) int ioctl(int fd, unsigned long request, ...)
{
	va_list ap;

	va_start(ap, request);
	void *arg = va_arg(ap, void *);

	va_end(ap);
	if (request == KVM_RUN)
		note_run();
	if (times_maps && is_map(request))
		return timed_map(fd, request, arg);
	return (int)syscall(SYS_ioctl, fd, request, arg);
}
