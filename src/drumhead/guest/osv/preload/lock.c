/* The lock around calls that reach files. */
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "lock.h"

#define WAIT_PRIVATE 128
#define WAKE_PRIVATE 129

/* 0: free, 1: held, 2: held and waited for (Drepper, "Futexes are tricky"). */
static int state;

void lock(void)
{
    int seen = 0;
    if (__atomic_compare_exchange_n(&state, &seen, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE)) return;
    if (seen != 2) seen = __atomic_exchange_n(&state, 2, __ATOMIC_ACQUIRE);
    while (seen) {
        call(SYS_futex, (long)&state, WAIT_PRIVATE, 2, 0, 0);
        seen = __atomic_exchange_n(&state, 2, __ATOMIC_ACQUIRE);
    }
}

void unlock(void)
{
    if (__atomic_fetch_sub(&state, 1, __ATOMIC_RELEASE) == 1) return;
    __atomic_store_n(&state, 0, __ATOMIC_RELEASE);
    call(SYS_futex, (long)&state, WAKE_PRIVATE, 1, 0, 0);
}

/* A thread that waits for a socket, a pipe or the console must not hold the lock. lseek fails for sockets and pipes,
 * and does not access a file. */
int lock_for(int fd, unsigned kinds)
{
    struct stat found;
    if (call(SYS_lseek, fd, 0, SEEK_CUR, 0, 0) < 0) return 0;
    lock();
    if (call(SYS_fstat, fd, (long)&found, 0, 0, 0) == 0 && (KIND(found.st_mode & S_IFMT) & kinds)) return 1;
    unlock();
    return 0;
}
