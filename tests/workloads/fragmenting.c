/* Leave free memory inside of malloc's heaps, print "ready", wait for a line, and grow by 24 MiB in
 * 4.8 s: the first fill may be looked at, and the recorder looks again a second later at the earliest.
 *
 * threads: 7 threads that all live have and free 5 MiB each, one after the other.
 * pieces: the first thread has 35 MiB, and frees 63 of 64 pieces of 16 KiB. `trim`: then malloc_trim(0).
 */
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { THREADS = 7, OF_THREAD = 5 << 20, OF_FIRST = 35 << 20, PIECE = 16 << 10, KEPT = 64 };

static pthread_mutex_t in_turn = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t all_done;
static void *kept[OF_FIRST / PIECE];

static void fill_and_free(void **pieces, int count, int kept_each)
{
	for (int at = 0; at < count; at++) {
		pieces[at] = malloc(PIECE);
		memset(pieces[at], 1, PIECE);
	}
	for (int at = 0; at < count; at++)
		if (at % kept_each && at != count - 1) {
			free(pieces[at]);
			pieces[at] = NULL;
		}
}

static void *turn(void *unused)
{
	void *pieces[OF_THREAD / PIECE];

	pthread_mutex_lock(&in_turn);
	fill_and_free(pieces, OF_THREAD / PIECE, OF_THREAD / PIECE);
	pthread_mutex_unlock(&in_turn);
	pthread_barrier_wait(&all_done);
	pthread_barrier_wait(&all_done);
	return unused;
}

int main(int argc, char **argv)
{
	pthread_t thread;

	setvbuf(stdin, NULL, _IONBF, 0); /* its buffer would be allocated after "ready", amid a look */
	if (!strcmp(argv[1], "threads")) {
		pthread_barrier_init(&all_done, NULL, THREADS + 1);
		for (int at = 0; at < THREADS; at++)
			pthread_create(&thread, NULL, turn, NULL);
		pthread_barrier_wait(&all_done);
	} else {
		fill_and_free(kept, OF_FIRST / PIECE, KEPT);
		if (argc > 2)
			malloc_trim(0);
	}
	puts("ready");
	fflush(stdout);
	if (getchar() == EOF)
		return 0;
	char *more = mmap(NULL, 24 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (int at = 0; at < 24 << 20; at += 1 << 18) {
		memset(more + at, 1, 1 << 18);
		nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
	}
	puts("grown");
	return 0;
}
