// SPDX-License-Identifier: Apache-2.0
// Flags become the document: every flag lands at its key, commas can be escaped, usage is checked.
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <stdlib.h>

#include "cli.h"
#include "document.h"

static int load(void *into, char *path)
{
	return document_load(into, path);
}

static const struct command command = {
	.name = "run",
	.operand = load,
	.groups = {{"The machine", document_options, 0}, {"Its devices", device_options, 0}}};

static int read_args(json_t **ret, const char *const *args)
{
	char *argv[24] = {(char *)"run"};
	int argc = 1, status;

	while (*args)
		argv[argc++] = (char *)*args++;
	*ret = NULL;
	options_parse(&command, argc, argv, ret, &status);
	if (status != CLI_OK) {
		json_decref(*ret);
		*ret = NULL;
	}
	return status;
}
#define READ(ret, ...) read_args(ret, (const char *const[]){__VA_ARGS__, NULL})

static void document_is(json_t *root, const char *wanted)
{
	json_t *json = json_loads(wanted, 0, NULL);

	cr_assert(json, "%s", wanted);
	cr_assert(json_equal(root, json), "%s, not %s", json_dumps(root, 0), wanted);
	json_decref(json);
	json_decref(root);
}

Test(document, flags_land_at_their_keys)
{
	json_t *root;

	cr_assert_eq(READ(&root, "--kernel", "k", "--cmdline=a=b c", "--cpus", "4,pin=0-3",
			  "--memory", "1G,prefault=on", "--rng", "off", "--name", "x"),
		     CLI_OK);
	document_is(root, "{\"kernel\": {\"path\": \"k\", \"cmdline\": \"a=b c\"},"
			  "\"cpus\": {\"count\": \"4\", \"pin\": \"0-3\"},"
			  "\"memory\": {\"size\": \"1G\", \"prefault\": \"on\"},"
			  "\"rng\": {\"enabled\": \"off\"}, \"name\": \"x\"}");
}

Test(document, a_balloon_is_enabled_unless_its_words_say_no)
{
	json_t *root;

	cr_assert_eq(READ(&root, "--balloon"), CLI_OK);
	document_is(root, "{\"balloon\": {\"enabled\": \"on\"}}");
	cr_assert_eq(READ(&root, "--balloon=stats=5,free_page_reporting=on"), CLI_OK);
	document_is(root, "{\"balloon\": {\"enabled\": true, \"stats\": \"5\","
			  "\"free_page_reporting\": \"on\"}}");
	cr_assert_eq(READ(&root, "--balloon", "off"), CLI_OK);
	document_is(root, "{\"balloon\": {\"enabled\": \"off\"}}");
}

Test(document, a_credential_without_a_file_is_the_service_managers)
{
	json_t *root;

	setenv("CREDENTIALS_DIRECTORY", "/run/credentials/u", 1);
	cr_assert_eq(READ(&root, "--credential", "a", "--credential", "b,path=/x"), CLI_OK);
	document_find_credentials(root);
	document_is(root, "{\"credentials\": [{\"name\": \"a\", \"path\": "
			  "\"/run/credentials/u/a\"}, {\"name\": \"b\", \"path\": \"/x\"}]}");
	cr_assert_eq(READ(&root, "--credential", "../a"), CLI_OK);
	document_find_credentials(root);
	document_is(root, "{\"credentials\": [{\"name\": \"../a\"}]}");
	unsetenv("CREDENTIALS_DIRECTORY");
	cr_assert_eq(READ(&root, "--credential", "a"), CLI_OK);
	document_find_credentials(root);
	document_is(root, "{\"credentials\": [{\"name\": \"a\"}]}");
}

Test(document, lists_grow_and_commas_are_written_twice)
{
	json_t *root;

	cr_assert_eq(READ(&root, "--disk", "path=a,,b.img,readonly=on", "--disk", "c.img",
			  "--console", "virtio,path=log"),
		     CLI_OK);
	document_is(root, "{\"disks\": [{\"path\": \"a,b.img\", \"readonly\": \"on\"},"
			  "{\"path\": \"c.img\"}],"
			  "\"consoles\": [{\"type\": \"virtio\", \"path\": \"log\"}]}");
}

Test(document, no_console_is_an_empty_list)
{
	json_t *root;

	cr_assert_eq(READ(&root, "--console", "none"), CLI_OK);
	document_is(root, "{\"consoles\": []}");
}

Test(document, flags_add_to_the_file_wherever_it_stands)
{
	char path[] = "/tmp/hospes-document-XXXXXX";
	const char *text = "{\"memory\": {\"size\": \"1G\"}, \"disks\": [{\"path\": \"a\"}]}";
	int fd = mkstemp(path);
	json_t *root;

	cr_assert(fd >= 0);
	cr_assert(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	cr_assert_eq(READ(&root, "--disk", "path=b", path, "--memory", "2G"), CLI_OK);
	unlink(path);
	close(fd);
	document_is(
		root,
		"{\"memory\": {\"size\": \"2G\"}, \"disks\": [{\"path\": \"a\"}, {\"path\": \"b\"}]}");
}

Test(document, usage_errors_have_their_status)
{
	json_t *root;

	cr_assert_eq(READ(&root, "--kernal", "x"), CLI_USAGE);
	cr_assert_eq(READ(&root, "--kernel"), CLI_USAGE);
	cr_assert_eq(READ(&root, "--disk", "path=a,readonly"), CLI_USAGE);
	cr_assert_eq(READ(&root, "--net", "tap0"), CLI_USAGE);
	cr_assert_eq(READ(&root, "/nowhere/config.json"), CLI_FAILED);
	cr_assert_null(root);
	cr_assert_eq(READ(&root, "/dev/null"), CLI_FAILED);
}

Test(document, what_is_not_utf8_is_refused_and_not_left_out)
{
	json_t *root;

	cr_expect_eq(READ(&root, "--cmdline", "quiet \xe9"), CLI_USAGE);
	cr_expect_eq(READ(&root, "--disk", "path=caf\xe9.img"), CLI_USAGE);
	cr_expect_eq(READ(&root, "--console", "virtio,path=caf\xe9.log"), CLI_USAGE);
	cr_expect_eq(READ(&root, "--kernel-cache", "caf\xe9"), CLI_USAGE);
}

Test(document, passed_through_devices_and_their_iommu)
{
	json_t *root;

	cr_assert_eq(READ(&root, "--passthrough", "0000:01:10.0,ioas=a", "--passthrough",
			  "fd=7,iommufd=8", "--iommu", "type1"),
		     CLI_OK);
	document_is(root,
		    "{\"passthrough\": [{\"device\": \"0000:01:10.0\", \"ioas\": \"a\"},"
		    "{\"fd\": \"7\", \"iommufd\": \"8\"}], \"iommu\": {\"backend\": \"type1\"}}");
}
