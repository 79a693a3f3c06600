package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/flightd/flightd/lsm"
)

func applyData(c *config, v string) error {
	switch {
	case v == "":
		return errors.New("want a folder, got nothing")
	case strings.Contains(v, "://"):
		return fmt.Errorf("want a local folder, got %q; this version stores on local disks only", v)
	}
	c.data = v
	return nil
}

func applyListen(c *config, v string) error {
	c.listen = v
	return checkAddress(v)
}

func applyHTTP(c *config, v string) error {
	c.http = v
	if v == "" {
		return nil
	}
	return checkAddress(v)
}

func applyDurability(c *config, v string) error {
	c.durability = lsm.Durability(v)
	if c.durability != lsm.Durable && c.durability != lsm.Buffered {
		return fmt.Errorf("want durable or buffered, got %q", v)
	}
	return nil
}

func applyLogInterval(c *config, v string) (err error) {
	c.logInterval, err = positive(v)
	return err
}

func applyTemp(c *config, v string) error {
	c.temp = v
	return nil
}

func applyGrace(c *config, v string) error {
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 {
		return fmt.Errorf("want a time such as 10s or 2m, got %q", v)
	}
	c.grace = d
	return nil
}

func applySessionIdle(c *config, v string) (err error) {
	c.session, err = idleTime(v)
	return err
}

func applyReadIdle(c *config, v string) (err error) {
	c.read, err = idleTime(v)
	return err
}

func applyQueryTimeout(c *config, v string) error {
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 {
		return fmt.Errorf("want a time such as 30s or 5m, or 0s for no limit, got %q", v)
	}
	c.timeout = d
	return nil
}

// idleTime parses a time after which something is given up.
func idleTime(v string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("want a time such as 30m or 1h, more than nothing, got %q", v)
	}
	return d, nil
}

func applyRetain(c *config, v string) error {
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 {
		return fmt.Errorf("want a time such as 24h or 90m, or 0s to keep nothing, got %q", v)
	}
	if c.retain = d; d == 0 {
		c.retain = -1 // zero is the engine's default
	}
	return nil
}

func applyCompactionRate(c *config, v string) error {
	n, err := parseSize(v)
	if err != nil {
		return fmt.Errorf("want a size for each second such as 128MiB, or 0 for no bound, got %q", v)
	}
	if c.compact = n; n == 0 {
		c.compact = -1 // zero is the engine's default
	}
	return nil
}

func applyWindow(c *config, v string) (err error) {
	c.window, err = positive(v)
	return err
}

func applyIdle(c *config, v string) (err error) {
	c.idle, err = positive(v)
	return err
}

// positive reads a time above zero.
func positive(v string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("want a time above zero such as 5m or 168h, got %q", v)
	}
	return d, nil
}

func applyInsecure(c *config, v string) error {
	b, err := strconv.ParseBool(v)
	if err != nil {
		return fmt.Errorf("want true or false, got %q", v)
	}
	c.insecure = b
	return nil
}

func applyLogFormat(c *config, v string) error {
	if v != "text" && v != "json" {
		return fmt.Errorf("want text or json, got %q", v)
	}
	c.logFormat = v
	return nil
}

func applyLogLevel(c *config, v string) error {
	levels := map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	}
	level, ok := levels[v]
	if !ok {
		return fmt.Errorf("want debug, info, warn or error, got %q", v)
	}
	c.logLevel = level
	return nil
}

// checkAddress reports what is wrong with a HOST:PORT.
func checkAddress(v string) error {
	_, port, err := net.SplitHostPort(v)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("want HOST:PORT such as 127.0.0.1:31337, got %q", v)
	}
	return nil
}

// refuseExposure reports an address that others can reach. There is neither encryption nor a password yet, so
// whoever reaches the port may read and write everything; that must have been said explicitly.
func (c *config) refuseExposure() error {
	if c.insecure {
		return nil
	}
	for _, a := range []struct{ flag, address string }{{"listen", c.listen}, {"http", c.http}} {
		if a.address == "" || loopback(a.address) {
			continue
		}
		return fmt.Errorf("--%s %s is an address beyond loopback, and connections are neither encrypted nor authenticated: "+
			"listen on 127.0.0.1, or say --insecure if the network is trusted", a.flag, a.address)
	}
	return nil
}

// loopback reports whether only this machine can reach the address. A host name counts if it is localhost: what
// other names mean is decided by a resolver, which may change its mind.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
