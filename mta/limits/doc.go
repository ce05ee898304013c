// Package limits knows how much memory and how many open files the system allows this process, raises what it may raise,
// and has the Go runtime keep to the memory. Each function sets something of the whole process, which has it once: only
// package mta calls them. What a configuration needs of both, package mta knows.
package limits
