/*
 * Fills 70 % of its new memory in parse_rows and 30 % in build_index, by memset() from the C
 * library, which keeps no frame: `leaves BYTES`. Prints "ready", waits for a line on its standard
 * input, and prints "ready" again. `load` has more local variables than half of the stack that the
 * tracer copies.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#define PIECE (1L << 20)
#define KEEP(pointer) __asm__ volatile("" : : "r"(pointer) : "memory")
#define FRAME __attribute__((noinline, noclone))

FRAME void parse_rows(long bytes)
{
	char *memory = malloc(bytes);

	memset(memory, 1, bytes);
	KEEP(memory);
}

FRAME void build_index(long bytes)
{
	char *memory = malloc(bytes);

	memset(memory, 2, bytes);
	KEEP(memory);
}

FRAME void load(long bytes)
{
	char line[9000];

	memset(line, 3, sizeof(line));
	KEEP(line);
	for (; bytes >= 10 * PIECE; bytes -= 10 * PIECE) {
		for (int piece = 0; piece < 7; piece++)
			parse_rows(PIECE);
		for (int piece = 0; piece < 3; piece++)
			build_index(PIECE);
	}
	KEEP(line);
}

int main(int argc, char **argv)
{
	(void)argc;
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0); /* a huge page would belong to two pieces */
	puts("ready");
	fflush(stdout);
	getchar();
	load(atol(argv[1]));
	puts("ready");
	fflush(stdout);
	return getchar() == EOF;
}
