package flight

import (
	"net"
	"sync"
	"sync/atomic"
)

// listener remembers the connections that it accepted until they are closed. gRPC's own Stop waits for connections
// that have not said hello, up to their handshake's timeout; one silent client would hold up a shutdown.
type listener struct {
	net.Listener

	mu   sync.Mutex
	open map[*connection]struct{}
}

// connection is a connection that a listener accepted.
type connection struct {
	net.Conn
	from *listener
	// heard is set once the client has sent a byte.
	heard atomic.Bool
}

func newListener(l net.Listener) *listener {
	return &listener{Listener: l, open: make(map[*connection]struct{})}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &connection{Conn: accepted, from: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[c] = struct{}{}
	return c, nil
}

// Read implements net.Conn.
func (c *connection) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && !c.heard.Load() {
		c.heard.Store(true)
	}
	return n, err
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.from.mu.Lock()
	delete(c.from.open, c)
	c.from.mu.Unlock()
	return c.Conn.Close()
}

// cut closes the open connections, or only those that were never heard of. What fails then was closed already.
func (l *listener) cut(silentOnly bool) {
	var gone []*connection
	l.mu.Lock()
	for c := range l.open {
		if !silentOnly || !c.heard.Load() {
			gone = append(gone, c)
		}
	}
	l.mu.Unlock()
	for _, c := range gone {
		_ = c.Close()
	}
}
