/* A machine that boots from an exported disk and is not configured by drumhead. Two further disks may configure it,
each an
 * ISO 9660 file system as KubeVirt makes from a ConfigMap or a Secret. On the disk with the serial number "config",
 * machine.json says what to run. Each file on the disk with the serial number "secrets" becomes a file in /run/secrets.
 * The
 * power button stops the machine. docs/guide/kubevirt.md describes both disks for users. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "init.h"

static const char config_disk[] = "config", secrets_disk[] = "secrets", mounted[] = "/run/disk";
static int button = -1;

/* Mount the disk with a serial number. Return false if there is none. */
static bool mount_files(const char *serial) {
    char device[300];
    if (!find_disk(serial, device, sizeof device)) return false;
    make_directories(mounted);
    if (mount(device, mounted, "iso9660", MS_RDONLY | MS_NODEV | MS_NOSUID | MS_NOEXEC, NULL) != 0)
        fail("cannot mount the disk %s: %s", serial, strerror(errno));
    return true;
}

static struct json *read_record(const char *path) {
    char *text = read_file(path);
    struct json *record = text ? json_parse(text) : NULL;
    if (!record || record->kind != JSON_OBJECT) fail("%s, which says what to run, is missing or damaged", path);
    return record;
}

/* People write machine.json. Without this check a value of another kind, such as a number among the variables, would be
 * left out without a word. */
static void check_config(const struct json *config) {
    static const struct { const char *name, *form; int kind, of; } known[] = {
        {"run", "a text", JSON_STRING, 0},
        {"argv", "a list of texts", JSON_ARRAY, JSON_STRING},
        {"env", "an object of texts", JSON_OBJECT, JSON_STRING},
        {"mounts", "a list of objects", JSON_ARRAY, JSON_OBJECT},
        {"hostname", "a text", JSON_STRING, 0},
        {"stop_grace", "a number", JSON_NUMBER, 0},
        {NULL, NULL, 0, 0}};
    for (int i = 0; known[i].name; i++) {
        const struct json *value = json_get(config, known[i].name);
        bool good = !value || (int)value->kind == known[i].kind;
        for (const struct json *one = value ? value->child : NULL; one; one = one->next)
            good = good && (int)one->kind == known[i].of;
        if (!good) fail("machine.json: %s must be %s; texts are in quotes, also numbers", known[i].name, known[i].form);
    }
}

struct json *exported_config(void) {
    if (!mount_files(config_disk)) return NULL;
    struct json *config = read_record("/run/disk/machine.json");
    umount2(mounted, MNT_DETACH);
    check_config(config);
    return config;
}

/* Set a member of an object, replacing an existing one with that name. */
static void put(struct json *object, const char *name, const struct json *value) {
    struct json **at = &object->child, *fresh = calloc(1, sizeof *fresh);
    while (*at && strcmp((*at)->name, name) != 0) at = &(*at)->next;
    if (!fresh) fail("out of memory");
    *fresh = *value;
    fresh->name = (char *)name;
    fresh->next = *at ? (*at)->next : NULL;
    *at = fresh;
}

/* Return the command: argv of the configuration replaces that of the config set; its variables are added. */
struct json *exported_command(const struct json *config) {
    struct json *known = read_record("/etc/drumhead/run.json");
    const char *chosen = json_text(config, "run", json_text(known, "default", ""));
    struct json *command = (struct json *)json_get(json_get(known, "commands"), chosen);
    if (!command && *chosen) fail("the image has no config set %s", chosen);
    if (!command) fail("the image has no default command; give one with --run when composing");
    const struct json *words = json_get(config, "argv"), *added = json_get(config, "env");
    struct json *env = (struct json *)json_get(command, "env");
    if (words) put(command, "argv", words);
    if (added && !env) put(command, "env", added);
    for (const struct json *one = added && env ? added->child : NULL; one; one = one->next) put(env, one->name, one);
    return command;
}

/* Copy a file of the secrets disk. Kubernetes uses names with a leading dot to replace the files of a volume
atomically. */
static void copy_secret(const char *name) {
    char from[300], to[300];
    struct stat facts;
    snprintf(from, sizeof from, "%s/%.250s", mounted, name);
    snprintf(to, sizeof to, "/run/secrets/%.250s", name);
    if (name[0] == '.' || stat(from, &facts) != 0 || !S_ISREG(facts.st_mode)) return;
    char *text = read_file(from);
    int file = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (!text || file < 0) fail("cannot copy the secret %s: %s", name, strerror(errno));
    write_all(file, text, (size_t)facts.st_size);
    close(file);
    free(text);
}

static void copy_secrets(void) {
    struct dirent *entry;
    if (!mount_files(secrets_disk)) return;
    if (mkdir("/run/secrets", 0700) != 0) fail("cannot make /run/secrets: %s", strerror(errno));
    DIR *files = opendir(mounted);
    while (files && (entry = readdir(files))) copy_secret(entry->d_name);
    if (files) closedir(files);
    umount2(mounted, MNT_DETACH);
}

/* Open the device of the ACPI power button, which a hypervisor presses to request a clean shutdown. */
static void open_button(void) {
    struct dirent *entry;
    DIR *devices = opendir("/sys/class/input");
    while (devices && button < 0 && (entry = readdir(devices))) {
        char path[320];
        if (strncmp(entry->d_name, "event", 5) != 0) continue;
        snprintf(path, sizeof path, "/sys/class/input/%s/device/name", entry->d_name);
        char *name = read_file(path);
        snprintf(path, sizeof path, "/dev/input/%s", entry->d_name);
        if (name && strcmp(name, "Power Button\n") == 0) button = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        free(name);
    }
    if (devices) closedir(devices);
}

void exported_prepare(void) {
    copy_secrets();
    open_button();
}

void exported_polls(struct pollfd *polls) { polls[0] = (struct pollfd){.fd = button, .events = POLLIN}; }

void exported_events(const struct pollfd *polls) {
    struct { long seconds, fraction; uint16_t type, code; int32_t value; } event; /* struct input_event of linux/input.h */
    enum { KEY = 1, POWER = 116, PRESSED = 1 };
    if (!polls[0].revents) return;
    while (read(button, &event, sizeof event) == sizeof event) {
        if (event.type != KEY || event.code != POWER || event.value != PRESSED) continue;
        say("the power button was pressed");
        power_off_at_end();
        command_stop(-1);
    }
    if (polls[0].revents & ~POLLIN) { /* the device is gone; polling it would never block */
        close(button);
        button = -1;
    }
}
