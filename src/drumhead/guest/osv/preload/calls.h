/* Calls for files, one after the other, and what OSv's ext4 does otherwise than Linux's.
 *
 * OSv's ext4 keeps two things for all threads without a lock that holds for a whole call: a buffer for the part of a
 * disk sector that a file's data begins or ends in (two threads that write at once can each get the other's bytes), and
 * its cache of inodes, directories and maps. A flush leaves out the blocks of that cache that any other call looks at
 * meanwhile, a stat too, and counts a block as written that is changed while it is; what fsync said was on the disk then
 * is not. So every call that reaches files is made under one lock.
 *
 * This library is put before libc in machines with a volume (ld.so --preload). It needs nothing but the system calls,
 * and errno of whatever libc there is; it makes the same calls as Debian's libc. What libc does inside itself (fopen,
 * realpath) and what is read from a mapped file goes past it.
 */
#ifndef CALLS_H
#define CALLS_H

#define HIDDEN __attribute__((visibility("hidden")))

extern int *__errno_location(void);

HIDDEN void lock(void);
HIDDEN void unlock(void);

/* Whether a descriptor is of one of these kinds (KIND(S_IFREG) …); the lock is then held, else not. */
HIDDEN int lock_for(int fd, unsigned kinds);

#define KIND(mode) (1u << ((mode) >> 12))

static inline long call(long number, long a, long b, long c, long d, long e)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return result;
}

/* As libc answers: -1 and errno. */
static inline long answer(long result)
{
    if (result >= 0 || result < -4095) return result;
    *__errno_location() = (int)-result;
    return -1;
}

/* A call under the lock. */
static inline long in_turn(long number, long a, long b, long c, long d, long e)
{
    lock();
    long result = call(number, a, b, c, d, e);
    unlock();
    return answer(result);
}

#endif
