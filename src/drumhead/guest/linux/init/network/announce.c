/* Announce an address to the neighbours on its link (RFC 5227). */
#include <arpa/inet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/if_ether.h>
#include <netpacket/packet.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../init.h"

/* A DHCP server gives the address of a machine that ended to another one. A neighbour that still knows the first one's
 * MAC address would send to it for about ten seconds. */
void announce_address(const char *card, uint32_t address) {
    struct ifreq question = {0};
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ARP), .sll_halen = ETH_ALEN};
    struct ether_arp message = {.arp_hrd = htons(ARPHRD_ETHER), .arp_pro = htons(ETH_P_IP), .arp_hln = ETH_ALEN,
                                .arp_pln = sizeof address, .arp_op = htons(ARPOP_REQUEST)};
    int link = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    strncpy(question.ifr_name, card, IFNAMSIZ - 1);
    if (link >= 0 && ioctl(link, SIOCGIFHWADDR, &question) == 0) {
        to.sll_ifindex = (int)if_nametoindex(card);
        memset(to.sll_addr, 0xff, ETH_ALEN);
        memcpy(message.arp_sha, question.ifr_hwaddr.sa_data, ETH_ALEN);
        memcpy(message.arp_spa, &address, sizeof address);
        memcpy(message.arp_tpa, &address, sizeof address);
        sendto(link, &message, sizeof message, 0, (struct sockaddr *)&to, sizeof to);
    }
    if (link >= 0) close(link);
}
