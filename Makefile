# What there is to do; each line of help stands behind its target.
.PHONY: help build test race bench crash lint generate
help:         ## this list
	@sed -n 's/^\([a-z]*\): *## */\1\t/p' Makefile

build:        ## the program, as ./fragua
	go build -o fragua ./cmd/fragua

test:         ## all tests; needs Go alone, and a C compiler for the race detector
	./scripts/test

race:         ## of these those that share memory, under the race detector alone
	go test -race $$(cat scripts/race)

lint:         ## what CONTRIBUTING.md asks of a change
	test -z "$$(gofmt -l .)"
	go vet ./...

generate:     ## docs/events.md, the schemas, the API's descriptions
	go generate ./internal/eventdocs ./internal/pipelinefile
	go test ./cmd/fragua -run Golden -update

bench:        ## the table of docs/benchmarks.md
	go run ./test/bench

crash:        ## the long crash campaign: KILLS=1000
	KILLS=$${KILLS:-1000} go test ./test/crash -run Campaign -timeout 0 -v
