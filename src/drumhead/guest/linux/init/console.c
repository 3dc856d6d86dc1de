/* A shell on the serial console, for whoever presses a key there, if the image has one. */
#include <fcntl.h>
#include <unistd.h>

#include "init.h"

static const char terminal[] = "/dev/ttyS0";
static int keys = -1;
static pid_t shell;

void console_open(void) {
    if (access("/bin/sh", X_OK) == 0) keys = open(terminal, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
}

void console_polls(struct pollfd *polls) {
    polls[0] = (struct pollfd){.fd = shell ? -1 : keys, .events = POLLIN}; /* a shell reads for itself */
}

void console_events(const struct pollfd *polls) {
    static char *const argv[] = {"/bin/sh", "-i", NULL};
    static char *const env[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
                                "TERM=vt100", NULL};
    const struct program program = {.argv = (char **)argv, .env = (char **)env, .cwd = "/"};
    char pressed[64];
    if (!(polls[0].revents & POLLIN) || read(keys, pressed, sizeof pressed) <= 0) return;
    int line = open(terminal, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (line < 0) return;
    shell = start_program(&program, line, line, line, true);
    if (shell < 0) shell = 0;
    close(line);
}

void console_reap(pid_t pid) {
    if (pid == shell) shell = 0;
}
