package httpapi

import (
	"io"
	"net/http"
	"time"
)

// Routes lists method and path of every route, for the tests that walk them.
func Routes() (all [][2]string) {
	for _, rt := range routes() {
		all = append(all, [2]string{rt.method, rt.path})
	}
	return all
}

// DiagRoutes lists those of a diagnostic build.
func DiagRoutes() (all [][2]string) {
	for _, rt := range diagRoutes() {
		all = append(all, [2]string{rt.method, rt.path})
	}
	return all
}

// UploadName reads the file name of an upload.
var UploadName = uploadName

// ReadUpload reads a body as an upload is read.
func ReadUpload(w http.ResponseWriter, r *http.Request) (int64, error) {
	c := &call{w: w, r: r}
	return io.Copy(io.Discard, &pieces{call: c, rc: http.NewResponseController(w), end: time.Now().Add(uploadPatience)})
}
