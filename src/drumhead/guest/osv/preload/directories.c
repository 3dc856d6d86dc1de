/* Directories, which are read completely in one call.
 *
 * OSv's getdents64 seeks back to the last name that did not fit the buffer, with an offset that its ext4 rejects, so a
 * directory with more than 32 kB of names cannot be listed (EIO). Here one call reads all of it under the lock, so that
 * no name disappears meanwhile. The buffer grows until it has space left.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "lock.h"

#undef readdir64
#undef scandir64

#define FIRST (32 << 10)
#define MAX_ENTRY 300 /* bytes: an entry with the longest name */
#define NOT_A_DIRECTORY 20
#define NO_MEMORY 12

extern int close(int fd);
extern void *malloc(size_t size);
extern void *realloc(void *old, size_t size);
extern void free(void *old);
extern void qsort(void *first, size_t count, size_t size, int (*compare)(const void *, const void *));

/* DIR of this library; that of libc is never used. `names` is NULL until the first readdir. */
struct __dirstream {
    int fd;
    char *names;
    long at, end;
};

static int fail(int error)
{
    *__errno_location() = error;
    return -1;
}

static int fill(DIR *listing)
{
    for (long room = FIRST;; room *= 2) {
        char *names = realloc(listing->names, (size_t)room);
        if (!names) return fail(NO_MEMORY);
        listing->names = names;
        lock();
        long found = call(SYS_lseek, listing->fd, 0, SEEK_SET, 0, 0);
        if (found >= 0) found = call(SYS_getdents64, listing->fd, (long)names, room, 0, 0);
        unlock();
        if (found < 0) return (int)libc_result(found);
        if (found + MAX_ENTRY > room) continue;
        listing->end = found;
        return 0;
    }
}

DIR *fdopendir(int fd)
{
    struct stat found;
    if (fstat(fd, &found)) return NULL;
    if (!S_ISDIR(found.st_mode)) return fail(NOT_A_DIRECTORY), NULL;
    DIR *listing = malloc(sizeof *listing);
    if (listing) *listing = (DIR){.fd = fd};
    return listing;
}

DIR *opendir(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return NULL;
    DIR *made = fdopendir(fd);
    if (!made) close(fd);
    return made;
}

struct dirent *readdir(DIR *listing)
{
    if (!listing->names && fill(listing)) return NULL;
    if (listing->at >= listing->end) return NULL;
    struct dirent *entry = (struct dirent *)(listing->names + listing->at);
    listing->at += entry->d_reclen;
    entry->d_off = listing->at;
    return entry;
}
struct dirent *readdir64(DIR *listing) { return readdir(listing); }

int dirfd(DIR *listing) { return listing->fd; }
long telldir(DIR *listing) { return listing->at; }
void seekdir(DIR *listing, long at) { listing->at = at; }

void rewinddir(DIR *listing)
{
    free(listing->names);
    *listing = (DIR){.fd = listing->fd};
}

int closedir(DIR *listing)
{
    int fd = listing->fd;
    free(listing->names);
    free(listing);
    return close(fd);
}

/* Copy the wanted entries. Return their number, or -1 without keeping any. */
static int collect(DIR *listing, struct dirent ***list, int (*wanted)(const struct dirent *))
{
    int count = 0;
    *list = NULL;
    if (fill(listing)) return -1;
    for (struct dirent *entry; (entry = readdir(listing));) {
        if (wanted && !wanted(entry)) continue;
        struct dirent **longer = realloc(*list, ((size_t)count + 1) * sizeof **list);
        struct dirent *copy = longer ? malloc(entry->d_reclen) : NULL;
        if (longer) *list = longer;
        if (!copy) {
            while (count) free((*list)[--count]);
            free(*list);
            return fail(NO_MEMORY);
        }
        __builtin_memcpy(copy, entry, entry->d_reclen);
        longer[count++] = copy;
    }
    return count;
}

int scandir(const char *path, struct dirent ***list, int (*wanted)(const struct dirent *),
            int (*compare)(const struct dirent **, const struct dirent **))
{
    DIR *listing = opendir(path);
    if (!listing) return -1;
    int count = collect(listing, list, wanted);
    closedir(listing);
    if (compare && count > 0) qsort(*list, (size_t)count, sizeof **list, (int (*)(const void *, const void *))compare);
    return count;
}
int scandir64(const char *path, struct dirent ***list, int (*wanted)(const struct dirent *),
              int (*compare)(const struct dirent **, const struct dirent **))
{
    return scandir(path, list, wanted, compare);
}
