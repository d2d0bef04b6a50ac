/* Seven threads that have 200 KiB of stack each, and never enter the kernel. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { KIB = 1 << 10, THREADS = 7, STACK = 200 * KIB };

static atomic_int ready;

static void *spin(void *nothing)
{
	char buffer[STACK];

	memset(buffer, 1, sizeof(buffer));
	atomic_fetch_add(&ready, 1);
	for (;;)
		*(volatile char *)buffer = 1;
	return nothing;
}

int main(void)
{
	pthread_t thread;

	for (int number = 0; number < THREADS; number++)
		pthread_create(&thread, NULL, spin, NULL);
	while (atomic_load(&ready) < THREADS)
		;
	puts("ready");
	fflush(stdout);
	getchar();
	return 0;
}
