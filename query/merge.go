package query

type mergeAction struct{}
