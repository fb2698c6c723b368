/* Lets the n-th call that touches files below a folder fail, or kills the process there: preloaded before the C library.

   What is counted: open, fopen, write, fsync, rename, mkdir and ftruncate in all their forms. The counter lies in memory that
   forked processes share, so that a point is one of the whole run. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

struct point {
  long count;  /* calls so far */
  long at;     /* the one that fails; 0: none */
  int error;   /* its errno; 0: the process is killed */
  int struck;  /* whether it was reached */
  char call[16];
  char path[512];
  char root[512];
};

static struct point *point;

void faults_arm(struct point *memory) { point = memory; }

#define REAL(name) \
  static __typeof__(name) *real; \
  if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static int strikes(const char *call, const char *path) {
  size_t length;
  if (!point || !path) return 0;
  length = strlen(point->root);
  if (strncmp(path, point->root, length) || (path[length] && path[length] != '/')) return 0;
  if (__sync_add_and_fetch(&point->count, 1) != point->at) return 0;
  snprintf(point->call, sizeof point->call, "%s", call);
  snprintf(point->path, sizeof point->path, "%s", path + length);
  point->struck = 1;
  return 1;
}

static int fails(void) {
  if (!point->error) kill(getpid(), SIGKILL);
  errno = point->error;
  return -1;
}

static int named(const char *call, int folder, const char *path) {
  char whole[PATH_MAX * 2], base[PATH_MAX], link[64];
  ssize_t n;
  if (!point || !path) return 0;
  if (path[0] == '/') return strikes(call, path);
  if (folder == AT_FDCWD) {
    if (!getcwd(base, sizeof base)) return 0;
  } else {
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    if ((n = readlink(link, base, sizeof base - 1)) < 0) return 0;
    base[n] = 0;
  }
  snprintf(whole, sizeof whole, "%s/%s", base, path);
  return strikes(call, whole);
}

static int held(const char *call, int file) {
  char path[PATH_MAX], link[64];
  ssize_t n;
  if (!point) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  if ((n = readlink(link, path, sizeof path - 1)) < 0) return 0;
  path[n] = 0;
  return strikes(call, path);
}

#define MODE(flags, last) \
  mode_t mode = 0; \
  if ((flags) & (O_CREAT | __O_TMPFILE)) { va_list list; va_start(list, last); mode = va_arg(list, mode_t); va_end(list); }

int open(const char *path, int flags, ...) {
  REAL(open); MODE(flags, flags)
  return named("open", AT_FDCWD, path) ? fails() : real(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
  REAL(open64); MODE(flags, flags)
  return named("open", AT_FDCWD, path) ? fails() : real(path, flags, mode);
}
int openat(int folder, const char *path, int flags, ...) {
  REAL(openat); MODE(flags, flags)
  return named("open", folder, path) ? fails() : real(folder, path, flags, mode);
}
int openat64(int folder, const char *path, int flags, ...) {
  REAL(openat64); MODE(flags, flags)
  return named("open", folder, path) ? fails() : real(folder, path, flags, mode);
}
FILE *fopen(const char *path, const char *mode) {
  REAL(fopen);
  if (named("open", AT_FDCWD, path)) { fails(); return NULL; }
  return real(path, mode);
}
FILE *fopen64(const char *path, const char *mode) {
  REAL(fopen64);
  if (named("open", AT_FDCWD, path)) { fails(); return NULL; }
  return real(path, mode);
}
/* A write that fails has written half before. */
ssize_t write(int file, const void *data, size_t size) {
  REAL(write);
  if (held("write", file)) { real(file, data, size / 2); return fails(); }
  return real(file, data, size);
}
ssize_t writev(int file, const struct iovec *parts, int count) {
  REAL(writev);
  return held("write", file) ? fails() : real(file, parts, count);
}
ssize_t pwrite(int file, const void *data, size_t size, off_t place) {
  REAL(pwrite);
  if (held("write", file)) { real(file, data, size / 2, place); return fails(); }
  return real(file, data, size, place);
}
ssize_t pwrite64(int file, const void *data, size_t size, off64_t place) {
  REAL(pwrite64);
  if (held("write", file)) { real(file, data, size / 2, place); return fails(); }
  return real(file, data, size, place);
}
int fsync(int file) { REAL(fsync); return held("fsync", file) ? fails() : real(file); }
int fdatasync(int file) { REAL(fdatasync); return held("fsync", file) ? fails() : real(file); }
int ftruncate(int file, off_t size) { REAL(ftruncate); return held("write", file) ? fails() : real(file, size); }
int ftruncate64(int file, off64_t size) { REAL(ftruncate64); return held("write", file) ? fails() : real(file, size); }
int rename(const char *from, const char *to) {
  REAL(rename);
  return named("rename", AT_FDCWD, to) ? fails() : real(from, to);
}
int renameat(int old, const char *from, int new, const char *to) {
  REAL(renameat);
  return named("rename", new, to) ? fails() : real(old, from, new, to);
}
int mkdir(const char *path, mode_t mode) {
  REAL(mkdir);
  return named("mkdir", AT_FDCWD, path) ? fails() : real(path, mode);
}
int mkdirat(int folder, const char *path, mode_t mode) {
  REAL(mkdirat);
  return named("mkdir", folder, path) ? fails() : real(folder, path, mode);
}
