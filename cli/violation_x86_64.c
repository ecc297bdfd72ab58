// SPDX-License-Identifier: Apache-2.0
// Where this architecture passes a system call's second argument. See violation.h.
#include <ucontext.h>

#include "violation.h"

unsigned long violation_request(const void *context)
{
	const ucontext_t *at = context;

	return (unsigned long)at->uc_mcontext.gregs[REG_RSI];
}
