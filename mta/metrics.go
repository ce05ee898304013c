package mta

import (
	"net/http"
	"net/http/pprof"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"meta1/mta/control"
	"meta1/mta/settings"
	"meta1/mta/supervise"
)

// hub gathers the metrics of all modules. A module that is started again gets a
// new registry, so its counters begin at zero, which Prometheus understands.
type hub struct {
	own *prometheus.Registry // of mta itself and of Go

	mu      sync.Mutex // guards modules
	modules map[string]*prometheus.Registry
}

func newHub(version string) *hub {
	h := &hub{own: prometheus.NewRegistry(), modules: map[string]*prometheus.Registry{}}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "meta1_mta_build_info", Help: "Always 1; the label tells the version.", ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	h.own.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), build)
	return h
}

// fresh makes a registry for a new instance of a module; it replaces the last one's.
func (h *hub) fresh(unit string) prometheus.Registerer {
	r := prometheus.NewRegistry()
	h.put(unit, r)
	return r
}

// put has a registry take the place of that of a module, and drop forgets it.
func (h *hub) put(unit string, r *prometheus.Registry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.modules[unit] = r
}

func (h *hub) drop(unit string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.modules, unit)
}

// Gather collects all metrics.
func (h *hub) Gather() ([]*dto.MetricFamily, error) {
	h.mu.Lock()
	names := make([]string, 0, len(h.modules))
	for name := range h.modules {
		names = append(names, name)
	}
	slices.Sort(names)
	all := prometheus.Gatherers{h.own}
	for _, name := range names {
		all = append(all, h.modules[name])
	}
	h.mu.Unlock()
	return all.Gather()
}

// unitCollector shows the states of the units.
type unitCollector struct{ tree *supervise.Tree }

func unitDescs() (up, restarts *prometheus.Desc) {
	label := []string{"module"}
	return prometheus.NewDesc("meta1_mta_module_up", "1 if the module or service is up.", label, nil),
		prometheus.NewDesc("meta1_mta_module_restarts_total", "Restarts of the module or service.", label, nil)
}

// Describe tells the metrics of Collect.
func (c unitCollector) Describe(d chan<- *prometheus.Desc) {
	up, restarts := unitDescs()
	d <- up
	d <- restarts
}

// Collect takes a snapshot of the units.
func (c unitCollector) Collect(m chan<- prometheus.Metric) {
	up, restarts := unitDescs()
	for _, s := range c.tree.Status() {
		v := 0.0
		if s.State == supervise.Up {
			v = 1
		}
		m <- prometheus.MustNewConstMetric(up, prometheus.GaugeValue, v, s.Name)
		m <- prometheus.MustNewConstMetric(restarts, prometheus.CounterValue, float64(s.Restarts), s.Name)
	}
}

// How much of what is only profiled on request is sampled: one event for each
// 20 µs of blocking, and one contention in 50.
const (
	blockProfileRate     = 20_000
	mutexProfileFraction = 50
)

// answerTime bounds how long metrics are collected, and how long their reader and that of
// health may take.
const answerTime = 10 * time.Second

// soon bounds the time for an answer; only profiles may take longer.
func soon(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(2 * answerTime)) // fails for a test's recorder
		h.ServeHTTP(w, r)
	})
}

// httpHandler serves metrics and health, and profiles if they are wanted.
func (m *mta) httpHandler() http.Handler {
	mux := http.NewServeMux()
	// An answer is made as a whole before it is sent, so that who reads it slowly occupies
	// nothing but a connection.
	metrics := http.TimeoutHandler(promhttp.HandlerFor(m.hub, promhttp.HandlerOpts{MaxRequestsInFlight: 8, Registry: m.hub.own}), answerTime, "")
	mux.Handle("GET /metrics", soon(metrics))
	mux.Handle("GET /healthz", soon(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		writeHealth(w, m.working(r.Context()), m.givenUp())
	})))
	mux.Handle("GET /readyz", soon(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		writeHealth(w, m.Health(r.Context()), nil)
	})))
	for path, h := range map[string]http.HandlerFunc{"": pprof.Index, "cmdline": pprof.Cmdline, "profile": pprof.Profile, "symbol": pprof.Symbol, "trace": pprof.Trace} {
		mux.HandleFunc("GET /debug/pprof/"+path, func(w http.ResponseWriter, r *http.Request) {
			if !m.current().conf.Metrics.Pprof {
				http.NotFound(w, r)
				return
			}
			h(w, r)
		})
	}
	profile(&m.conf.Metrics)
	return mux
}

// profile has the runtime record blocking and contention if they can be asked for.
func profile(c *settings.MetricsConfig) {
	rate, fraction := 0, 0
	if c.Present && c.Pprof {
		rate, fraction = blockProfileRate, mutexProfileFraction
	}
	runtime.SetBlockProfileRate(rate)
	runtime.SetMutexProfileFraction(fraction)
}

// writeHealth answers a question for health in words, one reason a line.
func writeHealth(w http.ResponseWriter, h control.Health, warnings []string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	text := "ok\n"
	if !h.OK {
		w.WriteHeader(http.StatusServiceUnavailable)
		text = ""
		for _, r := range h.Reasons {
			text += r + "\n"
		}
	}
	for _, r := range warnings {
		text += "warning: " + r + "\n"
	}
	_, _ = w.Write([]byte(text)) // the client has gone otherwise
}
