package hem_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"

	"softhem/api"
	"softhem/hem"
)

func readPassphrase(context.Context, api.Role) ([]byte, error) {
	return os.ReadFile("/run/secrets/hem-passphrase")
}

func Example() {
	ca, err := os.ReadFile("ca.pem")
	if err != nil {
		log.Fatal(err)
	}
	client, err := hem.New(hem.Config{
		URL:        "https://localhost:8443",
		CACert:     ca,
		Passphrase: readPassphrase,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	conf, err := client.Config(context.Background())
	switch unreachable, ok := errors.AsType[*hem.UnreachableError](err); {
	case ok:
		log.Fatal(unreachable.Hint)
	case errors.Is(err, api.ErrUnauthorized):
		log.Fatal("wrong passphrase")
	case err != nil:
		log.Fatal(err)
	}
	fmt.Println(conf.User, conf.EID)
}

func ExampleClient_Init() {
	client, err := hem.New(hem.Config{URL: "http://localhost:8080"})
	if err != nil {
		log.Fatal(err)
	}
	answer, err := client.Init(context.Background(), hem.InitParams{
		MasterPassphrase: []byte("example admin passphrase"),
		UserPassphrase:   []byte("example passphrase"),
		Config: api.InitConfig{
			User: "Ada", Email: "ada@example.com", Hostname: "hem.test", Origin: "*",
			TrustedTS: true, TrustedBackend: true, AllowKeySearch: true,
		},
	})
	if errors.Is(err, api.ErrNotAcceptable) {
		log.Fatal("this module is personalised already")
	} else if err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer.InstanceID)
}

func ExampleClient_AllLogs() {
	client, err := hem.New(hem.Config{URL: "https://localhost:8443", Passphrase: readPassphrase})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	for id, err := range client.AllLogs(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		file, err := client.LogFile(ctx, id)
		if errors.Is(err, api.ErrNotAcceptable) {
			continue // still being written
		} else if err != nil {
			log.Fatal(err)
		}
		_, err = io.Copy(os.Stdout, file)
		file.Close()
		if err != nil {
			log.Fatal(err)
		}
	}
}

func ExampleInspectToken() {
	const token = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9." +
		"eyJzY29wZSI6ImxvZ2dlcjpnZXQiLCJzdWIiOiJVIiwiaWF0IjoxNjQ3ODcxNDQ1LCJleHAiOjE2NDc5MDAyNDUs" +
		"Imp0aSI6IjFZVTRZcG5WeTVyWGF1d3hUMklYUlg5MWhUQ3hhVUV0R2RPQksyNXpBNDA9In0." +
		"wlFlgdpP4bPxNZoPAGaPqqyV1yuri2-Z53l7B8CfcXU"
	claims, err := hem.InspectToken(token)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(claims.Scope, claims.Sub, claims.Exp-claims.Iat)
	// Output: logger:get U 28800
}

func ExampleDeriveKey() {
	passphrase := []byte("correct horse battery staple")
	key, err := hem.DeriveKey(passphrase, "W9bGkhHY88u7Hm8UV4dWHkqJSjAcff7lgnfbm9UdeHc=")
	clear(passphrase)
	if err != nil {
		log.Fatal(err)
	}
	defer key.Wipe()
	fmt.Println(api.EncodeBase64(key.Public()))
	fmt.Println(key)
	// Output:
	// wE1PYkz9tmvxBnWGZuQZwtR652MAgO3ZxapKEHSYX1U=
	// PersonaKey(public wE1PYkz9tmvxBnWGZuQZwtR652MAgO3ZxapKEHSYX1U=)
}

// The token for one key's operations is asked for by the key's id, in either case.
func Example_scopeKeyUse() {
	fmt.Println(api.ScopeKeyUse("0382E3EAB596598B1F3582EF90B61A0E"))
	// Output: keymgmt:use:0382e3eab596598b1f3582ef90b61a0e
}
