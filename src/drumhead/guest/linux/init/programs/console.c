/* A shell on the serial console. It is started when a line is typed there, if the image has a shell. */
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "../init.h"

enum { REOPEN_MILLISECONDS = 1000 };

static const char terminal[] = "/dev/ttyS0";
static bool wanted;
static int keys = -1;
static pid_t shell;

/* When a shell ends, its terminal hangs up for every open descriptor: reading returns nothing, and polling always
reports a
 * hang-up. Only a descriptor that is opened afterwards works. */
static void close_keys(void) {
    if (keys >= 0) close(keys);
    keys = -1;
}

static void open_keys(void) {
    if (wanted && !shell && keys < 0) keys = open(terminal, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
}

void console_open(void) {
    wanted = access("/bin/sh", X_OK) == 0;
    open_keys();
}

void console_polls(struct pollfd *polls) { polls[0] = (struct pollfd){.fd = keys, .events = POLLIN}; }

/* Return the milliseconds until a terminal that hung up is opened again, or -1. The delay matters if it hangs up at
once. */
int console_time_left(void) { return wanted && !shell && keys < 0 ? REOPEN_MILLISECONDS : -1; }

void console_retry(void) { open_keys(); }

static void start_shell(void) {
    static char *const argv[] = {"/bin/sh", "-i", NULL};
    static char *const env[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
                                "TERM=vt100", NULL};
    const struct program program = {.argv = (char **)argv, .env = (char **)env, .cwd = "/", .expendable = true};
    int line = open(terminal, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (line < 0) return;
    shell = start_program(&program, line, line, line, true);
    if (shell < 0) shell = 0;
    close(line);
    if (shell) close_keys(); /* the shell reads the keys */
}

/* What was typed or piped stays in the terminal, for the shell to read. */
void console_events(const struct pollfd *polls) {
    char rest[64];
    int typed = 0;
    if (!polls[0].revents) return;
    if (polls[0].revents == POLLIN && ioctl(keys, FIONREAD, &typed) == 0 && typed > 0) start_shell();
    if (shell) return;
    (void)!read(keys, rest, sizeof rest); /* Ctrl-D, or what no shell could be started for, would be waiting for ever */
    close_keys();
}

bool console_owns(pid_t pid) { return pid == shell; }

void console_reap(pid_t pid) {
    if (pid != shell) return;
    shell = 0;
    open_keys();
}
