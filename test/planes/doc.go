// Package planes tests the Workload Manager and the Router together, over
// sandboxes in memory: what neither can promise alone, at a speed at which races
// happen.
package planes
