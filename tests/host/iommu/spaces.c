// SPDX-License-Identifier: Apache-2.0
// Address spaces on real devices:   spaces iommufd|type1 EDU OTHER
//
// EDU and OTHER are PCI addresses of an edu device and of any other one, both bound to vfio-pci.
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/capability.h>

#include "base/num.h"
#include "core/gmem.h"
#include "iommu/ledger.h"
#include "iommu/hw_domain.h"
#include "real.h"

/* QEMU splits what is refused into words, each of which faults: an attack is one word. */
enum { RW = IOAS_READ | IOAS_WRITE, PAGE = 4096, PAGES = 16, DMA = 8 };

static enum iommu_kind kind;
static const char *edu_bdf, *other_bdf;
static struct iommu *iommu;
static char *memory; /* PAGES pages */

static struct ioas *make_space(const char *name)
{
	struct ioas *ioas = NULL;

	need(!ioas_create(&ioas, iommu, name, &err), "space: %s", err.text);
	return ioas;
}

static int map(struct ioas *ioas, uint64_t iova, uint64_t bytes, size_t offset, unsigned int access)
{
	struct ioas_memory m = {.hva = memory + offset, .fd = -1, .gpa = UINT64_MAX};

	return ioas_map(ioas, iova, bytes, &m, access);
}

static int unmap(struct ioas *ioas, uint64_t iova, uint64_t bytes, uint64_t *unmapped)
{
	return ioas_unmap(ioas, iova, bytes, unmapped);
}

/* --- what map and unmap answer: the same with either backend --- */

static void check_answers(struct ioas *ioas)
{
	uint64_t unmapped = 0;

	check(map(ioas, 0x100000, 4 * PAGE, 0, RW) == 0, "four pages are mapped");
	check(map(ioas, 0x104000, PAGE, 0, RW) == 0, "the same memory again elsewhere");
	check(map(ioas, 0x101000, PAGE, 0, RW) == -EEXIST, "over them: EEXIST");
	check(map(ioas, 0xfee00000, PAGE, 0, RW) == -ENOSPC, "in the MSI window: ENOSPC");
	check(map(ioas, 1ull << 60, PAGE, 0, RW) == -ENOSPC, "past the address width: ENOSPC");
	check(map(ioas, 0x200800, PAGE, 0, RW) == -EINVAL, "off a page's boundary: EINVAL");
	check(map(ioas, 0x200000, PAGE, 0, 0) == -EINVAL, "without access: EINVAL");
	check(unmap(ioas, 0x101000, PAGE, &unmapped) == -ERANGE && !unmapped,
	      "cutting a mapping: ERANGE");
	check(unmap(ioas, 0x102000, 0x10000, &unmapped) == -ERANGE && !unmapped,
	      "a range that cuts one and covers another: ERANGE, and nothing goes");
	check(unmap(ioas, 0x800000, PAGE, &unmapped) == 0 && !unmapped,
	      "where nothing is: 0 bytes");
	check(unmap(ioas, 0, 0x1000000, &unmapped) == 0 && unmapped == 5 * PAGE,
	      "a range with gaps: what was in it");
	munmap(memory + 8 * PAGE, PAGE);
	check(map(ioas, 0x300000, 2 * PAGE, 7 * PAGE, RW) == -EFAULT, "no memory there: EFAULT");
	check(map(ioas, 0x300000, PAGE, 7 * PAGE, RW) == 0, "and the place is free again");
	check(unmap(ioas, 0x300000, PAGE, &unmapped) == 0 && unmapped == PAGE, "and mappable");
	mmap(memory + 8 * PAGE, PAGE, PROT_READ | PROT_WRITE,
	     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

static void check_ranges(struct ioas *ioas)
{
	struct ioas_range ranges[32];
	unsigned int n = ioas_usable(ioas, ranges, 32);
	bool ascending = true, msi = false;

	for (unsigned int i = 0; i < n && i < 32; i++) {
		printf("# usable: 0x%llx to 0x%llx\n", (unsigned long long)ranges[i].first,
		       (unsigned long long)ranges[i].last);
		ascending &= ranges[i].first <= ranges[i].last &&
			     (!i || ranges[i].first > ranges[i - 1].last);
		msi |= ranges[i].first <= 0xfeefffff && ranges[i].last >= 0xfee00000;
	}
	check(n > 1 && ascending && !msi, "usable ranges leave out the MSI window");
	check(ioas_usable(ioas, ranges, 1) == n,
	      "how many there are is reported with little room too");
	ranges[0] = (struct ioas_range){0x100000, 0x1fffff};
	ranges[1] = (struct ioas_range){0x100000000, 0x1ffffffff};
	check(!ioas_allow(ioas, ranges, 2, &err), "they can be claimed in advance");
	ranges[1].first = 0xfe000000;
	check(ioas_allow(ioas, ranges, 2, &err) == -ENOSPC && strstr(err.text, "0xfee"),
	      "but not with the MSI window: %s", err.text);
	check(!ioas_allow(ioas, NULL, 0, &err), "and given back");
	check((ioas_page_sizes(ioas) & -ioas_page_sizes(ioas)) == PAGE &&
		      ioas_page_sizes(ioas) & 2 * MiB,
	      "page sizes: 0x%llx", (unsigned long long)ioas_page_sizes(ioas));
}

static void check_limits(struct ioas *ioas)
{
	uint64_t left = ioas_mappings_left(ioas), unmapped;

	map(ioas, 0x100000, PAGE, 0, RW);
	if (kind == IOMMU_TYPE1)
		check(left != UINT64_MAX && ioas_mappings_left(ioas) == left - 1,
		      "one mapping less is left of %llu", (unsigned long long)left);
	else
		check(left == UINT64_MAX, "no limit of mappings");
	unmap(ioas, 0x100000, PAGE, &unmapped);
	check(ioas_dirty_set(ioas, true) == -EOPNOTSUPP,
	      "no dirty tracking in this IOMMU's legacy mode");
}

/* --- DMA --- */

static bool all_are(const char *from, size_t bytes, char value)
{
	for (size_t i = 0; i < bytes; i++) {
		if (from[i] != value)
			return false;
	}
	return true;
}

/* The page, filled with 0x11, after the device wrote what it last read: did it get there? */
static bool lands(struct edu *edu, uint64_t iova, char *page)
{
	memset(page, 0x11, PAGE);
	edu_write(edu, iova, DMA);
	return !all_are(page, PAGE, 0x11);
}

/* The kernel tells of few faults in five seconds: then the attack is made again. */
static bool is_told(struct edu *edu, uint64_t iova, bool write, struct iommu_fault *fault)
{
	for (unsigned int i = 0; i < 4; i++) {
		if (fault_seen(edu_bdf, iova, write, fault))
			return true;
		if (write)
			edu_write(edu, iova, DMA);
		else
			edu_read(edu, iova, DMA);
	}
	return false;
}

/* The kernel's log had the fault, and the space knows what the address was. */
static void check_fault(struct ioas *ioas, struct edu *edu, uint64_t iova, bool write,
			const char *wanted)
{
	struct iommu_fault fault = {.write = false};
	bool told = is_told(edu, iova, write, &fault);
	char history[120];

	ioas_history(ioas, iova, history, sizeof(history));
	check(told && strstr(history, wanted) == history, "fault: %s 0x%llx by %s: %s (%s)",
	      write ? "write to" : "read of", (unsigned long long)iova, edu_bdf, history,
	      fault.reason);
}

static void check_dma(struct ioas *ioas, struct edu *edu)
{
	char *source = memory, *target = memory + PAGE, *canary = memory + 2 * PAGE;
	uint64_t unmapped;

	memset(source, 0x5a, PAGE);
	memset(target, 0, PAGE);
	memset(canary, 0x11, PAGE);
	map(ioas, 0x100000, PAGE, 0, RW);
	map(ioas, 0x200000, PAGE, PAGE, RW);
	map(ioas, 0x300000, PAGE, 2 * PAGE, IOAS_READ);
	edu_read(edu, 0x100000, PAGE);
	edu_write(edu, 0x200000, PAGE);
	check(all_are(target, PAGE, 0x5a), "the device reads one page and writes the other");
	check(lands(edu, 0x100000, source), "each attack works where it may");
	check(!lands(edu, 0x300000, canary), "a read-only page is not written");
	check_fault(ioas, edu, 0x300000, true, "mapped read-only");
	memset(canary, 0x22, PAGE);
	edu_read(edu, 0x300000, PAGE);
	edu_write(edu, 0x200000, PAGE);
	check(all_are(target, PAGE, 0x22), "but read");
	unmap(ioas, 0x200000, PAGE, &unmapped);
	check(!lands(edu, 0x200000, target), "an unmapped page is not written");
	check_fault(ioas, edu, 0x200000, true, "unmapped ");
	check(!lands(edu, 0x777000, target), "nor is one that never was mapped");
	check_fault(ioas, edu, 0x777000, true, "never mapped");
	memset(target, 0x33, PAGE);
	edu_read(edu, 0x200000, DMA);
	edu_write(edu, 0x100000, DMA);
	check(!memchr(source, 0x33, DMA), "and not read");
	check_fault(ioas, edu, 0x200000, false, "unmapped ");
	unmap(ioas, 0, 0x1000000, &unmapped);
}

/* --- two spaces --- */

static void check_replace(struct ioas *ioas, struct iommu_endpoint *device, struct edu *edu)
{
	struct ioas *other = make_space("other");
	uint64_t unmapped;

	map(ioas, 0x100000, PAGE, 0, RW);
	if (kind == IOMMU_TYPE1) {
		check(ioas_attach(other, device, &err) == -EOPNOTSUPP, "no move: %s", err.text);
		check(map(other, 0x100000, PAGE, 0, RW) == -ENODEV, "no table without a device");
		check(ioas_copy(ioas, 0x200000, PAGE, ioas, 0x100000, RW) == -EOPNOTSUPP,
		      "no copy");
	} else {
		check(map(other, 0x100000, PAGE, PAGE, RW) == 0,
		      "a space without a device takes maps");
		check(lands(edu, 0x100000, memory), "the device is in the first space");
		check(ioas_attach(other, device, &err) == 0, "it moves to the other: %s", err.text);
		check(lands(edu, 0x100000, memory + PAGE) && !lands(edu, 0x200000, memory),
		      "and writes to that one's memory");
		check(ioas_copy(other, 0x200000, PAGE, ioas, 0x100000, IOAS_READ | IOAS_WRITE) ==
				      0 &&
			      lands(edu, 0x200000, memory),
		      "what is copied from the first is reached in the second");
		unmap(ioas, 0x100000, PAGE, &unmapped);
		check(lands(edu, 0x200000, memory), "also when the first has it no more");
		check(ioas_attach(ioas, device, &err) == 0, "and back");
		check(!lands(edu, 0x200000, memory), "the copy stays behind");
	}
	unmap(ioas, 0, 0x1000000, &unmapped);
	ioas_destroy(other);
}

static void check_conflict(const char *bdf)
{
	struct ioas *ioas = make_space("conflict");
	struct iommu_endpoint *device = make_endpoint(iommu, bdf);

	if (kind == IOMMU_IOMMUFD) {
		check(map(ioas, 0xfee00000, PAGE, 0, RW) == 0,
		      "without a device nothing is reserved");
		check(ioas_attach(ioas, device, &err) == -EINVAL && strstr(err.text, "0xfee00000"),
		      "then the device is refused: %s", err.text);
	}
	iommu_endpoint_destroy(device);
	ioas_destroy(ioas);
}

static void check_detach(struct ioas *ioas, struct iommu_endpoint *device, struct edu *edu)
{
	struct iommu_fault fault = {.write = false};

	map(ioas, 0x100000, PAGE, 0, RW);
	check(lands(edu, 0x100000, memory), "before it is detached it reaches memory");
	if (kind == IOMMU_IOMMUFD) {
		ioas_detach(device);
		check(!lands(edu, 0x100000, memory), "afterwards it does not");
		check(is_told(edu, 0x100000, true, &fault), "and faults: %s", fault.reason);
	} else {
		edu_close(edu);
		ioas_detach(device);
		check(iommu_endpoint_device_fd(device) == -1, "detached, it is closed");
		check(ioas_attach(ioas, device, &err) == 0, "attached again: %s", err.text);
		edu_open(edu, iommu_endpoint_device_fd(device));
		check(!lands(edu, 0x100000, memory), "the space is empty");
	}
}

/* --- refusals --- */

static void check_busy(void)
{
	struct iommu_endpoint_config config = {.name = edu_bdf};
	struct iommu_config own = {.kind = kind, .iommufd = -1};
	struct iommu_endpoint *endpoint;
	struct iommu *second;
	int status = 0;
	pid_t child;

	fflush(stdout);
	child = fork();
	if (!child) {
		/* The other backend: a group cannot even be opened twice. */
		own.kind = IOMMU_IOMMUFD;
		config.fd = open_device(IOMMU_IOMMUFD, edu_bdf);
		if (config.fd < 0) {
			printf("# the kernel refuses to open it: %s\n", err_name(errno));
			fflush(stdout);
			_exit(errno == EBUSY ? 0 : 3);
		}
		if (iommu_create(&second, &own, &err))
			_exit(2);
		if (!iommu_endpoint_create(&endpoint, second, &config, &err))
			_exit(1);
		printf("# %s\n", err.text);
		fflush(stdout);
		_exit(strstr(err.text, "by process") ? 0 : 4);
	}
	waitpid(child, &status, 0);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 0,
	      "a second process is refused, and told who holds it (%d)", WEXITSTATUS(status));
}

static void drop_lock_right(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	need(!syscall(SYS_capget, &header, data), "capabilities can be read");
	data[0].effective &= ~(1u << CAP_IPC_LOCK);
	need(!syscall(SYS_capset, &header, data), "capabilities can be set");
}

static void check_memlock(struct ioas *ioas)
{
	struct rlimit limit = {4 * PAGE, 4 * PAGE};
	uint64_t unmapped;

	ioas_unmap(ioas, 0, 0x1000000, &unmapped);
	setrlimit(RLIMIT_MEMLOCK, &limit);
	drop_lock_right();
	check(map(ioas, 0x100000, 16 * PAGE, 0, RW) == -ENOMEM, "more than may be locked: ENOMEM");
	ioas_explain(ioas, -ENOMEM, 0x100000, 16 * PAGE, &err);
	check(strstr(err.text, "RLIMIT_MEMLOCK") && strstr(err.text, "LimitMEMLOCK=1M"), "%s",
	      err.text);
}

/* --- domains --- */

static struct hw_domain *make_domain(const char *name, struct gmem *gmem, unsigned int threads)
{
	struct hw_domain_config config = {
		.name = name,
		.strategy = "direct",
		.iommu = iommu,
		.gmem = gmem,
		.log = &test_log,
		.map_threads = threads,
	};
	struct hw_domain *domain = NULL;

	need(!hw_domain_create(&domain, &config, &err), "domain: %s", err.text);
	return domain;
}

static int add(struct gmem *gmem, const char *name, uint64_t gpa, uint64_t bytes,
	       enum gmem_backing backing, unsigned int flags)
{
	struct gmem_region_config config = {
		.name = name,
		.gpa = gpa,
		.size_bytes = bytes,
		.backing = backing,
		.flags = flags,
		.numa_node = -1,
		.fd = -1,
	};

	need(!gmem_begin(gmem, &err) && !gmem_add(gmem, &config, &err), "gmem: %s", err.text);
	return gmem_commit(gmem, &err);
}

static void print_cost(const struct hw_domain *domain)
{
	struct ledger_totals t;

	ioas_totals(hw_domain_ioas(domain), &t);
	printf("# %s: %llu maps %.1f ms, %llu copies %.1f ms, %llu MiB mapped, %llu MiB pinned\n",
	       hw_domain_name(domain), (unsigned long long)t.kind[LEDGER_MAP].calls,
	       (double)t.kind[LEDGER_MAP].ns / 1e6, (unsigned long long)t.kind[LEDGER_COPY].calls,
	       (double)t.kind[LEDGER_COPY].ns / 1e6, (unsigned long long)(t.mapped_bytes / MiB),
	       (unsigned long long)(t.pinned_bytes / MiB));
}

static void check_direct(enum gmem_backing backing, unsigned int threads)
{
	uint64_t pins = vmstat("nr_foll_pin_acquired"), first, second, start_ns;
	struct iommu_endpoint *device = make_endpoint(iommu, edu_bdf);
	struct iommu_endpoint *next = make_endpoint(iommu, other_bdf);
	struct hw_domain *a, *b;
	struct gmem *gmem = NULL;
	struct edu edu;
	char *page;

	need(!gmem_create(&gmem, &test_log, &err), "gmem: %s", err.text);
	need(!add(gmem, "low", 0, 256 * MiB, backing, 0), "low: %s", err.text);
	need(!add(gmem, "rom", GiB, MiB, backing, GMEM_READONLY), "rom: %s", err.text);
	a = make_domain("a", gmem, threads);
	b = make_domain("b", gmem, threads);
	start_ns = now_ns();
	check(hw_domain_attach(a, device, &err) == 0, "direct: the first device: %s", err.text);
	start_ns = now_ns() - start_ns;
	printf("# attached in %.1f ms, %u threads\n", (double)start_ns / 1e6, threads);
	first = vmstat("nr_foll_pin_acquired") - pins;
	check(hw_domain_attach(b, next, &err) == 0, "direct: the second device: %s", err.text);
	second = vmstat("nr_foll_pin_acquired") - pins - first;
	print_cost(a);
	print_cost(b);
	check(first > 0 && (kind == IOMMU_IOMMUFD ? second == 0 : second > 0),
	      "pins: %llu for the first, %llu for the second", (unsigned long long)first,
	      (unsigned long long)second);
	edu_open(&edu, iommu_endpoint_device_fd(device));
	page = gmem_host(gmem, 200 * MiB, PAGE, true);
	check(lands(&edu, 200 * MiB, page), "the device reaches guest memory");
	check(add(gmem, "over", 0xfec00000, 4 * MiB, backing, 0) == -ENOSPC &&
		      strstr(err.text, "0xfee00000") && strstr(err.text, "interrupts"),
	      "memory over the MSI window is refused: %s", err.text);
	check(gmem_begin(gmem, &err) == 0 && gmem_remove(gmem, 0, &err) == 0 &&
		      gmem_commit(gmem, &err) == 0,
	      "the memory goes: %s", err.text);
	check(!lands(&edu, 200 * MiB, page), "the device reaches it no more");
	need(!add(gmem, "low", 0, 256 * MiB, backing, 0), "low: %s", err.text);
	page = gmem_host(gmem, 200 * MiB, PAGE, true);
	check(lands(&edu, 200 * MiB, page), "and what comes in its place at once");
	if (kind == IOMMU_IOMMUFD) {
		check(hw_domain_switch(a, "strict", &err) == 0 && !lands(&edu, 200 * MiB, page),
		      "the strategy is replaced under the device: %s", err.text);
		check(hw_domain_switch(a, "direct", &err) == 0 && lands(&edu, 200 * MiB, page),
		      "and again: %s", err.text);
	} else {
		check(hw_domain_switch(a, "strict", &err) == -EOPNOTSUPP, "%s", err.text);
	}
	edu_close(&edu);
	hw_domain_detach(b, next);
	hw_domain_detach(a, device);
	iommu_endpoint_destroy(next);
	iommu_endpoint_destroy(device);
	hw_domain_destroy(b);
	hw_domain_destroy(a);
	gmem_destroy(gmem);
	check(vmstat("nr_foll_pin_acquired") == vmstat("nr_foll_pin_released"),
	      "every pin is given back");
}

int main(int argc, char **argv)
{
	struct iommu_config config = {.log = &test_log, .iommufd = -1};
	struct iommu_endpoint *device;
	struct edu edu;
	struct ioas *ioas;

	if (argc != 4)
		return 2;
	kind = !strcmp(argv[1], "type1") ? IOMMU_TYPE1 : IOMMU_IOMMUFD;
	edu_bdf = argv[2];
	other_bdf = argv[3];
	memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		      0);
	config.device = edu_bdf;
	need(!iommu_create(&iommu, &config, &err), "auto: %s", err.text);
	check(iommu_kind_of(iommu) == IOMMU_IOMMUFD, "auto: %s", iommu_reason(iommu));
	iommu_destroy(iommu);
	config.kind = kind;
	need(!iommu_create(&iommu, &config, &err), "iommu: %s", err.text);
	check_direct(GMEM_ANONYMOUS, 1);
	check_direct(GMEM_ANONYMOUS, 2);
	check_direct(GMEM_MEMFD, 0);
	faults_open();
	ioas = make_space("first");
	device = make_endpoint(iommu, edu_bdf);
	check(ioas_attach(ioas, device, &err) == 0, "the device is attached: %s", err.text);
	edu_open(&edu, iommu_endpoint_device_fd(device));
	check_ranges(ioas);
	check_answers(ioas);
	check_limits(ioas);
	check_dma(ioas, &edu);
	check_replace(ioas, device, &edu);
	check_conflict(other_bdf);
	check_busy();
	check_detach(ioas, device, &edu);
	edu_close(&edu);
	faults_close();
	iommu_endpoint_destroy(device);
	device = make_endpoint(iommu, edu_bdf);
	check(ioas_attach(ioas, device, &err) == 0, "given up, the device is free: %s", err.text);
	check_memlock(ioas);
	iommu_endpoint_destroy(device);
	ioas_destroy(ioas);
	iommu_destroy(iommu);
	check(vmstat("nr_foll_pin_acquired") == vmstat("nr_foll_pin_released"),
	      "every pin is given back at the end");
	return failures() ? 1 : 0;
}
