/* Reading, writing and flushing files. */
#include <fcntl.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "lock.h"

/* musl's headers define these as macros; Debian's libc has both names. */
#undef preadv64
#undef pwritev64
#undef ftruncate64
#undef fallocate64
#undef fstat64

#define CHUNK (32 << 10)
#define HERE (-1) /* at the file's current offset */

static long guarded(unsigned kinds, long number, int fd, long b, long c, long d)
{
    int held = lock_for(fd, kinds);
    long result = call(number, fd, b, c, d, 0);
    if (held) unlock();
    return libc_result(result);
}

static long read_call(long number, int fd, long b, long c, long d) { return guarded(KIND(S_IFREG), number, fd, b, c, d); }

static long file_call(long number, int fd, long b, long c, long d)
{
    return guarded(KIND(S_IFREG) | KIND(S_IFDIR), number, fd, b, c, d);
}

/* Fill the gap between a file's end and `at` with zeros, because OSv would leave old contents of the blocks there. */
static long fill_gap(int fd, off_t at)
{
    static char zeros[4096];
    struct stat found;
    if (call(SYS_fstat, fd, (long)&found, 0, 0, 0)) return 0;
    if (at == HERE) at = call(SYS_lseek, fd, 0, SEEK_CUR, 0, 0);
    if (at <= found.st_size || call(SYS_fcntl, fd, F_GETFL, 0, 0, 0) & O_APPEND) return 0;
    long written = 0;
    for (off_t from = found.st_size; from < at; from += written) {
        long size = at - from < (off_t)sizeof zeros ? at - from : (off_t)sizeof zeros;
        written = call(SYS_pwrite64, fd, (long)zeros, size, from, 0);
        if (written > 0) continue;
        call(SYS_ftruncate, fd, found.st_size, 0, 0, 0);
        return written;
    }
    return 0;
}

static long write_call(long number, int fd, long b, long c, off_t at)
{
    int held = lock_for(fd, KIND(S_IFREG));
    long result = held ? fill_gap(fd, at) : 0;
    if (result == 0) result = call(number, fd, b, c, at, 0);
    if (held) unlock();
    return libc_result(result);
}

ssize_t read(int fd, void *to, size_t size) { return read_call(SYS_read, fd, (long)to, (long)size, 0); }
ssize_t write(int fd, const void *from, size_t size) { return write_call(SYS_write, fd, (long)from, (long)size, HERE); }

ssize_t pread64(int fd, void *to, size_t size, off_t at) { return read_call(SYS_pread64, fd, (long)to, (long)size, at); }
ssize_t pread(int fd, void *to, size_t size, off_t at) { return pread64(fd, to, size, at); }

ssize_t pwrite64(int fd, const void *from, size_t size, off_t at)
{
    return write_call(SYS_pwrite64, fd, (long)from, (long)size, at);
}
ssize_t pwrite(int fd, const void *from, size_t size, off_t at) { return pwrite64(fd, from, size, at); }

ssize_t readv(int fd, const struct iovec *parts, int count) { return read_call(SYS_readv, fd, (long)parts, count, 0); }
ssize_t writev(int fd, const struct iovec *parts, int count) { return write_call(SYS_writev, fd, (long)parts, count, HERE); }

ssize_t preadv64(int fd, const struct iovec *parts, int count, off_t at)
{
    return read_call(SYS_preadv, fd, (long)parts, count, at);
}
ssize_t preadv(int fd, const struct iovec *parts, int count, off_t at) { return preadv64(fd, parts, count, at); }

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t at)
{
    return write_call(SYS_pwritev, fd, (long)parts, count, at);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return pwritev64(fd, parts, count, at); }

/* Read under the lock and send without it, so that a slow receiver does not block other threads. */
ssize_t sendfile64(int to, int from, off_t *at, size_t size)
{
    char chunk[CHUNK];
    size_t wanted = size < CHUNK ? size : CHUNK;
    ssize_t got = at ? pread64(from, chunk, wanted, *at) : read(from, chunk, wanted);
    if (got <= 0) return got;
    ssize_t sent = write(to, chunk, (size_t)got);
    if (at && sent > 0) *at += sent;
    if (!at && sent < got) call(SYS_lseek, from, (sent > 0 ? sent : 0) - got, SEEK_CUR, 0, 0);
    return sent;
}
ssize_t sendfile(int to, int from, off_t *at, size_t size) { return sendfile64(to, from, at, size); }

int fsync(int fd) { return (int)file_call(SYS_fsync, fd, 0, 0, 0); }
int fdatasync(int fd) { return (int)file_call(SYS_fdatasync, fd, 0, 0, 0); }
void sync(void) { locked_call(SYS_sync, 0, 0, 0, 0, 0); }
int ftruncate64(int fd, off_t size) { return (int)file_call(SYS_ftruncate, fd, size, 0, 0); }
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }
int fallocate64(int fd, int how, off_t at, off_t size) { return (int)file_call(SYS_fallocate, fd, how, at, size); }
int fallocate(int fd, int how, off_t at, off_t size) { return fallocate64(fd, how, at, size); }
int fchmod(int fd, mode_t mode) { return (int)file_call(SYS_fchmod, fd, mode, 0, 0); }
int fchown(int fd, uid_t user, gid_t group) { return (int)file_call(SYS_fchown, fd, user, group, 0); }
int futimens(int fd, const struct timespec times[2]) { return (int)file_call(SYS_utimensat, fd, 0, (long)times, 0); }
/* Closing the last descriptor of a file without a name frees its blocks. */
int close(int fd) { return (int)file_call(SYS_close, fd, 0, 0, 0); }

int fstat64(int fd, struct stat *to) { return (int)file_call(SYS_fstat, fd, (long)to, 0, 0); }
int fstat(int fd, struct stat *to) { return fstat64(fd, to); }
/* For programs that were built with a libc before 2.33. */
int __fxstat64(int version, int fd, struct stat *to) { return (void)version, fstat64(fd, to); }
int __fxstat(int version, int fd, struct stat *to) { return (void)version, fstat64(fd, to); }
