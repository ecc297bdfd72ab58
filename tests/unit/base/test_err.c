/* SPDX-License-Identifier: Apache-2.0 */
/* The error object: codes pass through, text is one terminated line, context goes in front. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "base/err.h"

Test(err, set_returns_the_code_and_formats_the_text)
{
	struct err err = ERR_INIT;

	cr_assert_eq(err_set(&err, -EINVAL, "disk '%s': %d", "a.img", 7), -EINVAL);
	cr_assert_eq(err.code, -EINVAL);
	cr_assert_str_eq(err.text, "disk 'a.img': 7");
}

Test(err, set_without_an_object_still_returns_the_code)
{
	cr_assert_eq(err_set(NULL, -EBUSY, "unused"), -EBUSY);
	cr_assert_eq(err_prefix(NULL, "unused"), 0);
}

Test(err, set_replaces_what_was_there)
{
	struct err err = ERR_INIT;

	err_set(&err, -EINVAL, "a rather long first text");
	cr_assert_eq(err_set(&err, -ENOENT, "second"), -ENOENT);
	cr_assert_str_eq(err.text, "second");
}

Test(err, set_cuts_an_overlong_text_and_terminates_it)
{
	struct err err = ERR_INIT;
	char long_text[2000];

	memset(long_text, 'x', sizeof(long_text) - 1);
	long_text[sizeof(long_text) - 1] = 0;
	err_set(&err, -E2BIG, "%s", long_text);
	cr_assert_eq(strlen(err.text), sizeof(err.text) - 1);
}

Test(err, prefix_goes_in_front_and_keeps_the_code)
{
	struct err err = ERR_INIT;

	err_set(&err, -EACCES, "permission denied");
	cr_assert_eq(err_prefix(&err, "/dev/%s", "kvm"), -EACCES);
	cr_assert_str_eq(err.text, "/dev/kvm: permission denied");
}

Test(err, prefix_of_a_full_text_stays_terminated)
{
	struct err err = ERR_INIT;
	char long_text[2000];

	memset(long_text, 'x', sizeof(long_text) - 1);
	long_text[sizeof(long_text) - 1] = 0;
	err_set(&err, -E2BIG, "%s", long_text);
	cr_assert_eq(err_prefix(&err, "context"), -E2BIG);
	cr_assert_eq(memcmp(err.text, "context: x", 10), 0);
	cr_assert_lt(strnlen(err.text, sizeof(err.text)), sizeof(err.text));
}

Test(err, name_takes_either_sign)
{
	cr_assert_str_eq(err_name(-ENOENT), err_name(ENOENT));
	cr_assert_neq(strlen(err_name(-ENOENT)), 0);
	cr_assert_not_null(err_name(-100000), "an unknown number has a name too");
}
