/*
 * Fills 70 % of its new memory in parse_rows and 30 % in build_index, which is compiled into its
 * caller, both by way of std::vector: `parts BYTES`. Prints "ready", waits for a line on its
 * standard input, prints "ready" again, and ends with its input.
 */

#include <cstdio>
#include <cstdlib>
#include <vector>

namespace store
{

static const long piece = 1L << 20;

struct Rows {
	std::vector<std::vector<char>> kept;

	__attribute__((noinline)) void parse_rows(long bytes)
	{
		kept.emplace_back(bytes, 1); /* 70% here */
	}

	__attribute__((always_inline)) void build_index(long bytes)
	{
		kept.emplace_back(bytes, 2); /* 30% here */
	}

	__attribute__((noinline)) void load(long bytes)
	{
		for (; bytes >= 10 * piece; bytes -= 10 * piece) {
			for (int one = 0; one < 7; one++)
				parse_rows(piece); /* calls for 70% */
			for (int one = 0; one < 3; one++)
				build_index(piece); /* calls for 30% */
		}
	}
};

}

int main(int, char **argv)
{
	store::Rows rows;

	rows.kept.reserve(1 << 10);
	puts("ready");
	fflush(stdout);
	getchar();
	rows.load(atol(argv[1]));
	puts("ready");
	fflush(stdout);
	return getchar() == EOF;
}
