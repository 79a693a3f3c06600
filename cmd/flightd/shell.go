package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// Prompts of the shell: for a new statement, and inside one.
const (
	prompt     = "flightd> "
	promptMore = "    ...> "
)

// shell reads statements from a terminal and runs them.
type shell struct {
	session *sqlSession
	history *history
	keys    *keyReader
	term    *term.Terminal
	// raw puts the terminal into the mode in which keys come one by one, until restore is called. Statements run
	// outside of it, so that Ctrl-C is a signal and their results are printed as anywhere.
	raw func() (restore func(), err error)
	// pending is the beginning of a statement whose end has not come yet.
	pending string
}

// newShell returns a shell on a terminal. Results go where those of the session go.
func newShell(s *sqlSession, terminal io.ReadWriter, h *history, raw func() (func(), error)) *shell {
	keys := &keyReader{r: terminal}
	t := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{keys, terminal}, prompt)
	t.History = h
	return &shell{session: s, history: h, keys: keys, term: t, raw: raw}
}

// isTerminal reports whether x is a terminal, and which.
func isTerminal(x any) (*os.File, bool) {
	f, ok := x.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// interactive runs the shell of a person at in and out until the end of input.
func (s *sqlSession) interactive(parent context.Context, in, out *os.File) error {
	fd := int(in.Fd())
	var sh *shell
	raw := func() (func(), error) {
		// Windows change size between statements, too.
		if width, height, err := term.GetSize(fd); err == nil && width > 0 {
			_ = sh.term.SetSize(width, height) // it fails only together with what is written next
		}
		state, err := term.MakeRaw(fd)
		if err != nil {
			return nil, fmt.Errorf("read from the terminal: %w", err)
		}
		return func() { _ = term.Restore(fd, state) }, nil
	}
	sh = newShell(s, struct {
		io.Reader
		io.Writer
	}{in, out}, openHistory(), raw)
	s.note("flightd %s at %s. A statement ends with a semicolon; \\? helps, \\q quits.\n", programVersion(), s.url)
	return sh.run(parent)
}

// run reads and runs statements until the end of input. An error of a statement is told, and the next one follows.
func (s *shell) run(parent context.Context) error {
	for {
		line, err := s.line()
		if errors.Is(err, io.EOF) {
			s.session.note("\n") // the prompt stands there
			return nil
		}
		if err != nil {
			return err
		}
		if s.keys.interrupted() {
			s.pending = ""
			continue
		}
		if s.pending == "" && s.command(&line) {
			return nil
		}
		var statements []string
		statements, s.pending = splitStatements(s.pending + line)
		if s.pending != "" {
			s.pending += "\n"
		}
		for _, statement := range statements {
			s.history.remember(statement)
		}
		s.each(parent, statements)
	}
}

// line reads one line.
func (s *shell) line() (string, error) {
	restore, err := s.raw()
	if err != nil {
		return "", err
	}
	defer restore()
	s.term.SetPrompt(prompt)
	if s.pending != "" {
		s.term.SetPrompt(promptMore)
	}
	line, err := s.term.ReadLine()
	if err != nil && !errors.Is(err, term.ErrPasteIndicator) {
		return "", err
	}
	return line, nil
}

// each runs statements until one fails. Ctrl-C stops the one that runs.
func (s *shell) each(parent context.Context, statements []string) {
	if len(statements) == 0 {
		return
	}
	ctx, stop := untilSignal(parent, s.session.stderr)
	defer stop()
	for _, statement := range statements {
		if err := s.session.run(ctx, statement); err != nil {
			s.session.note("error: %v\n", s.session.explain(ctx, err))
			return
		}
	}
}

// shellHelp is what \? prints.
const shellHelp = `  \d          lists the tables
  \d TABLE    describes one
  \q, Ctrl-D  ends the shell
  Ctrl-C      drops what was typed, or stops the statement that runs
`

// command replaces a line that is a command of the shell by the statement it stands for, and reports whether the shell
// should end.
func (s *shell) command(line *string) (quit bool) {
	if statement, ok := describeCommand(*line); ok {
		*line = statement
		return false
	}
	name, argument := cutCommand(*line)
	switch {
	case name == `\q` || argument == "" && (name == "quit" || name == "exit"):
		return true
	case name == `\?`:
		*line = ""
		s.session.note("%s", shellHelp)
	case strings.HasPrefix(name, `\`):
		*line = ""
		s.session.note("unknown command %s; \\? lists those there are\n", printable(name))
	}
	return false
}

// cutCommand splits a command of the shell off its argument.
func cutCommand(line string) (name, argument string) {
	name, argument, _ = strings.Cut(strings.TrimRight(strings.TrimSpace(line), ";"), " ")
	return name, strings.TrimSpace(argument)
}

// describeCommand returns the statement that \d stands for; ok is false when the line is another one.
func describeCommand(line string) (statement string, ok bool) {
	name, argument := cutCommand(line)
	switch {
	case name != `\d`:
		return "", false
	case argument == "":
		return "SHOW TABLES;", true
	}
	return "DESCRIBE " + argument + ";", true
}

// keyReader turns Ctrl-C, for which package term ends the input, into the keys that empty the line and send it.
type keyReader struct {
	r       io.Reader
	waiting []byte
	ctrlC   bool
}

const (
	keyCtrlC  = "\x03"
	keysClear = "\x05\x15\r" // to the end, kill the line, enter
)

// Read implements io.Reader.
func (k *keyReader) Read(p []byte) (int, error) {
	if len(k.waiting) == 0 {
		n, err := k.r.Read(p)
		if n == 0 {
			return 0, err
		}
		text := string(p[:n])
		if i := strings.Index(text, keyCtrlC); i >= 0 {
			// What was typed ahead of it is dropped with the line, and so is what follows until it is read.
			k.ctrlC, text = true, keysClear
		}
		k.waiting = []byte(text)
	}
	n := copy(p, k.waiting)
	k.waiting = k.waiting[n:]
	return n, nil
}

// interrupted reports whether Ctrl-C was pressed since it was last asked.
func (k *keyReader) interrupted() bool {
	was := k.ctrlC
	k.ctrlC = false
	return was
}
