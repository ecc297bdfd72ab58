// SPDX-License-Identifier: Apache-2.0
// The head of a qcow2 image, which decides what its daemon may open. Oracle: the name of a backing
// file is what the image has at the place that it gives, whole and a text, or the image is refused;
// what the format calls an external data file is always refused; a file is an image when it begins
// like one.
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "qcow2.h"

static uint64_t number(const uint8_t *at, unsigned int bytes)
{
	uint64_t value = 0;

	while (bytes--)
		value = value << 8 | *at++;
	return value;
}

static void check_name(const uint8_t *data, size_t size, const char *name)
{
	uint64_t offset = number(data + 8, 8), bytes = number(data + 16, 4);

	check(memchr(name, 0, QCOW2_NAME));
	if (!*name) {
		check(!offset || !bytes);
		return;
	}
	check(bytes == strlen(name));
	check(offset <= size && bytes <= size - offset);
	check(memcmp(data + offset, name, bytes) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd = memfd_create("image", MFD_CLOEXEC), rc;
	char why[QCOW2_WHY] = "";
	struct qcow2_head head;

	check(write(fd, data, size) == (ssize_t)size);
	rc = qcow2_read_head(fd, &head, why);
	close(fd);
	check(head.is_qcow2 == (size >= 4 && memcmp(data, "QFI\xfb", 4) == 0));
	if (rc) {
		check(head.is_qcow2 && *why && memchr(why, 0, sizeof(why)));
		return 0;
	}
	if (!head.is_qcow2)
		return 0;
	check(size >= 72 && (number(data + 4, 4) == 2 || number(data + 4, 4) == 3));
	if (number(data + 4, 4) == 3 && size >= 80)
		check(!(number(data + 72, 8) & 4));
	check_name(data, size, head.backing);
	return 0;
}
