// Package api answers those questions of the control API that need no more than the modules'
// ports: counts and rates, the summary of the queue, the story of one message. It keeps what it has
// counted for a while, so that many askers cost as much as one.
package api
