#include "dhcp_message.h"

#include <arpa/inet.h>
#include <string.h>

enum { BOOT_REQUEST = 1, BOOT_REPLY = 2, COOKIE = 0x63825363, BROADCAST = 0x8000 };
enum { PAD = 0, NETMASK = 1, ROUTER = 3, NAMESERVER = 6, HOST_NAME = 12, MTU = 26, ADDRESS = 50, LEASE_TIME = 51,
       OVERLOAD = 52, KIND = 53, SERVER = 54, PARAMETERS = 55, LARGEST = 57, RENEWAL_TIME = 58, REBINDING_TIME = 59, CLIENT = 61, ROUTES = 121,
       END = 255 };
enum { DEFAULT_SECONDS = 3600, LEAST_MTU = 576 }; /* RFC 791: every host takes packets of 576 bytes */

static uint8_t *put_option(uint8_t *to, uint8_t code, const void *value, uint8_t size) {
    *to++ = code;
    *to++ = size;
    memcpy(to, value, size);
    return to + size;
}

void dhcp_write(struct dhcp_message *message, enum dhcp_kind kind, uint32_t id, const uint8_t hardware[6],
                const struct lease *lease, enum dhcp_purpose purpose, uint16_t elapsed, const char *name) {
    static const uint8_t wanted[] = {NETMASK,    ROUTES, ROUTER,       NAMESERVER, /* routes are before the router */
                                     LEASE_TIME, SERVER, RENEWAL_TIME, REBINDING_TIME, MTU};
    const uint8_t code = (uint8_t)kind, client[] = {1, hardware[0], hardware[1], hardware[2], hardware[3], hardware[4],
                                                    hardware[5]};
    const uint16_t largest = htons(sizeof *message + 28); /* with the headers of IP and UDP */
    size_t length = strnlen(name, 63);
    *message = (struct dhcp_message){.op = BOOT_REQUEST, .type = 1, .length = 6, .id = id, .cookie = htonl(COOKIE)};
    message->seconds = htons(elapsed);
    memcpy(message->hardware, hardware, 6);
    uint8_t *end = put_option(message->options, KIND, &code, 1);
    end = put_option(end, CLIENT, client, sizeof client);
    end = put_option(end, LARGEST, &largest, sizeof largest);
    end = put_option(end, PARAMETERS, wanted, sizeof wanted);
    if (length) end = put_option(end, HOST_NAME, name, (uint8_t)length);
    if (kind == DHCP_RELEASE || (kind == DHCP_REQUEST && purpose != DHCP_SELECT))
        message->client = lease->address;
    else
        message->flags = htons(BROADCAST); /* the card has no address yet, so the answer must be broadcast */
    if (kind == DHCP_REQUEST && purpose == DHCP_SELECT) end = put_option(end, ADDRESS, &lease->address, 4);
    if (kind == DHCP_RELEASE || (kind == DHCP_REQUEST && purpose == DHCP_SELECT))
        end = put_option(end, SERVER, &lease->server, 4);
    *end = END;
}

/* Fill in times that a server leaves out or sets to invalid values. */
static void set_times(struct lease *lease) {
    if (lease->seconds == DHCP_FOR_EVER) return;
    if (!lease->seconds) lease->seconds = DEFAULT_SECONDS;
    if (!lease->rebind || lease->rebind > lease->seconds) lease->rebind = (uint32_t)((uint64_t)lease->seconds * 7 / 8);
    if (!lease->renew || lease->renew > lease->rebind) lease->renew = lease->seconds / 2;
    if (lease->renew > lease->rebind) lease->renew = lease->rebind;
}

static void read_nameservers(const uint8_t *value, size_t size, struct lease *lease) {
    size_t all = size - size % 4U;
    memcpy(lease->nameservers, value, all < sizeof lease->nameservers ? all : sizeof lease->nameservers);
}

static uint32_t read_mtu(const uint8_t *value, size_t size) {
    uint32_t mtu = size >= 2 ? (uint32_t)(value[0] << 8 | value[1]) : 0;
    return mtu < LEAST_MTU ? 0 : mtu;
}

/* RFC 3442: the length of the target's prefix, only the bytes of the target that the prefix needs, and the gateway. */
static void read_routes(const uint8_t *at, const uint8_t *end, struct lease *lease) {
    while (at < end && *at <= 32 && lease->route_count < DHCP_ROUTES) {
        size_t bits = *at++, bytes = (bits + 7) / 8;
        if ((size_t)(end - at) < bytes + 4) return;
        struct route *route = &lease->routes[lease->route_count++];
        memcpy(&route->target, at, bytes);
        memcpy(&route->gateway, at + bytes, 4);
        route->netmask = bits ? htonl(~0U << (32 - bits)) : 0;
        route->target &= route->netmask;
        at += bytes + 4;
    }
}

/* Append the values of the options `code` of one field to `value`, of which `size` bytes are filled. Return its size. */
static size_t append_values(const uint8_t *at, const uint8_t *end, uint8_t code, uint8_t *value, size_t size) {
    while (at < end && *at != END) {
        if (*at == PAD) {
            at++;
            continue;
        }
        if (end - at < 2 || end - at - 2 < at[1]) break; /* truncated */
        if (*at == code) {
            memcpy(value + size, at + 2, at[1]);
            size += at[1];
        }
        at += 2 + at[1];
    }
    return size;
}

/* A message, the end of what was received of it, and whether the fields for the boot file and the server's name have
 * options too (RFC 2132, 9.3). */
struct received { const struct dhcp_message *message; const uint8_t *end; uint8_t overload; };
enum { IN_FILE = 1, IN_NAME = 2 };

/* Copy the value of an option to `value`, which has room for a whole message. Return its size; 0 if there is none.
 * A long value is split over several options, in the order of these fields (RFC 3396, 5). */
static size_t read_option(const struct received *from, uint8_t code, uint8_t *value) {
    const struct dhcp_message *message = from->message;
    size_t size = append_values(message->options, from->end, code, value, 0);
    if (from->overload & IN_FILE)
        size = append_values(message->file, message->file + sizeof message->file, code, value, size);
    if (from->overload & IN_NAME)
        size = append_values(message->name, message->name + sizeof message->name, code, value, size);
    return size;
}

/* Return the first four bytes of an option, or 0 if there is none. */
static uint32_t read_four(const struct received *from, uint8_t code) {
    uint8_t value[sizeof(struct dhcp_message)];
    uint32_t found = 0;
    if (read_option(from, code, value) >= sizeof found) memcpy(&found, value, sizeof found);
    return found;
}

static enum dhcp_kind read_options(const struct dhcp_message *message, const uint8_t *end, struct lease *lease) {
    struct received from = {.message = message, .end = end};
    uint8_t value[sizeof *message];
    if (read_option(&from, OVERLOAD, value)) from.overload = *value;
    lease->netmask = read_four(&from, NETMASK);
    lease->gateway = read_four(&from, ROUTER);
    lease->server = read_four(&from, SERVER);
    lease->seconds = ntohl(read_four(&from, LEASE_TIME));
    lease->renew = ntohl(read_four(&from, RENEWAL_TIME));
    lease->rebind = ntohl(read_four(&from, REBINDING_TIME));
    read_nameservers(value, read_option(&from, NAMESERVER, value), lease);
    read_routes(value, value + read_option(&from, ROUTES, value), lease);
    lease->mtu = read_mtu(value, read_option(&from, MTU, value));
    return read_option(&from, KIND, value) ? *value : DHCP_NONE;
}

/* Whether a card can have the address: not 0/8, not loopback, not multicast, reserved or broadcast. */
static bool is_usable(uint32_t address) {
    uint8_t first = (uint8_t)(ntohl(address) >> 24);
    return first != 0 && first != 127 && first < 224;
}

/* Whether the bits are ones, then zeros. */
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
    struct lease found = {.address = message->yours};
    enum dhcp_kind kind = read_options(message, (const uint8_t *)message + size, &found);
    if (kind == DHCP_NAK) return kind;
    if ((kind != DHCP_OFFER && kind != DHCP_ACK) || !is_usable(found.address)) return DHCP_NONE;
    if (!found.server && kind == DHCP_OFFER) return DHCP_NONE; /* there is no server to request it from */
    if (!found.server) found.server = lease->server;
    if (!is_netmask(found.netmask)) found.netmask = htonl(0xFFFFFF00);
    if (found.route_count) found.gateway = 0; /* RFC 3442: the routes replace it */
    set_times(&found);
    *lease = found;
    return kind;
}
