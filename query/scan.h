// The C side of the table function flightd_scan, and the few functions of
// DuckDB's C API that it and the result reader need. They are declared here
// because DuckDB's own header is not on the include path of other modules;
// handles are opaque pointers in that API, so void * has the same ABI.
#ifndef FLIGHTD_QUERY_SCAN_H
#define FLIGHTD_QUERY_SCAN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

// The Arrow C data interface, as its specification defines it.
struct ArrowSchema {
  const char *format;
  const char *name;
  const char *metadata;
  int64_t flags;
  int64_t n_children;
  struct ArrowSchema **children;
  struct ArrowSchema *dictionary;
  void (*release)(struct ArrowSchema *);
  void *private_data;
};

struct ArrowArray {
  int64_t length;
  int64_t null_count;
  int64_t offset;
  int64_t n_buffers;
  int64_t n_children;
  const void **buffers;
  struct ArrowArray **children;
  struct ArrowArray *dictionary;
  void (*release)(struct ArrowArray *);
  void *private_data;
};

// DuckDB's C API.
uint64_t duckdb_vector_size(void);
void *duckdb_bind_get_extra_info(void *info);
void *duckdb_init_get_bind_data(void *info);
void duckdb_init_set_init_data(void *info, void *data, void (*destroy)(void *));
void *duckdb_function_get_init_data(void *info);
void *duckdb_function_get_local_init_data(void *info);
void duckdb_function_set_error(void *info, const char *message);
void *duckdb_data_chunk_get_vector(void *chunk, uint64_t column);
void duckdb_data_chunk_set_size(void *chunk, uint64_t size);
void duckdb_destroy_data_chunk(void **chunk);
void duckdb_vector_reference_vector(void *to, void *from);
void duckdb_vector_reference_value(void *to, void *value);
void *duckdb_create_null_value(void);
void duckdb_destroy_value(void **value);
void *duckdb_create_selection_vector(uint64_t size);
void duckdb_destroy_selection_vector(void *sel);
uint32_t *duckdb_selection_vector_get_data_ptr(void *sel);
void duckdb_slice_vector(void *vector, void *sel, uint64_t length);
void *duckdb_schema_from_arrow(void *conn, struct ArrowSchema *schema, void **out);
void *duckdb_data_chunk_from_arrow(void *conn, struct ArrowArray *array, void *schema, void **out);
void duckdb_destroy_arrow_converted_schema(void **schema);
void *duckdb_to_arrow_schema(void *options, void **types, const char **names, uint64_t n, struct ArrowSchema *out);
void *duckdb_data_chunk_to_arrow(void *options, void *chunk, struct ArrowArray *out);
const char *duckdb_error_data_message(void *error);
bool duckdb_error_data_has_error(void *error);
void duckdb_destroy_error_data(void **error);

// fd_bind is what a bound scan remembers: which table, for which connection,
// and the how many-th bind of its statement it was. It lives as long as the
// prepared plan and holds no data.
typedef struct {
  int64_t table;
  uint64_t conn;
  int64_t number;
} fd_bind;

// fd_morsel is one Arrow batch shared by the threads that scan it and by the
// vectors that point into it. The last reference releases its columns.
typedef struct {
  _Atomic int64_t refs;
  int64_t rows;
  uint32_t *live; // ascending row numbers of the live rows; NULL = all rows
  int64_t nlive;
  int ncols;
  struct ArrowArray *cols;
} fd_morsel;

// fd_scan is the state that all threads of one scan share.
typedef struct {
  uintptr_t handle; // of the Go scan
  void *conn;       // converts; outlives every scan
  int ncols;
  uint64_t *out;  // per column, its place in the output chunk
  void **schemas; // per column, its converted Arrow schema
  int64_t empty;  // place of the column that nobody reads, -1 = not asked for
} fd_scan;

fd_bind *fd_bind_new(int64_t table, uint64_t conn, int64_t number);
fd_morsel *fd_morsel_new(int64_t rows, int ncols, int64_t nlive);
void fd_morsel_unref(fd_morsel *m);
fd_scan *fd_scan_new(uintptr_t handle, void *conn, int ncols);
void fd_scan_free(void *scan);
void fd_scan_local(void *info);
void fd_scan_next(void *info, void *out);
void fd_release_array(struct ArrowArray *a);
void fd_release_schema(struct ArrowSchema *s);
int64_t fd_morsels_alive(void);

#endif
