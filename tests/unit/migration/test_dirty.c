// SPDX-License-Identifier: Apache-2.0
// What is dirty: what is marked, once, and nothing that is not; while others mark.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/num.h"
#include "migration/dirty.h"
#include "ram.h"

enum { PAGE = 4096 };

static struct gmem *gmem;
static struct dirty *dirty;
static struct err err;

/* Two regions side by side, a hole, one more, and a ROM. */
static void set_up(void)
{
	cr_assert_eq(gmem_create(&gmem, NULL, &err), 0);
	add_ram(gmem, 0, 128 * PAGE, 0, GMEM_ANONYMOUS);
	add_ram(gmem, 128 * PAGE, 128 * PAGE, 0, GMEM_MEMFD);
	add_ram(gmem, 512 * PAGE, 64 * PAGE, 0, GMEM_ANONYMOUS);
	add_ram(gmem, 1024 * PAGE, 16 * PAGE, GMEM_READONLY, GMEM_ANONYMOUS);
	cr_assert_eq(dirty_create(&dirty, gmem, &err), 0, "%s", err.text);
}

static void tear_down(void)
{
	dirty_destroy(dirty);
	gmem_destroy(gmem);
}

TestSuite(dirty, .init = set_up, .fini = tear_down, .timeout = 60);

static void mark(uint64_t gpa, uint64_t len)
{
	dirty_tracker(dirty)->mark(dirty_tracker(dirty), gpa, len);
}

static void expect_next(uint64_t max, uint64_t page, uint64_t n)
{
	uint64_t gpa, pages;

	cr_assert(dirty_next(dirty, max, &gpa, &pages), "page %llu", (unsigned long long)page);
	cr_expect_eq(gpa / PAGE, page, "%llu, not %llu", (unsigned long long)(gpa / PAGE),
		     (unsigned long long)page);
	cr_expect_eq(pages, n, "%llu, not %llu pages at %llu", (unsigned long long)pages,
		     (unsigned long long)n, (unsigned long long)page);
}

static void expect_end(void)
{
	uint64_t gpa, pages;

	cr_assert(!dirty_next(dirty, 1000, &gpa, &pages));
}

Test(dirty, each_page_that_is_touched_and_no_other)
{
	mark(5 * PAGE + 100, 1);
	mark(60 * PAGE - 1, 2);
	mark(63 * PAGE, 2 * PAGE);
	mark(100 * PAGE, 0);
	cr_assert_eq(dirty_collect(dirty), 5);
	expect_next(100, 5, 1);
	expect_next(100, 59, 2);
	expect_next(100, 63, 2);
	expect_end();
	cr_assert_eq(dirty_collect(dirty), 0, "taken once");
}

Test(dirty, runs_end_with_their_region_and_at_the_limit)
{
	mark(120 * PAGE, 20 * PAGE);
	cr_assert_eq(dirty_collect(dirty), 20);
	expect_next(6, 120, 6);
	expect_next(100, 126, 2);
	expect_next(100, 128, 12);
	expect_end();
}

Test(dirty, what_is_beyond_memory_is_nothing)
{
	uint64_t gpa, pages;

	mark(570 * PAGE, 1000 * PAGE);
	mark(UINT64_MAX - 10, 100);
	mark(300 * PAGE, PAGE);
	dirty_collect(dirty);
	expect_next(100, 570, 6);
	while (dirty_next(dirty, 100, &gpa, &pages))
		cr_assert_lt(gpa, 576 * PAGE);
}

Test(dirty, all_of_ram_is_not_the_rom)
{
	dirty_mark_ram(dirty);
	cr_assert_eq(dirty_collect(dirty), 320);
}

Test(dirty, a_file_is_read_where_it_was_used)
{
	memset(gmem_host(gmem, 130 * PAGE, 2 * PAGE, true), 1, 2 * PAGE);
	memset(gmem_host(gmem, 255 * PAGE, 1, true), 1, 1);
	dirty_mark_used(dirty);
	cr_assert_eq(dirty_collect(dirty), 128 + 3 + 64);
	expect_next(1000, 0, 128);
	expect_next(1000, 130, 2);
	expect_next(1000, 255, 1);
	expect_next(1000, 512, 64);
	expect_end();
}

Test(dirty, what_is_put_back_comes_again)
{
	mark(10 * PAGE, 10 * PAGE);
	dirty_collect(dirty);
	expect_next(100, 10, 10);
	dirty_put_back(dirty, 15 * PAGE, 5);
	expect_next(100, 15, 5);
	expect_end();
}

Test(dirty, what_was_not_sent_stays_in_the_next_round)
{
	mark(10 * PAGE, PAGE);
	dirty_collect(dirty);
	mark(20 * PAGE, PAGE);
	cr_assert_eq(dirty_collect(dirty), 2);
}

/* Writers mark each page once in a round, while marks are taken: each is found in that round. */
enum { WRITERS = 4, ROUNDS = 1000, MARKED = 128 };
static pthread_barrier_t gate;
static _Atomic unsigned int done;

static void *mark_in_rounds(void *opaque)
{
	for (unsigned int n = 0; n < ROUNDS; n++) {
		pthread_barrier_wait(&gate);
		for (uint64_t page = (uint64_t)opaque; page < MARKED; page += WRITERS)
			mark(page * PAGE, PAGE);
		atomic_fetch_add(&done, 1);
	}
	return NULL;
}

static unsigned int take_round(unsigned int n)
{
	bool seen[MARKED] = {false}, last;
	unsigned int count = 0;
	uint64_t gpa, pages;

	pthread_barrier_wait(&gate);
	do {
		last = atomic_load(&done) == WRITERS * (n + 1);
		dirty_collect(dirty);
		while (dirty_next(dirty, 1, &gpa, &pages))
			seen[gpa / PAGE % MARKED] = true;
	} while (!last);
	for (unsigned int i = 0; i < MARKED; i++)
		count += seen[i];
	return count;
}

Test(dirty, marks_of_many_threads_are_lost_by_none)
{
	pthread_t thread[WRITERS];

	pthread_barrier_init(&gate, NULL, WRITERS + 1);
	for (size_t i = 0; i < WRITERS; i++)
		cr_assert_eq(pthread_create(&thread[i], NULL, mark_in_rounds, (void *)i), 0);
	for (unsigned int n = 0; n < ROUNDS; n++)
		cr_assert_eq(take_round(n), MARKED, "round %u", n);
	for (size_t i = 0; i < WRITERS; i++)
		pthread_join(thread[i], NULL);
	pthread_barrier_destroy(&gate);
}
