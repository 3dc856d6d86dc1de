/* DHCP messages (RFC 2131 and 2132). This depends on no other part of init, so that tests can run it on the host. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum dhcp_kind { DHCP_NONE, DHCP_DISCOVER, DHCP_OFFER, DHCP_REQUEST, DHCP_ACK = 5, DHCP_NAK = 6, DHCP_RELEASE = 7 };

#define DHCP_FOR_EVER UINT32_MAX
enum { DHCP_NAMESERVERS = 3, DHCP_ROUTES = 16 }; /* no resolver asks more than three */
/* Addresses are in network byte order; 0 means none. `seconds` is the duration of the lease; `renew` and `rebind` are
 * the times at which to ask its server and any server (RFC 2131, 4.4.5). A lease with routes has no gateway besides
 * them. A route without a gateway is on the link. */
struct route { uint32_t target, netmask, gateway; };
struct lease {
    uint32_t address, netmask, gateway, nameservers[DHCP_NAMESERVERS], server, seconds, renew, rebind, route_count;
    struct route routes[DHCP_ROUTES];
    uint32_t mtu; /* the largest packet of the network in bytes; 0: not told */
};

/* The purpose of a REQUEST. To select an offer, it is broadcast and names the server. To renew a lease, it is sent from
 * the leased address to the server; to rebind, to every server. */
enum dhcp_purpose { DHCP_SELECT, DHCP_RENEW, DHCP_REBIND };

struct dhcp_message {
    uint8_t op, type, length, hops;
    uint32_t id;
    uint16_t seconds, flags;
    uint32_t client, yours, server, relay;
    uint8_t hardware[16], name[64], file[128];
    uint32_t cookie;
    uint8_t options[312];
} __attribute__((packed));

/* Fill in a DISCOVER, or a REQUEST for or RELEASE of `lease`. `elapsed` is the number of seconds since the first message
 * was sent; `name` is the host name, or empty. */
void dhcp_write(struct dhcp_message *, enum dhcp_kind, uint32_t id, const uint8_t hardware[6], const struct lease *,
                enum dhcp_purpose, uint16_t elapsed, const char *name);

/* Read `size` received bytes. Return the kind of a valid reply to `id` and `hardware`, else DHCP_NONE.
 * An OFFER or an ACK sets `lease`; an ACK without a server keeps the server in `lease`. */
enum dhcp_kind dhcp_read(const struct dhcp_message *, size_t size, uint32_t id, const uint8_t hardware[6],
                         struct lease *);
