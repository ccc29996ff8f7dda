/* A preloaded library that records, in one total order, what a process does to the files below
 * RECORD_ROOT, and fails chosen operations on request.
 *
 * recording.rs reads the log (RECORD_LOG), and daemon.rs writes the control file (RECORD_CONTROL);
 * both know the structures below. One mutex is held over an operation and its entry, so that the
 * order of the entries is the order of the operations. During a sync it is held only for the
 * entries of the start and of the end. Files are identified by inode. RECORD_CLOCK makes the
 * monotonic clock run that many times as fast, so that what the process does once a minute happens
 * in a short recording. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { CREATE = 1, MKDIR, WRITE, RESIZE, LINK, UNLINK, RENAME, SYNC_START, SYNC_END };
enum { FAIL_WRITE = 1, FAIL_SYNC = 2, FAIL_NAME = 4, FAIL_CREATE = 8, FAIL_RESIZE = 16 };

/* Followed by `first` and `second` bytes of names, then by `data` bytes of content. */
struct entry {
  uint32_t data;
  uint16_t first, second;
  uint32_t kind, detail;
  uint64_t inode, dir, other_dir;
  uint64_t number;
};

struct control {
  uint32_t enabled, mask;
  int32_t error, stop;
  int64_t skip, times;
  uint64_t seen, failed;
  char filter[64];
};

static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static size_t root_length;
static dev_t device;
static int log_fd = -1;
static struct control *control;
static uint64_t syncs;
static long clock_factor;
static struct timespec clock_start;

#define REAL(result, name, ...)                                                                    \
  static result (*real_##name)(__VA_ARGS__);                                                       \
  if (!real_##name) real_##name = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void begin(void) {
  const char *at = getenv("RECORD_ROOT"), *log = getenv("RECORD_LOG");
  const char *control_file = getenv("RECORD_CONTROL"), *factor = getenv("RECORD_CLOCK");
  struct stat about;
  if (!at || !log || !control_file || stat(at, &about)) return;
  device = about.st_dev;
  int fd = (int)syscall(SYS_openat, AT_FDCWD, control_file, O_RDWR | O_CLOEXEC, 0);
  control = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (fd < 0 || control == MAP_FAILED) abort();
  syscall(SYS_close, fd);
  root_length = strlen(strncpy(root, at, sizeof root - 1));
  log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CLOEXEC, 0);
  if (log_fd < 0) abort();
  if (factor) {
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &clock_start);
    clock_factor = atol(factor);
  }
}

/* The inodes that were opened below the root. */
static uint64_t known[1 << 20];

static uint64_t *slot(uint64_t inode) {
  uint64_t at = inode * 0x9e3779b97f4a7c15u >> 44;
  while (known[at] && known[at] != inode) at = (at + 1) % (sizeof known / sizeof *known);
  return &known[at];
}

/* Whether the descriptor is a file or directory below the root; `about` then has its inode. */
static int ours(int fd, struct stat *about) {
  if (log_fd < 0 || fstat(fd, about) || about->st_dev != device) return 0;
  return (S_ISREG(about->st_mode) || S_ISDIR(about->st_mode)) && *slot(about->st_ino);
}

static void put(struct entry entry, const char *first, const char *second,
                const struct iovec *data, int count) {
  entry.first = first ? (uint16_t)strlen(first) : 0;
  entry.second = second ? (uint16_t)strlen(second) : 0;
  struct iovec all[64] = {{&entry, sizeof entry},
                          {(void *)first, entry.first},
                          {(void *)second, entry.second}};
  if (count > 60) abort();
  size_t left = entry.data, size = sizeof entry + entry.first + entry.second + left;
  for (int i = 0; i < count; i++) {
    all[3 + i] = data[i];
    if (all[3 + i].iov_len > left) all[3 + i].iov_len = left;
    left -= all[3 + i].iov_len;
  }
  int saved = errno;
  if (syscall(SYS_writev, log_fd, all, 3 + count) != (long)size) abort();
  errno = saved;
}

static void lock(void) {
  pthread_mutex_lock(&order);
  while (control && control->stop) {
    pthread_mutex_unlock(&order);
    usleep(1000);
    pthread_mutex_lock(&order);
  }
}

static void unlock(void) { pthread_mutex_unlock(&order); }

/* An absolute path, the place in it where its last name begins, and the directory's inode. */
struct place {
  char whole[PATH_MAX];
  size_t name;
  uint64_t dir;
  int ours;
};

static void fd_path(int fd, char *path) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, PATH_MAX - 1);
  path[length < 0 ? 0 : length] = 0;
}

static struct place place(int dirfd, const char *path) {
  struct place place = {.ours = 0};
  if (log_fd < 0 || !path) return place;
  if (path[0] == '/') {
    snprintf(place.whole, PATH_MAX, "%s", path);
  } else {
    char base[PATH_MAX];
    if (dirfd == AT_FDCWD) {
      if (!getcwd(base, sizeof base)) return place;
    } else {
      fd_path(dirfd, base);
    }
    if (snprintf(place.whole, PATH_MAX, "%s/%s", base, path) >= PATH_MAX) return place;
  }
  size_t length = strlen(place.whole);
  while (length > 1 && place.whole[length - 1] == '/') place.whole[--length] = 0;
  if (strncmp(place.whole, root, root_length)) return place;
  if (place.whole[root_length] != '/' && place.whole[root_length]) return place;
  place.ours = 1;
  char *slash = strrchr(place.whole, '/');
  struct stat about;
  *slash = 0;
  if (!stat(place.whole, &about)) place.dir = about.st_ino;
  *slash = '/';
  place.name = (size_t)(slash + 1 - place.whole);
  return place;
}

/* Whether this operation is one that has to fail now; errno is set then. */
static int fails(uint32_t kind, const char *path, int fd) {
  if (!control || !control->enabled || !(control->mask & kind)) return 0;
  if (control->filter[0]) {
    char own[PATH_MAX];
    if (!path) {
      fd_path(fd, own);
      path = own;
    }
    int wanted = control->filter[0] != '!';
    if ((strstr(path, control->filter + !wanted) != NULL) != wanted) return 0;
  }
  int64_t number = (int64_t)control->seen++;
  if (number < control->skip) return 0;
  if (control->times >= 0 && (int64_t)control->failed >= control->times) return 0;
  control->failed++;
  errno = control->error;
  return 1;
}

static int opened(int dirfd, const char *path, int flags, mode_t mode) {
  REAL(int, openat64, int, const char *, int, ...);
  struct place at = place(dirfd, path);
  if (!at.ours) return real_openat64(dirfd, path, flags, mode);
  lock();
  struct stat before, after;
  int was = !stat(at.whole, &before), fd = -1;
  int creates = !was && (flags & O_CREAT);
  if (!((creates && fails(FAIL_CREATE, at.whole, -1)) ||
        (was && (flags & O_TRUNC) && fails(FAIL_RESIZE, at.whole, -1))))
    fd = real_openat64(dirfd, path, flags, mode);
  if (fd >= 0 && !fstat(fd, &after)) {
    *slot(after.st_ino) = after.st_ino;
    if (creates)
      put((struct entry){.kind = CREATE, .inode = after.st_ino, .dir = at.dir},
          at.whole + at.name, 0, 0, 0);
    else if ((flags & O_TRUNC) && before.st_size)
      put((struct entry){.kind = RESIZE, .inode = after.st_ino}, 0, 0, 0, 0);
  }
  unlock();
  return fd;
}

#define MODE(flags)                                                                                \
  mode_t mode = 0;                                                                                 \
  if ((flags) & (O_CREAT | O_TMPFILE)) {                                                           \
    va_list rest;                                                                                  \
    va_start(rest, flags);                                                                         \
    mode = va_arg(rest, mode_t);                                                                   \
    va_end(rest);                                                                                  \
  }

int open(const char *path, int flags, ...) {
  MODE(flags) return opened(AT_FDCWD, path, flags, mode);
}
int open64(const char *path, int flags, ...) {
  MODE(flags) return opened(AT_FDCWD, path, flags, mode);
}
int openat(int dir, const char *path, int flags, ...) {
  MODE(flags) return opened(dir, path, flags, mode);
}
int openat64(int dir, const char *path, int flags, ...) {
  MODE(flags) return opened(dir, path, flags, mode);
}
int creat(const char *path, mode_t mode) {
  return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

/* All forms of writing; `offset` is -1 where the descriptor's position counts. */
static ssize_t written(int fd, const struct iovec *parts, int count, off_t offset) {
  REAL(ssize_t, writev, int, const struct iovec *, int);
  REAL(ssize_t, pwritev64, int, const struct iovec *, int, off_t);
  struct stat about;
  int recorded = ours(fd, &about);
  if (recorded) lock();
  ssize_t done = -1;
  if (!recorded || !fails(FAIL_WRITE, 0, fd)) {
    off_t at = offset;
    if (recorded && (fcntl(fd, F_GETFL) & O_APPEND)) {
      fstat(fd, &about);
      at = about.st_size;
    } else if (recorded && offset < 0) {
      at = lseek(fd, 0, SEEK_CUR);
    }
    done = offset < 0 ? real_writev(fd, parts, count) : real_pwritev64(fd, parts, count, offset);
    if (recorded && done > 0) {
      struct entry entry = {.kind = WRITE, .inode = about.st_ino, .number = (uint64_t)at};
      entry.data = (uint32_t)done;
      put(entry, 0, 0, parts, count);
    }
  }
  if (recorded) unlock();
  return done;
}

ssize_t write(int fd, const void *bytes, size_t size) {
  struct stat about;
  if (!ours(fd, &about)) return syscall(SYS_write, fd, bytes, size);
  return written(fd, &(struct iovec){(void *)bytes, size}, 1, -1);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
  return written(fd, parts, count, -1);
}
ssize_t pwrite(int fd, const void *bytes, size_t size, off_t at) {
  return written(fd, &(struct iovec){(void *)bytes, size}, 1, at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t size, off_t at) {
  return pwrite(fd, bytes, size, at);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
  return written(fd, parts, count, at);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t at) {
  return written(fd, parts, count, at);
}

/* A copy that the kernel would make is made by a read and a write, so that it is recorded. */
ssize_t copy_file_range(int in, off_t *in_at, int out, off_t *out_at, size_t size, unsigned flags) {
  (void)flags;
  char bytes[64 << 10];
  if (size > sizeof bytes) size = sizeof bytes;
  ssize_t got = in_at ? pread(in, bytes, size, *in_at) : read(in, bytes, size);
  if (got <= 0) return got;
  ssize_t put = out_at ? pwrite(out, bytes, (size_t)got, *out_at) : write(out, bytes, (size_t)got);
  if (put < 0) return put;
  if (!in_at && put < got) lseek(in, put - got, SEEK_CUR);
  if (in_at) *in_at += put;
  if (out_at) *out_at += put;
  return put;
}

/* Everything that changes a file's size; `how` is one of the two functions below. */
static int resized(int fd, long how(int, int, off_t, off_t), int mode, off_t at, off_t size) {
  struct stat about;
  int recorded = ours(fd, &about);
  if (recorded) lock();
  int outcome = -1;
  if (!recorded || !fails(FAIL_RESIZE, 0, fd)) {
    outcome = (int)how(fd, mode, at, size);
    off_t before = about.st_size;
    if (recorded && !outcome && !fstat(fd, &about) && about.st_size != before)
      put((struct entry){.kind = RESIZE, .inode = about.st_ino, .number = (uint64_t)about.st_size},
          0, 0, 0, 0);
  }
  if (recorded) unlock();
  return outcome;
}

static long set_size(int fd, int mode, off_t at, off_t size) {
  (void)mode, (void)at;
  return syscall(SYS_ftruncate, fd, size);
}
static long allocate(int fd, int mode, off_t at, off_t size) {
  /* Modes that punch holes or move bytes are not supported. */
  if (mode & ~FALLOC_FL_KEEP_SIZE) abort();
  return syscall(SYS_fallocate, fd, mode, at, size);
}

int ftruncate(int fd, off_t size) { return resized(fd, set_size, 0, 0, size); }
int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }
int fallocate(int fd, int mode, off_t at, off_t size) {
  return resized(fd, allocate, mode, at, size);
}
int fallocate64(int fd, int mode, off_t at, off_t size) { return fallocate(fd, mode, at, size); }
int posix_fallocate(int fd, off_t at, off_t size) { return fallocate(fd, 0, at, size) ? errno : 0; }
int posix_fallocate64(int fd, off_t at, off_t size) { return posix_fallocate(fd, at, size); }
int truncate(const char *path, off_t size) {
  int fd = open(path, O_WRONLY);
  if (fd < 0) return -1;
  int outcome = ftruncate(fd, size);
  syscall(SYS_close, fd);
  return outcome;
}
int truncate64(const char *path, off_t size) { return truncate(path, size); }

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
  struct place a = place(from_dir, from), b = place(to_dir, to);
  if (!a.ours && !b.ours) return (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
  if (a.ours != b.ours || (flags & RENAME_EXCHANGE)) abort();
  lock();
  struct stat about;
  int outcome = -1;
  if (!fails(FAIL_NAME, b.whole, -1)) {
    outcome = (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
    if (!outcome && !lstat(b.whole, &about))
      put((struct entry){.kind = RENAME, .inode = about.st_ino, .dir = a.dir, .other_dir = b.dir},
          a.whole + a.name, b.whole + b.name, 0, 0);
  }
  unlock();
  return outcome;
}
int renameat(int a, const char *from, int b, const char *to) {
  return renameat2(a, from, b, to, 0);
}
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
  struct place a = place(from_dir, from), b = place(to_dir, to);
  if (!b.ours) return (int)syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
  if (!a.ours) abort();
  lock();
  struct stat about;
  int outcome = -1;
  if (!fails(FAIL_NAME, b.whole, -1)) {
    outcome = (int)syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
    if (!outcome && !lstat(b.whole, &about))
      put((struct entry){.kind = LINK, .inode = about.st_ino, .dir = b.dir},
          b.whole + b.name, 0, 0, 0);
  }
  unlock();
  return outcome;
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlinkat(int dir, const char *path, int flags) {
  struct place at = place(dir, path);
  if (!at.ours) return (int)syscall(SYS_unlinkat, dir, path, flags);
  lock();
  int outcome = (int)syscall(SYS_unlinkat, dir, path, flags);
  if (!outcome) put((struct entry){.kind = UNLINK, .dir = at.dir}, at.whole + at.name, 0, 0, 0);
  unlock();
  return outcome;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) {
  int outcome = unlink(path);
  return outcome && errno == EISDIR ? rmdir(path) : outcome;
}

int mkdirat(int dir, const char *path, mode_t mode) {
  struct place at = place(dir, path);
  if (!at.ours) return (int)syscall(SYS_mkdirat, dir, path, mode);
  lock();
  struct stat about;
  int outcome = -1;
  if (!fails(FAIL_CREATE, at.whole, -1)) {
    outcome = (int)syscall(SYS_mkdirat, dir, path, mode);
    if (!outcome && !stat(at.whole, &about))
      put((struct entry){.kind = MKDIR, .inode = about.st_ino, .dir = at.dir},
          at.whole + at.name, 0, 0, 0);
  }
  unlock();
  return outcome;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

/* `detail` of a start: 0 for fsync, 1 for fdatasync; of an end: errno. `number` joins the two. */
static int synced(int fd, long call, uint32_t detail) {
  struct stat about;
  if (!ours(fd, &about)) return (int)syscall(call, fd);
  char path[PATH_MAX];
  fd_path(fd, path);
  lock();
  struct entry entry = {.kind = SYNC_START, .detail = detail, .inode = about.st_ino};
  entry.number = ++syncs;
  put(entry, path + (strlen(path) > root_length ? root_length + 1 : root_length), 0, 0, 0);
  int failing = fails(FAIL_SYNC, path, fd);
  unlock();
  int outcome = failing ? -1 : (int)syscall(call, fd);
  if (failing) errno = control->error;
  int error = outcome ? errno : 0;
  lock();
  entry.kind = SYNC_END;
  entry.detail = (uint32_t)error;
  put(entry, 0, 0, 0, 0);
  unlock();
  errno = error;
  return outcome;
}
int fsync(int fd) { return synced(fd, SYS_fsync, 0); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync, 1); }

int clock_gettime(clockid_t clock, struct timespec *now) {
  int outcome = (int)syscall(SYS_clock_gettime, clock, now);
  if (!clock_factor || clock != CLOCK_MONOTONIC || outcome) return outcome;
  int64_t start = clock_start.tv_sec * 1000000000ll + clock_start.tv_nsec;
  int64_t real = now->tv_sec * 1000000000ll + now->tv_nsec;
  int64_t fast = start + (real - start) * clock_factor;
  *now = (struct timespec){fast / 1000000000, fast % 1000000000};
  return 0;
}
int epoll_wait(int fd, struct epoll_event *events, int most, int millis) {
  if (clock_factor && millis > 0) millis = millis > clock_factor ? (int)(millis / clock_factor) : 1;
  return (int)syscall(SYS_epoll_wait, fd, events, most, millis);
}
