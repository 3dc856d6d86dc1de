/* One lock for all system calls that access files, because OSv's ext4 has two data structures that all threads share
 * without a lock that covers a whole call:
 * - a buffer for the partial disk sector in which a file's data starts or ends, so two threads that write at the same
 *   time can each write the other's bytes;
 * - the cache of inodes, directories and maps. A flush skips the blocks of that cache that any other call uses
 *   meanwhile, even stat, and counts a block as written if it is changed while it is written. Data that fsync reported
 *   as written is then not on the disk.
 * Therefore every call that accesses files is made under one lock.
 *
 * This library is loaded before libc in machines with a volume (ld.so --preload) and makes the same system calls as
 * Debian's libc. Calls inside libc (fopen, realpath) and reads of mapped files bypass it.
 */
#ifndef LOCK_H
#define LOCK_H

#include "syscall.h"

#define HIDDEN __attribute__((visibility("hidden")))
#define KIND(mode) (1u << ((mode) >> 12))
#define EXT4 0xef53

HIDDEN void lock(void);
HIDDEN void unlock(void);

/* Take the lock if a descriptor is of one of these kinds (KIND(S_IFREG) …). Return whether the lock is held. */
HIDDEN int lock_for(int fd, unsigned kinds);

/* Change the size of an open file; the lock must be held. */
HIDDEN long resize(int fd, long size);

/* Make a system call under the lock. */
static inline long locked_call(long number, long a, long b, long c, long d, long e)
{
    lock();
    long result = call(number, a, b, c, d, e);
    unlock();
    return libc_result(result);
}

#endif
