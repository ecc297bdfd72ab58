// SPDX-License-Identifier: Apache-2.0
// Where a migration's stream goes, and what a target's command line may say beside the source's
// document.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "address.h"
#include "cli.h"
#include "fake_hospes.h"
#include "incoming.h"

static char dir[64], address[128];
static const char *path;

static void set_up(void)
{
	strcpy(dir, "/tmp/hospes-migrate-XXXXXX");
	cr_assert_not_null(mkdtemp(dir));
	snprintf(address, sizeof(address), "unix:%s/in", dir);
	path = address + 5;
	fake = (struct fake){0};
}

static void tear_down(void)
{
	unlink(path);
	rmdir(dir);
}

TestSuite(migrate, .init = set_up, .fini = tear_down, .timeout = 30);

static void *accept_one(void *opaque)
{
	*(int *)opaque = address_accept(address);
	return NULL;
}

static struct sockaddr_un place(void)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};

	strcpy(at.sun_path, path);
	return at;
}

static void expect_connection(void)
{
	pthread_t thread;
	int there = -1, here = -1;
	char byte;
	struct stat st;

	cr_assert_eq(pthread_create(&thread, NULL, accept_one, &there), 0);
	while (here < 0) {
		struct sockaddr_un at = place();

		here = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (connect(here, (struct sockaddr *)&at, sizeof(at)) == 0)
			break;
		close(here);
		here = -1;
	}
	pthread_join(thread, NULL);
	cr_assert_geq(there, 0);
	cr_expect_eq(write(here, "x", 1), 1);
	cr_expect_eq(read(there, &byte, 1), 1);
	cr_expect_neq(stat(path, &st), 0, "the path goes with the waiting");
	close(here);
	close(there);
}

Test(migrate, the_first_who_comes_is_taken)
{
	expect_connection();
}

Test(migrate, what_one_that_was_ended_has_left_is_replaced)
{
	struct sockaddr_un at = place();
	int left = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	cr_assert_eq(bind(left, (struct sockaddr *)&at, sizeof(at)), 0);
	close(left);
	expect_connection();
}

static int take_refusal(int (*run)(const char *), const char *text, const char *want)
{
	FILE *err = tmpfile();
	int saved = dup(STDERR_FILENO), fd;
	char line[400] = "";

	dup2(fileno(err), STDERR_FILENO);
	fd = run(text);
	fflush(stderr);
	dup2(saved, STDERR_FILENO);
	close(saved);
	cr_assert_eq(fseek(err, 0, SEEK_SET), 0);
	cr_expect(fgets(line, sizeof(line), err) && strstr(line, want), "%s: '%s'", text, line);
	fclose(err);
	return fd;
}

Test(migrate, somebody_elses_socket_stays)
{
	struct sockaddr_un at = place();
	int theirs = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	cr_assert_eq(bind(theirs, (struct sockaddr *)&at, sizeof(at)), 0);
	cr_assert_eq(listen(theirs, 1), 0);
	cr_expect_eq(take_refusal(address_accept, address, "is there already"), -1);
	close(theirs);
}

Test(migrate, what_is_no_address_is_said)
{
	cr_expect_eq(take_refusal(address_connect, "host:1", "takes unix:PATH"), -1);
	cr_expect_eq(take_refusal(address_accept, "udp:1", "takes unix:PATH"), -1);
	cr_expect_eq(take_refusal(address_connect, "tcp:host", "takes tcp:HOST:PORT"), -1);
	cr_expect_eq(take_refusal(address_connect, "tcp:[::1]:", "takes tcp:HOST:PORT"), -1);
	cr_expect_eq(take_refusal(address_connect, "fd:0", "connected socket"), -1);
	cr_expect_eq(take_refusal(address_connect, "fd:x", "connected socket"), -1);
	cr_expect_eq(take_refusal(address_connect, "unix:/nowhere/at/all", "No such file"), -1);
}

static int incoming(const char *words, json_t **document)
{
	int pair[2], fd = -1, status;
	char text[32];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	snprintf(text, sizeof(text), "fd:%d", pair[0]);
	*document = json_loads(words, 0, NULL);
	status = incoming_document(document, text, &fd);
	if (status == CLI_OK)
		cr_expect_eq(json_integer_value(
				     json_object_get(json_object_get(*document, "incoming"), "fd")),
			     fd);
	close(pair[0]);
	close(pair[1]);
	close(fd);
	return status;
}

/* The source of the fake library has "memory": {"size": 134217728}. */
Test(migrate, the_sources_document_is_beneath_the_targets)
{
	json_t *document;

	fake.effective = "{\"memory\": {\"size\": 134217728, \"max\": 1}, \"name\": \"x\"}";
	cr_assert_eq(incoming("{\"name\": \"x\"}", &document), CLI_OK);
	cr_expect_eq(
		json_integer_value(json_object_get(json_object_get(document, "memory"), "size")),
		134217728);
	cr_expect_str_eq(json_string_value(json_object_get(document, "name")), "x");
	json_decref(document);
}

Test(migrate, what_the_guest_would_see_otherwise_is_refused)
{
	json_t *document;

	fake.effective = "{\"memory\": {\"size\": 1}}";
	cr_assert_eq(incoming("{\"memory\": {\"size\": 1}}", &document), CLI_USAGE);
	json_decref(document);
	fake.effective = "{}";
	cr_assert_eq(incoming("{}", &document), CLI_USAGE);
	json_decref(document);
	fake.fails = "migration_document";
	cr_assert_eq(incoming("{}", &document), CLI_FAILED);
	json_decref(document);
}

/* connect(2) says of a file what it says of a socket that nobody listens at. */
Test(migrate, a_file_stays)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	cr_assert_geq(fd, 0);
	close(fd);
	cr_expect_eq(take_refusal(address_accept, address, "is there already"), -1);
	cr_expect_eq(access(path, F_OK), 0, "it is gone");
}
