/* Creating, renaming and removing files and directories, and changing their metadata. */
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "lock.h"

/* musl's headers define these as macros; Debian's libc has both names. */
#undef open64
#undef openat64
#undef creat64
#undef truncate64

static int open_at(int folder, const char *path, int flags, mode_t mode)
{
    return (int)locked_call(SYS_openat, folder, (long)path, flags, mode, 0);
}

/* The mode is passed only when a file may be created. */
#define OPEN(name, folder, ...)                                                                                       \
    int name(__VA_ARGS__, int flags, ...)                                                                             \
    {                                                                                                                 \
        va_list more;                                                                                                 \
        va_start(more, flags);                                                                                        \
        mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;                                                     \
        va_end(more);                                                                                                 \
        return open_at(folder, path, flags, mode);                                                                    \
    }
OPEN(open, AT_FDCWD, const char *path)
OPEN(open64, AT_FDCWD, const char *path)
OPEN(openat, folder, int folder, const char *path)
OPEN(openat64, folder, int folder, const char *path)

/* Programs that Debian has built with checks of flags call these when they cannot create a file. */
int __open_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
int __openat_2(int folder, const char *path, int flags) { return open_at(folder, path, flags, 0); }
int __openat64_2(int folder, const char *path, int flags) { return open_at(folder, path, flags, 0); }

#define CALL2(name, A, B) int name(A a, B b) { return (int)locked_call(SYS_##name, (long)a, (long)b, 0, 0, 0); }
#define CALL3(name, A, B, C) int name(A a, B b, C c) { return (int)locked_call(SYS_##name, (long)a, (long)b, (long)c, 0, 0); }

int creat64(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat(const char *path, mode_t mode) { return creat64(path, mode); }
int rmdir(const char *path) { return (int)locked_call(SYS_rmdir, (long)path, 0, 0, 0, 0); }
int unlink(const char *path) { return (int)locked_call(SYS_unlink, (long)path, 0, 0, 0, 0); }
int remove(const char *path)
{
    struct stat found;
    long known = call(SYS_newfstatat, AT_FDCWD, (long)path, (long)&found, AT_SYMLINK_NOFOLLOW, 0);
    return known == 0 && S_ISDIR(found.st_mode) ? rmdir(path) : unlink(path);
}

/* A program in a machine is root, whom the mode of a directory does not stop on Linux. OSv refuses root too, and every
 * directory that is copied from an image with its mode is read-only. So directories stay open to their owner. */
int mkdir(const char *path, mode_t mode) { return (int)locked_call(SYS_mkdir, (long)path, mode | S_IRWXU, 0, 0, 0); }
int mkdirat(int folder, const char *path, mode_t mode)
{
    return (int)locked_call(SYS_mkdirat, folder, (long)path, mode | S_IRWXU, 0, 0);
}
int chmod(const char *path, mode_t mode)
{
    struct stat found;
    lock();
    if (call(SYS_newfstatat, AT_FDCWD, (long)path, (long)&found, 0, 0) == 0 && S_ISDIR(found.st_mode)) mode |= S_IRWXU;
    long result = call(SYS_chmod, (long)path, mode, 0, 0, 0);
    unlock();
    return (int)libc_result(result);
}
CALL2(link, const char *, const char *)
CALL2(symlink, const char *, const char *)
int truncate64(const char *path, off_t size)
{
    lock();
    long fd = call(SYS_openat, AT_FDCWD, (long)path, O_WRONLY, 0, 0), result = fd;
    if (fd >= 0) {
        result = resize((int)fd, size);
        call(SYS_close, fd, 0, 0, 0, 0);
    }
    unlock();
    return (int)libc_result(result);
}
int truncate(const char *path, off_t size) { return truncate64(path, size); }
CALL3(chown, const char *, uid_t, gid_t)
CALL3(lchown, const char *, uid_t, gid_t)
CALL3(unlinkat, int, const char *, int)
CALL3(symlinkat, const char *, int, const char *)
int linkat(int from, const char *old, int to, const char *new, int flags)
{
    return (int)locked_call(SYS_linkat, from, (long)old, to, (long)new, flags);
}
int utimes(const char *path, const struct timeval times[2])
{
    return (int)locked_call(SYS_utimes, (long)path, (long)times, 0, 0, 0);
}
int utimensat(int folder, const char *path, const struct timespec times[2], int flags)
{
    return (int)locked_call(SYS_utimensat, folder, (long)path, (long)times, flags, 0);
}

/* Remove the target of a rename first, because OSv never frees the blocks of a replaced file. (On OSv, a rename over a
 * file is not atomic anyway.) Return the error of the removal; nothing has changed in that case.
 */
static long remove_target(int from, const char *old, int to, const char *new)
{
    struct stat moved, there;
    struct statfs where;
    if (call(SYS_newfstatat, from, (long)old, (long)&moved, AT_SYMLINK_NOFOLLOW, 0)) return 0;
    if (call(SYS_newfstatat, to, (long)new, (long)&there, AT_SYMLINK_NOFOLLOW, 0)) return 0;
    long known = to == AT_FDCWD ? call(SYS_statfs, (long)new, (long)&where, 0, 0, 0)
                                : call(SYS_fstatfs, to, (long)&where, 0, 0, 0);
    if (known || where.f_type != EXT4) return 0;
    if (moved.st_dev != there.st_dev || moved.st_ino == there.st_ino) return 0;
    if (S_ISDIR(moved.st_mode) != S_ISDIR(there.st_mode)) return 0;
    return call(SYS_unlinkat, to, (long)new, S_ISDIR(there.st_mode) ? AT_REMOVEDIR : 0, 0, 0);
}

static int move(long number, int from, const char *old, int to, const char *new, unsigned flags)
{
    lock();
    long result = flags ? 0 : remove_target(from, old, to, new);
    if (result == 0 && number == SYS_rename) result = call(number, (long)old, (long)new, 0, 0, 0);
    else if (result == 0) result = call(number, from, (long)old, to, (long)new, flags);
    unlock();
    return (int)libc_result(result);
}

int rename(const char *old, const char *new) { return move(SYS_rename, AT_FDCWD, old, AT_FDCWD, new, 0); }
int renameat(int from, const char *old, int to, const char *new) { return move(SYS_renameat, from, old, to, new, 0); }
int renameat2(int from, const char *old, int to, const char *new, unsigned flags)
{
    return move(SYS_renameat2, from, old, to, new, flags);
}
