/* Set up what differs between machines: names, cards, volumes, secrets and finally the command. */
#include "init.h"

void configure(const struct json *config, const struct json *command, bool resumed) {
    write_hosts(json_text(config, "hostname", "drumhead"), json_get(config, "hosts"), json_get(config, "hosts6"));
    set_up_network(json_get(config, "nics"));
    if (json_get(config, "nics")) clock_follow(); /* on an exported disk, the real-time clock may have local time */
    mount_volumes(json_get(config, "mounts"), resumed);
    write_secrets(json_get(config, "secrets"));
    command_start(json_get(config, "before"), command, json_number(config, "stop_grace", 10));
}
