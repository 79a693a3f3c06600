package main

import (
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheImageSetsWhatServeKnows(t *testing.T) {
	text, err := os.ReadFile("../../Dockerfile")
	require.NoError(t, err)
	var env []string
	for _, m := range regexp.MustCompile(`(?m)^(?:ENV|   ) (FLIGHTD_[A-Z_]+=\S+)`).FindAllSubmatch(text, -1) {
		env = append(env, string(m[1]))
	}
	require.Len(t, env, 4)
	c, err := loadConfig(process{}.serveCommand().Flags(), env)
	require.NoError(t, err)
	require.Equal(t, "/data", c.data)
	require.True(t, c.insecure)
	require.Contains(t, string(text), "EXPOSE 31337 31338")
	require.Equal(t, "0.0.0.0:31337", c.listen)
	require.Equal(t, "0.0.0.0:31338", c.http)
}
