package server

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"softhem/internal/build"
	"softhem/internal/module"
	"softhem/internal/syslog"
)

// metrics is what an operator's Prometheus reads, on a registry of its own.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	known    sync.Map // of observed to series
}

func newMetrics(m func() *module.Module, sinks *syslog.Sinks) *metrics {
	x := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "softhem_http_requests_total", Help: "Requests answered, by route and status; 499 is a caller that hung up.",
		}, []string{"route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "softhem_http_request_duration_seconds", Help: "Time from a request's head to its answer, damping included.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .1, .5, 1, 1.6, 2.5, 10},
		}, []string{"route"}),
	}
	x.registry.MustRegister(
		x.requests, x.seconds,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "softhem_logins_waiting", Help: "Logins held back by the damping.",
		}, func() float64 { return float64(m().WaitingLogins()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "softhem_ready", Help: "1 when the module can do its work.",
		}, func() float64 {
			if m().Ready() == nil {
				return 1
			}
			return 0
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "softhem_fail_state", Help: "The latched fail state, a bit mask; 0 is healthy.",
		}, func() float64 { return float64(m().FailState()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "softhem_log_rolled_back", Help: "1 when the audit log found at start was not the one the module kept.",
		}, func() float64 {
			if m().LogRolledBack() {
				return 1
			}
			return 0
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "softhem_build_info", Help: "Always 1; the version is the label.",
			ConstLabels: prometheus.Labels{"version": build.Version()},
		}, func() float64 { return 1 }),
	)
	if sinks != nil {
		x.registry.MustRegister(sinkMetrics{sinks})
	}
	return x
}

// sinkMetrics tells how the log's sinks do.
type sinkMetrics struct{ sinks *syslog.Sinks }

func (sinkMetrics) descs() (up, queued, sent, dropped, failures *prometheus.Desc) {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, []string{"sink"}, nil)
	}
	return desc("softhem_audit_sink_up", "1 while the sink is connected."),
		desc("softhem_audit_sink_queued_bytes", "Bytes of log lines that wait for the sink."),
		desc("softhem_audit_sink_records_sent_total", "Records sent; those sent again after a connection broke count again."),
		desc("softhem_audit_sink_records_dropped_total", "Records the sink missed because its queue was full."),
		desc("softhem_audit_sink_failures_total", "Connections that broke, and attempts to connect that failed.")
}

func (m sinkMetrics) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

func (m sinkMetrics) Collect(ch chan<- prometheus.Metric) {
	up, queued, sent, dropped, failures := m.descs()
	for _, s := range m.sinks.Stats() {
		isUp := 0.0
		if s.Up {
			isUp = 1
		}
		ch <- prometheus.MustNewConstMetric(up, prometheus.GaugeValue, isUp, s.Target)
		ch <- prometheus.MustNewConstMetric(queued, prometheus.GaugeValue, float64(s.QueuedBytes), s.Target)
		ch <- prometheus.MustNewConstMetric(sent, prometheus.CounterValue, float64(s.Sent), s.Target)
		ch <- prometheus.MustNewConstMetric(dropped, prometheus.CounterValue, float64(s.Dropped), s.Target)
		ch <- prometheus.MustNewConstMetric(failures, prometheus.CounterValue, float64(s.Disconnected), s.Target)
	}
}

// observed is a route with a status; there are a few dozen.
type observed struct {
	route  string
	status int
}

// series are the two metrics that an answer adds to, looked up once.
type series struct {
	count   prometheus.Counter
	seconds prometheus.Observer
}

func (x *metrics) observe(route string, status int, took time.Duration) {
	key := observed{route, status}
	s, ok := x.known.Load(key)
	if !ok {
		s, _ = x.known.LoadOrStore(key, series{
			x.requests.WithLabelValues(route, strconv.Itoa(status)), x.seconds.WithLabelValues(route),
		})
	}
	s.(series).count.Inc()
	s.(series).seconds.Observe(took.Seconds())
}

// handler serves /metrics, /healthz (the process is up) and /readyz (the
// module can do its work).
func (x *metrics) handler(m func() *module.Module) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(x.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := m().Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	return mux
}
