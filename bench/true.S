/* A `true` without libc: what is left of a spawn is the spawn itself. */
	.globl _start
	.text
_start:
#if defined(__x86_64__)
	xor %edi, %edi
	mov $231, %eax          /* exit_group */
	syscall
#elif defined(__aarch64__)
	mov x0, #0
	mov x8, #94             /* exit_group */
	svc #0
#else
#error "x86_64 and aarch64 only"
#endif
	.section .note.GNU-stack, "", %progbits
