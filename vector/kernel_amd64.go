//go:build !purego

package vector

import "golang.org/x/sys/cpu"

// accelerated says that the machine has what the assembly needs: AVX2, FMA, F16C and POPCNT.
var accelerated = cpu.X86.HasAVX2 && cpu.X86.HasFMA && cpu.X86.HasF16C && cpu.X86.HasPOPCNT
