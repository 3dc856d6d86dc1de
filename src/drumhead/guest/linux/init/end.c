/* The end of the machine: clean disks, then a reset. */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <unistd.h>

#include "init.h"

/* Decode in place what the kernel wrote for a path: spaces, tabs, line ends and backslashes are \ooo. */
static void decode_path(char *path) {
    char *to = path;
    for (char *from = path; *from; to++) {
        if (from[0] == '\\' && from[1] && from[2] && from[3]) {
            *to = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
            from += 4;
        } else
            *to = *from++;
    }
    *to = 0;
}

/* Leave every disk clean: unmount or, if that fails, remount read-only, beginning with the newest mount. */
static void unmount_all(void) {
    char *table = read_file("/proc/mounts"), *line;
    while (table && (line = strrchr(table, '\n'))) {
        *line = 0;
        char *start = strrchr(table, '\n'), *rest = start ? start + 1 : table;
        char *device = strsep(&rest, " "), *path = strsep(&rest, " ");
        if (!path || strncmp(device, "/dev/", 5) != 0) continue;
        decode_path(path);
        if (umount2(path, 0) != 0) mount(NULL, path, NULL, MS_REMOUNT | MS_RDONLY, NULL);
    }
    free(table);
    sync();
}

static int ending = RB_AUTOBOOT; /* QEMU runs with -no-reboot, so a reset ends it without ACPI */

void power_off_at_end(void) { ending = RB_POWER_OFF; }

void switch_off(void) {
    kill(-1, SIGKILL);
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR) {
    }
    dhcp_release();
    unmount_all();
    reboot(ending);
    for (;;) pause();
}

void fail(const char *format, ...) {
    char reason[512];
    va_list values;
    va_start(values, format);
    vsnprintf(reason, sizeof reason, format, values);
    va_end(values);
    say("%s", reason);
    char *quoted = json_quote(reason);
    report("{\"event\":\"failed\",\"reason\":%s}\n", quoted ? quoted : "\"\"");
    switch_off();
}
