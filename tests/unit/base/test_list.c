/* SPDX-License-Identifier: Apache-2.0 */
/* The intrusive list: order, removal, removal while walking. */
#include <criterion/criterion.h>

#include "base/list.h"

struct item {
	int value;
	struct list link;
};

static struct item items[4];
static struct list head;

static void fill(void)
{
	list_init(&head);
	for (int i = 0; i < 4; i++) {
		items[i].value = i;
		list_append(&head, &items[i].link);
	}
}

static int sum(void)
{
	int digits = 0;

	list_for_each (l, &head)
		digits = digits * 10 + container_of(l, struct item, link)->value + 1;
	return digits;
}

TestSuite(list, .init = fill);

Test(list, starts_empty)
{
	struct list none = LIST_INIT(none);

	cr_assert(list_empty(&none));
	cr_assert_null(list_pop(&none));
	list_for_each (l, &none)
		cr_assert_fail("an empty list has no element, but here is %p", (void *)l);
}

Test(list, append_keeps_order)
{
	cr_assert_eq(sum(), 1234);
}

Test(list, remove_unlinks_from_anywhere)
{
	list_remove(&items[1].link);
	cr_assert_eq(sum(), 134);
	list_remove(&items[0].link);
	cr_assert_eq(sum(), 34);
	list_remove(&items[3].link);
	cr_assert_eq(sum(), 3);
	list_remove(&items[2].link);
	cr_assert(list_empty(&head));
}

Test(list, a_second_removal_is_harmless)
{
	list_remove(&items[1].link);
	list_remove(&items[1].link);
	cr_assert_eq(sum(), 134);
	cr_assert(list_empty(&items[1].link));
}

Test(list, pop_takes_the_oldest)
{
	cr_assert_eq(list_pop(&head), &items[0].link);
	cr_assert_eq(sum(), 234);
}

Test(list, safe_walk_allows_removal_of_the_current_item)
{
	int seen = 0;

	list_for_each_safe (l, &head) {
		seen++;
		list_remove(l);
	}
	cr_assert_eq(seen, 4);
	cr_assert(list_empty(&head));
}

Test(list, a_popped_item_can_be_appended_again)
{
	struct list *first = list_pop(&head);

	list_append(&head, first);
	cr_assert_eq(sum(), 2341);
}
