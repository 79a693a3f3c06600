// Package rows turns text into Arrow batches and back, so that tests can be written and read as tables.
//
// A schema is a list of columns, "id int64 key, v double, tag utf8": each has a name, a type and optionally "key",
// which makes it part of the primary key and not null. Types are those that Arrow itself prints for types without
// parameters, and "fsl(N,TYPE)", "list(TYPE)", "large_list(TYPE)" and "struct(NAME:TYPE,NAME:TYPE)", without spaces,
// "decimal(P,S)" and "uuid", which is 16 bytes.
//
// A batch is a line for each row with the values of all columns, separated by spaces: null is null, strings have no
// spaces, "[1,2]" is a list and {"a":1} a struct. Format prints the same form.
//
// # Errors
//
// What cannot be parsed is an error that names the value and the column. Nothing here is meant for anything but tests.
package rows
