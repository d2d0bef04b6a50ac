/*
 * `spawning ROUNDS BYTES CPU OTHER`: in each round, two children made by vfork() share this address space until they
 * execute: one on the other CPU, which uses a page of it, and one on the CPU of this process, which uses a page after
 * it. This process holds little and does not grow in the first ROUNDS; in ROUNDS more it also touches BYTES of new
 * memory in each. Prints "ready" before and after, and waits for a line on its standard input.
 */

#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
#define HELD_PAGES 20

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

static void run_child(int cpu, int uses_page)
{
	pid_t child = vfork();

	if (child == 0) {
		move_to(cpu);
		if (uses_page)
			use_page();
		execl("/bin/true", "true", NULL);
		_exit(1);
	}
	waitpid(child, NULL, 0);
}

static void take_rounds(long rounds, long bytes, int cpu, int other)
{
	for (long round = 0; round < rounds; round++) {
		touch(bytes);
		run_child(other, 1);
		run_child(cpu, 0);
		use_page();
	}
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
	if (argc != 5)
		return 1;

	long rounds = atol(argv[1]), bytes = atol(argv[2]), most = (HELD_PAGES + 1) * PAGE + rounds * bytes;
	int cpu = atoi(argv[3]), other = atoi(argv[4]);

	move_to(cpu);
	used = mmap(NULL, most, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	madvise(used, most, MADV_NOHUGEPAGE);
	memory = used + PAGE;
	await_line();
	touch(HELD_PAGES * PAGE);
	take_rounds(rounds, 0, cpu, other);
	take_rounds(rounds, bytes, cpu, other);
	await_line();
	return 0;
}
