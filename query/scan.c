#include "scan.h"

#include <stdlib.h>
#include <string.h>

#include "_cgo_export.h"

// fd_local is what one thread of a scan knows: its morsel and how far it is.
typedef struct {
  fd_morsel *morsel;
  int64_t pos;    // next row, or next place in live
  uint64_t limit; // rows of a vector
} fd_local;

// fd_window is the piece of a morsel that becomes one chunk: rows base to
// base+span, of which sel (NULL = all) picks count.
typedef struct {
  int64_t base;
  int64_t span;
  int64_t count;
  void *sel;
} fd_window;

// fd_slice is one column of one window, the Arrow array that DuckDB takes over.
typedef struct {
  struct ArrowArray column;
  struct ArrowArray *children[1];
  const void *buffers[1];
  fd_morsel *morsel;
} fd_slice;

static _Atomic int64_t morsels_alive;

int64_t fd_morsels_alive(void) { return atomic_load(&morsels_alive); }

fd_bind *fd_bind_new(int64_t table, uint64_t conn, int64_t number) {
  fd_bind *b = malloc(sizeof *b);
  b->table = table;
  b->conn = conn;
  b->number = number;
  return b;
}

fd_morsel *fd_morsel_new(int64_t rows, int ncols, int64_t nlive) {
  fd_morsel *m = calloc(1, sizeof *m);
  atomic_init(&m->refs, 1);
  m->rows = rows;
  m->ncols = ncols;
  m->cols = calloc(ncols > 0 ? ncols : 1, sizeof *m->cols);
  m->nlive = nlive;
  if (nlive >= 0) m->live = malloc((nlive > 0 ? nlive : 1) * sizeof *m->live);
  atomic_fetch_add(&morsels_alive, 1);
  return m;
}

void fd_morsel_unref(fd_morsel *m) {
  if (atomic_fetch_sub(&m->refs, 1) != 1) return;
  for (int i = 0; i < m->ncols; i++) fd_release_array(&m->cols[i]);
  free(m->cols);
  free(m->live);
  free(m);
  atomic_fetch_sub(&morsels_alive, 1);
}

void fd_release_array(struct ArrowArray *a) {
  if (a->release) a->release(a);
}

void fd_release_schema(struct ArrowSchema *s) {
  if (s->release) s->release(s);
}

fd_scan *fd_scan_new(uintptr_t handle, void *conn, int ncols) {
  fd_scan *s = calloc(1, sizeof *s);
  s->handle = handle;
  s->conn = conn;
  s->ncols = ncols;
  s->out = calloc(ncols > 0 ? ncols : 1, sizeof *s->out);
  s->schemas = calloc(ncols > 0 ? ncols : 1, sizeof *s->schemas);
  return s;
}

void fd_scan_free(void *p) {
  fd_scan *s = p;
  for (int i = 0; i < s->ncols; i++)
    if (s->schemas[i]) duckdb_destroy_arrow_converted_schema(&s->schemas[i]);
  flightdScanClose(s->handle);
  free(s->out);
  free(s->schemas);
  free(s);
}

static void local_free(void *p) {
  fd_local *l = p;
  if (l->morsel) fd_morsel_unref(l->morsel);
  free(l);
}

void fd_scan_local(void *info) {
  fd_local *l = calloc(1, sizeof *l);
  l->limit = duckdb_vector_size();
  duckdb_init_set_init_data(info, l, local_free);
}

// next_window cuts the next chunk from the thread's morsel. A window never
// spans more rows than a vector holds, so that it can be sliced in place.
static bool next_window(fd_local *l, fd_window *w) {
  fd_morsel *m = l->morsel;
  w->sel = NULL;
  if (!m->live) {
    w->base = l->pos;
    w->count = m->rows - l->pos;
    if (w->count > (int64_t)l->limit) w->count = l->limit;
    w->span = w->count;
    l->pos += w->count;
    return w->count > 0;
  }
  if (l->pos >= m->nlive) return false;
  int64_t from = l->pos, to = from + 1;
  // A morsel that fits a vector is never cut: the scan relies on it for columns
  // that DuckDB cannot read from the middle.
  bool whole = m->rows <= (int64_t)l->limit;
  w->base = whole ? 0 : m->live[from];
  while (to < m->nlive && m->live[to] - w->base < (int64_t)l->limit) to++;
  w->count = to - from;
  w->span = whole ? m->rows : m->live[to - 1] - w->base + 1;
  l->pos = to;
  if (w->span != w->count) {
    w->sel = duckdb_create_selection_vector(w->count);
    uint32_t *sel = duckdb_selection_vector_get_data_ptr(w->sel);
    for (int64_t i = 0; i < w->count; i++) sel[i] = m->live[from + i] - w->base;
  }
  return true;
}

static void slice_release(struct ArrowArray *a) {
  fd_slice *s = a->private_data;
  a->release = NULL;
  fd_morsel_unref(s->morsel);
  free(s);
}

// The column inside a slice belongs to the morsel: DuckDB only ever releases
// the struct around it, but the specification wants a callback here, too.
static void column_release(struct ArrowArray *a) { a->release = NULL; }

// new_slice wraps one column of a window as the only child of a struct array
// that holds a reference to the morsel until DuckDB releases it.
static struct ArrowArray new_slice(fd_morsel *m, int col, const fd_window *w) {
  fd_slice *s = calloc(1, sizeof *s);
  s->column = m->cols[col];
  s->column.offset += w->base;
  s->column.length = w->span;
  // The count belongs to the whole column, so it is unknown for a part of it.
  if (s->column.null_count != 0) s->column.null_count = -1;
  s->column.release = column_release;
  s->children[0] = &s->column;
  s->morsel = m;
  atomic_fetch_add(&m->refs, 1);
  struct ArrowArray top = {
      .length = w->span,
      .n_buffers = 1,
      .n_children = 1,
      .buffers = s->buffers,
      .children = s->children,
      .release = slice_release,
      .private_data = s,
  };
  return top;
}

// fill_column makes one output vector point to its part of the morsel. Each
// column is converted alone, because DuckDB ties a converted array to its
// first column only, and vectors of one chunk may live for different times.
static bool fill_column(void *info, void *out, fd_scan *s, fd_local *l, int col, const fd_window *w) {
  struct ArrowArray top = new_slice(l->morsel, col, w);
  void *chunk = NULL;
  void *err = duckdb_data_chunk_from_arrow(s->conn, &top, s->schemas[col], &chunk);
  fd_release_array(&top);
  if (err) {
    bool failed = duckdb_error_data_has_error(err);
    if (failed) duckdb_function_set_error(info, duckdb_error_data_message(err));
    duckdb_destroy_error_data(&err);
    if (failed) {
      if (chunk) duckdb_destroy_data_chunk(&chunk);
      return false;
    }
  }
  void *vector = duckdb_data_chunk_get_vector(out, s->out[col]);
  duckdb_vector_reference_vector(vector, duckdb_data_chunk_get_vector(chunk, 0));
  duckdb_destroy_data_chunk(&chunk);
  if (w->sel) duckdb_slice_vector(vector, w->sel, w->count);
  return true;
}

// fill_empty makes the column that nobody reads a constant.
static void fill_empty(void *vector) {
  void *null = duckdb_create_null_value();
  duckdb_vector_reference_value(vector, null);
  duckdb_destroy_value(&null);
}

void fd_scan_next(void *info, void *out) {
  fd_scan *s = duckdb_function_get_init_data(info);
  fd_local *l = duckdb_function_get_local_init_data(info);
  fd_window w;
  while (!l->morsel || !next_window(l, &w)) {
    if (l->morsel) fd_morsel_unref(l->morsel);
    l->morsel = NULL;
    l->pos = 0;
    char *message = NULL;
    l->morsel = flightdScanNext(s->handle, &message);
    if (message) {
      duckdb_function_set_error(info, message);
      free(message);
      return;
    }
    if (!l->morsel) {
      duckdb_data_chunk_set_size(out, 0);
      return;
    }
  }
  bool ok = true;
  for (int i = 0; ok && i < s->ncols; i++) ok = fill_column(info, out, s, l, i, &w);
  if (w.sel) duckdb_destroy_selection_vector(w.sel);
  if (ok && s->empty >= 0) fill_empty(duckdb_data_chunk_get_vector(out, s->empty));
  if (ok) duckdb_data_chunk_set_size(out, w.count);
}
