/* Requests from the host: JSON lines on the control port, each answered with one line. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "init.h"

static int port = -1;
static bool connected = true; /* a port without a client polls as hung up, so it is not polled again until SIGIO */
static char line[1 << 20]; /* a configuration with its secrets */
static size_t length;
static const char configuration[] = "{\"do\":\"configure\"";

void control_open(void) {
    port = open_port("org.drumhead.control");
    if (port < 0) return;
    fcntl(port, F_SETOWN, getpid());
    fcntl(port, F_SETFL, O_NONBLOCK | O_ASYNC);
}

/* A request may arrive before the kernel knows that its client is connected. Until then the port refuses writes. */
static void answer(const char *text) {
    size_t size = strlen(text);
    double deadline = now() + 1;
    while (size > 0) {
        ssize_t written = write(port, text, size);
        if (written > 0) {
            text += written;
            size -= (size_t)written;
        } else if (written == 0 || (errno != EAGAIN && errno != EINTR) || now() > deadline) {
            return;
        } else if (errno == EAGAIN) {
            usleep(1000);
        }
    }
}

static unsigned long long memory_field(const char *table, const char *name) {
    const char *line = table ? strstr(table, name) : NULL;
    return line ? strtoull(line + strlen(name), NULL, 10) << 10 : 0;
}

/* `free` is the memory that programs can still get, including the page cache that the kernel would give up. */
static void answer_memory(void) {
    char text[160], *table = read_file("/proc/meminfo");
    snprintf(text, sizeof text, "{\"ok\":true,\"memory\":{\"total\":%llu,\"free\":%llu}}\n",
             memory_field(table, "MemTotal:"), memory_field(table, "MemAvailable:"));
    free(table);
    answer(text);
}

/* Answer whether a program listens on a TCP port, so that the host's first connection is not lost. */
static void answer_listening(unsigned wanted) {
    answer(listens_on(wanted) ? "{\"ok\":true,\"listening\":true}\n" : "{\"ok\":true,\"listening\":false}\n");
}

static void handle_signal(const struct json *request) {
    bool sent = session_signal((int)json_number(request, "session", -1), (int)json_number(request, "number", 0));
    answer(sent ? "{\"ok\":true}\n" : "{\"ok\":false,\"reason\":\"no such program\"}\n");
}

static void handle(char *text) {
    struct json *request = json_parse(text);
    const char *what = json_text(request, "do", "");
    if (strcmp(what, "stop") == 0) {
        answer("{\"ok\":true}\n");
        command_stop(json_number(request, "grace", -1));
    } else if (strcmp(what, "hosts") == 0) {
        write_hosts(NULL, json_get(request, "hosts"), json_get(request, "hosts6"));
        answer("{\"ok\":true}\n");
    } else if (strcmp(what, "ping") == 0) {
        answer("{\"ok\":true}\n");
    } else if (strcmp(what, "listening") == 0) {
        answer_listening((unsigned)json_number(request, "port", 0));
    } else if (strcmp(what, "clock") == 0) { /* it stood still while the machine was paused */
        answer(set_clock(json_number(request, "time", -1)) ? "{\"ok\":true}\n" : "{\"ok\":false,\"reason\":\"no time\"}\n");
    } else if (strcmp(what, "signal") == 0) {
        handle_signal(request);
    } else if (strcmp(what, "memory") == 0) {
        answer_memory();
    } else {
        answer("{\"ok\":false,\"reason\":\"not understood\"}\n");
    }
    json_free(request);
}

/* The request is not freed, because the command is part of it. */
static void handle_configuration(const char *text) {
    char *copy = strdup(text);
    struct json *request = copy ? json_parse(copy) : NULL;
    if (request && warm_configure(request))
        answer("{\"ok\":true}\n");
    else
        answer("{\"ok\":false,\"reason\":\"it is configured already\"}\n");
}

void control_wake(void) { connected = true; }

void control_polls(struct pollfd *polls) {
    polls[0] = (struct pollfd){.fd = connected ? port : -1, .events = POLLIN};
}

void control_events(const struct pollfd *polls) {
    char *end;
    if (!polls[0].revents) return;
    ssize_t got = read(port, line + length, sizeof line - 1 - length);
    if (got <= 0) {
        if (got < 0 && (errno == EAGAIN || errno == EINTR) && polls[0].revents == POLLIN) return;
        connected = false;
        length = 0;
        return;
    }
    length += (size_t)got;
    line[length] = 0;
    while ((end = memchr(line, '\n', length))) {
        *end = 0;
        if (strncmp(line, configuration, strlen(configuration)) == 0)
            handle_configuration(line);
        else
            handle(line);
        length -= (size_t)(end + 1 - line);
        memmove(line, end + 1, length);
    }
    if (length == sizeof line - 1) length = 0;
}
