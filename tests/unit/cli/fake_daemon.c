// SPDX-License-Identifier: Apache-2.0
// What virtiofsd and qemu-storage-daemon are to their starter: a program that answers on the socket
// that is descriptor 3, and stays when its front end goes. $FAKE_DAEMON_DOES: "die" says why and
// ends at once; "stay" ignores SIGTERM, and serves nobody. Its lines are what it is and may.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void try_open(const char *what, const char *path, int flags)
{
	int fd = open(path, flags, 0600);

	fprintf(stderr, "%s: %s\n", what, fd < 0 ? strerror(errno) : "open");
	if (fd >= 0)
		close(fd);
}

static void try_all(int argc, char **argv)
{
	char path[4200];

	for (int i = 1; i < argc; i++) {
		fprintf(stderr, "argument %s\n", argv[i]);
		if (strncmp(argv[i], "--shared-dir=", 13) != 0)
			continue;
		snprintf(path, sizeof(path), "%s/made", argv[i] + 13);
		try_open("write", path, O_CREAT | O_WRONLY);
	}
	if (getenv("FAKE_DAEMON_READS"))
		try_open("read", getenv("FAKE_DAEMON_READS"), O_RDONLY);
	try_open("passwd", "/etc/passwd", O_RDONLY);
	/* 3 is what it listens on, 4 its connection. */
	fprintf(stderr, "fifth: %s\n", fcntl(5, F_GETFD) < 0 ? "none" : "there");
}

int main(int argc, char **argv)
{
	const char *does = getenv("FAKE_DAEMON_DOES");
	uint32_t question[3], answer[5] = {1, 5 /* version 1, a reply */, 8};
	int fd;

	does = does ? does : "";
	if (strcmp(does, "die") == 0) {
		fputs("first\nno \033[1mreason\n", stderr);
		return 3;
	}
	if (strcmp(does, "stay") == 0) {
		signal(SIGTERM, SIG_IGN);
		fputs("stays\n", stderr);
		for (;;)
			pause();
	}
	fd = accept(3, NULL, NULL);
	if (fd < 0 || read(fd, question, sizeof(question)) != sizeof(question) || question[0] != 1)
		return 1;
	try_all(argc, argv);
	fprintf(stderr, "pid %d keeper %d\n", getpid(), getppid());
	if (write(fd, answer, sizeof(answer)) != sizeof(answer))
		return 1;
	for (;;)
		pause();
}
