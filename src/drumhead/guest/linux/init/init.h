/* The init process of a Linux guest. docs/internals/drumhead.md, "Guest (Linux)", describes its interface to the host.
 *
 *   main.c      the order of events, and the loop that waits for them
 *   configure.c names, cards, volumes, secrets and the command of a machine
 *   boot.c      modules, disks, the root file system, volumes;  swap.c     compressed memory
 *   control.c   requests from the host;                           end.c      a clean end
 *   warm.c      a machine that is saved before its command starts, and configured when it is resumed
 *   exported.c  a machine on an exported disk, configured by other disks
 *   clock.c     the wall clock, which follows the host's
 *   network/    cards.c: addresses and names;                   dhcp.c     leases;  announce.c  to neighbours
 *               listeners.c: sockets that listen, with their backlogs
 *   programs/   command.c: the machine's command;               log.c      its output, on the way to the host
 *               syslog.c: messages to /dev/log
 *               session.c: programs that the host starts beside it
 *               console.c: a shell on the serial console;       process.c  starting a program
 *   parse/      JSON and DHCP messages;                         base/      files, time, virtio-serial ports
 */
#pragma once

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/base.h"
#include "parse/dhcp_message.h"
#include "parse/json.h"

/* end.c */
void switch_off(void) __attribute__((noreturn));
void power_off_at_end(void); /* instead of a reset, with which a machine ends under drumhead */
void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn)); /* report, switch off */

/* boot.c */
void mount_kernel_file_systems(void);
void load_modules(bool exported);
bool find_disk(const char *serial, char *device, size_t size);
void wait_for_devices(bool (*ready)(void), const char *what, double seconds);
void mount_root(const char *overlay_serial); /* layers under an overlay become / */
void mount_volumes(const struct json *mounts, bool spare); /* spare: the disks were empty when the kernel found them */
void write_secrets(const struct json *secrets); /* name: text, as /run/secrets/NAME */

/* configure.c */
void configure(const struct json *config, const struct json *command, bool resumed);

/* warm.c */
void warm_up(const struct json *interpreter);
bool warm_configure(struct json *request); /* false: this machine does not wait for a configuration */

/* clock.c */
bool set_clock(double seconds); /* since the epoch */
void clock_follow(void); /* from now on, follow the host's clock */
void clock_look_when_due(void);

/* exported.c */
struct json *exported_config(void); /* NULL: there is none */
struct json *exported_command(const struct json *config);
void exported_prepare(void); /* secrets, the power button */

/* swap.c */
void set_up_swap(void);

/* network/cards.c */
void set_up_network(const struct json *nics);
void write_hosts(const char *hostname, const struct json *hosts, const struct json *hosts6);

/* network/announce.c */
void announce_address(const char *card, uint32_t address); /* in network byte order */

/* network/listeners.c */
bool listens_on(unsigned port);
void listeners_watch(void); /* from now on, lengthen short backlogs */
int listeners_time_left(void);
void listeners_look_when_due(void);

/* network/dhcp.c */
bool dhcp_acquire(const char *card, struct lease *, double seconds); /* INFINITY: wait until there is one */
void dhcp_hold(const char *card, const struct lease *); /* before it is kept, so that dhcp_release returns it */
void dhcp_release(void); /* every lease */
void dhcp_keep(const char *card, struct lease, void (*apply)(const char *card, const struct lease *))
    __attribute__((noreturn)); /* a lease without an address is acquired first */

/* programs/process.c */
struct program { char **argv; char **env; const char *cwd; bool expendable; /* killed first when no memory is left */ };
bool program_from(const struct json *command, struct program *);
void program_free(struct program *);
pid_t start_program(const struct program *, int in, int out, int err, bool terminal);
const char *start_fault(void); /* why the program of the last call did not start; empty if it runs */
int exit_code(int wait_status); /* 128 + n after signal n */
bool find_daemon(pid_t starter, char *name, size_t size); /* a program that has left the session of what started it */
int killed_for_memory(void); /* how many programs the kernel has killed since the machine started */
enum { KILLED = 128 + 9 }; /* the exit code after SIGKILL, also that of a shell whose program was killed */
#define NO_MEMORY "the machine ran out of memory, and the kernel killed %s; give it more (-m)"

/* The ..._polls functions below fill in the events to wait for (one entry; SESSION_POLLS entries for a session), and the
 * ..._events functions handle them. */

/* programs/log.c */
void log_open(void);
bool log_is_full(void); /* the host has not taken what was written last */
void log_write(const char *bytes, size_t size); /* at most a buffer; the log must not be full */
void log_wait(void); /* until the log is not full */
void log_polls(struct pollfd *);
void log_events(const struct pollfd *);
int log_time_left(void);

/* programs/syslog.c */
void syslog_open(const char *path);
void syslog_relay_last(void); /* what has come before the end of the command */
void syslog_polls(struct pollfd *);
void syslog_events(const struct pollfd *);

/* programs/command.c */
void command_warm(const struct json *interpreter); /* start it and wait until it has imported its modules */
void command_expect(const char *order); /* the line that makes the warm interpreter become the command, or NULL */
void command_start(const struct json *before, const struct json *command, double grace);
void command_stop(double grace); /* SIGTERM now, SIGKILL after `grace` seconds; negative: the configured grace */
void command_polls(struct pollfd *);
void command_events(const struct pollfd *);
void command_reap(pid_t, int status);
int command_time_left(void);
void command_kill_when_due(void);

/* control.c */
void control_open(void);
void control_polls(struct pollfd *);
void control_events(const struct pollfd *);
void control_wake(void); /* a client may have connected or disconnected */

/* programs/session.c */
enum { SESSIONS = 4, SESSION_POLLS = 4 };
void sessions_open(void); /* opens the ports that have appeared */
void session_polls(int index, struct pollfd *);
void session_events(int index, const struct pollfd *);
void sessions_wake(void);
void sessions_reap(pid_t, int status);
bool sessions_own(pid_t);
bool session_signal(int index, int number); /* to the program of a session; false: none runs there */

/* exported.c */
void exported_polls(struct pollfd *);
void exported_events(const struct pollfd *);

/* programs/console.c */
void console_open(void);
void console_polls(struct pollfd *);
void console_events(const struct pollfd *);
void console_reap(pid_t);
bool console_owns(pid_t);
int console_time_left(void);
void console_retry(void); /* open a terminal that hung up again */
