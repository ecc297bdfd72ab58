// SPDX-License-Identifier: Apache-2.0
// Standard input, output and error that a process was started without.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "standard.h"

/* In a child whose descriptors of the mask are closed: what a new file's number is, or -1 when one
 * of the three is not what it has to be. */
static int next_after(unsigned int closed)
{
	struct stat null, st;
	char byte;

	if (stat("/dev/null", &null) != 0)
		return -1;
	for (int fd = 3; fd < 64; fd++)
		close(fd);
	for (int fd = 0; fd < 3; fd++) {
		if (closed & 1u << fd)
			close(fd);
	}
	if (standard_fds_keep() < 0)
		return -1;
	for (int fd = 0; fd < 3; fd++) {
		if (fstat(fd, &st) != 0 || fcntl(fd, F_GETFD) & FD_CLOEXEC)
			return -1;
		if (closed & 1u << fd && st.st_rdev != null.st_rdev)
			return -1;
	}
	if (closed & 1 && read(STDIN_FILENO, &byte, 1) != 0)
		return -1;
	return open("/", O_RDONLY | O_CLOEXEC);
}

Test(standard, whatever_is_closed_the_next_file_is_number_3)
{
	for (unsigned int closed = 0; closed < 8; closed++) {
		pid_t child = fork();
		int status;

		if (child == 0)
			_exit(next_after(closed) == 3 ? 0 : 1);
		cr_assert_eq(waitpid(child, &status, 0), child);
		cr_expect_eq(status, 0, "closed: %x", closed);
	}
}
