/* Network cards, which are found by MAC address, and host names. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../init.h"

/* How long the command waits for an address. Before it offers an address, dnsmasq checks for 3 s whether it is in use,
 * and does not answer other clients meanwhile. If six machines start at once, this happens six times in a row. */
enum { DHCP_SECONDS = 30 };

static char own_name[256];
static char leased[INET_ADDRSTRLEN]; /* the address of the first card on a network of the host; may be empty */

static bool find_card(const char *mac, char *card) {
    struct dirent *entry;
    DIR *cards = opendir("/sys/class/net");
    bool found = false;
    while (cards && !found && (entry = readdir(cards))) {
        char path[320];
        snprintf(path, sizeof path, "/sys/class/net/%s/address", entry->d_name);
        char *text = entry->d_name[0] == '.' ? NULL : read_file(path);
        if (text) text[strcspn(text, "\n")] = 0;
        found = text && strcasecmp(text, mac) == 0;
        free(text);
        if (found) snprintf(card, IFNAMSIZ, "%.15s", entry->d_name);
    }
    if (cards) closedir(cards);
    return found;
}

static bool set(int request, const char *card, uint32_t address) {
    struct ifreq change = {0};
    struct sockaddr_in value = {.sin_family = AF_INET, .sin_addr.s_addr = address};
    int link = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(change.ifr_name, sizeof change.ifr_name, "%s", card);
    if (request == SIOCSIFFLAGS)
        change.ifr_flags = IFF_UP;
    else
        memcpy(&change.ifr_addr, &value, sizeof value);
    bool good = link >= 0 && ioctl(link, request, &change) == 0;
    if (!good) say("cannot set up the card %s: %s", card, strerror(errno));
    if (link >= 0) close(link);
    return good;
}

/* Routers of a network with smaller packets, such as a tunnel, may drop larger ones without a word. */
static void set_mtu(const char *card, uint32_t mtu) {
    struct ifreq change = {.ifr_mtu = (int)mtu};
    int link = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(change.ifr_name, sizeof change.ifr_name, "%s", card);
    if (link < 0 || ioctl(link, SIOCSIFMTU, &change) != 0) say("%s cannot have the MTU %u: %s", card, mtu, strerror(errno));
    if (link >= 0) close(link);
}

static bool add_route(const char *card, const struct route *route) {
    char device[IFNAMSIZ];
    struct rtentry entry = {.rt_flags = RTF_UP | (route->gateway ? RTF_GATEWAY : 0), .rt_dev = device};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = route->target}, via = to, bits = to;
    int link = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(device, sizeof device, "%s", card);
    via.sin_addr.s_addr = route->gateway;
    bits.sin_addr.s_addr = route->netmask;
    memcpy(&entry.rt_dst, &to, sizeof to);
    memcpy(&entry.rt_genmask, &bits, sizeof bits);
    memcpy(&entry.rt_gateway, &via, sizeof via);
    bool good = link >= 0 && (ioctl(link, SIOCADDRT, &entry) == 0 || errno == EEXIST);
    int reason = errno;
    if (link >= 0) close(link);
    errno = reason;
    return good;
}

/* Some networks lease an address alone (/32), whose gateway is on the link but in no network of the card. */
static void set_route(const char *card, const struct route *route) {
    const struct route to_gateway = {.target = route->gateway, .netmask = INADDR_BROADCAST};
    if (add_route(card, route)) return;
    if (route->gateway && errno == ENETUNREACH && add_route(card, &to_gateway) && add_route(card, route)) return;
    say("cannot set a route of %s: %s", card, strerror(errno));
}

static void set_routes(const char *card, const struct lease *lease) {
    const struct route out = {.gateway = lease->gateway};
    if (lease->gateway) set_route(card, &out);
    for (uint32_t number = 0; number < lease->route_count; number++) set_route(card, &lease->routes[number]);
}

/* Set the MAC address of a card in a resumed machine, which still has that of the saved machine. */
static void take_mac(const char *card, const char *mac) {
    struct ifreq change = {.ifr_hwaddr.sa_family = ARPHRD_ETHER};
    unsigned char *to = (unsigned char *)change.ifr_hwaddr.sa_data;
    int link = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(change.ifr_name, sizeof change.ifr_name, "%s", card);
    if (sscanf(mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", to, to + 1, to + 2, to + 3, to + 4, to + 5) != 6 || link < 0 ||
        ioctl(link, SIOCSIFHWADDR, &change) != 0)
        fail("the network card %s cannot have the address %s: %s", card, mac, strerror(errno));
    close(link);
}

static void set_ipv6(const char *card, const char *setting, const char *value) {
    char path[80];
    snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/%s", card, setting);
    write_file(path, value);
}

static void bring_up(const char *card, bool with_ipv6) {
    set_ipv6(card, "disable_ipv6", with_ipv6 ? "0" : "1");
    if (with_ipv6) { /* the address is unique, and there is no router */
        set_ipv6(card, "accept_dad", "0");
        set_ipv6(card, "accept_ra", "0");
        set_ipv6(card, "router_solicitations", "0");
    }
    if (!set(SIOCSIFFLAGS, card, 0)) fail("the network card %s cannot be used", card);
}

static void use_address6(const char *card, const char *with_prefix) {
    struct { struct in6_addr address; uint32_t prefix; int card; } change = {0}; /* struct in6_ifreq of linux/ipv6.h */
    char address[INET6_ADDRSTRLEN];
    snprintf(address, sizeof address, "%.*s", (int)strcspn(with_prefix, "/"), with_prefix);
    change.prefix = strchr(with_prefix, '/') ? (uint32_t)atoi(strchr(with_prefix, '/') + 1) : 64;
    change.card = (int)if_nametoindex(card);
    int link = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (link < 0 || inet_pton(AF_INET6, address, &change.address) != 1 || ioctl(link, SIOCSIFADDR, &change) != 0)
        say("%s cannot have the address %s: %s", card, address, strerror(errno));
    if (link >= 0) close(link);
}

/* Tell the host the address of a card, or that it has lost the address. */
static void report_address(const char *card, const char *address) {
    char *quoted = json_quote(address);
    report("{\"event\":\"address\",\"card\":\"%s\",\"address\":%s}\n", card, quoted ? quoted : "\"\"");
    free(quoted);
}

static void write_nameservers(const struct lease *lease) {
    char text[DHCP_NAMESERVERS * (sizeof "nameserver \n" + INET_ADDRSTRLEN)] = "", address[INET_ADDRSTRLEN];
    for (int number = 0; number < DHCP_NAMESERVERS; number++) {
        if (!lease->nameservers[number]) continue;
        inet_ntop(AF_INET, &lease->nameservers[number], address, sizeof address);
        size_t length = strlen(text);
        snprintf(text + length, sizeof text - length, "nameserver %s\n", address);
    }
    if (*text) replace_file("/etc/resolv.conf", text);
}

static void apply_lease(const char *card, const struct lease *lease) {
    static char applied[80];
    char text[80], address[INET_ADDRSTRLEN];
    set(SIOCSIFADDR, card, lease->address);
    if (!lease->address) {
        say("%s: the lease has ended", card);
        report_address(card, "");
        applied[0] = 0;
    }
    if (!lease->address || !set(SIOCSIFNETMASK, card, lease->netmask)) return;
    if (lease->mtu) set_mtu(card, lease->mtu);
    set_routes(card, lease);
    write_nameservers(lease);
    inet_ntop(AF_INET, &lease->address, address, sizeof address);
    snprintf(text, sizeof text, "%s: %s", card, address);
    if (strcmp(text, applied) == 0) return; /* a lease that was renewed */
    strcpy(applied, text);
    say("%s", text);
    report_address(card, address);
}

/* Also let the machine's own name lead to the first card, because programs announce the address that they find so. */
static void apply_leased(const char *card, const struct lease *lease) {
    static char first[IFNAMSIZ];
    apply_lease(card, lease);
    if (lease->address) announce_address(card, lease->address);
    if (!*first) snprintf(first, sizeof first, "%s", card);
    if (strcmp(first, card) != 0) return;
    leased[0] = 0;
    if (lease->address) inet_ntop(AF_INET, &lease->address, leased, sizeof leased);
    write_hosts(NULL, NULL, NULL); /* a network of the host has no names of neighbours */
}

static void use_dhcp(const char *card) {
    struct lease lease = {0};
    if (dhcp_acquire(card, &lease, DHCP_SECONDS))
        apply_leased(card, &lease);
    else
        say("%s: no DHCP server has answered yet; the machine keeps asking", card);
    dhcp_hold(card, &lease);
    if (fork() == 0) dhcp_keep(card, lease, apply_leased);
}

static void use_address(const char *card, const struct json *nic) {
    char address[80];
    struct lease lease = {0};
    snprintf(address, sizeof address, "%s", json_text(nic, "address", ""));
    char *slash = strchr(address, '/');
    int bits = slash ? atoi(slash + 1) : 24;
    if (slash) *slash = 0;
    lease.address = inet_addr(address);
    lease.netmask = htonl(bits <= 0 ? 0 : ~0U << (32 - bits));
    if (*json_text(nic, "gateway", "")) lease.gateway = inet_addr(json_text(nic, "gateway", ""));
    if (*json_text(nic, "nameserver", "")) lease.nameservers[0] = inet_addr(json_text(nic, "nameserver", ""));
    apply_lease(card, &lease);
}

static void use_every_card(void) {
    struct dirent *entry;
    DIR *cards = opendir("/sys/class/net");
    while (cards && (entry = readdir(cards))) {
        if (entry->d_name[0] == '.' || strcmp(entry->d_name, "lo") == 0) continue;
        bring_up(entry->d_name, false);
        use_dhcp(entry->d_name);
    }
    if (cards) closedir(cards);
}

static void use_cards(const struct json *nics, bool with_dhcp) {
    for (const struct json *nic = nics ? nics->child : NULL; nic; nic = nic->next) {
        char card[IFNAMSIZ];
        const char *mac = json_text(nic, "mac", ""), *saved = json_text(nic, "saved_mac", "");
        if (with_dhcp == (*json_text(nic, "address", "") != 0)) continue;
        if (!find_card(*saved ? saved : mac, card)) fail("the network card %s is missing", mac);
        if (*saved) take_mac(card, mac);
        const char *address6 = json_text(nic, "address6", "");
        bring_up(card, *address6 != 0);
        if (*address6) use_address6(card, address6);
        if (with_dhcp)
            use_dhcp(card);
        else
            use_address(card, nic);
    }
}

/* Never send a SYN-ACK twice: after a second one, QEMU's user network (libslirp 4.7) forgets the data that the guest has
 * not acknowledged, and the connection hangs. The kernel sends a second one if it had no place for the answer to the
 * first. With SYN cookies it waits for the data instead, which QEMU sends again. */
static void use_syn_cookies(void) { write_file("/proc/sys/net/ipv4/tcp_syncookies", "2"); }

/* Without `nics` (on an exported disk) every card uses DHCP. Set known addresses first: they have the gateway, and must
 * not wait for a DHCP server that does not answer. */
void set_up_network(const struct json *nics) {
    set(SIOCSIFFLAGS, "lo", 0);
    if (nics) {
        use_syn_cookies();
        listeners_watch();
    } else {
        use_every_card();
    }
    use_cards(nics, false);
    use_cards(nics, true);
}

static char *add_names(char *to, const char *end, const struct json *hosts) {
    for (const struct json *host = hosts ? hosts->child : NULL; host && to < end; host = host->next)
        if (host->kind == JSON_STRING) to += snprintf(to, (size_t)(end - to), "%.45s %s\n", host->text, host->name);
    return to;
}

void write_hosts(const char *hostname, const struct json *hosts, const struct json *hosts6) {
    size_t size = 1024;
    if (hostname) {
        snprintf(own_name, sizeof own_name, "%s", hostname);
        make_directories("/etc");
        write_file("/etc/hostname", own_name);
        sethostname(own_name, strlen(own_name));
    }
    for (const struct json *host = hosts ? hosts->child : NULL; host; host = host->next)
        size += 2 * (strlen(host->name) + 50);
    char *text = malloc(size);
    if (!text) return;
    bool known = json_get(hosts, own_name) != NULL; /* a name has one address: the one on the private network, if any */
    char *to = text + sprintf(text, "127.0.0.1 localhost\n");
    if (!known) to += sprintf(to, "%s %s\n", *leased ? leased : "127.0.1.1", own_name);
    add_names(add_names(to, text + size, hosts), text + size, hosts6);
    replace_file("/etc/hosts", text);
    free(text);
}
