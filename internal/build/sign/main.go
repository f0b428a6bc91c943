// Command sign prints the linker flags that make a build a release:
//
//	go build -ldflags "$(go run ./internal/build/sign -version 1.2.0 -seed release.seed)" ./cmd/hem
//
// The seed file holds the 32 raw bytes of the release's Ed25519 seed (RFC 8032).
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"runtime"

	"softhem/internal/build"
	"softhem/internal/suite"
)

func main() {
	version := flag.String("version", "", "version of the release, without v")
	seedFile := flag.String("seed", "", "file with the 32-byte Ed25519 seed of the release key")
	flag.Parse()
	seed, err := os.ReadFile(*seedFile)
	if err != nil || *version == "" {
		log.Fatal("sign: give -version and a readable -seed file")
	}
	k, err := suite.NewEd25519Key(seed)
	if err != nil {
		log.Fatalf("sign: %s does not hold exactly 32 bytes", *seedFile)
	}
	fw := build.Sign("softhem v"+*version, k)
	rt := build.Sign(runtime.Version(), k)
	const p = "-X softhem/internal/build."
	fmt.Printf("%sversion=%s %skey=%s %sfwSig=%s %srtSig=%s\n",
		p, *version, p, fw.PublicKey, p, fw.Signature, p, rt.Signature)
}
