// SPDX-License-Identifier: Apache-2.0
// Credentials: from files to strings that a guest's firmware has.
#include "machine/credentials.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/num.h"
#include "machine/open.h"

/* A value of any bytes, in base64. */
static const char prefix[] = "io.systemd.credential.binary:";

static const struct schema_field credential_fields[] = {
	{"name", SCHEMA_STRING, .offset = offsetof(struct config_credential, name)},
	{"path", SCHEMA_STRING, .offset = offsetof(struct config_credential, path)},
	{NULL},
};
const struct schema credential_schema = {"credential", credential_fields,
					 sizeof(struct config_credential), NULL};

static const struct config_credential *of(const struct list *link)
{
	return container_of(link, struct config_credential, item.link);
}

static bool is_name(const char *name)
{
	size_t length = strlen(name);

	for (const char *c = name; *c; c++) {
		if (*c <= ' ' || *c > '~' || strchr("/:=", *c))
			return false;
	}
	return length > 0 && length <= 255 && *name != '.';
}

/* Those before it are whole. */
static int check_one(const struct list *config, const struct config_credential *c, unsigned int i,
		     struct err *err)
{
	if (!c->name)
		return err_set(err, -EINVAL, "credentials[%u]: has no name", i);
	if (!is_name(c->name))
		return err_set(err, -EINVAL,
			       "credentials[%u].name: '%s': a name is that of a file, of 1 to 255 "
			       "ASCII characters, without space, '/', ':' and '='",
			       i, c->name);
	if (!c->path)
		return err_set(err, -EINVAL,
			       "credential '%s': has no path; give its file, or start hospes by a "
			       "unit of systemd's with LoadCredential=%s:FILE",
			       c->name, c->name);
	for (const struct list *l = config->next; l != &c->item.link; l = l->next) {
		if (strcmp(of(l)->name, c->name) == 0)
			return err_set(err, -EINVAL, "credential '%s': is given twice", c->name);
	}
	return 0;
}

int credentials_check(const struct list *config, struct err *err)
{
	unsigned int i = 0;
	int rc = 0;

	for (const struct list *l = config->next; l != config && !rc; l = l->next)
		rc = check_one(config, of(l), i++, err);
	return rc;
}

static char *put_base64(char *to, const uint8_t *bytes, size_t n)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

	for (size_t i = 0; i < n; i += 3) {
		size_t left = n - i;
		uint32_t word = (uint32_t)bytes[i] << 16 |
				(left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
				(left > 2 ? bytes[i + 2] : 0);

		*to++ = digits[word >> 18];
		*to++ = digits[word >> 12 & 63];
		*to++ = left > 1 ? digits[word >> 6 & 63] : '=';
		*to++ = left > 2 ? digits[word & 63] : '=';
	}
	*to = '\0';
	return to;
}

/* `room`: what is left of CREDENTIALS_BYTES. */
static int load(const struct config_credential *c, size_t *room, char **ret, struct err *err)
{
	cleanup_fd int fd = open_boot_file("credential", c->path, err);
	size_t bytes, needed;
	uint8_t *value;
	struct stat st;
	char *text;
	int rc;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) != 0)
		return err_set(err, -errno, "credential '%s': %s", c->path, err_name(errno));
	bytes = (size_t)st.st_size;
	needed = sizeof(prefix) - 1 + strlen(c->name) + 1 + (bytes + 2) / 3 * 4 + 1;
	if (bytes > CREDENTIALS_BYTES || needed > *room)
		return err_set(err, -E2BIG,
			       "credential '%s': '%s' has %zu bytes; a machine's credentials may "
			       "have %d in all, in base64 and with their names, and %zu are left",
			       c->name, c->path, bytes, CREDENTIALS_BYTES, *room);
	value = malloc(bytes + 1);
	text = malloc(needed);
	rc = value && text ? fd_read_full(fd, value, bytes, 0) : -ENOMEM;
	if (rc == 0) {
		char *at = stpcpy(stpcpy(stpcpy(text, prefix), c->name), "=");

		put_base64(at, value, bytes);
		*room -= needed;
		*ret = text;
		text = NULL;
	} else {
		err_set(err, rc, "credential '%s': '%s': %s", c->name, c->path, err_name(rc));
	}
	if (value)
		explicit_bzero(value, bytes);
	free(value);
	free(text);
	return rc;
}

int credentials_open(const struct list *config, struct credentials *ret, struct err *err)
{
	size_t room = CREDENTIALS_BYTES;
	int rc = 0;

	*ret = (struct credentials){0};
	for (const struct list *l = config->next; l != config && !rc; l = l->next) {
		rc = load(of(l), &room, &ret->text[ret->n], err);
		ret->n += rc == 0;
	}
	if (rc)
		credentials_done(ret);
	return rc;
}

void credentials_done(struct credentials *c)
{
	for (unsigned int i = 0; i < c->n; i++) {
		explicit_bzero(c->text[i], strlen(c->text[i]));
		free(c->text[i]);
	}
	*c = (struct credentials){0};
}
