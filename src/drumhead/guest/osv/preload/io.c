/* What is in files: reads, writes, and their way to the disk. */
#include <fcntl.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "calls.h"

/* Of musl's headers, which know one name where Debian's libc has two. */
#undef preadv64
#undef pwritev64
#undef ftruncate64
#undef fallocate64
#undef fstat64

#define PART (32 << 10)
#define HERE (-1) /* where the file stands */

static long guarded(unsigned kinds, long number, int fd, long b, long c, long d)
{
    int held = lock_for(fd, kinds);
    long result = call(number, fd, b, c, d, 0);
    if (held) unlock();
    return answer(result);
}

static long get(long number, int fd, long b, long c, long d) { return guarded(KIND(S_IFREG), number, fd, b, c, d); }

static long file(long number, int fd, long b, long c, long d)
{
    return guarded(KIND(S_IFREG) | KIND(S_IFDIR), number, fd, b, c, d);
}

/* Beyond its end a file grows by blocks as they were left by others; it has to read as zeros there. */
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

static long put(long number, int fd, long b, long c, off_t at)
{
    int held = lock_for(fd, KIND(S_IFREG));
    long result = held ? fill_gap(fd, at) : 0;
    if (result == 0) result = call(number, fd, b, c, at, 0);
    if (held) unlock();
    return answer(result);
}

ssize_t read(int fd, void *to, size_t size) { return get(SYS_read, fd, (long)to, (long)size, 0); }
ssize_t write(int fd, const void *from, size_t size) { return put(SYS_write, fd, (long)from, (long)size, HERE); }

ssize_t pread64(int fd, void *to, size_t size, off_t at) { return get(SYS_pread64, fd, (long)to, (long)size, at); }
ssize_t pread(int fd, void *to, size_t size, off_t at) { return pread64(fd, to, size, at); }

ssize_t pwrite64(int fd, const void *from, size_t size, off_t at)
{
    return put(SYS_pwrite64, fd, (long)from, (long)size, at);
}
ssize_t pwrite(int fd, const void *from, size_t size, off_t at) { return pwrite64(fd, from, size, at); }

ssize_t readv(int fd, const struct iovec *parts, int count) { return get(SYS_readv, fd, (long)parts, count, 0); }
ssize_t writev(int fd, const struct iovec *parts, int count) { return put(SYS_writev, fd, (long)parts, count, HERE); }

ssize_t preadv64(int fd, const struct iovec *parts, int count, off_t at)
{
    return get(SYS_preadv, fd, (long)parts, count, at);
}
ssize_t preadv(int fd, const struct iovec *parts, int count, off_t at) { return preadv64(fd, parts, count, at); }

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t at)
{
    return put(SYS_pwritev, fd, (long)parts, count, at);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return pwritev64(fd, parts, count, at); }

/* Read under the lock, sent without it: a slow receiver holds up nobody. */
ssize_t sendfile64(int to, int from, off_t *at, size_t size)
{
    char part[PART];
    size_t wanted = size < PART ? size : PART;
    ssize_t got = at ? pread64(from, part, wanted, *at) : read(from, part, wanted);
    if (got <= 0) return got;
    ssize_t sent = write(to, part, (size_t)got);
    if (at && sent > 0) *at += sent;
    if (!at && sent < got) call(SYS_lseek, from, (sent > 0 ? sent : 0) - got, SEEK_CUR, 0, 0);
    return sent;
}
ssize_t sendfile(int to, int from, off_t *at, size_t size) { return sendfile64(to, from, at, size); }

int fsync(int fd) { return (int)file(SYS_fsync, fd, 0, 0, 0); }
int fdatasync(int fd) { return (int)file(SYS_fdatasync, fd, 0, 0, 0); }
void sync(void) { in_turn(SYS_sync, 0, 0, 0, 0, 0); }
int ftruncate64(int fd, off_t size) { return (int)file(SYS_ftruncate, fd, size, 0, 0); }
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }
int fallocate64(int fd, int how, off_t at, off_t size) { return (int)file(SYS_fallocate, fd, how, at, size); }
int fallocate(int fd, int how, off_t at, off_t size) { return fallocate64(fd, how, at, size); }
int fchmod(int fd, mode_t mode) { return (int)file(SYS_fchmod, fd, mode, 0, 0); }
int fchown(int fd, uid_t user, gid_t group) { return (int)file(SYS_fchown, fd, user, group, 0); }
int futimens(int fd, const struct timespec times[2]) { return (int)file(SYS_utimensat, fd, 0, (long)times, 0); }
/* The last one who closes a file that has no name any more frees what it had. */
int close(int fd) { return (int)file(SYS_close, fd, 0, 0, 0); }

int fstat64(int fd, struct stat *to) { return (int)file(SYS_fstat, fd, (long)to, 0, 0); }
int fstat(int fd, struct stat *to) { return fstat64(fd, to); }
/* As programs have it that were made for a libc before 2.33. */
int __fxstat64(int version, int fd, struct stat *to) { return (void)version, fstat64(fd, to); }
int __fxstat(int version, int fd, struct stat *to) { return (void)version, fstat64(fd, to); }
