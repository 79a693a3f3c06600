// Package objecttest has stores that misbehave, for the tests of those who must live with it.
package objecttest
