/* Init's DHCP client on the host: CARD SECONDS acquires a lease within SECONDS and keeps it,
 * or releases it if there is a third word. It prints what it does. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "init.h"

static void show(const char *what, const struct lease *lease) {
    char address[INET_ADDRSTRLEN], server[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, &lease->address, address, sizeof address);
    inet_ntop(AF_INET, &lease->server, server, sizeof server);
    printf("%s %s from %s\n", what, address, server);
    fflush(stdout);
}

static void apply(const char *card, const struct lease *lease) {
    char order[200], address[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, &lease->address, address, sizeof address);
    snprintf(order, sizeof order, lease->address ? "ip address replace %2$s/24 dev %1$s" : "ip address flush dev %s", card,
             address);
    if (system(order) != 0) exit(3);
    if (lease->address) announce_address(card, lease->address);
    show(lease->address ? "has" : "lost", lease);
}

int main(int count, char **words) {
    struct lease lease = {0};
    if (count < 3) return 2;
    if (!dhcp_acquire(words[1], &lease, atof(words[2]))) {
        puts("none");
        return 1;
    }
    apply(words[1], &lease);
    dhcp_hold(words[1], &lease);
    if (count == 4) {
        dhcp_release();
        puts("released");
        return 0;
    }
    dhcp_keep(words[1], lease, apply);
}
