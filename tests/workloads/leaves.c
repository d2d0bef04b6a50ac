/*
 * Fills 70 % of its new memory in parse_rows and 30 % in build_index, by memset() from the C
 * library, which keeps no frame: `leaves BYTES [threads|forks NUMBER]`. Each of so many threads or
 * children fills its part of BYTES. Prints "ready", waits for a line on its standard input, prints
 * "ready" again, and ends with its input. `load` has more local variables than half of the stack
 * that the tracer copies.
 */

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define PIECE (1L << 20)
#define KEEP(pointer) __asm__ volatile("" : : "r"(pointer) : "memory")
#define FRAME __attribute__((noinline, noclone))

FRAME void parse_rows(long bytes)
{
	char *memory = malloc(bytes);

	memset(memory, 1, bytes); /* 70% here */
	KEEP(memory);
}

FRAME void build_index(long bytes)
{
	char *memory = malloc(bytes);

	memset(memory, 2, bytes); /* 30% here */
	KEEP(memory);
}

FRAME void load(long bytes)
{
	char line[9000];

	memset(line, 3, sizeof(line));
	KEEP(line);
	for (; bytes >= 10 * PIECE; bytes -= 10 * PIECE) {
		for (int piece = 0; piece < 7; piece++)
			parse_rows(PIECE); /* calls for 70% */
		for (int piece = 0; piece < 3; piece++)
			build_index(PIECE); /* calls for 30% */
	}
	KEEP(line);
}

static void *thread(void *bytes)
{
	load((long)bytes);
	return NULL;
}

static void load_in_threads(long bytes, int number)
{
	pthread_t threads[64];

	for (int one = 0; one < number; one++)
		pthread_create(&threads[one], NULL, thread, (void *)(bytes / number));
	for (int one = 0; one < number; one++)
		pthread_join(threads[one], NULL);
}

/* Each child keeps its memory until its parent ends. */
static void load_in_children(long bytes, int number)
{
	int loaded[2];
	char one_byte;

	if (pipe(loaded))
		exit(1);
	for (int one = 0; one < number; one++) {
		if (fork())
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
		load(bytes / number);
		if (write(loaded[1], "", 1) != 1)
			_exit(1);
		pause();
	}
	for (int one = 0; one < number; one++)
		if (read(loaded[0], &one_byte, 1) != 1)
			exit(1);
}

int main(int argc, char **argv)
{
	long bytes = atol(argv[1]);

	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0); /* a huge page would belong to two pieces */
	puts("ready");
	fflush(stdout);
	getchar();
	if (argc < 4)
		load(bytes);
	else if (*argv[2] == 't')
		load_in_threads(bytes, atoi(argv[3]));
	else
		load_in_children(bytes, atoi(argv[3]));
	puts("ready");
	fflush(stdout);
	return getchar() == EOF;
}
