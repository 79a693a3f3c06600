package vector

import (
	"fmt"
	"strings"
)

// Metric is the distance that ranks vectors. The zero value is L2.
type Metric uint8

// The metrics; doc.go defines them.
const (
	L2 Metric = iota
	Cosine
	Dot
	Hamming
)

var metricNames = [...]string{L2: "l2", Cosine: "cosine", Dot: "dot", Hamming: "hamming"}

// String is the name of the metric in Lance's index metadata.
func (m Metric) String() string {
	if int(m) < len(metricNames) {
		return metricNames[m]
	}
	return fmt.Sprintf("metric(%d)", uint8(m))
}

// ParseMetric reads a metric's name in any case. It takes the other name of L2 that Lance takes, too.
func ParseMetric(s string) (Metric, error) {
	name := strings.ToLower(s)
	if name == "euclidean" {
		return L2, nil
	}
	for m, n := range metricNames {
		if n == name {
			return Metric(m), nil
		}
	}
	return 0, fmt.Errorf("unknown metric %q: it is one of l2, cosine, dot, hamming", s)
}
