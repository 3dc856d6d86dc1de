/* DHCP messages (RFC 2131 and 2132). They depend on nothing else of init, so they run on the host in tests. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum dhcp_kind { DHCP_NONE, DHCP_DISCOVER, DHCP_OFFER, DHCP_REQUEST, DHCP_ACK = 5, DHCP_NAK = 6 };

/* In network byte order, except `seconds`. An address of 0 means that there is none. */
struct lease { uint32_t address, netmask, gateway, nameserver, server, seconds; };

struct dhcp_message {
    uint8_t op, type, length, hops;
    uint32_t id;
    uint16_t seconds, flags;
    uint32_t client, yours, server, relay;
    uint8_t hardware[16], name[64], file[128];
    uint32_t cookie;
    uint8_t options[312];
} __attribute__((packed));

/* Fill in a DISCOVER, or a REQUEST for `lease`. A renewal is sent from the leased address itself. */
void dhcp_write(struct dhcp_message *, enum dhcp_kind, uint32_t id, const uint8_t hardware[6], const struct lease *,
                bool renewing);

/* Read `size` received bytes. Returns the kind of a valid reply to `id` and `hardware`, else DHCP_NONE.
 * An OFFER and an ACK set `lease`; an ACK without a server keeps the server that `lease` names. */
enum dhcp_kind dhcp_read(const struct dhcp_message *, size_t size, uint32_t id, const uint8_t hardware[6],
                         struct lease *);
