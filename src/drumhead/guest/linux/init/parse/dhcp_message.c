#include "dhcp_message.h"

#include <arpa/inet.h>
#include <string.h>

enum { BOOT_REQUEST = 1, BOOT_REPLY = 2, COOKIE = 0x63825363, BROADCAST = 0x8000 };
enum { PAD = 0, NETMASK = 1, ROUTER = 3, NAMESERVER = 6, ADDRESS = 50, LEASE_TIME = 51, KIND = 53, SERVER = 54,
       PARAMETERS = 55, END = 255 };
enum { DEFAULT_SECONDS = 3600 };

static uint8_t *put_option(uint8_t *to, uint8_t code, const void *value, uint8_t size) {
    *to++ = code;
    *to++ = size;
    memcpy(to, value, size);
    return to + size;
}

void dhcp_write(struct dhcp_message *message, enum dhcp_kind kind, uint32_t id, const uint8_t hardware[6],
                const struct lease *lease, bool renewing) {
    static const uint8_t wanted[] = {NETMASK, ROUTER, NAMESERVER, LEASE_TIME, SERVER};
    const uint8_t code = (uint8_t)kind;
    *message = (struct dhcp_message){.op = BOOT_REQUEST, .type = 1, .length = 6, .id = id, .cookie = htonl(COOKIE)};
    memcpy(message->hardware, hardware, 6);
    uint8_t *end = put_option(message->options, KIND, &code, 1);
    end = put_option(end, PARAMETERS, wanted, sizeof wanted);
    if (renewing)
        message->client = lease->address;
    else
        message->flags = htons(BROADCAST); /* the card has no address yet, so the answer must be broadcast */
    if (kind == DHCP_REQUEST && !renewing) {
        end = put_option(end, ADDRESS, &lease->address, 4);
        end = put_option(end, SERVER, &lease->server, 4);
    }
    *end = END;
}

static enum dhcp_kind read_options(const uint8_t *at, const uint8_t *end, struct lease *lease) {
    enum dhcp_kind kind = DHCP_NONE;
    while (at < end && *at != END) {
        if (*at == PAD) {
            at++;
            continue;
        }
        if (end - at < 2 || end - at - 2 < at[1]) break; /* cut short */
        uint8_t code = at[0], size = at[1];
        const uint8_t *value = at + 2;
        if (code == KIND && size == 1) kind = *value;
        if (size >= 4) {
            if (code == NETMASK) memcpy(&lease->netmask, value, 4);
            if (code == ROUTER) memcpy(&lease->gateway, value, 4);
            if (code == NAMESERVER) memcpy(&lease->nameserver, value, 4);
            if (code == SERVER) memcpy(&lease->server, value, 4);
            if (code == LEASE_TIME) {
                memcpy(&lease->seconds, value, 4);
                lease->seconds = ntohl(lease->seconds);
            }
        }
        at = value + size;
    }
    return kind;
}

/* Whether a card can have the address: not 0/8, not loopback, not multicast, reserved or broadcast. */
static bool is_usable(uint32_t address) {
    uint8_t first = (uint8_t)(ntohl(address) >> 24);
    return first != 0 && first != 127 && first < 224;
}

/* Ones, then zeros. */
static bool is_netmask(uint32_t netmask) {
    uint32_t zeros = ~ntohl(netmask);
    return netmask != 0 && (zeros & (zeros + 1)) == 0;
}

enum dhcp_kind dhcp_read(const struct dhcp_message *message, size_t size, uint32_t id, const uint8_t hardware[6],
                         struct lease *lease) {
    if (size < offsetof(struct dhcp_message, options) || message->op != BOOT_REPLY || message->id != id ||
        message->cookie != htonl(COOKIE) || memcmp(message->hardware, hardware, 6) != 0)
        return DHCP_NONE;
    if (size > sizeof *message) size = sizeof *message;
    struct lease found = {.address = message->yours, .seconds = DEFAULT_SECONDS};
    enum dhcp_kind kind = read_options(message->options, (const uint8_t *)message + size, &found);
    if (kind == DHCP_NAK) return kind;
    if ((kind != DHCP_OFFER && kind != DHCP_ACK) || !is_usable(found.address)) return DHCP_NONE;
    if (!found.server && kind == DHCP_OFFER) return DHCP_NONE; /* nobody to ask for it */
    if (!found.server) found.server = lease->server;
    if (!is_netmask(found.netmask)) found.netmask = htonl(0xFFFFFF00);
    *lease = found;
    return kind;
}
