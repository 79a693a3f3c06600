package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// How often progress is shown: on a terminal as fast as one can read, else as lines of a log.
const (
	redrawEvery = 200 * time.Millisecond
	reportEvery = 10 * time.Second
)

// progress shows how far an ingest is. Its numbers may be set while it is shown.
type progress struct {
	out      io.Writer
	terminal bool
	begin    time.Time
	sent     atomic.Int64 // rows
	acked    atomic.Int64
	what     atomic.Pointer[progressFile]

	stop chan struct{}
	done sync.WaitGroup
}

// progressFile is the file that is being read.
type progressFile struct {
	name string
	done func() float64
}

// showProgress starts to show progress until close.
func showProgress(out io.Writer) *progress {
	p := &progress{out: out, begin: time.Now(), stop: make(chan struct{})}
	every := reportEvery
	if f, ok := out.(*os.File); ok {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	if p.terminal {
		every = redrawEvery
	}
	p.done.Go(func() { p.run(every) })
	return p
}

// run draws until close.
func (p *progress) run(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			if p.terminal {
				_, _ = io.WriteString(p.out, "\r\x1b[K") // what follows takes the line's place
			}
			return
		case <-tick.C:
			p.draw()
		}
	}
}

// draw prints one line. That nobody sees it is no reason to stop.
func (p *progress) draw() {
	line := p.String()
	if p.terminal {
		_, _ = io.WriteString(p.out, "\r"+line+"\x1b[K")
		return
	}
	_, _ = io.WriteString(p.out, line+"\n")
}

// barCells is the width of the bar.
const barCells = 20

// String implements fmt.Stringer.
func (p *progress) String() string {
	var b strings.Builder
	if f := p.what.Load(); f != nil {
		fmt.Fprintf(&b, "%s  ", printable(f.name))
		if part := f.done(); part >= 0 {
			full := int(part * barCells)
			fmt.Fprintf(&b, "%s%s %3.0f %%  ", strings.Repeat("█", full), strings.Repeat("░", barCells-full), 100*part)
		}
	}
	fmt.Fprintf(&b, "%s rows sent, %s acknowledged, %s rows/s", thousands(p.sent.Load()), thousands(p.acked.Load()), thousands(p.rate()))
	return b.String()
}

// rate is the number of acknowledged rows per second.
func (p *progress) rate() int64 {
	return int64(float64(p.acked.Load()) / max(time.Since(p.begin).Seconds(), 1e-3))
}

// close ends the showing.
func (p *progress) close() {
	close(p.stop)
	p.done.Wait()
}
