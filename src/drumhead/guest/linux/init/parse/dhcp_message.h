/* DHCP messages (RFC 2131 and 2132). They depend on nothing else of init, so they run on the host in tests. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum dhcp_kind { DHCP_NONE, DHCP_DISCOVER, DHCP_OFFER, DHCP_REQUEST, DHCP_ACK = 5, DHCP_NAK = 6 };

/* In network byte order, except the times. An address of 0 means that there is none. `seconds` is how long the lease
 * lasts, `renew` and `rebind` when to ask its server and when to ask any server (RFC 2131, 4.4.5). */
struct lease { uint32_t address, netmask, gateway, nameserver, server, seconds, renew, rebind; };
enum { DHCP_FOR_EVER = 0xFFFFFFFF };

/* What a REQUEST is for. A new lease is asked for by broadcast and names the server whose offer it takes; to renew, the
 * server is asked from the leased address; to rebind, every server is. */
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

/* Fill in a DISCOVER, or a REQUEST for `lease`. `elapsed` is how many seconds ago the first message was sent; `name` is
 * the machine's, empty for none. */
void dhcp_write(struct dhcp_message *, enum dhcp_kind, uint32_t id, const uint8_t hardware[6], const struct lease *,
                enum dhcp_purpose, uint16_t elapsed, const char *name);

/* Read `size` received bytes. Returns the kind of a valid reply to `id` and `hardware`, else DHCP_NONE.
 * An OFFER and an ACK set `lease`; an ACK without a server keeps the server that `lease` names. */
enum dhcp_kind dhcp_read(const struct dhcp_message *, size_t size, uint32_t id, const uint8_t hardware[6],
                         struct lease *);
