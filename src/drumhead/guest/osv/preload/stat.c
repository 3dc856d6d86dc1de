/* Calls that only read names and metadata. They need the lock too, because a flush skips blocks that they use. */
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>

#include "lock.h"

/* musl's headers define these as macros; Debian's libc has both names. */
#undef stat64
#undef lstat64
#undef fstatat64

int fstatat64(int folder, const char *path, struct stat *to, int flags)
{
    return (int)locked_call(SYS_newfstatat, folder, (long)path, (long)to, flags, 0);
}
int fstatat(int folder, const char *path, struct stat *to, int flags) { return fstatat64(folder, path, to, flags); }
int stat64(const char *path, struct stat *to) { return fstatat64(AT_FDCWD, path, to, 0); }
int stat(const char *path, struct stat *to) { return fstatat64(AT_FDCWD, path, to, 0); }
int lstat64(const char *path, struct stat *to) { return fstatat64(AT_FDCWD, path, to, AT_SYMLINK_NOFOLLOW); }
int lstat(const char *path, struct stat *to) { return fstatat64(AT_FDCWD, path, to, AT_SYMLINK_NOFOLLOW); }

/* For programs that were built with a libc before 2.33. */
int __xstat64(int version, const char *path, struct stat *to) { return (void)version, stat(path, to); }
int __xstat(int version, const char *path, struct stat *to) { return (void)version, stat(path, to); }
int __lxstat64(int version, const char *path, struct stat *to) { return (void)version, lstat(path, to); }
int __lxstat(int version, const char *path, struct stat *to) { return (void)version, lstat(path, to); }
int __fxstatat64(int version, int folder, const char *path, struct stat *to, int flags)
{
    return (void)version, fstatat64(folder, path, to, flags);
}
int __fxstatat(int version, int folder, const char *path, struct stat *to, int flags)
{
    return (void)version, fstatat64(folder, path, to, flags);
}

struct statx;
int statx(int folder, const char *path, int flags, unsigned mask, struct statx *to)
{
    return (int)locked_call(SYS_statx, folder, (long)path, flags, mask, (long)to);
}
int access(const char *path, int mode) { return (int)locked_call(SYS_access, (long)path, mode, 0, 0, 0); }
int faccessat(int folder, const char *path, int mode, int flags)
{
    struct stat found;
    if (flags & AT_SYMLINK_NOFOLLOW) return fstatat64(folder, path, &found, AT_SYMLINK_NOFOLLOW);
    return (int)locked_call(SYS_faccessat, folder, (long)path, mode, 0, 0);
}
int chdir(const char *path) { return (int)locked_call(SYS_chdir, (long)path, 0, 0, 0, 0); }
ssize_t readlink(const char *path, char *to, size_t size)
{
    return locked_call(SYS_readlink, (long)path, (long)to, (long)size, 0, 0);
}
ssize_t readlinkat(int folder, const char *path, char *to, size_t size)
{
    return locked_call(SYS_readlinkat, folder, (long)path, (long)to, (long)size, 0);
}
