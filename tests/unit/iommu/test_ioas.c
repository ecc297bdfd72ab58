// SPDX-License-Identifier: Apache-2.0
// Address spaces on a fake backend: what holds for all backends, and translation.
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "fake_iommu.h"
#include "deny.h"
#include "iommu/ioas.h"
#include "iommu/ledger.h"

enum { RW = IOAS_READ | IOAS_WRITE };

static const struct log silent;
static struct iommu *iommu;
static struct ioas *ioas;
static struct err err;
static char memory[64 * 4096] __attribute__((aligned(4096)));

static void setup(void)
{
	cr_assert_eq(fake_iommu_create(&iommu, &silent, &err), 0, "%s", err.text);
	cr_assert_eq(ioas_create(&ioas, iommu, "test", &err), 0, "%s", err.text);
}

static void teardown(void)
{
	ioas_destroy(ioas);
	iommu_destroy(iommu);
}

TestSuite(ioas, .init = setup, .fini = teardown);

static int map_at(struct ioas *space, uint64_t iova, uint64_t bytes, size_t off,
		  unsigned int access)
{
	struct ioas_memory m = {.hva = memory + off, .fd = -1, .gpa = 0x80000000 + off};

	return ioas_map(space, iova, bytes, &m, access);
}

static int map(uint64_t iova, uint64_t bytes, size_t off)
{
	return map_at(ioas, iova, bytes, off, RW);
}

static int unmap(uint64_t iova, uint64_t bytes, uint64_t wanted)
{
	uint64_t unmapped = UINT64_MAX;
	int ret = ioas_unmap(ioas, iova, bytes, &unmapped);

	cr_assert_eq(unmapped, wanted, "unmapped 0x%llx", (unsigned long long)unmapped);
	return ret;
}

static void expect(struct ioas *space, uint64_t iova, unsigned int access, const char *hva,
		   uint64_t contiguous)
{
	uint64_t bytes = 0;
	void *got = NULL;
	int ret = fake_translate(space, iova, access, &got, &bytes);

	cr_assert_eq(ret, hva ? 0 : -EFAULT, "0x%llx: %d", (unsigned long long)iova, ret);
	if (hva) {
		cr_assert_eq(got, hva);
		cr_assert_eq(bytes, contiguous);
	}
}

Test(ioas, what_is_mapped_translates_and_nothing_else)
{
	cr_assert_eq(map(0x10000, 0x2000, 0x1000), 0);
	expect(ioas, 0x10000, IOAS_READ, memory + 0x1000, 0x2000);
	expect(ioas, 0x11fff, RW, memory + 0x2fff, 1);
	expect(ioas, 0xffff, IOAS_READ, NULL, 0);
	expect(ioas, 0x12000, IOAS_READ, NULL, 0);
	cr_assert_eq(unmap(0x10000, 0x2000, 0x2000), 0);
	expect(ioas, 0x10000, IOAS_READ, NULL, 0);
}

Test(ioas, access_that_is_not_granted_is_refused)
{
	cr_assert_eq(map_at(ioas, 0x1000, 0x1000, 0, IOAS_READ), 0);
	cr_assert_eq(map_at(ioas, 0x2000, 0x1000, 0, IOAS_WRITE), 0);
	expect(ioas, 0x1000, IOAS_READ, memory, 0x1000);
	expect(ioas, 0x1000, IOAS_WRITE, NULL, 0);
	expect(ioas, 0x1000, RW, NULL, 0);
	expect(ioas, 0x2000, IOAS_WRITE, memory, 0x1000);
	expect(ioas, 0x2000, IOAS_READ, NULL, 0);
}

Test(ioas, bad_requests_are_refused)
{
	struct ioas_memory m = {.hva = memory + 1, .fd = -1};

	cr_assert_eq(map(0x1001, 0x1000, 0), -EINVAL);
	cr_assert_eq(map(0x1000, 0x1001, 0), -EINVAL);
	cr_assert_eq(map(0x1000, 0, 0), -EINVAL);
	cr_assert_eq(map(UINT64_MAX - 0xfff, 0x2000, 0), -EINVAL);
	cr_assert_eq(map_at(ioas, 0x1000, 0x1000, 0, 0), -EINVAL);
	cr_assert_eq(map_at(ioas, 0x1000, 0x1000, 0, 8), -EINVAL);
	cr_assert_eq(ioas_map(ioas, 0x1000, 0x1000, &m, RW), -EINVAL);
	cr_assert_eq(unmap(0x1000, 0x10, 0), -EINVAL);
	cr_assert_eq(map(UINT64_MAX - 0xfff, 0x1000, 0), 0, "the last page is a page");
}

Test(ioas, mapping_over_something_is_refused)
{
	cr_assert_eq(map(0x2000, 0x2000, 0), 0);
	cr_assert_eq(map(0x1000, 0x2000, 0), -EEXIST);
	cr_assert_eq(map(0x3000, 0x2000, 0), -EEXIST);
	cr_assert_eq(map(0x2000, 0x2000, 0), -EEXIST);
	cr_assert_eq(map(0x4000, 0x1000, 0), 0);
}

Test(ioas, unmap_takes_whole_mappings_or_nothing)
{
	cr_assert_eq(map(0x1000, 0x1000, 0), 0);
	cr_assert_eq(map(0x2000, 0x3000, 0x1000), 0);
	cr_assert_eq(map(0x8000, 0x1000, 0x4000), 0);
	cr_assert_eq(unmap(0x3000, 0x1000, 0), -ERANGE);
	cr_assert_eq(unmap(0x1000, 0x3000, 0), -ERANGE);
	cr_assert_eq(unmap(0x4000, 0x5000, 0), -ERANGE);
	expect(ioas, 0x1000, RW, memory, 0x1000);
	expect(ioas, 0x8000, RW, memory + 0x4000, 0x1000);
	cr_assert_eq(unmap(0x6000, 0x1000, 0), 0, "nothing is there");
	cr_assert_eq(unmap(0, 0x10000, 0x5000), 0, "gaps are allowed");
	expect(ioas, 0x8000, RW, NULL, 0);
}

Test(ioas, an_unmap_that_fails_in_the_middle_forgets_what_is_gone_and_keeps_the_rest)
{
	struct ledger_totals t;

	for (uint64_t i = 0; i < 4; i++)
		cr_assert_eq(map(0x1000 + i * 0x1000, 0x1000, i * 0x1000), 0);
	fake.refuse_iova = 0x3000;
	cr_assert_eq(unmap(0x1000, 0x4000, 0x2000), -EBUSY);
	fake.refuse_iova = 0;
	expect(ioas, 0x2000, RW, NULL, 0);
	expect(ioas, 0x3000, RW, memory + 0x2000, 0x1000);
	ioas_totals(ioas, &t);
	cr_assert_eq(t.mapped_bytes, 0x2000, "as the kernel has it");
	cr_assert_eq(map(0x1000, 0x2000, 0), 0, "its place is free");
	cr_assert_eq(map(0x3000, 0x1000, 0), -EEXIST);
	cr_assert_eq(unmap(0x1000, 0x4000, 0x4000), 0);
}

Test(ioas, a_copy_may_cut_and_keeps_the_extents)
{
	struct ioas *other;
	uint64_t unmapped;

	cr_assert_eq(ioas_create(&other, iommu, "other", &err), 0);
	cr_assert_eq(map(0x1000, 0x2000, 0), 0);
	cr_assert_eq(map(0x3000, 0x2000, 0x8000), 0);
	cr_assert_eq(ioas_copy(other, 0x100000, 0x3000, ioas, 0x2000, RW), 0);
	expect(other, 0x100000, RW, memory + 0x1000, 0x1000);
	expect(other, 0x101000, RW, memory + 0x8000, 0x2000);
	cr_assert_eq(ioas_copy(other, 0x200000, 0x1000, ioas, 0x5000, RW), -ENOENT);
	cr_assert_eq(ioas_copy(other, 0x200000, 0x3000, ioas, 0x3000, RW), -ENOENT);
	expect(other, 0x200000, RW, NULL, 0);
	cr_assert_eq(ioas_copy(other, 0x101000, 0x1000, ioas, 0x1000, RW), -EEXIST);
	/* Unmapped at the source, it is still mapped here. */
	cr_assert_eq(unmap(0, 0x10000, 0x4000), 0);
	expect(other, 0x100000, RW, memory + 0x1000, 0x1000);
	cr_assert_eq(ioas_unmap(other, 0x100000, 0x3000, &unmapped), 0);
	ioas_destroy(other);
}

/* ThreadSanitizer sees it if the locks of both are taken in both orders. */
Test(ioas, two_spaces_copy_from_each_other)
{
	struct ioas *other;

	cr_assert_eq(ioas_create(&other, iommu, "other", &err), 0);
	cr_assert_eq(map_at(ioas, 0x1000, 0x1000, 0, RW), 0);
	cr_assert_eq(map_at(other, 0x2000, 0x1000, 0x1000, RW), 0);
	cr_assert_eq(ioas_copy(other, 0x1000, 0x1000, ioas, 0x1000, RW), 0);
	cr_assert_eq(ioas_copy(ioas, 0x2000, 0x1000, other, 0x2000, RW), 0);
	expect(other, 0x1000, RW, memory, 0x1000);
	expect(ioas, 0x2000, RW, memory + 0x1000, 0x1000);
	ioas_destroy(other);
}

Test(ioas, a_copy_gives_no_more_than_the_source_has)
{
	struct ioas *other;

	cr_assert_eq(ioas_create(&other, iommu, "other", &err), 0);
	cr_assert_eq(map_at(ioas, 0x1000, 0x1000, 0, IOAS_READ), 0);
	cr_assert_eq(ioas_copy(other, 0x1000, 0x1000, ioas, 0x1000, RW), -EPERM);
	cr_assert_eq(ioas_copy(other, 0x1000, 0x1000, ioas, 0x1000, IOAS_READ), 0);
	expect(other, 0x1000, IOAS_WRITE, NULL, 0);
	ioas_destroy(other);
}

Test(ioas, mapping_the_same_shares_and_something_else_does_not)
{
	struct ioas_memory m = {.hva = memory, .fd = -1, .gpa = 0};
	struct ledger_totals totals;
	struct ioas *other;

	cr_assert_eq(ioas_create(&other, iommu, "other", &err), 0);
	cr_assert_eq(map(0x1000, 0x2000, 0), 0);
	cr_assert_eq(ioas_map_sharing(other, 0x1000, 0x2000, &m, RW), 0);
	m.hva = memory + 0x4000;
	cr_assert_eq(map(0x5000, 0x1000, 0x8000), 0);
	cr_assert_eq(ioas_map_sharing(other, 0x5000, 0x1000, &m, RW), 0);
	expect(other, 0x5000, RW, memory + 0x4000, 0x1000);
	ioas_totals(other, &totals);
	cr_assert_eq(totals.kind[LEDGER_COPY].calls, 1);
	cr_assert_eq(totals.kind[LEDGER_MAP].calls, 1);
	ioas_destroy(other);
}

Test(ioas, the_ledger_sees_every_call)
{
	struct ledger_totals t;

	cr_assert_eq(map(0x1000, 0x3000, 0), 0);
	cr_assert_eq(map(0x1000, 0x1000, 0), -EEXIST);
	cr_assert_eq(unmap(0x1000, 0x3000, 0x3000), 0);
	ioas_totals(ioas, &t);
	cr_assert_eq(t.kind[LEDGER_MAP].calls, 2);
	cr_assert_eq(t.kind[LEDGER_MAP].failed, 1);
	cr_assert_eq(t.kind[LEDGER_MAP].bytes, 0x3000);
	cr_assert_eq(t.kind[LEDGER_UNMAP].bytes, 0x3000);
	cr_assert_eq(t.mapped_bytes, 0);
	cr_assert_eq(t.mapped_peak_bytes, 0x3000);
}

Test(ioas, several_at_once_are_as_one_after_the_other)
{
	enum { N = 40 };
	struct ioas_mapping all[N];
	struct ledger_totals t;

	cr_assert_eq(map(20 * 0x2000, 0x1000, 0), 0);
	for (unsigned int i = 0; i < N; i++)
		all[i] = (struct ioas_mapping){
			.iova = i * 0x2000,
			.bytes = 0x1000,
			.memory = {.hva = memory + i * 0x1000, .fd = -1, .gpa = i},
			.access = RW,
		};
	all[3].bytes = 1;
	all[5].iova = all[4].iova;
	all[7].access = 0;
	all[39].iova = all[1].iova;
	ioas_map_all(ioas, all, N);
	for (unsigned int i = 0; i < N; i++) {
		int wanted = i == 3 || i == 7               ? -EINVAL
			     : i == 5 || i == 20 || i == 39 ? -EEXIST
							    : 0;

		cr_assert_eq(all[i].result, wanted, "%u: %d", i, all[i].result);
		if (!wanted)
			expect(ioas, all[i].iova, RW, memory + i * 0x1000, 0x1000);
	}
	expect(ioas, 3 * 0x2000, RW, NULL, 0);
	ioas_totals(ioas, &t);
	cr_assert_eq(t.kind[LEDGER_MAP].calls, N + 1);
	cr_assert_eq(t.kind[LEDGER_MAP].failed, 5);
	cr_assert_eq(t.mapped_bytes, (N - 5 + 1) * 0x1000);
	cr_assert_eq(unmap(0, 0x100000, (N - 5 + 1) * 0x1000), 0);
}

Test(ioas, history_knows_what_is_mapped_and_what_was)
{
	char text[120];

	cr_assert_eq(map_at(ioas, 0x1000, 0x1000, 0x5000, IOAS_READ), 0);
	ioas_history(ioas, 0x1010, text, sizeof(text));
	cr_assert_str_eq(text, "mapped read-only (gpa 0x80005010)");
	cr_assert_eq(unmap(0x1000, 0x1000, 0x1000), 0);
	ioas_history(ioas, 0x1010, text, sizeof(text));
	cr_assert(strstr(text, "unmapped ") == text && strstr(text, "(request 2, gpa 0x80005010)"),
		  "%s", text);
	ioas_history(ioas, 0x9000, text, sizeof(text));
	cr_assert_str_eq(text, "never mapped");
	/* A range with gaps was unmapped where something was mapped, and not in the gaps. */
	cr_assert_eq(map(0x10000, 0x1000, 0), 0);
	cr_assert_eq(map(0x30000, 0x1000, 0), 0);
	cr_assert_eq(unmap(0, 0x100000, 0x2000), 0);
	ioas_history(ioas, 0x30000, text, sizeof(text));
	cr_assert(strstr(text, "unmapped ") == text, "%s", text);
	ioas_history(ioas, 0x20000, text, sizeof(text));
	cr_assert_str_eq(text, "never mapped");
}

Test(ioas, failures_are_explained)
{
	cr_assert_eq(map(0x1000, 0x1000, 0), 0);
	cr_assert_eq(ioas_explain(ioas, -EEXIST, 0, 0x4000, &err), -EEXIST);
	cr_assert(strstr(err.text, "something is mapped at 0x1000"), "%s", err.text);
	cr_assert_eq(ioas_explain(ioas, -EINVAL, 0, 0x10, &err), -EINVAL);
	cr_assert(strstr(err.text, "page size 0x1000"), "%s", err.text);
}

/* --- devices --- */

static struct iommu_endpoint *endpoint(const char *name)
{
	struct iommu_endpoint_config config = {.name = name, .fd = -1};
	struct iommu_endpoint *ret = NULL;

	cr_assert_eq(iommu_endpoint_create(&ret, iommu, &config, &err), 0, "%s", err.text);
	return ret;
}

Test(ioas, an_endpoint_is_in_one_space_at_a_time)
{
	struct iommu_endpoint *e = endpoint("a");
	struct ioas *other;

	cr_assert_eq(ioas_create(&other, iommu, "other", &err), 0);
	cr_assert_null(iommu_endpoint_ioas(e));
	cr_assert_eq(ioas_attach(ioas, e, &err), 0);
	cr_assert_eq(iommu_endpoint_ioas(e), ioas);
	cr_assert_eq(ioas_attach(other, e, &err), 0);
	cr_assert_eq(iommu_endpoint_ioas(e), other);
	cr_assert_null(ioas_first_endpoint(ioas));
	ioas_detach(e);
	ioas_detach(e);
	cr_assert_null(iommu_endpoint_ioas(e));
	cr_assert_eq(iommu_endpoint_device_fd(e), -1);
	iommu_endpoint_destroy(e);
	ioas_destroy(other);
}

/* --- threads --- */

enum { THREADS = 4, ROUNDS = 3000 };

static void *map_and_unmap(void *opaque)
{
	uint64_t base = (uint64_t)(uintptr_t)opaque * 0x100000, unmapped, bytes;
	void *hva;

	for (unsigned int i = 0; i < ROUNDS; i++) {
		uint64_t iova = base + i % 16 * 0x1000;

		if (map(iova, 0x1000, i % 64 * 0x1000))
			return (void *)(uintptr_t)"map";
		if (fake_translate(ioas, iova, RW, &hva, &bytes) || bytes != 0x1000 ||
		    hva != memory + i % 64 * 0x1000)
			return (void *)(uintptr_t)"translate";
		if (ioas_unmap(ioas, iova, 0x1000, &unmapped) || unmapped != 0x1000)
			return (void *)(uintptr_t)"unmap";
	}
	return NULL;
}

Test(ioas, threads_map_and_unmap_side_by_side)
{
	pthread_t threads[THREADS];
	struct ledger_totals totals;
	void *failed;

	for (unsigned int i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, map_and_unmap,
					    (void *)(uintptr_t)(i + 1)),
			     0);
	for (unsigned int i = 0; i < THREADS; i++) {
		pthread_join(threads[i], &failed);
		cr_assert_null(failed, "%s failed", (char *)failed);
	}
	ioas_totals(ioas, &totals);
	cr_assert_eq(totals.kind[LEDGER_MAP].calls, THREADS * ROUNDS);
	cr_assert_eq(totals.kind[LEDGER_MAP].failed, 0);
	cr_assert_eq(totals.mapped_bytes, 0);
}

/* What a virtual IOMMU does, whose domains come and go by other threads than the machine's. */
static void *create_and_destroy(void *opaque)
{
	struct err ignored = ERR_INIT;
	uint64_t unmapped;

	(void)opaque;
	for (unsigned int i = 0; i < ROUNDS; i++) {
		struct ioas *space;

		if (ioas_create(&space, iommu, "guest", &ignored))
			return (void *)(uintptr_t)"create";
		if (map_at(space, 0x1000, 0x1000, 0, RW) ||
		    ioas_unmap(space, 0x1000, 0x1000, &unmapped))
			return (void *)(uintptr_t)"map";
		ioas_destroy(space);
	}
	return NULL;
}

Test(ioas, spaces_come_and_go_while_others_look_for_what_to_share, .timeout = 60)
{
	const struct ioas_memory m = {.hva = memory, .fd = -1, .gpa = 0x80000000};
	pthread_t threads[2];
	void *failed;

	for (unsigned int i = 0; i < ARRAY_SIZE(threads); i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, create_and_destroy, NULL), 0);
	for (unsigned int i = 0; i < ROUNDS; i++) {
		cr_assert_eq(ioas_map_sharing(ioas, 0x1000, 0x1000, &m, RW), 0);
		cr_assert_eq(unmap(0x1000, 0x1000, 0x1000), 0);
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(threads); i++) {
		pthread_join(threads[i], &failed);
		cr_assert_null(failed, "%s failed", (char *)failed);
	}
}

/* --- failures --- */

static int create_as(enum iommu_kind kind, int iommufd)
{
	struct iommu_config config = {.kind = kind, .iommufd = iommufd};
	struct iommu *created = NULL;
	int before = count_fds();
	int ret = iommu_create(&created, &config, &err);

	if (!ret)
		iommu_destroy(created);
	cr_assert_eq(count_fds(), before, "descriptors are left open");
	return ret;
}

Test(ioas, a_host_without_iommufd_and_vfio_is_told_what_to_do)
{
	cr_assert_eq(deny(SYS_openat, 0, ENOENT), 0);
	cr_assert_eq(create_as(IOMMU_AUTO, -1), -ENOENT);
	cr_assert(strstr(err.text, "modprobe"), "%s", err.text);
	cr_assert_eq(create_as(IOMMU_IOMMUFD, -1), -ENOENT);
	cr_assert(strstr(err.text, "iommu=type1"), "%s", err.text);
	cr_assert_eq(create_as(IOMMU_TYPE1, -1), -ENOENT);
	cr_assert(strstr(err.text, "/dev/vfio/vfio"), "%s", err.text);
}

Test(ioas, missing_permission_is_said_with_the_remedy)
{
	cr_assert_eq(deny(SYS_openat, 0, EACCES), 0);
	cr_assert_eq(create_as(IOMMU_AUTO, -1), -EACCES);
	cr_assert(strstr(err.text, "no permission for /dev/iommu"), "%s", err.text);
	cr_assert_eq(create_as(IOMMU_IOMMUFD, -1), -EACCES);
	cr_assert(strstr(err.text, "setfacl"), "%s", err.text);
}

Test(ioas, what_is_handed_in_must_be_an_iommufd)
{
	cr_assert_eq(create_as(IOMMU_AUTO, 0), -EINVAL);
	cr_assert(strstr(err.text, "fd 0 is not /dev/iommu"), "%s", err.text);
	cr_assert_eq(create_as(IOMMU_IOMMUFD, 250), -EBADF);
}

Test(ioas, what_type1_cannot_do_is_said_before_anything_is_opened)
{
	struct iommu_config config = {.kind = IOMMU_TYPE1, .iommufd = -1, .no_huge_pages = true};
	struct iommu *created;

	cr_assert_eq(iommu_create(&created, &config, &err), -EOPNOTSUPP);
	cr_assert(strstr(err.text, "disable_hugepages"), "%s", err.text);
	config.no_huge_pages = false;
	config.accounting = IOMMU_ACCOUNT_USER;
	cr_assert_eq(iommu_create(&created, &config, &err), -EOPNOTSUPP);
}
