/*
 * A library with a function in assembly that no unwinding table describes, as memset() of musl, and
 * its caller.
 */

asm(".text\n"
    ".globl leaf\n"
    ".type leaf, @function\n"
    "leaf:\n"
    "	nop\n"
    "	mov %rdi, %rax\n"
    "	ret\n"
    ".size leaf, .-leaf\n");

extern long leaf(long given);

long caller(long given)
{
	return leaf(given) + 1;
}
