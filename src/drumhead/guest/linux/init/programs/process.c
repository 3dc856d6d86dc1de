/* Start programs: environment, working directory, search in PATH, a new session. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../init.h"

static const char *const defaults[] = {
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "LANG=C.UTF-8", NULL};

enum { FAULT = 512 };
static char fault[FAULT]; /* why the program that was started last could not be started */

static size_t count_members(const struct json *value) {
    size_t count = 0;
    for (const struct json *member = value ? value->child : NULL; member; member = member->next) count++;
    return count;
}

static char *assignment(const char *name, const char *value) {
    char *text = malloc(strlen(name) + strlen(value) + 2);
    if (text) sprintf(text, "%s=%s", name, value);
    return text;
}

/* Return false if `command` is empty. The arguments belong to `command`, the environment to `program`. */
bool program_from(const struct json *command, struct program *program) {
    const struct json *words = json_get(command, "argv"), *env = json_get(command, "env");
    size_t count = 0, known = sizeof defaults / sizeof *defaults - 1;
    *program = (struct program){.cwd = json_text(command, "cwd", "/")};
    if (!count_members(words)) return false;
    program->argv = calloc(count_members(words) + 1, sizeof(char *));
    program->env = calloc(count_members(env) + known + 1, sizeof(char *));
    if (!program->argv || !program->env) fail("out of memory");
    for (const struct json *word = words->child; word; word = word->next)
        if (word->kind == JSON_STRING) program->argv[count++] = word->text;
    count = 0;
    for (size_t i = 0; i < known; i++) {
        char name[16];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(defaults[i], "="), defaults[i]);
        if (!json_get(env, name)) program->env[count++] = strdup(defaults[i]);
    }
    for (const struct json *variable = env ? env->child : NULL; variable; variable = variable->next)
        if (variable->kind == JSON_STRING) program->env[count++] = assignment(variable->name, variable->text);
    return true;
}

void program_free(struct program *program) {
    for (char **variable = program->env; variable && *variable; variable++) free(*variable);
    free(program->env);
    free(program->argv);
    *program = (struct program){0};
}

/* Say why the program did not start: to whoever reads its errors, and to init. */
static _Noreturn void give_up(int told, int code, const char *format, const char *what, const char *why) {
    char reason[FAULT];
    snprintf(reason, sizeof reason, format, what, why);
    dprintf(STDERR_FILENO, "drumhead: %s\n", reason);
    write_all(told, reason, strlen(reason));
    _exit(code);
}

static _Noreturn void become(const struct program *program, int told) {
    const char *name = program->argv[0];
    if (chdir(program->cwd) != 0) give_up(told, 126, "cannot enter %s: %s", program->cwd, strerror(errno));
    environ = program->env; /* execvp searches the PATH of the new program */
    execvp(name, program->argv);
    const char *why = strerror(errno);
    int missing = errno == ENOENT;
    if (errno == ENOEXEC) why = "it is neither a program for this processor nor a script that begins with #!";
    if (missing && strchr(name, '/') && access(name, F_OK) == 0)
        why = "its interpreter (the first line of a script) or its loader does not exist";
    give_up(told, missing ? 127 : 126, "cannot start %s: %s", name, why);
}

/* The pipe closes by itself once the new program runs. */
static void read_fault(int from) {
    size_t size = 0;
    ssize_t got;
    while (size < sizeof fault - 1 && ((got = read(from, fault + size, sizeof fault - 1 - size)) > 0 || (got < 0 && errno == EINTR)))
        size += got > 0 ? (size_t)got : 0;
    fault[size] = 0;
    close(from);
}

const char *start_fault(void) { return fault; }

/* If `terminal` is set, `in` is a terminal and becomes the controlling one. Return the process id or -1. */
pid_t start_program(const struct program *program, int in, int out, int err, bool terminal) {
    int tells[2];
    fault[0] = 0;
    if (pipe2(tells, O_CLOEXEC) != 0) return -1;
    pid_t pid = fork();
    if (pid != 0) {
        close(tells[1]);
        read_fault(tells[0]);
        return pid;
    }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setsid();
    if (program->expendable) write_file("/proc/self/oom_score_adj", "1000");
    if (terminal) ioctl(in, TIOCSCTTY, 0);
    if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0) _exit(126);
    become(program, tells[1]);
}

int exit_code(int status) { return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status); }

/* The kernel kills the largest program when no memory is left. Its count is of the whole machine. */
int killed_for_memory(void) {
    char *counts = read_file("/proc/vmstat");
    const char *killed = counts ? strstr(counts, "\noom_kill ") : NULL;
    int count = killed ? atoi(killed + strlen("\noom_kill ")) : 0;
    free(counts);
    return count;
}

struct process { pid_t parent, session; char state, name[32]; };

static bool read_process(const char *pid, struct process *process) {
    char path[300], text[512];
    snprintf(path, sizeof path, "/proc/%s/stat", pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = file < 0 ? -1 : read(file, text, sizeof text - 1);
    if (file >= 0) close(file);
    text[got > 0 ? got : 0] = '\0';
    char *first = strchr(text, '('), *end = strrchr(text, ')'); /* PID (NAME) STATE PARENT GROUP SESSION */
    if (!first || !end) return false;
    snprintf(process->name, sizeof process->name, "%.*s", (int)(end - first - 1), first + 1);
    return sscanf(end + 1, " %c %d %*d %d", &process->state, &process->parent, &process->session) == 3;
}

bool find_daemon(pid_t starter, char *name, size_t size) {
    struct process own = {0}, other;
    bool found = false;
    DIR *processes = read_process("self", &own) ? opendir("/proc") : NULL;
    for (struct dirent *entry; processes && !found && (entry = readdir(processes));) {
        int pid = atoi(entry->d_name);
        if (pid <= 1 || !read_process(entry->d_name, &other) || other.parent != 1 || other.state == 'Z') continue;
        found = other.session != starter && other.session != own.session && !sessions_own(pid) && !console_owns(pid);
        snprintf(name, size, "%s", other.name);
    }
    if (processes) closedir(processes);
    return found;
}
