// SPDX-License-Identifier: Apache-2.0
// The table of mappings, compared with an array of pages.
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "base/num.h"
#include "iommu/mappings.h"

static struct mappings m;

static void setup(void)
{
	mappings_init(&m);
}

static void teardown(void)
{
	mappings_done(&m);
}

TestSuite(mappings, .init = setup, .fini = teardown);

Test(mappings, an_overlap_is_refused)
{
	struct mapping *a, *b;

	cr_assert_eq(mappings_insert(&m, 100, 199, &a), 0);
	cr_assert_eq(mappings_insert(&m, 199, 300, &b), -EEXIST);
	cr_assert_eq(mappings_insert(&m, 0, 100, &b), -EEXIST);
	cr_assert_eq(mappings_insert(&m, 120, 130, &b), -EEXIST);
	cr_assert_eq(mappings_insert(&m, 0, UINT64_MAX, &b), -EEXIST);
	cr_assert_eq(mappings_insert(&m, 200, 299, &b), 0);
	cr_assert_eq(mappings_insert(&m, 0, 99, &b), 0);
	cr_assert_eq(m.count, 3);
	cr_assert_eq(m.bytes, 300);
}

Test(mappings, the_ends_of_the_address_space_are_places_like_others)
{
	struct mapping *a, *b;

	cr_assert_eq(mappings_insert(&m, UINT64_MAX - 4095, UINT64_MAX, &a), 0);
	cr_assert_eq(mappings_insert(&m, 0, 4095, &b), 0);
	cr_assert_eq(mappings_find(&m, 0, 0), b);
	cr_assert_eq(mappings_find(&m, UINT64_MAX, UINT64_MAX), a);
	cr_assert_null(mappings_find(&m, 4096, UINT64_MAX - 4096));
	mappings_remove(&m, a);
	cr_assert_null(mappings_find(&m, 4096, UINT64_MAX));
}

Test(mappings, find_gives_the_lowest)
{
	struct mapping *a, *b;

	cr_assert_eq(mappings_insert(&m, 500, 599, &b), 0);
	cr_assert_eq(mappings_insert(&m, 100, 199, &a), 0);
	cr_assert_eq(mappings_find(&m, 0, 1000), a);
	cr_assert_eq(mappings_find(&m, 199, 1000), a);
	cr_assert_eq(mappings_find(&m, 200, 1000), b);
	cr_assert_null(mappings_find(&m, 200, 499));
	cr_assert_null(mappings_find(&m, 600, UINT64_MAX));
}

static uint32_t random_state = 12345;

static uint32_t next_random(void)
{
	random_state = random_state * 1664525 + 1013904223;
	return random_state >> 8;
}

enum { PAGES = 2048 };

/* Does [first, last] cut a mapping of the array? */
static bool is_cut(struct mapping *const *model, uint64_t first, uint64_t last)
{
	return (model[first] && model[first]->iova < first) ||
	       (model[last] && model[last]->last > last);
}

static void check_tree(const struct mapping *node, const struct mapping *parent)
{
	if (!node)
		return;
	cr_assert_eq(node->parent, parent);
	cr_assert(!parent || parent->priority >= node->priority, "a heap by priority");
	cr_assert(!node->left || node->left->last < node->iova);
	cr_assert(!node->right || node->right->iova > node->last);
	check_tree(node->left, node);
	check_tree(node->right, node);
}

/* Does the table agree with the array: at each page, in order, and at the ends of a range? */
static void compare(struct mapping *const *model)
{
	const struct mapping *in_order = mappings_find(&m, 0, UINT64_MAX);
	uint64_t count = 0, bytes = 0;

	check_tree(m.root, NULL);
	for (uint64_t page = 0; page < PAGES; page++) {
		uint64_t last = MIN(page + next_random() % 20, (uint64_t)PAGES - 1);

		cr_assert_eq(mappings_cut(&m, page, last), is_cut(model, page, last));
		if (!model[page] || model[page]->iova != page)
			continue;
		cr_assert_eq(in_order, model[page], "page %llu", (unsigned long long)page);
		in_order = mappings_next(in_order, UINT64_MAX);
	}
	cr_assert_null(in_order);

	for (uint64_t page = 0; page < PAGES; page++) {
		cr_assert_eq(mappings_find(&m, page, page), model[page], "page %llu",
			     (unsigned long long)page);
		if (model[page]) {
			bytes++;
			count += model[page]->iova == page;
		}
	}
	cr_assert_eq(m.count, count);
	cr_assert_eq(m.bytes, bytes);
}

Test(mappings, many_in_random_order_are_what_a_plain_array_says)
{
	static struct mapping *model[PAGES];

	for (unsigned int step = 0; step < 20000; step++) {
		uint64_t at = next_random() % PAGES;
		uint64_t last = MIN(at + next_random() % 8, (uint64_t)PAGES - 1);
		struct mapping *mapping = model[at];
		bool taken = false;

		if (mapping && next_random() % 2) {
			for (uint64_t i = mapping->iova, end = mapping->last; i <= end; i++)
				model[i] = NULL;
			mappings_remove(&m, mapping);
			continue;
		}
		for (uint64_t i = at; i <= last; i++)
			taken |= model[i] != NULL;
		cr_assert_eq(mappings_insert(&m, at, last, &mapping), taken ? -EEXIST : 0);
		for (uint64_t i = at; i <= last && !taken; i++)
			model[i] = mapping;
		/* Around the newest, where a look-up begins. */
		for (uint64_t i = at - MIN(at, (uint64_t)3); i < MIN(at + 12, (uint64_t)PAGES); i++)
			cr_assert_eq(mappings_find(&m, i, i), model[i]);
		if (step % 1000 == 0)
			compare(model);
	}
	compare(model);
	mappings_clear(&m);
	memset(model, 0, sizeof(model));
	compare(model);
}

static unsigned int depth(const struct mapping *node)
{
	return node ? 1 + MAX(depth(node->left), depth(node->right)) : 0;
}

Test(mappings, ascending_addresses_do_not_make_it_deep)
{
	struct mapping *mapping;

	for (uint64_t i = 0; i < 100000; i++)
		cr_assert_eq(mappings_insert(&m, i * 2, i * 2, &mapping), 0);
	/* 17 at best; a tree without priorities would have 100000. */
	cr_assert_lt(depth(m.root), 80);
}
