/*
 * `spawning ROUNDS BYTES CPU CHILD_CPU...`: in each round, this process touches BYTES of new memory, uses and frees a
 * page some times, and makes a child by vfork() on each CHILD_CPU, which uses and frees a page of the memory that they
 * share, and executes a program. Prints "ready" before and after, and waits for a line on its standard input.
 */

#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
#define USES 32

static char *memory, *used;

static void touch(long bytes)
{
	for (; bytes > 0; bytes -= PAGE, memory += PAGE)
		*(volatile char *)memory = 1;
}

static void use_page(void)
{
	*(volatile char *)used = 1;
	madvise(used, PAGE, MADV_DONTNEED);
}

static void move_to(int cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		_exit(1);
}

static void run_child(int cpu)
{
	pid_t child = vfork();

	if (child == 0) {
		move_to(cpu);
		use_page();
		execl("/bin/true", "true", NULL);
		_exit(1);
	}
	waitpid(child, NULL, 0);
}

static void await_line(void)
{
	puts("ready");
	fflush(stdout);
	if (getchar() == EOF)
		exit(0);
}

int main(int argc, char **argv)
{
	if (argc < 5)
		return 1;

	long rounds = atol(argv[1]), bytes = atol(argv[2]), most = PAGE + rounds * bytes;

	move_to(atoi(argv[3]));
	used = mmap(NULL, most, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	madvise(used, most, MADV_NOHUGEPAGE);
	memory = used + PAGE;
	await_line();
	for (long round = 0; round < rounds; round++) {
		touch(bytes);
		for (int use = 0; use < USES; use++)
			use_page();
		for (int child = 4; child < argc; child++)
			run_child(atoi(argv[child]));
	}
	await_line();
	return 0;
}
