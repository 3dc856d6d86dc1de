/* From the initramfs to the root file system: modules, disks found by serial number, layers, volumes. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "init.h"

enum { MOST_LAYERS = 32, NETLINK_KOBJECT_UEVENT = 15 };

/* From linux/netlink.h, as musl brings no kernel headers. */
struct netlink_address {
    sa_family_t family;
    unsigned short padding;
    uint32_t port, groups;
};

static int events = -1; /* the kernel's device events */

static void mount_or_fail(const char *what, const char *where, const char *type, unsigned long flags,
                          const char *options) {
    make_directories(where);
    if (mount(what, where, type, flags, options) != 0) fail("cannot mount %s on %s: %s", what, where, strerror(errno));
}

void mount_kernel_file_systems(void) {
    mount_or_fail("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_or_fail("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_or_fail("dev", "/dev", "devtmpfs", MS_NOSUID, "mode=0755");
    struct netlink_address address = {.family = AF_NETLINK, .groups = 1};
    events = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
    if (events < 0 || bind(events, (struct sockaddr *)&address, sizeof address) != 0)
        fail("cannot listen for device events: %s", strerror(errno));
}

static int by_name(const struct dirent **one, const struct dirent **other) {
    return strcmp((*one)->d_name, (*other)->d_name);
}

/* The kernel closes the files that it unpacked a little after it starts init; until then they are "busy". */
static bool load_module(int file) {
    double deadline = now() + 5;
    while (syscall(SYS_finit_module, file, "", 0) != 0) {
        if (errno == EEXIST) break;
        if (errno != ETXTBSY || now() > deadline) return false;
        usleep(1000);
    }
    return true;
}

/* Whether only machines on exported disks need a module (NN-NAME.ko). Others save its memory. */
static bool is_for_exported(const char *file) {
    static const char *const names[] = {"cdrom.ko", "isofs.ko", "button.ko", "evdev.ko", NULL};
    const char *dash = strchr(file, '-');
    for (int i = 0; dash && names[i]; i++)
        if (strcmp(dash + 1, names[i]) == 0) return true;
    return false;
}

/* Load modules in the order of their names (NN-NAME.ko). Remove each once it is loaded, to free the initramfs. */
void load_modules(bool exported) {
    struct dirent **names;
    int count = scandir("/modules", &names, NULL, by_name);
    for (int i = 0; i < count; i++) {
        char path[300];
        if (names[i]->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/modules/%s", names[i]->d_name);
        if (exported || !is_for_exported(names[i]->d_name)) {
            int file = open(path, O_RDONLY | O_CLOEXEC);
            if (file < 0 || !load_module(file)) fail("cannot load %s: %s", path, strerror(errno));
            close(file);
        }
        unlink(path);
    }
}

/* Wait until `ready` returns true; call it again after each device event. */
void wait_for_devices(bool (*ready)(void), const char *what, double seconds) {
    double deadline = now() + seconds;
    char event[4096];
    while (!ready()) {
        double left = deadline - now();
        struct pollfd wait = {.fd = events, .events = POLLIN};
        if (left <= 0) fail("%s did not appear within %.0f s", what, seconds);
        if (poll(&wait, 1, (int)(left * 1000) + 1) > 0 && read(events, event, sizeof event) < 0 && errno != ENOBUFS)
            fail("cannot read device events: %s", strerror(errno));
    }
}

/* Find the device (/dev/…) of the disk with a serial number or, on an exported disk, of the partition with that name.
*/
bool find_disk(const char *serial, char *device, size_t size) {
    struct dirent *entry;
    DIR *disks = opendir("/sys/class/block");
    bool found = false;
    while (disks && !found && (entry = readdir(disks))) {
        char path[320], line[80];
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/sys/class/block/%s/serial", entry->d_name);
        char *text = read_file(path);
        if (text) text[strcspn(text, "\n")] = 0;
        found = text && strcmp(text, serial) == 0;
        free(text);
        if (!found) {
            snprintf(path, sizeof path, "/sys/class/block/%s/uevent", entry->d_name);
            snprintf(line, sizeof line, "\nPARTNAME=%s\n", serial);
            found = (text = read_file(path)) && strstr(text, line);
            free(text);
        }
        if (found) snprintf(device, size, "/dev/%s", entry->d_name);
    }
    if (disks) closedir(disks);
    return found;
}

static bool first_layer_ready(void) {
    char device[300];
    return find_disk("layer-0", device, sizeof device);
}

static void mount_layer(const char *device, const char *where) {
    static const char *const types[] = {"squashfs", "erofs", NULL};
    make_directories(where);
    for (int i = 0; types[i]; i++)
        if (mount(device, where, types[i], MS_RDONLY | MS_NODEV, NULL) == 0) return;
    fail("cannot mount the layer %s: %s", device, strerror(errno));
}

/* Make the directories of one directory in another one, with their owners and modes, except one of this name. */
static void copy_directories(int from, int to, const char *left_out) {
    DIR *listed = from < 0 ? NULL : fdopendir(from);
    if (!listed || to < 0) fail("cannot copy the directories of /run: %s", strerror(errno));
    for (struct dirent *entry; (entry = readdir(listed));) {
        const char *name = entry->d_name;
        struct stat known;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, left_out) == 0) continue;
        if (fstatat(from, name, &known, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISDIR(known.st_mode)) continue;
        if (mkdirat(to, name, 0700) != 0 || fchownat(to, name, known.st_uid, known.st_gid, 0) != 0 ||
            fchmodat(to, name, known.st_mode & 07777, 0) != 0)
            fail("cannot make /run/%s: %s", name, strerror(errno));
        copy_directories(openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC),
                         openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), "");
    }
    closedir(listed);
    close(to);
}

/* Mount memory on /run, with the directories that the image has there, such as those of servers for their sockets. */
static void mount_run(void) {
    make_directories("/run");
    int image = open("/run", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    mount_or_fail("run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755");
    copy_directories(image, open("/run", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "secrets");
}

/* Mount every layer-N and return the list of them for overlayfs, the last one first. */
static char *mount_layers(void) {
    static char list[MOST_LAYERS * 16];
    char device[300], where[16];
    wait_for_devices(first_layer_ready, "the disk layer-0", 10);
    for (int i = 0; i < MOST_LAYERS; i++) {
        char serial[16];
        snprintf(serial, sizeof serial, "layer-%d", i);
        if (!find_disk(serial, device, sizeof device)) break;
        snprintf(where, sizeof where, "/layers/%d", i);
        mount_layer(device, where);
        size_t size = strlen(where);
        memmove(list + size + (i > 0), list, strlen(list) + 1);
        memcpy(list, where, size);
        if (i > 0) list[size] = ':';
    }
    return list;
}

void mount_root(const char *overlay_serial) {
    char device[300], options[MOST_LAYERS * 16 + 100];
    char *layers = mount_layers();
    if (!*overlay_serial)
        mount_or_fail("tmpfs", "/writes", "tmpfs", MS_NODEV, "mode=0755");
    else if (find_disk(overlay_serial, device, sizeof device))
        mount_or_fail(device, "/writes", "ext4", MS_NODEV | MS_NOATIME, NULL);
    else
        fail("the disk %s, which takes this machine's writes, is missing", overlay_serial);
    make_directories("/writes/upper");
    make_directories("/writes/work");
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=/writes/upper,workdir=/writes/work", layers);
    mount_or_fail("root", "/root", "overlay", 0, options);
    static const char *const moved[] = {"/proc", "/sys", "/dev", NULL};
    for (int i = 0; moved[i]; i++) {
        char where[16];
        snprintf(where, sizeof where, "/root%s", moved[i]);
        mount_or_fail(moved[i], where, NULL, MS_MOVE, NULL);
    }
    if (chdir("/root") != 0 || mount(".", "/", NULL, MS_MOVE, NULL) != 0 || chroot(".") != 0 || chdir("/") != 0)
        fail("cannot enter the root file system: %s", strerror(errno));
    mount_or_fail("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "mode=0620,ptmxmode=0666");
    mount_or_fail("shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
    mount_run();
    make_directories("/tmp");
    chmod("/tmp", 01777);
    static const char *const links[] = {"/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr", NULL};
    static const char *const targets[] = {"/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"};
    for (int i = 0; links[i]; i++)
        if (symlink(targets[i], links[i]) != 0 && errno != EEXIST) say("cannot link %s: %s", links[i], strerror(errno));
}

/* Write a file for each secret, in memory, readable by root only. Directory and files are new, so there are no links.
*/
void write_secrets(const struct json *secrets) {
    for (const struct json *secret = secrets ? secrets->child : NULL; secret; secret = secret->next) {
        char path[300];
        if (mkdir("/run/secrets", 0700) != 0 && errno != EEXIST) fail("cannot make /run/secrets: %s", strerror(errno));
        snprintf(path, sizeof path, "/run/secrets/%s", secret->name);
        int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (file < 0) fail("cannot write the secret %s: %s", secret->name, strerror(errno));
        write_all(file, secret->text, strlen(secret->text));
        close(file);
    }
}

/* Rebind the driver of a disk that got its contents after the kernel had found it, to read its size and features. */
static void read_disk_again(const char *device) {
    static const char *const steps[] = {"unbind", "bind", NULL};
    char path[340], target[300];
    snprintf(path, sizeof path, "/sys/class/block/%s/device", device + strlen("/dev/"));
    ssize_t size = readlink(path, target, sizeof target - 1);
    if (size < 0) fail("cannot find the driver of %s: %s", device, strerror(errno));
    target[size] = 0;
    const char *name = strrchr(target, '/') ? strrchr(target, '/') + 1 : target;
    for (int i = 0; steps[i]; i++) {
        snprintf(path, sizeof path, "/sys/bus/virtio/drivers/virtio_blk/%s", steps[i]);
        if (!write_file(path, name)) fail("cannot %s %s: %s", steps[i], device, strerror(errno));
    }
}

/* Give an empty volume the owner and mode of the directory that it is mounted over, as container runtimes do. */
static void take_owner(const char *path, const struct stat *covered) {
    DIR *directory = opendir(path);
    bool empty = directory != NULL;
    for (struct dirent *entry; empty && (entry = readdir(directory));)
        empty = !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") || !strcmp(entry->d_name, "lost+found");
    if (directory) closedir(directory);
    if (empty && (chown(path, covered->st_uid, covered->st_gid) != 0 || chmod(path, covered->st_mode & 07777) != 0))
        say("the new volume at %s cannot get its owner: %s", path, strerror(errno));
}

void mount_volumes(const struct json *mounts, bool spare) {
    for (const struct json *mounted = mounts ? mounts->child : NULL; mounted; mounted = mounted->next) {
        const char *serial = json_text(mounted, "serial", ""), *path = json_text(mounted, "path", "");
        unsigned long flags = MS_NODEV | MS_NOATIME | (json_number(mounted, "readonly", 0) != 0 ? MS_RDONLY : 0);
        char device[300];
        bool found = find_disk(serial, device, sizeof device);
        if (found && spare) read_disk_again(device);
        if (!found || !find_disk(serial, device, sizeof device)) fail("the volume %s for %s is missing", serial, path);
        struct stat covered;
        bool known = stat(path, &covered) == 0;
        mount_or_fail(device, path, "ext4", flags, NULL);
        if (known && !(flags & MS_RDONLY)) take_owner(path, &covered);
    }
}
