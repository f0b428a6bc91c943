package main

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/pflag"
)

// serveEnvPrefix and a flag's name in capitals, dashes as underscores, make
// the name of its variable.
const serveEnvPrefix = "HEM_SERVE_"

func serveEnvName(flag string) string {
	return serveEnvPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// settings brings the sources of the flags together: command line before
// environment before configuration file before default.
type settings struct {
	flags *pflag.FlagSet
	env   func(string) (string, bool)
	// onLine are the flags of the command line, and sources says of every flag
	// that was set where. Both are known once apply was called.
	onLine  map[string]bool
	sources map[string]string
}

// source says in words where a setting was made; "" for nowhere.
func (s *settings) source(flag string) string { return s.sources[flag] }

// apply gives the flags that the command line left alone their values from
// the environment and the file. A variable that is empty counts as not set.
func (s *settings) apply() error {
	s.onLine, s.sources = make(map[string]bool), make(map[string]string)
	var errs []error
	s.flags.VisitAll(func(f *pflag.Flag) {
		s.onLine[f.Name] = f.Changed
		text, _ := s.env(serveEnvName(f.Name))
		switch {
		case f.Changed:
			s.sources[f.Name] = "--" + f.Name
		case text != "":
			errs = append(errs, s.set(f, "the variable "+serveEnvName(f.Name), text))
		}
	})
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if file := s.flags.Lookup("config").Value.String(); file != "" {
		return s.applyFile(file)
	}
	return nil
}

// again reads environment and file anew, for a set of flags of the same kind
// that the command line is not applied to.
func (s *settings) again(fresh *pflag.FlagSet) error {
	next := settings{flags: fresh, env: s.env}
	for name, given := range s.onLine {
		fresh.Lookup(name).Changed = given // and keeps its default, which is not looked at
	}
	if s.onLine["config"] {
		if err := fresh.Set("config", s.flags.Lookup("config").Value.String()); err != nil {
			return err
		}
	}
	return next.apply()
}

func (s *settings) set(f *pflag.Flag, source string, texts ...string) error {
	_, isList := f.Value.(interface{ many() })
	if len(texts) != 1 && !isList {
		return fmt.Errorf("%s wants one value, not a list", source)
	}
	for _, text := range texts {
		if err := f.Value.Set(text); err != nil {
			return fmt.Errorf("%s has a wrong value %q: %w", source, text, err)
		}
	}
	f.Changed, s.sources[f.Name] = true, source
	return nil
}

func (s *settings) applyFile(path string) error {
	values, err := s.readFile(path)
	if err != nil {
		return err
	}
	var errs []error
	s.flags.VisitAll(func(f *pflag.Flag) {
		v, ok := values[f.Name]
		if !ok || f.Changed {
			return
		}
		source := fmt.Sprintf("%s in %s", f.Name, path)
		texts, err := settingTexts(v)
		if err == nil {
			err = s.set(f, source, texts...)
		} else {
			err = fmt.Errorf("%s: %w", source, err)
		}
		errs = append(errs, err)
	})
	return errors.Join(errs...)
}

// readFile returns what the file sets. The keys it may have are the flags:
// they are made the fields of a struct, so that the decoder finds all others
// and knows their lines.
func (s *settings) readFile(path string) (map[string]any, error) {
	var fields []reflect.StructField
	var names []string
	s.flags.VisitAll(func(f *pflag.Flag) {
		if f.Name == "config" {
			return
		}
		names = append(names, f.Name)
		fields = append(fields, reflect.StructField{
			Name: "F" + strconv.Itoa(len(fields)),
			Type: reflect.TypeFor[any](),
			Tag:  reflect.StructTag(`toml:"` + f.Name + `"`),
		})
	})
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("the configuration file cannot be read: %w", err)
	}
	defer file.Close()
	into := reflect.New(reflect.StructOf(fields))
	err = toml.NewDecoder(file).DisallowUnknownFields().Decode(into.Interface())
	if unknown, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		var errs []error
		for _, e := range unknown.Errors {
			line, _ := e.Position()
			errs = append(errs, fmt.Errorf("%s, line %d: there is no setting %s", path, line, strings.Join(e.Key(), ".")))
		}
		return nil, errors.Join(errs...)
	}
	if bad, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, _ := bad.Position()
		return nil, fmt.Errorf("%s, line %d: %w", path, line, bad)
	}
	if err != nil {
		return nil, fmt.Errorf("the configuration file %s cannot be read: %w", path, err)
	}
	values := make(map[string]any)
	for i, name := range names {
		if v := into.Elem().Field(i).Interface(); v != nil {
			values[name] = v
		}
	}
	return values, nil
}

// settingTexts renders a TOML value as it would stand on the command line.
func settingTexts(v any) ([]string, error) {
	switch v := v.(type) {
	case string:
		return []string{v}, nil
	case bool, int64:
		return []string{fmt.Sprint(v)}, nil
	case []any:
		texts := []string{}
		for _, item := range v {
			t, err := settingTexts(item)
			if err != nil {
				return nil, err
			}
			texts = append(texts, t...)
		}
		return texts, nil
	}
	return nil, errors.New(`want text, such as "500ms", a whole number, true, false, or a list`)
}

// strayVariables are those that look like settings of hem serve and are none.
// They are worth a warning and no more: who runs containers may meet others'
// of the same prefix.
func (s *settings) strayVariables(environ []string) (stray []string) {
	known := make(map[string]bool)
	s.flags.VisitAll(func(f *pflag.Flag) { known[serveEnvName(f.Name)] = true })
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, serveEnvPrefix) && !known[name] {
			stray = append(stray, name)
		}
	}
	return stray
}
