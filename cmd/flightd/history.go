package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// historyEntries is how many statements are kept.
const historyEntries = 1000

// history is the statements of this and earlier shells, the newest last. It implements term.History.
type history struct {
	file    string // empty when nothing is kept
	entries []string
}

// openHistory reads the history of the user. One that cannot be read or written is no reason not to work.
func openHistory() *history {
	home, err := os.UserHomeDir()
	if err != nil {
		return &history{}
	}
	h := &history{file: filepath.Join(home, ".flightd_history")}
	if text, err := os.ReadFile(h.file); err == nil && len(text) > 0 {
		h.entries = strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	}
	if extra := len(h.entries) - historyEntries; extra > 0 {
		h.entries = slices.Clone(h.entries[extra:])
		_ = os.WriteFile(h.file, []byte(strings.Join(h.entries, "\n")+"\n"), 0o600)
	}
	return h
}

// remember adds a statement, whatever lines it was typed in: as one, unless a comment would swallow the rest of it.
func (h *history) remember(statement string) {
	if strings.Contains(statement, "\n") && strings.Contains(statement, "--") {
		return
	}
	entry := strings.Join(strings.Fields(statement), " ") + ";"
	if strings.ContainsAny(statement, `'"$`) {
		entry = strings.ReplaceAll(statement, "\n", " ") + ";" // spaces in a string count
	}
	if n := len(h.entries); n > 0 && h.entries[n-1] == entry {
		return
	}
	h.entries = append(h.entries, entry)
	if h.file == "" {
		return
	}
	f, err := os.OpenFile(h.file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	_, _ = f.WriteString(entry + "\n")
	_ = f.Close()
}

// Add implements term.History. Lines are not what is kept, see remember.
func (h *history) Add(string) {}

// Len implements term.History.
func (h *history) Len() int { return len(h.entries) }

// At implements term.History.
func (h *history) At(i int) string { return h.entries[len(h.entries)-1-i] }
