/* The messages of syslog(3). Many servers say only there why they end, so init puts them into the output of the command.
 *
 * A message is "<PRIORITY>Mmm dd hh:mm:ss TAG: TEXT"; some programs leave out the time. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "../init.h"

enum { LONGEST = 8192, LAST = 100, TIME = sizeof "Mmm dd hh:mm:ss " - 1 };

static int messages = -1;

/* A program that takes the messages itself, such as rsyslog, puts its own socket in the place of this one. */
void syslog_open(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    messages = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (messages < 0 || bind(messages, (struct sockaddr *)&address, sizeof address) != 0 || chmod(path, 0666) != 0)
        say("programs cannot log to %s: %s", path, strerror(errno));
}

/* Return where the tag of a message begins. */
static const char *skip_head(const char *message) {
    if (*message == '<') {
        const char *end = message + 1 + strspn(message + 1, "0123456789");
        if (*end == '>') message = end + 1;
    }
    if (strlen(message) < TIME || message[3] != ' ' || message[9] != ':' || message[12] != ':' || message[15] != ' ')
        return message;
    return message + TIME;
}

/* Put one message into the log, which must not be full. Return false if there is none. */
static bool relay_message(void) {
    char message[LONGEST + 2];
    ssize_t size = recv(messages, message, LONGEST, 0);
    if (size < 0) return errno == EINTR;
    while (size > 0 && (message[size - 1] == '\0' || message[size - 1] == '\n')) size--;
    message[size] = '\0';
    const char *text = skip_head(message);
    size_t length = strlen(text);
    memmove(message, text, length);
    message[length] = '\n';
    log_write(message, length + 1);
    return true;
}

/* A socket holds fewer messages than LAST; other programs may send more for ever. */
void syslog_relay_last(void) {
    log_wait();
    for (int i = 0; i < LAST && messages >= 0 && relay_message(); i++) log_wait();
}

void syslog_polls(struct pollfd *polls) {
    polls[0] = (struct pollfd){.fd = log_is_full() ? -1 : messages, .events = POLLIN};
}

void syslog_events(const struct pollfd *polls) {
    if (polls[0].revents && !log_is_full()) relay_message();
}
