/* A DHCP client (RFC 2131) for machines with one address per card. */
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "init.h"

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

static void client_send(const struct client *client, enum dhcp_kind kind, const struct lease *lease, bool renewing) {
    struct dhcp_message message;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(67), .sin_addr.s_addr = INADDR_BROADCAST};
    if (renewing) to.sin_addr.s_addr = lease->server;
    dhcp_write(&message, kind, client->id, client->hardware, lease, renewing);
    sendto(client->socket, &message, sizeof message, 0, (struct sockaddr *)&to, sizeof to);
}

/* Wait until `deadline` for a reply of the kind `wanted`. False for a NAK, or when none came. */
static bool client_receive(const struct client *client, enum dhcp_kind wanted, struct lease *lease, double deadline) {
    double left;
    while ((left = deadline - now()) > 0) {
        struct dhcp_message message = {0};
        struct pollfd wait = {.fd = client->socket, .events = POLLIN};
        if (poll(&wait, 1, (int)(left * 1000) + 1) <= 0) continue;
        ssize_t got = recv(client->socket, &message, sizeof message, 0);
        struct lease found = *lease;
        enum dhcp_kind kind = got < 0 ? DHCP_NONE : dhcp_read(&message, (size_t)got, client->id, client->hardware, &found);
        if (kind == DHCP_NAK) return false;
        if (kind != wanted || kind == DHCP_NONE) continue;
        *lease = found;
        return true;
    }
    return false;
}

static bool request(const struct client *client, struct lease *lease, bool renewing, double wait) {
    client_send(client, DHCP_REQUEST, lease, renewing);
    return client_receive(client, DHCP_ACK, lease, now() + wait);
}

bool dhcp_acquire(const char *card, struct lease *lease, double seconds) {
    struct client client;
    double deadline = now() + seconds, wait = 1;
    bool good = false;
    if (!client_open(&client, card)) return false;
    while (!good && now() < deadline) {
        client_send(&client, DHCP_DISCOVER, lease, false);
        good = client_receive(&client, DHCP_OFFER, lease, now() + wait) && request(&client, lease, false, wait);
        if (wait < 4) wait *= 2;
    }
    close(client.socket);
    return good;
}

/* Ask the server again half-way through a lease; when it does not answer, ask any server. */
void dhcp_renew_forever(const char *card, struct lease lease, void (*apply)(const char *, const struct lease *)) {
    for (;;) {
        struct client client;
        bool good = false;
        sleep(lease.seconds < 120 ? 60 : lease.seconds / 2);
        if (client_open(&client, card)) {
            good = request(&client, &lease, true, 5);
            close(client.socket);
        }
        if (!good) good = dhcp_acquire(card, &lease, 30);
        if (good)
            apply(card, &lease);
        else
            lease.seconds = 0;
    }
}
