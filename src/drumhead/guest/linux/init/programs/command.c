/* The machine's command: start it, relay its output, stop it, and handle its end. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../init.h"

static pid_t command;   /* 0: none; the machine only serves exec sessions */
static int output = -1; /* the output of the command */
static double kill_at;  /* when to kill the command after a stop; 0: no stop was requested */
static double stop_grace;
static char reason[512]; /* why the command did not start, or ended before it was stopped; may be empty */
static const struct json *next_before; /* commands that run to their end first, one after another */
static const struct json *last;        /* the machine's command */

/* An interpreter that was started before the machine was saved, and has imported the modules that the image names. To
 * become the command it forks, because libraries reseed their random numbers in the child of a fork. */
static struct { pid_t pid; int talk; const char *order; } warm = {.talk = -1};

/* Send the order. The process that answers is the command. */
static bool start_warm(void) {
    char answer[32] = "";
    if (warm.talk < 0 || !warm.order) return false;
    write_all(warm.talk, warm.order, strlen(warm.order));
    write_all(warm.talk, "\n", 1);
    ssize_t got = read(warm.talk, answer, sizeof answer - 1);
    command = got > 0 ? atoi(answer) : 0;
    if (command <= 0) fail("the warm interpreter did not start the command");
    close(warm.talk); /* the warm interpreter ends now */
    warm.talk = -1;
    report("{\"event\":\"started\",\"pid\":%d}\n", command);
    return true;
}

static void end_warm(void) {
    if (warm.talk < 0) return;
    kill(warm.pid, SIGKILL);
    close(warm.talk);
    close(output);
    warm.talk = output = -1;
}

static void start(const struct json *record) {
    struct program program;
    int ends[2];
    if (!record) fail("the machine was given no command");
    if (!last && start_warm()) return;
    end_warm();
    if (!program_from(record, &program)) { /* an empty command: only serve exec sessions until stopped */
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
    snprintf(reason, sizeof reason, "%s", start_fault());
    if (!*reason) report("{\"event\":\"started\",\"pid\":%d}\n", command);
    program_free(&program);
}

static void start_next(void) {
    const struct json *record = next_before ? next_before : last;
    if (next_before)
        next_before = next_before->next;
    else
        last = NULL;
    start(record);
}

/* The log must not be full. */
static ssize_t relay_output(void) {
    char bytes[16384];
    ssize_t got = read(output, bytes, sizeof bytes);
    if (got > 0) {
        log_write(bytes, (size_t)got);
    } else if (got == 0 || errno != EINTR) {
        close(output);
        output = -1;
    }
    return got;
}

/* Start the interpreter and wait until it writes "ready" to its standard input, a socket. Its output goes to the log.
*/
void command_warm(const struct json *record) {
    struct program program;
    char said[16] = "";
    int ends[2], talk[2];
    if (!program_from(record, &program)) return;
    if (pipe2(ends, O_CLOEXEC) != 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, talk) != 0)
        fail("cannot make a pipe: %s", strerror(errno));
    warm.pid = start_program(&program, talk[1], ends[1], ends[1], false);
    if (warm.pid < 0) fail("cannot start a process: %s", strerror(errno));
    close(talk[1]);
    close(ends[1]);
    warm.talk = talk[0];
    output = ends[0];
    program_free(&program);
    for (;;) {
        struct pollfd wanted[] = {{.fd = output, .events = POLLIN}, {.fd = warm.talk, .events = POLLIN}};
        if (poll(wanted, 2, -1) < 0) continue;
        if (wanted[0].revents && output >= 0) relay_output();
        log_wait();
        if (!wanted[1].revents) continue;
        if (read(warm.talk, said, sizeof said - 1) <= 0) fail("the interpreter ended before it had imported everything");
        return;
    }
}

void command_expect(const char *order) { warm.order = order; }

void command_start(const struct json *before, const struct json *record, double grace) {
    stop_grace = grace;
    next_before = before ? before->child : NULL;
    last = record;
    start_next();
}

void command_stop(double grace) {
    if (!command) {
        report("{\"event\":\"exit\",\"code\":0}\n");
        switch_off();
    }
    if (kill_at == 0) kill(command, SIGTERM);
    kill_at = now() + (grace < 0 ? stop_grace : grace);
}

/* Relay what the pipe holds. Its children may write for ever; their output from now on is lost. */
static void relay_last_output(void) {
    int left = 0;
    if (output >= 0) ioctl(output, FIONREAD, &left);
    log_wait();
    while (output >= 0 && left > 0) {
        ssize_t got = relay_output();
        if (got > 0) left -= (int)got;
        log_wait();
    }
}

/* Say what the exit status does not: why the command was killed, or that a command before it failed. */
static void explain(int status) {
    char daemon[32];
    if (kill_at != 0) return;
    if (exit_code(status) == KILLED && killed_for_memory() > 0)
        snprintf(reason, sizeof reason, NO_MEMORY, "the command");
    else if (WIFSIGNALED(status))
        snprintf(reason, sizeof reason, "the command was killed by signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else if (last && exit_code(status) != 0 && !*reason)
        snprintf(reason, sizeof reason, "an earlier config set ended with status %d, so the last one did not run",
                 exit_code(status));
    else if (!last && exit_code(status) == 0 && find_daemon(command, daemon, sizeof daemon))
        snprintf(reason, sizeof reason, "a machine ends with its command, but %s went on in the background; start it with "
                 "the option that keeps it in the foreground", daemon);
}

static void command_ended(int status) {
    relay_last_output();
    syslog_relay_last();
    explain(status);
    if (exit_code(status) == 0 && last && kill_at == 0) {
        if (output >= 0) close(output); /* a child of the command still holds it */
        start_next();
        return;
    }
    char *quoted = json_quote(reason);
    report("{\"event\":\"exit\",\"code\":%d,\"reason\":%s}\n", exit_code(status), quoted ? quoted : "\"\"");
    switch_off();
}

void command_reap(pid_t pid, int status) {
    if (pid == command) command_ended(status);
}

void command_polls(struct pollfd *polls) {
    polls[0] = (struct pollfd){.fd = log_is_full() ? -1 : output, .events = POLLIN};
}

void command_events(const struct pollfd *polls) {
    if (polls[0].revents) relay_output();
}

/* Return the milliseconds until the command is killed after a stop, or -1 if no stop was requested. */
int command_time_left(void) {
    double left = kill_at - now();
    return kill_at == 0 ? -1 : left > 0 ? (int)(left * 1000) + 1 : 0;
}

void command_kill_when_due(void) {
    if (kill_at != 0 && now() >= kill_at && command) kill(command, SIGKILL);
}
