/* Programs that the host starts beside the command: one port each, one session at a time.
 *
 * The host sends a line of JSON {"argv","env","cwd","tty","rows","cols","token","confirm"}, then frames: a byte of type,
 * the payload's size (u32, big-endian), the payload.
 *   from the host   g go   0 input (empty: end of it)   r rows, cols (u16 each)   s signal (u8)   q end of the session
 *   to the host     o request received (the token)      1 output   2 errors       x exit code (u8)
 * The host repeats a request for which it gets no o in time. With "confirm", the program starts after g, so it starts once.
 * A signal may also come over the control port, where it does not wait behind input that the program does not read.
 * If a client was killed, the rest of its session stays in the port; the next client skips it up to its own token. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "../init.h"

enum { HEADER = 5, MAX_PAYLOAD = 65536, MAX_REQUEST = 1 << 20 }; /* a request holds all variables of the machine */
enum { PORT, IN, OUT, ERR };

struct session {
    enum { IDLE, ASKED, RUNNING, OVER } state; /* asked: a request waits for the host to confirm it */
    int port, in, out, err;
    bool connected, terminal, blocked; /* blocked: the first frame waits for the program to read */
    pid_t pid;   /* 0 once it was reaped */
    int code;
    char *line;           /* the request, until its program starts; its parts point into the line */
    struct json *request;
    int killed_before; /* programs that the kernel killed for memory before this one started */
    struct buffer outgoing;
    size_t have, input_at; /* bytes received; how much of the first frame's payload the program has taken */
    char received[MAX_REQUEST]; /* takes memory only as far as it was ever filled */
};

static struct session sessions[SESSIONS];

void sessions_open(void) {
    static bool begun; /* initial values would put the whole array into the program's file */
    for (int i = 0; i < SESSIONS; i++) {
        char name[40];
        snprintf(name, sizeof name, "org.drumhead.exec.%d", i);
        struct session *session = &sessions[i];
        if (!begun) session->port = session->in = session->out = session->err = -1;
        if (session->port >= 0 || (session->port = open_port(name)) < 0) continue;
        session->connected = true;
        fcntl(session->port, F_SETOWN, getpid());
        fcntl(session->port, F_SETFL, O_NONBLOCK | O_ASYNC);
    }
    begun = true;
}

void sessions_wake(void) {
    for (int i = 0; i < SESSIONS; i++) sessions[i].connected = true;
}

static void close_end(int *end) {
    if (*end >= 0) close(*end);
    *end = -1;
}

static void put_frame(struct session *session, char type, const void *payload, size_t size) {
    struct buffer *to = &session->outgoing;
    uint32_t length = htonl((uint32_t)size);
    if (sizeof to->bytes - to->to < HEADER + size) return;
    to->bytes[to->to] = type;
    memcpy(to->bytes + to->to + 1, &length, sizeof length);
    memmove(to->bytes + to->to + HEADER, payload, size);
    to->to += HEADER + size;
    buffer_send(to, session->port);
}

static void forget_request(struct session *session) {
    json_free(session->request);
    free(session->line);
    session->request = NULL;
    session->line = NULL;
}

static void end_session(struct session *session, int state) {
    forget_request(session);
    close_end(&session->in);
    close_end(&session->out);
    close_end(&session->err);
    session->state = state;
    session->blocked = false;
    session->input_at = 0;
}

/* End the program, and drop what its client has not read. */
static void abandon(struct session *session) {
    if (session->pid > 0) kill(-session->pid, SIGHUP);
    session->pid = 0;
    session->outgoing.from = session->outgoing.to = 0;
    end_session(session, IDLE);
}

static void hang_up(struct session *session) {
    abandon(session);
    session->have = 0;
    session->connected = false;
}

static bool start_on_terminal(struct session *session, const struct json *request, const struct program *program) {
    struct winsize size = {.ws_row = (unsigned short)json_number(request, "rows", 24),
                           .ws_col = (unsigned short)json_number(request, "cols", 80)};
    int master, slave;
    if (openpty(&master, &slave, NULL, NULL, &size) != 0) return false;
    fcntl(master, F_SETFD, FD_CLOEXEC);
    session->pid = start_program(program, slave, slave, slave, true);
    close(slave);
    session->in = master;
    session->out = fcntl(master, F_DUPFD_CLOEXEC, 0);
    return session->pid > 0;
}

static bool start_on_pipes(struct session *session, const struct program *program) {
    int in[2], out[2], err[2];
    if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0) return false;
    session->pid = start_program(program, in[0], out[1], err[1], false);
    close(in[0]);
    close(out[1]);
    close(err[1]);
    session->in = in[1];
    session->out = out[0];
    session->err = err[0];
    return session->pid > 0;
}

static void start(struct session *session) {
    const struct json *request = session->request;
    struct program program;
    unsigned char code = 126;
    session->terminal = json_number(request, "tty", 0) != 0;
    bool good = program_from(request, &program);
    if (good) {
        program.expendable = true; /* rather than the command, whose end is that of the machine */
        session->killed_before = killed_for_memory();
        good = session->terminal ? start_on_terminal(session, request, &program) : start_on_pipes(session, &program);
        program_free(&program);
    }
    forget_request(session);
    if (good) {
        fcntl(session->in, F_SETFL, O_NONBLOCK);
        session->state = RUNNING;
    } else {
        put_frame(session, 'x', &code, 1);
        end_session(session, OVER);
    }
}

static void take_request(struct session *session, const char *line) {
    session->line = strdup(line);
    if (!session->line) fail("out of memory");
    session->request = json_parse(session->line);
    session->state = ASKED;
    const char *token = json_text(session->request, "token", "");
    put_frame(session, 'o', token, strlen(token) < 64 ? strlen(token) : 0);
    if (json_number(session->request, "confirm", 0) == 0) start(session);
}

/* Give the program the rest of an input frame. Return false if it does not accept more for now. */
static bool give_input(struct session *session, const char *payload, size_t size) {
    if (size == 0) {
        if (session->terminal)
            write(session->in, "\x04", 1);
        else
            close_end(&session->in);
    }
    while (session->input_at < size && session->in >= 0) {
        ssize_t written = write(session->in, payload + session->input_at, size - session->input_at);
        if (written < 0 && errno == EAGAIN) return false;
        if (written < 0)
            close_end(&session->in); /* it has closed its input: drop the rest */
        else
            session->input_at += (size_t)written;
    }
    session->input_at = 0;
    return true;
}

bool session_signal(int index, int number) {
    return index >= 0 && index < SESSIONS && sessions[index].pid > 0 && kill(-sessions[index].pid, number) == 0;
}

static bool take_frame(struct session *session, char type, const char *payload, size_t size) {
    const unsigned char *bytes = (const unsigned char *)payload;
    if (type == 'q') {
        if (session->pid > 0) kill(-session->pid, SIGHUP);
        session->pid = 0;
        end_session(session, IDLE);
    } else if (session->state == ASKED && type == 'g') {
        start(session);
    } else if (session->state == RUNNING && type == '0') {
        return give_input(session, payload, size);
    } else if (session->state == RUNNING && type == 'r' && size == 4) {
        struct winsize window = {.ws_row = (unsigned short)(bytes[0] << 8 | bytes[1]),
                                 .ws_col = (unsigned short)(bytes[2] << 8 | bytes[3])};
        ioctl(session->in, TIOCSWINSZ, &window);
    } else if (type == 's' && size == 1) {
        session_signal((int)(session - sessions), bytes[0]);
    }
    return true;
}

static void drop(struct session *session, size_t size) {
    session->have -= size;
    memmove(session->received, session->received + size, session->have);
}

/* Process the received data. */
static void advance(struct session *session) {
    session->blocked = false;
    while (!session->blocked) {
        if (session->state == IDLE) {
            char *end = memchr(session->received, '\n', session->have);
            if (!end) {
                if (session->have == sizeof session->received) session->have = 0;
                return;
            }
            *end = 0;
            size_t size = (size_t)(end + 1 - session->received);
            take_request(session, session->received);
            drop(session, size);
            continue;
        }
        uint32_t size;
        if (session->have > 0 && session->received[0] == '{') { /* a request: init did not see the last client leave */
            abandon(session);
            continue;
        }
        if (session->have < HEADER) return;
        memcpy(&size, session->received + 1, sizeof size);
        size = ntohl(size);
        if (size > MAX_PAYLOAD) { /* not a valid frame: wait for the next client */
            hang_up(session);
            return;
        }
        if (session->have < HEADER + size) return;
        session->blocked = !take_frame(session, session->received[0], session->received + HEADER, size);
        if (!session->blocked) drop(session, HEADER + size);
    }
}

static void receive(struct session *session, short events) {
    ssize_t got = read(session->port, session->received + session->have, sizeof session->received - session->have);
    if (got > 0) {
        session->have += (size_t)got;
        advance(session);
    } else if (got == 0 || (errno != EAGAIN && errno != EINTR) || events != POLLIN) {
        hang_up(session);
    }
}

/* Forward output of the program. `events` tell whether more can come if there is none now. */
static void relay(struct session *session, int *end, char type, short events) {
    char bytes[16384];
    ssize_t got = read(*end, bytes, sizeof bytes);
    if (got > 0)
        put_frame(session, type, bytes, (size_t)got);
    else if (got == 0 || (errno != EINTR && errno != EAGAIN) || events != POLLIN)
        close_end(end);
}

static void explain(struct session *session) {
    char text[160];
    if (session->code != KILLED || killed_for_memory() <= session->killed_before) return;
    const char *end = session->terminal ? "\r\n" : "\n";
    int size = snprintf(text, sizeof text, "drumhead: " NO_MEMORY "%s", "the program", end);
    put_frame(session, '2', text, (size_t)size);
}

/* Report the end of the program once its output is forwarded. Do not wait for children that keep the output open. */
static void finish(struct session *session) {
    struct pollfd left[2] = {{.fd = session->out, .events = POLLIN}, {.fd = session->err, .events = POLLIN}};
    unsigned char code = (unsigned char)session->code;
    if (session->outgoing.to > 0 || (poll(left, 2, 0) > 0 && ((left[0].revents | left[1].revents) & POLLIN))) return;
    explain(session);
    put_frame(session, 'x', &code, 1);
    end_session(session, OVER);
    advance(session);
}

void session_polls(int index, struct pollfd *polls) {
    struct session *session = &sessions[index];
    bool clear = session->outgoing.to == 0;
    short port = (short)((session->blocked ? 0 : POLLIN) | (clear ? 0 : POLLOUT));
    polls[PORT] = (struct pollfd){.fd = session->connected ? session->port : -1, .events = port};
    polls[IN] = (struct pollfd){.fd = session->blocked ? session->in : -1, .events = POLLOUT};
    polls[OUT] = (struct pollfd){.fd = clear ? session->out : -1, .events = POLLIN};
    polls[ERR] = (struct pollfd){.fd = clear ? session->err : -1, .events = POLLIN};
}

void session_events(int index, const struct pollfd *polls) {
    struct session *session = &sessions[index];
    short port = (short)(polls[PORT].revents & ~POLLOUT);
    if ((polls[PORT].revents & POLLOUT) && !buffer_send(&session->outgoing, session->port)) port = POLLERR;
    if (port & POLLIN)
        receive(session, port);
    else if (port)
        hang_up(session);
    if (polls[IN].revents && session->in == polls[IN].fd) {
        if (polls[IN].revents & (POLLERR | POLLNVAL)) close_end(&session->in); /* the program no longer reads it */
        advance(session);
    }
    if (polls[OUT].revents && session->out == polls[OUT].fd) relay(session, &session->out, '1', polls[OUT].revents);
    if (polls[ERR].revents && session->err == polls[ERR].fd && session->outgoing.to == 0)
        relay(session, &session->err, '2', polls[ERR].revents);
    if (session->state == RUNNING && session->pid == 0) finish(session);
}

bool sessions_own(pid_t pid) {
    for (int i = 0; i < SESSIONS; i++)
        if (sessions[i].pid == pid) return true;
    return false;
}

void sessions_reap(pid_t pid, int status) {
    for (int i = 0; i < SESSIONS; i++) {
        if (sessions[i].pid != pid) continue;
        sessions[i].pid = 0;
        sessions[i].code = exit_code(status);
        finish(&sessions[i]);
    }
}
