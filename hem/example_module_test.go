package hem_test

import (
	"log"
	"testing"

	"softhem/hem"
	"softhem/hemtest"
)

// exampleClient is a client of a module that runs for one example. Programs make theirs
// with [hem.New], and tests theirs with hemtest.
func exampleClient() (client *hem.Client, done func()) {
	t := &exampleTest{}
	return hemtest.New(t, nil).Client(), func() {
		for len(t.ends) > 0 {
			last := len(t.ends) - 1
			end := t.ends[last]
			t.ends = t.ends[:last]
			end()
		}
	}
}

// exampleTest stands for the test that an example has not.
type exampleTest struct {
	testing.TB
	ends []func()
}

func (t *exampleTest) Helper()                           {}
func (t *exampleTest) Cleanup(f func())                  { t.ends = append(t.ends, f) }
func (t *exampleTest) Error(args ...any)                 { log.Panic(args...) }
func (t *exampleTest) Fatal(args ...any)                 { log.Panic(args...) }
func (t *exampleTest) Fatalf(format string, args ...any) { log.Panicf(format, args...) }
