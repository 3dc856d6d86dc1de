/* Calls that programs make by their numbers. libuv (Node.js) does so for those that an old libc lacks. */
#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "lock.h"

static long call_with_six(long number, const long words[6])
{
    long result;
    register long r10 __asm__("r10") = words[3];
    register long r8 __asm__("r8") = words[4];
    register long r9 __asm__("r9") = words[5];
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(words[0]), "S"(words[1]), "d"(words[2]), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return libc_result(result);
}

long syscall(long number, ...)
{
    long words[6];
    va_list more;
    va_start(more, number);
    for (int place = 0; place < 6; place++) words[place] = va_arg(more, long);
    va_end(more);
    int fd = (int)words[0];
    switch (number) {
    case SYS_read: return read(fd, (void *)words[1], (size_t)words[2]);
    case SYS_write: return write(fd, (void *)words[1], (size_t)words[2]);
    case SYS_pread64: return pread(fd, (void *)words[1], (size_t)words[2], words[3]);
    case SYS_pwrite64: return pwrite(fd, (void *)words[1], (size_t)words[2], words[3]);
    case SYS_preadv: return preadv(fd, (void *)words[1], (int)words[2], words[3]);
    case SYS_pwritev: return pwritev(fd, (void *)words[1], (int)words[2], words[3]);
    case SYS_fsync: return fsync(fd);
    case SYS_fdatasync: return fdatasync(fd);
    case SYS_ftruncate: return ftruncate(fd, words[1]);
    case SYS_close: return close(fd);
    case SYS_openat: return openat(fd, (void *)words[1], (int)words[2], (mode_t)words[3]);
    case SYS_mkdirat: return mkdirat(fd, (void *)words[1], (mode_t)words[2]);
    case SYS_statx:
    case SYS_newfstatat:
    case SYS_unlinkat: return locked_call(number, words[0], words[1], words[2], words[3], words[4]);
    }
    return call_with_six(number, words);
}
