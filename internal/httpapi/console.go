package httpapi

import (
	"net/http"
	"path"
	"strconv"
	"strings"

	"softhem/api"
)

// consolePolicy lets the pages of a console load what stands beside them, and talk
// to their own module, and nothing else: no inline script, no other host, no frame
// around them.
const consolePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; " +
	"manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// consoleType is the type of a file by its name. The list is short and our own, so
// that it is the same on each host; what is not in it, a browser does not run.
func consoleType(name string) string {
	switch strings.ToLower(path.Ext(name)) {
	case ".html", ".htm":
		return "text/html; charset=utf-8"
	case ".js", ".mjs":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".json", ".map", ".webmanifest":
		return "application/json"
	case ".svg":
		return "image/svg+xml"
	case ".png":
		return "image/png"
	case ".ico":
		return "image/x-icon"
	case ".jpg", ".jpeg":
		return "image/jpeg"
	case ".webp":
		return "image/webp"
	case ".woff2":
		return "font/woff2"
	case ".wasm":
		return "application/wasm"
	case ".txt":
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}

// serveConsole answers a request for a path outside /api/ with a file of the web
// console that was installed. It needs no token: the files are no secret, and what
// they ask for goes through the API.
func (c *call) serveConsole() (status int) {
	if c.cfg.LoopbackOnly && !isLoopbackName(c.r.Host) {
		return c.fail(api.ErrNotFound.Because("this module answers to loopback names only"))
	}
	files := c.module.Console()
	if files == nil {
		return c.fail(api.ErrNotFound.Because("no web console is installed"))
	}
	name, content, ok := files.Get(c.r.URL.Path)
	if !ok || c.r.Method != http.MethodGet && c.r.Method != http.MethodHead {
		return c.fail(api.ErrNotFound.Because("there is no such file in the web console"))
	}
	header := c.w.Header()
	header.Set("Content-Type", consoleType(name))
	header.Set("Content-Length", strconv.Itoa(len(content)))
	header.Set("Content-Security-Policy", consolePolicy)
	header.Set("X-Frame-Options", "DENY")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	c.w.WriteHeader(http.StatusOK)
	if c.r.Method == http.MethodGet {
		_, _ = c.w.Write(content) // the caller may have gone
	}
	return http.StatusOK
}
