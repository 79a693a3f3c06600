// A limit for the memory of DuckDB that its own does not see: the strings of
// vectors and some states of aggregates. One call of repeat() makes up to 2,048
// results before DuckDB looks at anything, interrupts included, so only the
// allocator can refuse them. DuckDB turns that into its "Out of Memory Error",
// and the statement ends. The linker puts our functions in front of its
// allocator's (--wrap); where it has none of that name, there is no limit.
#ifndef FLIGHTD_QUERY_ALLOC_H
#define FLIGHTD_QUERY_ALLOC_H

#include <stdint.h>

// fd_alloc_limit sets what the process may hold with a piece of 1 MiB or more
// that is asked for; 0 is no limit. It holds for all instances.
void fd_alloc_limit(int64_t bytes);

#endif
