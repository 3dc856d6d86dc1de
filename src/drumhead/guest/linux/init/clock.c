/* The wall clock. It stands still while the host sleeps and while QEMU is stopped, and it does not notice that the host's
 * clock was set. QEMU's real-time clock has the host's time at any moment, so the wall clock follows its jumps. It is
 * compared with the monotonic clock, so that a program of the machine may set the wall clock. */
#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "init.h"

enum { LEAST_JUMP = 2, LOOK_SECONDS = 4 }; /* the real-time clock has whole seconds */

static bool following;
static double ahead; /* by how much the real-time clock was ahead of the monotonic clock; 0: not known yet */
static double next_look;

/* Returns 0 if the machine has no real-time clock. */
static double now_ahead(void) {
    char *text = read_file("/sys/class/rtc/rtc0/since_epoch");
    double found = text ? strtod(text, NULL) - now() : 0;
    free(text);
    return found;
}

bool set_clock(double seconds) {
    struct timespec time = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - floor(seconds)) * 1e9)};
    ahead = now_ahead(); /* what the real-time clock did before is settled; what it does from now on is a jump */
    return clock_settime(CLOCK_REALTIME, &time) == 0;
}

static void jump(double seconds) {
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    say("the clock jumps by %+.0f s, as the host's did", seconds);
    if (!set_clock((double)time.tv_sec + (double)time.tv_nsec / 1e9 + seconds)) say("the clock cannot be set");
}

void clock_follow(void) { following = true; }

/* Nothing wakes init for this: it wakes every few seconds to look for listeners. */
void clock_look_when_due(void) {
    if (!following || now() < next_look) return;
    next_look = now() + LOOK_SECONDS;
    double found = now_ahead();
    bool jumped = found != 0 && ahead != 0 && fabs(found - ahead) >= LEAST_JUMP;
    if (jumped) jump(found - ahead); /* which sets `ahead` */
    if (ahead == 0) ahead = found;
}
