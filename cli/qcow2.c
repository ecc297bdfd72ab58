// SPDX-License-Identifier: Apache-2.0
// Which files a qcow2 image is made of. See qcow2.h; the format: QEMU's docs/interop/qcow2.rst.
#include "qcow2.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	HEAD_BYTES = 80, /* up to the incompatible features of version 3 */
	HEAD_BYTES_V2 = 72,
	EXTERNAL_DATA = 1 << 2, /* of the incompatible features */
};

static uint32_t be32_at(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return be32toh(value);
}

static uint64_t be64_at(const uint8_t *at)
{
	return (uint64_t)be32_at(at) << 32 | be32_at(at + 4);
}

__attribute__((format(printf, 3, 4))) static int refuse(char why[QCOW2_WHY], int code,
							const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, QCOW2_WHY, fmt, ap);
	va_end(ap);
	/* Names come from the image. */
	for (char *c = why; *c; c++) {
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	}
	return code;
}

int qcow2_read_head(int fd, struct qcow2_head *ret, char why[QCOW2_WHY])
{
	uint8_t head[HEAD_BYTES] = {0};
	ssize_t n = pread(fd, head, sizeof(head), 0);
	uint64_t offset = be64_at(head + 8);
	uint32_t version = be32_at(head + 4), bytes = be32_at(head + 16);

	*ret = (struct qcow2_head){.is_qcow2 = n >= 4 && memcmp(head, "QFI\xfb", 4) == 0};
	if (!ret->is_qcow2)
		return 0;
	if (n < HEAD_BYTES_V2 || version < 2 || version > 3)
		return refuse(why, -EINVAL,
			      "its head is damaged, or of version %u; 'qemu-img "
			      "check' looks at it",
			      version);
	if (version == 3 && be64_at(head + 72) & EXTERNAL_DATA)
		return refuse(why, -EINVAL,
			      "its data is in another file, which is not supported; "
			      "'qemu-img convert -O qcow2' makes one image of it");
	if (!offset || !bytes)
		return 0;
	if (bytes >= QCOW2_NAME || offset > INT64_MAX ||
	    pread(fd, ret->backing, bytes, (off_t)offset) != (ssize_t)bytes ||
	    strlen(ret->backing) != bytes)
		return refuse(why, -EINVAL, "the name of its backing file is damaged");
	return 0;
}

/* --- the chain --- */

static bool is_below(const char *path, const char *folder)
{
	char real[PATH_MAX];
	size_t n;

	if (!folder || !realpath(folder, real))
		return false;
	n = strlen(real);
	return strcmp(real, "/") == 0 || (strncmp(path, real, n) == 0 && path[n] == '/');
}

/* The folder of a path that has one. */
static char *folder_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

/* As the daemon finds it: relative to the folder of the file that names it. */
static char *combine(const char *from, const char *name)
{
	char *folder, *path = NULL;

	if (name[0] == '/')
		return strdup(name);
	folder = folder_of(from);
	if (!folder || asprintf(&path, "%s/%s", folder, name) < 0)
		path = NULL;
	free(folder);
	return path;
}

static char *absolute(const char *path)
{
	char here[PATH_MAX], *full = NULL;

	if (path[0] == '/')
		return strdup(path);
	if (!getcwd(here, sizeof(here)) || asprintf(&full, "%s/%s", here, path) < 0)
		return NULL;
	return full;
}

static int read_file(const char *path, struct qcow2_head *head, char why[QCOW2_WHY])
{
	/* Of a pipe the open would wait for a writer. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;
	int rc;

	if (fd < 0)
		return refuse(why, -errno, "'%.300s': %s", path, strerror(errno));
	if (fstat(fd, &st) != 0 || (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)))
		rc = refuse(why, -EINVAL, "'%.300s' is neither a file nor a block device", path);
	else
		rc = qcow2_read_head(fd, head, why);
	close(fd);
	return rc;
}

static int add_backing(struct qcow2_chain *chain, const char *name, const char *image,
		       const char *folder, char why[QCOW2_WHY])
{
	size_t word = strcspn(name, ":/");
	char *own = folder_of(image), *path, real[PATH_MAX];
	bool allowed;

	if (!own)
		return refuse(why, -ENOMEM, "no memory");
	if (name[word] == ':') {
		free(own);
		return refuse(why, -EINVAL,
			      "its backing file '%.200s' is not the name of a file; start "
			      "qemu-storage-daemon yourself, and give vhost_user",
			      name);
	}
	path = combine(chain->path[chain->n - 1], name);
	if (!path || !realpath(path, real)) {
		int rc = path ? refuse(why, -errno, "its backing file '%.200s': %s", path,
				       strerror(errno))
			      : refuse(why, -ENOMEM, "no memory");

		free(path);
		free(own);
		return rc;
	}
	allowed = is_below(real, own) || is_below(real, folder);
	free(own);
	if (!allowed) {
		free(path);
		return refuse(why, -EACCES,
			      "its backing file '%.200s' is not in its folder, and an image from "
			      "elsewhere could name any file of yours; if that is meant, give "
			      "backing=DIR, the folder of that file",
			      real);
	}
	chain->path[chain->n++] = path;
	return 0;
}

int qcow2_find_chain(struct qcow2_chain *ret, const char *path, const char *folder,
		     char why[QCOW2_WHY])
{
	struct qcow2_head head = {0};
	int rc = 0;

	*ret = (struct qcow2_chain){.path = {absolute(path)}, .n = 1};
	if (!ret->path[0]) {
		ret->n = 0;
		return refuse(why, -ENOMEM, "no memory");
	}
	while (!rc) {
		rc = read_file(ret->path[ret->n - 1], &head, why);
		if (rc || !head.is_qcow2 || !head.backing[0])
			break;
		if (ret->n == QCOW2_DEPTH)
			rc = refuse(why, -ELOOP,
				    "it has more than %d backing files: do they name "
				    "each other?",
				    QCOW2_DEPTH - 1);
		else
			rc = add_backing(ret, head.backing, ret->path[0], folder, why);
	}
	if (rc)
		qcow2_chain_done(ret);
	return rc;
}

void qcow2_chain_done(struct qcow2_chain *chain)
{
	while (chain->n)
		free(chain->path[--chain->n]);
}
