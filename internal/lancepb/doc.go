// Package lancepb holds the protocol buffer messages of the Lance format that flightd reads and writes.
//
// Only field numbers and wire types are Lance's; the message files here are our own and name what flightd uses.
// Fields that are not named survive a read and a write as unknown fields, so a manifest that another writer
// extended keeps what it said.
//
// Three things a reader of the files should know:
//
//   - The proto packages are Lance's (lance.file, lance.file.v2, lance.encodings, lance.table, lance.index.pb), because a
//     google.protobuf.Any carries the full name of its message and readers look it up. Messages that never travel
//     in an Any have names that suit Go.
//   - All proto packages share this one Go package, therefore no two messages have the same short name.
//   - Message names live in one registry per process. A dependency that brings Lance's own generated code would
//     clash with this package and panic at start.
//
// Any wraps and unwraps the messages with Lance's form of type URL ("/" and the full name).
package lancepb

//go:generate protoc -I ../.. --go_out=../.. --go_opt=module=github.com/flightd/flightd internal/lancepb/file.proto internal/lancepb/column.proto internal/lancepb/encoding20.proto internal/lancepb/encoding21.proto internal/lancepb/table.proto internal/lancepb/index.proto internal/lancepb/memwal.proto internal/lancepb/transaction.proto internal/lancepb/vectorindex.proto internal/lancepb/ivf.proto
