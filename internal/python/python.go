package python

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// variable names the interpreter. Its packages are those of e2e/requirements.txt.
const variable = "FLIGHTD_PYTHON"

// serve is the interpreter's side.
const serve = `
import contextlib, io, json, os, sys, traceback
answers = sys.stdout
for line in sys.stdin:
    job = json.loads(line)
    sys.argv = [job["name"]] + job["args"]
    sys.path.insert(0, os.path.dirname(job["name"]))
    printed, trace = io.StringIO(), ""
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(job["code"], job["name"], "exec"), {"__name__": "__main__", "__file__": job["name"]})
    except SystemExit as end:
        if end.code not in (None, 0):
            trace = f"exit: {end.code}"
    except BaseException:
        trace = traceback.format_exc()
    sys.path.pop(0)
    print(json.dumps({"printed": printed.getvalue(), "trace": trace}), file=answers, flush=True)
`

// job is what the interpreter is asked to run.
type job struct {
	Name string   `json:"name"`
	Code string   `json:"code"`
	Args []string `json:"args"`
}

// answer is what came of it.
type answer struct {
	Printed string `json:"printed"`
	Trace   string `json:"trace"`
}

// interpreter is the process, nil before the first script and after it has died. mu is held while a script runs.
var interpreter struct {
	mu      sync.Mutex
	process *process
}

// process is a running interpreter.
type process struct {
	jobs    io.Writer
	answers *bufio.Reader
	// wait ends it.
	wait func() error
}

// Need skips a test when there is no interpreter.
func Need(t testing.TB) {
	t.Helper()
	if !Have() {
		t.Skip(variable + " names no Python with the packages of e2e/requirements.txt; what others make of our files is not tested")
	}
}

// Have reports whether there is an interpreter.
func Have() bool { return os.Getenv(variable) != "" }

// Run runs some code with arguments and returns what it printed. It skips the test when there is no interpreter.
func Run(t testing.TB, code string, args ...string) []byte {
	t.Helper()
	Need(t)
	return do(t, job{Name: "-c", Code: code, Args: append([]string{}, args...)})
}

// RunFile is Run for the code of a file.
func RunFile(t testing.TB, file string, args ...string) []byte {
	t.Helper()
	Need(t)
	name, err := filepath.Abs(file)
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return do(t, job{Name: name, Code: string(code), Args: append([]string{}, args...)})
}

// do has the interpreter do a job, or fails the test.
func do(t testing.TB, j job) []byte {
	t.Helper()
	printed, err := try(j)
	if err != nil {
		t.Fatalf("%s %q: %v", j.Name, j.Args, err)
	}
	return printed
}

// try has the interpreter do a job, and starts one when there is none.
func try(j job) ([]byte, error) {
	interpreter.mu.Lock()
	defer interpreter.mu.Unlock()
	if interpreter.process == nil {
		p, err := start()
		if err != nil {
			return nil, fmt.Errorf("start %s: %w", os.Getenv(variable), err)
		}
		interpreter.process = p
	}
	a, err := interpreter.process.ask(j)
	if err != nil {
		err = fmt.Errorf("the interpreter died: %w", errors.Join(err, interpreter.process.wait()))
		interpreter.process = nil
		return nil, err
	}
	if a.Trace != "" {
		return nil, fmt.Errorf("%s\n%s", a.Trace, a.Printed)
	}
	return []byte(a.Printed), nil
}

// start starts the interpreter. What it says beside its answers goes where the test binary's errors go.
func start() (*process, error) {
	cmd := exec.Command(os.Getenv(variable), "-c", serve)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	end := func() error { return errors.Join(in.Close(), cmd.Wait()) }
	return &process{jobs: in, answers: bufio.NewReader(out), wait: end}, cmd.Start()
}

// ask sends a job and waits for its answer.
func (p *process) ask(j job) (a answer, err error) {
	text, err := json.Marshal(j)
	if err != nil {
		return a, err
	}
	if _, err := p.jobs.Write(append(text, '\n')); err != nil {
		return a, err
	}
	line, err := p.answers.ReadBytes('\n')
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(line, &a); err != nil {
		return a, fmt.Errorf("%w in %q", err, line)
	}
	return a, nil
}
