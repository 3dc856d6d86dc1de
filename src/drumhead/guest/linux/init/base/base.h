/* Functions for every part of init: files.c (files, time, the console) and ports.c (virtio-serial ports). */
#pragma once

#include <stdbool.h>
#include <stddef.h>

double now(void); /* monotonic seconds */
void say(const char *format, ...) __attribute__((format(printf, 1, 2))); /* a line on the console */
char *read_file(const char *path); /* NULL if it cannot be read; the caller frees it */
bool write_file(const char *path, const char *text);
void replace_file(const char *path, const char *text); /* a reader finds the old text or the new one */
bool write_all(int fd, const void *bytes, size_t size);
void make_directories(const char *path);

int open_port(const char *name); /* -1 if there is none */
bool ports_ready(void);
int watch_devices(void); /* a descriptor that can be read when a device appears; -1 if there is none */
bool port_announced(int announced); /* reads all that can be read; whether a port may have appeared */
void report(const char *format, ...) __attribute__((format(printf, 1, 2))); /* one line on the status port */

/* A buffer between two descriptors. It is filled only when empty, so a slow reader slows down its writer. */
struct buffer { size_t from, to; char bytes[32768]; };
bool buffer_send(struct buffer *, int fd); /* false: the other end is gone */
