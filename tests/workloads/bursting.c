/*
 * Fills its limit at once, without waiting for anybody: of each ten pages, seven are touched in one function and three
 * in another.
 */

#include <sys/mman.h>

#define PAGE 4096
#define FRAME __attribute__((noinline, noclone))

static volatile char *next;

FRAME void grow_most(void)
{
	for (int page = 0; page < 7; page++, next += PAGE)
		*next = 1;
}

FRAME void grow_least(void)
{
	for (int page = 0; page < 3; page++, next += PAGE)
		*next = 2;
}

int main(void)
{
	next = mmap(0, 1UL << 40, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	madvise((void *)next, 1UL << 40, MADV_NOHUGEPAGE);
	for (;;) {
		grow_most();
		grow_least();
	}
}
