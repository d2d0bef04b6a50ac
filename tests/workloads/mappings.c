/* Memory of each kind of mapping, in uneven amounts, all touched: arguments SHARED PRIVATE, two new files.
 *
 * Heap 23 MiB; 37 threads with 300 KiB of stack each, five of which malloc 200 KiB; 9 MiB of the 11 MiB of
 * SHARED; copies of 7 MiB of the 13 MiB of PRIVATE; 15 MiB of the 17 MiB of an anonymous mapping; 5 MiB of
 * zeroed data. Then, after each line on standard input, 64 MiB more of heap. */
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { KIB = 1 << 10, MIB = 1 << 20, THREADS = 37, WITH_ARENA = 5, STACK = 300 * KIB, PIECE = 64 * KIB };

static char zeroed[5 * MIB];
static pthread_barrier_t all_hold;

static void touch(void *memory, size_t bytes)
{
	memset(memory, 1, bytes);
}

static void *hold(void *with_arena)
{
	char buffer[STACK];

	touch(buffer, sizeof(buffer));
	for (int piece = 0; with_arena && piece < 2; piece++) /* each below the threshold of mmap */
		touch(malloc(100 * KIB), 100 * KIB);
	pthread_barrier_wait(&all_hold);
	pause();
	return NULL;
}

static char *file_of(const char *path, size_t bytes, int flags)
{
	int fd = open(path, O_CREAT | O_EXCL | O_RDWR, 0600);

	if (fd < 0 || ftruncate(fd, bytes))
		exit(2);
	return mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
}

static void grow_heap(size_t bytes)
{
	for (size_t done = 0; done < bytes; done += PIECE)
		touch(malloc(PIECE - 16), PIECE - 16);
}

int main(int count, char **arguments)
{
	pthread_t thread;

	if (count != 3)
		return 1;
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0); /* a huge page is more than what was touched */
	mallopt(M_ARENA_MAX, 64); /* on any number of CPUs, a thread that allocates has an arena */
	pthread_barrier_init(&all_hold, NULL, THREADS + 1);
	for (long number = 0; number < THREADS; number++)
		pthread_create(&thread, NULL, hold, (void *)(long)(number < WITH_ARENA));
	pthread_barrier_wait(&all_hold);
	grow_heap(23 * MIB);
	touch(file_of(arguments[1], 11 * MIB, MAP_SHARED), 9 * MIB);
	touch(file_of(arguments[2], 13 * MIB, MAP_PRIVATE), 7 * MIB);
	touch(mmap(NULL, 17 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 15 * MIB);
	touch(zeroed, sizeof(zeroed));
	for (;;) {
		puts("ready");
		fflush(stdout);
		if (getchar() == EOF)
			return 0;
		grow_heap(64 * MIB);
	}
}
