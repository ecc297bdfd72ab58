// SPDX-License-Identifier: Apache-2.0
// The table of mappings: a treap over nodes from chunks.
#include "iommu/mappings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "base/rand.h"

enum { CHUNK_NODES = 64 };

struct mapping_chunk {
	struct mapping_chunk *next;
	struct mapping nodes[CHUNK_NODES];
};

void mappings_init(struct mappings *m)
{
	memset(m, 0, sizeof(*m));
	/* Without randomness it is still a tree that works, only a guest could make it deep. */
	if (rand_bytes(&m->random, sizeof(m->random)) || !m->random)
		m->random = 0x9e3779b97f4a7c15;
}

void mappings_done(struct mappings *m)
{
	while (m->chunks) {
		struct mapping_chunk *chunk = m->chunks;

		m->chunks = chunk->next;
		free(chunk);
	}
	m->root = m->free = NULL;
}

/* xorshift64*: Marsaglia, "Xorshift RNGs", 2003. */
static uint32_t next_priority(struct mappings *m)
{
	m->random ^= m->random >> 12;
	m->random ^= m->random << 25;
	m->random ^= m->random >> 27;
	return (uint32_t)((m->random * 0x2545f4914f6cdd1d) >> 32);
}

static struct mapping *node_get(struct mappings *m)
{
	struct mapping *node = m->free;
	struct mapping_chunk *chunk;

	if (!node) {
		chunk = malloc(sizeof(*chunk));
		if (!chunk)
			return NULL;
		chunk->next = m->chunks;
		m->chunks = chunk;
		for (unsigned int i = 0; i < CHUNK_NODES; i++) {
			chunk->nodes[i].right = m->free;
			m->free = &chunk->nodes[i];
		}
		node = m->free;
	}
	m->free = node->right;
	memset(node, 0, sizeof(*node));
	return node;
}

static void node_put(struct mappings *m, struct mapping *node)
{
	node->right = m->free;
	m->free = node;
}

/* All of a lies below all of b. */
static struct mapping *merge(struct mapping *a, struct mapping *b)
{
	if (!a || !b)
		return a ? a : b;
	if (a->priority > b->priority) {
		a->right = merge(a->right, b);
		return a;
	}
	b->left = merge(a, b->left);
	return b;
}

/* What lies below iova, and the rest. */
static void split(struct mapping *tree, uint64_t iova, struct mapping **below,
		  struct mapping **rest)
{
	if (!tree) {
		*below = *rest = NULL;
	} else if (tree->iova < iova) {
		*below = tree;
		split(tree->right, iova, &tree->right, rest);
	} else {
		*rest = tree;
		split(tree->left, iova, below, &tree->left);
	}
}

struct mapping *mappings_find(const struct mappings *m, uint64_t first, uint64_t last)
{
	struct mapping *node = m->root, *found = NULL;

	/* Without overlaps the order of ends is that of beginnings. */
	while (node) {
		if (node->last >= first) {
			found = node;
			node = node->left;
		} else {
			node = node->right;
		}
	}
	return found && found->iova <= last ? found : NULL;
}

bool mappings_cut(const struct mappings *m, uint64_t first, uint64_t last)
{
	const struct mapping *low = mappings_find(m, first, last), *high;

	if (!low || low->iova < first)
		return low != NULL;
	if (low->last >= last)
		return low->last > last;
	high = mappings_find(m, last, last);
	return high && high->last > last;
}

int mappings_insert(struct mappings *m, uint64_t iova, uint64_t last, struct mapping **ret)
{
	struct mapping **link = &m->root, *before = NULL, *next = NULL, *node;
	uint32_t priority = next_priority(m);

	assert(iova <= last);
	for (struct mapping *at = m->root, **child; at; at = *child) {
		if (last < at->iova) {
			next = at;
			child = &at->left;
		} else if (iova > at->last) {
			before = at;
			child = &at->right;
		} else {
			return -EEXIST;
		}
		if (at->priority > priority) /* a heap: further down */
			link = child;
	}
	node = node_get(m);
	if (!node)
		return -ENOMEM;
	node->iova = iova;
	node->last = last;
	node->priority = priority;
	/* What was there is cut in two, which become its children. */
	split(*link, iova, &node->left, &node->right);
	*link = node;
	node->before = before;
	node->next = next;
	if (before)
		before->next = node;
	if (next)
		next->before = node;
	m->count++;
	m->bytes += last - iova + 1;
	*ret = node;
	return 0;
}

void mappings_remove(struct mappings *m, struct mapping *mapping)
{
	struct mapping **link = &m->root;

	while (*link != mapping) {
		assert(*link);
		link = mapping->iova < (*link)->iova ? &(*link)->left : &(*link)->right;
	}
	*link = merge(mapping->left, mapping->right);
	if (mapping->before)
		mapping->before->next = mapping->next;
	if (mapping->next)
		mapping->next->before = mapping->before;
	m->count--;
	m->bytes -= mapping->last - mapping->iova + 1;
	node_put(m, mapping);
}

void mappings_clear(struct mappings *m)
{
	while (m->root)
		mappings_remove(m, m->root);
}
