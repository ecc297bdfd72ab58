// SPDX-License-Identifier: Apache-2.0
// hospes ctl NAME dump FILE: the file is made here, with the rights of whoever asks; the machine
// writes it.
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "ctl.h"
#include "output.h"

int ctl_dump(const char *what, const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	const struct question question = {.verb = "POST",
					  .target = "/v1/dump",
					  .body = "{\"fd\": 0}",
					  .fds = &fd,
					  .n_fds = 1};
	int status;

	if (fd < 0) {
		cli_error("%s: cannot be made for the dump: %s", path, strerror(errno));
		return CLI_FAILED;
	}
	status = ctl_await(what, &question, &(struct awaited){.event = "dumped", .subject = path},
			   NULL);
	close(fd);
	if (status != CLI_OK)
		unlink(path);
	return status;
}
