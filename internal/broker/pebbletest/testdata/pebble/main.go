// This program is the certificate authority that the broker is tested against:
// pebble, Let's Encrypt's ACME server for tests, with the DNS it asks. In that
// every name leads to 127.0.0.1, and TXT records are those told by
// PUT and DELETE /txt/<name> with the value as the body.
//
//	pebble -http-port 8090 -tls-cert cert.pem -tls-key key.pem
//
// When it listens it prints: ready directory=https://… roots=https://… txt=http://…
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"
)

func main() {
	port := flag.Int("http-port", 80, "where http-01 is looked for")
	cert := flag.String("tls-cert", "", "certificate of the API")
	key := flag.String("tls-key", "", "its key")
	validity := flag.Uint64("validity", 90*86400, "life of a certificate, in seconds")
	flag.Parse()

	names := &zone{txt: map[string][]string{}}
	packets := must(net.ListenPacket("udp", "127.0.0.1:0"))
	go func() { log.Fatal((&dns.Server{PacketConn: packets, Handler: names}).ActivateAndServe()) }()
	stream := must(net.Listen("tcp", packets.LocalAddr().String())) // a resolver may ask either way
	go func() { log.Fatal((&dns.Server{Listener: stream, Handler: names}).ActivateAndServe()) }()
	control := must(net.Listen("tcp", "127.0.0.1:0"))
	go func() { log.Fatal(http.Serve(control, names)) }()

	logger := log.New(os.Stderr, "pebble ", 0)
	store := db.NewMemoryStore()
	authority := ca.New(logger, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {ValidityPeriod: *validity}})
	validator := va.New(logger, *port, 0, false, packets.LocalAddr().String(), store)
	front := wfe.New(logger, store, validator, authority, []string{"pebble.test"}, false, false, 1, 1)
	management, api := must(net.Listen("tcp", "127.0.0.1:0")), must(net.Listen("tcp", "127.0.0.1:0"))
	go func() { log.Fatal(http.ServeTLS(management, front.ManagementHandler(), *cert, *key)) }()
	fmt.Printf("ready directory=https://%s%s roots=https://%s%s0 txt=http://%s/txt/\n",
		api.Addr(), wfe.DirectoryPath, management.Addr(), wfe.RootCertPath, control.Addr())
	log.Fatal(http.ServeTLS(api, front.Handler(), *cert, *key))
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}

// zone is the whole DNS.
type zone struct {
	mu  sync.Mutex
	txt map[string][]string // by name, with its last dot
}

func (z *zone) ServeDNS(w dns.ResponseWriter, req *dns.Msg) {
	z.mu.Lock()
	defer z.mu.Unlock()
	answer := new(dns.Msg)
	answer.SetReply(req)
	for _, q := range req.Question {
		header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET}
		switch q.Qtype {
		case dns.TypeA:
			answer.Answer = append(answer.Answer, &dns.A{Hdr: header, A: net.IPv4(127, 0, 0, 1)})
		case dns.TypeTXT:
			for _, text := range z.txt[strings.ToLower(q.Name)] {
				answer.Answer = append(answer.Answer, &dns.TXT{Hdr: header, Txt: []string{text}})
			}
		}
	}
	_ = w.WriteMsg(answer)
}

func (z *zone) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	value, err := io.ReadAll(io.LimitReader(r.Body, 1024))
	name, ok := strings.CutPrefix(r.URL.Path, "/txt/")
	if err != nil || !ok {
		http.Error(w, "no such record", http.StatusBadRequest)
		return
	}
	name = dns.Fqdn(strings.ToLower(name))
	z.mu.Lock()
	defer z.mu.Unlock()
	switch r.Method {
	case http.MethodPut:
		z.txt[name] = append(z.txt[name], string(value))
	case http.MethodDelete:
		z.txt[name] = slices.DeleteFunc(z.txt[name], func(one string) bool { return one == string(value) })
	default:
		fmt.Fprintln(w, strings.Join(z.txt[name], "\n"))
	}
}
