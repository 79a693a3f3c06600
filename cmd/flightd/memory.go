package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

const (
	mib = int64(1) << 20
	// minMemory is the least budget: below it not even one message of the largest size and one query fit.
	minMemory = 256 * mib
	// minShare is the least that a share of the machine amounts to. A small machine rather swaps a little than
	// that DuckDB spills every join.
	minShare = 512 * mib
	// unknownMachine stands in where the system does not tell its memory.
	unknownMachine = 2048 * mib
)

func applyMemory(c *config, v string) error {
	n, err := parseMemory(v, machineMemory())
	if err != nil {
		return err
	}
	c.memory = n
	return nil
}

// parseMemory reads a size such as 8GiB, 512MB or 50%, the latter of machine bytes.
func parseMemory(v string, machine int64) (int64, error) {
	wrong := fmt.Errorf("want a size such as 8GiB or a share such as 50%%, got %q", v)
	if p, ok := strings.CutSuffix(v, "%"); ok {
		share, err := strconv.ParseFloat(p, 64)
		if err != nil || !(share > 0 && share <= 100) {
			return 0, wrong
		}
		return max(int64(float64(machine)*share/100), minShare), nil
	}
	size, err := parseSize(v)
	if err != nil {
		return 0, wrong
	}
	if size < minMemory {
		return 0, fmt.Errorf("want at least %d MiB, got %q", minMemory/mib, v)
	}
	return size, nil
}

// machineMemory returns the memory of the machine or, if that is less, of the container.
func machineMemory() int64 {
	machine := unknownMachine
	if info, err := os.ReadFile("/proc/meminfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			fields := strings.Fields(line)
			if len(fields) < 2 || fields[0] != "MemTotal:" {
				continue
			}
			if kib, err := strconv.ParseInt(fields[1], 10, 64); err == nil {
				machine = kib << 10
			}
		}
	}
	// Version 2 of control groups, then version 1. "max" and the huge number of version 1 mean no limit.
	for _, name := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		if limit, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64); err == nil && limit > 0 {
			machine = min(machine, limit)
		}
	}
	return machine
}

// heldMemory returns what the process holds of the machine: anonymous and shared pages, not those of mapped files,
// which the system takes back when it needs them. It is 0 where the system does not tell.
func heldMemory() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	held := int64(0)
	for line := range bytes.Lines(status) {
		name, rest, _ := bytes.Cut(line, []byte(":"))
		if string(name) != "RssAnon" && string(name) != "RssShmem" {
			continue
		}
		number, _, _ := bytes.Cut(bytes.TrimSpace(rest), []byte(" "))
		if kib, err := strconv.ParseInt(string(number), 10, 64); err == nil {
			held += kib << 10
		}
	}
	return held
}

// parseSize reads a size such as 8GiB, 512MB or 0.
func parseSize(v string) (int64, error) {
	digits := strings.TrimRight(v, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	units := map[string]float64{
		"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
		"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
	}
	unit, ok := units[strings.ToLower(strings.TrimSpace(v[len(digits):]))]
	n, err := strconv.ParseFloat(digits, 64)
	if !ok || err != nil || !(n >= 0 && n*unit < 1<<60) {
		return 0, fmt.Errorf("want a size such as 8GiB, got %q", v)
	}
	return int64(n * unit), nil
}
