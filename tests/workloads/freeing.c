/*
 * Takes memory in `borrow`, gives it back in one of several ways, and takes other memory in `keep`:
 * `freeing WAY BYTES BYTES`. Prints "ready", waits for a line on its standard input, prints "ready"
 * again, and ends with its input. WAY is
 *
 *   munmap, madvise, brk, fixed   the system call, or a new mapping at the same place
 *   shrunk      all but a page is given back by mremap(2)
 *   moved       mremap(2) moves the memory, and nothing of it is given back; what `keep` takes at
 *               the old place is
 *   moved_away  the memory is moved, and given back at its new place
 *   beside      a thread frees the first size, on a CPU whose time another thread takes; meanwhile
 *               `keep` takes the second one
 *   rounds      both sizes are taken, and the first one is given back by munmap(2), 200 times;
 *               up to seven sixteenths of the first one are left out, by turns
 */

#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096L
#define FRAME __attribute__((noinline, noclone))
#define IS(name) (!strcmp(way, name))

FRAME void borrow(volatile char *memory, long bytes)
{
	for (long at = 0; at < bytes; at += PAGE)
		memory[at] = 1;
}

FRAME void keep(volatile char *memory, long bytes)
{
	for (long at = 0; at < bytes; at += PAGE)
		memory[at] = 2;
}

static char *map(char *place, long bytes)
{
	int fixed = place ? MAP_FIXED : 0;

	return mmap(place, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | fixed, -1,
		    0);
}

/* Move memory, at whose end another mapping begins. Return its new place. */
static char *moved(char *memory, long bytes)
{
	return mremap(memory, bytes, 2 * bytes, MREMAP_MAYMOVE);
}

static void rounds(long bytes, long kept)
{
	for (int round = 0; round < 200; round++) {
		long given_back = bytes - round % 8 * (bytes / 16);
		char *memory = map(NULL, given_back + kept);

		borrow(memory, given_back);
		keep(memory + given_back, kept);
		munmap(memory, given_back);
		usleep(2000);
	}
}

struct freeing {
	char *memory;
	long bytes;
	atomic_int is_over;
};

static void run_on(int cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
}

static long now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void *free_idly(void *of)
{
	struct sched_param none = {0};
	struct freeing *freeing = of;

	run_on(0);
	sched_setscheduler(0, SCHED_IDLE, &none);
	madvise(freeing->memory, freeing->bytes, MADV_DONTNEED);
	freeing->is_over = 1;
	return NULL;
}

/* Leave 50 us of each 2 ms of the CPU. */
static void *take_time(void *of)
{
	struct freeing *freeing = of;

	run_on(0);
	while (!freeing->is_over) {
		for (long end = now_us() + 2000; now_us() < end;)
			;
		usleep(50);
	}
	return NULL;
}

static void free_beside(long bytes, long kept)
{
	struct freeing freeing = {.memory = map(NULL, bytes), .bytes = bytes};
	char *memory = map(NULL, kept);
	pthread_t threads[2];
	long at = 0;

	run_on(1);
	borrow(freeing.memory, bytes);
	pthread_create(&threads[0], NULL, take_time, &freeing);
	pthread_create(&threads[1], NULL, free_idly, &freeing);
	for (; at < kept && !freeing.is_over; at += 32 * PAGE) {
		keep(memory + at, 32 * PAGE);
		usleep(200);
	}
	keep(memory + at, kept - at);
	for (int thread = 0; thread < 2; thread++)
		pthread_join(threads[thread], NULL);
}

static void work(const char *way, long bytes, long kept)
{
	char *memory = IS("brk") ? sbrk(bytes) : map(NULL, bytes + PAGE);

	if (!IS("brk"))
		mprotect(memory + bytes, PAGE, PROT_NONE);
	borrow(memory, bytes);
	if (IS("munmap"))
		munmap(memory, bytes);
	else if (IS("madvise"))
		madvise(memory, bytes, MADV_DONTNEED);
	else if (IS("brk"))
		sbrk(-bytes);
	else if (IS("fixed"))
		map(memory, bytes);
	else if (IS("shrunk"))
		mremap(memory, bytes, PAGE, 0);
	else if (IS("moved_away"))
		munmap(moved(memory, bytes), 2 * bytes);
	else if (IS("moved") && moved(memory, bytes) != memory) {
		keep(map(memory, bytes), bytes);
		munmap(memory, bytes);
		return;
	}
	keep(map(NULL, kept), kept);
}

int main(int argc, char **argv)
{
	if (argc != 4 || prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0))
		return 1;
	puts("ready");
	fflush(stdout);
	if (getchar() == EOF)
		return 0;
	if (!strcmp(argv[1], "rounds"))
		rounds(atol(argv[2]), atol(argv[3]));
	else if (!strcmp(argv[1], "beside"))
		free_beside(atol(argv[2]), atol(argv[3]));
	else
		work(argv[1], atol(argv[2]), atol(argv[3]));
	puts("ready");
	fflush(stdout);
	while (getchar() != EOF)
		;
	return 0;
}
