/* A machine that is saved before its command starts, so that many machines can resume from there.
 *
 * The saved memory has no name, address, environment or secret: they arrive over the control port after the resume,
 * together with the time and random bytes from the host. Without these bytes two machines would draw the same numbers.
 * */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "init.h"

enum { ENTROPY = 64 };

/* From linux/random.h, as musl brings no kernel headers. */
enum { ADD_ENTROPY = _IOW('R', 0x03, int[2]), RESEED = _IO('R', 0x07) };

static bool waiting;

void warm_up(const struct json *interpreter) {
    command_warm(interpreter);
    waiting = true;
    report("{\"event\":\"warm\"}\n");
}

/* Add the bytes to the kernel's entropy, and reseed the generator of every processor. */
static void renew_randomness(const char *digits) {
    struct { int bits, size; unsigned char bytes[ENTROPY]; } fresh = {.bits = ENTROPY * 8, .size = ENTROPY};
    for (int i = 0; i < ENTROPY; i++) {
        char pair[3] = {digits[2 * i], digits[2 * i] ? digits[2 * i + 1] : 0, 0};
        if (!isxdigit((unsigned char)pair[0]) || !isxdigit((unsigned char)pair[1])) fail("the host gave too little randomness");
        fresh.bytes[i] = (unsigned char)strtoul(pair, NULL, 16);
    }
    int device = open("/dev/urandom", O_RDWR | O_CLOEXEC);
    if (device < 0 || ioctl(device, ADD_ENTROPY, &fresh) != 0 || ioctl(device, RESEED) != 0)
        fail("cannot renew the randomness: %s", strerror(errno));
    close(device);
    memset(&fresh, 0, sizeof fresh);
}

bool warm_configure(struct json *request) {
    const char *order = json_text(request, "order", "");
    if (!waiting) return false;
    waiting = false;
    if (!set_clock(json_number(request, "time", 0))) fail("cannot set the clock: %s", strerror(errno));
    renew_randomness(json_text(request, "entropy", ""));
    command_expect(*order ? order : NULL);
    const struct json *config = json_get(request, "config");
    configure(config, json_get(config, "command"), true);
    return true;
}
