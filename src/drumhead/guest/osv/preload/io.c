/* Reading, writing and flushing files. */
#include <fcntl.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "lock.h"

/* musl's headers define these as macros; Debian's libc has both names. */
#undef preadv64
#undef pwritev64
#undef preadv64v2
#undef pwritev64v2
#undef posix_fallocate64
#undef ftruncate64
#undef fallocate64
#undef fstat64

#define CHUNK (32 << 10)
#define HERE (-1) /* at the file's current offset */
/* OSv copies what a call reads or writes through contiguous memory of the same size, and crashes without it. This is about
 * as much as it sends to a disk at once. */
#define PART (512 << 10)
#define MAX_VECTOR 1024
#define INVALID 22
#define NOT_SUPPORTED 95
#define PRIORITY 1 /* RWF_HIPRI */
#define FLUSHED 6  /* RWF_DSYNC and RWF_SYNC */

extern _Noreturn void __chk_fail(void);
extern int fsync(int fd);

static long file_call(long number, int fd, long b, long c, long d)
{
    int held = lock_for(fd, KIND(S_IFREG) | KIND(S_IFDIR));
    long result = call(number, fd, b, c, d, 0);
    if (held) unlock();
    return libc_result(result);
}

/* Enlarge a file by writing zeros, because OSv would leave old contents of the blocks there. */
static long enlarge(int fd, off_t from, off_t to)
{
    static char zeros[64 << 10];
    long written = 0;
    for (off_t at = from; at < to; at += written) {
        long size = to - at < (off_t)sizeof zeros ? to - at : (off_t)sizeof zeros;
        written = call(SYS_pwrite64, fd, (long)zeros, size, at, 0);
        if (written > 0) continue;
        call(SYS_ftruncate, fd, from, 0, 0, 0);
        return written;
    }
    return 0;
}

/* Change the size of an open file, under the lock. */
long resize(int fd, off_t size)
{
    struct stat found;
    int known = call(SYS_fstat, fd, (long)&found, 0, 0, 0) == 0;
    return known && size > found.st_size ? enlarge(fd, found.st_size, size) : call(SYS_ftruncate, fd, size, 0, 0, 0);
}

/* Fill the gap between a file's end and `at`. */
static long fill_gap(int fd, off_t at)
{
    struct stat found;
    if (call(SYS_fstat, fd, (long)&found, 0, 0, 0)) return 0;
    if (at == HERE) at = call(SYS_lseek, fd, 0, SEEK_CUR, 0, 0);
    if (at <= found.st_size || call(SYS_fcntl, fd, F_GETFL, 0, 0, 0) & O_APPEND) return 0;
    return enlarge(fd, found.st_size, at);
}

/* Return whether a read would begin beyond the end of a file, where OSv's ext4 reads other blocks of the disk. */
static int is_beyond_end(int fd, off_t at)
{
    struct stat found;
    struct statfs where;
    if (call(SYS_fstat, fd, (long)&found, 0, 0, 0)) return 0;
    if (at == HERE) at = call(SYS_lseek, fd, 0, SEEK_CUR, 0, 0);
    return at > found.st_size && call(SYS_fstatfs, fd, (long)&where, 0, 0, 0) == 0 && where.f_type == EXT4;
}

/* Read or write in parts. Calls without an offset ignore `at`. */
static long transfer(long number, int fd, char *data, long size, off_t at)
{
    for (long done = 0;;) {
        long part = size - done < PART ? size - done : PART;
        long result = call(number, fd, (long)(data + done), part, at + done, 0);
        if (result < 0) return done ? done : result;
        done += result;
        if (result < part || done >= size) return done;
    }
}

/* Read or write a vector: in one call if it is small, because the host flushes each write. */
static long transfer_vector(long whole, long single, int fd, const struct iovec *parts, long count, off_t at)
{
    size_t size = 0;
    for (long number = 0; number < count; number++) size += parts[number].iov_len;
    if (count < 0 || count > MAX_VECTOR || size <= PART) return call(whole, fd, (long)parts, count, at, 0);
    long done = 0;
    for (long number = 0; number < count; number++) {
        long wanted = (long)parts[number].iov_len;
        long result = wanted ? transfer(single, fd, parts[number].iov_base, wanted, at + done) : 0;
        if (result < 0) return done ? done : result;
        done += result;
        if (result < wanted) break;
    }
    return done;
}

/* Make a call that moves data. `single` is the call for one part of its vector, or the call itself if it has none. */
static long move_data(long number, long single, int fd, const void *data, long count, off_t at)
{
    int held = lock_for(fd, KIND(S_IFREG)), writes = single == SYS_write || single == SYS_pwrite64;
    long result = held && writes ? fill_gap(fd, at) : 0;
    if (held && !writes && is_beyond_end(fd, at)) result = 0;
    else if (result == 0 && !held) result = call(number, fd, (long)data, count, at, 0);
    else if (result == 0 && number == single) result = transfer(number, fd, (char *)data, count, at);
    else if (result == 0) result = transfer_vector(number, single, fd, data, count, at);
    if (held) unlock();
    return libc_result(result);
}

ssize_t read(int fd, void *to, size_t size) { return move_data(SYS_read, SYS_read, fd, to, (long)size, HERE); }
ssize_t write(int fd, const void *from, size_t size) { return move_data(SYS_write, SYS_write, fd, from, (long)size, HERE); }

ssize_t pread64(int fd, void *to, size_t size, off_t at)
{
    return move_data(SYS_pread64, SYS_pread64, fd, to, (long)size, at);
}
ssize_t pread(int fd, void *to, size_t size, off_t at) { return pread64(fd, to, size, at); }

ssize_t pwrite64(int fd, const void *from, size_t size, off_t at)
{
    return move_data(SYS_pwrite64, SYS_pwrite64, fd, from, (long)size, at);
}
ssize_t pwrite(int fd, const void *from, size_t size, off_t at) { return pwrite64(fd, from, size, at); }

ssize_t readv(int fd, const struct iovec *parts, int count) { return move_data(SYS_readv, SYS_read, fd, parts, count, HERE); }
ssize_t writev(int fd, const struct iovec *parts, int count)
{
    return move_data(SYS_writev, SYS_write, fd, parts, count, HERE);
}

/* OSv has only the calls with flags, which these functions leave out. */
ssize_t preadv64(int fd, const struct iovec *parts, int count, off_t at)
{
    return move_data(SYS_preadv2, SYS_pread64, fd, parts, count, at);
}
ssize_t preadv(int fd, const struct iovec *parts, int count, off_t at) { return preadv64(fd, parts, count, at); }

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t at)
{
    return move_data(SYS_pwritev2, SYS_pwrite64, fd, parts, count, at);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return pwritev64(fd, parts, count, at); }

ssize_t preadv64v2(int fd, const struct iovec *parts, int count, off_t at, int flags)
{
    if (flags & ~PRIORITY) return libc_result(-NOT_SUPPORTED);
    return at == HERE ? readv(fd, parts, count) : preadv64(fd, parts, count, at);
}
ssize_t preadv2(int fd, const struct iovec *parts, int count, off_t at, int flags)
{
    return preadv64v2(fd, parts, count, at, flags);
}
ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off_t at, int flags)
{
    if (flags & ~(PRIORITY | FLUSHED)) return libc_result(-NOT_SUPPORTED);
    ssize_t written = at == HERE ? writev(fd, parts, count) : pwritev64(fd, parts, count, at);
    return written > 0 && flags & FLUSHED && fsync(fd) ? -1 : written;
}
ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t at, int flags)
{
    return pwritev64v2(fd, parts, count, at, flags);
}

/* The functions of programs that Debian has built with checks of buffers. */
ssize_t __read_chk(int fd, void *to, size_t size, size_t room)
{
    if (size > room) __chk_fail();
    return read(fd, to, size);
}
ssize_t __pread64_chk(int fd, void *to, size_t size, off_t at, size_t room)
{
    if (size > room) __chk_fail();
    return pread64(fd, to, size, at);
}
ssize_t __pread_chk(int fd, void *to, size_t size, off_t at, size_t room) { return __pread64_chk(fd, to, size, at, room); }

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

/* Reserve space by enlarging the file: OSv's files have all of their blocks, and its ext4 has no fallocate. */
static int reserve(int fd, off_t at, off_t size)
{
    struct stat found;
    if (at < 0 || size <= 0) return INVALID;
    int held = lock_for(fd, KIND(S_IFREG));
    long result = held ? call(SYS_fstat, fd, (long)&found, 0, 0, 0) : call(SYS_fallocate, fd, 0, at, size, 0);
    if (held && result == 0 && at + size > found.st_size) result = enlarge(fd, found.st_size, at + size);
    if (held) unlock();
    return (int)-result;
}
int posix_fallocate64(int fd, off_t at, off_t size) { return reserve(fd, at, size); }
int posix_fallocate(int fd, off_t at, off_t size) { return reserve(fd, at, size); }
int fallocate64(int fd, int how, off_t at, off_t size) { return (int)libc_result(how ? -NOT_SUPPORTED : -reserve(fd, at, size)); }
int fallocate(int fd, int how, off_t at, off_t size) { return fallocate64(fd, how, at, size); }

int ftruncate64(int fd, off_t size)
{
    int held = lock_for(fd, KIND(S_IFREG));
    long result = held ? resize(fd, size) : call(SYS_ftruncate, fd, size, 0, 0, 0);
    if (held) unlock();
    return (int)libc_result(result);
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }
int fstat64(int fd, struct stat *to) { return (int)file_call(SYS_fstat, fd, (long)to, 0, 0); }
int fchmod(int fd, mode_t mode)
{
    struct stat found;
    if (fstat64(fd, &found) == 0 && S_ISDIR(found.st_mode)) mode |= S_IRWXU; /* as chmod in names.c */
    return (int)file_call(SYS_fchmod, fd, mode, 0, 0);
}
int fchown(int fd, uid_t user, gid_t group) { return (int)file_call(SYS_fchown, fd, user, group, 0); }
int futimens(int fd, const struct timespec times[2]) { return (int)file_call(SYS_utimensat, fd, 0, (long)times, 0); }
/* Closing the last descriptor of a file without a name frees its blocks. */
int close(int fd) { return (int)file_call(SYS_close, fd, 0, 0, 0); }

int fstat(int fd, struct stat *to) { return fstat64(fd, to); }
/* For programs that were built with a libc before 2.33. */
int __fxstat64(int version, int fd, struct stat *to) { return (void)version, fstat64(fd, to); }
int __fxstat(int version, int fd, struct stat *to) { return (void)version, fstat64(fd, to); }
