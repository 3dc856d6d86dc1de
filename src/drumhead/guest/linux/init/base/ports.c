/* Virtio-serial ports: found by name in sysfs, opened once. The host plugs some of them in when it first uses them. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
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

/* The kernel announces devices in netlink's group 1. musl has no header for these. */
enum { NETLINK_KOBJECT_UEVENT = 15 };
struct sockaddr_nl { sa_family_t family; unsigned short padding; unsigned port, groups; };

int watch_devices(void) {
    struct sockaddr_nl address = {.family = AF_NETLINK, .groups = 1};
    int announced = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
    if (announced >= 0 && bind(announced, (struct sockaddr *)&address, sizeof address) != 0) {
        close(announced);
        announced = -1;
    }
    return announced;
}

bool port_announced(int announced) {
    char text[4096];
    bool found = false;
    for (;;) {
        ssize_t size = recv(announced, text, sizeof text - 1, 0);
        if (size < 0 && errno == ENOBUFS) found = true; /* announcements were lost */
        else if (size < 0 && errno != EINTR) return found;
        if (size <= 0) continue;
        text[size] = 0; /* it begins with the action and the device's path */
        found = found || strstr(text, "/virtio-ports/");
    }
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
