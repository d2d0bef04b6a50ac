/*
 * Charges a known amount in code that lies in no file, as a just-in-time compiler's does. `jit BYTES` runs a copy of
 * `grow` and names it in its perf map. Prints "ready" before and after that, and waits for a line each time.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CODE_BYTES 4096
#define COPIED_BYTES 512

/* Position-independent: it calls nothing and has no static data. */
__attribute__((noinline, aligned(CODE_BYTES))) void grow(volatile char *memory, long bytes)
{
	for (long offset = 0; offset < bytes; offset += 4096)
		memory[offset] = 1;
}

static void await(void)
{
	puts("ready");
	fflush(stdout);
	if (getchar() == EOF)
		exit(0);
}

int main(int argc, char **argv)
{
	long bytes = atol(argv[1]);
	char path[64];
	void *code = mmap(NULL, CODE_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void (*made)(volatile char *, long) = code;

	memcpy(code, (void *)grow, COPIED_BYTES);
	__builtin___clear_cache(code, (char *)code + CODE_BYTES);
	madvise(memory, bytes, MADV_NOHUGEPAGE);
	snprintf(path, sizeof(path), "/tmp/perf-%d.map", getpid());
	FILE *map = fopen(path, "wx");
	fprintf(map, "%lx %x JS:*grow made.js:1:1\n", (unsigned long)code, CODE_BYTES);
	fclose(map);
	await();
	made(memory, bytes);
	await();
	return argc - 2;
}
