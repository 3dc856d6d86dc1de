/* Virtio-serial ports: found by name in sysfs, opened once. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base.h"

static int status_port = -1;

static bool find_port(const char *name, char *device, size_t size) {
    struct dirent *entry;
    DIR *ports = opendir("/sys/class/virtio-ports");
    bool found = false;
    while (ports && !found && (entry = readdir(ports))) {
        char path[320];
        snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", entry->d_name);
        char *text = entry->d_name[0] == '.' ? NULL : read_file(path);
        if (text) text[strcspn(text, "\n")] = 0;
        found = text && strcmp(text, name) == 0;
        free(text);
        if (found) snprintf(device, size, "/dev/%s", entry->d_name);
    }
    if (ports) closedir(ports);
    return found;
}

/* The host announces its ports one by one; the status port is the last on its command line. */
bool ports_ready(void) {
    char device[300];
    return find_port("org.drumhead.status", device, sizeof device);
}

int open_port(const char *name) {
    char device[300];
    return find_port(name, device, sizeof device) ? open(device, O_RDWR | O_CLOEXEC) : -1;
}

void report(const char *format, ...) {
    char line[4096];
    va_list values;
    va_start(values, format);
    int size = vsnprintf(line, sizeof line, format, values);
    va_end(values);
    if (status_port < 0) status_port = open_port("org.drumhead.status");
    if (size >= (int)sizeof line) size = sizeof line - 1;
    if (status_port >= 0 && size > 0) write_all(status_port, line, (size_t)size);
}

bool buffer_send(struct buffer *buffer, int fd) {
    while (buffer->from < buffer->to) {
        ssize_t written = write(fd, buffer->bytes + buffer->from, buffer->to - buffer->from);
        if (written < 0) return errno == EAGAIN || errno == EINTR;
        buffer->from += (size_t)written;
    }
    buffer->from = buffer->to = 0;
    return true;
}
