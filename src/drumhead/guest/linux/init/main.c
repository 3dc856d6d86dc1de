/* The order of events: boot, start the command, wait for events until the machine ends. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "init.h"

static void reap(void) {
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        command_reap(pid, status);
        sessions_reap(pid, status);
        console_reap(pid);
    }
}

/* End a machine that has no memory for a program, which would only read its files again and again. The kernel and the
 * devices of some versions of QEMU take 20 MB more than those of others. */
static void require_memory(void) {
    enum { LEAST_KB = 8192 };
    char *text = read_file("/proc/meminfo"), *line = text ? strstr(text, "MemAvailable:") : NULL;
    long left = line ? strtol(strchr(line, ':') + 1, NULL, 10) : LEAST_KB;
    free(text);
    if (left < LEAST_KB) fail("only %ld MB are left for a program; give the machine more memory", left / 1024);
}

static void boot_exported(void) {
    const struct json *config = exported_config();
    exported_prepare();
    configure(config, exported_command(config), false);
}

static void boot(void) {
    char *text = read_file("/drumhead/config.json");
    struct json *config = text ? json_parse(text) : NULL;
    if (text && !config) fail("the configuration is not JSON");
    unlink("/drumhead/config.json");
    load_modules(!config);
    if (config) wait_for_devices(ports_ready, "the channel to the host", 10);
    log_open();
    syslog_open("/dev/log");
    set_up_swap();
    mount_root(json_text(config, "overlay", ""));
    control_open();
    sessions_open();
    console_open();
    require_memory();
    if (json_get(config, "warm"))
        warm_up(json_get(config, "warm"));
    else if (config)
        configure(config, json_get(config, "command"), false);
    else
        boot_exported();
}

enum { SIGNALS, DEVICES, OUTPUT, SYSLOG, LOG, CONSOLE, CONTROL, BUTTON, FIRST_SESSION, ALL_POLLS = FIRST_SESSION + SESSIONS * SESSION_POLLS };

static void read_signals(int signals) {
    struct signalfd_siginfo signal;
    while (read(signals, &signal, sizeof signal) == sizeof signal)
        if (signal.ssi_signo == SIGTERM || signal.ssi_signo == SIGINT) command_stop(-1);
    control_wake();
    sessions_wake();
    reap();
}

/* Return the shorter of two times in milliseconds; -1 means forever. */
static int shorter(int one, int other) { return one < 0 ? other : other < 0 || one < other ? one : other; }

static void wait_for_events(int signals, int devices) {
    struct pollfd wanted[ALL_POLLS] = {
        [SIGNALS] = {.fd = signals, .events = POLLIN},
        [DEVICES] = {.fd = devices, .events = POLLIN},
    };
    command_polls(wanted + OUTPUT);
    syslog_polls(wanted + SYSLOG);
    log_polls(wanted + LOG);
    console_polls(wanted + CONSOLE);
    control_polls(wanted + CONTROL);
    exported_polls(wanted + BUTTON);
    for (int i = 0; i < SESSIONS; i++) session_polls(i, wanted + FIRST_SESSION + i * SESSION_POLLS);
    int time_left = shorter(listeners_time_left(), shorter(command_time_left(), console_time_left()));
    time_left = shorter(time_left, log_time_left());
    if (poll(wanted, ALL_POLLS, time_left) < 0) return;
    command_events(wanted + OUTPUT);
    syslog_events(wanted + SYSLOG);
    log_events(wanted + LOG);
    console_events(wanted + CONSOLE);
    control_events(wanted + CONTROL);
    exported_events(wanted + BUTTON);
    for (int i = 0; i < SESSIONS; i++) session_events(i, wanted + FIRST_SESSION + i * SESSION_POLLS);
    if (wanted[SIGNALS].revents) read_signals(signals);
    if (wanted[DEVICES].revents && port_announced(devices)) sessions_open();
    command_kill_when_due();
    listeners_look_when_due();
    clock_look_when_due();
    if (!wanted[CONSOLE].revents) console_retry();
}

/* Programs make tables for as many descriptors as they may open (HAProxy's have 64 bytes for each), so a small machine
   allows fewer: one for each KiB of its memory. */
static void limit_open_files(void) {
    struct sysinfo memory;
    rlim_t most = 1048576;
    if (sysinfo(&memory) == 0) {
        rlim_t fits = (rlim_t)memory.totalram * memory.mem_unit / 1024;
        if (fits < most) most = fits;
    }
    struct rlimit files = {.rlim_cur = most < 65536 ? most : 65536, .rlim_max = most};
    setrlimit(RLIMIT_NOFILE, &files);
}

int main(int count, char **words) {
    sigset_t watched;
    if (count > 1 && strcmp(words[1], "probe") == 0) { /* the host only tests whether a kernel boots */
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
    limit_open_files();
    mount_kernel_file_systems();
    reboot(RB_DISABLE_CAD);
    int devices = watch_devices();
    boot();
    int signals = signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0) fail("cannot wait for signals: %s", strerror(errno));
    for (;;) wait_for_events(signals, devices);
}
