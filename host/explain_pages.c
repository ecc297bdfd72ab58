// SPDX-License-Identifier: Apache-2.0
// Preflight: does this host give huge pages to memory that asks for them (madvise), as the guest's
// does? Two settings say so for each sort of memory: one for pages of 2 MiB, which may refer to the
// other, for all sizes (Documentation/admin-guide/mm/transhuge.rst).
#include <stdio.h>
#include <string.h>

#include "host/explain_impl.h"

/* The word in brackets of "always [madvise] never"; "" when the file cannot be read. */
static void chosen(const char *path, char word[EXPLAIN_WORD_BYTES])
{
	char line[96];

	explain_line(path, line, sizeof(line));
	if (sscanf(line, "%*[^[][%15[^]]", word) != 1 && sscanf(line, "[%15[^]]", word) != 1)
		word[0] = '\0';
}

bool explain_pages_forbidden(const char *dir, bool shared, char path[EXPLAIN_PATH_BYTES],
			     char word[EXPLAIN_WORD_BYTES])
{
	const char *file = shared ? "shmem_enabled" : "enabled";

	snprintf(path, EXPLAIN_PATH_BYTES, "%s/%s", dir, file);
	chosen(path, word);
	if (strcmp(word, "deny") == 0)
		return true;
	snprintf(path, EXPLAIN_PATH_BYTES, "%s/hugepages-2048kB/%s", dir, file);
	chosen(path, word);
	if (!word[0] || strcmp(word, "inherit") == 0) {
		snprintf(path, EXPLAIN_PATH_BYTES, "%s/%s", dir, file);
		chosen(path, word);
	}
	return strcmp(word, "never") == 0;
}

void explain_pages(struct explain_ctx *x)
{
	bool shared = x->request->backing == GMEM_MEMFD;
	char path[EXPLAIN_PATH_BYTES], word[EXPLAIN_WORD_BYTES];

	if (!shared && x->request->backing != GMEM_AUTO && x->request->backing != GMEM_ANONYMOUS)
		return;
	if (!explain_pages_forbidden("/sys/kernel/mm/transparent_hugepage", shared, path, word))
		return;
	explain_add(x, EXPLAIN_WARNING, "pages",
		    "the guest's memory%s is in pages of 4 KiB, which take longer to pin and to "
		    "map: %s is '%s'",
		    shared ? ", a memfd," : "", path, word);
	explain_remedy(x, "echo %s > %s, or --memory SIZE,backing=hugetlb-2M",
		       shared ? "advise" : "madvise", path);
}
