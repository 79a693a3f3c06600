//go:build !purego

package vector

import "golang.org/x/sys/cpu"

// accelerated says that the machine has what the assembly needs: AVX2, FMA and F16C.
var accelerated = cpu.X86.HasAVX2 && cpu.X86.HasFMA && cpu.X86.HasF16C
