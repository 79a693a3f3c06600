// Package bitmaps decodes portable roaring bitmaps (https://github.com/RoaringBitmap/RoaringFormatSpec) that other
// programs may have written, or a disk damaged. It is not for files of any size: a bitmap lies in memory.
package bitmaps
