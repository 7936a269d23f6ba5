/* A disk that fails: LD_PRELOAD this library, and arm it to fail the n-th operation on files below
   a folder. Operations are counted from 1; only this process fails, not those that it starts. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { KILL = -1, SHORT_WRITE = -2 };
static char prefix[4096];
static long fail_at, count;
static int fault;
static pid_t owner;
static char failed[4200];

void arm(const char *folder, long n, int kind) {
  snprintf(prefix, sizeof prefix, "%s/", folder);
  fail_at = n;
  fault = kind;
  count = 0;
  failed[0] = 0;
  owner = getpid();
}

long operations(void) { return count; }
const char *failed_operation(void) { return failed; }

/* Whether this operation fails: sets errno, or does not return. */
static int fails(const char *name, const char *path) {
  if (!prefix[0] || owner != getpid() || !path || strncmp(path, prefix, strlen(prefix))) return 0;
  if (__atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST) != fail_at) return 0;
  snprintf(failed, sizeof failed, "%s %s", name, path + strlen(prefix));
  if (fault == KILL) kill(getpid(), SIGKILL);
  if (fault > 0) errno = fault;
  return 1;
}

static const char *path_of(int fd, char *buffer) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, buffer, 4095);
  if (length < 0) return NULL;
  buffer[length] = 0;
  return buffer;
}

#define REAL(type, name, ...)                                        \
  static type (*real)(__VA_ARGS__);                                  \
  if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name);

#define OPEN(name)                                                   \
  int name(const char *path, int flags, ...) {                       \
    REAL(int, name, const char *, int, ...)                          \
    va_list arguments;                                               \
    va_start(arguments, flags);                                      \
    mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;   \
    va_end(arguments);                                               \
    if (fails("open", path) && fault != SHORT_WRITE) return -1;      \
    return real(path, flags, mode);                                  \
  }
OPEN(open)
OPEN(open64)

#define WRITE(name, ...)                                             \
  if (prefix[0] && fails(#name, path_of(fd, (char[4096]){0}))) {     \
    if (fault != SHORT_WRITE) return -1;                             \
    size = size > 1 ? size / 2 : size;                               \
  }                                                                  \
  return real(__VA_ARGS__);

ssize_t write(int fd, const void *data, size_t size) {
  REAL(ssize_t, write, int, const void *, size_t)
  WRITE(write, fd, data, size)
}
ssize_t read(int fd, void *data, size_t size) {
  REAL(ssize_t, read, int, void *, size_t)
  WRITE(read, fd, data, size)
}
ssize_t pread64(int fd, void *data, size_t size, off64_t offset) {
  REAL(ssize_t, pread64, int, void *, size_t, off64_t)
  WRITE(pread64, fd, data, size, offset)
}
int fsync(int fd) {
  REAL(int, fsync, int)
  if (prefix[0] && fails("fsync", path_of(fd, (char[4096]){0})) && fault != SHORT_WRITE) return -1;
  return real(fd);
}
int rename(const char *source, const char *target) {
  REAL(int, rename, const char *, const char *)
  return fails("rename", target) && fault != SHORT_WRITE ? -1 : real(source, target);
}
int unlink(const char *path) {
  REAL(int, unlink, const char *)
  return fails("unlink", path) && fault != SHORT_WRITE ? -1 : real(path);
}
int mkdir(const char *path, mode_t mode) {
  REAL(int, mkdir, const char *, mode_t)
  return fails("mkdir", path) && fault != SHORT_WRITE ? -1 : real(path, mode);
}
int rmdir(const char *path) {
  REAL(int, rmdir, const char *)
  return fails("rmdir", path) && fault != SHORT_WRITE ? -1 : real(path);
}
