package hemtest_test

import (
	"context"
	"fmt"
	"testing"

	"softhem/hemtest"
)

// A test of one's own client: it gets the address, the CA and the passphrases
// of a module that is there for this test alone.
func Example() {
	// func TestMyClient(t *testing.T) {
	test := func(t *testing.T) {
		module := hemtest.New(t, nil)
		fmt.Println("connect to", module.URL, "trusting", module.CAFile)
		fmt.Println("log in with", module.UserPassphrase)

		config, err := module.Client().Config(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("it belongs to", config.User)
	}
	_ = test
}
