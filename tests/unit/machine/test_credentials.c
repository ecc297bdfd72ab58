// SPDX-License-Identifier: Apache-2.0
// Credentials become strings of the firmware: as systemd reads them, within what there is room for.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "machine/config.h"
#include "machine/credentials.h"

static char directory[] = "/tmp/hospes-credentials-XXXXXX";

static void make_directory(void)
{
	cr_assert(mkdtemp(directory));
}

static void remove_directory(void)
{
	char command[64];

	snprintf(command, sizeof(command), "rm -r %s", directory);
	cr_assert_eq(system(command), 0);
}

TestSuite(credentials, .init = make_directory, .fini = remove_directory);

static void make(const char *name, const void *bytes, size_t n)
{
	char path[96];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	file = fopen(path, "we");
	cr_assert(file && fwrite(bytes, 1, n, file) == n && fclose(file) == 0);
}

/* Of a document with these credentials, in JSON; $ is the directory. The message is in *err. */
static int open_those(const char *json, struct credentials *ret, struct err *err)
{
	char text[16384] = "{\"kernel\": {\"path\": \"k\"}, \"credentials\": [",
	     *to = strchr(text, 0);
	struct config config;
	int rc;

	for (; *json; json++) {
		if (*json == '$')
			to = stpcpy(to, directory);
		else
			*to++ = *json;
	}
	strcpy(to, "]}");
	*err = (struct err)ERR_INIT;
	rc = config_read(&config, text, strlen(text), err);
	if (!rc)
		rc = credentials_open(&config.credentials, ret, err);
	config_done(&config);
	return rc;
}

static void refused(const char *json, int code, const char *words)
{
	struct credentials c;
	struct err err;
	int rc = open_those(json, &c, &err);

	cr_expect_eq(rc, code, "%s: %d (%s)", json, rc, err.text);
	cr_expect(strstr(err.text, words), "%s: \"%s\" lacks \"%s\"", json, err.text, words);
}

/* RFC 4648, section 10, and bytes that are no text. */
Test(credentials, a_value_is_in_base64_whatever_its_length)
{
	static const struct {
		const char *value;
		size_t n;
		const char *text;
	} rows[] = {
		{"", 0, ""},
		{"f", 1, "Zg=="},
		{"fo", 2, "Zm8="},
		{"foo", 3, "Zm9v"},
		{"foob", 4, "Zm9vYg=="},
		{"fooba", 5, "Zm9vYmE="},
		{"foobar", 6, "Zm9vYmFy"},
		{"\0\xff\xfe\n", 4, "AP/+Cg=="},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char wanted[96];
		struct credentials c;
		struct err err;

		make("v", rows[i].value, rows[i].n);
		cr_assert_eq(open_those("{\"name\": \"a.b\", \"path\": \"$/v\"}", &c, &err), 0,
			     "%s", err.text);
		snprintf(wanted, sizeof(wanted), "io.systemd.credential.binary:a.b=%s",
			 rows[i].text);
		cr_assert_eq(c.n, 1);
		cr_expect_str_eq(c.text[0], wanted);
		credentials_done(&c);
		cr_assert_eq(c.n, 0);
	}
}

Test(credentials, several_are_in_their_order)
{
	struct credentials c;
	struct err err;

	make("1", "x", 1);
	make("2", "y", 1);
	cr_assert_eq(
		open_those(
			"{\"name\": \"b\", \"path\": \"$/1\"}, {\"name\": \"a\", \"path\": \"$/2\"}",
			&c, &err),
		0, "%s", err.text);
	cr_assert_eq(c.n, 2);
	cr_assert(strstr(c.text[0], ":b=eA=="));
	cr_assert(strstr(c.text[1], ":a=eQ=="));
	credentials_done(&c);
}

Test(credentials, what_cannot_be_one_is_refused_with_its_name)
{
	make("v", "x", 1);
	refused("{\"path\": \"$/v\"}", -EINVAL, "credentials[0]: has no name");
	refused("{\"name\": \"a\"}", -EINVAL, "LoadCredential=a:FILE");
	refused("{\"name\": \"a\", \"path\": \"$/v\"}, {\"name\": \"a\", \"path\": \"$/v\"}",
		-EINVAL, "'a': is given twice");
	refused("{\"name\": \"a\", \"path\": \"$/missing\"}", -ENOENT, "missing");
	refused("{\"name\": \"a\", \"path\": \"$\"}", -EINVAL, "is a directory");
	refused("{\"name\": \"a\", \"contents\": \"x\"}", -EINVAL, "has: name, path");
	static const char *const names[] = {"",    ".",   "..",  ".x",      "a/b",
					    "a:b", "a=b", "a b", "\xc3\xa4"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		char json[96];

		snprintf(json, sizeof(json), "{\"name\": \"%s\", \"path\": \"$/v\"}", names[i]);
		refused(json, -EINVAL, "a name is that of a file");
	}
}

Test(credentials, they_have_room_and_no_more)
{
	static char value[CREDENTIALS_BYTES + 1];
	/* "io.systemd.credential.binary:a=", a NUL, and four characters for three bytes. */
	size_t most = (CREDENTIALS_BYTES - 31 - 1) / 4 * 3;
	struct credentials c;
	struct err err;

	memset(value, 'x', sizeof(value));
	make("most", value, most);
	cr_assert_eq(open_those("{\"name\": \"a\", \"path\": \"$/most\"}", &c, &err), 0, "%s",
		     err.text);
	cr_assert_leq(strlen(c.text[0]) + 1, CREDENTIALS_BYTES);
	credentials_done(&c);
	make("more", value, most + 1);
	refused("{\"name\": \"a\", \"path\": \"$/more\"}", -E2BIG, "may have 40960 in all");
	make("much", value, sizeof(value));
	refused("{\"name\": \"a\", \"path\": \"$/much\"}", -E2BIG, "has 40961 bytes");
	make("one", "x", 1);
	refused("{\"name\": \"a\", \"path\": \"$/most\"}, {\"name\": \"b\", \"path\": \"$/one\"}",
		-E2BIG, "are left");
}
