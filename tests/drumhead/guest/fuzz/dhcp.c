/* Any packet: it is ignored, or it is a reply whose lease a card can have. The first byte says how much of it is ours. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dhcp_message.h"

static const uint8_t hardware[6] = {2, 1, 2, 3, 4, 5};
enum { ID = 0x11223344 };

static void check(bool good, const char *what) {
    if (good) return;
    fprintf(stderr, "%s\n", what);
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    bool addressed = *data & 1; /* to us, so that the options are reached */
    size_t got = --size < sizeof(struct dhcp_message) ? size : sizeof(struct dhcp_message);
    struct dhcp_message *message = malloc(got ? got : 1); /* exactly as large, so that reading on is noticed */
    memcpy(message, data + 1, got);
    if (addressed && got >= offsetof(struct dhcp_message, options)) {
        message->op = 2;
        message->id = ID;
        message->cookie = htonl(0x63825363);
        memcpy(message->hardware, hardware, sizeof hardware);
    }
    struct lease before = {.address = htonl(0x0A000001), .server = htonl(0x0A000002)}, lease = before;
    enum dhcp_kind kind = dhcp_read(message, got, ID, hardware, &lease);
    if (kind == DHCP_OFFER || kind == DHCP_ACK) {
        uint8_t first = (uint8_t)(ntohl(lease.address) >> 24);
        uint32_t zeros = ~ntohl(lease.netmask);
        check(first != 0 && first != 127 && first < 224, "the address is not one for a card");
        check(lease.netmask && (zeros & (zeros + 1)) == 0, "the netmask is none");
        check(lease.server != 0, "the lease names no server");
        struct dhcp_message request;
        dhcp_write(&request, DHCP_REQUEST, ID, hardware, &lease, DHCP_SELECT, 0, "name");
        check(lease.seconds == DHCP_FOR_EVER || (lease.renew <= lease.rebind && lease.rebind <= lease.seconds),
              "the times are out of order");
    } else {
        check(kind == DHCP_NONE || kind == DHCP_NAK, "a kind that the client does not expect");
        check(memcmp(&lease, &before, sizeof lease) == 0, "the lease changed without an answer");
    }
    free(message);
    return 0;
}
