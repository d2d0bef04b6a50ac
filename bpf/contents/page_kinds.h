/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What kind of page it is, by words of struct page, on each kernel.
 */
#ifndef MEMCG_TRACER_PAGE_KINDS_H
#define MEMCG_TRACER_PAGE_KINDS_H

/*
 * Return whether a page that has no owner begins a free block, of 2^private pages. The kinds of
 * pages have a number each since 4ffca5a96678 ("mm: support only one page_type per page"), v6.12,
 * and were bits before, which are cleared. On kernels between them a block is taken page by page.
 */
static __always_inline bool is_free_block(u32 type)
{
#ifdef KERNEL_ENUM_PGTY_buddy
	return type >> 24 == KERNEL_ENUM_PGTY_buddy;
#else
	return (type & 0xf0000080) == 0xf0000000; /* PAGE_TYPE_BASE, PG_buddy */
#endif
}

static __always_inline bool has_type(u32 type, u32 wanted)
{
	return wanted && type >> 24 == wanted;
}

#ifdef KERNEL_ENUM_PGTY_hugetlb
#define TYPE_HUGETLB KERNEL_ENUM_PGTY_hugetlb
#else
#define TYPE_HUGETLB 0 /* only cgroup v2 with memory_hugetlb_accounting charges such pages */
#endif

#ifdef KERNEL_ENUM_PGTY_large_kmalloc
#define TYPE_LARGE_KMALLOC KERNEL_ENUM_PGTY_large_kmalloc
#else
#define TYPE_LARGE_KMALLOC 0 /* cannot be recognised: they count as other memory of the kernel */
#endif

#define MOST_FREE_ORDER 12
#define MOST_FOLIO_ORDER 18 /* a huge page of 1 GiB */
#define MAPPING_ANON 1 /* PAGE_MAPPING_ANON in include/linux/page-flags.h */
#define MAPPING_FLAGS 3

struct page_words {
	u64 flags;
	u64 head; /* bit 0: the page is a tail of a folio (compound_head) */
};

#endif
