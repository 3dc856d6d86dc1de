/* Files, time and the console, for every other part. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base.h"

double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

void say(const char *format, ...) {
    va_list values;
    va_start(values, format);
    fputs("drumhead: ", stderr);
    vfprintf(stderr, format, values);
    fputs("\r\n", stderr);
    va_end(values);
}

bool write_all(int fd, const void *bytes, size_t size) {
    for (const char *at = bytes; size > 0;) {
        ssize_t written = write(fd, at, size);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return false;
        at += written;
        size -= (size_t)written;
    }
    return true;
}

char *read_file(const char *path) {
    size_t size = 0, room = 4096;
    char *text = malloc(room + 1);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = -1;
    while (file >= 0 && text && (got = read(file, text + size, room - size)) > 0) {
        size += (size_t)got;
        if (size == room) {
            char *larger = realloc(text, (room *= 2) + 1);
            if (!larger) break;
            text = larger;
        }
    }
    if (file >= 0) close(file);
    if (got != 0) {
        free(text);
        return NULL;
    }
    text[size] = 0;
    return text;
}

bool write_file(const char *path, const char *text) {
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (file < 0) return false;
    bool good = write_all(file, text, strlen(text));
    return close(file) == 0 && good;
}

/* By rename, because a program may be reading the file. A full disk may have room only in place of the old text. */
void replace_file(const char *path, const char *text) {
    char fresh[300];
    snprintf(fresh, sizeof fresh, "%s.%d", path, getpid());
    if (write_file(fresh, text) && rename(fresh, path) == 0) return;
    unlink(fresh);
    write_file(path, text);
}

void make_directories(const char *path) {
    char part[4096];
    snprintf(part, sizeof part, "%s", path);
    for (char *slash = part; (slash = strchr(slash + 1, '/')); *slash = '/') {
        *slash = 0;
        mkdir(part, 0755);
    }
    mkdir(part, 0755);
}
