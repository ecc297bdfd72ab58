// SPDX-License-Identifier: Apache-2.0
// The seed for cloud-init: what is written, what is refused, and that mtools' own reader finds it.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "answer.h"
#include "cli.h"
#include "cloud_init.h"
#include "fake_hospes.h"

#define KEY "ssh-ed25519 AAAAC3Nz ann@house"

static char dir[] = "/tmp/hospes-seed-XXXXXX";

static void put(const char *name, const char *text)
{
	FILE *f = fopen(name, "w");

	cr_assert(f, "%s", name);
	fputs(text, f);
	fclose(f);
}

static void begin(void)
{
	cr_assert(mkdtemp(dir));
	cr_assert_eq(chdir(dir), 0);
	setenv("HOME", dir, 1);
	put("id.pub", "# mine\n" KEY "\n\necdsa-sha2-nistp256 BBBB second\n");
	put("id", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn\n");
}

static void end(void)
{
	char command[128];

	snprintf(command, sizeof(command), "/bin/rm -r %s", dir);
	cr_assert_eq(system(command), 0);
}

TestSuite(cloud_init, .init = begin, .fini = end, .timeout = 90);

static json_t *given;
static char *user_data, *meta_data;

static int write_it(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return cloud_init_write(given, &user_data, &meta_data);
}

static int written(const char *text)
{
	json_decref(given);
	free(user_data);
	free(meta_data);
	given = json_loads(text, 0, NULL);
	cr_assert(given, "%s", text);
	return fake_run(write_it, (const char *const[]){"run", NULL});
}

static json_t *config(void)
{
	json_t *all;

	cr_assert_eq(strncmp(user_data, "#cloud-config\n", 14), 0, "%s", user_data);
	all = json_loads(user_data + 14, 0, NULL);
	cr_assert(all, "%s", user_data);
	return all;
}

Test(cloud_init, a_user_has_the_keys_of_the_file)
{
	json_t *all, *user, *keys;

	cr_assert_eq(written("{\"user\": \"ann\", \"key\": \"~/id.pub\", \"hostname\": \"h\"}"),
		     CLI_OK, "%s", fake_err);
	all = config();
	user = json_array_get(json_object_get(all, "users"), 0);
	keys = json_object_get(user, "ssh_authorized_keys");
	cr_expect_str_eq(text_of(user, "name", ""), "ann");
	cr_expect(json_is_true(json_object_get(user, "lock_passwd")));
	cr_expect_eq(json_array_size(keys), 2);
	cr_expect_str_eq(json_string_value(json_array_get(keys, 0)), KEY);
	cr_expect_not(json_object_get(all, "chpasswd"));
	cr_expect(strstr(meta_data, "\"local-hostname\": \"h\""), "%s", meta_data);
	json_decref(all);
}

Test(cloud_init, a_password_is_said_in_the_quotes_that_it_needs)
{
	json_t *all, *user;

	cr_assert_eq(
		written("{\"user\": \"ann\", \"password\": \"a: \\\"b\\\" #c\", \"key\": \"" KEY
			"\"}"),
		CLI_OK, "%s", fake_err);
	all = config();
	user = json_array_get(json_object_get(json_object_get(all, "chpasswd"), "users"), 0);
	cr_expect_str_eq(text_of(user, "password", ""), "a: \"b\" #c");
	cr_expect(json_is_true(json_object_get(all, "ssh_pwauth")));
	json_decref(all);
}

Test(cloud_init, another_seed_is_another_instance)
{
	char *first;

	cr_assert_eq(written("{\"user\": \"ann\", \"password\": \"x\"}"), CLI_OK);
	first = strdup(meta_data);
	cr_assert_eq(written("{\"user\": \"ann\", \"password\": \"x\"}"), CLI_OK);
	cr_expect_str_eq(meta_data, first, "the same is the same");
	cr_assert_eq(written("{\"user\": \"ann\", \"password\": \"y\"}"), CLI_OK);
	cr_expect_str_neq(meta_data, first);
	free(first);
}

Test(cloud_init, what_cannot_be_meant_is_refused_with_the_remedy)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
		{"{\"key\": \"id.pub\"}", "give user=NAME"},
		{"{\"user\": \"ann\"}", "give key=FILE"},
		{"{\"user\": \"Ann\", \"password\": \"x\"}", "small letters"},
		{"{\"user\": \"a\\nb\", \"password\": \"x\"}", "small letters"},
		{"{\"user\": \"ann\", \"key\": \"none.pub\"}", "ssh-keygen"},
		{"{\"user\": \"ann\", \"key\": \"id\"}", "private key"},
		{"{\"user\": \"ann\", \"key\": \"/dev/zero\"}", "is no file"},
		{"{\"user\": \"ann\", \"key\": \"empty\"}", "has no key"},
		{"{\"user\": \"ann\", \"key\": \"words\"}", "no public key"},
		{"{\"user\": \"ann\", \"key\": \"nul\"}", "is no text"},
		{"{\"user\": \"ann\", \"key\": \"large\"}", "is too large"},
		{"{\"user\": \"ann\", \"password\": \"\"}", "is empty"},
		{"{\"user\": \"ann\", \"password\": \"x\", \"hostname\": \"a b\"}", "hostname"},
		{"{\"userdata\": \"id.pub\", \"user\": \"ann\"}", "leave out user"},
		{"{\"userdata\": \"none\"}", "No such file"},
		{"{\"users\": \"ann\"}", "'users' is not one of"},
		{"{\"user\": 7}", "with a text"},
	};

	put("empty", "# nothing\n");
	put("words", "good morning\n");
	put("nul", KEY "\n");
	put("large", KEY "\n");
	cr_assert_eq(truncate("nul", 100), 0);
	cr_assert_eq(truncate("large", 1 << 17), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cr_expect_eq(written(cases[i].text), CLI_FAILED, "%s", cases[i].text);
		cr_expect(strstr(fake_err, "--cloud-init: ") && strstr(fake_err, cases[i].says),
			  "%s: %s", cases[i].text, fake_err);
		cr_expect_null(user_data);
	}
}

/* --- the disk --- */

static json_t *document;
static int seed;

static int make_seed(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return cloud_init_seed(document, &seed);
}

static const char *read_back(const char *command)
{
	static char text[8192];
	char line[256];
	FILE *f;

	snprintf(line, sizeof(line), "%s -i /proc/%d/fd/%d ::/%s", command, getpid(), seed,
		 strstr(command, "mtype") ? "user-data" : "");
	f = popen(line, "r");
	text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
	pclose(f);
	return text;
}

Test(cloud_init, the_disk_is_one_that_cloud_init_looks_for)
{
	char *own = calloc(1, 300001);
	json_t *disk;

	if (system("command -v mformat >/dev/null"))
		cr_skip("mtools is not installed");
	memset(own, 'a', 300000);
	memcpy(own, "#!/bin/sh\n", 10);
	put("own", own);
	free(own);
	document = json_pack("{s:{s:s, s:s}, s:[{s:s}]}", "cloud_init", "userdata", "~/own",
			     "hostname", "h", "disks", "path", "root.img");
	cr_assert_eq(fake_run(make_seed, (const char *const[]){"run", NULL}), CLI_OK, "%s",
		     fake_err);
	cr_expect_not(json_object_get(document, "cloud_init"));
	cr_expect_eq(json_array_size(json_object_get(document, "disks")), 2);
	disk = json_array_get(json_object_get(document, "disks"), 1);
	cr_expect_eq(json_integer_value(json_object_get(disk, "fd")), seed);
	cr_expect(json_is_true(json_object_get(disk, "readonly")));
	cr_expect(strstr(read_back("mlabel -s"), "CIDATA"), "%s", read_back("mlabel -s"));
	cr_expect(strstr(read_back("mdir -b"), "::/user-data"), "%s", read_back("mdir -b"));
	cr_expect(strstr(read_back("mdir -b"), "::/meta-data"));
	cr_expect_eq(strncmp(read_back("mtype"), "#!/bin/sh\naaa", 13), 0);
	close(seed);
	json_decref(document);
	document = json_pack("{s:{}}", "cloud_init");
	cr_expect_eq(fake_run(make_seed, (const char *const[]){"run", NULL}), CLI_OK);
	cr_expect_eq(seed, -1);
	json_decref(document);
}

Test(cloud_init, without_mtools_their_package_is_said)
{
	setenv("PATH", "/nowhere", 1);
	document = json_pack("{s:{s:s, s:s}}", "cloud_init", "user", "ann", "password", "x");
	cr_assert_eq(fake_run(make_seed, (const char *const[]){"run", NULL}), CLI_FAILED);
	cr_expect(strstr(fake_err, "mformat is not there; type: apt install mtools"), "%s",
		  fake_err);
	cr_expect_eq(seed, -1);
	json_decref(document);
}
