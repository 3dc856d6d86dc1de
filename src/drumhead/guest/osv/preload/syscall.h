/* System calls without libc. The preload library may be loaded before libc, of which it uses only errno. */
#ifndef SYSCALL_H
#define SYSCALL_H

extern int *__errno_location(void);

static inline long call(long number, long a, long b, long c, long d, long e)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = 0;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

/* Convert a result as libc does: -1 and errno. */
static inline long libc_result(long result)
{
    if (result >= 0 || result < -4095) return result;
    *__errno_location() = (int)-result;
    return -1;
}

#endif
