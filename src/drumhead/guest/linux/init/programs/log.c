/* The output of the command on its way to the host.
 *
 * A host whose disk is full does not take it. The command then waits for a while; after that its output is dropped, so
 * that the command goes on, and a line in the log says how much is missing. Nothing else in the machine waits. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../init.h"

enum { PATIENCE = 10 }; /* seconds; a busy host may take nothing for a few of them */

static int port = -1;
static struct buffer waiting;
static double since;               /* when the host last took something of the buffer */
static unsigned long long dropped; /* bytes; all output is dropped until the host has taken the line about them */

/* Without a channel to the host the command writes to the console. */
void log_open(void) {
    port = open_port("org.drumhead.log");
    if (port < 0)
        port = STDERR_FILENO;
    else
        fcntl(port, F_SETFL, O_NONBLOCK);
}

bool log_is_full(void) { return waiting.to > 0; }

static void give(void) {
    size_t from = waiting.from;
    if (!buffer_send(&waiting, port)) waiting.from = waiting.to = 0;
    if (waiting.from != from) since = now();
}

void log_write(const char *bytes, size_t size) {
    if (dropped > 0) {
        dropped += size;
        return;
    }
    memcpy(waiting.bytes, bytes, size);
    waiting.to = size;
    since = now();
    give();
}

static void tell_dropped(void) {
    char line[120];
    int size = snprintf(line, sizeof line, "\ndrumhead: %llu bytes of output are missing here; the host did not take them\n", dropped);
    if (write(port, line, (size_t)size) == size) dropped = 0;
}

void log_polls(struct pollfd *polls) {
    polls[0] = (struct pollfd){.fd = log_is_full() || dropped > 0 ? port : -1, .events = POLLOUT};
}

void log_events(const struct pollfd *polls) {
    if (polls[0].revents & (POLLERR | POLLHUP)) { /* there is no host to take it, or to be told */
        waiting.from = waiting.to = 0;
        dropped = 0;
        return;
    }
    if (dropped > 0) {
        if (polls[0].revents & POLLOUT) tell_dropped();
        return;
    }
    if (polls[0].revents & POLLOUT) give();
    if (!log_is_full() || now() < since + PATIENCE) return;
    dropped = waiting.to - waiting.from;
    waiting.from = waiting.to = 0;
}

/* Return the milliseconds until output is dropped, or -1 if none waits. */
int log_time_left(void) {
    double left = since + PATIENCE - now();
    return !log_is_full() ? -1 : left > 0 ? (int)(left * 1000) + 1 : 0;
}

void log_wait(void) {
    while (log_is_full()) {
        struct pollfd wanted;
        log_polls(&wanted);
        if (poll(&wanted, 1, log_time_left()) >= 0) log_events(&wanted);
    }
}
