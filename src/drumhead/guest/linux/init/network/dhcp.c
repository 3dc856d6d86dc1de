/* A DHCP client (RFC 2131) for machines with one address per card.
 *
 * Every exchange has its own id, so that a late reply is not mistaken for an answer to the next request. Messages are
 * repeated after growing, random delays, so that machines that start at the same time do not send in step. */
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../init.h"

struct client {
    int socket;
    uint32_t id;
    double began; /* when the first message of this exchange was sent */
    uint8_t hardware[6];
    char name[64];
};

/* The leases of this machine. The process that keeps a lease writes it here, and init releases it. */
static struct held { char card[IFNAMSIZ]; struct lease lease; } *held;
enum { MAX_HELD = 8 };

enum { FIRST_WAIT = 2, LONGEST_WAIT = 32, REQUESTS = 4, LEAST_RENEWAL = 10, LEAST_RETRY = 5, RELEASE_TIME = 1 };

static bool client_open(struct client *client, const char *card) {
    struct ifreq question = {0};
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(68)};
    int yes = 1;
    strncpy(question.ifr_name, card, IFNAMSIZ - 1);
    client->socket = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (client->socket < 0) return false;
    setsockopt(client->socket, SOL_SOCKET, SO_BROADCAST, &yes, sizeof yes);
    setsockopt(client->socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    setsockopt(client->socket, SOL_SOCKET, SO_BINDTODEVICE, card, (socklen_t)strlen(card) + 1);
    if (ioctl(client->socket, SIOCGIFHWADDR, &question) != 0 ||
        bind(client->socket, (struct sockaddr *)&here, sizeof here) != 0) {
        close(client->socket);
        client->socket = -1;
        return false;
    }
    memcpy(client->hardware, question.ifr_hwaddr.sa_data, sizeof client->hardware);
    gethostname(client->name, sizeof client->name - 1);
    return true;
}

/* Return a random number from 0 to 1. */
static double chance(void) {
    uint32_t drawn = 0;
    getrandom(&drawn, sizeof drawn, GRND_NONBLOCK);
    return drawn / (double)UINT32_MAX;
}

static void begin(struct client *client) {
    uint32_t last = client->id;
    while (client->id == last) client->id = (uint32_t)(chance() * UINT32_MAX);
    client->began = now();
}

static void pause_for(double seconds) {
    struct timespec left = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - floor(seconds)) * 1e9)};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

static void client_send(const struct client *client, enum dhcp_kind kind, const struct lease *lease,
                        enum dhcp_purpose purpose) {
    struct dhcp_message message;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(67), .sin_addr.s_addr = INADDR_BROADCAST};
    double elapsed = now() - client->began;
    if (purpose == DHCP_RENEW || kind == DHCP_RELEASE) to.sin_addr.s_addr = lease->server;
    dhcp_write(&message, kind, client->id, client->hardware, lease, purpose,
               (uint16_t)(elapsed < UINT16_MAX ? elapsed : UINT16_MAX), client->name);
    sendto(client->socket, &message, sizeof message, 0, (struct sockaddr *)&to, sizeof to);
}

/* Wait until `deadline` for a reply of the kind `wanted`, or for a NAK if `wanted` is an ACK. Return DHCP_NONE if none
came.
 * Ignore other replies, such as duplicates and the offer of a second server. */
static enum dhcp_kind client_receive(const struct client *client, enum dhcp_kind wanted, struct lease *lease,
                                     double deadline) {
    double left;
    while ((left = deadline - now()) > 0) {
        struct dhcp_message message = {0};
        struct pollfd wait = {.fd = client->socket, .events = POLLIN};
        if (poll(&wait, 1, (int)(left * 1000) + 1) <= 0) continue;
        ssize_t got = recv(client->socket, &message, sizeof message, 0);
        if (got < 0 && errno != EINTR) pause_for(0.1); /* the card is down at the moment */
        struct lease found = *lease;
        enum dhcp_kind kind = got < 0 ? DHCP_NONE : dhcp_read(&message, (size_t)got, client->id, client->hardware, &found);
        if (kind == DHCP_NAK && wanted == DHCP_ACK) return kind;
        if (kind == DHCP_NONE || kind != wanted) continue;
        if (kind == DHCP_ACK && found.address != lease->address) continue; /* not the requested address */
        *lease = found;
        return kind;
    }
    return DHCP_NONE;
}

static double sooner(double one, double other) { return one < other ? one : other; }

/* Ask for an offer until `deadline`, then request the lease that it offers. */
static enum dhcp_kind select_lease(struct client *client, struct lease *lease, double deadline) {
    double wait = FIRST_WAIT;
    begin(client);
    do {
        if (now() >= deadline) return DHCP_NONE;
        client_send(client, DHCP_DISCOVER, lease, DHCP_SELECT);
        double until = now() + wait * (0.75 + chance() / 2);
        if (client_receive(client, DHCP_OFFER, lease, sooner(until, deadline)) == DHCP_OFFER) break;
        wait = sooner(wait * 2, LONGEST_WAIT);
    } while (true);
    wait = FIRST_WAIT;
    for (int i = 0; i < REQUESTS && now() < deadline; i++, wait *= 2) {
        client_send(client, DHCP_REQUEST, lease, DHCP_SELECT);
        double until = now() + wait * (0.75 + chance() / 2);
        enum dhcp_kind answer = client_receive(client, DHCP_ACK, lease, sooner(until, deadline));
        if (answer != DHCP_NONE) return answer;
    }
    return DHCP_NONE;
}

bool dhcp_acquire(const char *card, struct lease *lease, double seconds) {
    struct client client = {0};
    double deadline = now() + seconds, wait = FIRST_WAIT;
    bool good = false;
    if (!client_open(&client, card)) return false;
    while (!good && now() < deadline) {
        struct lease found = {0};
        good = select_lease(&client, &found, deadline) == DHCP_ACK;
        if (good) {
            *lease = found;
        } else if (now() < deadline) { /* refused, or the server went away after its offer */
            pause_for(sooner(wait, deadline - now()));
            wait = sooner(wait * 2, LONGEST_WAIT);
        }
    }
    close(client.socket);
    return good;
}

/* Renew the lease: ask its server, then every server, and give up when the lease ends. The first wait lasts until
 * `renew`, or for a while if that is too soon, and each later wait takes half of the time that remains until the next
 * stage. */
static bool renew(struct client *client, struct lease *lease) {
    double start = now(), rebind = start + lease->rebind, end = start + lease->seconds;
    double least = sooner(LEAST_RENEWAL, lease->seconds / 2.0);
    pause_for(lease->renew < least ? least : lease->renew);
    while (now() < end) {
        struct lease found = *lease;
        bool any = now() >= rebind;
        begin(client);
        client_send(client, DHCP_REQUEST, lease, any ? DHCP_REBIND : DHCP_RENEW);
        double left = (any ? end : rebind) - now();
        double until = now() + (left / 2 < LEAST_RETRY ? LEAST_RETRY : left / 2);
        enum dhcp_kind answer = client_receive(client, DHCP_ACK, &found, sooner(until, end));
        if (answer == DHCP_NAK) return false;
        if (answer == DHCP_NONE) continue;
        *lease = found;
        return true;
    }
    return false;
}

static void hold(const char *card, const struct lease *lease) {
    for (int i = 0; held && i < MAX_HELD; i++) {
        if (*held[i].card && strcmp(held[i].card, card) != 0) continue;
        held[i].lease = *lease;
        strncpy(held[i].card, card, IFNAMSIZ - 1);
        return;
    }
}

void dhcp_hold(const char *card, const struct lease *lease) {
    if (!held) held = mmap(NULL, MAX_HELD * sizeof *held, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (held == MAP_FAILED) held = NULL;
    hold(card, lease);
}

/* Return every lease to its server, so that a small pool of addresses is soon free for other machines. Wait for a moment
 * until the messages are sent: the kernel may first have to ask for the hardware address of the server. */
void dhcp_release(void) {
    for (int i = 0; held && i < MAX_HELD && *held[i].card; i++) {
        struct client client = {0};
        if (!held[i].lease.address || !client_open(&client, held[i].card)) continue;
        begin(&client);
        client_send(&client, DHCP_RELEASE, &held[i].lease, DHCP_SELECT);
        int unsent = 0;
        double deadline = now() + RELEASE_TIME;
        while (ioctl(client.socket, TIOCOUTQ, &unsent) == 0 && unsent > 0 && now() < deadline) pause_for(0.01);
        close(client.socket);
    }
}

/* Keep a lease for as long as the machine runs. When it ends, remove its address from the card and request a new
 * lease. */
void dhcp_keep(const char *card, struct lease lease, void (*apply)(const char *, const struct lease *)) {
    struct client client = {0};
    for (;;) {
        if (!lease.address) {
            if (!dhcp_acquire(card, &lease, INFINITY)) pause_for(LONGEST_WAIT);
            if (lease.address) apply(card, &lease);
            hold(card, &lease);
            continue;
        }
        while (lease.seconds == DHCP_FOR_EVER) pause();
        bool kept = client_open(&client, card) && renew(&client, &lease);
        if (client.socket >= 0) close(client.socket);
        if (!kept) lease = (struct lease){0};
        hold(card, &lease);
        apply(card, &lease);
    }
}
