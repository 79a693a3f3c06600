package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/lsm"
)

// load loads a configuration as serve does.
func load(t *testing.T, yml string, environ []string, args ...string) (config, error) {
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	addFlags(fs)
	if yml != "" {
		path := filepath.Join(t.TempDir(), "flightd.yaml")
		require.NoError(t, os.WriteFile(path, []byte(yml), 0o644))
		args = append(args, "--config", path)
	}
	require.NoError(t, fs.Parse(args))
	return loadConfig(fs, environ)
}

func TestConfigOfNothingIsTheDefault(t *testing.T) {
	c, err := load(t, "", nil)
	require.NoError(t, err)
	require.Equal(t, "./flightd-data", c.data)
	require.Equal(t, "127.0.0.1:31337", c.listen)
	require.Equal(t, "127.0.0.1:31338", c.http)
	require.Equal(t, filepath.Join("flightd-data", "_flightd", "tmp"), c.temp)
	require.Equal(t, 10*time.Second, c.grace)
	require.Equal(t, 30*time.Minute, c.session)
	require.Equal(t, 5*time.Minute, c.read)
	require.Equal(t, lsm.Durable, c.durability)
	require.Equal(t, 100*time.Millisecond, c.logInterval)
	require.Equal(t, slog.LevelInfo, c.logLevel)
	require.Equal(t, "text", c.logFormat)
	require.False(t, c.insecure)
	require.GreaterOrEqual(t, c.memory, minShare)
}

func TestConfigFlagBeatsEnvironmentBeatsFile(t *testing.T) {
	yml := "data: from-file\nlog-level: debug\ngrace: 1s\nmemory: 1073741824\ninsecure: true\n"
	environ := []string{"FLIGHTD_LOG_LEVEL=warn", "FLIGHTD_GRACE=2s", "HOME=/nowhere"}
	c, err := load(t, yml, environ, "--grace", "3s")
	require.NoError(t, err)
	require.Equal(t, "from-file", c.data)
	require.Equal(t, slog.LevelWarn, c.logLevel)
	require.Equal(t, 3*time.Second, c.grace)
	require.Equal(t, int64(1)<<30, c.memory)
	require.True(t, c.insecure)

	c, err = load(t, yml, []string{"FLIGHTD_INSECURE=false"})
	require.NoError(t, err)
	require.False(t, c.insecure)

	c, err = load(t, "durability: buffered\nwal-interval: 5s\n", []string{"FLIGHTD_WAL_INTERVAL=20ms"})
	require.NoError(t, err)
	require.Equal(t, lsm.Buffered, c.durability)
	require.Equal(t, 20*time.Millisecond, c.logInterval)
}

func TestConfigFileIsNamedByTheEnvironmentToo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flightd.yaml")
	require.NoError(t, os.WriteFile(path, []byte("data: here\n"), 0o644))
	c, err := load(t, "", []string{"FLIGHTD_CONFIG=" + path})
	require.NoError(t, err)
	require.Equal(t, "here", c.data)
}

func TestConfigEmptyHTTPTurnsItOff(t *testing.T) {
	for _, environ := range [][]string{{"FLIGHTD_HTTP="}, nil} {
		args := []string{}
		if environ == nil {
			args = append(args, "--http", "")
		}
		c, err := load(t, "", environ, args...)
		require.NoError(t, err)
		require.Empty(t, c.http)
	}
}

func TestConfigRefusesAndNamesThePlace(t *testing.T) {
	refused := func(yml string, environ []string, args []string, want ...string) {
		t.Helper()
		_, err := load(t, yml, environ, args...)
		var usage *usageError
		require.ErrorAs(t, err, &usage)
		for _, w := range want {
			require.ErrorContains(t, err, w)
		}
	}
	refused("dta: x\n", nil, nil, "config file", `key "dta"`, "no such setting", "data")
	refused("wal:\n  interval: 1s\n", nil, nil, `key "wal.interval"`)
	refused("config: other.yaml\n", nil, nil, `key "config"`)
	refused("listen: [a, b]\n", nil, nil, `key "listen"`, "one plain value")
	refused("read-idle: 0s\n", nil, nil, `key "read-idle"`, "more than nothing")
	refused("", nil, []string{"--session-idle", "soon"}, "--session-idle", "30m")
	refused("grace: 10\n", nil, nil, `key "grace"`, "10s")
	refused("data: [\n", nil, nil, "config file", "YAML")
	refused("", nil, []string{"--config", "does-not-exist.yaml"}, "does-not-exist.yaml")
	refused("", []string{"FLIGHTD_LISTN=127.0.0.1:1"}, nil, "FLIGHTD_LISTN", "no such setting")
	refused("", []string{"FLIGHTD_GRACE=soon"}, nil, "FLIGHTD_GRACE", `"soon"`)
	refused("", nil, []string{"--listen", "nonsense"}, "--listen", "HOST:PORT")
	refused("", nil, []string{"--listen", "127.0.0.1:99999"}, "--listen", "HOST:PORT")
	refused("", nil, []string{"--durability", "eventual"}, "--durability", "durable or buffered", "eventual")
	refused("", []string{"FLIGHTD_WAL_INTERVAL=0s"}, nil, "FLIGHTD_WAL_INTERVAL", "above zero")
	refused("wal-interval: soon\n", nil, nil, "wal-interval", "soon")
	refused("", nil, []string{"--data", "gs://bucket/prefix"}, "--data", "local")
	refused("", nil, []string{"--data", ""}, "--data", "want a folder")
	refused("", nil, []string{"--memory", "12"}, "--memory", "256 MiB")
	refused("", nil, []string{"--memory", "lots"}, "--memory", "8GiB")
	refused("", nil, []string{"--log-level", "loud"}, "--log-level", "debug")
	refused("", nil, []string{"--log-format", "xml"}, "--log-format", "json")
	// A value that loses is checked as well.
	refused("grace: never\n", nil, []string{"--grace", "1s"}, `key "grace"`)
	// Everything that is wrong is said at once.
	refused("", []string{"FLIGHTD_GRACE=soon"}, []string{"--memory", "lots"}, "FLIGHTD_GRACE", "--memory")
}

func TestConfigIgnoresWhatKubernetesSets(t *testing.T) {
	_, err := load(t, "", []string{
		"FLIGHTD_SERVICE_HOST=10.0.0.1", "FLIGHTD_SERVICE_PORT=31337", "FLIGHTD_SERVICE_PORT_GRPC=31337",
		"FLIGHTD_PORT=tcp://10.0.0.1:31337", "FLIGHTD_PORT_31337_TCP_ADDR=10.0.0.1",
	})
	require.NoError(t, err)
}

func TestConfigRefusesExposureUnlessInsecure(t *testing.T) {
	for _, address := range []string{"0.0.0.0:1", ":1", "[::]:1", "192.0.2.7:1", "example.com:1"} {
		for _, flag := range []string{"--listen", "--http"} {
			_, err := load(t, "", nil, flag, address)
			require.ErrorContains(t, err, flag+" "+address)
			require.ErrorContains(t, err, "--insecure")
			_, err = load(t, "", nil, flag, address, "--insecure")
			require.NoError(t, err)
		}
	}
	for _, address := range []string{"127.0.0.1:0", "127.8.8.8:1", "[::1]:1", "localhost:1", "LOCALHOST:0"} {
		_, err := load(t, "", nil, "--listen", address, "--http", address)
		require.NoError(t, err)
	}
}

func TestMemorySizes(t *testing.T) {
	const machine = 16 << 30
	good := func(v string, want int64) {
		t.Helper()
		n, err := parseMemory(v, machine)
		require.NoError(t, err)
		require.Equal(t, want, n)
	}
	good("50%", 8<<30)
	good("12.5%", 2<<30)
	good("100%", 16<<30)
	good("0.1%", minShare)
	good("8GiB", 8<<30)
	good("8 GiB", 8<<30)
	good("1.5gib", 3<<29)
	good("512MB", 512_000_000)
	good("268435456", 256<<20)
	for _, v := range []string{"", "%", "0%", "101%", "-1%", "NaN%", "GiB", "8XB", "-8GiB", "8GiB8", "1e40", "255MiB", "Inf"} {
		_, err := parseMemory(v, machine)
		require.Error(t, err, v)
	}
}
