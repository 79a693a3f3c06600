// DuckDB's allocator asks here first. See alloc.h.
#include "alloc.h"

#if defined(__linux__) && defined(__x86_64__)

#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

// Smaller pieces are not looked at: DuckDB takes the memory of strings in
// pieces that double up to 16 MiB.
#define FD_LARGE (1 << 20)

// How old a reading of the process's memory may be, in nanoseconds. Reading
// takes about 10 microseconds.
#define FD_FRESH 10000000

// How often it is tried to get memory back before a piece is refused, and the
// nanoseconds between.
#define FD_TRIES 3
#define FD_PAUSE 10000000

static _Atomic int64_t limit;   // 0 = none
static _Atomic int64_t held;    // by the process, when last read
static _Atomic int64_t granted; // since then
static _Atomic int64_t read_at; // when that was, in nanoseconds

void *__real_duckdb_je_malloc(size_t size);
void *__real_duckdb_je_realloc(void *p, size_t size);
void *__real__Znwm(size_t size);
int duckdb_je_mallctl(const char *name, void *old, size_t *oldlen, void *new, size_t newlen);

// read_held reads the pages that the process holds and no file backs. It
// allocates nothing.
static int64_t read_held(void) {
  char text[128];
  int f = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  if (f < 0) {
    return 0;
  }
  ssize_t n = read(f, text, sizeof text - 1);
  close(f);
  if (n <= 0) {
    return 0;
  }
  text[n] = 0;
  char *at = text;
  strtoll(at, &at, 10);
  int64_t resident = strtoll(at, &at, 10);
  int64_t shared = strtoll(at, &at, 10);
  return (resident - shared) * sysconf(_SC_PAGESIZE);
}

// due reports whether something was last done long enough ago, and that the
// caller is the one to do it now.
static bool due(_Atomic int64_t *last, int64_t every) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  int64_t now = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
  int64_t before = atomic_load(last);
  return now - before >= every && atomic_compare_exchange_strong(last, &before, now);
}

static void refresh(void) {
  atomic_store(&held, read_held());
  atomic_store(&granted, 0);
}

static bool too_much(int64_t want, int64_t max) {
  return want < 0 || want > max || atomic_load(&held) + atomic_load(&granted) + want > max;
}

static bool refused(size_t size) {
  int64_t max = atomic_load(&limit), want = (int64_t)size;
  if (max == 0 || size < FD_LARGE) {
    return false;
  }
  if (due(&read_at, FD_FRESH)) {
    refresh();
  }
  // The allocator keeps what is freed for some seconds, and a statement that
  // ended a moment ago may still be giving back: neither must be held against
  // the next. What is refused after this ends a statement, so it is rare.
  for (int i = 0; i < FD_TRIES && too_much(want, max) && want > 0 && want <= max; i++) {
    if (i > 0) {
      nanosleep(&(struct timespec){0, FD_PAUSE}, NULL);
    }
    duckdb_je_mallctl("arena.4096.purge", NULL, NULL, NULL, 0); // of all arenas
    refresh();
  }
  if (too_much(want, max)) {
    return true;
  }
  atomic_fetch_add(&granted, want);
  return false;
}

void *__wrap_duckdb_je_malloc(size_t size) {
  return refused(size) ? NULL : __real_duckdb_je_malloc(size);
}

void *__wrap_duckdb_je_realloc(void *p, size_t size) {
  return refused(size) ? NULL : __real_duckdb_je_realloc(p, size);
}

// operator new: lpad and others build their results in memory of C++. Only it
// can throw std::bad_alloc, and does when asked for what nobody has; this file
// is compiled such that exceptions pass through.
void *__wrap__Znwm(size_t size) {
  return __real__Znwm(refused(size) ? PTRDIFF_MAX : size);
}

void fd_alloc_limit(int64_t bytes) { atomic_store(&limit, bytes); }

#else

void fd_alloc_limit(int64_t bytes) { (void)bytes; }

#endif
