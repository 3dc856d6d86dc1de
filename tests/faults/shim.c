/* Faults of the machine, for one process: a wall clock that is wrong, flushes that are slow, fail or do nothing, writes
   and reads that fail. Preloaded; what to do is read from a file that the test maps as well (shim.py has the same layout). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <regex.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct control {
  double clock_offset;   /* seconds added to the wall clock */
  double flush_delay;    /* seconds that each flush takes longer */
  int32_t flush_error;   /* errno of flushes, 0: none */
  int32_t write_error;   /* errno of writes to files, 0: none */
  int32_t read_error;    /* errno of reads of files, 0: none */
  int64_t dropped;       /* how many flushes were dropped */
  char only[256];        /* faults of files concern paths that match this expression; empty: all */
  char drop[256];        /* flushes of paths that match this expression do nothing; empty: none */
};

static struct control *control;

static int (*real_clock_gettime)(clockid_t, struct timespec *);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_read)(int, void *, size_t);
static ssize_t (*real_pread)(int, void *, size_t, off_t);
static ssize_t (*real_sendfile)(int, int, off_t *, size_t);

__attribute__((constructor)) static void start(void) {
  real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
  real_fsync = dlsym(RTLD_NEXT, "fsync");
  real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
  real_write = dlsym(RTLD_NEXT, "write");
  real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
  real_read = dlsym(RTLD_NEXT, "read");
  real_pread = dlsym(RTLD_NEXT, "pread64");
  real_sendfile = dlsym(RTLD_NEXT, "sendfile64");
  const char *path = getenv("FAULTS");
  if (path == NULL) return;
  int file = open(path, O_RDWR | O_CLOEXEC);
  if (file < 0) abort();
  void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (mapped == MAP_FAILED) abort();
  close(file);
  control = mapped;
}

static int matches(const char *expression, int file) {
  char name[64], path[1024];
  snprintf(name, sizeof name, "/proc/self/fd/%d", file);
  ssize_t length = readlink(name, path, sizeof path - 1);
  if (length <= 0 || path[0] != '/') return 0;
  path[length] = 0;
  regex_t compiled;
  if (regcomp(&compiled, expression, REG_EXTENDED | REG_NOSUB) != 0) abort();
  int found = regexec(&compiled, path, 0, NULL, 0) == 0;
  regfree(&compiled);
  return found;
}

static int concerned(int file) { return control->only[0] == 0 || matches(control->only, file); }

int clock_gettime(clockid_t clock, struct timespec *now) {
  if (real_clock_gettime == NULL) real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
  int result = real_clock_gettime(clock, now);
  if (control != NULL && result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
    now->tv_sec += (time_t)control->clock_offset;
  return result;
}

time_t time(time_t *result) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (result != NULL) *result = now.tv_sec;
  return now.tv_sec;
}

int gettimeofday(struct timeval *restrict result, void *restrict zone) {
  (void)zone;
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  result->tv_sec = now.tv_sec;
  result->tv_usec = now.tv_nsec / 1000;
  return 0;
}

static int flushed(int file, int (*flush)(int)) {
  if (control == NULL) return flush(file);
  if (control->drop[0] != 0 && matches(control->drop, file)) {
    __atomic_add_fetch(&control->dropped, 1, __ATOMIC_SEQ_CST);
    return 0;
  }
  if ((control->flush_delay > 0 || control->flush_error != 0) && concerned(file)) {
    usleep((useconds_t)(control->flush_delay * 1e6));
    if (control->flush_error != 0) {
      errno = control->flush_error;
      return -1;
    }
  }
  return flush(file);
}

int fsync(int file) { return flushed(file, real_fsync); }
int fdatasync(int file) { return flushed(file, real_fdatasync); }

static int refused(int file, const int32_t *error) {
  if (control == NULL || *error == 0 || !concerned(file)) return 0;
  char name[64], path[1024];
  snprintf(name, sizeof name, "/proc/self/fd/%d", file);
  ssize_t length = readlink(name, path, sizeof path - 1);
  if (length <= 0 || path[0] != '/') return 0; /* sockets and pipes go on */
  if (strncmp(path, "/dev/", 5) == 0 && strncmp(path, "/dev/shm/", 9) != 0) return 0;
  errno = *error;
  return 1;
}

ssize_t write(int file, const void *data, size_t size) {
  return refused(file, &control->write_error) ? -1 : real_write(file, data, size);
}
ssize_t pwrite64(int file, const void *data, size_t size, off_t at) {
  return refused(file, &control->write_error) ? -1 : real_pwrite(file, data, size, at);
}

ssize_t read(int file, void *data, size_t size) {
  if (real_read == NULL) real_read = dlsym(RTLD_NEXT, "read");
  return refused(file, &control->read_error) ? -1 : real_read(file, data, size);
}
ssize_t pread64(int file, void *data, size_t size, off_t at) {
  return refused(file, &control->read_error) ? -1 : real_pread(file, data, size, at);
}
ssize_t sendfile64(int to, int file, off_t *at, size_t size) {
  return refused(file, &control->read_error) ? -1 : real_sendfile(to, file, at, size);
}
