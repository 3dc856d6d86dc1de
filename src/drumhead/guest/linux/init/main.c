/* The order of things: boot, start the command, wait for events, report how it ended, switch off. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "init.h"

static pid_t command;         /* 0: none, the machine only serves exec sessions */
static int output = -1;       /* what the command writes */
static int log_port = -1;
static double kill_at;        /* when a stop becomes a kill; 0: no stop was asked for */
static double stop_grace;

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

static _Noreturn void switch_off(void) {
    kill(-1, SIGKILL);
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR) {
    }
    unmount_all();
    reboot(RB_AUTOBOOT); /* QEMU runs with -no-reboot: a reset ends it, and needs no ACPI */
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
    write_all(file, text, strlen(text));
    return close(file) == 0;
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

void begin_stop(double grace) {
    if (!command) {
        report("{\"event\":\"exit\",\"code\":0}\n");
        switch_off();
    }
    if (kill_at == 0) kill(command, SIGTERM);
    kill_at = now() + (grace < 0 ? stop_grace : grace);
}

static void relay_output(void) {
    char bytes[16384];
    ssize_t got = read(output, bytes, sizeof bytes);
    if (got > 0) {
        write_all(log_port, bytes, (size_t)got);
    } else if (got == 0 || errno != EAGAIN) {
        close(output);
        output = -1;
    }
}

static _Noreturn void command_ended(int status) {
    /* What it wrote last is still in the pipe; what its children write from now on is lost with them. */
    while (output >= 0) {
        struct pollfd more = {.fd = output, .events = POLLIN};
        if (poll(&more, 1, 0) <= 0) break;
        relay_output();
    }
    report("{\"event\":\"exit\",\"code\":%d}\n", exit_code(status));
    switch_off();
}

static void reap(void) {
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == command) command_ended(status);
        sessions_reap(pid, status);
        console_reap(pid);
    }
}

/* What an exported disk holds instead of a configuration from its host. */
static struct json *read_own_command(void) {
    char *text = read_file("/etc/drumhead/run.json");
    struct json *known = text ? json_parse(text) : NULL;
    const char *chosen = json_text(known, "default", "");
    if (!known) fail("/etc/drumhead/run.json, which says what to run, is missing or damaged");
    struct json *command_record = (struct json *)json_get(json_get(known, "commands"), chosen);
    if (!command_record) fail("the image has no default command; give one with --run when composing");
    return command_record;
}

static void start_command(const struct json *record) {
    struct program program;
    int ends[2];
    if (!record) fail("the machine was given no command");
    if (!program_from(record, &program)) { /* an empty command: stay up for exec sessions until told to stop */
        report("{\"event\":\"started\",\"pid\":0}\n");
        return;
    }
    if (pipe2(ends, O_CLOEXEC) != 0) fail("cannot make a pipe: %s", strerror(errno));
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    command = start_program(&program, nothing, ends[1], ends[1], false);
    if (command < 0) fail("cannot start a process: %s", strerror(errno));
    close(nothing);
    close(ends[1]);
    output = ends[0];
    report("{\"event\":\"started\",\"pid\":%d}\n", command);
    program_free(&program);
}

static void boot(void) {
    char *text = read_file("/drumhead/config.json");
    struct json *config = text ? json_parse(text) : NULL;
    if (text && !config) fail("the configuration is not JSON");
    unlink("/drumhead/config.json");
    load_modules();
    if (config) wait_for_devices(ports_ready, "the channel to the host", 10);
    log_port = open_port("org.drumhead.log");
    if (log_port < 0) log_port = STDERR_FILENO;
    set_up_swap();
    mount_root(json_text(config, "overlay", ""));
    stop_grace = json_number(config, "stop_grace", 10);
    write_hosts(json_text(config, "hostname", "drumhead"), json_get(config, "hosts"));
    set_up_network(json_get(config, "nics"));
    mount_volumes(json_get(config, "mounts"));
    control_open();
    sessions_open();
    console_open();
    start_command(config ? json_get(config, "command") : read_own_command());
}

enum { SIGNALS, OUTPUT, CONSOLE, CONTROL, FIRST_SESSION, ALL_POLLS = FIRST_SESSION + SESSIONS * SESSION_POLLS };

static void read_signals(int signals) {
    struct signalfd_siginfo signal;
    while (read(signals, &signal, sizeof signal) == sizeof signal)
        if (signal.ssi_signo == SIGTERM || signal.ssi_signo == SIGINT) begin_stop(-1);
    control_wake();
    sessions_wake();
    reap();
}

static void wait_for_events(int signals) {
    struct pollfd wanted[ALL_POLLS] = {[SIGNALS] = {.fd = signals, .events = POLLIN},
                                       [OUTPUT] = {.fd = output, .events = POLLIN}};
    console_polls(wanted + CONSOLE);
    control_polls(wanted + CONTROL);
    for (int i = 0; i < SESSIONS; i++) session_polls(i, wanted + FIRST_SESSION + i * SESSION_POLLS);
    double left = kill_at - now();
    if (poll(wanted, ALL_POLLS, kill_at == 0 ? -1 : left > 0 ? (int)(left * 1000) + 1 : 0) < 0) return;
    if (wanted[OUTPUT].revents) relay_output();
    console_events(wanted + CONSOLE);
    control_events(wanted + CONTROL);
    for (int i = 0; i < SESSIONS; i++) session_events(i, wanted + FIRST_SESSION + i * SESSION_POLLS);
    if (wanted[SIGNALS].revents) read_signals(signals);
    if (kill_at != 0 && now() >= kill_at && command) kill(command, SIGKILL);
}

int main(int count, char **words) {
    sigset_t watched;
    if (count > 1 && strcmp(words[1], "probe") == 0) { /* the host only asks whether a kernel gets this far */
        say("booted");
        reboot(RB_AUTOBOOT);
    }
    sigemptyset(&watched);
    sigaddset(&watched, SIGCHLD);
    sigaddset(&watched, SIGIO); /* a port's other end was opened or closed */
    sigaddset(&watched, SIGTERM);
    sigaddset(&watched, SIGINT);
    sigprocmask(SIG_BLOCK, &watched, NULL);
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files = {.rlim_cur = 65536, .rlim_max = 1048576};
    setrlimit(RLIMIT_NOFILE, &files);
    mount_kernel_file_systems();
    reboot(RB_DISABLE_CAD);
    boot();
    int signals = signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0) fail("cannot wait for signals: %s", strerror(errno));
    for (;;) wait_for_events(signals);
}
