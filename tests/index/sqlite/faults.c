/* Preloaded into a process, makes the n-th call that changes a file under a folder fail, or kills the process around it.

   fault_arm(folder, kind, n) sets it: kind is a name below; calls are counted from 1; fault_count() tells how many there were. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum { NOTHING, FULL, BROKEN, SHORT, KILL_BEFORE, KILL_AFTER };

static const char *names[] = {"nothing", "full", "broken", "short", "kill-before", "kill-after"};
static char prefix[PATH_MAX];
static int kind = NOTHING;
static long at = 0, count = 0;

void fault_arm(const char *folder, const char *name, long n) {
    snprintf(prefix, sizeof prefix, "%s", folder);
    kind = NOTHING, at = n, count = 0;
    for (int i = 0; i <= KILL_AFTER; i++)
        if (strcmp(names[i], name) == 0) kind = i;
}

long fault_count(void) { return count; }

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

static int inside(const char *path) { return prefix[0] && strncmp(path, prefix, strlen(prefix)) == 0; }

static int inside_fd(int fd) {
    char link[64], path[PATH_MAX];
    if (!prefix[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return inside(path);
}

/* The fate of a call: 0 it succeeds, 1 it succeeds and the process is killed, 2 it fails, 3 it writes half. */
static int fate(int counts, int takes_room) {
    if (!counts) return 0;
    long n = ++count;
    if (n == at && kind != NOTHING) {
        if (kind == KILL_BEFORE) kill(getpid(), SIGKILL);
        if (kind == KILL_AFTER) return 1;
        if (kind == BROKEN) return errno = EIO, 2;
        if (kind == SHORT && takes_room) return 3;
    }
    if ((kind == FULL || (kind == SHORT && n > at)) && at > 0 && n >= at && takes_room) return errno = ENOSPC, 2;
    return 0;
}

static void end(int fated) {
    if (fated == 1) kill(getpid(), SIGKILL);
}

ssize_t write(int fd, const void *data, size_t size) {
    int fated = fate(inside_fd(fd), 1);
    if (fated == 2) return -1;
    ssize_t done = ((ssize_t(*)(int, const void *, size_t))real("write"))(fd, data, fated == 3 ? size / 2 : size);
    end(fated);
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    int fated = fate(inside_fd(fd), 1);
    if (fated == 2) return -1;
    ssize_t done = ((ssize_t(*)(int, const void *, size_t, off_t))real("pwrite"))(fd, data, fated == 3 ? size / 2 : size, offset);
    end(fated);
    return done;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    int fated = fate(inside_fd(fd), 1);
    if (fated == 2) return -1;
    ssize_t done = ((ssize_t(*)(int, const void *, size_t, off64_t))real("pwrite64"))(fd, data, fated == 3 ? size / 2 : size, offset);
    end(fated);
    return done;
}

#define ON_A_FILE(name)                                        \
    int name(int fd) {                                         \
        int fated = fate(inside_fd(fd), 0);                    \
        if (fated == 2) return -1;                             \
        int done = ((int (*)(int))real(#name))(fd);            \
        end(fated);                                            \
        return done;                                           \
    }

ON_A_FILE(fsync)
ON_A_FILE(fdatasync)

#define TO_A_LENGTH(name, type)                                    \
    int name(int fd, type length) {                                \
        int fated = fate(inside_fd(fd), 0);                        \
        if (fated == 2) return -1;                                 \
        int done = ((int (*)(int, type))real(#name))(fd, length);  \
        end(fated);                                                \
        return done;                                               \
    }

TO_A_LENGTH(ftruncate, off_t)
TO_A_LENGTH(ftruncate64, off64_t)

int rename(const char *from, const char *to) {
    int fated = fate(inside(to), 0);
    if (fated == 2) return -1;
    int done = ((int (*)(const char *, const char *))real("rename"))(from, to);
    end(fated);
    return done;
}

int unlink(const char *path) {
    int fated = fate(inside(path), 0);
    if (fated == 2) return -1;
    int done = ((int (*)(const char *))real("unlink"))(path);
    end(fated);
    return done;
}
