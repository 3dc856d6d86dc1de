/* The first process of a Linux guest. docs/drumhead/design.md, "Guest (Linux)", says what it owes its host.
 *
 *   main.c      the order of things, the loop that waits for events, the end
 *   boot.c      modules, disks, the root file system, volumes;  swap.c  compressed memory
 *   network.c   cards, addresses, names;  dhcp.c  leases
 *   ports.c     virtio-serial ports;      control.c  what the host asks on one of them
 *   process.c   starting a program;       session.c  programs that the host starts beside the command
 *   console.c   a shell on the serial console;  json.c  reading JSON
 */
#pragma once

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* json.c: a value and, inside an array or object, its neighbours. Texts live as long as their document. */
struct json {
    enum { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT } kind;
    char *name;
    char *text;
    double number;
    struct json *child, *next;
};
struct json *json_parse(char *text); /* changes `text`, which must outlive the value; NULL when it is not JSON */
void json_free(struct json *);
const struct json *json_get(const struct json *object, const char *name);
const char *json_text(const struct json *object, const char *name, const char *otherwise);
double json_number(const struct json *object, const char *name, double otherwise);
char *json_quote(const char *text); /* as a JSON string, quotes included; the caller frees it */

/* main.c */
void say(const char *format, ...) __attribute__((format(printf, 1, 2))); /* a line on the console */
void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn)); /* report, switch off */
void begin_stop(double grace); /* SIGTERM to the command now, SIGKILL after `grace` seconds */
double now(void);              /* monotonic seconds */
char *read_file(const char *path);
bool write_file(const char *path, const char *text);
void make_directories(const char *path);

/* boot.c */
void mount_kernel_file_systems(void);
void load_modules(void);
void wait_for_devices(bool (*ready)(void), const char *what, double seconds);
void mount_root(const char *overlay_serial); /* layers under an overlay become / */
void mount_volumes(const struct json *mounts);
void unmount_all(void);

/* swap.c */
void set_up_swap(void);

/* network.c */
struct lease { uint32_t address, netmask, gateway, nameserver, server, seconds; }; /* network byte order, but seconds */
void set_up_network(const struct json *nics);
void apply_lease(const char *card, const struct lease *);
void write_hosts(const char *hostname, const struct json *hosts);
/* dhcp.c */
bool dhcp_acquire(const char *card, struct lease *, double seconds);
void dhcp_renew_forever(const char *card, struct lease) __attribute__((noreturn));

/* ports.c */
int open_port(const char *name); /* -1 when there is none */
bool ports_ready(void);
void write_all(int fd, const void *bytes, size_t size);
void report(const char *format, ...) __attribute__((format(printf, 1, 2))); /* one line on the status port */

/* process.c */
struct program { char **argv; char **env; const char *cwd; };
bool program_from(const struct json *command, struct program *);
void program_free(struct program *);
pid_t start_program(const struct program *, int in, int out, int err, bool terminal);

/* A buffer between two descriptors: filled only when empty, so that a slow reader slows its writer. */
struct buffer { size_t from, to; char bytes[32768]; };
bool buffer_send(struct buffer *, int fd); /* false: the other end is gone */

/* Each fills in what it waits for (one entry, a session SESSION_POLLS) and is then told what came. */
void control_open(void);
void control_polls(struct pollfd *);
void control_events(const struct pollfd *);
void control_wake(void); /* a port changed: a client may have come or gone */
enum { SESSIONS = 4, SESSION_POLLS = 4 };
void sessions_open(void);
void session_polls(int index, struct pollfd *);
void session_events(int index, const struct pollfd *);
void sessions_wake(void);
void sessions_reap(pid_t, int status);
void console_open(void);
void console_polls(struct pollfd *);
void console_events(const struct pollfd *);
void console_reap(pid_t);
int exit_code(int wait_status); /* 128 + n after signal n */
