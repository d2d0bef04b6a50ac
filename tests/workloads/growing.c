/*
 * Charges known amounts in two functions: `growing PHASE...`. A phase is `index=BYTES` or `table=BYTES`, in which that
 * function touches new memory page by page, or `turns=BYTES`, in which one page in `index` alternates with three pages
 * in `table`. Prints "ready" before each phase, and waits for a line on its standard input.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE 4096
#define REGION (2L << 20) /* the range that one page table maps */
#define TURNS 127
#define FRAME __attribute__((noinline, noclone))

static volatile char *next;

FRAME void grow_index(long bytes)
{
	for (; bytes > 0; bytes -= PAGE, next += PAGE)
		*next = 1;
}

FRAME void grow_table(long bytes)
{
	for (; bytes > 0; bytes -= PAGE, next += PAGE)
		*next = 2;
}

/*
 * Uses the same pages again and again, and frees them in between. One page table maps them all; the last page stays, so
 * that the page table stays, and nothing else is charged.
 */
FRAME void take_turns(char *memory, long bytes)
{
	memory = (char *)(((unsigned long)memory + REGION - 1) & -REGION);
	memory[REGION - PAGE] = 3;
	while (bytes > 0) {
		next = memory;
		for (int turn = 0; turn < TURNS; turn++) {
			grow_index(PAGE);
			grow_table(3 * PAGE);
		}
		madvise(memory, TURNS * 4 * PAGE, MADV_DONTNEED);
		bytes -= TURNS * 4 * PAGE;
	}
}

FRAME void grow(const char *phase)
{
	long bytes = atol(strchr(phase, '=') + 1);
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	madvise(memory, bytes, MADV_NOHUGEPAGE);
	next = memory;
	if (phase[0] == 'i')
		grow_index(bytes);
	else if (phase[1] == 'a')
		grow_table(bytes);
	else
		take_turns(memory, bytes);
}

int main(int argc, char **argv)
{
	for (int phase = 1; phase <= argc; phase++) {
		puts("ready");
		fflush(stdout);
		if (getchar() == EOF)
			return 0;
		if (phase < argc)
			grow(argv[phase]);
	}
	return 0;
}
