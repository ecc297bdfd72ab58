/* SPDX-License-Identifier: Apache-2.0 */
/* Budgets of time: full at the start, spent, filled again. */
#include <criterion/criterion.h>

#include "base/clock.h"

enum { COST = 100, BURST = 300 };

Test(budget, is_full_at_first_and_lasts_for_a_burst)
{
	struct budget b = {0};

	for (unsigned int i = 0; i < 3; i++)
		cr_expect(budget_take(&b, 5000, COST, BURST));
	cr_expect_not(budget_take(&b, 5000, COST, BURST));
}

Test(budget, fills_with_time)
{
	struct budget b = {0};

	while (budget_take(&b, 5000, COST, BURST))
		;
	cr_expect_not(budget_take(&b, 5099, COST, BURST));
	cr_expect(budget_take(&b, 5100, COST, BURST));
	cr_expect_not(budget_take(&b, 5100, COST, BURST));
	/* but not past what it holds */
	for (unsigned int i = 0; i < 3; i++)
		cr_expect(budget_take(&b, 900000, COST, BURST));
	cr_expect_not(budget_take(&b, 900000, COST, BURST));
}

Test(budget, a_refusal_costs_nothing)
{
	struct budget b = {0};

	while (budget_take(&b, 5000, COST, BURST))
		;
	for (unsigned int i = 0; i < 100; i++)
		budget_take(&b, 5000, COST, BURST);
	cr_expect(budget_take(&b, 5100, COST, BURST));
}

Test(budget, what_is_spent_beyond_it_is_waited_for)
{
	struct budget b = {0};

	cr_expect_eq(budget_spend(&b, 5000, BURST, BURST), 0u);
	cr_expect_eq(budget_spend(&b, 5000, COST, BURST), (uint64_t)COST);
	cr_expect_eq(budget_spend(&b, 5050, COST, BURST), 2 * (uint64_t)COST - 50);
	cr_expect_eq(budget_spend(&b, 5400, 0, BURST), 0u, "after the wait nothing is owed");
}
