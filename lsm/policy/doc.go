// Package policy says what compaction should do next: sizes in, a plan out. It reads no clock, no file and no option but
// its arguments, so that what it promises can be tested against a model of a table.
//
// # The jobs
//
//	merge      brings all generations into the base: when a shard has Limits.Generations of them, or the table
//	           Limits.AllGenerations, or when what is replaced in the table, generations included, has as many bytes as
//	           what lives
//	rewrite    writes fragments of the base anew, together and without their deleted rows: those of which Limits.Deleted
//	           or more is deleted, and small ones, of less than half of Limits.FragmentRows
//	segments   makes one of several segments of an index, or rids one of the entries of rows that have gone; those that have
//	           the same rows, which other programs can leave by building an index in a race, become one at once
//
// Small fragments and segments are put together by size: class c has those of Fan^c to Fan^(c+1) rows, and as soon as a
// class has Fan of them, all of it is put together, and with the result the next class if that has Fan with it.
//
// # Promises
//
// A plan that is carried out leads, after a few more, to a table for which nothing is planned: each job leaves fewer
// generations, fewer deleted rows, or fewer fragments or segments.
//
// Write amplification, in rows written for each row that was ever appended, T being Limits.FragmentRows:
//
//	merge      1
//	small      one for each class that a row goes through: at most log(T/2)/log(Fan) + 1, which is 8 for fragments of a
//	           single row with Fan 8 and T 2^20, and none for fragments of T/2 rows
//	deleted    (1-d)/d for each row that is deleted, d being Limits.Deleted: 2 for a third
//
// Of n rows a base has, when nothing is planned, at most 2n/T + Fan*log(T)/log(Fan) fragments of those that may be put
// together, and an index at most SegmentFan*log(n)/log(SegmentFan) segments for those. At most the d-th part of a
// fragment is deleted, but for less than Limits.DeletedBytes in the whole base.
//
// A merge that is held to a pace (Behind) ends before half as many generations have come as it takes in, if it can move as
// much as that without the pace.
//
// A fragment that is pinned is in no plan. Nothing is planned that the disk has no room for; and nothing here removes
// files: what a snapshot reads stays until it is released.
package policy
