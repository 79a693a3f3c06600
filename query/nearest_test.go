package query

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestNearestName takes the name that is most like one, and none when all are others.
func TestNearestName(t *testing.T) {
	names := []string{"queries", "docs", "Größen", "docs2", "x"}
	for name, want := range map[string]string{
		"dcos": "docs", "DOCS3": "docs", "doc": "docs", "querys": "queries", "grossen": "Größen", "y": "", "": "", "logs_of_2020": "",
	} {
		require.Equal(t, want, nearestName(name, names), name)
	}
	require.Equal(t, "", nearestName("docs", nil))
}
