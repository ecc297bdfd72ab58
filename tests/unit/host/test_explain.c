/* SPDX-License-Identifier: Apache-2.0 */
/* Preflight of the devices of the machine that runs this test: what must hold on any. The findings
 * themselves are provoked in tests/host/preflight. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/num.h"
#include "host/explain_impl.h"

static const struct explain_request nothing = {.cdev_fd = -1, .iommufd = -1};

static unsigned int inventory(struct host_device **devices)
{
	unsigned int n;

	if (host_list(devices, &n, NULL) < 0 || !n)
		cr_skip_test("no PCI device here");
	return n;
}

static const struct explain_finding *find(const struct explain *e, const char *topic,
					  enum explain_level level)
{
	for (unsigned int i = 0; i < e->n; i++) {
		if (e->findings[i].level == level && !strcmp(e->findings[i].topic, topic))
			return &e->findings[i];
	}
	return NULL;
}

static void check(const struct explain *e, const struct host_device *d)
{
	enum explain_level worst = EXPLAIN_OK;

	cr_assert_gt(e->n, 0);
	for (unsigned int i = 0; i < e->n; i++) {
		const struct explain_finding *f = &e->findings[i];

		worst = MAX(worst, f->level);
		cr_expect(f->fact[0] && !strchr(f->fact, '\n'), "%s: %s", d->bdf, f->topic);
		cr_expect_eq(!f->remedy[0], f->level == EXPLAIN_OK, "%s: %s: %s", d->bdf, f->fact,
			     f->remedy);
		cr_expect_lt(strlen(f->fact), sizeof(f->fact) - 1, "cut: %s", f->fact);
		cr_expect_lt(strlen(f->remedy), sizeof(f->remedy) - 1, "cut: %s", f->remedy);
	}
	cr_expect_eq(e->worst, worst);
	/* Nothing works that VFIO does not hold or no IOMMU translates for. */
	if (!strstr(d->driver, "vfio"))
		cr_expect(find(e, "driver", EXPLAIN_BLOCKER), "%s", d->bdf);
	if (d->group < 0)
		cr_expect(find(e, "iommu", EXPLAIN_BLOCKER), "%s", d->bdf);
}

Test(explain, each_finding_is_a_line_and_has_a_remedy_unless_all_is_well)
{
	static const enum iommu_kind kinds[] = {IOMMU_AUTO, IOMMU_IOMMUFD, IOMMU_TYPE1};
	struct host_device *devices;
	unsigned int n = inventory(&devices);
	struct err err = ERR_INIT;

	for (unsigned int i = 0; i < n; i++) {
		for (unsigned int k = 0; k < ARRAY_SIZE(kinds); k++) {
			struct explain_request request = nothing;
			struct explain e;

			request.kind = kinds[k];
			cr_assert_eq(explain_device(&e, devices[i].bdf, &request, &err), 0, "%s",
				     err.text);
			check(&e, &devices[i]);
			explain_done(&e);
			request.memory_bytes = 256 * MiB;
			cr_assert_eq(explain_device(&e, devices[i].bdf, &request, &err), 0);
			check(&e, &devices[i]);
			explain_done(&e);
		}
	}
	free(devices);
}

Test(explain, a_device_that_is_not_there_is_an_error)
{
	struct err err = ERR_INIT;
	struct explain e;

	cr_assert_eq(explain_device(&e, "fffe:fe:1e.6", &nothing, &err), -ENODEV);
	explain_done(&e);
	explain_done(&e); /* harmless */
}

Test(explain, more_memory_than_the_host_has_cannot_be_pinned)
{
	struct explain_request request = nothing;
	struct host_device *devices;
	struct err err = ERR_INIT;
	struct explain e;

	inventory(&devices);
	request.memory_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * 4096 + GiB;
	request.memory_bytes = align_down(request.memory_bytes, 2 * MiB);
	cr_assert_eq(explain_device(&e, devices[0].bdf, &request, &err), 0, "%s", err.text);
	cr_assert(find(&e, "memory", EXPLAIN_BLOCKER));
	explain_done(&e);
	free(devices);
}

/* An ordinary user with a limit of what it may lock. */
static void as_user(rlim_t soft, rlim_t hard)
{
	struct rlimit limit = {soft, hard};

	if (geteuid() == 0)
		cr_assert_eq(setrlimit(RLIMIT_MEMLOCK, &limit) || setresuid(65534, 65534, 65534),
			     0);
	else if (setrlimit(RLIMIT_MEMLOCK, &limit) < 0)
		cr_skip_test("the limit of locked memory is lower already");
}

Test(explain, what_is_pinned_counts_against_the_limit)
{
	struct explain_request request = nothing;
	const struct explain_finding *f;
	struct host_device *devices;
	struct err err = ERR_INIT;
	struct explain e;

	inventory(&devices);
	as_user(4 * MiB, 4 * MiB);
	request.memory_bytes = 4 * MiB;
	cr_assert_eq(explain_device(&e, devices[0].bdf, &request, &err), 0, "%s", err.text);
	cr_assert(find(&e, "memlock", EXPLAIN_OK));
	explain_done(&e);
	request.memory_bytes = 6 * MiB;
	cr_assert_eq(explain_device(&e, devices[0].bdf, &request, &err), 0, "%s", err.text);
	f = find(&e, "memlock", EXPLAIN_BLOCKER);
	cr_assert(f && strstr(f->remedy, "LimitMEMLOCK=6144K") && strstr(f->remedy, "prlimit"));
	explain_done(&e);
	free(devices);
}

Test(explain, a_soft_limit_that_the_user_may_raise_needs_no_administrator)
{
	struct explain_request request = nothing;
	const struct explain_finding *f;
	struct host_device *devices;
	struct err err = ERR_INIT;
	struct explain e;

	inventory(&devices);
	as_user(1 * MiB, 8 * MiB);
	request.memory_bytes = 6 * MiB;
	cr_assert_eq(explain_device(&e, devices[0].bdf, &request, &err), 0, "%s", err.text);
	f = find(&e, "memlock", EXPLAIN_BLOCKER);
	cr_assert(f);
	cr_assert_str_eq(f->remedy, "ulimit -l 6144");
	explain_done(&e);
	free(devices);
}

/* --- huge pages, by the settings of a directory like /sys/kernel/mm/transparent_hugepage --- */

static char pages_dir[32];

static void set_pages(const char *file, const char *text)
{
	char path[96];
	FILE *f;

	if (!pages_dir[0]) {
		strcpy(pages_dir, "/tmp/pages-XXXXXX");
		cr_assert(mkdtemp(pages_dir));
		snprintf(path, sizeof(path), "%s/hugepages-2048kB", pages_dir);
		cr_assert_eq(mkdir(path, 0700), 0);
	}
	snprintf(path, sizeof(path), "%s/%s", pages_dir, file);
	if (!text) {
		unlink(path);
		return;
	}
	f = fopen(path, "we");
	cr_assert(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

static void remove_pages(void)
{
	char path[96];

	set_pages("enabled", NULL);
	set_pages("shmem_enabled", NULL);
	set_pages("hugepages-2048kB/enabled", NULL);
	set_pages("hugepages-2048kB/shmem_enabled", NULL);
	snprintf(path, sizeof(path), "%s/hugepages-2048kB", pages_dir);
	rmdir(path);
	rmdir(pages_dir);
}

/* The setting that forbids them, "file=word", below the directory; "": none does. */
static const char *forbids(bool shared)
{
	static char ret[EXPLAIN_PATH_BYTES + EXPLAIN_WORD_BYTES + 1];
	char path[EXPLAIN_PATH_BYTES], word[EXPLAIN_WORD_BYTES];

	if (!explain_pages_forbidden(pages_dir, shared, path, word))
		return "";
	cr_assert(!strncmp(path, pages_dir, strlen(pages_dir)));
	snprintf(ret, sizeof(ret), "%s=%s", path + strlen(pages_dir) + 1, word);
	return ret;
}

Test(explain, huge_pages_are_forbidden_for_each_sort_of_memory_by_its_own_setting,
     .fini = remove_pages)
{
	set_pages("enabled", "always madvise [never]\n");
	set_pages("shmem_enabled", "always within_size [advise] never deny force\n");
	cr_assert_str_eq(forbids(false), "enabled=never");
	cr_assert_str_eq(forbids(true), "");
	set_pages("enabled", "always [madvise] never\n");
	set_pages("shmem_enabled", "always within_size advise [never] deny force\n");
	cr_assert_str_eq(forbids(false), "");
	cr_assert_str_eq(forbids(true), "shmem_enabled=never");
	set_pages("enabled", "[always] madvise never\n");
	cr_assert_str_eq(forbids(false), "");
}

Test(explain, the_setting_for_their_size_comes_first_unless_it_inherits, .fini = remove_pages)
{
	set_pages("enabled", "always madvise [never]\n");
	set_pages("hugepages-2048kB/enabled", "always inherit [madvise] never\n");
	cr_assert_str_eq(forbids(false), "");
	set_pages("hugepages-2048kB/enabled", "always [inherit] madvise never\n");
	cr_assert_str_eq(forbids(false), "enabled=never");
	set_pages("enabled", "always [madvise] never\n");
	set_pages("hugepages-2048kB/enabled", "always inherit madvise [never]\n");
	cr_assert_str_eq(forbids(false), "hugepages-2048kB/enabled=never");
}

Test(explain, deny_for_shared_memory_is_above_all, .fini = remove_pages)
{
	set_pages("shmem_enabled", "always within_size advise never [deny] force\n");
	set_pages("hugepages-2048kB/shmem_enabled", "[always] inherit within_size advise never\n");
	cr_assert_str_eq(forbids(true), "shmem_enabled=deny");
}

Test(explain, a_host_that_does_not_say_forbids_nothing, .fini = remove_pages)
{
	set_pages("enabled", "what");
	cr_assert_str_eq(forbids(false), "");
	cr_assert_str_eq(forbids(true), "");
}

Test(explain, what_forbids_huge_pages_here_is_a_finding_with_the_line_to_type)
{
	static const enum gmem_backing backings[] = {GMEM_AUTO, GMEM_ANONYMOUS, GMEM_MEMFD};
	char path[EXPLAIN_PATH_BYTES], word[EXPLAIN_WORD_BYTES];
	struct explain_request request = nothing;
	const struct explain_finding *f;
	struct host_device *devices;
	struct err err = ERR_INIT;
	struct explain e;

	inventory(&devices);
	for (unsigned int i = 0; i < ARRAY_SIZE(backings); i++) {
		request.backing = backings[i];
		cr_assert_eq(explain_device(&e, devices[0].bdf, &request, &err), 0, "%s", err.text);
		f = find(&e, "pages", EXPLAIN_WARNING);
		cr_assert_eq(f != NULL,
			     explain_pages_forbidden("/sys/kernel/mm/transparent_hugepage",
						     backings[i] == GMEM_MEMFD, path, word));
		if (f)
			cr_assert(strstr(f->fact, path) && strstr(f->remedy, path), "%s", f->fact);
		explain_done(&e);
	}
	request.backing = GMEM_HUGETLB_2M;
	cr_assert_eq(explain_device(&e, devices[0].bdf, &request, &err), 0, "%s", err.text);
	cr_assert_null(find(&e, "pages", EXPLAIN_WARNING));
	explain_done(&e);
	free(devices);
}

static const struct explain_finding *finding_of_mac(struct explain *e, enum explain_level level,
						    struct vf_settings settings)
{
	struct host_device d = {.bdf = "0000:01:10.0"};
	struct explain_ctx x = {.out = e, .d = &d, .request = &nothing};

	*e = (struct explain){0};
	explain_vf_mac(&x, &settings);
	return find(e, "mac", level);
}

Test(explain, a_vf_whose_pf_has_no_mac_for_it_is_a_warning)
{
	const struct vf_settings without = {.set = VF_SET_MAC};
	const struct vf_settings with = {.set = VF_SET_MAC, .mac = {2, 0, 0, 0, 0xab, 1}};
	const struct vf_settings unknown = {.set = VF_SET_VLAN};
	const struct explain_finding *f;
	struct explain e;

	f = finding_of_mac(&e, EXPLAIN_WARNING, without);
	cr_assert(f && strstr(f->remedy, "hospes vf set 0000:01:10.0 --mac"));
	explain_done(&e);
	f = finding_of_mac(&e, EXPLAIN_OK, with);
	cr_assert(f && strstr(f->fact, "02:00:00:00:ab:01"));
	explain_done(&e);
	cr_assert_null(finding_of_mac(&e, EXPLAIN_OK, unknown));
	cr_assert_eq(e.n, 0);
	explain_done(&e);
}
