/* TCP sockets that listen, and their backlogs.
 *
 * If a program accepts fewer connections at a time than there are, the kernel drops the last packet of a handshake, and
 * QEMU's user network (libslirp 4.7) makes up for that badly: seconds pass, or the connection hangs for ever. Python's
 * http.server has a backlog of 5, and a browser opens 6 connections. So no backlog is shorter than LEAST. */
#include <ctype.h>
#include <dirent.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../init.h"

enum { LEAST = 128, MOST_LISTENERS = 64, LISTENS = 0x0A, FIRST_LOOK = 100, LAST_LOOK = 4000, MOST_SKIPPED = 15 };

struct listener { unsigned port; unsigned long inode; };

static struct listener known[MOST_LISTENERS]; /* have long backlogs */
static int known_count, pause_time;           /* pause_time: milliseconds between two looks; 0: never look */
static double next_look;

/* Tell whether sockets may have begun to listen since the last call. Reading all of them takes 40 ms of processor time
 * in an emulated machine; their numbers take little. Sockets that closed meanwhile can hide new ones, so the answer is
 * yes at least once a minute. */
static bool sockets_changed(void) {
    static unsigned before[3];
    static int skipped;
    unsigned counted[3] = {0};
    char *ipv4 = read_file("/proc/net/sockstat"), *ipv6 = read_file("/proc/net/sockstat6");
    if (ipv4) sscanf(ipv4, "sockets: used %u TCP: inuse %u", &counted[0], &counted[1]);
    if (ipv6) sscanf(ipv6, "TCP6: inuse %u", &counted[2]);
    free(ipv4);
    free(ipv6);
    bool changed = memcmp(before, counted, sizeof before) != 0 || ++skipped > MOST_SKIPPED;
    memcpy(before, counted, sizeof before);
    if (changed) skipped = 0;
    return changed;
}

static int read_listeners(struct listener *found) {
    static const char *const tables[] = {"/proc/net/tcp", "/proc/net/tcp6", NULL};
    int count = 0;
    for (int i = 0; tables[i]; i++) {
        char *table = read_file(tables[i]);
        for (char *row = table; row && count < MOST_LISTENERS && (row = strchr(row, '\n')); row++) {
            unsigned state;
            if (sscanf(row, " %*d: %*[0-9A-F]:%x %*[0-9A-F]:%*x %x %*x:%*x %*x:%*x %*x %*d %*d %lu",
                       &found[count].port, &state, &found[count].inode) == 3 && state == LISTENS)
                count++;
        }
        free(table);
    }
    return count;
}

static bool contains(const struct listener *list, int count, unsigned long inode) {
    for (int i = 0; i < count; i++)
        if (list[i].inode == inode) return true;
    return false;
}

static void raise_backlog(int process, int number) {
    struct tcp_info info;
    socklen_t size = sizeof info;
    int copy = (int)syscall(SYS_pidfd_getfd, process, number, 0);
    if (copy < 0) return; /* the program has just closed it */
    bool listening = getsockopt(copy, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 && info.tcpi_state == LISTENS;
    if (listening && info.tcpi_sacked < LEAST) listen(copy, LEAST); /* tcpi_sacked: the backlog of a listening socket */
    close(copy);
}

static void raise_in_process(const char *id, const struct listener *found, int count) {
    char path[300], target[64];
    snprintf(path, sizeof path, "/proc/%s/fd", id);
    DIR *files = opendir(path);
    int process = files ? (int)syscall(SYS_pidfd_open, atoi(id), 0) : -1;
    for (struct dirent *file; process >= 0 && (file = readdir(files));) {
        unsigned long inode;
        snprintf(path, sizeof path, "/proc/%s/fd/%s", id, file->d_name);
        ssize_t length = readlink(path, target, sizeof target - 1);
        target[length < 0 ? 0 : length] = 0;
        if (sscanf(target, "socket:[%lu]", &inode) == 1 && contains(found, count, inode) &&
            !contains(known, known_count, inode))
            raise_backlog(process, atoi(file->d_name));
    }
    if (process >= 0) close(process);
    if (files) closedir(files);
}

static void raise_backlogs(const struct listener *found, int count) {
    bool all_known = true;
    for (int i = 0; i < count; i++) all_known = all_known && contains(known, known_count, found[i].inode);
    DIR *processes = all_known ? NULL : opendir("/proc");
    for (struct dirent *entry; processes && (entry = readdir(processes));)
        if (isdigit((unsigned char)entry->d_name[0])) raise_in_process(entry->d_name, found, count);
    if (processes) closedir(processes);
    memcpy(known, found, (size_t)count * sizeof *found);
    known_count = count;
}

bool listens_on(unsigned port) {
    struct listener found[MOST_LISTENERS];
    int count = read_listeners(found);
    if (pause_time) raise_backlogs(found, count);
    for (int i = 0; i < count; i++)
        if (found[i].port == port) return true;
    return false;
}

/* The kernel reports no new listeners, so look for them: often after the start, then every few seconds. */
void listeners_watch(void) {
    pause_time = FIRST_LOOK;
    next_look = now() + pause_time / 1e3;
}

int listeners_time_left(void) {
    if (!pause_time) return -1;
    double left = next_look - now();
    return left <= 0 ? 0 : (int)(left * 1000) + 1;
}

void listeners_look_when_due(void) {
    struct listener found[MOST_LISTENERS];
    if (!pause_time || now() < next_look) return;
    if (sockets_changed()) raise_backlogs(found, read_listeners(found));
    pause_time = pause_time < LAST_LOOK / 2 ? pause_time * 2 : LAST_LOOK;
    next_look = now() + pause_time / 1e3;
}
