// SPDX-License-Identifier: Apache-2.0
// The files of a qcow2 image, which names them itself.
#include <criterion/criterion.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "qcow2.h"

static char dir[] = "/tmp/hospes-qcow2-XXXXXX";
static char why[QCOW2_WHY];

static void begin(void)
{
	cr_assert(mkdtemp(dir));
	cr_assert_eq(chdir(dir), 0);
	cr_assert_eq(mkdir("in", 0700), 0);
	cr_assert_eq(mkdir("out", 0700), 0);
}

static void end(void)
{
	char command[128];

	snprintf(command, sizeof(command), "/bin/rm -r %s", dir);
	cr_assert_eq(system(command), 0);
}

TestSuite(qcow2, .init = begin, .fini = end);

struct written {
	char magic[4];
	uint32_t version;
	uint64_t backing_offset;
	uint32_t backing_bytes;
	uint8_t between[52];
	uint64_t incompatible;
	char name[2048];
} __attribute__((packed));

static struct written image(const char *backing)
{
	struct written w = {.magic = "QFI\xfb", .version = htobe32(3)};

	if (backing) {
		w.backing_offset = htobe64(offsetof(struct written, name));
		w.backing_bytes = htobe32((uint32_t)strlen(backing));
		strcpy(w.name, backing);
	}
	return w;
}

static void put(const char *path, const struct written *w, size_t bytes)
{
	int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);

	cr_assert_geq(fd, 0, "%s", path);
	cr_assert_eq(write(fd, w, bytes), (ssize_t)bytes);
	close(fd);
}

static void make(const char *path, const char *backing)
{
	struct written w = image(backing);

	put(path, &w, sizeof(w));
}

static int chain(const char *path, const char *folder, const char *wanted)
{
	struct qcow2_chain c;
	char all[4096] = "";
	int rc = qcow2_find_chain(&c, path, folder, why);

	if (rc)
		return rc;
	for (unsigned int i = 0; i < c.n; i++) {
		cr_expect_eq(c.path[i][0], '/');
		strcat(all, strrchr(c.path[i], '/') + 1);
		strcat(all, " ");
	}
	cr_expect_str_eq(all, wanted);
	qcow2_chain_done(&c);
	return 0;
}

Test(qcow2, a_chain_is_followed_from_folder_to_folder)
{
	make("in/raw", NULL);
	cr_assert_eq(truncate("in/raw", 0), 0);
	make("in/base", "raw");
	make("in/top", "base");
	cr_expect_eq(chain("in/top", NULL, "top base raw "), 0, "%s", why);
	cr_expect_eq(chain("in/raw", NULL, "raw "), 0, "%s", why);
	cr_expect_eq(chain("in/none", NULL, ""), -ENOENT);
}

Test(qcow2, a_backing_file_elsewhere_is_given_by_its_folder_or_refused)
{
	char path[128];

	make("out/base", NULL);
	make("in/top", "../out/base");
	cr_expect_eq(chain("in/top", NULL, ""), -EACCES);
	cr_expect(strstr(why, "/out/base' is not in its folder"), "%s", why);
	cr_expect(strstr(why, "backing=DIR"), "%s", why);
	cr_expect_eq(chain("in/top", "out", "top base "), 0, "%s", why);
	snprintf(path, sizeof(path), "%s/out/base", dir);
	make("in/top", path);
	cr_expect_eq(chain("in/top", NULL, ""), -EACCES);
	cr_assert_eq(symlink("../out/base", "in/link"), 0);
	make("in/top", "link");
	cr_expect_eq(chain("in/top", NULL, ""), -EACCES, "a link leads out of it");
	/* A folder whose name begins alike. */
	cr_assert_eq(mkdir("inner", 0700), 0);
	make("inner/base", NULL);
	make("in/top", "../inner/base");
	cr_expect_eq(chain("in/top", NULL, ""), -EACCES);
}

Test(qcow2, a_chain_has_an_end)
{
	make("in/a", "b");
	make("in/b", "a");
	cr_expect_eq(chain("in/a", NULL, ""), -ELOOP);
	cr_expect(strstr(why, "more than 31"), "%s", why);
}

Test(qcow2, what_is_no_file_is_no_backing_file)
{
	static const char *const names[] = {"nbd:localhost:10809",
					    "json:{\"driver\":\"null-co\"}",
					    "https://example.org/x",
					    "file:base",
					    ".",
					    "fifo"};

	cr_assert_eq(mkfifo("in/fifo", 0600), 0);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		make("in/top", names[i]);
		cr_expect_lt(chain("in/top", NULL, ""), 0, "%s", names[i]);
	}
	make("in/top", "x\033[2J:y");
	cr_expect_eq(chain("in/top", NULL, ""), -EINVAL);
	cr_expect_not(strchr(why, '\033'), "%s", why);
}

static int read_head(const struct written *w, size_t bytes, struct qcow2_head *head)
{
	int fd = memfd_create("image", MFD_CLOEXEC), rc;

	cr_assert_eq(write(fd, w, bytes), (ssize_t)bytes);
	rc = qcow2_read_head(fd, head, why);
	close(fd);
	return rc;
}

Test(qcow2, a_damaged_head_is_refused)
{
	struct qcow2_head head;
	struct written w = image("base"), bad;

	cr_expect_eq(read_head(&w, sizeof(w), &head), 0);
	cr_expect(head.is_qcow2);
	cr_expect_str_eq(head.backing, "base");
	for (size_t bytes = 4; bytes < 72; bytes++)
		cr_expect_eq(read_head(&w, bytes, &head), -EINVAL, "%zu", bytes);
	cr_expect_eq(read_head(&w, 3, &head), 0);
	cr_expect_not(head.is_qcow2);
	bad = w;
	bad.version = htobe32(4);
	cr_expect_eq(read_head(&bad, sizeof(bad), &head), -EINVAL);
	bad = w;
	bad.incompatible = htobe64(4);
	cr_expect_eq(read_head(&bad, sizeof(bad), &head), -EINVAL);
	cr_expect(strstr(why, "another file"), "%s", why);
	bad.version = htobe32(2);
	cr_expect_eq(read_head(&bad, sizeof(bad), &head), 0, "version 2 has no such word");
	static const uint64_t offsets[] = {UINT64_MAX, INT64_MAX, sizeof(w) - 1, 1ULL << 63};
	for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
		bad = w;
		bad.backing_offset = htobe64(offsets[i]);
		cr_expect_eq(read_head(&bad, sizeof(bad), &head), -EINVAL, "%zu", i);
	}
	static const uint32_t sizes[] = {UINT32_MAX, 1024, 5 /* a NUL in the name */};
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		bad = w;
		bad.backing_bytes = htobe32(sizes[i]);
		cr_expect_eq(read_head(&bad, sizeof(bad), &head), -EINVAL, "%zu", i);
	}
}
