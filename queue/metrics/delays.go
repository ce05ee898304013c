package metrics

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/mta/histogram"
	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// Delays are how long mail takes, by stage: the four parts into which Postfix divides its
// delays=a/b/c/d.
type Delays struct {
	stages *prometheus.HistogramVec
	whole  prometheus.Histogram

	before, queue, connect, transmit prometheus.Observer // of stages

	batch *histogram.Batch
}

// newDelays makes the histograms, which nobody has registered. They get their values through the batch.
func newDelays(batch *histogram.Batch) Delays {
	opts := func(name, help string) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{
			Name: "meta1_qmgr_" + name, Help: help,
			// From milliseconds to the days that mail may wait for a host.
			Buckets:                     []float64{.001, .005, .02, .1, .5, 1, 5, 15, 60, 300, 900, 3600, 14400, 43200, 86400, 259200},
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
		}
	}
	stages := prometheus.NewHistogramVec(opts("delay_seconds", "Delay of mail by stage: before_queue (MAIL to durable, for each message), queue, connect, transmit (for each attempt that delivered)."), []string{"stage"})
	return Delays{
		stages: stages,
		whole:  prometheus.NewHistogram(opts("delivery_delay_seconds", "Time from MAIL to the reply of the next host, for each attempt that delivered.")),
		before: stages.WithLabelValues("before_queue"), queue: stages.WithLabelValues("queue"),
		connect: stages.WithLabelValues("connect"), transmit: stages.WithLabelValues("transmit"),
		batch: batch,
	}
}

// Accepted notes a message that has become durable at now, the time of day.
func (d *Delays) Accepted(e *msg.Envelope, now time.Time) { d.observe(d.before, now.Sub(e.Arrival)) }

// Delivered notes an attempt that has ended at now, the time of day, if a delivered the message to
// anybody. waited is how long its first recipient had been in the queue when it began.
func (d *Delays) Delivered(e *msg.Envelope, waited time.Duration, a *msg.DeliverA, now time.Time) {
	if !slices.ContainsFunc(a.Rcpts, smtp.Reply.Accepted) {
		return
	}
	d.observe(d.queue, waited)
	d.observe(d.connect, a.Connect)
	d.observe(d.transmit, a.Elapsed-a.Connect)
	d.observe(d.whole, now.Sub(e.Arrival))
}

// observe notes a delay. One below zero is that of a clock that was set back.
func (d *Delays) observe(o prometheus.Observer, took time.Duration) {
	d.batch.Observe(o, max(took, 0).Seconds())
}
