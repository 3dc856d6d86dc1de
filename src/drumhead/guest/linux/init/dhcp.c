/* A DHCP client (RFC 2131), as far as a machine with one address per card needs it. */
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "init.h"

enum { REQUEST = 1, REPLY = 2, DISCOVER = 1, OFFER = 2, ASK = 3, ACK = 5, NAK = 6, COOKIE = 0x63825363 };

struct message {
    uint8_t op, type, length, hops;
    uint32_t id;
    uint16_t seconds, flags;
    uint32_t client, yours, server, relay;
    uint8_t hardware[16], name[64], file[128];
    uint32_t cookie;
    uint8_t options[312];
} __attribute__((packed));

struct client {
    int socket;
    uint32_t id;
    uint8_t hardware[6];
};

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
        return false;
    }
    memcpy(client->hardware, question.ifr_hwaddr.sa_data, sizeof client->hardware);
    getrandom(&client->id, sizeof client->id, GRND_NONBLOCK);
    return true;
}

static uint8_t *put_option(uint8_t *to, uint8_t code, const void *value, uint8_t size) {
    *to++ = code;
    *to++ = size;
    memcpy(to, value, size);
    return to + size;
}

/* DISCOVER, or ASK for what `lease` names; a renewal (`renewing`) comes from the address itself. */
static void client_send(const struct client *client, uint8_t kind, const struct lease *lease, bool renewing) {
    static const uint8_t wanted[] = {1, 3, 6, 51, 54};
    struct message message = {.op = REQUEST, .type = 1, .length = 6, .id = client->id, .cookie = htonl(COOKIE)};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(67), .sin_addr.s_addr = INADDR_BROADCAST};
    uint8_t *end = message.options;
    memcpy(message.hardware, client->hardware, sizeof client->hardware);
    end = put_option(end, 53, &kind, 1);
    end = put_option(end, 55, wanted, sizeof wanted);
    if (renewing) {
        message.client = lease->address;
        to.sin_addr.s_addr = lease->server;
    } else {
        message.flags = htons(0x8000); /* answer by broadcast: the card has no address yet */
    }
    if (kind == ASK && !renewing) {
        end = put_option(end, 50, &lease->address, 4);
        end = put_option(end, 54, &lease->server, 4);
    }
    *end++ = 255;
    sendto(client->socket, &message, sizeof message, 0, (struct sockaddr *)&to, sizeof to);
}

static uint8_t read_options(const struct message *message, struct lease *lease) {
    const uint8_t *at = message->options, *end = at + sizeof message->options;
    uint8_t kind = 0;
    while (at + 2 <= end && *at != 255) {
        if (*at == 0) {
            at++;
            continue;
        }
        uint8_t code = at[0], size = at[1];
        const uint8_t *value = at + 2;
        if (value + size > end) break;
        if (code == 53 && size >= 1) kind = *value;
        if (size >= 4) {
            if (code == 1) memcpy(&lease->netmask, value, 4);
            if (code == 3) memcpy(&lease->gateway, value, 4);
            if (code == 6) memcpy(&lease->nameserver, value, 4);
            if (code == 54) memcpy(&lease->server, value, 4);
            if (code == 51) {
                memcpy(&lease->seconds, value, 4);
                lease->seconds = ntohl(lease->seconds);
            }
        }
        at = value + size;
    }
    return kind;
}

/* Wait for an answer of ours until `deadline`; 0 when none came. */
static uint8_t client_receive(const struct client *client, struct lease *lease, double deadline) {
    double left;
    while ((left = deadline - now()) > 0) {
        struct message message = {0};
        struct pollfd wait = {.fd = client->socket, .events = POLLIN};
        if (poll(&wait, 1, (int)(left * 1000) + 1) <= 0) continue;
        ssize_t got = recv(client->socket, &message, sizeof message, 0);
        if (got < (ssize_t)offsetof(struct message, options) || message.op != REPLY || message.id != client->id ||
            message.cookie != htonl(COOKIE))
            continue;
        struct lease offered = {.address = message.yours, .netmask = htonl(0xFFFFFF00), .seconds = 3600};
        uint8_t kind = read_options(&message, &offered);
        if (kind == OFFER || kind == ACK) *lease = offered;
        if (kind) return kind;
    }
    return 0;
}

static bool ask(const struct client *client, struct lease *lease, bool renewing, double wait) {
    client_send(client, ASK, lease, renewing);
    return client_receive(client, lease, now() + wait) == ACK;
}

bool dhcp_acquire(const char *card, struct lease *lease, double seconds) {
    struct client client;
    double deadline = now() + seconds, wait = 1;
    bool good = false;
    if (!client_open(&client, card)) return false;
    while (!good && now() < deadline) {
        client_send(&client, DISCOVER, lease, false);
        good = client_receive(&client, lease, now() + wait) == OFFER && ask(&client, lease, false, wait);
        if (wait < 4) wait *= 2;
    }
    close(client.socket);
    return good;
}

/* Half-way through a lease ask the server again; when it is silent, ask anybody. */
void dhcp_renew_forever(const char *card, struct lease lease) {
    for (;;) {
        struct client client;
        bool good = false;
        sleep(lease.seconds < 120 ? 60 : lease.seconds / 2);
        if (client_open(&client, card)) {
            good = ask(&client, &lease, true, 5);
            close(client.socket);
        }
        if (!good) good = dhcp_acquire(card, &lease, 30);
        if (good)
            apply_lease(card, &lease);
        else
            lease.seconds = 0;
    }
}
