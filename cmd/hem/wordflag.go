package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"softhem/api"
)

// A wordFlag is a flag with a few values, in any case.
type wordFlag struct {
	value *string
	words []string
}

func oneOf(value *string, words ...string) *wordFlag { return &wordFlag{value, words} }

func (c *wordFlag) String() string { return *c.value }
func (c *wordFlag) Type() string   { return "word" }

func (c *wordFlag) Set(text string) error {
	for _, w := range c.words {
		if strings.EqualFold(w, text) {
			*c.value = w
			return nil
		}
	}
	return fmt.Errorf("it is %s", orList(c.words))
}

func orList(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// A typeFlag is a key type, also by the name that others have for it.
type typeFlag struct {
	value *api.KeyType
	among []api.KeyType
}

func (f *typeFlag) String() string { return string(*f.value) }
func (f *typeFlag) Type() string   { return "type" }

func (f *typeFlag) Set(text string) error {
	word := plainName(text)
	switch word {
	case "p256", "nistp256", "prime256v1":
		word = "secp256r1"
	case "p384", "nistp384":
		word = "secp384r1"
	case "p521", "nistp521":
		word = "secp521r1"
	case "x25519":
		word = "curve25519"
	case "x448":
		word = "curve448"
	}
	for _, t := range f.among {
		if plainName(string(t)) == word {
			*f.value = t
			return nil
		}
	}
	return errors.New("there is no such type; hem key types lists them")
}

func plainName(s string) string {
	return strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(s))
}

// exclude allows one of the flags. cobra's own way to say so ends in an error
// that is not one of usage.
func exclude(c *cobra.Command, flags ...string) {
	before := c.PreRunE
	c.PreRunE = func(c *cobra.Command, args []string) error {
		if before != nil {
			if err := before(c, args); err != nil {
				return err
			}
		}
		var given []string
		for _, f := range flags {
			if c.Flags().Changed(f) {
				given = append(given, "--"+f)
			}
		}
		if len(given) > 1 {
			return &usageError{c.CommandPath(), strings.Join(given, " and ") + " exclude each other"}
		}
		return nil
	}
}
