/* Reads and writes of files, one after the other.
 *
 * OSv's ext4 has one buffer for the part of a disk sector that a file's data begins or ends in, and no lock around it:
 * two threads that write at once can each get the other's bytes into their sectors. This library is put before libc in
 * machines with a volume (ld.so --preload). It needs nothing but the system calls, and errno of whatever libc there is.
 */
#include <stddef.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>

#define WAIT_PRIVATE 128
#define WAKE_PRIVATE 129
#define PART (32 << 10)

extern int *__errno_location(void);

/* 0: free, 1: held, 2: held and waited for (Drepper, "Futexes are tricky"). */
static int state;

static long call(long number, long a, long b, long c, long d, long e)
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

static void lock(void)
{
    int seen = 0;
    if (__atomic_compare_exchange_n(&state, &seen, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE)) return;
    if (seen != 2) seen = __atomic_exchange_n(&state, 2, __ATOMIC_ACQUIRE);
    while (seen) {
        call(SYS_futex, (long)&state, WAIT_PRIVATE, 2, 0, 0);
        seen = __atomic_exchange_n(&state, 2, __ATOMIC_ACQUIRE);
    }
}

static void unlock(void)
{
    if (__atomic_fetch_sub(&state, 1, __ATOMIC_RELEASE) == 1) return;
    __atomic_store_n(&state, 0, __ATOMIC_RELEASE);
    call(SYS_futex, (long)&state, WAKE_PRIVATE, 1, 0, 0);
}

/* Only files: whoever waits for a socket or a pipe must not keep the others from their files. */
static int is_file(int fd)
{
    struct stat found;
    return call(SYS_fstat, fd, (long)&found, 0, 0, 0) == 0 && S_ISREG(found.st_mode);
}

static long guarded(long number, int fd, long b, long c, long d, long e)
{
    int file = is_file(fd);
    if (file) lock();
    long result = call(number, fd, b, c, d, e);
    if (file) unlock();
    if (result >= 0 || result < -4095) return result;
    *__errno_location() = (int)-result;
    return -1;
}

ssize_t read(int fd, void *to, size_t size) { return guarded(SYS_read, fd, (long)to, (long)size, 0, 0); }
ssize_t write(int fd, const void *from, size_t size) { return guarded(SYS_write, fd, (long)from, (long)size, 0, 0); }

ssize_t pread64(int fd, void *to, size_t size, off_t at) { return guarded(SYS_pread64, fd, (long)to, (long)size, at, 0); }
ssize_t pread(int fd, void *to, size_t size, off_t at) { return pread64(fd, to, size, at); }

ssize_t pwrite64(int fd, const void *from, size_t size, off_t at)
{
    return guarded(SYS_pwrite64, fd, (long)from, (long)size, at, 0);
}
ssize_t pwrite(int fd, const void *from, size_t size, off_t at) { return pwrite64(fd, from, size, at); }

ssize_t readv(int fd, const struct iovec *parts, int count) { return guarded(SYS_readv, fd, (long)parts, count, 0, 0); }
ssize_t writev(int fd, const struct iovec *parts, int count) { return guarded(SYS_writev, fd, (long)parts, count, 0, 0); }

/* Read under the lock, sent without it: a slow receiver holds up nobody. */
ssize_t sendfile64(int to, int from, off_t *at, size_t size)
{
    char part[PART];
    if (!at) return guarded(SYS_sendfile, to, from, 0, (long)size, 0);
    ssize_t got = pread64(from, part, size < PART ? size : PART, *at);
    if (got <= 0) return got;
    ssize_t sent = write(to, part, (size_t)got);
    if (sent > 0) *at += sent;
    return sent;
}
ssize_t sendfile(int to, int from, off_t *at, size_t size) { return sendfile64(to, from, at, size); }
