// Package pipelinefile reads what people write: a pipeline in YAML or JSON. It
// finds every fault at once, and says of each where it stands and what would be
// right. What it returns is a specification that the API accepts.
package pipelinefile
