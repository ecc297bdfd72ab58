// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/holder.h"

Test(holder, a_process_with_the_file_open_is_found_but_the_excepted_one)
{
	char path[] = "/tmp/hospes-holder-XXXXXX";
	int fd = mkstemp(path);
	struct holder holder;
	struct stat st;

	cr_assert_geq(fd, 0);
	cr_assert_eq(fstat(fd, &st), 0);
	cr_assert(holder_find(&holder, &st, 1, 0));
	cr_expect_eq(holder.pid, getpid());
	cr_expect(holder.name[0]);
	cr_expect_not(holder_find(&holder, &st, 1, getpid()));
	close(fd);
	cr_expect_not(holder_find(&holder, &st, 1, 0));
	unlink(path);
}

Test(holder, what_is_said_of_a_thing_is_seen_until_it_is_taken_back)
{
	int one = holder_announce("0000:01:10.0", "web: the second"),
	    two = holder_announce("0000:01:10.2", "db");
	char label[HOLDER_LABEL_BYTES];

	cr_assert(one >= 0 && two >= 0);
	cr_assert(holder_announced(getpid(), "0000:01:10.0", label));
	cr_expect_str_eq(label, "web: the second");
	cr_assert(holder_announced(getpid(), "0000:01:10.2", label));
	cr_expect_str_eq(label, "db");
	cr_expect_not(holder_announced(getpid(), "0000:01:10", label));
	close(one);
	cr_expect_not(holder_announced(getpid(), "0000:01:10.0", label));
	close(two);
}

Test(holder, a_label_is_cut_and_made_printable)
{
	char label[HOLDER_LABEL_BYTES], longest[100];
	int fd;

	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	longest[1] = '\033';
	fd = holder_announce("it", longest);
	cr_assert_geq(fd, 0);
	cr_assert(holder_announced(getpid(), "it", label));
	cr_expect_eq(strlen(label), HOLDER_LABEL_BYTES - 1);
	cr_expect_eq(label[1], '?');
	close(fd);
}

Test(holder, of_a_process_that_is_not_there_nothing_is_known)
{
	char label[HOLDER_LABEL_BYTES];

	cr_expect_not(holder_announced(0x7ffffff0, "it", label));
}
