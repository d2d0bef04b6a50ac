/*
 * Needs a known amount of memory: `needing MIB` touches as many MiB of new memory, reads them
 * again, and ends with status 0.
 */

#include <stdlib.h>
#include <sys/mman.h>

#define PAGE 4096

int main(int argc, char **argv)
{
	long bytes = argc > 1 ? atol(argv[1]) << 20 : 0, sum = 0;
	char *memory =
		mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return 2;
	madvise(memory, bytes, MADV_NOHUGEPAGE);
	for (long at = 0; at < bytes; at += PAGE)
		memory[at] = 1;
	for (long at = 0; at < bytes; at += PAGE)
		sum += memory[at];
	return sum != bytes / PAGE;
}
